"""musicnn's weights: TensorFlow checkpoints out of the published wheel, kept as safetensors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ossicle.backbones.musicnn import BATCH_NORM_EPS, MusiCNN
from ossicle.backbones.tf_checkpoint_reader import read_checkpoint
from ossicle.backbones.weight_files import Weights, WeightSource, read_cached, write_cached
from ossicle.download import WheelMember, cache_dir, fetch_wheel_members
from ossicle.errors import DownloadError

MUSICNN_WHEEL = "musicnn==0.1.0"

# Tags in the order of the outputs, from the wheel's musicnn/configuration.py.
MTT_TAGS = (
    "guitar, classical, slow, techno, strings, drums, electronic, rock, fast, piano, ambient, "
    "beat, violin, vocal, synth, female, indian, opera, male, singing, vocals, no vocals, "
    "harpsichord, loud, quiet, flute, woman, male vocal, no vocal, pop, soft, sitar, solo, man, "
    "classic, choir, voice, new age, dance, male voice, female vocal, beats, harp, cello, "
    "no voice, weird, country, metal, female voice, choral"
)
MSD_TAGS = (
    "rock, pop, alternative, indie, electronic, female vocalists, dance, 00s, alternative rock, "
    "jazz, beautiful, metal, chillout, male vocalists, classic rock, soul, indie rock, Mellow, "
    "electronica, 80s, folk, 90s, chill, instrumental, punk, oldies, blues, hard rock, ambient, "
    "acoustic, experimental, female vocalist, guitar, Hip-Hop, 70s, party, country, "
    "easy listening, sexy, catchy, funk, electro, heavy metal, Progressive rock, 60s, rnb, "
    "indie pop, sad, House, happy"
)


class Published(NamedTuple):
    """One of the published checkpoints.

    Attributes:
        folder: its name in the wheel.
        index_sha256: checksum of the list of its tensors.
        data_sha256: checksum of their values.
        tags: names of the outputs, in order.
    """

    folder: str
    index_sha256: str
    data_sha256: str
    tags: tuple[str, ...]


MTT = Published(
    "MTT_musicnn",
    "da2d7bb670b2b31e9bc441bb1bd75eca31b5b061f963cc1f9630c1aff3238f57",
    "041f3935e981a65cea739842d30c188d3a7d2adf4410955c8668eb3de4a5acab",
    tuple(MTT_TAGS.split(", ")),
)
MSD = Published(
    "MSD_musicnn",
    "87f3e0f3550c8d3bafc840374003e5c8af5eeb5ecf6add61af09a7822d3282c8",
    "8579734ee6388f799ed0def4bbd0d1fdcbeaf213ef2a9dc860917bd76a303de6",
    tuple(MSD_TAGS.split(", ")),
)


def fetch_musicnn(published: Published) -> tuple[Path, Path]:
    """A checkpoint's index and data; from the cache, a local wheel, or the package registry.

    Raises:
        DownloadError: they are not to be had, or a checksum is wrong.
    """
    files = ((".index", published.index_sha256), (".data-00000-of-00001", published.data_sha256))
    # In the wheel, the files of all checkpoints have the same names.
    wanted = [
        WheelMember(f"musicnn/{published.folder}/{name}", sha256, f"{published.folder}{name}")
        for name, sha256 in files
    ]
    index, data = fetch_wheel_members(MUSICNN_WHEEL, wanted)
    return index, data


def convert_musicnn(index: Path, data: Path, tags: Sequence[str]) -> Weights:
    """A checkpoint's tensors under ``MusiCNN``'s names, and its classifier with them.

    The published classifier normalises the maximum and the mean over time of every map, has a
    layer of 200 with ReLU, normalises that, and has an output for each tag. Both normalisations
    stand before a linear layer, which takes them in.

    Raises:
        DownloadError: the files are not this network.
    """
    # TensorFlow numbers its layers as they were made: "conv2d", "conv2d_1", ...
    modules = [f"timbral.{i}.layers" for i in range(2)]
    modules += [f"temporal.{i}.layers" for i in range(3)] + [f"dense.{i}" for i in range(3)]
    suffixes = ["", *(f"_{i}" for i in range(1, 11))]
    names = [f"conv2d{s}/{part}" for s in suffixes[:8] for part in ("kernel", "bias")]
    norms = ("gamma", "beta", "moving_mean", "moving_variance")
    names += [f"batch_normalization{s}/{part}" for s in suffixes for part in norms]
    names += [f"dense{s}/{part}" for s in suffixes[:2] for part in ("kernel", "bias")]
    tensors = read_checkpoint(index, [data], names)
    state = _norm_state("input_norm", tensors, "batch_normalization")
    for i, module in enumerate(modules):
        kernel = tensors[f"conv2d{suffixes[i]}/kernel"]
        if kernel.ndim != 4:
            raise DownloadError(f"{index}: not musicnn (a convolution is {kernel.shape})")
        # From (time, band, in, out) to (out, in, band, time); in the middle, bands are channels.
        kernel = kernel.transpose(3, 2, 1, 0)
        kernel = kernel[:, 0] if module.startswith("dense") else kernel
        state[f"{module}.0.weight"] = _tensor(kernel)
        state[f"{module}.0.bias"] = _tensor(tensors[f"conv2d{suffixes[i]}/bias"])
        state |= _norm_state(f"{module}.2", tensors, f"batch_normalization{suffixes[i + 1]}")
    own = MusiCNN().state_dict()
    for name, tensor in state.items():
        if tensor.shape != own[name].shape:
            raise DownloadError(f"{index}: not musicnn ({name} is {tuple(tensor.shape)})")
    channels = sum(info.channels for info in MusiCNN().feature_info)
    sizes = [tensors[f"dense{s}/kernel"].shape for s in suffixes[:2]]
    norm_sizes = [tensors[f"batch_normalization{s}/gamma"].shape for s in suffixes[9:]]
    if sizes != [(2 * channels, *norm_sizes[1]), (*norm_sizes[1], len(tags))]:
        raise DownloadError(f"{index}: not musicnn (its classifier is {sizes})")
    hidden = _linear(tensors, "batch_normalization_9", "dense")
    head = _linear(tensors, "batch_normalization_10", "dense_1")
    # Channel by channel, the maximum stands before the mean; a read-out has block after block.
    columns, readout, start = [], [], 0
    for info in MusiCNN().feature_info:
        for offset, pooling in enumerate(("max", "mean")):
            columns.append(torch.arange(start, start + info.channels) * 2 + offset)
            readout.append(f"{info.name}/{pooling}")
        start += info.channels
    hidden = (hidden[0][:, torch.cat(columns)].contiguous(), hidden[1])
    return Weights(state, head, tuple(tags), (hidden,), tuple(readout))


def _norm_state(module: str, tensors: dict[str, np.ndarray], name: str) -> dict[str, Tensor]:
    parts = {
        "weight": "gamma",
        "bias": "beta",
        "running_mean": "moving_mean",
        "running_var": "moving_variance",
    }
    state = {f"{module}.{own}": _tensor(tensors[f"{name}/{part}"]) for own, part in parts.items()}
    return state | {f"{module}.num_batches_tracked": torch.tensor(0)}


def _linear(tensors: dict[str, np.ndarray], norm: str, dense: str) -> tuple[Tensor, Tensor]:
    """(weight (out, in), bias (out,)) of a batch norm and the linear layer behind it, in one."""
    gamma, beta, mean, variance = (
        tensors[f"{norm}/{part}"].astype(np.float64)
        for part in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    kernel = tensors[f"{dense}/kernel"].astype(np.float64)
    gain = gamma / np.sqrt(variance + BATCH_NORM_EPS)
    bias = tensors[f"{dense}/bias"] + (beta - mean * gain) @ kernel
    return _tensor((kernel * gain[:, None]).T), _tensor(bias)


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))


def _load(published: Published) -> Weights:
    marks = f"{published.index_sha256[:6]}{published.data_sha256[:6]}"
    cached = cache_dir() / f"{published.folder}-{marks}.safetensors"
    weights = read_cached(cached)
    if weights is None:
        weights = convert_musicnn(*fetch_musicnn(published), published.tags)
        write_cached(cached, weights)
    return weights


def load_musicnn() -> Weights:
    """The weights from MagnaTagATune, from the cache; the first call fetches and converts them.

    Raises:
        DownloadError: they are not to be had.
    """
    return _load(MTT)


def load_musicnn_msd() -> Weights:
    """The weights from the Million Song Dataset, from the cache, as ``load_musicnn``.

    Raises:
        DownloadError: they are not to be had.
    """
    return _load(MSD)


def _origin(published: Published) -> str:
    return (
        f"TensorFlow checkpoint musicnn/{published.folder} of the wheel {MUSICNN_WHEEL}, "
        "(c) 2019 Music Technology Group, Universitat Pompeu Fabra"
    )


MUSICNN = WeightSource("MagnaTagATune, 50 tags", "ISC", _origin(MTT), load_musicnn)
MUSICNN_MSD = WeightSource("Million Song Dataset, 50 tags", "ISC", _origin(MSD), load_musicnn_msd)
