"""A class-wise split of a handful of clips ended in scikit-learn's ValueError."""

from __future__ import annotations

import numpy as np

from ossicle.datasets.folds import make_folds


def test_no_class_has_a_clip_for_every_fold():
    y = np.array([0, 2, 0, 1, 1, 3])
    groups = np.array(["g0", "g0", "g1", "g2", "g3", "g3"])
    folds = make_folds(y, groups, 2, task="classes", rare="train")
    for train, test in folds:
        assert not set(groups[train]) & set(groups[test])
        assert len(test)
