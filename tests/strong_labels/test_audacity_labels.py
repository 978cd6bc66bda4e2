"""Audacity label tracks, as the program writes them."""

from __future__ import annotations

import math

import pytest

from ossicle.datasets.strong import read_events, read_label_file, write_events
from ossicle.errors import DataError
from ossicle.events import event_table

TRACK = (
    "0.500000\t1.250000\tdog bark\n"
    "\\\t440.000000\t8820.500000\n"
    "2.000000\t2.000000\tclick\n"
    "3.000000\t4.000000\t rain: heavy, é \n"
    "\\\t-1.000000\t900.000000\n"
)


def test_labels_points_and_pitches(tmp_path):
    (tmp_path / "song.txt").write_text(TRACK, encoding="utf-8")
    found = read_events(tmp_path / "song.txt")
    assert set(found["file"]) == {"song"}
    assert found[["onset", "offset", "label"]].values.tolist() == [
        [0.5, 1.25, "dog bark"],
        [2.0, 2.0, "click"],
        [3.0, 4.0, "rain: heavy, é"],
    ]
    assert found["low_hz"].fillna(0).tolist() == [440.0, 0.0, 0.0]
    assert found["high_hz"].fillna(0).tolist() == [8820.5, 0.0, 900.0]
    assert found["score"].isna().all()
    write_events(found, tmp_path / "again.txt")
    lines = (tmp_path / "again.txt").read_text(encoding="utf-8").splitlines()
    assert lines == [
        "0.5\t1.25\tdog bark",
        "\\\t440.0\t8820.5",
        "2.0\t2.0\tclick",
        "3.0\t4.0\train: heavy, é",
        "\\\t-1.0\t900.0",
    ]


def test_labels_without_a_name_need_one(tmp_path):
    (tmp_path / "song.txt").write_text("0\t1\tdog\n2\t3\t\n4\t5\n")
    with pytest.raises(DataError, match=r"song\.txt: line 2: the event has no label"):
        read_events(tmp_path / "song.txt")
    found = read_events(tmp_path / "song.txt", label="call")
    assert found["label"].tolist() == ["dog", "call", "call"]


def test_one_recording_a_file(tmp_path):
    rows = [{"file": name, "onset": 0, "offset": 1, "label": "x"} for name in ("a", "b")]
    with pytest.raises(DataError, match=r"one recording, these events of 2"):
        write_events(event_table(rows), tmp_path / "x.txt")


def test_no_labels_are_silence_only_where_the_recording_is_known(tmp_path):
    (tmp_path / "song.txt").write_text("\n")
    assert read_label_file(tmp_path / "song.txt").rows == []
    (row,) = read_label_file(tmp_path / "song.txt", file="song.wav").rows
    assert row["file"] == "song.wav"
    assert math.isnan(row["onset"])
    assert row["weak"] == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0\t1\ta\nonce\t2\tb\n", "line 2: time 'once' is not a number"),
        ("0\t1\ta\n3\n", "line 2: has no tab"),
        ("0\t1\ta\n\t\tb\n", "line 2: has no times"),
        ("0\t1\ta\n3\t2\tb\n", "line 2: onset 3.0 and offset 2.0"),
        ("0\t1\ta\n\\\t1\t2\n\\\t1\t2\n", "line 3: a range of pitches must follow"),
    ],
)
def test_lines_that_are_none_are_named(tmp_path, text, told):
    (tmp_path / "x.txt").write_text(text)
    with pytest.raises(DataError, match=told):
        read_events(tmp_path / "x.txt", kind="audacity")
