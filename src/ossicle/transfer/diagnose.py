"""What stands beside a score so that it can be judged: other splits, other labels, fewer layers.

All of it comes from one Gram matrix a layer: the product of concatenated layers is the sum of the
layers' own. Layers are standardised once over all clips, which uses no label; the penalty of each
fit is chosen on inner folds of its own training clips.

Axes: n clips, k outputs.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.linalg import solve

from ossicle.datasets.folds import Folds, random_folds
from ossicle.errors import DataError
from ossicle.metrics import PRIMARY, score, with_intervals
from ossicle.transfer.inner_folds import inner_folds
from ossicle.transfer.layer_kernels import held_out_exact
from ossicle.transfer.span import Span

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
MAX_CLIPS = 2000
MAX_CLIPS_LAYERS = 800
MAX_STAGES = 4
Progress = Callable[[str], None]


class Diagnosis:
    """Kernel ridge on sums of layers, for many questions about the same clips.

    Args:
        layers: layer -> (n, dims) features.
        y: (n,) class indices, (n, k) 0/1 or (n,) numbers.
        groups: (n,) group of each clip.
        task: "classes", "multilabel" or "regression".
        classes: names of the classes.
        block_sizes: for each layer the columns of its blocks, see `span.block_weights`.
        random_state: of inner folds, shuffles and samples.
    """

    def __init__(
        self,
        layers: Mapping[str, np.ndarray],
        y: np.ndarray,
        groups: np.ndarray,
        *,
        task: str,
        classes: Sequence[str],
        block_sizes: Mapping[str, Sequence[int]] | None = None,
        random_state: int = 0,
    ) -> None:
        self.y, self.groups, self.task, self.classes = y, np.asarray(groups), task, tuple(classes)
        self.seed = random_state
        self.grams: OrderedDict[str, np.ndarray] = OrderedDict()
        for name, X in layers.items():
            sizes = [X.shape[1]] if block_sizes is None else list(block_sizes[name])
            # As in the probe, a block of s columns counts as sqrt(s).
            share = np.sqrt(sizes).sum() / X.shape[1]
            self.grams[name] = (Span(X, sizes).gram() * share).astype(np.float32)

    def kernel(self, layers: Sequence[str] | None = None) -> np.ndarray:
        """(n, n) float64 Gram matrix of the layers side by side."""
        names = list(self.grams) if layers is None else list(layers)
        total = np.zeros_like(next(iter(self.grams.values())), dtype=np.float64)
        for name in names:
            total += self.grams[name]
        return total

    def targets(self, y: np.ndarray) -> np.ndarray:
        """(n, k): one against the rest as +1 and -1, or the numbers."""
        if self.task == "regression":
            return np.asarray(y, np.float64)[:, None]
        if self.task == "multilabel":
            return 2.0 * y - 1
        return 2.0 * (y[:, None] == np.arange(len(self.classes))) - 1

    def predict(
        self,
        K: np.ndarray,
        y: np.ndarray,
        train: np.ndarray,
        test: np.ndarray,
        groups: np.ndarray | None = None,
    ) -> np.ndarray:
        """(len(test), k) outputs of a ridge fitted on the training rows alone.

        The penalty is chosen on inner folds that keep ``groups`` together; None: the clips' own.
        """
        T = self.targets(y[train])
        own = (self.groups if groups is None else groups)[train]
        fold = inner_folds(y[train], own, task=self.task, n_folds=5, random_state=self.seed)
        members = [np.flatnonzero(fold == f) for f in np.unique(fold)]
        Kt = K[np.ix_(train, train)]
        scale = max(float(np.trace(Kt)) / len(train), 1e-12)
        errors = []
        for penalty in PENALTIES if len(members) > 1 else ():
            held_out = held_out_exact(Kt, T, penalty * scale, members)
            errors.append(float(np.mean((held_out - T) ** 2)))
        chosen = PENALTIES[int(np.argmin(errors))] if errors else PENALTIES[-2]
        n = len(train)
        system = np.zeros((n + 1, n + 1))
        system[:n, :n] = Kt
        system[np.arange(n), np.arange(n)] += chosen * scale
        system[:n, n] = system[n, :n] = 1
        solution = solve(system, np.vstack([T, np.zeros((1, T.shape[1]))]), assume_a="sym")
        return K[np.ix_(test, train)] @ solution[:n] + solution[n]

    def run(
        self,
        folds: Folds,
        *,
        y: np.ndarray | None = None,
        layers: Sequence[str] | None = None,
        groups: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """(tested rows, (tested, k) outputs) over all folds."""
        K, y = self.kernel(layers), self.y if y is None else y
        rows, outputs = [], []
        for train, test in folds:
            rows.append(test)
            outputs.append(self.predict(K, y, train, test, groups))
        return np.concatenate(rows), np.concatenate(outputs)

    def score(self, rows: np.ndarray, outputs: np.ndarray, y: np.ndarray | None = None) -> float:
        """The task's main score."""
        y = self.y if y is None else y
        if self.task == "regression":
            return score(self.task, y[rows], outputs[:, 0])[PRIMARY[self.task]]
        # Multi-label outputs are decisions around 0.
        values = score(self.task, y[rows], None, outputs, self.classes, threshold=0.0)
        return values[PRIMARY[self.task]]

    def interval(
        self, rows: np.ndarray, outputs: np.ndarray, groups: np.ndarray | None
    ) -> dict[str, float]:
        """The task's main score with its interval over groups."""
        predicted, scores = (outputs[:, 0], None) if self.task == "regression" else (None, outputs)
        result = with_intervals(
            self.task,
            self.y[rows],
            predicted,
            scores,
            self.classes,
            groups=None if groups is None else groups[rows],
            n_resamples=500,
            threshold=0.0,
            random_state=self.seed,
        )
        return result[PRIMARY[self.task]]

    def random_split(self, n_folds: int) -> dict[str, float] | None:
        """What folds that ignore groups would have claimed; None where groups are single clips."""
        if len(np.unique(self.groups)) == len(self.groups):
            return None
        try:
            folds = random_folds(
                self.y, n_folds, task=self.task, random_state=self.seed, rare="train"
            )
        except DataError:
            return None
        single = np.arange(len(self.groups)).astype(str)
        return self.interval(*self.run(folds, groups=single), None)

    def shuffled_labels(self, folds: Folds, repeats: int = 5) -> dict[str, float]:
        """The score when labels are dealt out anew: mean, lowest and highest of some repeats."""
        generator = np.random.default_rng(self.seed)
        values = []
        for _ in range(repeats):
            y = self.y[generator.permutation(len(self.y))]
            try:
                values.append(self.score(*self.run(folds, y=y), y=y))
            except DataError:  # a shuffle left a class out
                continue
        if not values:
            return {"value": float("nan"), "low": float("nan"), "high": float("nan"), "repeats": 0}
        return {
            "value": float(np.mean(values)),
            "low": float(np.min(values)),
            "high": float(np.max(values)),
            "repeats": len(values),
        }

    def by_layer(self, folds: Folds, progress: Progress | None = None) -> list[dict[str, Any]]:
        """The score of each layer alone, shallow to deep."""
        result = []
        for name in self.grams:
            rows, outputs = self.run(folds, layers=[name])
            result.append({"layer": name, **self.interval(rows, outputs, self.groups)})
            result[-1]["score"] = result[-1].pop("value")
            if progress is not None:
                progress(f"layer {name}")
        return result

    def subsets(self, folds: Folds) -> list[dict[str, Any]]:
        """Every combination of stages (at most four runs of neighbouring layers), best first."""
        names = list(self.grams)
        stages = [list(part) for part in np.array_split(names, min(MAX_STAGES, len(names)))]
        result = []
        for size in range(1, len(stages) + 1):
            for some in itertools.combinations(stages, size):
                layers = [str(name) for stage in some for name in stage]
                rows, outputs = self.run(folds, layers=layers)
                runs = [part[0] if len(part) == 1 else f"{part[0]} to {part[-1]}" for part in some]
                value = self.score(rows, outputs)
                result.append({"name": ", ".join(runs), "layers": layers, "score": value})
        return sorted(result, key=lambda item: -item["score"])

    def learning_curve(self, folds: Folds, steps: int = 5) -> list[dict[str, Any]]:
        """The score with part of the groups to learn from, the same clips reported on."""
        K = self.kernel()
        points: list[dict[str, Any]] = []
        n_train = np.mean([len(train) for train, _ in folds])
        for share in 0.5 ** np.arange(steps - 1, -1, -1):
            generator = np.random.default_rng(self.seed)
            rows, outputs, sizes, smallest = [], [], [], []
            for train, test in folds:
                part = self._share(train, share, generator)
                if part is None:
                    break
                sizes.append(len(part))
                smallest.append(self._per_class(part))
                rows.append(test)
                outputs.append(self.predict(K, self.y, part, test))
            if len(rows) < len(folds) or (points and np.mean(sizes) < 1.2 * points[-1]["n_train"]):
                continue
            value = self.interval(np.concatenate(rows), np.concatenate(outputs), self.groups)
            points.append(
                {
                    "n_train": round(float(np.mean(sizes))),
                    "per_class": round(float(np.mean(smallest)), 1),
                    "share": round(float(np.mean(sizes) / n_train), 3),
                    "score": value["value"],
                    "low": value["low"],
                    "high": value["high"],
                }
            )
        return points

    def _per_class(self, rows: np.ndarray) -> float:
        if self.task == "regression":
            return float(len(rows))
        return len(rows) / len(self.classes)

    def _share(
        self, train: np.ndarray, share: float, generator: np.random.Generator
    ) -> np.ndarray | None:
        """A share of the groups of each class; None where too little is left to fit on."""
        if share >= 1:
            return train
        if self.task != "classes":
            names = generator.permutation(np.unique(self.groups[train]))
            kept = names[: max(2, round(share * len(names)))]
            part = train[np.isin(self.groups[train], kept)]
            return part if len(part) >= 8 else None
        chosen = []
        for label in np.unique(self.y[train]):
            own = train[self.y[train] == label]
            names = generator.permutation(np.unique(self.groups[own]))
            kept = names[: max(1, round(share * len(names)))]
            chosen.append(own[np.isin(self.groups[own], kept)])
        part = np.sort(np.concatenate(chosen))
        return part if len(part) >= 2 * len(chosen) else None


