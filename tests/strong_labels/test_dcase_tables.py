"""The tables of the DCASE challenges, with headers and without, strong and weak."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from ossicle.datasets.strong import read_events, read_label_file, write_events
from ossicle.errors import DataError
from ossicle.events import event_table

STRONG = (
    "filename\tonset\toffset\tevent_label\n"
    "a.wav\t0.5\t1.25\tSpeech\n"
    "b.wav\t\t\t\n"
    "c.wav\n"
    "d.wav\tnan\tNaN\tnan\n"
    "a.wav\t0\t10.0\tVacuum_cleaner\n"
)


def test_strong_tables_with_recordings_without_events(tmp_path):
    (tmp_path / "x.tsv").write_text(STRONG)
    found = read_label_file(tmp_path / "x.tsv")
    assert found.kind == "dcase"
    assert found.files() == ["a.wav", "b.wav", "c.wav", "d.wav"]
    assert found.events()[["file", "onset", "offset", "label"]].values.tolist() == [
        ["a.wav", 0.0, 10.0, "Vacuum_cleaner"],
        ["a.wav", 0.5, 1.25, "Speech"],
    ]
    assert not any(row["weak"] for row in found.rows)
    pd.testing.assert_frame_equal(read_events(tmp_path / "x.tsv"), found.events())


def test_weak_tables(tmp_path):
    text = "filename\tevent_labels\na.wav\tSpeech,Dog\nb.wav\tCat\nc.wav\t\n"
    (tmp_path / "weak.tsv").write_text(text)
    rows = read_label_file(tmp_path / "weak.tsv").rows
    assert [(row["file"], row["weak"]) for row in rows] == [
        ("a.wav", ["Speech", "Dog"]),
        ("b.wav", ["Cat"]),
        ("c.wav", []),
    ]
    assert all(math.isnan(row["onset"]) for row in rows)
    with pytest.raises(DataError, match="a weak label, no event"):
        read_events(tmp_path / "weak.tsv")


@pytest.mark.parametrize(
    ("text", "file"),
    [
        ("0.5\t1.5\tspeech\n2\t3\tcar horn\n", "scene"),
        ("a.wav\t0.5\t1.5\tspeech\na.wav\t2\t3\tcar horn\n", "a.wav"),
        ("a.wav\thome\t0.5\t1.5\tspeech\na.wav\thome\t2\t3\tcar horn\n", "a.wav"),
        ("0.5\t1.5\tonset\n2\t3\tevent_label\n", "scene"),
    ],
)
@pytest.mark.parametrize("ending", [".ann", ".tsv"])
def test_tables_without_a_header(tmp_path, text, file, ending):
    (tmp_path / f"scene{ending}").write_text(text)
    found = read_events(tmp_path / f"scene{ending}")
    labels = [line.rsplit("\t", 1)[1] for line in text.splitlines()]
    assert found.iloc[:, :4].values.tolist() == [
        [file, 0.5, 1.5, labels[0]],
        [file, 2.0, 3.0, labels[1]],
    ]


def test_written_as_pandas_reads_it(tmp_path):
    rows = [
        {"file": "a.wav", "onset": 1 / 3, "offset": 2.0, "label": 'say "hi"'},
        {"file": "b.wav", "onset": 0.1, "offset": 0.2, "label": '"quoted'},
    ]
    write_events(event_table(rows), tmp_path / "x.tsv", files=["a.wav", "c.wav", "b.wav"])
    found = pd.read_csv(tmp_path / "x.tsv", sep="\t")
    assert list(found) == ["filename", "onset", "offset", "event_label"]
    assert found["filename"].tolist() == ["a.wav", "b.wav", "c.wav"]
    assert found["onset"].tolist()[:2] == [1 / 3, 0.1]
    assert found["event_label"].tolist()[:2] == ['say "hi"', '"quoted']
    assert found.iloc[2, 1:].isna().all()
    assert read_label_file(tmp_path / "x.tsv").files() == ["a.wav", "b.wav", "c.wav"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("filename\tonset\tevent_label\na\t1\tx\n", "line 1: has no column 'offset'"),
        ("filename\tonset\toffset\nx\t1\t2\n", "line 1: has no column 'label'"),
        ("event_labels\nx\n", "line 1: has no column 'filename'"),
        ("filename\tonset\toffset\tevent_label\na\t1\t2\tx\na\tx\t2\tx\n", "line 3: onset 'x'"),
        ("filename\tonset\toffset\tevent_label\na\t1\t2\tx\na\t1\n", "line 3: has no offset"),
        ("filename\tonset\toffset\tevent_label\na\t1\t2\n", "line 2: the event has no label"),
        ("a.wav\tdog\tcat\tx\n", "line 1: is not onset, offset, label"),
    ],
)
def test_what_is_missing_is_named(tmp_path, text, told):
    (tmp_path / "x.tsv").write_text(text)
    with pytest.raises(DataError, match=told):
        read_events(tmp_path / "x.tsv", kind="dcase")
