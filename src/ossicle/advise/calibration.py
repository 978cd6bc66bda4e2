"""What score to expect, learnt from tasks on which every alternative was run.

A ridge regression of the logit of the chance-corrected score on a few cheap quantities, with an
offset for each alternative. Its coefficients come from `calibration.json`, a table of measured
tasks that `bench/advise.py` writes; ``fit`` makes them from the table again. Every judgement of it
leaves out all tasks of one data set at a time, since subsamples of a data set resemble each other.

Symbols: m rows (a task and an alternative each), q columns.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr, weightedtau

from ossicle.advise.alternatives import ALTERNATIVES

TABLE = Path(__file__).with_name("calibration.json")
Row = Mapping[str, Any]
# Scores beyond these shares of the way from chance to perfect count as these.
LOGIT_RANGE = (0.02, 0.98)
PENALTY = 1.0
# Share of scores that an interval should hold.
LEVEL = 0.9


def logit(share: float | np.ndarray) -> Any:
    """log(p / (1 - p)) of a share, which is kept off 0 and 1."""
    p = np.clip(share, *LOGIT_RANGE)
    return np.log(p / (1 - p))


def above_chance(score: float | np.ndarray, chance: float | np.ndarray) -> Any:
    """(score - chance) / (1 - chance): 0 at chance, 1 for no error."""
    return (score - chance) / np.maximum(1 - np.asarray(chance, np.float64), 1e-9)


def quantities(facts: Row, name: str, n_training: float) -> dict[str, float]:
    """What the prediction for one alternative is made from.

    Args:
        facts: of ``ossicle.advise.measure``.
        name: a key of ``ALTERNATIVES``.
        n_training: clips that will be learnt from.

    Returns:
        chance, classes (number), per_class (clips learnt from, a class), quick (the better of
        nearest neighbours and nearest centroid, above chance), explained (see
        ``measure.explained``), gap (logit of quick of all layers less that of the last).
    """
    read_outs, chance = facts["read_outs"], float(facts["sample"]["chance"])
    own = read_outs.get(ALTERNATIVES[name].read_out, read_outs["all"])

    def quick(read_out: Row) -> float:
        found = [read_out[key] for key in ("neighbours", "centroid") if key in read_out]
        return float(above_chance(max(found), chance))

    n_classes = facts["size"]["n_classes"] if facts["size"]["task"] != "regression" else 10
    return {
        "chance": chance,
        "classes": float(n_classes),
        "per_class": n_training / n_classes,
        "quick": quick(own),
        "explained": float(own["explained"]),
        "gap": float(logit(quick(read_outs["all"])) - logit(quick(read_outs["last"]))),
    }


def _design(rows: Sequence[Row], names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """(m, q) columns: one for each alternative, then the quantities and what training changes."""
    q = {key: np.array([float(row[key]) for row in rows]) for key in _KEYS}
    trained = np.array([ALTERNATIVES[row["alternative"]].trained for row in rows], np.float64)
    tuned = np.array([row["alternative"].startswith("finetune") for row in rows], np.float64)
    offsets = {f"is {n}": np.array([float(r["alternative"] == n) for r in rows]) for n in names}
    quick, size = logit(q["quick"]), np.log2(np.maximum(q["per_class"], 1.0))
    columns = {
        **offsets,
        "quick": quick,
        "explained": logit(q["explained"]),
        "log2 clips": size,
        "log2 classes": np.log2(q["classes"]),
        "trained x quick": trained * quick,
        "trained x log2 clips": trained * size,
        "fine-tuned x gap": tuned * q["gap"],
    }
    return np.stack(list(columns.values()), axis=1), list(columns)


_KEYS = ("quick", "explained", "per_class", "classes", "gap")


def _solve(rows: Sequence[Row]) -> dict[str, Any]:
    """Ridge on standardised columns; the mean is not penalised."""
    names = [name for name in ALTERNATIVES if any(r["alternative"] == name for r in rows)]
    X, columns = _design(rows, names)
    z = np.array([float(logit(above_chance(r["score"], r["chance"]))) for r in rows])
    mean, scale = X.mean(axis=0), X.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    Z = (X - mean) / scale
    weights = np.linalg.solve(Z.T @ Z + PENALTY * np.eye(Z.shape[1]), Z.T @ (z - z.mean()))
    return {
        "alternatives": names,
        "columns": columns,
        "mean": mean.tolist(),
        "scale": scale.tolist(),
        "weights": weights.tolist(),
        "intercept": float(z.mean()),
    }


def _logits(model: Row, rows: Sequence[Row]) -> np.ndarray:
    X, _ = _design(rows, model["alternatives"])
    Z = (X - np.array(model["mean"])) / np.array(model["scale"])
    return Z @ np.array(model["weights"]) + model["intercept"]


def _left_out(rows: Sequence[Row]) -> np.ndarray:
    """(m,) logits, each by a fit without its data set."""
    families = np.array([row["family"] for row in rows])
    predicted = np.empty(len(rows))
    for family in np.unique(families):
        inside = [row for row, f in zip(rows, families, strict=True) if f != family]
        own = families == family
        predicted[own] = _logits(_solve(inside), [row for row in rows if row["family"] == family])
    return predicted


def _widths(rows: Sequence[Row]) -> dict[str, list[float]]:
    """Quantiles of the residuals of left-out data sets, for frozen and for trained networks.

    Of n residuals the ranks are those of conformal prediction, (n + 1)(1 -+ LEVEL)/2; where n is
    too small for them, the extremes.
    """
    truth = np.array([float(logit(above_chance(r["score"], r["chance"]))) for r in rows])
    residuals = truth - _left_out(rows)
    trained = np.array([ALTERNATIVES[row["alternative"]].trained for row in rows])
    widths = {}
    for key, some in (("frozen", ~trained), ("trained", trained)):
        found = np.sort(residuals[some])
        if not len(found):
            continue
        low = max(int(np.floor((len(found) + 1) * (1 - LEVEL) / 2)), 1) - 1
        widths[key] = [float(found[low]), float(found[len(found) - 1 - low])]
    return widths


def fit(rows: Sequence[Row]) -> dict[str, Any]:
    """Coefficients and interval widths from a table of measured tasks.

    Args:
        rows: each with task, family (its data set), alternative, score, chance, and the values of
            ``quantities``; of two data sets at least.

    Returns:
        JSON values for ``predict``: the model, "widths" (logits), "level", "range" (smallest and
        largest clips a class and number of classes it was made from).
    """
    per_class = [float(row["per_class"]) for row in rows]
    classes = [float(row["classes"]) for row in rows]
    return {
        **_solve(rows),
        "penalty": PENALTY,
        "widths": _widths(rows),
        "level": LEVEL,
        "range": {
            "per_class": [min(per_class), max(per_class)],
            "classes": [min(classes), max(classes)],
        },
    }


def predict(model: Row, rows: Sequence[Row]) -> np.ndarray:
    """(m, 3) expected score and the ends of its interval.

    Args:
        model: of ``fit``.
        rows: each with alternative and the values of ``quantities``.
    """
    logits = _logits(model, rows)
    chance = np.array([float(row["chance"]) for row in rows])
    widths = np.array(
        [
            model["widths"]["trained" if ALTERNATIVES[row["alternative"]].trained else "frozen"]
            for row in rows
        ]
    )
    three = np.stack([logits, logits + widths[:, 0], logits + widths[:, 1]], axis=1)
    shares = 1 / (1 + np.exp(-three))
    # A logit at the end of the range stands for all that lies beyond it.
    shares[:, 1] = np.where(three[:, 1] <= logit(0.0), 0.0, shares[:, 1])
    shares[:, 2] = np.where(three[:, 2] >= logit(1.0), 1.0, shares[:, 2])
    return chance[:, None] + (1 - chance[:, None]) * shares


def check(rows: Sequence[Row]) -> dict[str, Any]:
    """How good the predictions are for data sets that had no part in them.

    Within each left-out data set: predictions, intervals from the residuals of the others, and the
    recommendation (the highest prediction). "fixed" is the same by a fixed order of the
    alternatives, their mean logit on the other data sets, which knows nothing of the task.

    Returns:
        predictions (one for each row: task, alternative, score, expected, low, high), tasks (name
        -> tau_w, spearman, recommended, best, regret, and the same "fixed"), spearman and
        spearman_fixed over all rows, error (mean absolute, score), covered (share of scores inside
        their interval), mean_tau_w, mean_spearman, mean_regret, each also "_fixed".
    """
    families = list(dict.fromkeys(row["family"] for row in rows))
    predictions: list[dict[str, Any]] = []
    for family in families:
        inside = [row for row in rows if row["family"] != family]
        own = [row for row in rows if row["family"] == family]
        model = fit(inside)
        means = {
            name: np.mean(
                [
                    logit(above_chance(r["score"], r["chance"]))
                    for r in inside
                    if r["alternative"] == name
                ]
            )
            for name in model["alternatives"]
        }
        for row, (expected, low, high) in zip(own, predict(model, own), strict=True):
            predictions.append(
                {
                    **{key: row[key] for key in ("task", "family", "alternative", "score")},
                    "expected": float(expected),
                    "low": float(low),
                    "high": float(high),
                    "fixed": float(means.get(row["alternative"], np.nan)),
                }
            )
    tasks = {}
    for task in dict.fromkeys(p["task"] for p in predictions):
        own = [p for p in predictions if p["task"] == task]
        tasks[task] = {**_agreement(own, "expected"), "fixed": _agreement(own, "fixed")}
    score = np.array([p["score"] for p in predictions])
    expected = np.array([p["expected"] for p in predictions])
    inside_ = [p["low"] - 1e-9 <= p["score"] <= p["high"] + 1e-9 for p in predictions]
    result: dict[str, Any] = {
        "predictions": predictions,
        "tasks": tasks,
        "spearman": _finite(spearmanr(score, expected).statistic),
        "spearman_fixed": _finite(spearmanr(score, [p["fixed"] for p in predictions]).statistic),
        "error": float(np.mean(np.abs(score - expected))),
        "covered": float(np.mean(inside_)),
    }
    for key in ("tau_w", "spearman", "regret"):
        for suffix, found in (
            ("", [t[key] for t in tasks.values()]),
            ("_fixed", [t["fixed"][key] for t in tasks.values()]),
        ):
            known = [value for value in found if value is not None]
            result[f"mean_{key}{suffix}"] = float(np.mean(known)) if known else None
    return result


def _agreement(own: Sequence[Row], key: str) -> dict[str, Any]:
    return {
        **rank_agreement([p["score"] for p in own], [p[key] for p in own]),
        "recommended": (chosen := max(own, key=lambda p: p[key]))["alternative"],
        "best": (best := max(own, key=lambda p: p["score"]))["alternative"],
        "regret": float(best["score"] - chosen["score"]),
    }


def rank_agreement(truth: Sequence[float], predicted: Sequence[float]) -> dict[str, float | None]:
    """Kendall's tau_w (Vigna 2015, hyperbolic weights: errors at the top count most) and
    Spearman's rho of two lists; None where one of them does not vary."""
    if len(truth) < 3 or np.ptp(truth) == 0 or np.ptp(predicted) == 0:
        return {"tau_w": None, "spearman": None}
    return {
        "tau_w": _finite(weightedtau(truth, predicted).statistic),
        "spearman": _finite(spearmanr(truth, predicted).statistic),
    }


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def load() -> dict[str, Any]:
    """The package's table: "rows", "model" (of ``fit``) and "record"."""
    return dict(json.loads(TABLE.read_text(encoding="utf-8")))
