"""crowsetta, another reader of annotations, reads what we write, and we what it carries."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest

from ossicle.datasets.strong import read_events, write_events
from ossicle.events import event_table

crowsetta = pytest.importorskip("crowsetta", reason="needs crowsetta, a reader of annotations")

EVENTS = event_table(
    [
        {"file": "song.wav", "onset": 0.1, "offset": 0.30000000000000004, "label": "Türe auf"},
        {"file": "song.wav", "onset": 1 / 3, "offset": 2.0, "label": "10"},
        {"file": "song.wav", "onset": 3661.123456, "offset": 3661.123457, "label": "a:b, c"},
    ]
)


def example(name: str) -> Path:
    with contextlib.redirect_stdout(None):
        return Path(crowsetta.example(name, return_path=True))


def check(onsets, offsets, labels) -> None:
    assert np.array_equal(np.asarray(onsets, float), EVENTS["onset"])
    assert np.array_equal(np.asarray(offsets, float), EVENTS["offset"])
    assert list(map(str, labels)) == EVENTS["label"].tolist()


def test_audacity_labels(tmp_path):
    write_events(EVENTS, tmp_path / "song.txt")
    found = crowsetta.formats.seq.AudSeq.from_file(tmp_path / "song.txt")
    check(found.start_times, found.end_times, found.labels)


def test_audacity_labels_with_pitches(tmp_path):
    events = EVENTS.assign(low_hz=[100.0, 200.5, 300.0], high_hz=[1000.0, 2000.0, 3000.25])
    write_events(events, tmp_path / "song.txt")
    found = crowsetta.formats.bbox.AudBBox.from_file(tmp_path / "song.txt").df
    check(found.begin_time_s, found.end_time_s, found.label)
    assert found.low_freq_hz.tolist() == [100.0, 200.5, 300.0]
    assert found.high_freq_hz.tolist() == [1000.0, 2000.0, 3000.25]


def test_raven_selections(tmp_path):
    path = tmp_path / "song.selections.txt"
    write_events(EVENTS, path)
    found = crowsetta.formats.bbox.Raven.from_file(path)
    check(found.df.begin_time_s, found.df.end_time_s, found.df.annotation)
    write_events(EVENTS, path, label_column="Species", band_hz=(50.0, 12000.0))
    found = crowsetta.formats.bbox.Raven.from_file(path, annot_col="Species")
    check(found.df.begin_time_s, found.df.end_time_s, found.df.annotation)
    assert found.df.high_freq_hz.tolist() == [12000.0] * 3


def test_tables(tmp_path):
    path = tmp_path / "song.csv"
    write_events(EVENTS, path)
    names = {"onset": "onset_s", "offset": "offset_s"}
    simple = crowsetta.formats.seq.SimpleSeq.from_file(path, columns_map=names)
    check(simple.onsets_s, simple.offsets_s, simple.labels)
    write_events(EVENTS, path, generic_seq=True)
    (generic,) = crowsetta.formats.seq.GenericSeq.from_file(path).annots
    check(generic.seq.onsets_s, generic.seq.offsets_s, generic.seq.labels)
    assert str(generic.notated_path) == "song.wav"
    ours = read_events(path)
    check(ours["onset"], ours["offset"], ours["label"])
    assert set(ours["file"]) == {"song.wav"}


def test_its_examples_are_read_alike():
    path = example("marron1")
    theirs = crowsetta.formats.seq.AudSeq.from_file(path)
    ours = read_events(path)
    assert np.array_equal(ours["onset"], theirs.start_times)
    assert np.array_equal(ours["offset"], theirs.end_times)
    assert ours["label"].tolist() == list(theirs.labels)

    path = example("Recording1")
    theirs = crowsetta.formats.bbox.Raven.from_file(path, annot_col="Species").df
    ours = read_events(path)
    assert np.array_equal(ours["onset"], theirs.begin_time_s)
    assert np.array_equal(ours["offset"], theirs.end_time_s)
    assert np.array_equal(ours["low_hz"], theirs.low_freq_hz)
    assert np.array_equal(ours["high_hz"], theirs.high_freq_hz)
    assert ours["label"].tolist() == theirs.annotation.tolist()

    path = example("spinetail.txt")
    theirs = crowsetta.formats.bbox.AudBBox.from_file(path).df
    ours = read_events(path)
    assert np.array_equal(ours["onset"], theirs.begin_time_s)
    assert np.array_equal(ours["high_hz"], theirs.high_freq_hz)
    assert ours["label"].tolist() == theirs.label.tolist()
