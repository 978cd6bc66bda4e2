"""Rules as data: what is read back, what is refused, what a command line may say."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ossicle.detect.rules import LIMITS, ClassRule, Rules, parse_override
from ossicle.errors import DataError

CLASSES = ("dog", "cat", 'Bow-wow, "dog"', "a=b", " edge ")
SECONDS = st.floats(0, 60)


@st.composite
def a_rule(draw) -> ClassRule:
    threshold = draw(st.floats(0, 1))
    low = draw(st.none() | st.floats(0, threshold))
    return ClassRule(threshold, low, draw(SECONDS), draw(SECONDS), draw(SECONDS))


@given(
    st.lists(a_rule(), min_size=len(CLASSES), max_size=len(CLASSES)),
    st.sampled_from(["max", "mean"]),
)
def test_json_is_read_back(rules, score):
    original = Rules(dict(zip(CLASSES, rules, strict=True)), score)
    text = json.dumps(original.to_json(), allow_nan=False)
    assert Rules.from_json(json.loads(text), CLASSES) == original
    backwards = Rules.from_json(json.loads(text), CLASSES[::-1])
    assert backwards.classes == CLASSES[::-1]
    assert all(backwards[label] == original[label] for label in CLASSES)


def test_default_is_a_threshold_and_nothing_else():
    rules = Rules.default(["a", "b"])
    assert rules.classes == ("a", "b")
    assert rules["b"] == ClassRule(0.5, None, 0.0, 0.0, 0.0)
    assert rules.score == "max"
    assert Rules.default(["a"], score="mean", median_s=0.5)["a"].median_s == 0.5
    with pytest.raises(DataError, match="none for 'c'"):
        rules["c"]


def changed(where: str, value: object) -> dict:
    """JSON of good rules for "a" and "b" with one value changed; ... takes it out."""
    top = Rules.default(["a", "b"]).to_json()
    *path, last = where.split("/")
    inner = top
    for name in path:
        inner = inner[name]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return top


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        ("score", "median", "choose max or mean"),
        ("score", ["max"], "choose max or mean"),
        ("score", None, "choose max or mean"),
        ("score", ..., "'score' is missing"),
        ("more", 1, "'more' is not known"),
        ("classes", ..., "'classes' is missing"),
        ("classes", [1, 2], "no object"),
        ("classes/b", ..., "none for 'b'"),
        ("classes/c", {}, "'c' is no class of the model"),
        ("classes/b", [0.5], "list is no object"),
        ("classes/b/threshold", ..., "'threshold' is missing"),
        ("classes/b/code", "x" * 10**6, "'code' is not known"),
        ("classes/b/threshold", "0.5", "threshold is '0.5'"),
        ("classes/b/threshold", True, "threshold is True"),
        ("classes/b/threshold", None, "threshold is None"),
        ("classes/b/threshold", -0.1, "from 0 to 1"),
        ("classes/b/threshold", 1.01, "from 0 to 1"),
        ("classes/b/threshold", float("nan"), "threshold is nan"),
        ("classes/b/threshold", 10**400, "a huge number"),
        ("classes/b/low", 0.6, "above the threshold"),
        ("classes/b/low", "none", "low is 'none'"),
        ("classes/b/median_s", 61, "from 0 to 60"),
        ("classes/b/median_s", float("inf"), "from 0 to 60"),
        ("classes/b/min_duration_s", 3601, "from 0 to 3600"),
        ("classes/b/min_gap_s", -1e-9, "from 0 to 3600"),
        ("classes/b/min_gap_s", {"a": 1}, "min_gap_s is dict"),
    ],
)
def test_a_stranger_is_refused_in_one_line(where, value, words):
    with pytest.raises(DataError, match=words) as caught:
        Rules.from_json(changed(where, value), ["a", "b"])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("value", [None, 3, "rules", [], float("nan")])
def test_what_is_no_object_is_refused(value):
    with pytest.raises(DataError, match="is no object"):
        Rules.from_json(value, ["a"])


def test_the_limits_themselves_are_allowed():
    rule = ClassRule(1, 1, *(LIMITS[name] for name in ("median_s", "min_duration_s", "min_gap_s")))
    assert Rules.from_json(Rules({"a": rule}).to_json(), ["a"])["a"] == rule
    assert Rules.default(["a"], threshold=0, low=0)["a"].low == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.3", dict.fromkeys(CLASSES, 0.3)),
        ("dog=0.3,cat=0.6", {"dog": 0.3, "cat": 0.6}),
        (" dog = 0.3 , cat= .6 ", {"dog": 0.3, "cat": 0.6}),
        ("0.5,dog=0.3", {**dict.fromkeys(CLASSES, 0.5), "dog": 0.3}),
        ("a=b=0.4", {"a=b": 0.4}),
        ('"Bow-wow, ""dog"""=0.2,cat=1', {'Bow-wow, "dog"': 0.2, "cat": 1.0}),
        ('" edge "=0.1', {" edge ": 0.1}),
        ("none", dict.fromkeys(CLASSES, None)),
        ("dog=None", {"dog": None}),
    ],
)
def test_overrides_are_read(text, expected):
    assert parse_override(text, CLASSES, "low") == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "give a number"),
        ("high", "'high' is no number"),
        ("dog=high", "'dog=high' is no number"),
        ("dog=", "no number"),
        ("dgo=0.3", "no class 'dgo'; is 'dog' meant"),
        ("xyzzy=0.3", "no class 'xyzzy'$"),
        ("dog=0.3,dog=0.4", "'dog' is given twice"),
        ("dog=0.3,0.4", "'0.4' has no class"),
        ("Bow-wow, dog=0.4", "double quotes"),
        ("none", "'none' is no number"),
    ],
)
def test_overrides_that_say_nothing_are_refused(text, words):
    with pytest.raises(DataError, match=words):
        parse_override(text, CLASSES, "threshold")


def test_overrides_change_what_they_name():
    rules = Rules({"dog": ClassRule(0.4, 0.2, 0.1), "cat": ClassRule(0.6)})
    other = rules.with_overrides(
        threshold="dog=0.8", min_gap_s=1, median_s={"cat": 0.5}, score="mean"
    )
    # The share of low, a half, is kept.
    assert other["dog"] == ClassRule(0.8, 0.4, 0.1, 0.0, 1.0)
    assert other["cat"] == ClassRule(0.6, None, 0.5, 0.0, 1.0)
    assert (other.score, rules.score) == ("mean", "max")
    assert rules["dog"] == ClassRule(0.4, 0.2, 0.1)
    assert rules.with_overrides() == rules
    assert rules.with_overrides(threshold=0.1, low="none")["dog"] == ClassRule(0.1, None, 0.1)
    assert rules.with_overrides(low="dog=0.3")["dog"].low == 0.3
    assert Rules.default(["a"], threshold=0, low=0).with_overrides(threshold=0.5)["a"].low == 0.5


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"threshold": 1.5}, "threshold is 1.5"),
        ({"threshold": "nan"}, "threshold is nan"),
        ({"threshold": {"dog": None}}, "threshold is None"),
        ({"low": 0.45}, "'dog': low is 0.45, which is above the threshold, 0.4"),
        ({"min_duration_s": {"dgo": 1}}, "is 'dog' meant"),
        ({"median_s": "100"}, "from 0 to 60"),
        ({"score": "sum"}, "choose max or mean"),
    ],
)
def test_overrides_out_of_range_are_refused(values, words):
    rules = Rules({"dog": ClassRule(0.4, 0.2, 0.1), "cat": ClassRule(0.6)})
    with pytest.raises(DataError, match=words):
        rules.with_overrides(**values)
