"""The layers study's figures: sets by size, profiles of tasks, what was chosen, read-outs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ossicle.record import replaced
from ossicle.study.layers_readouts import ALL, BEST, CHOSEN, LAST
from ossicle.study.outputs import COLOURS, DPI, new_figure

# The fractional parts of its multiples spread any number of points evenly, without chance.
_GOLDEN = 0.6180339887498949
MARKS = {LAST: "s", BEST: "^", ALL: "D", CHOSEN: "*"}
MOST_TICKS = 30


def sets_figure(
    tasks: Mapping[str, Sequence[tuple[Sequence[str], float]]],
    chosen: Mapping[str, Sequence[str]] | None = None,
    metric: str = "accuracy",
) -> Figure:
    """Score of every set of layers, grouped by how many layers it has; a panel a task.

    Args:
        tasks: task -> (set, score) of each set.
        chosen: task -> the set to mark.
        metric: what the scores are.
    """
    columns = min(2, len(tasks))
    rows = -(-len(tasks) // columns)
    figure, axes = new_figure(3.8 * columns + 1.2, 3.2 * rows, rows, columns)
    for axis in axes.flat[len(tasks) :]:
        axis.set_visible(False)
    for axis, (task, sets) in zip(axes.flat, tasks.items(), strict=False):
        sizes = np.array([len(s) for s, _ in sets])
        values = np.array([score for _, score in sets])
        shift = ((np.arange(len(sets)) * _GOLDEN) % 1 - 0.5) * 0.6
        axis.plot(sizes + shift, values, ".", color=COLOURS[0], alpha=0.6, markersize=4)
        if len(sets) <= 64:
            for (names, score), x in zip(sets, sizes + shift, strict=True):
                label = "".join(names) if all(len(n) == 1 for n in names) else ""
                axis.annotate(
                    label, (x, score), (3, 0), textcoords="offset points", fontsize=6, va="center"
                )
        each = sorted(set(sizes.tolist()))
        best = [float(values[sizes == size].max()) for size in each]
        middle = [float(np.median(values[sizes == size])) for size in each]
        axis.plot(each, best, "-", color=COLOURS[2], linewidth=1.2, label="best of the size")
        axis.plot(each, middle, ":", color=COLOURS[6], linewidth=1.2, label="median of the size")
        if chosen and task in chosen:
            wanted = frozenset(chosen[task])
            for x, (names, score) in zip(sizes + shift, sets, strict=True):
                if frozenset(names) == wanted:
                    axis.plot(x, score, "*", color=COLOURS[1], markersize=11, label="chosen")
        axis.set_title(task, fontsize=9)
        axis.set_xticks(each)
        axis.set_xlabel("layers in the set")
        axis.set_ylabel(metric)
        axis.legend(fontsize=7, loc="lower right")
    return figure


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """STEM.png and STEM.svg, each whole or not at all; the same figure gives the same files."""
    files = []
    with mpl.rc_context({"svg.hashsalt": "ossicle", "svg.fonttype": "none"}):
        for kind in ("png", "svg"):
            files.append(stem.with_name(f"{stem.name}.{kind}"))
            with replaced(files[-1]) as part:
                metadata = {"Date": None} if kind == "svg" else {"Software": None}
                figure.savefig(part, format=kind, dpi=DPI, metadata=metadata)
    return files


def profile_figure(result: Mapping[str, Any]) -> Figure:
    """Score of each layer alone, a line a task; last, best, all and chosen at the right.

    The bands are 95 % intervals over groups.
    """
    layers, tasks = result["layers"], result["tasks"]
    depth = len(layers)
    figure, axes = new_figure(max(7.0, 0.16 * depth + 4.0), 4.6)
    axis = axes[0, 0]
    x = np.arange(1, depth + 1)
    step = max(0.6, depth / 24)
    for number, (task, entry) in enumerate(tasks.items()):
        colour = COLOURS[number % len(COLOURS)]
        line = "-" if number < len(COLOURS) else "--"
        profile = [entry["profile"][layer] for layer in layers]
        low, high = ([p[key] for p in profile] for key in ("low", "high"))
        axis.plot(x, [p["value"] for p in profile], line, color=colour, linewidth=1.4, label=task)
        axis.fill_between(x, low, high, color=colour, alpha=0.1, linewidth=0)
        for place, (readout, mark) in enumerate(MARKS.items(), start=1):
            value = entry["scores"][readout]["value"]
            size = 10 if mark == "*" else 6
            axis.plot(depth + 1 + place * step, value, mark, color=colour, markersize=size)
    axis.axvline(depth + 1, color="#999999", linewidth=0.8)
    _layer_ticks(axis, layers, {depth + 1 + i * step: r for i, r in enumerate(MARKS, start=1)})
    metrics = {entry["metric"] for entry in tasks.values()}
    axis.set_ylabel(metrics.pop() if len(metrics) == 1 else "score")
    axis.set_xlabel("each layer by itself, shallow to deep, and what was chosen or joined")
    handles = [*axis.get_legend_handles_labels()[0]]
    handles += [
        Line2D([], [], color="#555555", marker=mark, linestyle="", label=readout)
        for readout, mark in MARKS.items()
    ]
    figure.legend(handles=handles, loc="outside right upper", fontsize=8)
    return figure


def selection_figure(result: Mapping[str, Any]) -> Figure:
    """How often each layer was chosen: share of the folds, a row a task."""
    layers, tasks = result["layers"], result["tasks"]
    share = np.array([[t["selection"][CHOSEN][layer] for layer in layers] for t in tasks.values()])
    width = max(6.0, 0.2 * len(layers) + 2.4)
    figure, axes = new_figure(width, 1.9 + 0.34 * len(tasks))
    axis = axes[0, 0]
    picture = axis.imshow(
        share,
        aspect="auto",
        cmap="Blues",
        vmin=0,
        vmax=1,
        extent=(0.5, len(layers) + 0.5, len(tasks) - 0.5, -0.5),
    )
    axis.set_yticks(range(len(tasks)))
    axis.set_yticklabels(list(tasks))
    axis.grid(False)
    _layer_ticks(axis, layers)
    bar = figure.colorbar(picture, ax=axis, shrink=0.9)
    bar.set_label("share of folds")
    return figure


def scores_figure(result: Mapping[str, Any]) -> Figure:
    """Every read-out with its interval over groups, a panel a task."""
    tasks = result["tasks"]
    readouts = list(next(iter(tasks.values()))["scores"])
    columns = min(4, len(tasks))
    rows = -(-len(tasks) // columns)
    height = (0.26 * len(readouts) + 0.9) * rows
    figure, axes = new_figure(2.2 + 2.1 * columns, height, rows, columns)
    for axis in axes.flat[len(tasks) :]:
        axis.set_visible(False)
    y = np.arange(len(readouts))
    for number, (axis, (task, entry)) in enumerate(zip(axes.flat, tasks.items(), strict=False)):
        for place, readout in zip(y, readouts, strict=True):
            score = entry["scores"][readout]
            colour = COLOURS[0] if readout in MARKS else COLOURS[6]
            axis.plot([score["low"], score["high"]], [place, place], "-", color=colour, alpha=0.5)
            axis.plot(score["value"], place, "o", color=colour, markersize=4)
        axis.set_title(task, fontsize=9)
        axis.set_yticks(y)
        axis.set_yticklabels(readouts if number % columns == 0 else [])
        axis.invert_yaxis()
        axis.set_xlabel(entry["metric"])
    return figure


def _layer_ticks(axis: Any, layers: Sequence[str], more: Mapping[float, str] | None = None) -> None:
    more = more or {}
    every = -(-len(layers) // MOST_TICKS)
    places = list(range(1, len(layers) + 1, every))
    axis.set_xticks([*places, *more])
    names = [*(layers[i - 1] for i in places), *more.values()]
    axis.set_xticklabels(names, rotation=90, fontsize=7)
