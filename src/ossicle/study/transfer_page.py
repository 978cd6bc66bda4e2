"""The study of transfer in words and pictures; every word is computed from the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ossicle.study.outputs import COLOURS, new_figure
from ossicle.study.transfer_curves import ARMS, Curves, Resampled, mean_of, percent

_LINES: dict[str, Any] = {
    "transfer": {"marker": "o", "linestyle": "-"},
    "scratch": {"marker": "s", "linestyle": "--"},
    "probe": {"marker": "^", "linestyle": ":"},
    "untrained": {"marker": "v", "linestyle": ":"},
}


def findings(curves: Curves) -> list[str]:
    """A paragraph for each source and target: gain, share that suffices, interaction, probes."""
    return [" ".join(_pair(curves, source, target)) for source, target in curves.pairs]


def _pair(curves: Curves, source: str, target: str) -> list[str]:
    metric, words = curves.metrics[target], []
    matches = curves.matches()
    for network in curves.networks:
        gains = curves.gain(source, target, network)
        transfer = curves.arm(source, target, network, "transfer")[-1]
        scratch = curves.arm(None, target, network, "scratch")[-1]
        words.append(
            f"From {source} to {target}, {network} network: on all of the training part "
            f"{transfer.value:.3f} after the source, {scratch.value:.3f} from scratch ({metric}): "
            f"transfer is {_verdict(gains[-1], metric)}."
        )
        if len(gains) > 1:
            words.append(
                f"At {percent(curves.shares[0])} it is {_verdict(gains[0], metric)}; over all "
                f"shares tried, on the mean, {_verdict(mean_of(gains), metric)}."
            )
        own = matches[(matches["source"] == source) & (matches["target"] == target)]
        own = own[(own["network"] == network)]
        words += [_matching(row) for row in own.to_dict("records")]
        words += _probes(curves, source, target, network)
    if len(curves.networks) > 1:
        both = curves.interaction(source, target)
        words.append(
            "The interaction of transfer and the multiscale input, (TM - T) - (M - base), is "
            f"{_shown(both[-1], metric)} on all of the training part and "
            f"{_shown(mean_of(both), metric)} on the mean over the shares: {_interacts(both)}."
        )
    return words


def _verdict(gain: Resampled, metric: str) -> str:
    found = gain.interval()
    how = "better" if found["value"] > 0 else "worse" if found["value"] < 0 else "the same"
    if not (found["low"] > 0 or found["high"] < 0):
        return f"neither better nor worse beyond its interval ({_shown(gain, metric)})"
    return f"{how}, {_shown(gain, metric)}"


def _signed(value: float, digits: int) -> str:
    """With its sign; what rounds to nothing has a plus."""
    return f"{round(value, digits) + 0.0:+.{digits}f}"


def _shown(gain: Resampled, metric: str) -> str:
    """A difference with its interval, in points where scores lie between 0 and 1."""
    found = gain.interval()
    points = metric != "r2"
    factor, unit = (100.0, " points") if points else (1.0, "")
    digits = 1 if points else 3
    value, low, high = (_signed(factor * found[k], digits) for k in ("value", "low", "high"))
    return f"{value}{unit} ({low} to {high})"


def _matching(row: Mapping[str, Any]) -> str:
    fresh = "" if row["scratch"] == row["network"] else f" the {row['scratch']} network's"
    whole = f"it matches{fresh} scratch on everything"
    if row["share"] == "none":
        return f"At no share tried {whole} (95 % interval: {row['low']} to {row['high']})."
    return f"From {row['share']} on {whole} (95 % interval: {row['low']} to {row['high']})."


def _probes(curves: Curves, source: str, target: str, network: str) -> list[str]:
    trial = curves.shares[-1]
    if not any(t.arm == "probe" and t.share == trial for t in curves.scores):
        return []
    probe = curves.arm(source, target, network, "probe")[-1]
    untrained = curves.arm(None, target, network, "untrained")[-1]
    return [
        f"Frozen, the source's network gives a ridge {probe.value:.3f}, an untrained one "
        f"{untrained.value:.3f}: the source's is "
        f"{_verdict(probe - untrained, curves.metrics[target])}."
    ]


def _interacts(both: Sequence[Resampled]) -> str:
    found = mean_of(both).interval()
    if found["low"] > 0:
        return "together they give more than the sum of each alone"
    if found["high"] < 0:
        return "together they give less than the sum of each alone"
    return "whether together they give more than each alone cannot be told"


def method(curves: Curves, targets: Mapping[str, Mapping[str, Any]], about: str) -> list[str]:
    """How it was done: what each arm is, what was tested, what the intervals hold.

    Args:
        curves: the scores.
        targets: name -> "protocol", "folds_tested", "clips_tested", "groups_tested".
        about: the training, in words.
    """
    used = [arm for arm in ARMS if any(trial.arm == arm for trial in curves.scores)]
    arms = "; ".join(f"{arm}: {ARMS[arm]}" for arm in used)
    tested = "; ".join(
        f"{name}: {told['protocol']}, {told['folds_tested']} tested, {told['clips_tested']} clips "
        f"of {told['groups_tested']} groups"
        for name, told in targets.items()
    )
    n_seeds = len(next(iter(curves.scores.values())).values)
    seeds = "one seed, whose luck the intervals leave out"
    if n_seeds > 1:
        seeds = f"{n_seeds} seeds (weights of the source, parts, order of clips)"
    return [
        f"{about} Arms: {arms}.",
        f"Tested on {tested}. Means over {seeds}; 95 % intervals over test groups and seeds, "
        "differences paired. They do not say what another source of the same kind would give.",
    ]


def transfer_figures(curves: Curves) -> dict[str, Figure]:
    """ "matrix": the gain, sources by targets; "curves": scores by share, the arms of each pair."""
    return {"matrix": _matrix(curves), "curves": _curves(curves)}


def _matrix(curves: Curves) -> Figure:
    sources = list(dict.fromkeys(source for source, _ in curves.pairs))
    named = {target for _, target in curves.pairs}
    # In the order of the sources, so that what is left out lies on the diagonal.
    targets = [name for name in sources if name in named]
    targets += [target for _, target in curves.pairs if target not in targets]
    targets = list(dict.fromkeys(targets))
    shares = dict.fromkeys((curves.shares[0], curves.shares[-1]))
    panels = [(network, share) for network in curves.networks for share in shares]
    cols, rows = len(shares), len(curves.networks)
    longest = max(map(len, [*sources, *targets]))
    width = 1.4 + 0.08 * longest + cols * max(2.3, 1.3 * len(targets))
    figure, axes = new_figure(width, 0.9 + rows * (0.9 + 0.75 * len(sources)), rows, cols)
    at = {share: curves.shares.index(share) for share in shares}
    found = {
        (pair, network, share): curves.gain(*pair, network)[at[share]].interval()
        for pair in curves.pairs
        for network, share in panels
    }
    most = max(abs(gain["value"]) for gain in found.values()) or 1.0
    image = None
    for ax, (network, share) in zip(axes.flat, panels, strict=True):
        grid = np.full((len(sources), len(targets)), np.nan)
        for source, target in curves.pairs:
            gain = found[(source, target), network, share]
            where = sources.index(source), targets.index(target)
            grid[where] = gain["value"]
            scale = 1.0 if curves.metrics[target] == "r2" else 100.0
            value, low, high = (_signed(scale * gain[k], 1) for k in ("value", "low", "high"))
            dark = abs(gain["value"]) > 0.6 * most
            ax.text(
                where[1],
                where[0],
                f"{value}\n({low} to {high})",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if dark else "black",
            )
        image = ax.imshow(grid, cmap="PuOr", vmin=-most, vmax=most, aspect="auto")
        for i, source in enumerate(sources):
            if source in targets:
                ax.text(
                    targets.index(source), i, "the same", ha="center", va="center", color="grey"
                )
        tilted = {"rotation": 20, "ha": "right"} if longest > 10 else {}
        ax.set_xticks(range(len(targets)), targets, **tilted)
        ax.set_yticks(range(len(sources)), sources if share == panels[0][1] else [])
        ax.set_xlabel("target" if network == panels[-1][0] else "")
        ax.set_ylabel("source" if share == panels[0][1] else "")
        ax.grid(visible=False)
        ax.set_title(f"{network}, {percent(share)}", fontsize=9)
    if image is not None:
        bar = figure.colorbar(image, ax=axes.ravel().tolist(), shrink=0.8)
        bar.set_label("points")
        bar.locator = MaxNLocator(6, steps=[1, 2, 5, 10])
        bar.update_ticks()
        bar.ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:+.3g}")
    title = "Gain of transfer over scratch in points (95 % interval),\nby network and share"
    figure.suptitle(f"{title} of the target's training part", fontsize=9)
    return figure


def _curves(curves: Curves) -> Figure:
    """A column a pair; a row for training, and one for the frozen networks."""
    frozen = any(trial.arm == "probe" for trial in curves.scores)
    rows = [("scratch", "transfer")] + ([("untrained", "probe")] if frozen else [])
    width = max(5.0, 3.6 * len(curves.pairs))
    figure, axes = new_figure(width, 0.5 + 3.1 * len(rows), len(rows), len(curves.pairs))
    for column, (source, target) in enumerate(curves.pairs):
        for row, arms in enumerate(rows):
            ax = axes[row, column]
            for number, network in enumerate(curves.networks):
                for arm in arms:
                    own = source if arm in ("transfer", "probe") else None
                    scores = curves.arm(own, target, network, arm)
                    label = f"{network}, {arm}"
                    shift = 1.0 + 0.02 * (2 * number + arms.index(arm) - 1.5)
                    _line(ax, curves.shares, scores, shift, arm, COLOURS[number], label)
            ax.set_xscale("log")
            ax.set_xticks(curves.shares, [percent(share) for share in curves.shares])
            ax.minorticks_off()
            ax.set_ylabel(f"{curves.metrics[target]} on {target}")
            if row == 0:
                ax.set_title(f"from {source} to {target}", fontsize=10)
                for number, network in enumerate(curves.networks):
                    whole = curves.arm(None, target, network, "scratch")[-1].value
                    ax.axhline(whole, color=COLOURS[number], linewidth=0.8, alpha=0.6)
            ax.set_xlabel("share of the target's training part")
            if column == 0:
                below = {"loc": "upper left", "bbox_to_anchor": (0.0, -0.18), "ncols": 2}
                ax.legend(fontsize=8, frameon=False, **below)
    # One scale for the same target.
    for target in dict.fromkeys(target for _, target in curves.pairs):
        at = [i for i, pair in enumerate(curves.pairs) if pair[1] == target]
        limits = [ax.get_ylim() for ax in axes[:, at].flat]
        for ax in axes[:, at].flat:
            ax.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
    return figure


def _line(
    ax: Axes,
    shares: Sequence[float],
    scores: Sequence[Resampled],
    shift: float,
    arm: str,
    colour: str,
    label: str,
) -> None:
    found = [score.interval() for score in scores]
    value = np.array([f["value"] for f in found])
    reach = np.abs([[f["value"] - f["low"], f["high"] - f["value"]] for f in found]).T
    x = np.asarray(shares) * shift
    hollow: dict[str, Any] = {"markerfacecolor": "white"} if arm in ("scratch", "untrained") else {}
    ax.errorbar(
        x,
        value,
        yerr=np.nan_to_num(reach),
        color=colour,
        label=label,
        markersize=4,
        linewidth=1.4,
        elinewidth=0.7,
        capsize=1.5,
        **_LINES[arm],
        **hollow,
    )
