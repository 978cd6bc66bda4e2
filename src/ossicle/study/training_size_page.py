"""The training-size study as a page: words, tables and the picture of the curves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from ossicle.study.outputs import COLOURS, new_figure

Result = Mapping[str, Any]


def title(result: Result) -> str:
    """The page's heading."""
    return f"Score against training size: {result['clips']}"


def words(result: Result) -> list[str]:
    """What was found and how, a paragraph each; every word follows from the numbers."""
    found = [" ".join(needs_text(told, result)) for told in result["needs"]]
    return [*found, *_made(result)]


def needs_text(told: Result, result: Result) -> list[str]:
    """Sentences on one pair of settings: the factor, the share of the data, crossing curves."""
    if told["k"] is None:
        return [f"{told['a']} and {told['b']} score the same at every size, whatever the size."]
    unsure = told["low"] is not None and told["low"] <= 1 <= told["high"]
    # The larger need is named, unless it is not known whose it is.
    turned, more, less = told, told["b"], told["a"]
    if told["k"] < 1 and not unsure:
        turned, more, less = inverse(told), told["a"], told["b"]
    lines = [f"**{more} needs {factor_text(turned, result['confidence'])} the data of {less}**"]
    weak, strong = told[told["weaker"]], told["a" if told["weaker"] == "b" else "b"]
    best = f"{result['metric']} {told['best']:.4f}"
    if "k" in told["open"]:
        lines[0] += (
            f": its best, {best}, is not above what {less} has with the smallest size, so that "
            "these sizes give a bound only."
        )
        return lines
    lines[0] += (
        ": the interval holds 1, so that these scores do not tell which needs more."
        if unsure
        else "."
    )
    share = f"{_share(told, 'share')} of the clips"
    if told["share_low"] is not None:
        limits = f"{_share(told, 'share_low')} to {_share(told, 'share_high')}"
        share += f" ({100 * result['confidence']:g} % interval {limits})"
    lines.append(f"The best of {weak}, {best}, is reached by {strong} with {share}.")
    if told["crosses"]:
        ends = ", ".join(
            f"{_bound(at, 'k')} times at {at['score']:.3f}"
            for at in (told["at"][0], told["at"][-1])
        )
        lines.append(
            f"The curves cross, beyond their intervals: {told['b']} needs {ends}; no one factor "
            "describes them."
        )
    elif told["crossings"]:
        at = ", ".join(f"{score:.3f}" for score in told["crossings"])
        lines.append(f"The curves cross (at {at}), but within their intervals.")
    return lines


def factor_text(told: Result, confidence: float = 0.95) -> str:
    """k with its interval: "2.1 times (95 % interval 1.6 to 2.8)", bounds as "more than 10".

    Args:
        told: "k", "low", "high", "open", as `size_curve.needs` gives them.
        confidence: of the interval.
    """
    if told["low"] is None:
        return f"{_bound(told, 'k')} times"
    share = f"{100 * confidence:g} % interval"
    if {"k", "low"} <= set(told["open"]):
        return f"{_bound(told, 'k')} times (the whole {share} lies there)"
    return f"{_bound(told, 'k')} times ({share} {_bound(told, 'low')} to {_bound(told, 'high')})"


def inverse(told: Result) -> dict[str, Any]:
    """The same factor seen from the other side: 1/k, its limits and bounds."""
    swap = {"k": "k", "low": "high", "high": "low"}
    numbers = {name: told[other] for name, other in swap.items()}
    return {
        **{name: None if value is None else 1 / value for name, value in numbers.items()},
        "open": [swap[name] for name in told["open"]],
    }


def times(value: float) -> str:
    """A factor as it is written: "12", "2.1", "0.45"."""
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def tables(result: Result) -> dict[str, pd.DataFrame]:
    """Scores by setting and size; the factors; the factors by score."""
    scores = pd.DataFrame(
        [
            {
                "setting": row["setting"],
                "size": row["size"],
                "clips": row["n"],
                result["metric"]: row["score"],
                "low": row["low"],
                "high": row["high"],
                "lowest seed": min(row["by_seed"]),
                "highest seed": max(row["by_seed"]),
                "seconds": row["seconds"],
            }
            for row in result["scores"]
        ]
    )
    factors = pd.DataFrame(
        [
            {
                "setting": told["b"],
                "against": told["a"],
                "times the data": _text(told, "k"),
                "low": _text(told, "low"),
                "high": _text(told, "high"),
                "scores both reach": "none"
                if told["range"] is None
                else f"{told['range'][0]:.4f} to {told['range'][1]:.4f}",
            }
            for told in result["needs"]
        ]
    )
    by_score = pd.DataFrame(
        [
            {
                "setting": told["b"],
                "against": told["a"],
                result["metric"]: at["score"],
                "its clips": round(at["n_b"], 1),
                "clips of the other": round(at["n_a"], 1),
                "times the data": _text(at, "k"),
                "low": _text(at, "low"),
                "high": _text(at, "high"),
            }
            for told in result["needs"]
            for at in told["at"]
        ]
    )
    found = {"Scores": scores, "Times the data": factors, "By score": by_score}
    return {heading: table for heading, table in found.items() if len(table)}


