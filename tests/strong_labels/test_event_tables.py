"""Tables of events: their columns under many names, separators, gaps, weak rows."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest

from ossicle.datasets.strong import read_events, read_label_file, write_events
from ossicle.errors import DataError
from ossicle.events import event_table


@pytest.mark.parametrize(
    "header",
    [
        "file,onset,offset,label,score",
        "Path;Onset_s;Offset_s;Class;Confidence",
        "filename\tstart_time\tend_time\tevent_label\tprobability",
        "notated_path,start_seconds,stop_seconds,name,score",
        "Filepath,Start (s),End (s),Common name,Confidence",
    ],
)
def test_columns_under_other_names(tmp_path, header):
    mark = next(mark for mark in ";\t," if mark in header)
    values = ["a.wav", "0.5", "1.5", "007", "0.25"]
    (tmp_path / "x.csv").write_text(f"{header}\n{mark.join(values)}\n")
    assert read_events(tmp_path / "x.csv").values.tolist() == [["a.wav", 0.5, 1.5, "007", 0.25]]


def test_quotes_and_other_columns(tmp_path):
    text = 'note,label,offset,onset,file\n"a, ""b""","x,y",2,1,"p,q.wav"\n,z,3,2,"p,q.wav"\n'
    (tmp_path / "x.csv").write_text(text)
    found = read_events(tmp_path / "x.csv")
    assert list(found) == ["file", "onset", "offset", "label", "score", "note"]
    assert found["note"].tolist() == ['a, "b"', ""]
    assert found["label"].tolist() == ["x,y", "z"]


def test_columns_that_bear_our_names_but_are_not_taken_stay(tmp_path):
    text = "path,file,onset,offset,label,species,weak\na.wav,old,1,2,bird,crow,w\n"
    (tmp_path / "x.csv").write_text(text)
    found = read_events(tmp_path / "x.csv", label_column="Species")
    assert found.iloc[0].to_dict() | {"score": None} == {
        **{"file": "a.wav", "onset": 1.0, "offset": 2.0, "label": "crow", "score": None},
        **{"file_": "old", "label_": "bird", "weak_": "w"},
    }


def test_a_table_without_files_is_of_the_recording_of_its_name(tmp_path):
    (tmp_path / "song.csv").write_text("onset,offset,label\n1,2,x\n")
    assert read_events(tmp_path / "song.csv")["file"].tolist() == ["song"]
    assert read_events(tmp_path / "song.csv", file="s.wav")["file"].tolist() == ["s.wav"]


def test_rows_without_times_are_silence_or_weak_labels(tmp_path):
    text = "file,onset,offset,label\na.wav,1,2,dog\nb.wav,,,\nc.wav,,,dog; cat\nd.wav,nan,NaN,\n"
    (tmp_path / "x.csv").write_text(text)
    found = read_label_file(tmp_path / "x.csv")
    assert [(row["file"], row["weak"]) for row in found.rows] == [
        ("a.wav", []),
        ("b.wav", []),
        ("c.wav", ["dog", "cat"]),
        ("d.wav", []),
    ]
    assert len(found.events()) == 1
    with pytest.raises(DataError, match=r"c\.wav has the label 'dog' without onset and offset"):
        read_events(tmp_path / "x.csv")


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_recordings_without_events_return(tmp_path, ending):
    events = event_table([{"file": "b.wav", "onset": 0, "offset": 1, "label": "x", "score": 0.5}])
    path = tmp_path / f"x{ending}"
    write_events(events, path, kind="csv", files=["a.wav", "b.wav", "c.wav"])
    found = read_label_file(path)
    assert found.files() == ["b.wav", "a.wav", "c.wav"]
    pd.testing.assert_frame_equal(found.events(), events)


def test_other_programs_read_what_is_written(tmp_path):
    rows = [
        {"file": "a.wav", "onset": 1 / 3, "offset": 2, "label": "NA", "score": 0.1, "snr_db": 3.5},
        {"file": "b.wav", "onset": 0, "offset": 1e-7, "label": 'a,"b"', "score": None},
    ]
    events = event_table(rows)
    for name in ("x.csv", "x.parquet", "x.jsonl"):
        write_events(events, tmp_path / name)
    csv = pd.read_csv(tmp_path / "x.csv", keep_default_na=False, na_values={"score": [""]})
    assert csv["onset"].tolist() == [1 / 3, 0.0]
    assert csv["offset"].tolist() == [2.0, 1e-7]
    assert csv["label"].tolist() == ["NA", 'a,"b"']
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "x.parquet"), events)
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert lines[0] == {**rows[0], "offset": 2.0}
    assert "score" not in lines[1]


def test_typed_values_are_read_as_they_would_be_written(tmp_path):
    frame = pd.DataFrame(
        {"file": ["a", "b"], "onset": [0, 1], "offset": [1, 2], "label": [10, 2], "take": [1.0, 2]}
    )
    frame.to_parquet(tmp_path / "x.parquet")
    (tmp_path / "x.jsonl").write_text(frame.to_json(orient="records", lines=True))
    for name in ("x.parquet", "x.jsonl"):
        found = read_events(tmp_path / name)
        assert found["label"].tolist() == ["10", "2"]
        assert found["take"].tolist() == ["1", "2"]
        assert found["onset"].tolist() == [0.0, 1.0]
    weak = pd.DataFrame(
        {"file": ["a"], "onset": [math.nan], "offset": [None], "label": [["x", "y"]]}
    )
    weak.to_parquet(tmp_path / "weak.parquet")
    assert read_label_file(tmp_path / "weak.parquet").rows[0]["weak"] == ["x", "y"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "file,onset,label\n",
            r"x\.csv: line 1: has no column 'offset' \(it has file, onset, label",
        ),
        ("file,onset,offset\na,1,2\n", "line 1: has no column 'label'"),
        ("file,onset,offset,label\na,1,2,x\n\nb,1,2\n", "line 4 has 3 fields, the header 4"),
        ("file,onset,offset,label\na,1:30,2,x\n", "line 2: onset '1:30' is not a number"),
        ("file,onset,offset,label\na,1,,x\n", "line 2: has no offset; an event needs both"),
    ],
)
def test_what_is_missing_is_named_with_its_line(tmp_path, text, told):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(DataError, match=told):
        read_events(tmp_path / "x.csv")
