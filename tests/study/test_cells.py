"""Cells that are done are not done again, whatever stopped the study."""

from __future__ import annotations

import json
import math

import pytest

from ossicle.errors import DataError
from ossicle.study.cells import CELLS, Cells

SQUARES = [{"n": n, "seed": s} for n in (1, 2, 3) for s in (0, 1)]


def squared(cell):
    return {"square": cell["n"] ** 2 + cell["seed"]}


def test_results_come_in_the_order_of_the_cells(tmp_path):
    told = []
    rows = Cells(tmp_path / "s", {"a": 1}).run(SQUARES, squared, lambda *step: told.append(step))
    assert [r["square"] for r in rows] == [1, 2, 4, 5, 9, 10]
    assert [(r["n"], r["seed"]) for r in rows] == [(c["n"], c["seed"]) for c in SQUARES]
    assert told == [(i, 6) for i in range(1, 7)]


def test_a_stopped_study_goes_on(tmp_path):
    def stops(cell):
        if cell["n"] == 3:
            raise KeyboardInterrupt
        return squared(cell)

    with pytest.raises(KeyboardInterrupt):
        Cells(tmp_path, {"a": 1}).run(SQUARES, stops)
    again = []
    cells = Cells(tmp_path, {"a": 1})
    assert [cells.has(cell) for cell in SQUARES] == [True] * 4 + [False] * 2
    rows = cells.run(SQUARES, lambda c: again.append(c) or squared(c))
    assert [c["n"] for c in again] == [3, 3]
    assert [r["square"] for r in rows] == [1, 2, 4, 5, 9, 10]


def test_what_a_crash_cut_short_is_computed_again(tmp_path):
    Cells(tmp_path, {"a": 1}).run(SQUARES, squared)
    path = tmp_path / CELLS
    path.write_text(path.read_text()[:-7], encoding="utf-8")
    again = []
    Cells(tmp_path, {"a": 1}).run(SQUARES, lambda c: again.append(c) or squared(c))
    assert again == [SQUARES[-1]]
    # The broken line is gone, so that what was added is read the next time.
    assert all(json.loads(line) for line in path.read_text().splitlines())
    Cells(tmp_path, {"a": 1}).run(SQUARES, lambda c: pytest.fail("computed again"))


def test_another_study_is_refused(tmp_path):
    Cells(tmp_path, {"clips": "abc"}).run(SQUARES[:1], squared)
    with pytest.raises(DataError, match=r"other arguments or clips.*delete cells\.jsonl"):
        Cells(tmp_path, {"clips": "abd"})
    # And what was there is kept.
    Cells(tmp_path, {"clips": "abc"}).run(SQUARES[:1], lambda c: pytest.fail("lost"))


def test_cells_are_told_by_what_they_hold_not_by_order_of_keys(tmp_path):
    Cells(tmp_path, {}).run([{"a": 1, "b": 2}], lambda c: {"x": 1})
    rows = Cells(tmp_path, {}).run([{"b": 2, "a": 1}], lambda c: pytest.fail("computed again"))
    assert rows == [{"b": 2, "a": 1, "x": 1}]


def test_numbers_that_json_has_not_become_texts(tmp_path):
    rows = Cells(tmp_path, {}).run([{"a": 1}], lambda c: {"x": math.nan})
    assert rows[0]["x"] == "nan"
    assert Cells(tmp_path, {}).run([{"a": 1}], lambda c: {})[0]["x"] == "nan"


@pytest.mark.parametrize("text", ['["a list"]\n', "my own notes\n", '{"cell": 1}\n'])
def test_a_file_that_is_no_studys_is_left_alone(tmp_path, text):
    (tmp_path / CELLS).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"cells\.jsonl: is no study's"):
        Cells(tmp_path, {"a": 1})
    assert (tmp_path / CELLS).read_text(encoding="utf-8") == text
