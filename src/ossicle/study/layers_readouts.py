"""The layers study's numbers from its cells: scores, differences, profiles, what was chosen.

Axes: n tested clips, L layers, G groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from ossicle.datasets.clips import Clips
from ossicle.metrics import PRIMARY, compare_runs, with_intervals
from ossicle.metrics.bootstrap import draw, group_codes, group_sums, limits
from ossicle.metrics.classification import score as all_scores
from ossicle.transfer.protocol import Protocol

LAST, BEST, ALL, CHOSEN = "last layer", "best single layer", "all layers", "chosen layers"
MFCC, MFCC_ALL, UNTRAINED = "MFCC", "MFCC + all layers", "untrained, all layers"
# (a, b): a minus b is reported.
PAIRS = (
    (ALL, LAST),
    (ALL, BEST),
    (CHOSEN, ALL),
    (CHOSEN, LAST),
    (CHOSEN, BEST),
    (MFCC_ALL, ALL),
    (ALL, MFCC),
    (ALL, UNTRAINED),
)
RESAMPLES = 1000
COSTLY_RESAMPLES = 200
Found = tuple[Clips, Protocol, list[dict[str, Any]], list[list[str]]]
Run = dict[str, Any]


def by_method(method: str) -> str:
    """The read-out of the layers that one method chose."""
    return f"chosen by {method}"


def summarise(
    found: Mapping[str, Found], layers: Sequence[str], methods: Sequence[str], seed: int
) -> dict[str, Any]:
    """The study's result.

    Args:
        found: task -> clips, protocol, cells (see `layers_audio`) and what was left out.
        layers: names, shallow to deep.
        methods: that chose.
        seed: of the intervals.

    Returns:
        `layers`, `methods`; `tasks`: for each task its metric, protocol, numbers of clips and
        groups, `scores` (read-out -> value, low, high), `profile` (layer -> the same),
        `selection` (read-out -> layer -> share of folds), `n_chosen` (read-out -> mean number of
        layers), `chosen_by_fold`, `sets` (set -> mean score inside the training parts, where all
        were tried), `differences`; over tasks: `means` (read-out -> mean score),
        `differences` ("a - b" -> mean difference with its interval, and how many tasks are
        better and worse) and `agreement` (rank correlation of the profiles of two tasks).
    """
    tasks, runs = {}, {}
    for name, (clips, protocol, rows, skipped) in found.items():
        tasks[name], runs[name] = _task(clips, protocol, rows, layers, methods, seed)
        tasks[name]["skipped"] = skipped
    comparable = len({entry["metric"] for entry in tasks.values()}) == 1
    readouts = list(next(iter(tasks.values()))["scores"])
    return {
        "layers": list(layers),
        "methods": list(methods),
        "tasks": tasks,
        "means": {
            readout: float(np.mean([t["scores"][readout]["value"] for t in tasks.values()]))
            for readout in readouts
        }
        if comparable
        else None,
        "differences": {
            f"{a} - {b}": _over_tasks(
                {task: runs[task] for task in tasks},
                {task: tasks[task]["differences"][f"{a} - {b}"] for task in tasks},
                (a, b),
                seed,
            )
            for a, b in PAIRS
            if a in readouts and b in readouts
        }
        if comparable
        else None,
        "agreement": _agreement({t: list(e["profile"].values()) for t, e in tasks.items()}),
    }


def _task(
    clips: Clips,
    protocol: Protocol,
    rows: Sequence[Mapping[str, Any]],
    layers: Sequence[str],
    methods: Sequence[str],
    seed: int,
) -> tuple[dict[str, Any], dict[str, Run]]:
    """A task's part of the result, and its runs: what each read-out said of each clip."""
    folds = range(len(protocol.folds))
    cell = {(row["part"], row["fold"]): row for row in rows}
    best = [min(methods, key=lambda m: cell[m, fold]["inner_loss"]) for fold in folds]
    choices = {
        BEST: [cell["single", fold]["layers"] for fold in folds],
        CHOSEN: [cell[best[fold], fold]["layers"] for fold in folds],
        **{by_method(m): [cell[m, fold]["layers"] for fold in folds] for m in methods},
    }
    said: dict[str, list[Any]] = {
        LAST: [cell["single", fold]["predicted"][layers[-1]] for fold in folds],
        BEST: [cell["single", f]["predicted"][choices[BEST][f][0]] for f in folds],
        ALL: [cell["all", fold]["predicted"]["all"] for fold in folds],
        CHOSEN: [cell[best[fold], fold]["predicted"][best[fold]] for fold in folds],
        **{by_method(m): [cell[m, fold]["predicted"][m] for fold in folds] for m in methods},
    }
    for part, key, readout in (
        ("mfcc", "mfcc", MFCC),
        ("mfcc", "mfcc + all", MFCC_ALL),
        ("untrained", "untrained", UNTRAINED),
    ):
        if (part, 0) in cell:
            said[readout] = [cell[part, fold]["predicted"][key] for fold in folds]
    single = {
        layer: [cell["single", fold]["predicted"][layer] for fold in folds] for layer in layers
    }
    runs = {readout: _run(clips, protocol, parts) for readout, parts in said.items()}
    metric = PRIMARY[clips.task]

    def scored(run: Run) -> dict[str, float]:
        return _scored(clips, run, metric, seed)

    result = {
        "task": clips.task,
        "metric": metric,
        "protocol": protocol.text,
        "notes": [*clips.notes, *protocol.notes],
        "n_folds": len(protocol.folds),
        "n_clips": len(runs[ALL]["items"]),
        "n_groups": len(set(runs[ALL]["group"])),
        "group_source": protocol.group_source,
        "scores": {readout: scored(run) for readout, run in runs.items()},
        "profile": {layer: scored(_run(clips, protocol, parts)) for layer, parts in single.items()},
        "selection": {
            readout: {
                layer: float(np.mean([layer in chosen for chosen in by_fold])) for layer in layers
            }
            for readout, by_fold in choices.items()
        },
        "n_chosen": {
            readout: float(np.mean([len(chosen) for chosen in by_fold]))
            for readout, by_fold in choices.items()
        },
        "chosen_by_fold": choices[CHOSEN],
        "method_by_fold": best,
        "inner": {
            key: {m: [cell[m, fold][key] for fold in folds] for m in methods}
            for key in ("inner", "inner_loss")
        },
        "differences": {
            f"{a} - {b}": compare_runs(
                runs[a], runs[b], task=clips.task, random_state=seed, **_effort(clips.task)
            )
            for a, b in PAIRS
            if a in runs and b in runs
        },
    }
    if "exhaustive" in methods:
        scores: dict[tuple[str, ...], list[float]] = {}
        for fold in folds:
            for chosen, value in cell["exhaustive", fold]["sets"]:
                scores.setdefault(tuple(chosen), []).append(value)
        result["sets"] = [[list(s), float(np.mean(values))] for s, values in scores.items()]
    return result, runs


