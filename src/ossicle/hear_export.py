"""Our networks and bundles for the HEAR benchmark: this module has its API.

``hear-eval`` and the like take a module and a file of weights; here that is ``ossicle.hear_export``
and a bundle's folder or a backbone's name. B clips, N samples, T moments, D values; rules of
Turian et al. 2022, arXiv 2203.03022, section 3: times in milliseconds, at the middle of what they
stand for, regular, at most 50 ms apart.
"""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ossicle import bundle
from ossicle.audio import resample
from ossicle.backbones import DEFAULT_BACKBONE, WEIGHTS, is_family
from ossicle.errors import OssicleError
from ossicle.model import Model, create_model
from ossicle.record import replaced

HOP_MS = 50.0
# Rates at which the benchmark has its sounds; a network of another hears them resampled.
SAMPLE_RATES = (16_000, 22_050, 44_100, 48_000)
_MODULE = '''"""HEAR module of the bundle {folder}; needs ossicle."""

from pathlib import Path

from ossicle import hear_export
from ossicle.hear_export import get_scene_embeddings, get_timestamp_embeddings

__all__ = ["get_scene_embeddings", "get_timestamp_embeddings", "load_model"]

BUNDLE = Path(__file__).resolve().parent / {folder}


def load_model(model_file_path: str = "") -> hear_export.HEARModel:
    """The bundle beside this file, or another one."""
    return hear_export.load_model(model_file_path or str(BUNDLE))
'''


