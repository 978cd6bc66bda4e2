"""The report on probabilities and unheard classes: from an evaluation to words, rows, drawings."""

from __future__ import annotations

import copy
import json
import math
import re
from collections import OrderedDict
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import soundfile

from ossicle.datasets.clips import read_clips
from ossicle.errors import DataError
from ossicle.features import FeatureTable
from ossicle.metrics.reliability import reliability as measure
from ossicle.model import create_model
from ossicle.report import write_report
from ossicle.report.reliability import (
    reliability,
    reliability_chart,
    threshold_chart,
    unheard,
)
from ossicle.transfer.evaluate import evaluate
from ossicle.transfer.summary import brief

N = 96
GROUP = np.arange(N) // 4
HOSTILE = '</script><b>"a & b"'


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Clips of four classes that can be told apart, mostly, and their features."""
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    paths = [str(folder / f"n{i:03d}.wav") for i in range(N)]
    for path in paths:
        soundfile.write(path, 0.1 * rng.normal(size=1600), 16000)
    y = GROUP % 4
    means = rng.normal(size=(4, 12))
    blocks = OrderedDict(
        (f"{name}/mean", (power * means[y] + rng.normal(size=(N, 12))).astype(np.float32))
        for name, power in (("shallow", 0.3), ("deep", 1.2))
    )
    labels = np.array(["bird", "frog", "rain", HOSTILE])[y]
    frame = pd.DataFrame({"path": paths, "label": labels, "group": GROUP.astype(str)})
    return read_clips(frame), FeatureTable(blocks, np.arange(N), [], 9.6, 9.6, 0.5, 16000)


@pytest.fixture(scope="module")
def results(work):
    """Under each calibration; diagnosed, and so with reliability, only the usual one."""
    clips, table = work
    model = create_model("mel")
    return {
        kind: evaluate(clips, table, model, calibration=kind, diagnostics=kind == "temperature")
        for kind in ("temperature", "isotonic", "none")
    }


def test_an_evaluation_says_how_reliable_it_is(work, results):
    clips, _ = work
    result = results["temperature"]
    found = result["reliability"]
    assert found["calibration"] == "temperature"
    right = [item["label"] == item["predicted"] for item in result["items"]]
    sure = [item["probability"] for item in result["items"]]
    assert found["accuracy"] == pytest.approx(np.mean(right))
    assert found["confidence"] == pytest.approx(np.mean(sure))
    (half,) = (row for row in found["thresholds"] if row["threshold"] == 0.5)
    answered = [r for r, p in zip(right, sure, strict=True) if p >= 0.5]
    assert half["precision"]["value"] == pytest.approx(np.mean(answered))
    assert [row["class"] for row in found["per_class"]] == list(clips.classes)
    assert result["novelty"]["auc"]["value"] > 0.8
    assert len(result["novelty"]["per_class"]) == 4


def test_calibration_changes_probabilities_alone(results):
    def answers(result):
        return [item["predicted"] for item in result["items"]]

    def sure(result):
        return np.array([item["probability"] for item in result["items"]])

    assert (
        answers(results["isotonic"]) == answers(results["temperature"]) == answers(results["none"])
    )
    assert np.abs(sure(results["isotonic"]) - sure(results["temperature"])).max() > 0.01
    # Decisions of a ridge lie around -1 and 1: as logits they are far too unsure.
    told = {kind: sure(result).mean() for kind, result in results.items()}
    right = results["none"]["accuracy"]
    assert told["none"] < right - 0.2
    assert abs(told["temperature"] - right) < 0.15
    assert abs(told["isotonic"] - right) < 0.15


def test_quick_ones_do_without_and_the_short_form_stays_short(work, results):
    clips, table = work
    quick = results["none"]
    assert "reliability" not in quick
    assert reliability(quick) is None
    assert unheard(quick) is None
    short = brief(results["temperature"])
    assert set(short["reliability"]) >= {"ece_mass", "brier", "nll"}
    assert "thresholds" not in short["reliability"]
    assert set(short["novelty"]) >= {"auc", "noticed"}
    with pytest.raises(DataError, match="calibration 'platt'"):
        evaluate(clips, table, create_model("mel"), calibration="platt")


def test_the_page_shows_it(work, results, tmp_path):
    clips, _ = work
    page = write_report(results["temperature"], tmp_path, audio_root=clips.root)
    text = page.read_text(encoding="utf-8")
    for wanted in ("How sure may it be?", "Class by class</summary>", "never heard?"):
        assert text.count(wanted) == 1
    assert HOSTILE not in text
    assert "&lt;/script&gt;&lt;b&gt;" in text
    assert "calibrated by a temperature" in text
    drawings = [ElementTree.fromstring(x) for x in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]
    titles = [drawing.find("title").text for drawing in drawings]
    assert {"Reliability", "Precision at each threshold"} <= set(titles)
    saved = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert (
        saved["reliability"]["brier"]["value"]
        == results["temperature"]["reliability"]["brier"]["value"]
    )


def test_pages_of_evaluations_without_it_stay_as_they_are(results, tmp_path):
    old = copy.deepcopy(results["temperature"])
    for key in ("reliability", "novelty"):
        old[key] = None
    text = write_report(old, tmp_path).read_text(encoding="utf-8")
    assert "How sure" not in text
    assert "never heard" not in text


def coordinates(drawing, cls: str, names: tuple[str, ...], tag: str = "*") -> np.ndarray:
    found = [e for e in ElementTree.fromstring(drawing).iter() if e.get("class") == cls]
    return np.array([[float(e.get(name)) for name in names] for e in found])


def test_the_diagram_puts_numbers_where_they_belong():
    bins = [
        {"confidence": 0.2, "accuracy": {"value": 0.2, "low": 0.1, "high": 0.4}, "n": 10},
        {"confidence": 0.9, "accuracy": {"value": 0.5, "low": 0.25, "high": 0.75}, "n": 10},
    ]
    counted = [{"low": 0.1, "high": 0.2, "n": 10}, {"low": 0.8, "high": 0.9, "n": 5}]
    chart = reliability_chart(bins, counted, True)
    (x1, y1, x2, y2) = coordinates(chart, "ideal", ("x1", "y1", "x2", "y2"))[0]
    points = coordinates(chart, "point", ("cx", "cy"))
    share = np.stack([(points[:, 0] - x1) / (x2 - x1), (points[:, 1] - y1) / (y2 - y1)], 1)
    np.testing.assert_allclose(share, [[0.2, 0.2], [0.9, 0.5]], atol=0.002)
    whiskers = coordinates(chart, "whisker", ("y1", "y2"))
    np.testing.assert_allclose((whiskers - y1) / (y2 - y1), [[0.1, 0.4], [0.25, 0.75]], atol=0.002)
    heights = coordinates(chart, "mass", ("height",))[:, 0]
    assert heights[0] == pytest.approx(2 * heights[1], rel=0.01)
    assert "said 90.0\u00a0%, true 50.0\u00a0%" in chart


def test_the_curve_leaves_out_what_is_unknown():
    def told(value):
        return {"value": value, "low": value, "high": value}

    unknown = told(math.nan)
    rows = [
        {"threshold": 0.0, "coverage": told(1.0), "precision": told(0.5)},
        {"threshold": 0.5, "coverage": told(0.5), "precision": told(1.0)},
        {"threshold": 0.99, "coverage": told(0.0), "precision": unknown},
    ]
    root = ElementTree.fromstring(threshold_chart(rows))
    lines = [e.get("points").split() for e in root.iter("polyline") if e.get("class") == "line"]
    assert sorted(len(line) for line in lines) == [2, 2]  # the curve, and its mark in the key
    dashed = [e.get("points").split() for e in root.iter("polyline") if e.get("class") == "second"]
    assert sorted(len(line) for line in dashed) == [2, 3]
    assert "nan" not in threshold_chart(rows)


def evaluation(**more: Any) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    p = rng.dirichlet([0.3] * 3, 400)
    y = np.array([rng.choice(3, p=row) for row in p])
    told = measure("classes", y, p, ("a", "b", "c"), n_resamples=100)
    return {"task": "classes", "reliability": {**told, "calibration": "isotonic"}, **more}


def test_words_follow_the_numbers():
    assert "isotonic regression" in " ".join(reliability(evaluation())["lead"])
    for gap, wanted in (
        (0.01, "as sure as it is right"),
        (0.2, "surer than it is right, by 20 points"),
        (-0.2, "less sure than it may"),
    ):
        changed = evaluation()
        changed["reliability"]["confidence"] = changed["reliability"]["accuracy"] + gap
        assert wanted in " ".join(reliability(changed)["lead"])
    changed = evaluation()
    changed["reliability"]["calibration"] = "none"
    assert "not calibrated" in " ".join(reliability(changed)["lead"])


def test_the_threshold_that_is_named_is_the_lowest_that_reaches():
    found = evaluation()
    for row in found["reliability"]["thresholds"]:
        low = 0.96 if 0.7 <= row["threshold"] <= 0.9 else 0.9
        row["precision"] = {"value": 0.99, "low": low, "high": 1.0}
    assert reliability(found)["advice"].startswith("From 70\u00a0% on, at least 95\u00a0%")
    for row in found["reliability"]["thresholds"]:
        row["precision"]["low"] = 0.9
    assert "At no threshold" in reliability(found)["advice"]
    for row in found["reliability"]["thresholds"]:
        row["precision"]["low"] = 0.99
    assert reliability(found)["advice"].startswith("Whatever it is asked")


def test_rows_of_thresholds_and_classes():
    shown = reliability(evaluation())
    assert [row["threshold"] for row in shown["thresholds"]] == [
        "any answer",
        *(f"{t}\u00a0%" for t in (50, 60, 70, 80, 90, 95, 99)),
    ]
    assert shown["thresholds"][0]["cells"][0] == ("100\u00a0%", "")
    assert [row["name"] for row in shown["per_class"]] == ["a", "b", "c"]
    assert len(shown["per_class"][0]["cells"]) == 2 * len(shown["class_thresholds"]) == 6


def novelty(value: float, low: float, high: float) -> dict[str, Any]:
    score = {"value": value, "low": low, "high": high}
    rows = [
        {"class": "a", "n": 9, "auc": {"value": 0.6, "low": 0.5, "high": 0.7}, "noticed": score},
        {"class": "b", "n": 9, "auc": {"value": 0.9, "low": 0.8, "high": 1.0}, "noticed": score},
    ]
    return {"auc": score, "noticed": score, "accepted": 0.95, "per_class": rows, "n_clips": 30}


def test_unheard_classes_in_words_and_rows():
    shown = unheard({"task": "classes", "novelty": novelty(0.9, 0.85, 0.95)})
    lead = " ".join(shown["lead"])
    assert "In 90.0\u00a0% of pairs (85.0 to 95.0\u00a0%)" in lead
    assert "Where 95\u00a0% of known sounds are accepted" in lead
    assert "That is little" not in lead
    assert [row["label"] for row in shown["rows"]] == ["b", "a", "Mean over classes"]
    assert shown["rows"][-1]["kind"] == "this"
    for low_one in (novelty(0.6, 0.55, 0.65), novelty(0.75, 0.49, 0.95)):
        assert "That is little" in " ".join(
            unheard({"task": "classes", "novelty": low_one})["lead"]
        )
    tuned = {"task": "classes", "novelty": novelty(0.9, 0.8, 1.0), "probe": {"name": "fine-tuned"}}
    assert "before any training" in " ".join(unheard(tuned)["lead"])


@pytest.mark.parametrize("value", [None, {}, {"n": 0}, {"n": 3}, "x", 7, {"auc": None}])
def test_odd_values_break_nothing(value, tmp_path):
    odd = {"task": "classes", "reliability": value, "novelty": value}
    assert unheard(odd) is None
    write_report(odd, tmp_path)
