"""scikit-learn's own battery of checks, over every probe."""

from __future__ import annotations

import warnings

from sklearn.utils.estimator_checks import parametrize_with_checks

from ossicle.transfer.linear import LogisticProbe
from ossicle.transfer.mlp import MLPProbe, MLPRegressionProbe
from ossicle.transfer.nearest import KNNProbe, KNNRegressionProbe
from ossicle.transfer.ridge import RidgeProbe, RidgeRegressionProbe
from ossicle.transfer.svm import SVMProbe, SVMRegressionProbe

# Few settings each: the checks fit hundreds of times, and what they check does not depend on it.
ESTIMATORS = [
    RidgeProbe(),
    RidgeRegressionProbe(),
    LogisticProbe(c=(0.1, 10.0), n_folds=2),
    SVMProbe(c=(0.01, 1.0), n_folds=2),
    SVMProbe("rbf", c=(2.0,), gamma=(1.0,), n_folds=2),
    SVMRegressionProbe(c=(2.0,), gamma=(1.0,), n_folds=2),
    KNNProbe(n_folds=2),
    KNNRegressionProbe(n_folds=2),
    MLPProbe(16, decays=(1e-3,), max_epochs=12, learning_rate=0.03, n_folds=2),
    MLPRegressionProbe(16, decays=(1e-3,), max_epochs=12, learning_rate=0.03, n_folds=2),
]


@parametrize_with_checks(ESTIMATORS)
def test_scikit_learn_contract(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)
