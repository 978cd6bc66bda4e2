"""Every format read, written and read again: nothing but what it has no place for is lost."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ossicle.datasets.strong import ENDINGS, KINDS, read_events, write_events
from ossicle.errors import DataError
from ossicle.events import COLUMNS, event_table

SCORED = {"raven", "rttm", "csv", "label_studio"}
# No control characters and no halves of surrogate pairs; all else, also what Python calls a line
# end (U+2028, U+0085 is a control character) and the signs that formats use for themselves.
signs = st.characters(exclude_categories=("Cc", "Cs"))
texts = st.one_of(
    st.sampled_from(
        [
            *("dog bark", "Türe auf", "a:b", "a,b", "a;b", "10", "2", "007", "NA", "nan", "None"),
            *("<NA>", "100%", "50%25", "%20", ";; x", '"', '"a', 'say "hi"', "'", "\\", "-", "#"),
            *("é\u2028x", "犬", "dog\u00a0bark", "SPEAKER", "[", "{", "True", "1e5", "onset"),
            *("event_label", "Begin Time (s)", "file"),
        ]
    ),
    st.text(signs, min_size=1, max_size=12).map(str.strip).filter(bool),
)
times = st.one_of(
    st.integers(0, 10**11).map(lambda n: n / 10**6),
    st.floats(0, 1e9),
    st.sampled_from([0.0, 1 / 3, 0.1, 1e-7, 5e-324, 86400.000001, 1e16]),
)
files = st.sampled_from(["song.wav", "a b/sóng.wav", "x/100%.wav", "/deep/y.flac", "no ending"])
scores = st.one_of(st.just(math.nan), st.floats(0, 1))


@st.composite
def tables(draw, one_file: bool = False) -> pd.DataFrame:
    only = draw(files) if one_file else None
    rows = []
    for _ in range(draw(st.integers(1, 5))):
        first, second = sorted((draw(times), draw(times)))
        file = only or draw(files)
        row = {"file": file, "onset": first, "offset": second, "label": draw(texts)}
        rows.append({**row, "score": draw(scores)})
    return event_table(rows)


def same(found: pd.DataFrame, wanted: pd.DataFrame, scored: bool) -> None:
    names = [name for name in COLUMNS if name != "score" or scored]
    pd.testing.assert_frame_equal(found[names], wanted[names], check_exact=True)


@pytest.mark.parametrize("ending", sorted({*ENDINGS.values(), ".jsonl", ".parquet"} - {".txt"}))
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(events=tables())
def test_many_recordings_return(tmp_path, ending, events):
    path, again = tmp_path / f"x{ending}", tmp_path / f"y{ending}"
    write_events(events, path)
    found = read_events(path)
    same(found, events, ending != ".tsv")
    write_events(found, again)
    pd.testing.assert_frame_equal(read_events(again), found, check_exact=True)
    assert again.read_bytes() == path.read_bytes() or ending == ".parquet"


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(events=tables(one_file=True))
def test_one_recording_returns_by_the_name_that_is_given(tmp_path, kind, events):
    path = tmp_path / f"x{ENDINGS[kind]}"
    write_events(events, path)
    same(read_events(path, file=events["file"][0]), events, kind in SCORED)


@pytest.mark.parametrize("kind", ["audacity", "raven", "csv"])
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(events=tables(one_file=True), data=st.data())
def test_ranges_of_pitch_return(tmp_path, kind, events, data):
    bounds = st.floats(0, 96000)
    for name in ("low_hz", "high_hz"):
        events[name] = [data.draw(bounds) for _ in range(len(events))]
    path = tmp_path / f"x{ENDINGS[kind]}"
    write_events(events, path)
    found = read_events(path, file=events["file"][0])
    names = ["onset", "offset", "label", "low_hz", "high_hz"]
    pd.testing.assert_frame_equal(found[names], events[names], check_exact=True)


@pytest.mark.parametrize("kind", ["raven", "rttm"])
def test_channels_return(tmp_path, kind):
    rows = [{"file": "a", "onset": 0, "offset": 1, "label": "x", "channel": c} for c in (1.0, 2.0)]
    path = tmp_path / f"x{ENDINGS[kind]}"
    write_events(event_table(rows), path)
    assert read_events(path)["channel"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("kind", ["audacity", "raven", "dcase"])
@pytest.mark.parametrize("sign", ["\t", "\n", "\r", "\x00", "\x85"])
def test_labels_with_control_characters_are_refused_where_they_cannot_stand(tmp_path, kind, sign):
    events = event_table([{"file": "a", "onset": 0, "offset": 1, "label": f"a{sign}b"}])
    path = tmp_path / f"x{ENDINGS[kind]}"
    with pytest.raises(DataError, match="tab, a line break") as told:
        write_events(events, path)
    assert "\n" not in str(told.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["rttm", "csv", "label_studio"])
def test_labels_with_tabs_return_from_the_others(tmp_path, kind):
    events = event_table([{"file": "a", "onset": 0, "offset": 1, "label": "a\tb\nc\x85d"}])
    path = tmp_path / f"x{ENDINGS[kind]}"
    write_events(events, path)
    assert read_events(path)["label"].tolist() == ["a\tb\nc\x85d"]


@pytest.mark.parametrize("kind", KINDS)
def test_no_events_return_as_none(tmp_path, kind):
    path = tmp_path / f"x{ENDINGS[kind]}"
    write_events(event_table([]), path, kind=kind)
    found = read_events(path, kind=kind)
    assert list(found.columns[:5]) == list(COLUMNS)
    assert found.empty


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_file_is_no_events(tmp_path, kind):
    path = tmp_path / f"x{ENDINGS[kind]}"
    path.write_bytes(b"")
    assert read_events(path).empty


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "label_studio"])
def test_marks_line_ends_and_encodings(tmp_path, kind):
    events = event_table(
        [
            {"file": "s", "onset": 0.25, "offset": 1.5, "label": "Türe auf"},
            {"file": "s", "onset": 2, "offset": 2, "label": "é"},
        ]
    )
    path = tmp_path / f"x{ENDINGS[kind]}"
    write_events(events, path)
    text = path.read_text(encoding="utf-8")
    for data in (
        text.encode("utf-8-sig"),
        text.replace("\n", "\r\n").encode(),
        text.replace("\n", "\r").encode(),
        text.replace("\n", "\n\n").encode() + b"\n \n",
        text.rstrip("\n").encode(),
        text.encode("latin-1"),
        text.encode("utf-16"),
    ):
        path.write_bytes(data)
        same(read_events(path, kind=kind, file="s"), events, scored=False)
        same(read_events(path, file="s"), events, scored=False)


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("x.txt", "0.5\t1.5\tdog\n1,5\t2,5\tdog\n", 2),
        ("y.txt", "1,5\t2,5\tdog\n", 1),
        ("x.selections.txt", "Begin Time (s)\tEnd Time (s)\tSpecies\n1\t2\ta\n1,5\t2,5\tb\n", 3),
        ("x.tsv", "filename\tonset\toffset\tevent_label\na.wav\t1,5\t2\tdog\n", 2),
        ("y.tsv", "a.wav\t1,5\t2,5\tdog\n", 1),
        ("x.rttm", "SPEAKER a 1 1,5 2 <NA> <NA> dog <NA> <NA>\n", 1),
        ("x.csv", "file;onset;offset;label\na.wav;1;2;x\na.wav;1,5;2;dog\n", 3),
    ],
)
def test_a_comma_as_decimal_sign_is_told_with_its_line(tmp_path, name, text, line):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataError, match="comma as decimal sign; write 1.5") as told:
        read_events(path)
    assert f"{name}: line {line}:" in str(told.value)
    assert "\n" not in str(told.value)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("1\t2\told\n")
    bad = event_table([{"file": "a", "onset": 0, "offset": 1, "label": "a\tb"}])
    with pytest.raises(DataError):
        write_events(bad, path)
    assert path.read_text() == "1\t2\told\n"
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def test_kinds_are_recognised_by_content(tmp_path):
    events = event_table([{"file": "a.wav", "onset": 0.5, "offset": 1.5, "label": "dog"}])
    for kind in KINDS:
        write_events(events, tmp_path / "written", kind=kind)
        text = (tmp_path / "written").read_bytes()
        for name in ("x.txt", "x"):
            (tmp_path / name).write_bytes(text)
            found = read_events(tmp_path / name, file="a.wav")
            assert found[["file", "onset", "label"]].values.tolist() == [["a.wav", 0.5, "dog"]]


def test_what_is_not_labels_is_refused_in_one_line(tmp_path):
    for name, data in {
        "a.txt": b"Once upon a time",
        "b.txt": b"RIFF\0\0\0\0WAVE",
        "c.json": b"{",
        "d.json": b"[1, 2]",
        "e.parquet": b"PAR1",
        "f.csv": b"path,label\na.wav,dog\n",
        "g.jsonl": b"[1]\n",
        "h.csv": b'file,onset,offset,label\n"a,1,2,x\n',
        "i.rttm": b"SPEAKER a 1 0.5\n",
        "j.csv": b"file,onset,offset,label\na.wav,1,2,dog,3\n",
        "k.csv": b"file,onset,offset,label\na.wav,2,1,dog\n",
        "l.csv": b"file,onset,offset,label\na.wav,-1,1,dog\n",
        "m.csv": b"file,onset,offset,label\na.wav,1,,dog\n",
        "n.csv": b"file,onset,offset,label\na.wav,1,2,\n",
        "o.csv": b"file,onset,offset,label\na.wav,1,1e999,x\n",
        "p.csv": b"file,onset,offset,label\na.wav,1,1_0,x\n",
        "q.csv": b"file,onset,onset,offset,label\na.wav,1,1,2,x\n",
        "r.rttm": b"SPEAKER a 1 1 1e-999999999 <NA> <NA> x <NA> <NA>\n",
        "s.txt": b"\\\t100\t200\n",
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError) as told:
            read_events(tmp_path / name)
        assert name in str(told.value)
        assert "\n" not in str(told.value)
    with pytest.raises(DataError, match="no such file"):
        read_events(tmp_path / "none.txt")
    with pytest.raises(DataError, match="'elan' is not a kind"):
        read_events(tmp_path / "a.txt", kind="elan")
    with pytest.raises(DataError, match="ending stands for no format"):
        write_events(event_table([]), tmp_path / "x.labels")


def test_written_times_are_what_other_programs_read(tmp_path):
    """Plain decimals without exponents, rounded correctly: `float` of Python and C agree."""
    rng = np.random.default_rng(0)
    values = np.sort(rng.random((200, 2)) * 10.0 ** rng.integers(-8, 8, (200, 1)), axis=1)
    rows = [{"file": "a", "onset": a, "offset": b, "label": "x"} for a, b in values]
    write_events(event_table(rows), tmp_path / "x.txt")
    text = (tmp_path / "x.txt").read_text()
    assert "e" not in text
    assert np.array_equal(
        np.sort(np.loadtxt(tmp_path / "x.txt", usecols=(0, 1)), axis=0), np.sort(values, axis=0)
    )
