"""Weights of EfficientAT's networks, from the files of the project's release."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from ossicle.backbones.mobilenet_v3 import BLOCKS
from ossicle.backbones.weight_files import Weights, WeightSource, read_cached, write_cached
from ossicle.download import cache_dir, fetch_url
from ossicle.errors import DownloadError

MN04_FILE = "mn04_as_mAP_432.pt"
MN04_URL = f"https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1/{MN04_FILE}"
MN04_SHA256 = "899a8c6217063f6941793102a2780b3dd788ab11fce468d9cf5f0577c453321c"


def fetch_mn04() -> Path:
    """The published file, from the cache or the project's release.

    Raises:
        DownloadError: it is not to be had, or its checksum is wrong.
    """
    return fetch_url(MN04_URL, MN04_SHA256, MN04_FILE)


def convert_efficientat(path: Path) -> Weights:
    """The published state dict under the names of ``MobileNetV3``.

    Its classifier is left out: it has a hidden layer, and the file does not name its 527 classes.

    Raises:
        DownloadError: the file is not this network.
    """
    try:
        published = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # its reader has a dozen ways to fail on another file
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DownloadError(f"{path}: not a file of weights ({reason})") from error
    if not isinstance(published, dict) or "features.16.0.weight" not in published:
        raise DownloadError(f"{path}: not a network of EfficientAT")
    state: dict[str, Tensor] = {}
    for name, tensor in published.items():
        if name.startswith("features."):
            state[_own_name(name)] = tensor.clone()
    return Weights(state, None, ())


def _own_name(name: str) -> str:
    """Such as "features.4.block.2.conc_se_layers.0.fc1.bias" -> "blocks.block4.layers.2.fc1.bias".

    >>> _own_name("features.0.1.bias"), _own_name("features.16.0.weight")
    ('blocks.stem.1.bias', 'blocks.last.0.weight')
    """
    _, number, rest = name.split(".", 2)
    ends = {0: "stem", len(BLOCKS) + 1: "last"}
    rest = re.sub(r"^block\.", "layers.", rest).replace("conc_se_layers.0.", "")
    return f"blocks.{ends.get(int(number), f'block{number}')}.{rest}"


def load_mn04() -> Weights:
    """mn04_as's weights from the cache; the first call fetches and converts them.

    Raises:
        DownloadError: they are not to be had.
    """
    cached = cache_dir() / f"efficientat_mn04-{MN04_SHA256[:12]}.safetensors"
    weights = read_cached(cached)
    if weights is None:
        weights = convert_efficientat(fetch_mn04())
        write_cached(cached, weights)
    return weights


EFFICIENTAT_MN04 = WeightSource(
    "AudioSet, without its classifier",
    "MIT",
    f"{MN04_FILE} of EfficientAT's release v0.0.1, (c) 2022 Florian Schmid; {MN04_URL}",
    load_mn04,
)
