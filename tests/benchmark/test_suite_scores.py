"""Scores of a suite from cells on disk, against plain averages and a slow bootstrap."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ossicle.benchmark.results import Results
from ossicle.benchmark.suite_scores import collect
from ossicle.errors import DataError

CLASSES = ("a", "b", "c")


def _told(name: str, domain: str, n: int, n_folds: int = 2, task: str = "classes") -> dict:
    return {
        "name": name,
        "domain": domain,
        "title": name,
        "metric": "accuracy" if task == "classes" else "map",
        "task": task,
        "classes": list(CLASSES),
        "n_clips": n,
        "n_tested": n,
        "n_groups": 10,
        "n_folds": n_folds,
        "parts": None,
        "licence": "none",
        "caveat": "",
        "source": "",
        "notes": [],
    }


def _row(name: str) -> dict:
    return {
        "name": name,
        "strategy": f"probe backbone={name}",
        "protocol": "ossicle",
        "how": "ridge.",
        "heard": "",
        "input": "spectrogram",
        "pretrained": True,
        "parameters": 1000,
        "times_real_time": 10.0,
        "weights": "w",
        "licence": "MIT",
        "clip_policy": "whole",
    }


def _answers(y: np.ndarray, right: np.ndarray) -> np.ndarray:
    said = np.where(right, y, (y + 1) % 3)
    return np.eye(3)[said] * 0.8 + 0.1


@pytest.fixture
def results(tmp_path):
    """Two tasks, two rows: known accuracies, groups of five clips that stand or fall together."""
    generator = np.random.default_rng(0)
    store = Results(tmp_path / "board", "open")
    truth = {}
    for name, domain, n in (("one", "speech", 60), ("two", "music", 90)):
        y = generator.integers(0, 3, n)
        groups = np.arange(n) // 5
        store.put_task(name, "v1", y, groups, _told(name, domain, n))
        for row, share in (("good", 0.9), ("poor", 0.5)):
            right = generator.random(n // 5)[groups] < share
            truth[name, row] = (right, groups)
            for fold in range(2):
                rows = np.flatnonzero(groups % 2 == fold)
                cell = {
                    "row": row,
                    "task": name,
                    "clips": "v1",
                    "seed": 0,
                    "fold": fold,
                }
                info = {"seconds_used": 60.0, "skipped": 0}
                store.put(cell, rows, _answers(y[rows], right[rows]), info)
    for row in ("good", "poor"):
        store.put_row(row, _row(row))
    return store, truth


def test_scores_and_means_are_plain_averages(results):
    store, truth = results
    board = collect(store)
    assert [task["name"] for task in board["tasks"]] == ["one", "two"]
    assert [row["row"] for row in board["rows"]] == ["good", "poor"]
    for row in board["rows"]:
        each = [truth[name, row["row"]][0].mean() for name in ("one", "two")]
        assert [row["scores"][n]["value"] for n in ("one", "two")] == pytest.approx(each)
        assert row["mean"]["value"] == pytest.approx(np.mean(each))
        assert row["domains"]["speech"]["value"] == pytest.approx(each[0])
        assert row["domains"]["environment"] is None
        assert row["mean"]["low"] < row["mean"]["value"] < row["mean"]["high"]


def test_deviation_of_the_mean_difference_is_that_of_a_slow_bootstrap(results):
    store, truth = results
    (pair,) = collect(store)["differences"]
    generator = np.random.default_rng(5)
    drawn = []
    for _ in range(4000):
        differences = []
        for name in ("one", "two"):
            (good, groups), (poor, _) = truth[name, "good"], truth[name, "poor"]
            gain = good.astype(float) - poor
            by_group = np.array([gain[groups == g].mean() for g in np.unique(groups)])
            picked = generator.integers(0, len(by_group), len(by_group) - 1)
            differences.append(by_group[picked].mean())
        drawn.append(np.mean(differences))
    assert pair["deviation"] == pytest.approx(np.std(drawn), rel=0.08)
    assert pair["value"] == pytest.approx(np.mean(drawn), abs=0.01)
    assert pair["low"] > 0


def test_a_row_that_lacks_a_task_has_no_mean(results):
    store, _ = results
    store.put_row("partial", _row("partial"))
    y = store.task("one", "v1")[1]
    for fold in range(2):
        rows = np.flatnonzero((np.arange(60) // 5) % 2 == fold)
        cell = {"row": "partial", "task": "one", "clips": "v1", "seed": 0, "fold": fold}
        store.put(cell, rows, _answers(y[rows], np.ones(len(rows), bool)), {})
    board = collect(store)
    partial = board["rows"][-1]
    assert partial["row"] == "partial"
    assert partial["mean"] is None
    assert partial["scores"]["one"]["value"] == 1.0
    assert len(board["differences"]) == 1


def test_a_board_of_some_tasks_takes_its_means_over_them(results):
    store, truth = results
    board = collect(store, only=["two"])
    assert [task["name"] for task in board["tasks"]] == ["two"]
    mean = board["rows"][0]["mean"]
    assert mean["n_tasks"] == 1
    assert mean["value"] == pytest.approx(truth["two", "good"][0].mean())


def test_a_task_without_all_folds_is_not_scored(results):
    store, _ = results
    store.put_row("begun", _row("begun"))
    cell = {"row": "begun", "task": "two", "clips": "v1", "seed": 0, "fold": 0}
    store.put(cell, np.arange(3), np.full((3, 3), 1 / 3), {})
    row = next(r for r in collect(store)["rows"] if r["row"] == "begun")
    assert row["scores"] == {}


def test_a_clip_that_one_row_lacks_is_left_out_for_all(results):
    store, truth = results
    store.put_row("deaf", _row("deaf"))
    y = store.task("one", "v1")[1]
    for fold in range(2):
        rows = np.flatnonzero((np.arange(60) // 5) % 2 == fold)[1:]
        cell = {"row": "deaf", "task": "one", "clips": "v1", "seed": 0, "fold": fold}
        store.put(cell, rows, _answers(y[rows], np.ones(len(rows), bool)), {})
    board = collect(store)
    kept = np.setdiff1d(np.arange(60), [0, 5])
    assert board["tasks"][0]["n_tested"] == 58
    good = next(r for r in board["rows"] if r["row"] == "good")
    assert good["scores"]["one"]["value"] == pytest.approx(truth["one", "good"][0][kept].mean())


def test_seeds_widen_the_interval(tmp_path):
    generator = np.random.default_rng(2)
    y, groups = generator.integers(0, 3, 90), np.arange(90) // 3

    def board(shares):
        store = Results(tmp_path / f"{shares}", "open")
        store.put_task("one", "v", y, groups, _told("one", "music", 90, n_folds=1))
        store.put_row("random", _row("random"))
        for seed, share in enumerate(shares):
            right = np.random.default_rng(9).random(90) < share
            cell = {"row": "random", "task": "one", "clips": "v", "seed": seed, "fold": 0}
            store.put(cell, np.arange(90), _answers(y, right), {})
        return collect(store)["rows"][0]["scores"]["one"]

    alike, apart = board((0.6, 0.6, 0.6)), board((0.3, 0.6, 0.9))
    assert len(apart["by_seed"]) == 3
    assert apart["value"] == pytest.approx(np.mean(apart["by_seed"]))
    assert apart["high"] - apart["low"] > 1.5 * (alike["high"] - alike["low"])


def test_perfect_tasks_do_not_make_a_certainty(tmp_path):
    """With nothing wrong in 20 groups, a mean of two tasks still has a lower limit."""
    store = Results(tmp_path / "board", "open")
    y, groups = np.arange(60) % 3, np.arange(60) // 3
    store.put_row("perfect", _row("perfect"))
    for name in ("one", "two"):
        store.put_task(name, "v", y, groups, _told(name, "music", 60, n_folds=1))
        cell = {"row": "perfect", "task": name, "clips": "v", "seed": 0, "fold": 0}
        store.put(cell, np.arange(60), _answers(y, np.ones(60, bool)), {})
    row = collect(store)["rows"][0]
    alone = row["scores"]["one"]
    assert row["mean"]["value"] == row["mean"]["high"] == 1.0
    assert alone["low"] < row["mean"]["low"] < 1.0


def test_a_half_written_cell_is_not_there(results):
    store, _ = results
    before = len(store.cells())
    (store.folder / "cells" / "0123.npz").write_bytes(b"PK")
    (store.folder / "cells" / "4567.json").write_text('{"cell": ')
    assert len(store.cells()) == before


def test_another_suites_folder_and_an_empty_one_are_refused(tmp_path, results):
    store, _ = results
    with pytest.raises(DataError, match="suite open"):
        Results(store.folder, "hares")
    with pytest.raises(DataError, match="no task is finished"):
        collect(Results(tmp_path / "empty", "open"))
    assert json.loads((store.folder / "suite.json").read_text()) == {"suite": "open"}