def figures(result: Result) -> dict[str, Figure]:
    """The curves with their bands, an arrow for each factor."""
    figure, axes = new_figure(7.2, 4.4)
    draw_curves(axes[0, 0], result)
    return {"Curves": figure}


def draw_curves(axes: Any, result: Result) -> None:
    """Scores over clips learnt from (logarithmic), with bands, seeds as dots, arrows of k."""
    names = [setting["name"] for setting in result["settings"]]
    for s, name in enumerate(names):
        rows = [row for row in result["scores"] if row["setting"] == name]
        colour = COLOURS[s % len(COLOURS)]
        n, score = ([row[key] for row in rows] for key in ("n", "score"))
        label = name if s == 0 else f"{name}: {_factor(result['needs'][s - 1])}"
        axes.plot(n, score, marker="o", markersize=4, color=colour, label=label, zorder=3)
        if rows[0]["low"] is not None:
            low, high = ([row[key] for row in rows] for key in ("low", "high"))
            axes.fill_between(n, low, high, color=colour, alpha=0.15, linewidth=0)
        seeds = np.array([row["by_seed"] for row in rows])
        if seeds.shape[1] > 1:
            spread = np.repeat(n, seeds.shape[1])
            axes.plot(spread, seeds.ravel(), ".", color=colour, alpha=0.35, markersize=3)
    for s, told in enumerate(result["needs"], start=1):
        _arrow(axes, told, COLOURS[s % len(COLOURS)])
    ticks = sorted({row["n"] for row in result["scores"]})
    axes.set_xscale("log")
    axes.set_xticks(ticks)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    axes.set_xlabel("clips to learn from")
    axes.set_ylabel(result["metric"])
    axes.legend(loc="best", frameon=False)


def _arrow(axes: Any, told: Result, colour: str) -> None:
    """From A's size to B's at one score, where the factor is told from 1."""
    if not told["at"] or (told["low"] is not None and told["low"] <= 1 <= told["high"]):
        return
    inner = told["at"][1:-1] or told["at"]
    at = min(inner, key=lambda entry: abs(np.log(entry["k"] / told["k"])))
    axes.annotate(
        "",
        xy=(at["n_b"], at["score"]),
        xytext=(at["n_a"], at["score"]),
        arrowprops={"arrowstyle": "->", "color": colour, "linewidth": 1.4},
        zorder=4,
    )
    axes.annotate(
        f"× {times(told['k'])}",
        (float(np.sqrt(at["n_a"] * at["n_b"])), at["score"]),
        xytext=(0, 4),
        textcoords="offset points",
        color=colour,
        ha="center",
        va="bottom",
        fontsize=10,
        zorder=5,
    )


def _made(result: Result) -> list[str]:
    protocol, seeds = result["protocol"], result["seeds"]
    grown = "by group" if result["draw"] == "groups" else "clip by clip"
    lines = [
        f"{protocol['n_clips']} clips of {protocol['n_groups']} groups are tested "
        f"({protocol['text']}); what is learnt from is a part of the training part, drawn {grown}, "
        "in equal shares of all classes, each size within the next larger, the same for all "
        f"settings; {seeds} {'seed' if seeds == 1 else 'seeds'}."
    ]
    lines.append(
        "The factor is the geometric mean, over the scores that both curves reach, of the ratio of "
        "the sizes at which they do; curves are the nearest that never fall, straight in the "
        "logarithm of the size."
    )
    one_group = protocol["n_groups"] < 2
    if seeds == 1 and one_group:
        lines.append("There are no intervals: they need a second seed or a second tested group.")
    elif seeds == 1:
        lines.append("Intervals hold the chance of the tested groups alone: there is one seed.")
    elif one_group:
        lines.append("Intervals hold the chance of the seeds alone: one group is tested.")
    else:
        lines.append(
            "Intervals hold the chance of seeds (training sets, random weights) and of the tested "
            "groups; not that of another pool of clips to learn from."
        )
    lines.append(f"Settings: {_settings(result)}.")
    return [*lines, *(f"Note: {note}" for note in protocol["notes"])]


def _settings(result: Result) -> str:
    return "; ".join(f"{s['name']} = `{s['strategy']}`" for s in result["settings"])


def _factor(told: Result) -> str:
    """What the legend says: "2.1 times the data (1.6 to 2.8)"."""
    if told["k"] is None:
        return "the same"
    limits = "" if told["low"] is None else f" ({_bound(told, 'low')} to {_bound(told, 'high')})"
    if {"k", "low", "high"} <= set(told["open"]):
        limits = ""
    return f"{_bound(told, 'k')} times the data{limits}"


def _share(told: Result, name: str) -> str:
    text = f"{100 * told[name]:.0f} %"
    if name not in told["share_open"]:
        return text
    return f"more than {text}" if told[name] > 0.5 else f"less than {text}"


def _bound(told: Result, name: str) -> str:
    value = told[name]
    if name not in told["open"]:
        return times(value)
    return f"{'more' if value > 1 else 'less'} than {times(value)}"


def _text(told: Result, name: str) -> str | None:
    return None if told[name] is None else _bound(told, name)
