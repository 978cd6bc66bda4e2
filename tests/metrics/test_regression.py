"""Witnesses: the formulas written out."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from ossicle.errors import DataError
from ossicle.metrics import score


def test_against_formulas() -> None:
    generator = np.random.default_rng(0)
    y_true = generator.normal(size=40)
    y_pred = y_true**3 + 0.1 * generator.normal(size=40)
    found = score("regression", y_true, y_pred)
    error = y_true - y_pred
    assert found["r2"] == pytest.approx(
        1 - (error**2).sum() / ((y_true - y_true.mean()) ** 2).sum()
    )
    assert found["mae"] == pytest.approx(np.abs(error).mean())
    assert found["rmse"] == pytest.approx(np.sqrt((error**2).mean()))
    assert found["pearson"] == pytest.approx(np.corrcoef(y_true, y_pred)[0, 1])
    ranks = [values.argsort().argsort() for values in (y_true, y_pred)]
    assert found["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert score("regression", y_true, None, y_pred) == found


def test_what_is_not_defined_is_nan() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = score("regression", [1.0], [2.0])
        flat_labels = score("regression", [1.0, 1.0], [2.0, 3.0])
        flat_predictions = score("regression", [1.0, 2.0], [3.0, 3.0])
    assert np.isnan([one["r2"], one["pearson"], flat_labels["r2"], flat_labels["spearman"]]).all()
    assert np.isnan([flat_predictions["pearson"], flat_predictions["spearman"]]).all()
    assert one["mae"] == 1.0
    assert flat_predictions["r2"] == pytest.approx(1 - 5 / 0.5)


@pytest.mark.parametrize(
    ("y_true", "y_pred", "message"),
    [
        ([], [], "n > 0"),
        ([1.0, 2.0], [1.0], "same shape"),
        ([1.0, np.nan], [1.0, 2.0], "y_true holds 1"),
        ([1.0, 2.0], [np.inf, 2.0], "y_pred holds 1"),
        ([1.0], None, "y_pred"),
    ],
)
def test_bad_input(y_true: list, y_pred: list | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        score("regression", y_true, y_pred)
