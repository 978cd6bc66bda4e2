"""Raven selection tables: views, sequences of files, columns of labels and scores."""

from __future__ import annotations

import pandas as pd
import pytest

from ossicle.datasets.strong import read_events, read_label_file, write_events
from ossicle.errors import DataError
from ossicle.events import event_table


def table(*rows: str) -> str:
    return "".join("\t".join(row.split("|")) + "\r\n" for row in rows)


ONE = table(
    "Selection|View|Channel|Begin Time (s)|End Time (s)|Low Freq (Hz)|High Freq (Hz)|Species",
    "1|Waveform 1|1|1.000000000|1.500000000|0.0|24000.0|EATO",
    "1|Spectrogram 1|1|1.000000000|1.500000000|2878.2|4049.0|EATO",
    "2|Spectrogram 1|1|3.25|4|2731.9|3902.7|Wood Thrush",
)
# Two files of 60 s; the second selection starts 1.5 s into the second file.
SEQUENCE = table(
    "Selection|Begin Time (s)|End Time (s)|Common Name|Confidence|Begin Path|File Offset (s)",
    "1|3.1|4.3|Robin|0.91|D:\\rec\\a.wav|3.1",
    "2|61.5|62.7|Blue Tit|0.5|D:\\rec\\b.wav|1.5",
)


def test_a_selection_in_several_views_is_one_event(tmp_path):
    (tmp_path / "song.Table.1.selections.txt").write_bytes(ONE.encode())
    found = read_label_file(tmp_path / "song.Table.1.selections.txt")
    events = found.events()
    assert events[["file", "onset", "offset", "label"]].values.tolist() == [
        ["song", 1.0, 1.5, "EATO"],
        ["song", 3.25, 4.0, "Wood Thrush"],
    ]
    assert events["low_hz"].tolist() == [2878.2, 2731.9]
    assert "1 rows are further views of a selection" in found.notes[0]
    assert "channel" not in events


def test_equal_rows_of_one_view_are_two_events(tmp_path):
    text = ONE.replace("Waveform 1", "Spectrogram 1")
    (tmp_path / "x.selections.txt").write_text(text)
    assert len(read_events(tmp_path / "x.selections.txt")) == 3


def test_times_in_a_sequence_count_from_each_file(tmp_path):
    (tmp_path / "x.selections.txt").write_text(SEQUENCE)
    found = read_events(tmp_path / "x.selections.txt")
    rows = found[["file", "onset", "offset", "label", "score"]].values.tolist()
    assert rows == [
        ["D:\\rec\\a.wav", 3.1, 4.3, "Robin", 0.91],
        ["D:\\rec\\b.wav", 1.5, 2.7, "Blue Tit", 0.5],
    ]


def test_times_in_a_sequence_are_written_as_raven_counts_them(tmp_path):
    rows = [
        {"file": "a.wav", "onset": 3.1, "offset": 4.3, "label": "x", "score": 0.5},
        {"file": "b.wav", "onset": 1.5, "offset": 2.7, "label": "y", "score": 0.25},
        {"file": "c.wav", "onset": 0.1, "offset": 0.2, "label": "y", "score": 1.0},
    ]
    events = event_table(rows)
    path = tmp_path / "x.selections.txt"
    write_events(events, path, durations={"a.wav": 60.0, "b.wav": 30.1, "c.wav": 1.0})
    written = pd.read_csv(path, sep="\t")
    assert written["Begin Time (s)"].tolist() == [3.1, 61.5, 90.2]
    assert written["End Time (s)"].tolist() == [4.3, 62.7, 90.3]
    assert written["File Offset (s)"].tolist() == [3.1, 1.5, 0.1]
    assert written["Selection"].tolist() == [1, 2, 3]
    found = read_events(path)
    pd.testing.assert_frame_equal(found[list(events)], events, check_exact=True)
    with pytest.raises(DataError, match=r"the duration of b\.wav is not given"):
        write_events(events, path, durations={"a.wav": 60.0})


def test_a_sequence_without_offsets_is_refused(tmp_path):
    lines = SEQUENCE.split("\r\n")
    text = "\r\n".join(line.rpartition("\t")[0] for line in lines)
    (tmp_path / "x.selections.txt").write_text(text)
    with pytest.raises(DataError, match=r"names 2 files but has no column 'File Offset \(s\)'"):
        read_events(tmp_path / "x.selections.txt")


def test_the_column_of_labels_can_be_chosen(tmp_path):
    path = tmp_path / "x.selections.txt"
    text = table("Begin Time (s)|End Time (s)|Species|Call Type|Notes", "1|2|crow|alarm|loud")
    path.write_text(text)
    assert read_events(path)["label"].tolist() == ["crow"]
    assert read_events(path, label_column="Call Type")["label"].tolist() == ["alarm"]
    assert read_events(path, label_column="notes")["label"].tolist() == ["loud"]
    with pytest.raises(DataError, match="such as 'Caller'"):
        read_events(path, label_column="Caller")


def test_selections_without_labels_need_one(tmp_path):
    path = tmp_path / "x.selections.txt"
    path.write_text(table("Begin Time (s)|End Time (s)|Low Freq (Hz)", "1|2|100"))
    with pytest.raises(DataError, match="line 1: has no column of labels"):
        read_events(path)
    assert read_events(path, label="whale")["label"].tolist() == ["whale"]


def test_columns_that_are_missing_are_named(tmp_path):
    path = tmp_path / "x.selections.txt"
    path.write_text(table("Selection|Begin Time (s)|Species", "1|2|x"))
    with pytest.raises(DataError, match=r"line 1: has no column 'End Time \(s\)'"):
        read_events(path)
    path.write_text(table("Begin Time (s)|End Time (s)|Species", "1|2|x", "||y"))
    with pytest.raises(DataError, match="line 3: a selection needs"):
        read_events(path)
