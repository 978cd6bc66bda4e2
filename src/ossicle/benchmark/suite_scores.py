"""Scores of a suite: a task's, a domain's, the mean of all, and what lies between two rows.

Within a task, clips are resampled by whole groups and seeds with them, all rows by the same draws
(``ossicle.study.crossed``). Tasks are drawn independently of each other and stay those they are:
the interval of a mean is that of this suite, not of tasks at large (the ranks, which take tasks as
the sample, are in ``critical_difference``).

A rows, T tasks, n clips tested, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import t as student

from ossicle.benchmark.results import Results
from ossicle.benchmark.task import DOMAINS
from ossicle.errors import DataError
from ossicle.metrics import absent_classes
from ossicle.study.crossed import Crossed

CONFIDENCE = 0.95
_N_RESAMPLES = 1000


def collect(
    results: Results,
    *,
    rows: Sequence[str] | None = None,
    only: Sequence[str] | None = None,
    clips: Mapping[str, str] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """All that a scoreboard shows, ready for JSON.

    A task is compared on the rows that have all its folds; a row's mean and its differences are
    given where it has every task that any row has.

    Args:
        results: what the runs left.
        rows: of these alone; None: of all.
        only: names of tasks; None: all.
        clips: task -> checksum of its clips, which rows measured on others do not have; of tasks
            that are not in it, the version that most rows have.
        seed: of the resampling.

    Returns:
        Keys suite, tasks, rows (with "scores": task -> value, low, high; "domains", "mean"),
        differences (between all pairs of complete rows), n_resamples, confidence.

    Raises:
        DataError: there is nothing to score.
    """
    told = results.rows()
    wanted = list(told) if rows is None else [row for row in rows if row in told]
    gathered = {
        name: rows
        for name, rows in _gather(results, wanted, clips or {}).items()
        if only is None or name in only
    }
    if not gathered:
        raise DataError(f"{results.folder}: no task is finished: run the benchmark")
    scored = {name: _score_task(results, name, gathered[name], seed) for name in sorted(gathered)}
    order = sorted(scored, key=lambda name: (DOMAINS.index(scored[name].told["domain"]), name))
    tasks = [scored[name] for name in order]
    entries = []
    for row in wanted:
        mine = [task for task in tasks if row in task.rows]
        entry = {**told[row], "row": row}
        entry["scores"] = {task.name: task.score(row) for task in mine}
        entry["complete"] = len(mine) == len(tasks)
        for domain in DOMAINS:
            of = [task for task in tasks if task.told["domain"] == domain]
            whole = of and all(row in task.rows for task in of)
            entry.setdefault("domains", {})[domain] = _mean(of, {row: 1.0}) if whole else None
        entry["mean"] = _mean(tasks, {row: 1.0}) if entry["complete"] else None
        entries.append(entry)
    entries.sort(key=lambda e: (-e["mean"]["value"] if e["mean"] else 1.0, e["name"]))
    complete = [entry["row"] for entry in entries if entry["complete"]]
    pairs = [
        {"a": a, "b": b, **_mean(tasks, {a: 1.0, b: -1.0})} for a, b in combinations(complete, 2)
    ]
    return {
        "suite": results.suite,
        "tasks": [task.told for task in tasks],
        "rows": entries,
        "differences": pairs,
        "confidence": CONFIDENCE,
        "n_resamples": _N_RESAMPLES,
        "seed": seed,
    }


class TaskScores:
    """A task and the rows that have done all of it."""

    def __init__(
        self, told: dict[str, Any], rows: list[str], crossed: Crossed, infos: dict
    ) -> None:
        self.told, self.rows, self.crossed, self.infos = told, rows, crossed, infos
        self.name, self.metric = told["name"], crossed.metrics[0]

    def weights(self, of: Mapping[str, float]) -> np.ndarray:
        """(A,) weights of rows by their name."""
        return np.array([of.get(row, 0.0) for row in self.rows])

    def score(self, row: str) -> dict[str, Any]:
        """Value, interval, seeds' values and what the probes chose."""
        at = self.rows.index(row)
        found = self.crossed.contrast(self.metric, self.weights({row: 1.0}))
        by_seed = self.crossed.scores[self.metric][at]
        distinct = by_seed[: self.infos[row]["n_seeds"]]
        return {**found, "by_seed": distinct.tolist(), **self.infos[row]}


def _gather(
    results: Results, wanted: Sequence[str], clips: Mapping[str, str]
) -> dict[str, dict[str, dict[int, dict[int, tuple[dict, dict, Any]]]]]:
    """Task -> row -> seed -> fold -> (cell, info, arrays), of the clips that most rows have."""
    found: dict[str, dict[str, dict[str, dict[int, dict[int, Any]]]]] = {}
    told = results.rows()
    for cell, info, path in results.cells():
        if cell["row"] not in wanted:
            continue
        of = told[cell["row"]].get("weights_of", {})
        if of.get(str(cell["seed"]), cell.get("weights")) == cell.get("weights"):
            rows = found.setdefault(cell["task"], {}).setdefault(cell["clips"], {})
            seeds = rows.setdefault(cell["row"], {}).setdefault(cell["seed"], {})
            seeds[cell["fold"]] = (cell, info, path)
    gathered = {}
    for task, versions in found.items():
        common = max(versions, key=lambda name: (len(versions[name]), name))
        version = clips.get(task, common)
        if version not in versions:
            continue
        n_folds = results.task(task, version)[0]["n_folds"]
        whole = {
            row: {seed: folds for seed, folds in seeds.items() if len(folds) == n_folds}
            for row, seeds in versions[version].items()
        }
        whole = {row: seeds for row, seeds in whole.items() if seeds}
        if whole:
            gathered[task] = whole
    return gathered


