"""Weights of Resemblyzer's voice encoder: a state dict out of the published wheel."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ossicle.backbones.speaker_encoder import LSTMS, SpeakerEncoder
from ossicle.backbones.weight_files import Weights, WeightSource, read_cached, write_cached
from ossicle.download import WheelMember, cache_dir, fetch_wheel_members
from ossicle.errors import DownloadError

WHEEL = "resemblyzer==0.1.4"
MEMBER = "resemblyzer/pretrained.pt"
SHA256 = "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e"


def fetch_speaker_encoder() -> Path:
    """The published file, from the cache, a local wheel, or the package registry.

    Raises:
        DownloadError: it is not to be had, or its checksum is wrong.
    """
    return fetch_wheel_members(WHEEL, [WheelMember(MEMBER, SHA256, "resemblyzer.pt")])[0]


def convert_speaker_encoder(path: Path) -> Weights:
    """The published state dict under the names of ``SpeakerEncoder``.

    The scale and the shift of similarities, which only the training needs, are left out.

    Raises:
        DownloadError: the file is not this network.
    """
    try:
        published = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # its reader has a dozen ways to fail on another file
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DownloadError(f"{path}: not a file of weights ({reason})") from error
    tensors = published.get("model_state") if isinstance(published, dict) else None
    if not isinstance(tensors, dict):
        raise DownloadError(f"{path}: not Resemblyzer's voice encoder")
    state: dict[str, Tensor] = {}
    for name, own in SpeakerEncoder().state_dict().items():
        # Such as "lstms.lstm2.weight_ih_l0", which is published as "lstm.weight_ih_l1".
        theirs = name
        for number, layer in enumerate(LSTMS):
            if name.startswith(f"lstms.{layer}."):
                part = name.removeprefix(f"lstms.{layer}.").removesuffix("_l0")
                theirs = f"lstm.{part}_l{number}"
        tensor = tensors.get(theirs)
        if not isinstance(tensor, Tensor) or tensor.shape != own.shape:
            raise DownloadError(f"{path}: not Resemblyzer's voice encoder (no such {theirs})")
        state[name] = tensor.detach().to(torch.float32).clone()
    return Weights(state, None, ())


def load_speaker_encoder() -> Weights:
    """The weights from the cache; the first call fetches and converts them.

    Raises:
        DownloadError: they are not to be had.
    """
    cached = cache_dir() / f"speaker_encoder-{SHA256[:12]}.safetensors"
    weights = read_cached(cached)
    if weights is None:
        weights = convert_speaker_encoder(fetch_speaker_encoder())
        write_cached(cached, weights)
    return weights


SPEAKER_ENCODER = WeightSource(
    "voices of many speakers",
    "Apache-2.0",
    f"member {MEMBER} of the wheel {WHEEL}, by Corentin Jemine, Resemble AI",
    load_speaker_encoder,
)
