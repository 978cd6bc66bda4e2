"""Would a score notice what it has never heard? Each class in turn is kept from it, then played.

In each fold a score is fitted on the training part without one class. The class's clips in the test
part are the unheard; the other clips there are known sounds of groups that were not heard. The
area under the ROC curve is the share of pairs (unheard, known), both of one fold, whose order is
right, ties counting half (Mann & Whitney 1947, Ann. Math. Statist. 18, 50-60).

Axes: n clips, m tested clips, K classes, G groups, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ossicle.datasets.folds import Folds
from ossicle.metrics.bootstrap import draw, group_codes, group_sums, limits
from ossicle.metrics.weighted import ratio

#: Of more classes, so many are drawn.
MAX_CLASSES = 12
#: The share of known sounds that the threshold accepts.
ACCEPTED = 0.95

Scorer = Callable[[np.ndarray, np.ndarray], np.ndarray]


class _Left(NamedTuple):
    """One class left out: the tested clips of all folds."""

    fold: np.ndarray  # (m,)
    rows: np.ndarray  # (m,)
    new: np.ndarray  # (m,) bool
    score: np.ndarray  # (m,)


def leave_classes_out(
    truth: np.ndarray,
    groups: np.ndarray,
    folds: Folds,
    scorer: Scorer,
    classes: Sequence[str],
    *,
    max_classes: int = MAX_CLASSES,
    n_resamples: int = 500,
    confidence: float = 0.95,
    random_state: int = 0,
) -> dict[str, Any] | None:
    """Leave each class out of the fitting, and score its clips beside known ones.

    Args:
        truth: (n, K) bool; clips with the class are kept from the fitting.
        groups: (n,) group of each clip.
        folds: (train, test) rows.
        scorer: (train rows, test rows) -> (m,) scores, higher for what is less like the training
            rows.
        classes: the K names.
        max_classes: of more, so many are drawn.
        n_resamples, confidence, random_state: of the cluster bootstrap; also of the draw.

    Returns:
        auc {"value", "low", "high"}: the mean over the classes; noticed: beyond the threshold that
        accepts ``ACCEPTED`` of the known, the mean share of the unheard, with its interval;
        per_class: [{class, n (unheard clips), auc, noticed}]; accepted, n_clips. None where fewer
        than three classes can be left out, as then fewer than two would be known.
    """
    able = np.flatnonzero((truth.sum(axis=0) > 0) & (truth.sum(axis=0) < len(truth)))
    if len(able) < 3:
        return None
    if len(able) > max_classes:
        chosen = np.random.default_rng(random_state).choice(able, max_classes, replace=False)
        able = np.sort(chosen)
    codes, n_groups = group_codes(groups, len(truth))
    counts = np.concatenate(list(draw(n_groups, n_resamples, random_state, n_resamples)))
    counts = counts.astype(np.float64)
    rows: list[dict[str, Any]] = []
    areas, shares = [], []
    for k in able.tolist():
        left = _leave_out(truth[:, k], folds, scorer)
        if left is None:
            continue
        area, area_samples, rest = _area(left, codes, counts)
        share, share_samples = _noticed(left, codes, counts)
        own = len(np.unique(codes[left.rows[left.new]]))
        areas.append(area_samples)
        shares.append(share_samples)
        rows.append(
            {
                "class": str(classes[k]),
                "n": int(left.new.sum()),
                "auc": _told(area, area_samples, rest, confidence),
                "noticed": _told(share, share_samples, own, confidence),
            }
        )
    if len(rows) < 3:
        return None
    result: dict[str, Any] = {}
    for name, samples in (("auc", areas), ("noticed", shares)):
        mean = float(np.mean([row[name]["value"] for row in rows]))
        known = ~np.isnan(samples)  # a resample may lack a class
        total = np.where(known, samples, 0.0).sum(axis=0)
        result[name] = _told(mean, ratio(total, known.sum(axis=0)), n_groups, confidence)
    return {**result, "per_class": rows, "accepted": ACCEPTED, "n_clips": len(truth)}


def _leave_out(new: np.ndarray, folds: Folds, scorer: Scorer) -> _Left | None:
    """Scores over all folds that have both kinds to test; None where no fold has."""
    parts = []
    for number, (train, test) in enumerate(folds):
        train = train[~new[train]]
        if 0 < new[test].sum() < len(test) and len(train) > 2:
            score = np.asarray(scorer(train, test), np.float64)
            parts.append(_Left(np.full(len(test), number), test, new[test], score))
    if not parts:
        return None
    return _Left(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _area(left: _Left, codes: np.ndarray, counts: np.ndarray) -> tuple[float, np.ndarray, int]:
    """The area, (R,) of it in the resamples, and the groups that it rests on."""
    pairs = np.zeros((2, len(counts)))
    value = np.zeros(2)
    kinds: list[set[int]] = [set(), set()]
    for number in np.unique(left.fold):
        own = left.fold == number
        new, known = own & left.new, own & ~left.new
        a, b = codes[left.rows[new]], codes[left.rows[known]]
        kinds[0] |= set(a.tolist())
        kinds[1] |= set(b.tolist())
        x, y = left.score[new][:, None], left.score[known]
        better = (x > y) + 0.5 * (x == y)
        value += better.sum(), better.size
        # A resample counts a pair as often as it holds both of its groups.
        wa, wb = counts[:, a], counts[:, b]
        pairs[0] += ((wa @ better) * wb).sum(1)
        pairs[1] += wa.sum(1) * wb.sum(1)
    return float(value[0] / value[1]), ratio(pairs[0], pairs[1]), min(map(len, kinds))


def _noticed(left: _Left, codes: np.ndarray, counts: np.ndarray) -> tuple[float, np.ndarray]:
    """The share of the unheard beyond the threshold, and (R,) of it; the threshold stays."""
    threshold = np.quantile(left.score[~left.new], ACCEPTED)
    beyond = left.score[left.new] > threshold
    own = codes[left.rows[left.new]]
    above = group_sums(beyond.astype(float), own, counts.shape[1])
    below = group_sums(np.ones(len(own)), own, counts.shape[1])
    return float(beyond.mean()), ratio(counts @ above, counts @ below)


def _told(value: float, samples: np.ndarray, n_groups: int, confidence: float) -> dict[str, float]:
    low, high = limits(samples, value, n_groups, confidence, (0.0, 1.0))
    return {"value": value, "low": low, "high": high}
