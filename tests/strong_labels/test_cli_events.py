"""`ossicle events`: convert and count."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from typer.testing import CliRunner

from ossicle.cli_events import events_app
from ossicle.datasets.strong import ENDINGS, KINDS, read_events, read_label_file, write_events
from ossicle.errors import OssicleError
from ossicle.events import event_table

EVENTS = event_table(
    [
        {"file": "yard/a.wav", "onset": 0.1, "offset": 1 / 3, "label": "dog bark"},
        {"file": "yard/a.wav", "onset": 0.5, "offset": 1.0, "label": "10"},
        {"file": "b.wav", "onset": 2.0, "offset": 3.0, "label": "dog bark"},
    ]
)
LABELS = ["onset", "offset", "label"]


def run(*arguments: object) -> str:
    done = CliRunner().invoke(events_app, [*map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("first", [kind for kind in KINDS if kind != "audacity"])
@pytest.mark.parametrize("second", [kind for kind in KINDS if kind != "audacity"])
def test_any_format_into_any(tmp_path, first, second):
    source, target = tmp_path / f"in{ENDINGS[first]}", tmp_path / "out.x"
    write_events(EVENTS, source, kind=first)
    told = run("convert", source, "-o", target, "--kind", second)
    assert told == f"3 events of 2 recordings: {target}\n"
    found = read_events(target, kind=second)
    pd.testing.assert_frame_equal(found[["file", *LABELS]], EVENTS[["file", *LABELS]])


def test_one_table_into_a_file_a_recording_and_back(tmp_path):
    source, folder = tmp_path / "all.csv", tmp_path / "labels"
    write_events(EVENTS, source, files=["yard/a.wav", "b.wav", "silent.wav"])
    told = json.loads(run("convert", source, "-o", folder, "--kind", "audacity", "--json"))
    assert (told["events"], told["recordings"]) == (3, 3)
    written = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.txt"))
    assert written == ["b.txt", "silent.txt", "yard/a.txt"]
    assert read_events(folder / "yard/a.txt")[LABELS].values.tolist() == [
        [0.1, 1 / 3, "dog bark"],
        [0.5, 1.0, "10"],
    ]
    assert (folder / "silent.txt").read_text() == ""
    files = [folder / name for name in ("yard/a.txt", "b.txt", "silent.txt")]
    run("convert", *files, "-o", tmp_path / "back.tsv")
    found = read_label_file(tmp_path / "back.tsv")
    assert found.files() == ["a", "b", "silent"]
    assert found.events()[LABELS].values.tolist() == EVENTS[LABELS].values.tolist()


def test_recordings_of_whole_paths_and_equal_names(tmp_path):
    rows = [
        {"file": f"/data/{name}", "onset": 0, "offset": 1, "label": "x"}
        for name in ("one/a.wav", "two/a.wav")
    ]
    write_events(event_table(rows), tmp_path / "all.csv")
    run("convert", tmp_path / "all.csv", "-o", tmp_path / "out", "--kind", "rttm")
    written = sorted(p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("*.rttm"))
    assert [str(path) for path in written] == ["one/a.rttm", "two/a.rttm"]
    rows[1]["file"] = "/data/one/a.flac"
    write_events(event_table(rows), tmp_path / "all.csv")
    with pytest.raises(OssicleError, match=r"/data/one/a\.flac: another recording has the same"):
        run("convert", tmp_path / "all.csv", "-o", tmp_path / "again", "--kind", "rttm")
    rows[1]["file"] = "../a.wav"
    write_events(event_table([rows[1]]), tmp_path / "all.csv")
    run("convert", tmp_path / "all.csv", "-o", tmp_path / "third", "--kind", "rttm")
    assert [p.name for p in (tmp_path / "third").iterdir()] == ["a.rttm"]


def test_labels_and_columns_can_be_given(tmp_path):
    table = tmp_path / "song.selections.txt"
    table.write_text(
        "Begin Time (s)\tEnd Time (s)\tSpecies\tCall\n1\t2\tcrow\talarm\n3\t4\t\tsong\n"
    )
    out = tmp_path / "out.csv"
    run("convert", table, "-o", out, "--label", "unknown", "--recording", "song.wav")
    assert read_events(out).iloc[:, :4].values.tolist() == [
        ["song.wav", 1.0, 2.0, "crow"],
        ["song.wav", 3.0, 4.0, "unknown"],
    ]
    run("convert", table, "-o", out, "--label-column", "Call", "--from", "raven")
    assert read_events(out)["label"].tolist() == ["alarm", "song"]


def test_weak_labels_are_left_out_and_told(tmp_path):
    (tmp_path / "x.csv").write_text("file,onset,offset,label\na.wav,0,1,dog\nb.wav,,,cat\n")
    told = run("convert", tmp_path / "x.csv", "-o", tmp_path / "x.rttm")
    assert "note: 1 recordings with labels without times left out" in told
    assert read_events(tmp_path / "x.rttm")["file"].tolist() == ["a.wav"]


def test_counts(tmp_path):
    (tmp_path / "x.csv").write_text(
        "file,onset,offset,label\na,0,1.5,dog\nb,2,4,dog\nb,0,0.25,cat\nc,,,\nd,,,owl\n"
    )
    assert run("count", tmp_path / "x.csv").splitlines() == [
        "cat: 1 events, 0.2 s, 1 recordings",
        "dog: 2 events, 3.5 s, 2 recordings",
        "3 events of 4 recordings, 1 without any, 1 with labels without times",
    ]
    told = json.loads(run("count", tmp_path / "x.csv", "--json"))
    assert told["labels"]["dog"] == {"events": 2, "seconds": 3.5, "recordings": 2}
    assert (told["without_events"], told["weak"]) == (1, 1)


def test_mistakes_are_told(tmp_path):
    source = tmp_path / "x.csv"
    write_events(EVENTS, source)
    for arguments, told in {
        (source, "-o", tmp_path): "is a folder; say the kind with --kind",
        (source, "-o", tmp_path / "y", "--kind", "elan"): "--kind elan: there are audacity",
        (source, "-o", tmp_path / "y.txt"): "one recording, these events of 2",
        (source, "-o", tmp_path / "no/y.csv"): "the folder .*no does not exist",
        (source, source, "-o", tmp_path / "y.csv", "--recording", "a"): "names one recording",
        (tmp_path / "z.csv", "-o", tmp_path / "y.csv"): "no such file",
    }.items():
        with pytest.raises(OssicleError, match=told):
            run("convert", *arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]
