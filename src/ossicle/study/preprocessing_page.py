"""The page of the preprocessing study: sentences and figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ossicle.study.outputs import COLOURS, new_figure

WEIGHTING_COLOURS = {
    "per-frequency": COLOURS[3],
    "A-weighting": COLOURS[0],
    "none": COLOURS[2],
}
RATIOS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
NAMES = {"auc": "macro ROC AUC", "map": "mean average precision", "r2": "R²"}


def all_figures(result: Mapping[str, Any]) -> dict[str, Figure]:
    """Heading -> figure, of a result of ``preprocessing_study``."""
    figures = {
        "Scores": score_figure(result),
        "Magnitudes by band": band_figure(result["bands"]),
        "Histograms": histogram_figure(result["histograms"]),
    }
    if result["bias"] is not None:
        figures["First layer"] = bias_figure(result["bias"])
    return figures


def score_figure(result: Mapping[str, Any]) -> Figure:
    """The first metric of the twelve, in four groups; the axis begins below the lowest limit."""
    metric = result["metrics"][0]
    figure, axes = new_figure(7.0, 3.6)
    axis = axes[0, 0]
    rows = {row["setting"]: row for row in result["settings"]}
    groups = list(dict.fromkeys(name.rpartition(", ")[0] for name in rows))
    width = 0.26
    for place, (weighting, colour) in enumerate(WEIGHTING_COLOURS.items()):
        mine = [rows[f"{group}, {weighting}"] for group in groups]
        at = np.arange(len(groups)) + (place - 1) * width
        values = np.array([row[metric] for row in mine])
        limits = np.array([[row[f"{metric} low"], row[f"{metric} high"]] for row in mine])
        reach = np.abs(np.nan_to_num(limits - values[:, None])).T
        axis.bar(at, values, width * 0.92, color=colour, label=weighting)
        axis.errorbar(at, values, reach, fmt="none", ecolor="#333333", elinewidth=0.9, capsize=2)
        for seed in range(len(result["seeds"])):
            by_seed = [float(row[f"{metric} by seed"].split()[seed]) for row in mine]
            axis.plot(at, by_seed, ".", color="#333333", markersize=3, alpha=0.6)
    everything = [
        value
        for row in rows.values()
        for value in (row[f"{metric} low"], row[f"{metric} high"], row[metric])
        if np.isfinite(value)
    ]
    low, high = min(everything), max(everything)
    room = 0.08 * max(high - low, 1e-3)
    axis.set_ylim(low - room, high + room)
    axis.set_xticks(range(len(groups)), groups)
    axis.grid(axis="x", visible=False)
    axis.set_ylabel(NAMES.get(metric, metric))
    axis.legend(ncols=3, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def band_figure(bands: Mapping[str, Any]) -> Figure:
    """The mean of each of the 96 bands as the network hears it (log, x1), by weighting."""
    figure, axes = new_figure(7.0, 3.2)
    axis = axes[0, 0]
    for weighting, colour in WEIGHTING_COLOURS.items():
        axis.plot(bands[weighting], color=colour, label=weighting)
    frequencies = np.asarray(bands["frequencies"])
    ticks = np.searchsorted(frequencies, [100, 250, 500, 1000, 2000, 4000])
    axis.set_xticks(ticks, ["100", "250", "500", "1k", "2k", "4k"])
    axis.set_xlabel("centre of the mel band (Hz)")
    axis.set_ylabel("mean (deviations of the excerpt)")
    axis.legend(title="log, weighting", frameon=False)
    return figure


def histogram_figure(histograms: Mapping[str, Any]) -> Figure:
    """Shares of values with and without log, up to the 99.5 % quantile."""
    figure, axes = new_figure(7.0, 3.0, 1, 2)
    titles = {"log": "with log", "linear": "without log"}
    for axis, (scaling, title) in zip(axes[0], titles.items(), strict=True):
        found = histograms[scaling]
        axis.stairs(found["share"], found["edges"], fill=True, color=COLOURS[0])
        axis.set_title(f"{title} (skewness {found['skewness']:.1f})", fontsize=9)
        axis.set_xlabel("magnitude (deviations of the excerpt)")
    axes[0, 0].set_ylabel("share of values")
    return figure


def bias_figure(bias: Mapping[str, Any]) -> Figure:
    """Ratios x10 over x1 in the first layer: bias and weight, as trained and as they act."""
    figure, axes = new_figure(4.2, 3.0)
    axis = axes[0, 0]
    names = {
        "bias": "bias",
        "weight": "weight",
        "shift": "bias with\nbatch norm",
        "gain": "weight with\nbatch norm",
    }
    known = [key for key in names if bias[key]["by_seed"] is not None]
    for place, key in enumerate(known):
        entry = bias[key]
        value = entry["value"]
        reach = np.abs(np.nan_to_num([[entry["low"] - value], [entry["high"] - value]]))
        axis.errorbar([place], [value], reach, fmt="o", color=COLOURS[0], capsize=3)
        axis.plot(
            [place] * len(entry["by_seed"]), entry["by_seed"], ".", color="#333333", alpha=0.6
        )
    axis.axhline(1.0, color="#333333", linewidth=0.8)
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    shown = [tick for tick in RATIOS if low <= tick <= high]
    axis.set_yticks(shown, [f"{tick:g}" for tick in shown])
    axis.minorticks_off()
    axis.set_xticks(range(len(known)), [names[key] for key in known])
    axis.set_xlim(-0.5, max(len(known) - 0.5, 0.5))
    axis.set_ylabel("mean absolute value, x10 over x1")
    return figure


def findings(result: Mapping[str, Any]) -> list[str]:
    """What was found, in sentences."""
    protocol, metric = result["protocol"], result["metrics"][0]
    folds = (
        ""
        if protocol["folds"] == protocol["of_folds"]
        else (f", the first {protocol['folds']} of {protocol['of_folds']} folds")
    )
    seeds = "1 seed" if len(result["seeds"]) == 1 else f"{len(result['seeds'])} seeds"
    texts = [
        f"{protocol['text']}{folds}: {protocol['n_tested']} clips tested. The compact convnet on "
        f"excerpts of {result['excerpt_s']:g} s, from random weights, {seeds} a setting, "
        f"{result['training']['epochs']} epochs. {protocol['intervals']}",
    ]
    for row in result["effects"]:
        low, high = row[f"{metric} low"], row[f"{metric} high"]
        if "," in row["effect"] or np.isnan(low):
            continue
        verdict = "beyond the interval" if low > 0 or high < 0 else "the interval holds zero"
        texts.append(
            f"{row['effect']}: {metric} {row[metric]:+.4f} ({low:+.4f} to {high:+.4f}); {verdict}."
        )
    if result["bias"] is not None:
        bias, shift = (_ratio(result["bias"][key]) for key in ("bias", "shift"))
        texts.append(
            f"Mean |bias| of the first convolution, x10 over x1: {bias}. A batch norm follows and "
            f"takes the bias away again; what both add together: {shift}."
        )
    if result["skipped"]:
        path, reason = result["skipped"][0]
        texts.append(f"{len(result['skipped'])} clips left out, the first: {path}: {reason}.")
    return texts


def _ratio(entry: Mapping[str, float]) -> str:
    if np.isnan(entry["value"]):
        return "not known, as one of the two is 0"
    if np.isnan(entry["low"]):
        return f"{entry['value']:.2f}"
    return f"{entry['value']:.2f} ({entry['low']:.2f} to {entry['high']:.2f})"
