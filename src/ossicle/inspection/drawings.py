"""The pictures that several exhibits share: tiles, heat maps, curves, clouds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ossicle.inspection.pictures import (
    colour,
    ink,
    log_frequency_axis,
    new_figure,
    signed_colours,
    soft,
)

PER_ROW = 8


class Ticks(NamedTuple):
    """Of a tile (H, W): columns and their names, the axis' label, rows and theirs."""

    columns: Sequence[float]
    column_names: Sequence[str]
    column_label: str
    rows: Sequence[float]
    row_names: Sequence[str]
    row_label: str


def tiles(
    pictures: np.ndarray,
    titles: Sequence[str],
    *,
    signed: bool,
    ticks: Ticks,
    common: bool = True,
    label: str = "",
) -> Figure:
    """Small pictures side by side; the one at the bottom left has the axes of all.

    All lie on one pair of axes: as many pairs as tiles would take most of a minute to lay out.

    Args:
        pictures: (K, H, W), the first row at the bottom.
        titles: K, one above each.
        signed: whether 0 is the middle of the colours.
        ticks: of the tile at the bottom left.
        common: one range of colours for all, else each has its own.
        label: of the colour bar.
    """
    count, height, width = pictures.shape
    cols = min(PER_ROW, count)
    rows = math.ceil(count / cols)
    tall = 0.95 * min(max(height / width, 0.6), 2.2)  # inches; a tile is about one wide
    gap = 0.28
    figure, axes = new_figure(1.2 + 0.8 * cols, 0.7 + rows * (gap + tall * 0.8))
    axis = axes[0, 0]
    whole = float(np.abs(pictures).max()) or 1.0
    image = None
    for number, picture in enumerate(pictures):
        across, up = number % cols, rows - 1 - number // cols
        left, bottom = across * 1.1, up * (tall + gap)
        top = whole if common else float(np.abs(picture).max()) or 1.0
        image = axis.imshow(
            picture,
            origin="lower",
            extent=(left, left + 1, bottom, bottom + tall),
            aspect="auto",
            interpolation="nearest",
            cmap=signed_colours() if signed else None,
            vmin=-top if signed else 0.0,
            vmax=top,
        )
        axis.text(
            left + 0.5, bottom + tall + 0.03, titles[number], ha="center", va="bottom", fontsize=7
        )
    axis.set_xlim(0, cols * 1.1 - 0.1)
    axis.set_ylim(0, rows * (tall + gap))
    for side in axis.spines.values():
        side.set_visible(False)
    axis.set_xticks([(x + 0.5) / width for x in ticks.columns], ticks.column_names)
    axis.set_yticks([tall * (y + 0.5) / height for y in ticks.rows], ticks.row_names)
    axis.tick_params(labelsize=7)
    axis.set_xlabel(ticks.column_label, loc="left", fontsize=8)
    axis.set_ylabel(ticks.row_label, loc="bottom", fontsize=8)
    if common and image is not None:
        bar = figure.colorbar(image, ax=axis, shrink=0.7, aspect=30, pad=0.01)
        bar.outline.set_visible(False)
        bar.set_label(label)
    return figure


