"""Scores against hours of audio and against epochs: a power law, and how far it can be carried on.

score(x) = top - a x^(-b), with a >= 0 and top <= 1. Three unknowns for some four points leave the
law all but free, so that the interval of what it foretells, over resampled clips, is what counts;
and it holds neither what another training run, nor what other recordings would change. Beside it
stands what was measured: the last doubling, paired.

Symbols: J points of a curve, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator
from own_network_scores import Scored, told

from ossicle.study.outputs import COLOURS, new_figure

EXPONENTS = np.geomspace(0.02, 3.0, 80)
FURTHER = (2.0, 4.0, 8.0)


class Curve(NamedTuple):
    """Networks along something that there can be more of.

    Attributes:
        what: "hours of audio".
        x: (J,) ascending.
        networks: (J,) their titles.
    """

    what: str
    x: tuple[float, ...]
    networks: tuple[str, ...]


def fit(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Least squares under the constraints: the exponent by a grid, the rest in closed form.

    Args:
        x: (J,) positive.
        y: (R, J) scores.

    Returns:
        top, a, b: (R,) each. Of curves that do not rise, a is 0 and top their mean.
    """
    # In units of the geometric middle, so that powers stay near one.
    u = (x / np.exp(np.log(x).mean()))[None] ** -EXPONENTS[:, None]  # (B, J)
    centred = u - u.mean(axis=1, keepdims=True)
    a = -np.einsum("bj,rj->rb", centred, y) / (centred**2).sum(axis=1)
    a = np.maximum(a, 0.0)
    top = y.mean(axis=1)[:, None] + a * u.mean(axis=1)
    bound = np.einsum("bj,rj->rb", u, 1.0 - y) / (u**2).sum(axis=1)
    a = np.where(top > 1.0, np.maximum(bound, 0.0), a)
    top = np.minimum(top, 1.0)
    error = (y[:, None] - (top[..., None] - a[..., None] * u[None])) ** 2
    best = error.sum(axis=2).argmin(axis=1)
    rows = np.arange(len(y))
    b = EXPONENTS[best]
    scale = np.exp(np.log(x).mean()) ** b
    return top[rows, best], a[rows, best] * scale, b


def law(parameters: tuple[np.ndarray, ...], x: np.ndarray) -> np.ndarray:
    """(R, len(x)) scores of fitted laws."""
    top, a, b = (p[:, None] for p in parameters)
    return top - a * x[None] ** -b


def _interval(value: float, draws: np.ndarray) -> dict[str, float]:
    low, high = np.quantile(draws, [0.025, 0.975])
    return {"value": value, "low": min(float(low), value), "high": max(float(high), value)}


def analysed(curve: Curve, scores: Scored) -> dict[str, Any]:
    """A curve's points, its law, what that foretells, and what the last doubling brought.

    Returns:
        "what", "x", "points" (scores with intervals), "law" (top, a, b), "line" (x, value, low,
        high of the law), "further" (times the largest x: score and gain with intervals), "last"
        (the last point less the one before, paired, on all sets and on each).
    """
    x = np.array(curve.x, float)
    values, draws = scores.mean_draws(curve.networks)
    mine, others = fit(x, values[None]), fit(x, draws)
    grid = np.geomspace(x[0], x[-1] * FURTHER[-1], 60)
    middle, spread = law(mine, grid)[0], law(others, grid)
    low, high = np.quantile(spread, [0.025, 0.975], axis=0)
    further = {}
    for times in FURTHER:
        there, here = x[-1:] * times, x[-1:]
        score, drawn = law(mine, there)[0, 0], law(others, there)[:, 0]
        gain = float(score - law(mine, here)[0, 0])
        further[f"{times:g}"] = {
            "score": _interval(float(score), drawn),
            "gain": _interval(gain, drawn - law(others, here)[:, 0]),
        }
    pair = {curve.networks[-1]: 1.0, curve.networks[-2]: -1.0}
    return {
        "what": curve.what,
        "x": list(curve.x),
        "networks": list(curve.networks),
        "points": [scores.mean({name: 1.0}) for name in curve.networks],
        "law": dict(zip(("top", "a", "b"), (float(p[0]) for p in mine), strict=True)),
        "line": {"x": grid, "value": middle, "low": low, "high": high},
        "further": further,
        "last": scores.mean(pair),
        "last_by_set": {name: scores.on(name, pair) for name in scores.sets},
        "last_times": float(x[-1] / x[-2]),
    }


