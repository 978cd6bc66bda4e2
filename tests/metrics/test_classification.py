"""Witnesses: scikit-learn called directly, definitions written out slowly, numbers by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from ossicle.errors import DataError
from ossicle.metrics import PRIMARY, absent_classes, confusion, per_class, score

CLASSES = ("bass", "kick", "snare")


def clips(n: int = 60, num_classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    y_true = generator.integers(num_classes, size=n)
    y_score = generator.random((n, num_classes))
    y_score[np.arange(n), y_true] += 0.4
    return y_true, y_score / y_score.sum(axis=1, keepdims=True)


def slow_average_precision(positive: np.ndarray, y_score: np.ndarray) -> float:
    """Recall steps times precision over the distinct scores, from the top."""
    total, before = 0.0, 0
    for cut in sorted(set(y_score), reverse=True):
        hits = int(positive[y_score >= cut].sum())
        total += (hits - before) / positive.sum() * hits / (y_score >= cut).sum()
        before = hits
    return total


def slow_auc(positive: np.ndarray, y_score: np.ndarray) -> float:
    pairs = y_score[positive][:, None] - y_score[~positive][None, :]
    return float(((pairs > 0) + 0.5 * (pairs == 0)).mean())


def test_by_hand() -> None:
    y_true, y_pred = [0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 2, 2]
    found = score("classes", y_true, y_pred, None, CLASSES)
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert found["macro_f1"] == pytest.approx((4 / 5 + 1 / 2 + 2 / 3) / 3)
    assert set(found) == {"accuracy", "balanced_accuracy", "macro_f1"}
    assert confusion(y_true, y_pred, 3).tolist() == [[2, 1, 0], [0, 1, 1], [0, 0, 1]]


def test_classes_against_sklearn() -> None:
    y_true, y_score = clips()
    found = score("classes", y_true, None, y_score, CLASSES)
    y_pred = y_score.argmax(axis=1)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(y_true, y_pred))
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(y_true, y_pred))
    assert found["macro_f1"] == pytest.approx(sk.f1_score(y_true, y_pred, average="macro"))
    assert found["auc"] == pytest.approx(sk.roc_auc_score(y_true, y_score, multi_class="ovr"))
    expected = sk.average_precision_score(np.eye(3)[y_true], y_score, average="macro")
    assert found["map"] == pytest.approx(expected)


def test_binary_auc_is_of_the_second_class() -> None:
    y_true, y_score = clips(num_classes=2)
    y_score[:, 0] = np.random.default_rng(5).random(len(y_true))  # the columns need not agree
    found = score("classes", y_true, None, y_score, ("no", "yes"))
    assert found["auc"] == pytest.approx(slow_auc(y_true == 1, y_score[:, 1]))
    assert found["auc"] != pytest.approx(slow_auc(y_true == 0, y_score[:, 0]))


def test_multilabel_against_definitions() -> None:
    generator = np.random.default_rng(3)
    y_true = (generator.random((50, 4)) < 0.3).astype(int)
    y_score = np.round(y_true * 0.3 + generator.random((50, 4)), 1)  # with ties
    found = score("multilabel", y_true, None, y_score, list("abcd"), threshold=0.7)
    columns = range(4)
    assert found["map"] == pytest.approx(
        np.mean([slow_average_precision(y_true[:, c], y_score[:, c]) for c in columns])
    )
    assert found["auc"] == pytest.approx(
        np.mean([slow_auc(y_true[:, c] == 1, y_score[:, c]) for c in columns])
    )
    y_pred = y_score >= 0.7
    assert found["macro_f1"] == pytest.approx(sk.f1_score(y_true, y_pred, average="macro"))
    assert found["micro_f1"] == pytest.approx(sk.f1_score(y_true, y_pred, average="micro"))
    one_each = score("multilabel", y_true, None, y_score, list("abcd"), threshold=[0.2, 0.7, 1, 2])
    assert one_each["micro_f1"] == pytest.approx(
        sk.f1_score(y_true, y_score >= np.array([0.2, 0.7, 1, 2]), average="micro")
    )


def test_absent_class_is_left_out_and_named() -> None:
    y_true, y_score = clips()
    four = np.column_stack([y_score, np.zeros(len(y_true))])
    four[0] = [0, 0, 0, 1]  # predicted once, never true
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = score("classes", y_true, None, four, (*CLASSES, "tabla"))
        table = per_class("classes", y_true, None, four, (*CLASSES, "tabla"))
    assert absent_classes("classes", y_true, (*CLASSES, "tabla")) == ("tabla",)
    assert absent_classes("classes", y_true, CLASSES) == ()
    aucs = [slow_auc(y_true == c, four[:, c]) for c in range(3)]
    assert found["auc"] == pytest.approx(np.mean(aucs))
    recalls = sk.recall_score(y_true, four.argmax(axis=1), labels=[0, 1, 2], average=None)
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert table["support"].tolist() == [*np.bincount(y_true), 0]
    assert table["auc"].to_numpy()[:3] == pytest.approx(aucs)
    assert table["recall"].to_numpy()[:3] == pytest.approx(recalls)
    assert table.loc[3, ["recall", "f1", "auc", "average_precision"]].isna().all()
    assert table.loc[3, "precision"] == 0
    assert found["macro_f1"] == pytest.approx(table["f1"].mean())


def test_one_class_only_has_no_ranking_area() -> None:
    found = score("classes", [1, 1, 1], None, np.eye(3)[[1, 1, 0]], CLASSES)
    assert np.isnan(found["auc"])
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["map"] == pytest.approx(1.0)


def test_multilabel_without_any_positive() -> None:
    found = score("multilabel", np.zeros((4, 2)), None, np.full((4, 2), 0.1), ("a", "b"))
    assert np.isnan([found["map"], found["auc"], found["macro_f1"], found["micro_f1"]]).all()


def test_primary_leads() -> None:
    y_true, y_score = clips()
    assert next(iter(score("classes", y_true, None, y_score, CLASSES))) == PRIMARY["classes"]
    multi = score("multilabel", np.eye(3)[y_true], None, y_score, CLASSES)
    assert next(iter(multi)) == PRIMARY["multilabel"]
    assert next(iter(score("regression", y_true, y_true))) == PRIMARY["regression"]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.permutations([0, 1, 2]))
def test_relabelling_and_reordering_change_nothing(seed: int, new: list[int]) -> None:
    y_true, y_score = clips(n=30, seed=seed)
    found = score("classes", y_true, None, y_score, CLASSES)
    order = np.random.default_rng(seed).permutation(30)
    renamed = np.empty_like(y_score)
    renamed[:, new] = y_score
    again = score("classes", np.array(new)[y_true][order], None, renamed[order], CLASSES)
    assert again == pytest.approx(found, nan_ok=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("classes", [0, 1, 3], [0, 1, 2], None, CLASSES), "class indices below 3"),
        (("classes", [0, 1, -1], [0, 1, 2], None, CLASSES), "class indices below 3"),
        (("classes", ["bass"], ["kick"], None, CLASSES), "class indices below 3"),
        (("classes", [0, 1], [0], None, CLASSES), r"y_pred must have the shape \(2,\)"),
        (("classes", [0, 1], None, np.ones((2, 2)), CLASSES), r"\(2, 3\), got \(2, 2\)"),
        (("classes", [0], None, [[0.1, np.nan, 0.2]], CLASSES), "NaN"),
        (("classes", [0], None, None, CLASSES), "give y_pred"),
        (("classes", [], [], None, CLASSES), "empty"),
        (("classes", [0], [0], None, ()), "class names"),
        (("multilabel", [[0, 2]], [[0, 1]], None, ("a", "b")), "0 or 1"),
        (("tagging", [0], [0], None, CLASSES), "unknown task 'tagging'"),
    ],
)
def test_bad_input_is_one_clear_line(arguments: tuple, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        score(*arguments)
    assert "\n" not in str(caught.value)