def _effort(task: str) -> dict[str, Any]:
    """Resamples: a mean is resampled from its sums, other scores are computed each time."""
    costly = min(RESAMPLES, COSTLY_RESAMPLES)
    return {} if task == "classes" else {"n_resamples": costly, "n_permutations": costly}


def _run(clips: Clips, protocol: Protocol, parts: Sequence[Any]) -> Run:
    """What was said of each tested clip, in the order of the clips, for `compare_runs`."""
    rows = np.concatenate([test for _, test in protocol.folds])
    said = np.concatenate([np.asarray(part) for part in parts])
    order = np.argsort(rows, kind="stable")
    rows = rows[order]
    return {
        "items": rows.tolist(),
        "y_true": clips.y()[rows],
        "y_pred": said[order],
        "group": protocol.groups[rows].tolist(),
    }


def _scored(clips: Clips, run: Run, metric: str, seed: int) -> dict[str, float]:
    """The primary score with its interval over groups."""
    said, scores = run["y_pred"], None
    if clips.task == "multilabel":
        scores, said = said, (said >= 0.5).astype(np.int64)
    measured = with_intervals(
        clips.task,
        run["y_true"],
        said,
        scores,
        clips.classes,
        groups=run["group"],
        random_state=seed,
    )
    return measured[metric]


