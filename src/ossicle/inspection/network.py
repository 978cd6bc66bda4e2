"""Exhibits of a network by itself: what it hears, its first filters, the spectra of all layers."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator
from torch import nn

from ossicle.backbones.cldnn import TimeConvolution
from ossicle.frontend import FrontEnd
from ossicle.inspection import drawings
from ossicle.inspection.convolutions import Convolution, convolutions, reaching
from ossicle.inspection.exhibit import Exhibit, Inspection
from ossicle.inspection.front import front_exhibits
from ossicle.inspection.kernels import kernel_exhibits, steps_of
from ossicle.inspection.spectra import centre_of, share_by_frequency
from ossicle.inspection.waveform_filters import waveform_exhibits
from ossicle.inspection.weights import weight_table
from ossicle.model import Model

FIRST, ALL = "The first filters", "All layers"
# Of the layers' spectra: points from 0 to the fastest that a layer's steps can show.
POINTS = 33


def look_at_network(model: Model, found: Inspection, *, most: int = 32) -> None:
    """Add what the weights of a network show by themselves.

    Args:
        model: with or without a head.
        found: what is added to.
        most: kernels of a layer that are shown, by norm.
    """
    found.exhibits += front_exhibits(model.frontend)
    layers = convolutions(model)
    found.exhibits += [*_first_filters(model, layers, found.notes, most)]
    for axis in ("time", "bands"):
        found.exhibits += _spectra(layers, model.frontend, axis)
    table = weight_table(model.backbone.named_parameters())
    if len(table):
        found.exhibits.append(ranks(table))
    else:
        found.notes.append("this network has no weights: there are no filters to show")
    found.numbers["layers"] = layer_rows(model)


def layer_rows(model: Model) -> list[dict[str, object]]:
    """What each layer gives: name, channels, bands, stride (frames of the front end), parameters.

    ``parameters`` are those of the module of the layer's name, None where there is none.
    """
    modules = dict(model.backbone.named_modules())
    rows = []
    for info in model.backbone.feature_info:
        own = [m for name, m in modules.items() if name.rpartition(".")[2] == info.name]
        size = sum(p.numel() for p in own[0].parameters()) if len(own) == 1 else None
        rows.append({**info._asdict(), "parameters": size})
    return rows


def picked(layers: list[Convolution]) -> list[Convolution]:
    """Of the convolutions on pictures: the first, with its siblings, and the first depthwise one.

    A sibling hears the same, with a kernel of another size.
    """
    spatial = [c for c in layers if c.hears != "waveform" and max(c.size) > 1]
    heard = [c for c in spatial if c.hears in ("picture", "bands")]
    chosen = heard[:6] or spatial[:1]
    own = next((c for c in spatial if c.depthwise and c not in chosen), None)
    return [*chosen, own] if own is not None else chosen


def _first_filters(
    model: Model, layers: list[Convolution], notes: list[str], most: int
) -> list[Exhibit]:
    exhibits = []
    waveform = [c for c in layers if c.hears == "waveform"]
    for conv in waveform[:2]:
        # torch correlates: turned round in time, weights are impulse responses.
        filters = conv.kernels[:, 0, ::-1]
        exhibits += waveform_exhibits(
            filters,
            model.sample_rate,
            name=conv.name.replace(".", "_"),
            section=FIRST,
            what=f"filters of {conv.name}",
            start=_before(model.backbone, conv),
        )
    on_pictures = [] if waveform else picked(layers)
    if waveform and any(c.hears != "waveform" and len(c.size) == 2 for c in layers):
        on_pictures = picked([c for c in layers if len(c.size) == 2])[:1]
    for conv in on_pictures:
        exhibits += kernel_exhibits(conv, model.frontend, FIRST, most)
    if not layers:
        notes.append("this network has no convolutions: there are no kernels to show")
    elif not exhibits:
        notes.append("all kernels of this network are of one step: there are no shapes to show")
    return exhibits


def _before(network: nn.Module, conv: Convolution) -> np.ndarray | None:
    """The impulse responses that training began with, where they were not drawn."""
    owner, _, name = conv.name.rpartition(".")
    module = network.get_submodule(owner)
    if not isinstance(module, TimeConvolution) or name != "conv":
        return None
    channels, (count, length) = module.conv.in_channels, conv.kernels.shape[::2]
    fresh = TimeConvolution(channels, count, length, module.window, module.hop)
    return fresh.conv.weight.detach().double().numpy()[:, 0, ::-1]


def _spectra(layers: list[Convolution], front: FrontEnd, axis: str) -> list[Exhibit]:
    """How the energy of each layer's kernels is spread over modulations along one axis."""
    kept = reaching(layers, axis)
    if len(kept) < 2:
        return []
    over = "time" if axis == "time" else "frequency"
    rows, centres, records = [], [], []
    points = np.linspace(0, 0.5, POINTS)
    for conv in kept:
        place = conv.kernels.ndim - 1 if axis == "time" else conv.kernels.ndim - 2
        frequencies, density = share_by_frequency(conv.kernels, place)
        rows.append(np.interp(points, frequencies, density))
        centres.append(centre_of(frequencies, density))
        steps = steps_of(conv, front)
        record = {"layer": conv.name, "steps": conv.size[-1 if axis == "time" else 0]}
        record["mean_cycles_per_step"] = centres[-1]
        if axis == "time":
            record["mean_hz"] = centres[-1] / steps.seconds if steps.seconds else None
        else:
            record["mean_cycles_per_octave_at_1_khz"] = (
                centres[-1] / steps.octaves if steps.octaves else None
            )
        record |= {f"{point:.4f}": value for point, value in zip(points, rows[-1], strict=True)}
        records.append(record)
    values = np.stack(rows)
    names = [conv.name for conv in kept]
    finest = names[int(np.argmax(centres))]
    coarsest = names[int(np.argmin(centres))]
    return [
        Exhibit(
            f"spectra_over_{axis}",
            ALL,
            f"Filter spectra over {over}",
            f"A row a layer ({len(kept)} whose kernels reach over more than one step of "
            f"{over}): the density of its kernels' energy from 0 (smoothing) to the fastest change "
            "that its steps can show; 1 is an even spread, as of kernels drawn at random. "
            f"Lowest on average: {coarsest}; highest: {finest}.",
            f"Heat map of {len(kept)} layers by modulation frequency over {over}.",
            lambda: drawings.heat_map(
                values,
                rows=names,
                columns=[
                    f"{2 * point:.2f}" if i % 8 == 0 else "" for i, point in enumerate(points)
                ],
                label="density (1: even)",
                limits=(0.0, float(min(values.max(), 6.0))),
                xlabel="modulation, as a share of the fastest that a layer's steps can show",
            ),
            pd.DataFrame(records),
        )
    ]


def ranks(table: pd.DataFrame) -> Exhibit:
    """Effective ranks of all weights."""
    share = table["rank_share"]
    least = table.loc[share.idxmin()] if share.notna().any() else None
    told = (
        ""
        if least is None
        else (f" Least: {least['weight']}, {least['effective_rank']:.0f} of {least['rank_bound']}.")
    )

    def draw():  # type: ignore[no-untyped-def]
        from ossicle.inspection.pictures import new_figure

        figure, axes = new_figure(7.5, 3.0)
        axis = axes[0, 0]
        axis.grid(axis="y")
        axis.bar(np.arange(len(table)) + 1, share, width=0.8)
        axis.set_ylim(0, 1)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_xlabel("weight, in the network's order (names in the table)")
        axis.set_ylabel("effective rank / most")
        return figure

    return Exhibit(
        "weights",
        ALL,
        "How many directions the weights use",
        f"Effective rank (Roy & Vetterli 2007) of the weights ({len(table)}) as a share of what "
        f"its shape allows; 1 is a weight that uses all directions alike.{told}",
        f"Bars of {len(table)} effective ranks between 0 and 1.",
        draw,
        table,
    )