class HEARModel(nn.Module):
    """A model of ours as HEAR asks for it.

    Args:
        model: its front end and backbone are used; the head is not.
        layers: those that both embeddings hold; None is all.
        poolings: those that the scene embedding holds of each layer; None is the backbone's own.

    Attributes:
        sample_rate: Hz of the audio it takes, one of ``SAMPLE_RATES``.
        scene_embedding_size: D of a clip.
        timestamp_embedding_size: D of a moment: the channels of all its layers.
    """

    def __init__(
        self,
        model: Model,
        layers: Sequence[str] | None = None,
        poolings: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.model = model.eval()
        self.layers = model.select_layers("all" if layers is None else list(layers))
        self.poolings = tuple(model.backbone.poolings if poolings is None else poolings)
        own = model.sample_rate
        self.sample_rate = next((r for r in SAMPLE_RATES if r >= own), SAMPLE_RATES[-1])
        names = [f"{layer}/{pooling}" for layer in self.layers for pooling in self.poolings]
        self.scene_embedding_size = sum(model.block_sizes(names).values())
        channels = {info.name: info.channels for info in model.backbone.feature_info}
        self.timestamp_embedding_size = sum(channels[layer] for layer in self.layers)

    def forward(self, audio: Tensor) -> Tensor:
        """(B, N) -> (B, D) scene embeddings."""
        return get_scene_embeddings(audio, self)


def load_model(model_file_path: str = "") -> HEARModel:
    """A model for the functions below.

    Args:
        model_file_path: a bundle, of which the layers that its head reads are used, or a backbone,
            of which all are: a name from `ossicle backbones` or one of a family; "" is
            ``ossicle.DEFAULT_BACKBONE``. Published weights are loaded where there are any.

    Raises:
        OssicleError: neither a bundle nor a backbone.
    """
    what = model_file_path or DEFAULT_BACKBONE
    if Path(what).is_dir() or what.endswith("/"):
        model = bundle.load(what)
        if model.readout:
            return HEARModel(model, *model.readout_parts())
        return HEARModel(model)
    base = create_model(what, pretrained=what in WEIGHTS or is_family(what))
    # Without the head of its source task, which reads one layer alone.
    return HEARModel(Model(base.frontend, base.backbone, clip=base.clip, info=base.info))


def get_scene_embeddings(audio: Tensor, model: HEARModel) -> Tensor:
    """(B, N) at ``model.sample_rate``, in [-1, 1] -> (B, scene_embedding_size) float32.

    Each clip by itself, as `ossicle embed` has it: the layers' poolings over the whole of it, side
    by side. The result is on the model's device.

    Raises:
        OssicleError: the audio is not (B, N) of floating point, or N is 0.
    """
    rows = []
    for samples in _clips(audio, model):
        blocks = model.model.clip_features(samples, model.layers, model.poolings)
        rows.append(np.concatenate(list(blocks.values())))
    return torch.from_numpy(np.stack(rows)).to(model.model.device)


@torch.inference_mode()
def get_timestamp_embeddings(audio: Tensor, model: HEARModel) -> tuple[Tensor, Tensor]:
    """(B, N) at ``model.sample_rate`` -> (B, T, timestamp_embedding_size) float32, (B, T) ms.

    Moments lie 25, 75, 125, ... ms after the beginning, T = max(1, floor(duration / 50 ms + 1/2)).
    Each layer's map, averaged over its bands, is a staircase in time, whose frames share the part
    of the clip that they were made from evenly; a moment has the mean of its 50 ms, the last one of
    what is left (up to 75 ms). Both results are on the model's device.

    Raises:
        OssicleError: the audio is not (B, N) of floating point, or N is 0.
    """
    clips = _clips(audio, model)
    duration_ms = 1000 * audio.shape[1] / model.sample_rate
    count = max(1, int(np.floor(duration_ms / HOP_MS + 0.5)))
    edges = np.arange(count + 1) * HOP_MS
    middles = (edges[:-1] + edges[1:]) / 2
    # A clip of less than half a moment has its middle, and what lies past the end is not there.
    edges[-1] = duration_ms
    if count == 1:
        middles[0] = duration_ms / 2
    moments = [_moments(samples, model.model, model.layers, edges) for samples in clips]
    device = model.model.device
    times = torch.from_numpy(np.tile(middles, (len(clips), 1))).float()
    return torch.stack(moments).to(device), times.to(device)


def write_module(source: str | Path, folder: str | Path, name: str | None = None) -> Path:
    """A HEAR module and its bundle, in a folder to be put on Python's path.

    Args:
        source: a bundle, or the name of a backbone of ours.
        folder: to be made if it is not there.
        name: of the module; None makes one of the source's name.

    Returns:
        The module's file; the bundle lies beside it.

    Raises:
        OssicleError: the source is neither, or the name cannot be a module's.
        BundleError: the folder cannot be written.
    """
    model = load_model(str(source)).model
    stem = re.sub(r"\W", "_", Path(source).stem) + "_hear" if name is None else name
    if not re.fullmatch(r"[A-Za-z_]\w*", stem, re.ASCII) or keyword.iskeyword(stem):
        raise OssicleError(f"{stem!r} cannot be the name of a module: pass another")
    saved = bundle.save(model, Path(folder) / f"{stem}.ossicle")
    path = Path(folder) / f"{stem}.py"
    with replaced(path) as temporary:
        temporary.write_text(_MODULE.format(folder=json.dumps(saved.name)), encoding="utf-8")
    return path


def _clips(audio: Tensor, model: HEARModel) -> list[np.ndarray]:
    """Each clip (N,) float32 at the network's own rate.

    Raises:
        OssicleError: the audio is not (B, N) of floating point, or N is 0.
    """
    if audio.ndim != 2 or 0 in audio.shape or not audio.is_floating_point():
        raise OssicleError(
            f"audio is (B, N) of floating point, at least one sample each, not "
            f"{tuple(audio.shape)} {audio.dtype}"
        )
    samples = audio.detach().cpu().float().numpy()
    own = model.model.sample_rate
    return [_resampled(row, model.sample_rate, own) for row in samples]


def _resampled(samples: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """(N,) -> at least one sample at ``to_rate``."""
    resampled = resample(samples, from_rate, to_rate)
    return resampled if len(resampled) else samples[:1]


def _moments(samples: np.ndarray, model: Model, layers: Sequence[str], edges: np.ndarray) -> Tensor:
    """(N,) and edges (T + 1,) ms -> (T, D): the mean of every layer between two edges."""
    rate = model.sample_rate
    pieces: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    bounds: dict[str, list[np.ndarray]] = {layer: [] for layer in layers}
    for start, end in model.clip.segments(len(samples), rate):
        part = model.clip.filled(samples[start:end], rate)
        waveform = torch.from_numpy(np.array(part, np.float32)).to(model.device)[None]
        for layer, maps in model.forward_layers(waveform).items():
            if layer not in pieces:
                continue
            flat = maps.mean(2) if maps.dim() == 4 else maps
            pieces[layer].append(flat[0].double().cpu())
            # Where a frame begins; those that stand for what was filled up lie past the clip's end.
            length_ms = 1000 * len(part) / rate / flat.shape[-1]
            bounds[layer].append(1000 * start / rate + np.arange(flat.shape[-1]) * length_ms)
    columns = [
        _means(torch.cat(pieces[layer], -1), np.concatenate(bounds[layer]), edges)
        for layer in layers
    ]
    return torch.cat(columns, 1)


def _means(values: Tensor, starts: np.ndarray, edges: np.ndarray) -> Tensor:
    """Means of a staircase: (C, n) from ``starts`` (n,) on, between ``edges`` -> (T, C) float32."""
    steps = values[:, :-1] * torch.from_numpy(np.diff(starts))
    area = torch.cat([torch.zeros_like(values[:, :1]), steps.cumsum(-1)], -1)
    at = (np.searchsorted(starts, edges, side="right") - 1).clip(0)
    whole = area[:, at] + values[:, at] * torch.from_numpy(edges - starts[at])
    return (whole.diff(dim=-1) / torch.from_numpy(np.diff(edges))).float().mT