def figure(found: Mapping[str, Mapping[str, Any]]) -> Figure:
    """A panel a curve, a line a group of sets.

    Args:
        found: curve -> group of sets -> what ``analysed`` gives.
    """
    drawing, axes = new_figure(4.2 * max(len(found), 1), 3.4, cols=max(len(found), 1))
    for axis, (what, groups) in zip(axes[0], found.items(), strict=True):
        for turn, (name, one) in enumerate(groups.items()):
            # Side by side, or bars would hide each other.
            x, line, colour = 1.03**turn * np.array(one["x"]), one["line"], COLOURS[turn]
            points = one["points"]
            low, high = (np.array([p[side] for p in points]) for side in ("low", "high"))
            value = np.array([p["value"] for p in points])
            axis.errorbar(
                x, value, [value - low, high - value], fmt="o", color=colour, capsize=2, label=name
            )
            axis.plot(line["x"], line["value"], "--", color=colour, linewidth=1)
            axis.fill_between(line["x"], line["low"], line["high"], color=colour, alpha=0.12)
        last = max(one["x"][-1] for one in groups.values())
        axis.axvline(last, color="#888888", linewidth=0.8, linestyle=":")
        axis.set_xscale("log")
        first = min(one["x"][0] for one in groups.values())
        axis.set_xticks([t for t in last * 2.0 ** np.arange(-6, 4) if t > 0.9 * first])
        axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: number(x)))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xlabel(what)
        axis.set_ylabel("mean accuracy" if axis is axes[0][0] else "")
    # Above both panels, where no point can lie.
    handles, labels = axes[0][0].get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return drawing


def tables(found: Mapping[str, Mapping[str, Any]]) -> dict[str, pd.DataFrame]:
    """Points and what lies beyond them; the last doubling on each set."""
    points, last = [], []
    for what, groups in found.items():
        for name, one in groups.items():
            row: dict[str, Any] = {"curve": what, "sets": name}
            for x, point in zip(one["x"], one["points"], strict=True):
                points.append({**row, "x": number(x), "score": told(point), "is": "measured"})
            for times, there in one["further"].items():
                x = one["x"][-1] * float(times)
                points.append(
                    {**row, "x": number(x), "score": told(there["score"]), "is": "foretold"}
                )
            for clips, gain in one["last_by_set"].items():
                last.append({**row, "set": clips, "last step, points": _points(gain)})
    return {"Curves": pd.DataFrame(points), "The last step of each curve": pd.DataFrame(last)}


def number(x: float) -> str:
    """Hours, epochs or steps, short."""
    return f"{x:,.0f}" if x >= 100 else f"{x:.3g}"


def _points(gain: Mapping[str, float]) -> str:
    return told({k: 100 * gain[k] for k in ("value", "low", "high")}, sign=True, digits=2)


def words(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Where more would still help, one paragraph."""
    said = ["Where more would still help."]
    gains: dict[str, dict[str, dict[str, float]]] = {}
    for what, groups in found.items():
        for name, one in groups.items():
            step, double = one["last"], one["further"]["2"]["gain"]
            gains.setdefault(name, {})[what] = double
            verdict = "beyond chance" if step["low"] > 0 else "not beyond chance"
            if step["high"] < 0:
                verdict = "a loss beyond chance"
            said.append(
                f"On {name}, {one['last_times']:.3g} times the {what}, up to "
                f"{number(one['x'][-1])}, brought {_points(step)} points, {verdict}; the law has "
                f"another doubling bring {_points(double)}."
            )
            rising = [k for k, gain in one["last_by_set"].items() if gain["low"] > 0]
            if rising:
                said.append(f"Still rising beyond chance: {', '.join(rising)}.")
    for name, of in gains.items():
        if len(of) > 1:
            best = max(of, key=lambda what: of[what]["value"])
            others = [gain["high"] for what, gain in of.items() if what != best]
            sure = "" if of[best]["low"] > max(others) else ", though the intervals overlap"
            said.append(f"On {name}, twice the {best} is foretold to bring most{sure}.")
    return " ".join(said)


def curves(wanted: Sequence[Curve], groups: Mapping[str, Scored]) -> dict[str, Any]:
    """Curve -> group of sets -> what ``analysed`` gives; of two points or more."""
    return {
        curve.what: {name: analysed(curve, scores) for name, scores in groups.items()}
        for curve in wanted
        if len(curve.x) > 2
    }