def curves(
    x: np.ndarray, rows: np.ndarray, titles: Sequence[str], xlabel: str, ylabel: str
) -> Figure:
    """(K, N) small curves over x (N,), each in its own range."""
    count = len(rows)
    cols = min(PER_ROW // 2, count)
    high = math.ceil(count / cols)
    figure, axes = new_figure(7.5, 0.5 + 0.85 * high, high, cols)
    for number, axis in enumerate(axes.ravel()):
        if number >= count:
            axis.axis("off")
            continue
        top = float(np.abs(rows[number]).max()) or 1.0
        axis.axhline(0, color=soft(), linewidth=0.5)
        axis.plot(x, rows[number], linewidth=0.9)
        axis.set_ylim(-1.1 * top, 1.1 * top)
        axis.set_title(titles[number], fontsize=7, pad=2)
        axis.set_yticks([])
        axis.spines["left"].set_visible(False)
        axis.tick_params(labelsize=7)
        if number < count - cols:
            axis.set_xticklabels([])
    figure.supxlabel(xlabel, fontsize=9)
    figure.supylabel(ylabel, fontsize=9)
    return figure


def responses(
    frequencies: np.ndarray, decibels: np.ndarray, rows: str, low_hz: float = 50.0
) -> Figure:
    """Responses of K filters, one a row, over a logarithmic frequency axis.

    Args:
        frequencies: (M,) Hz.
        decibels: (K, M), below each filter's greatest.
        rows: label of the upright axis.
        low_hz: where the axis begins.
    """
    figure, axes = new_figure(7.5, 4.2)
    axis = axes[0, 0]
    grid = np.geomspace(max(low_hz, frequencies[1]), frequencies[-1], 600)
    shown = np.stack([np.interp(grid, frequencies, row) for row in decibels])
    edges = np.sqrt(grid[1:] * grid[:-1])
    edges = np.concatenate([[grid[0]], edges, [grid[-1]]])
    mesh = axis.pcolormesh(
        edges, np.arange(len(shown) + 1) + 0.5, shown, vmin=-60, vmax=0, rasterized=True
    )
    log_frequency_axis(axis, grid[0], grid[-1])
    axis.set_xlabel("frequency (Hz)")
    axis.set_ylabel(rows)
    bar = figure.colorbar(mesh, ax=axis, pad=0.01)
    bar.outline.set_visible(False)
    bar.set_label("dB below each filter's greatest")
    return figure


def widths(
    groups: Sequence[tuple[str, np.ndarray, np.ndarray]], line: tuple[np.ndarray, np.ndarray]
) -> Figure:
    """Bandwidth against centre frequency, and the ear's as a line.

    Args:
        groups: (name, centres (K,), bandwidths (K,)), Hz.
        line: (frequencies, bandwidths) of the ear, Hz.
    """
    figure, axes = new_figure(7.5, 3.4)
    axis = axes[0, 0]
    axis.grid()
    axis.plot(*line, color=soft(), linewidth=1.2, label="ear (ERB, Glasberg & Moore 1990)")
    low, high = float(line[0][0]), float(line[0][-1])
    for number, (name, centre, width) in enumerate(groups):
        kept = np.isfinite(centre) & (centre > 0) & (width > 0)
        axis.plot(
            np.maximum(centre[kept], low),
            width[kept],
            "o",
            markersize=4,
            color=colour(number),
            alpha=0.75,
            markeredgewidth=0,
            label=name,
        )
    log_frequency_axis(axis, low, high)
    everything = np.concatenate([line[1], *(width[width > 0] for _, _, width in groups)])
    log_frequency_axis(axis, 0.8 * everything.min(), 1.2 * everything.max(), "y")
    axis.set_xlabel("centre frequency (Hz)")
    axis.set_ylabel("bandwidth (Hz)")
    axis.legend()
    return figure


def heat_map(
    values: np.ndarray,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    label: str,
    limits: tuple[float, float] | None = None,
    xlabel: str = "",
    numbers: bool = False,
) -> Figure:
    """(R, C) values with a name for each row and column.

    Args:
        values: R x C; NaN stay empty.
        rows, columns: names; where there are many, some of them are written.
        label: of the colour bar.
        limits: of the colours.
        xlabel: of the axis below.
        numbers: write each value into its cell, where there is room.
    """
    height = min(9.0, max(2.4, 1.1 + 0.2 * len(values)))
    figure, axes = new_figure(7.5, height)
    axis = axes[0, 0]
    low, high = limits if limits is not None else (np.nanmin(values), np.nanmax(values))
    image = axis.imshow(values, aspect="auto", interpolation="nearest", vmin=low, vmax=high)
    for names, which in ((rows, "y"), (columns, "x")):
        step = 1 if "" in names else math.ceil(len(names) / 40)
        kept = [i for i in range(0, len(names), step) if names[i]]
        getattr(axis, f"set_{which}ticks")(kept, [names[i] for i in kept])
    if "" not in columns and max(map(len, columns)) > 3 and len(columns) > 6:
        axis.tick_params(axis="x", rotation=90)
    axis.tick_params(labelsize=7)
    axis.set_xlabel(xlabel)
    if numbers and values.size <= 400:
        for (i, j), value in np.ndenumerate(values):
            dark = (value - low) / max(high - low, 1e-12) > 0.55
            shade = axis.get_figure().get_facecolor() if dark else ink()
            axis.text(
                j, i, f"{value:.2f}".lstrip("0"), ha="center", va="center", fontsize=6, color=shade
            )
    for side in axis.spines.values():
        side.set_visible(False)
    bar = figure.colorbar(image, ax=axis, pad=0.01)
    bar.outline.set_visible(False)
    bar.set_label(label)
    return figure


def frequency_columns(
    columns: np.ndarray,
    frequencies: np.ndarray,
    borders: Sequence[tuple[int, str]],
    label: str,
    xlabel: str,
    marks: Sequence[int] = (),
) -> Figure:
    """Columns of spectra (F, K), frequency upwards on a logarithmic axis.

    Args:
        columns: F x K values of 0 and above.
        frequencies: (F,) Hz, rising.
        borders: (first column, name) of each group of columns.
        label: of the colour bar.
        xlabel: of the axis below.
        marks: columns to mark at the bottom.
    """
    figure, axes = new_figure(7.5, 4.4)
    axis = axes[0, 0]
    low = max(float(frequencies[frequencies > 0][0]), 40.0)
    grid = np.geomspace(low, frequencies[-1], 300)
    shown = np.stack([np.interp(grid, frequencies, column) for column in columns.T], axis=1)
    edges = np.concatenate([[grid[0]], np.sqrt(grid[1:] * grid[:-1]), [grid[-1]]])
    mesh = axis.pcolormesh(
        np.arange(columns.shape[1] + 1) + 0.5, edges, shown, rasterized=True, vmin=0
    )
    log_frequency_axis(axis, low, float(frequencies[-1]), "y")
    for first, name in borders:
        if first:
            axis.axvline(first + 0.5, color=ink(), linewidth=0.8)
        axis.text(first + 0.7, edges[-1] * 1.02, name, va="bottom", fontsize=8, color=ink())
    for mark in marks:
        axis.plot(mark + 1, edges[0] * 1.06, "^", color=colour(1), markersize=4)
    axis.set_xlabel(xlabel)
    axis.set_ylabel("frequency (Hz)")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    bar = figure.colorbar(mesh, ax=axis, pad=0.01)
    bar.outline.set_visible(False)
    bar.set_label(label)
    return figure


def clouds(
    panels: Sequence[tuple[str, np.ndarray]], codes: np.ndarray, names: Sequence[str], size: float
) -> Figure:
    """Points in the plane, coloured by class.

    Args:
        panels: (title, (n, 2) points).
        codes: (n,) number of each point's class.
        names: of the classes.
        size: of a point.
    """
    figure, axes = new_figure(7.5, 3.3 if len(panels) > 1 else 4.6, 1, len(panels))
    for axis, (title, points) in zip(axes.ravel(), panels, strict=True):
        # Drawn in random order, so that no class lies on top of all others.
        order = np.random.default_rng(0).permutation(len(points))
        shades = np.array([colour(code) for code in codes])[order]
        markers = codes[order] // 8
        for kind, marker in enumerate("osD^v"):
            mine = markers == kind
            axis.scatter(
                *points[order][mine].T, s=size, c=shades[mine], marker=marker, linewidths=0
            )
        axis.set_title(title)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_xlabel("first component")
    axes[0, 0].set_ylabel("second component")
    handles = [
        axes[0, 0].plot([], [], "osD^v"[min(i // 8, 4)], color=colour(i), markersize=5)[0]
        for i in range(len(names))
    ]
    figure.legend(handles, names, loc="outside lower center", ncols=min(5, len(names)), fontsize=7)
    return figure