def _score_task(
    results: Results, name: str, rows: Mapping[str, Mapping[int, Mapping[int, Any]]], seed: int
) -> TaskScores:
    checksum = next(iter(next(iter(next(iter(rows.values())).values())).values()))[0]["clips"]
    told, y, groups = results.task(name, checksum)
    names = sorted(rows)
    answers: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]] = {}
    infos: dict[str, dict[str, Any]] = {}
    for row in names:
        for number, folds in rows[row].items():
            parts = [np.load(path) for _, _, path in folds.values()]
            at = np.concatenate([part["rows"] for part in parts])
            decisions = np.concatenate([part["decisions"] for part in parts])
            order = np.argsort(at, kind="stable")
            answers[row, number] = at[order], decisions[order]
        first = next(iter(rows[row].values()))
        told_by = [info for _, info, _ in first.values()]
        infos[row] = {
            "n_seeds": len(rows[row]),
            "seconds_used": told_by[0].get("seconds_used"),
            "skipped": told_by[0].get("skipped"),
            "chosen": [
                {k: v for k, v in info.items() if k not in ("seconds_used", "skipped")}
                for info in told_by
            ],
        }
    # A clip that one network could not read is left out for all, so that rows compare.
    shared = None
    for at, _ in answers.values():
        shared = at if shared is None else np.intersect1d(shared, at)
    assert shared is not None
    n_seeds = max(len(seeds) for seeds in rows.values())
    decisions = np.stack(
        [
            np.stack(
                [
                    _of(answers[row, list(rows[row])[s % len(rows[row])]], shared)
                    for s in range(n_seeds)
                ]
            )
            for row in names
        ]
    ).astype(np.float64)
    metric = told["metric"]
    crossed = Crossed(
        told["task"],
        y[shared],
        decisions,
        told["classes"],
        groups[shared].astype(str),
        n_resamples=_N_RESAMPLES,
        confidence=CONFIDENCE,
        seed=seed,
        metrics=(metric,),
    )
    told |= {"n_tested": len(shared), "chance": _chance(told["task"], y[shared])}
    told["absent"] = list(absent_classes(told["task"], y[shared], told["classes"]))
    return TaskScores(told, names, crossed, infos)


def _of(answer: tuple[np.ndarray, np.ndarray], shared: np.ndarray) -> np.ndarray:
    at, decisions = answer
    return decisions[np.searchsorted(at, shared)]


def _chance(task: str, y: np.ndarray) -> float:
    """The best constant answer: the commonest class, or the mean share of a tag."""
    if task == "multilabel":
        return float(y.mean())
    return float(np.bincount(y).max() / len(y))


def _mean(tasks: Sequence[TaskScores], of: Mapping[str, float]) -> dict[str, float]:
    """The mean over tasks of a contrast of rows, with its interval.

    Tasks are resampled independently, so the variance is the sum of theirs over T squared; degrees
    of freedom after Satterthwaite (1946, Biometrics Bulletin 2, 110-114).
    """
    if len(tasks) == 1:
        return {**tasks[0].crossed.contrast(tasks[0].metric, tasks[0].weights(of)), "n_tasks": 1}
    values, variances, freedoms = [], [], []
    for task in tasks:
        value, resampled, freedom = task.crossed.draws(task.metric, task.weights(of))
        variance = float(np.nanvar(resampled))
        if variance < 1e-24:
            # All clips agree, of which resampling makes a certainty that it is not.
            alone = task.crossed.contrast(task.metric, task.weights(of))
            reach = student.ppf((1 + CONFIDENCE) / 2, freedom)
            variance = float(np.nan_to_num((alone["high"] - alone["low"]) / 2 / reach)) ** 2
        values.append(value)
        variances.append(variance)
        freedoms.append(freedom)
    value, variance = float(np.mean(values)), float(np.sum(variances))
    deviation = float(np.sqrt(variance)) / len(tasks)
    below = sum(v**2 / f for v, f in zip(variances, freedoms, strict=True))
    reach = 0.0
    if below > 0:
        reach = float(student.ppf((1 + CONFIDENCE) / 2, variance**2 / below)) * deviation
    most = sum(weight for weight in of.values() if weight > 0)
    least = sum(weight for weight in of.values() if weight < 0)
    return {
        "value": value,
        "low": max(value - reach, least),
        "high": min(value + reach, most),
        "deviation": deviation,
        "n_tasks": len(tasks),
    }