def _over_tasks(
    runs: Mapping[str, Mapping[str, Run]],
    differences: Mapping[str, Mapping[str, float]],
    pair: tuple[str, str],
    seed: int,
) -> dict[str, float]:
    """The mean over tasks of a minus b; its interval resamples the groups of every task.

    With the tasks given, not a sample of tasks: it says nothing of other tasks. Degrees of freedom
    of the mean: Satterthwaite (Biometrics Bulletin 2, 1946).
    """
    values = [differences[task]["difference"] for task in runs]
    samples, n_groups = [], []
    for number, task in enumerate(runs):
        a, b = (runs[task][readout] for readout in pair)
        codes, count = group_codes(a["group"], len(a["items"]))
        samples.append(_resampled(a, b, codes, count, np.random.default_rng([seed, number])))
        n_groups.append(count)
    variances = np.array([np.nanvar(s) for s in samples])
    freedom = np.maximum(np.array(n_groups) - 1.0, 1.0)
    total = float(np.sum(variances**2 / freedom))
    effective = np.sum(variances) ** 2 / total if total > 0 else float(min(freedom))
    value = float(np.mean(values))
    low, high = limits(
        np.mean(samples, axis=0), value, 1 + max(1, int(effective)), bounds=(-1.0, 1.0)
    )
    return {
        "difference": value,
        "low": low,
        "high": high,
        "tasks_better": int(sum(v > 0 for v in values)),
        "tasks_worse": int(sum(v < 0 for v in values)),
    }


def _resampled(
    a: Run, b: Run, codes: np.ndarray, n_groups: int, generator: np.random.Generator
) -> np.ndarray:
    """(R,) differences of the primary score when groups are drawn again."""
    y = a["y_true"]
    counts = np.concatenate(list(draw(n_groups, RESAMPLES, generator, RESAMPLES)))
    if y.ndim == 1 and y.dtype.kind in "iu":
        gain = (a["y_pred"] == y).astype(float) - (b["y_pred"] == y)
        sizes = group_sums(np.ones(len(y)), codes, n_groups)
        return (counts @ group_sums(gain, codes, n_groups)) / (counts @ sizes)
    task = "multilabel" if y.ndim == 2 else "regression"
    found = []
    for drawn in counts[:COSTLY_RESAMPLES]:
        rows = np.repeat(np.arange(len(y)), drawn[codes])
        pair = [_primary(task, y[rows], run["y_pred"][rows]) for run in (a, b)]
        found.append(pair[0] - pair[1])
    return np.array(found)


def _primary(task: str, y: np.ndarray, said: np.ndarray) -> float:
    if task == "regression":
        return all_scores(task, y, said)[PRIMARY[task]]
    names = [str(i) for i in range(y.shape[1])]
    return all_scores(task, y, (said >= 0.5).astype(np.int64), said, names)[PRIMARY[task]]


def _agreement(profiles: Mapping[str, Sequence[Mapping[str, float]]]) -> list[dict[str, Any]]:
    """Spearman's rank correlation of two tasks' scores by layer; None where one is flat."""
    values = {task: [layer["value"] for layer in profile] for task, profile in profiles.items()}
    found = []
    for a, b in combinations(values, 2):
        flat = min(len(values[a]), np.ptp(values[a]), np.ptp(values[b])) == 0
        flat = flat or len(values[a]) < 3
        correlation = None if flat else float(spearmanr(values[a], values[b]).statistic)
        found.append({"a": a, "b": b, "rank_correlation": correlation})
    return found
