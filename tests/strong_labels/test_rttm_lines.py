"""RTTM: ten fields a line, several recordings a file, spaces escaped."""

from __future__ import annotations

import pytest

from ossicle.datasets.strong import read_events, read_label_file, write_events
from ossicle.errors import DataError
from ossicle.events import event_table

LINES = (
    ";; a comment\n"
    "SPKR-INFO fsh 1 <NA> <NA> <NA> unknown speaker1 <NA>\n"
    "SPEAKER fsh_60354 1 0.28 2.71 <NA> <NA> speaker1 <NA>\n"
    "SPEAKER  fsh_60354  1   0.1  0.2 <NA> <NA>\tspeaker2 0.75 <NA>\n"
    "SPEAKER other 1 12 0 <NA> <NA> speaker1 <NA> <NA>\n"
)


def test_lines_of_nine_and_ten_fields(tmp_path):
    (tmp_path / "x.rttm").write_text(LINES)
    found = read_label_file(tmp_path / "x.rttm")
    events = found.events()
    # As decimals; the sum of the floats 0.1 and 0.2 is 0.30000000000000004.
    assert events.iloc[:, :4].values.tolist() == [
        ["fsh_60354", 0.1, 0.3, "speaker2"],
        ["fsh_60354", 0.28, 2.99, "speaker1"],
        ["other", 12.0, 12.0, "speaker1"],
    ]
    assert events["score"].fillna(-1).tolist() == [0.75, -1, -1]
    assert found.notes == [f"{tmp_path / 'x.rttm'}: 1 lines of type SPKR-INFO passed over"]


def test_every_line_written_has_ten_fields_between_single_spaces(tmp_path):
    rows = [
        {"file": "a b.wav", "onset": 0.1, "offset": 0.3, "label": "dog bark 100%", "score": 0.5},
        {"file": ";;x", "onset": 1, "offset": 1, "label": "<NA>"},
        {"file": "é.wav", "onset": 1 / 3, "offset": 1, "label": "a\tb\u3000c"},
    ]
    write_events(event_table(rows), tmp_path / "x.rttm")
    lines = (tmp_path / "x.rttm").read_text(encoding="utf-8").splitlines()
    assert [len(line.split(" ")) for line in lines] == [10, 10, 10]
    assert [len(line.split()) for line in lines] == [10, 10, 10]
    assert lines[0] == "SPEAKER a%20b.wav 1 0.1 0.2 <NA> <NA> dog%20bark%20100%25 0.5 <NA>"
    found = read_events(tmp_path / "x.rttm")
    assert found["label"].tolist() == [row["label"] for row in rows]
    assert found["file"].tolist() == [row["file"] for row in rows]


def test_names_that_are_missing(tmp_path):
    (tmp_path / "song.rttm").write_text("SPEAKER <NA> 1 0 1 <NA> <NA> <NA> <NA> <NA>\n")
    with pytest.raises(DataError, match=r"song\.rttm: line 1: the event has no label"):
        read_events(tmp_path / "song.rttm")
    found = read_events(tmp_path / "song.rttm", label="speech")
    assert found.iloc[0, [0, 3]].tolist() == ["song", "speech"]


@pytest.mark.parametrize("times", ["<NA> 1", "0 <NA>", "0 -1", "x 1", "nan 1"])
def test_times_that_are_none_are_named(tmp_path, times):
    (tmp_path / "x.rttm").write_text(f"SPEAKER a 1 {times} <NA> <NA> s <NA> <NA>\n")
    with pytest.raises(DataError, match=r"x\.rttm: line 1: "):
        read_events(tmp_path / "x.rttm")