def sample_rows(y: np.ndarray, limit: int, task: str, random_state: int) -> np.ndarray:
    """At most ``limit`` rows, classes in proportion, ascending."""
    n = len(y)
    if n <= limit:
        return np.arange(n)
    generator = np.random.default_rng(random_state)
    if task != "classes":
        return np.sort(generator.choice(n, limit, replace=False))
    # Ordering rows by their rank within the class keeps every class in proportion.
    order = generator.permutation(n)
    rank = np.empty(n)
    for label in np.unique(y):
        own = order[y[order] == label]
        rank[own] = (np.arange(len(own)) + generator.random()) / len(own)
    return np.sort(np.argsort(rank, kind="stable")[:limit])


def restrict(folds: Folds, rows: np.ndarray, n: int) -> Folds:
    """The folds among some of the n rows, in the positions of ``rows``; empty ones fall out."""
    position = np.full(n, -1)
    position[rows] = np.arange(len(rows))
    result = []
    for train, test in folds:
        a, b = position[train], position[test]
        a, b = a[a >= 0], b[b >= 0]
        if len(a) and len(b):
            result.append((a, b))
    return result


def advice(
    points: Sequence[Mapping[str, Any]], per_class: Sequence[Mapping[str, Any]]
) -> list[str]:
    """What more data would bring, from the last doubling of the learning curve.

    The gain of one more doubling is taken to be the last one's times its ratio to the one before,
    between 0 and 1 (diminishing returns); it is a guess, and is worded as one.
    """
    if len(points) < 2:
        return ["too few clips for a learning curve: a dozen more in each class would tell more"]
    last = points[-1]["score"] - points[-2]["score"]
    ratio = 0.5
    if len(points) >= 3:
        before = points[-2]["score"] - points[-3]["score"]
        ratio = float(np.clip(last / before, 0.0, 1.0)) if before > 0 else 0.5
    gain = max(0.0, last) * ratio
    more = round(points[-1]["per_class"])
    unit = " a class" if per_class else ""  # numbers to predict have no classes
    tips = []
    if gain >= 0.005:
        tips.append(
            f"about +{100 * gain:.0f} points from twice the recordings (some {more} more{unit})"
            if gain >= 0.01
            else f"less than one point from twice the recordings (some {more} more{unit})"
        )
    else:
        tips.append("the curve is flat: more of the same recordings would hardly help")
    weak = [row for row in per_class if row.get("recall") is not None and row["support"] > 0]
    weak = sorted((row for row in weak if row["recall"] < 0.9), key=lambda row: row["recall"])
    total = sum(row["support"] for row in per_class) or 1
    for row in weak[:3]:
        # If half of its errors went away.
        points_gained = 50 * (1 - row["recall"]) * row["support"] / total
        tips.append(
            f"{row['class']} is missed most ({100 * (1 - row['recall']):.0f} % of "
            f"{row['support']}): halving that with more of it would bring about "
            f"+{points_gained:.1f} points"
        )
    return tips
