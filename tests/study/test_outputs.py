"""A study's files: tables, figures, numbers, and the page that shows them."""

from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest

from ossicle.record import record
from ossicle.study.outputs import new_figure, write_study


def written(folder, **changes):
    figure, axes = new_figure(4, 3)
    axes[0, 0].plot([1, 2, 3], [0.5, 0.6, 0.7], label="log")
    table = pd.DataFrame({"name": ["a|b", "c"], "score": [0.123456, np.nan], "n": [3, 4]})
    arguments = {
        "title": "A study",
        "text": ["It says so."],
        "tables": {"Scores": table, "Effects of B": table[:1]},
        "figures": {"The curves": figure},
        "result": {"best": 0.5, "odd": float("inf")},
        "record": record({"x": 1}, seed=7),
        "command": "ossicle study x",
    }
    return write_study(folder, "made", **{**arguments, **changes})


def test_all_files_are_there_and_told(tmp_path):
    files = written(tmp_path / "new" / "folder")
    assert {f.name for f in files} == {
        "made.json",
        "made.csv",
        "made-effects_of_b.csv",
        "made-the_curves.png",
        "made-the_curves.svg",
        "made.md",
    }
    assert {f.name for f in files[0].parent.iterdir()} == {f.name for f in files}


def test_tables_are_whole_in_csv_and_readable_in_markdown(tmp_path):
    written(tmp_path)
    with (tmp_path / "made.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {"name": "a|b", "score": "0.123456", "n": "3"}
    page = (tmp_path / "made.md").read_text()
    assert "| a\\|b | 0.1235 | 3 |" in page
    assert "| c |  | 4 |" in page
    for part in ("# A study", "ossicle study x", "It says so.", "## Scores", "seed 7"):
        assert part in page
    assert "![The curves](made-the_curves.png)" in page


def test_numbers_are_json(tmp_path):
    written(tmp_path)
    told = json.loads((tmp_path / "made.json").read_text())
    assert told["best"] == 0.5
    assert told["odd"] == "inf"
    assert told["record"]["seed"] == 7
    assert told["command"] == "ossicle study x"


def test_pictures_are_pictures_and_the_same_each_time(tmp_path):
    written(tmp_path / "a")
    written(tmp_path / "b")
    for name in ("made-the_curves.png", "made-the_curves.svg"):
        first, second = ((tmp_path / f / name).read_bytes() for f in "ab")
        assert first == second
    assert first.startswith(b"<?xml")
    assert ET.fromstring(first).tag.endswith("svg")
    assert (tmp_path / "a" / "made-the_curves.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_half_written_is_left(tmp_path):
    class Broken:
        def savefig(self, *args, **kwargs):
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        written(tmp_path, figures={"x": Broken()})
    assert not list(tmp_path.glob(".*"))
    assert not (tmp_path / "made-x.png").exists()


def test_figures_have_axes_in_rows_and_columns():
    figure, axes = new_figure(5, 4, 2, 3)
    assert axes.shape == (2, 3)
    assert tuple(figure.get_size_inches()) == (5, 4)
