"""The pictures of a scoreboard. A rows, T tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ossicle.benchmark.critical_difference import draw_ranks
from ossicle.benchmark.task import DOMAINS
from ossicle.study.outputs import COLOURS, new_figure

Row = Mapping[str, Any]


def draw_all(board: Mapping[str, Any], found: Mapping[str, Any] | None) -> dict[str, Figure]:
    """Heading -> figure; those that need more rows than there are, are left out.

    Args:
        board: see ``ossicle.benchmark.suite_scores.collect``.
        found: what ``critical_difference.ranks`` gave for the complete rows, or None.
    """
    complete = [row for row in board["rows"] if row["mean"] is not None]
    figures = {}
    if complete:
        figures["mean"] = draw_means(complete)
    figures["by domain"] = draw_domains(board["rows"])
    figures["by task"] = draw_tasks(board)
    if len(complete) > 1:
        figures["parameters"] = draw_against(
            complete, "parameters", "parameters of the network (0: none)"
        )
        figures["speed"] = draw_against(
            complete, "times_real_time", "times real time, one core, without decoding"
        )
    if found is not None:
        figures["critical difference"] = draw_ranks([row["name"] for row in complete], dict(found))
    return figures


def draw_means(rows: Sequence[Row]) -> Figure:
    """Mean over the suite with its interval, best at the top."""
    figure, axes = new_figure(8.0, 0.9 + 0.3 * len(rows))
    axis = axes[0, 0]
    at = np.arange(len(rows))[::-1]
    values = np.array([row["mean"]["value"] for row in rows])
    low = values - np.array([row["mean"]["low"] for row in rows])
    high = np.array([row["mean"]["high"] for row in rows]) - values
    colours = [_colour(row) for row in rows]
    axis.barh(at, values, color=colours, height=0.65)
    axis.errorbar(values, at, xerr=[low, high], fmt="none", ecolor="black", capsize=2, linewidth=1)
    axis.set_yticks(at, [_name(row) for row in rows])
    axis.grid(axis="y", visible=False)
    axis.set_xlim(0, min(1.0, float((values + high).max()) * 1.12))
    for y, value, up in zip(at, values, high, strict=True):
        axis.text(value + up + 0.01, y, f"{value:.3f}", va="center", fontsize=8)
    axis.set_xlabel(f"mean score over {rows[0]['mean']['n_tasks']} tasks, 95 % interval")
    return figure


def draw_domains(rows: Sequence[Row]) -> Figure:
    """A row's mean in each domain."""
    shown = [row for row in rows if any(row["domains"].values())]
    figure, axes = new_figure(8.0, 1.1 + 0.32 * max(1, len(shown)))
    axis = axes[0, 0]
    at = np.arange(len(shown))[::-1].astype(float)
    for number, domain in enumerate(DOMAINS):
        have = [i for i, row in enumerate(shown) if row["domains"][domain]]
        if not have:
            continue
        means = [shown[i]["domains"][domain] for i in have]
        values = np.array([mean["value"] for mean in means])
        reach = [
            [v - m["low"] for v, m in zip(values, means, strict=True)],
            [m["high"] - v for v, m in zip(values, means, strict=True)],
        ]
        axis.errorbar(
            values,
            at[have] + 0.2 * (1 - number),
            xerr=reach,
            fmt="os^"[number],
            color=COLOURS[number],
            markersize=5,
            linewidth=1,
            label=domain,
        )
    axis.set_yticks(at, [_name(row) for row in shown])
    axis.set_xlim(0, 1)
    axis.set_xlabel("mean score of the domain's tasks, 95 % interval")
    axis.legend(
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=len(DOMAINS),
        fontsize=8,
        frameon=False,
    )
    return figure


def draw_tasks(board: Mapping[str, Any]) -> Figure:
    """Every score; the colour is its place between the task's worst and best row."""
    tasks, rows = board["tasks"], board["rows"]
    values = np.array(
        [[row["scores"].get(t["name"], {"value": np.nan})["value"] for t in tasks] for row in rows]
    )
    with np.errstate(invalid="ignore"):
        spread = np.nanmax(values, axis=0) - np.nanmin(values, axis=0)
        place = (values - np.nanmin(values, axis=0)) / np.where(spread > 0, spread, 1.0)
    figure, axes = new_figure(2.8 + 0.62 * len(tasks), 1.6 + 0.3 * len(rows))
    axis = axes[0, 0]
    axis.grid(False)
    axis.imshow(np.ma.masked_invalid(place), cmap="cividis", aspect="auto", vmin=0, vmax=1)
    for i in range(len(rows)):
        for j in range(len(tasks)):
            if np.isfinite(values[i, j]):
                dark = place[i, j] < 0.55
                axis.text(
                    j,
                    i,
                    f"{values[i, j]:.2f}".lstrip("0"),
                    ha="center",
                    va="center",
                    fontsize=7,
                    color="white" if dark else "black",
                )
    axis.set_yticks(range(len(rows)), [_name(row) for row in rows])
    axis.set_xticks(range(len(tasks)), [t["name"] for t in tasks], rotation=45, ha="right")
    return figure


def draw_against(rows: Sequence[Row], key: str, label: str) -> Figure:
    """Mean score against a cost on a logarithmic axis; nothing (0) stands at the left edge."""
    figure, axes = new_figure(9.0, 4.6)
    axis = axes[0, 0]
    values = np.array([max(float(row[key]), 1.0) for row in rows])
    means = np.array([row["mean"]["value"] for row in rows])
    reach = [
        means - np.array([row["mean"]["low"] for row in rows]),
        np.array([row["mean"]["high"] for row in rows]) - means,
    ]
    for i, row in enumerate(rows):
        axis.errorbar(
            values[i],
            means[i],
            yerr=[[reach[0][i]], [reach[1][i]]],
            fmt="o",
            color=_colour(row),
            markersize=6,
            linewidth=1,
            # Names would lie on each other; the numbers are those of the board.
            label=f"{i + 1}  {_name(row)}",
        )
        axis.annotate(
            str(i + 1), (values[i], means[i]), (6, 3), textcoords="offset points", fontsize=8
        )
    if key == "parameters":
        axis.set_xscale("symlog", linthresh=1e4)
    else:
        axis.set_xscale("log")
    axis.margins(x=0.08, y=0.08)
    axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=7, frameon=False)
    axis.set_xlabel(label)
    axis.set_ylabel("mean score over the suite")
    return figure


def _name(row: Row) -> str:
    return f"{row['name']} *" if row.get("heard") else str(row["name"])


def _colour(row: Row) -> str:
    """Trained networks, random ones, hand-made features."""
    if row["pretrained"]:
        return COLOURS[0]
    return COLOURS[4] if row["parameters"] else COLOURS[2]
