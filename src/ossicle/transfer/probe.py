"""The probes by name: what is fitted on frozen features.

All are scikit-learn estimators with `fit(X, y, groups=None)`; standardising, the choice of
regularisation on grouped inner folds, and calibration are inside. Ridge is the default: exact,
without a solver, and the only one whose penalty is chosen by leaving out each whole group.
Ridge, logistic and linear SVM have a `linear_head()`, the network an `mlp_head()`.
"""

from __future__ import annotations

from typing import Any

from ossicle.transfer.estimator import ClassifierProbe, RegressorProbe
from ossicle.transfer.linear import LogisticProbe
from ossicle.transfer.mlp import MLPProbe, MLPRegressionProbe
from ossicle.transfer.nearest import KNNProbe, KNNRegressionProbe
from ossicle.transfer.problem import FeatureError
from ossicle.transfer.ridge import RidgeProbe, RidgeRegressionProbe
from ossicle.transfer.svm import SVMProbe, SVMRegressionProbe

PROBES: dict[str, type[ClassifierProbe]] = {
    "ridge": RidgeProbe,
    "logistic": LogisticProbe,
    "svm": SVMProbe,
    "knn": KNNProbe,
    "mlp": MLPProbe,
}

REGRESSION_PROBES: dict[str, type[RegressorProbe]] = {
    "ridge": RidgeRegressionProbe,
    "svm": SVMRegressionProbe,
    "knn": KNNRegressionProbe,
    "mlp": MLPRegressionProbe,
}


def create_probe(
    name: str = "ridge", task: str = "classes", **settings: Any
) -> ClassifierProbe | RegressorProbe:
    """An unfitted probe for a task.

    Args:
        name: a key of `PROBES`.
        task: "classes", "multilabel" or "regression".
        settings: arguments of the probe's class.

    Raises:
        FeatureError: no such probe or task, or a probe that cannot do the task.
    """
    if task not in ("classes", "multilabel", "regression"):
        raise FeatureError(f"task {task!r}: use classes, multilabel or regression")
    if task == "regression":
        if name not in REGRESSION_PROBES:
            known = ", ".join(REGRESSION_PROBES)
            raise FeatureError(f"no probe {name!r} for regression: use one of {known}")
        return REGRESSION_PROBES[name](**settings)
    if name not in PROBES:
        raise FeatureError(f"no probe {name!r}: use one of {', '.join(PROBES)}")
    return PROBES[name](task=task, **settings)
