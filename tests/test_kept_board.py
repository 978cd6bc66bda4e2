"""Rows of a committed scoreboard beside those run here (bench/kept_board.py)."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TASKS = [{"name": "words", "checksum": "a"}, {"name": "notes", "checksum": "b"}]


@pytest.fixture(scope="module")
def with_kept_rows():
    path = ROOT / "bench" / "kept_board.py"
    if not path.is_file():
        pytest.skip("needs bench/ of a checkout")
    spec = importlib.util.spec_from_file_location("kept_board", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.with_kept_rows


def row(name: str, mean: float | None, speed: float = 1.0) -> dict:
    told = None if mean is None else {"value": mean, "low": mean - 0.1, "high": mean + 0.1}
    scores = {} if mean is None else {"words": {"value": mean}, "notes": {"value": mean}}
    return {"row": name, "name": name, "mean": told, "times_real_time": speed, "scores": scores}


def pair(a: str, b: str, value: float) -> dict:
    return {"a": a, "b": b, "value": value}


def board(rows: list[dict], pairs: list[dict], tasks: list[dict] = TASKS) -> dict:
    return {"suite": "open", "tasks": tasks, "rows": rows, "differences": pairs}


PAIRS = [pair("x", "y", 0.1), pair("x", "z", 0.3), pair("y", "z", 0.2)]
PAGE = board([row("x", 0.6, 7.0), row("y", 0.5, 8.0), row("z", 0.3, 9.0)], PAIRS)


@pytest.fixture
def page(tmp_path) -> Path:
    path = tmp_path / "board.json"
    path.write_text(json.dumps(PAGE), encoding="utf-8")
    return path


def test_rows_run_here_take_the_place_of_the_page_s(with_kept_rows, page):
    here = board([row("x", 0.4), row("new", 0.55)], [pair("x", "new", -0.15)])
    got = with_kept_rows(here, page)
    assert [(r["row"], r["mean"]["value"]) for r in got["rows"]] == [
        ("new", 0.55),
        ("y", 0.5),
        ("x", 0.4),
        ("z", 0.3),
    ]
    # What lies between x, as it is now, and rows that were not run here is not known.
    assert got["differences"] == [pair("x", "new", -0.15), pair("y", "z", 0.2)]
    assert got["kept"] == ["y", "z"]
    # Speeds are those of one run, where a row was in it.
    assert [r["times_real_time"] for r in got["rows"]] == [1.0, 8.0, 7.0, 9.0]


def test_a_row_that_is_the_same_keeps_what_was_known_of_it(with_kept_rows, page):
    here = board([row("x", 0.6), row("y", 0.51)], [pair("x", "y", 0.09)])
    assert with_kept_rows(here, page)["differences"] == [pair("x", "y", 0.09), PAIRS[1]]


def test_a_row_without_all_its_tasks_takes_no_place(with_kept_rows, page):
    got = with_kept_rows(board([row("x", None), row("new", None)], []), page)
    assert [(r["row"], r["mean"] and r["mean"]["value"]) for r in got["rows"]] == [
        ("x", 0.6),
        ("y", 0.5),
        ("z", 0.3),
        ("new", None),
    ]
    assert got["differences"] == PAIRS


def test_other_clips_or_no_page_leave_the_board_as_it_is(with_kept_rows, page, tmp_path):
    other = board([row("x", 0.4)], [], [{"name": "words", "checksum": "c"}, TASKS[1]])
    assert with_kept_rows(other, page) == other
    fewer = board([row("x", 0.4)], [], TASKS[:1])
    assert with_kept_rows(fewer, page) == fewer
    here = board([row("x", 0.4)], [])
    assert with_kept_rows(here, tmp_path / "none.json") == here
