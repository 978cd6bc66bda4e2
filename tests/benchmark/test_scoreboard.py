"""The page: every number of the board in it, no text of a task becomes markup, nothing fetched."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest

from ossicle.benchmark.results import Results
from ossicle.benchmark.scoreboard import lines_of, tables_of, write_scoreboard
from ossicle.benchmark.suite_scores import collect
from ossicle.record import record

NAMES = ("all layers", "last | layer", "<b>random</b>")
DOMAINS = {"drums": "music", "words": "speech", "events": "environment", "tone": "speech"}


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    generator = np.random.default_rng(0)
    results = Results(tmp_path_factory.mktemp("board"), "open")
    for number, name in enumerate(NAMES):
        told = {
            "name": name,
            "strategy": f"probe backbone=yamnet layers={number + 1}",
            "protocol": "ossicle",
            "how": "ridge.",
            "heard": "half of it" if number == 1 else "",
            "input": "spectrogram",
            "pretrained": number < 2,
            "parameters": [3_206_400, 3_206_400, 0][number],
            "times_real_time": 100.0 * (number + 1),
            "weights": "w",
            "licence": "MIT",
            "clip_policy": "whole",
        }
        results.put_row(name, told)
    for task, domain in DOMAINS.items():
        y, groups = generator.integers(0, 4, 80), np.arange(80) // 4
        told = {
            "name": task,
            "domain": domain,
            "title": "<script>alert(1)</script>",
            "metric": "accuracy",
            "task": "classes",
            "classes": ["a", "b", "c", "d"],
            "n_clips": 80,
            "n_tested": 80,
            "n_groups": 20,
            "n_folds": 1,
            "parts": [40, 0, 40],
            "licence": "GPL-2+",
            "caveat": "one kit, one room",
            "source": "",
            "notes": [],
        }
        results.put_task(task, "v", y, groups, told)
        for number, name in enumerate(NAMES):
            right = generator.random(80) < (0.9, 0.6, 0.3)[number]
            said = np.where(right, y, (y + 1) % 4)
            cell = {"row": name, "task": task, "clips": "v", "seed": 0, "fold": 0}
            info = {"seconds_used": 120.0, "skipped": 0}
            results.put(cell, np.arange(80), np.eye(4)[said], info)
    return collect(results)


@pytest.fixture(scope="module")
def files(board, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    missing = {"esc50": "the folder is not there; fetch ESC-50"}
    about = record({}, seed=0)
    return folder, write_scoreboard(folder, "scoreboard", board, about, "ossicle bench", missing)


def test_the_better_row_comes_first_and_every_score_is_in_the_table(board):
    table = tables_of(board, None)["Scores"]
    assert list(table["row"]) == ["all layers", "last | layer *", "<b>random</b>"]
    for row, shown in zip(board["rows"], table.to_dict("records"), strict=True):
        for task in DOMAINS:
            assert shown[task] == f"{row['scores'][task]['value']:.3f}"
        assert shown["mean"].startswith(f"{row['mean']['value']:.3f} (")


def test_differences_are_between_all_pairs_and_say_what_is_beyond_chance(board):
    table = tables_of(board, None)["Differences"]
    assert len(table) == 3
    first = table.iloc[0]
    assert (first["better"], first["than"]) == ("all layers", "<b>random</b>")
    gap = board["rows"][0]["mean"]["value"] - board["rows"][2]["mean"]["value"]
    assert first["by, points"] == f"{100 * gap:+.1f}"
    assert first["beyond chance"] == "yes"


def test_page_holds_all_and_runs_nothing_of_it(files):
    folder, written = files
    page = (folder / "scoreboard.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert "<b>random" not in page
    assert "one kit, one room" in page
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert page.count("data:image/png;base64") == 6
    assert "fetch ESC-50" in page
    assert all(path.stat().st_size for path in written)


def test_csv_and_json_say_the_same_as_the_board(files, board):
    folder, _ = files
    assert len(pd.read_csv(folder / "scoreboard.csv")) == 3
    told = json.loads((folder / "scoreboard.json").read_text(encoding="utf-8"))
    assert [row["row"] for row in told["rows"]] == [row["row"] for row in board["rows"]]
    assert told["ranks"]["n_tasks"] == 4
    page = (folder / "scoreboard.md").read_text(encoding="utf-8")
    assert "last \\| layer" in page
    assert "half of it" in page


def test_a_line_a_row_for_the_terminal(board):
    lines = lines_of(board)
    assert len(lines) == 4
    assert all("4 of 4" in line for line in lines[1:])


def test_one_row_makes_a_board_without_ranks(board, tmp_path):
    alone = {**board, "rows": board["rows"][:1], "differences": []}
    write_scoreboard(tmp_path, "one", alone, record({}, seed=0), "ossicle bench")
    assert json.loads((tmp_path / "one.json").read_text(encoding="utf-8"))["ranks"] is None
