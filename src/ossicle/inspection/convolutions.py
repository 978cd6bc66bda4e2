"""Which convolutions a network has, what enters each, and what a step of its kernel stands for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ossicle.backbones.normaliser_free import WSConv2d, standardised_weight
from ossicle.model import Model

# Of the noise that shows what enters each layer.
PROBE_S = 2.0


@dataclass(frozen=True)
class Convolution:
    """A convolution, and its kernel's steps.

    Attributes:
        name: of the module.
        kernels: weights as they act, (C', C, H, W), or (C', C, W) over time alone.
        depthwise: whether each channel is filtered by itself.
        hears: "waveform", "picture" (the front end's bands), "bands" (of a convolution over time
            whose channels are the front end's bands) or "maps" (of other layers).
        band_step: bands of the front end from one row of the kernel to the next; None: unknown.
        frame_s: seconds from one column to the next; None: unknown.
        out_size: (F', T') of its map for `PROBE_S` seconds, () where it was not called.
    """

    name: str
    kernels: np.ndarray
    depthwise: bool
    hears: str
    band_step: float | None
    frame_s: float | None
    out_size: tuple[int, ...] = ()

    @property
    def pictures(self) -> np.ndarray:
        """(K, H, W): the kernels one by one; of a convolution on bands (C', bands, W)."""
        if self.hears == "bands":
            return self.kernels
        return self.kernels.reshape(-1, *self.kernels.shape[2:])

    @property
    def size(self) -> tuple[int, ...]:
        """(H, W), or (W,) over time alone."""
        return tuple(self.kernels.shape[2:])

    @property
    def kind(self) -> str:
        """In two words."""
        over = "over time" if self.kernels.ndim == 3 else "over bands and time"
        return f"{'depthwise, ' if self.depthwise else ''}{over}"


def convolutions(model: Model) -> list[Convolution]:
    """All convolutions of the backbone, in the order in which it names them.

    The network is run once on noise, so that the steps are those that it really has; where it does
    its sums without calling a layer, that layer's steps are told by its place alone.
    """
    called: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    hooks = []
    modules = {
        name: module
        for name, module in model.backbone.named_modules()
        if isinstance(module, nn.Conv1d | nn.Conv2d)
    }
    for name, module in modules.items():

        def heard(_: nn.Module, given: tuple[Tensor, ...], made: Tensor, name: str = name) -> None:
            called.setdefault(name, (tuple(given[0].shape), tuple(made.shape)))

        hooks.append(module.register_forward_hook(heard))
    rate = model.sample_rate
    seconds = min(max(PROBE_S, model.clip.min_s), max(model.clip.window_s, model.clip.min_s))
    length = max(1, int(np.ceil(seconds * rate)))
    noise = torch.rand(1, length, generator=torch.Generator().manual_seed(0)) - 0.5
    try:
        with torch.inference_mode():
            picture = model.frontend(noise.to(model.device))
            model.backbone(picture)
    finally:
        for hook in hooks:
            hook.remove()
    return [
        _described(model, name, module, called.get(name), tuple(picture.shape), length)
        for name, module in modules.items()
    ]


def acting_weight(module: nn.Conv1d | nn.Conv2d) -> Tensor:
    """The weight that the convolution uses, standardised where it standardises it."""
    if isinstance(module, WSConv2d):
        return standardised_weight(module.weight, module.gain).detach()
    return module.weight.detach()


def _described(
    model: Model,
    name: str,
    module: nn.Conv1d | nn.Conv2d,
    sizes: tuple[tuple[int, ...], tuple[int, ...]] | None,
    picture: tuple[int, ...],
    length: int,
) -> Convolution:
    kernels = acting_weight(module).cpu().double().numpy()
    front = model.frontend
    waveform = len(picture) == 3
    first = module.in_channels == 1
    given, made = sizes if sizes is not None else ((), ())
    hears, band_step, frame_s = "maps", None, None
    if given:
        frame_s = float(length / model.sample_rate / given[-1] * module.dilation[-1])
    if isinstance(module, nn.Conv1d):
        if first and waveform and (not given or given[-1] > length // 2):
            hears, frame_s = "waveform", module.dilation[0] / model.sample_rate
        elif not waveform and module.in_channels == picture[2] and given[1:2] == picture[2:3]:
            hears, band_step = "bands", 1.0
    elif not waveform and given:
        hears = "picture" if first and given[2] == picture[2] else "maps"
        band_step = float(max(1, round(picture[2] / given[2])) * module.dilation[0])
    if not waveform and given and front.hop_s:
        # Whole steps: sizes are rounded at the edges.
        frame_s = front.hop_s * max(1, round(picture[-1] / given[-1])) * module.dilation[-1]
    if not hasattr(front, "frequencies"):
        band_step = None
    return Convolution(
        name,
        kernels,
        module.groups == module.in_channels > 1,
        hears,
        band_step,
        frame_s,
        tuple(made[2:]),
    )


def reaching(found: list[Convolution], axis: str) -> list[Convolution]:
    """Those whose kernels reach over more than one step of "time" or of "bands"; no waveforms'."""
    kept = [c for c in found if c.hears != "waveform"]
    if axis == "time":
        return [c for c in kept if c.size[-1] > 1]
    return [c for c in kept if len(c.size) == 2 and c.size[0] > 1]
