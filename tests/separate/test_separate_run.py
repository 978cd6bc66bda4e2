"""`ossicle separate run`: many files, names, tables, stops, and what goes wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import typer
from fixed_separators import RATE, Filters, Voices
from typer.testing import CliRunner

from ossicle import bundle
from ossicle.audio import load
from ossicle.cli_separate import run
from ossicle.datasets.unlabelled import unlabelled_clips
from ossicle.errors import DataError, OssicleError
from ossicle.separators.long_files import separate_array
from ossicle.separators.many_files import RunSettings, separate_files
from ossicle.separators.output_names import output_paths, relative_names


def noise(n: int, channels: int = 1, seed: int = 0, level: float = 0.1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, channels)) * level


@pytest.fixture
def recordings(tmp_path) -> Path:
    folder = tmp_path / "in"
    (folder / "night").mkdir(parents=True)
    soundfile.write(folder / "a.wav", noise(30_000), RATE)
    soundfile.write(folder / "night" / "b.flac", noise(50_001, 2, 1), 16000, "PCM_24")
    (folder / "broken.wav").write_bytes(b"RIFF, or so it says")
    soundfile.write(folder / "loud.wav", np.sign(noise(20_000, 1, 2)) * 0.99, RATE)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """All results; the record and the journal hold times and places."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("run.json", "journal.jsonl")
    }


def separate(recordings, out, separator=None, settings=None, **keywords):
    listed = recordings if isinstance(recordings, list) else [recordings]
    return separate_files(
        separator or Filters(), unlabelled_clips(listed), out, settings, **keywords
    )


def test_a_folder_gives_named_files_a_table_and_the_errors(recordings, tmp_path):
    out = tmp_path / "out"
    ticks = []
    made = separate(recordings, out, progress=ticks.append, workers=2)
    assert (made.recordings, made.done, made.resumed, made.files) == (4, 4, 0, 6)
    table = pd.read_csv(out / "separated.csv")
    assert list(table.columns) == [
        *("file", "source", "path", "duration_s", "gain_db", "energy_share", "notes")
    ]
    assert set(table["path"]) == {
        *("a_low.wav", "a_high.wav", "loud_low.wav", "loud_high.wav"),
        *("night/b_low.wav", "night/b_high.wav"),
    }
    for _, row in table.iterrows():
        about = soundfile.info(out / row["path"])
        before = soundfile.info(recordings / row["file"])
        assert about.frames / about.samplerate == row["duration_s"] == before.duration
        assert (about.channels, about.subtype) == (before.channels, before.subtype)
        samples = load(recordings / row["file"], mono=False)
        source = separate_array(Filters(), samples)[["low", "high"].index(row["source"])]
        gain = 10 ** (row["gain_db"] / 20)
        written = load(out / row["path"], mono=False).samples
        np.testing.assert_allclose(written, gain * source, atol=2**-15.9)
    shares = table.groupby("file")["energy_share"].sum()
    np.testing.assert_allclose(shares, 1, atol=2e-6)
    loud = table[table["file"] == "loud.wav"]
    assert (loud["gain_db"] < -0.1).all()
    assert loud["notes"].str.contains("turned down").all()
    assert (table[table["file"] == "a.wav"]["gain_db"] == 0).all()
    errors = pd.read_csv(out / "errors.csv")
    assert errors[["file", "status"]].to_numpy().tolist() == [["broken.wav", "failed"]]
    assert ticks[-1].files == 4
    heard = 30_000 / RATE + 50_001 / 16000 + 20_000 / RATE
    assert ticks[-1].seconds == pytest.approx(made.seconds) == pytest.approx(heard)
    assert json.loads((out / "run.json").read_text())["parameters"] == made.parameters
    taken = list(made.taken())
    assert [one.name for one in taken] == ["a.wav", "loud.wav", "night/b.flac"]
    assert taken[2].after["high"] == out / "night" / "b_high.wav"


def test_workers_change_no_byte(recordings, tmp_path):
    for workers in (1, 3):
        separate(recordings, tmp_path / str(workers), workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "3")


def test_what_is_done_is_not_done_again_unless_something_changed(recordings, tmp_path):
    out = tmp_path / "out"
    separate(recordings, out)
    first = contents(out)
    again = separate(recordings, out)
    assert (again.done, again.resumed) == (0, 4)
    assert contents(out) == first
    # Touched, but the same; then changed; then a result is gone; then other settings.
    os.utime(recordings / "a.wav")
    assert separate(recordings, out).done == 0
    soundfile.write(recordings / "a.wav", noise(8000, seed=7), RATE)
    assert separate(recordings, out).done == 1
    assert soundfile.info(out / "a_low.wav").frames == 8000
    (out / "night" / "b_low.wav").unlink()
    assert separate(recordings, out).done == 1
    assert contents(out)["night/b_low.wav"] == first["night/b_low.wav"]
    masked = Filters()
    masked.mask = "soft"
    assert separate(recordings, out, masked).done == 4
    assert separate(recordings, out, masked).done == 0
    assert separate(recordings, out, settings=RunSettings(band="model")).done == 4
    assert contents(out)["night/b_low.wav"] != first["night/b_low.wav"]
    assert separate(recordings, out).done == 4
    assert contents(out)["night/b_low.wav"] == first["night/b_low.wav"]


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from fixed_separators import Filters
from ossicle.datasets.unlabelled import unlabelled_clips
from ossicle.separators.many_files import separate_files

class Dying(Filters):
    heard = 0

    def separate(self, samples, n_sources=None):
        Dying.heard += 1
        if Dying.heard == int(sys.argv[4]):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().separate(samples)

Dying.__name__ = "Filters"
separate_files(Dying(), unlabelled_clips([sys.argv[2]]), sys.argv[3])
"""


@pytest.mark.parametrize("at", [2, 5])
def test_killed_and_gone_on_with_it_is_the_same_bytes(recordings, tmp_path, at):
    separate(recordings, tmp_path / "whole")
    out = tmp_path / "out"
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), recordings, out, str(at)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    assert list((out / ".in_work").iterdir())
    assert not (out / "separated.csv").exists()
    # What was being written into the journal is cut off anywhere.
    with (out / "journal.jsonl").open("ab") as file:
        file.write(b'{"path": "hal')
    made = separate(recordings, out)
    assert made.resumed == (0 if at == 2 else 2)
    assert contents(out) == contents(tmp_path / "whole")
    assert not (out / ".in_work").exists()


def test_stopped_by_hand_it_ends_at_once_and_leaves_no_halves(recordings, tmp_path):
    soundfile.write(recordings / "a.wav", noise(100 * RATE), RATE)
    out, after = tmp_path / "out", []

    def stop(tick):
        """The first recording to be done, a broken one, stops the long one beside it."""
        if tick.files:
            after.append(tick)
            if len(after) == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        separate(recordings, out, progress=stop, workers=2)
    assert len(after) < 8
    assert not list(out.rglob("*.part"))
    assert not (out / "a_low.wav").exists()


@pytest.mark.parametrize("kind", ["wav", "flac"])
def test_one_source_with_an_ending_of_its_own(recordings, tmp_path, kind):
    settings = RunSettings(keep=("low",), endings=("clean",), kind=kind)
    made = separate(recordings / "a.wav", tmp_path / "out", settings=settings)
    assert made.files == 1
    assert list(contents(tmp_path / "out")) == [f"a_clean.{kind}", "separated.csv"]
    both = RunSettings(keep=("high", "low"), endings=("above", "below"))
    separate(recordings / "a.wav", tmp_path / "both", settings=both)
    separate(recordings / "a.wav", tmp_path / "named")
    files, named = contents(tmp_path / "both"), contents(tmp_path / "named")
    assert files["a_above.wav"] == named["a_high.wav"]
    assert files["a_below.wav"] == named["a_low.wav"]
    with pytest.raises(OssicleError, match="no source 'bass'"):
        separate(recordings, tmp_path / "out", settings=RunSettings(keep=("bass",)))


def test_sources_without_names_are_numbered(recordings, tmp_path):
    separate([recordings / "night" / "b.flac"], tmp_path / "out", Voices())
    assert set(contents(tmp_path / "out")) == {"b_1.wav", "b_2.wav", "separated.csv"}


def test_recordings_and_foreign_files_are_never_written_over(recordings, tmp_path):
    soundfile.write(recordings / "a_low.wav", noise(800), RATE)
    before = contents(recordings)
    with pytest.raises(DataError, match=r"a_low\.wav: is a recording"):
        separate([recordings / "a.wav", recordings / "a_low.wav"], recordings)
    with pytest.raises(DataError, match=r"a_low\.wav: is there already"):
        separate([recordings / "a.wav"], recordings)
    assert contents(recordings) == before


def test_results_beside_the_recordings_are_no_recordings_the_next_time(recordings, tmp_path):
    first = separate(recordings, recordings)
    again = separate(recordings, recordings)
    assert (first.recordings, again.recordings, again.resumed, again.skipped) == (4, 4, 4, 6)
    other = separate(recordings, recordings, settings=RunSettings(band="model"))
    assert (other.recordings, other.done) == (4, 4)
    below = separate(recordings, recordings / "sub")
    assert below.recordings == 10, "results of another folder are recordings like any others"


def test_names(tmp_path):
    root = Path("/data/in")
    paths = ["/data/in/a.wav", "/data/in/n/a.wav", "/data/in/n/A.flac", "/data/in/c d.wav"]
    names = relative_names(paths, root)
    assert [str(name) for name in names] == ["a.wav", "n/a.wav", "n/A.flac", "c d.wav"]
    planned = output_paths(names, Path("o"), ["speech", "../rain/x"], "wav")
    assert [[str(p) for p in outputs] for outputs in planned] == [
        ["o/a_speech.wav", "o/a_rain_x.wav"],
        ["o/n/a.wav_speech.wav", "o/n/a.wav_rain_x.wav"],
        ["o/n/A.flac_speech.wav", "o/n/A.flac_rain_x.wav"],
        ["o/c d_speech.wav", "o/c d_rain_x.wav"],
    ]
    # Outside of the first one's folder: the deepest that holds all, else the names alone.
    assert [str(n) for n in relative_names(["/d/x/a.wav", "/d/y/a.wav"], Path("/d/x"))] == [
        "x/a.wav",
        "y/a.wav",
    ]
    assert [str(n) for n in relative_names(["/d/a.wav", "/e/b.wav"], Path("/d"))] == [
        "a.wav",
        "b.wav",
    ]
    assert [str(n) for n in relative_names(["/d/a.wav", "/e/a.wav"], Path("/d"))] == [
        "d/a.wav",
        "e/a.wav",
    ]
    assert output_paths([Path("a.wav")], Path(), ["?", "!"], "flac") == [
        [Path("a_1.flac"), Path("a_2.flac")]
    ]
    with pytest.raises(DataError, match=r"would both give a_b_c\.wav"):
        output_paths([Path("a.wav"), Path("a_b.wav")], Path(), ["b_c", "c"], "wav")


def test_flac_that_cannot_hold_it_fails_alone(recordings, tmp_path):
    soundfile.write(recordings / "wide.wav", noise(900, 9), RATE)
    made = separate(recordings, tmp_path / "out", settings=RunSettings(kind="flac"))
    reasons = {file: reason for file, _, reason in made.problems}
    assert set(reasons) == {"broken.wav", "wide.wav"}
    assert "8 channels" in reasons["wide.wav"]


def test_parts_of_recordings_and_bad_settings_are_refused(recordings, tmp_path):
    (tmp_path / "list.csv").write_text("path,onset,offset\nin/a.wav,0,1\n")
    with pytest.raises(DataError, match="whole recordings"):
        separate(tmp_path / "list.csv", tmp_path / "out")
    with pytest.raises(OssicleError, match="format"):
        separate(recordings, tmp_path / "out", settings=RunSettings(kind="mp3"))
    with pytest.raises(OssicleError, match="not 3"):
        separate(recordings, tmp_path / "out", settings=RunSettings(n_sources=3))
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be made"):
        separate(recordings, tmp_path / "file")


# The command.


@pytest.fixture
def command(monkeypatch):
    """Runs the verb with a separator in the place of a bundle's: (result, lines)."""

    def call(separator, *arguments):
        monkeypatch.setattr(bundle, "load_separator", lambda path: separator)
        app = typer.Typer()
        app.command()(run)
        return CliRunner().invoke(app, ["x.ossicle", *map(str, arguments)])

    return call


def test_the_command_tells_what_it_did(recordings, tmp_path, command):
    out = tmp_path / "out"
    done = command(Filters(), recordings, "-o", out, "--no-report", "--workers", 1)
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0].startswith("failed: broken.wav: ")
    assert "1 recording turned down so that nothing clips (gain_db)" in lines
    assert lines[-1] == f"6 files of 3 recordings (0 min 09 s): {out}/separated.csv"
    done = command(Filters(), recordings, "-o", out, "--no-report", "--json")
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["files"] == 6
    assert (told["recordings"], told["failed"], told["resumed"]) == (4, 1, 4)


def test_the_page_has_the_recordings(recordings, tmp_path, command):
    out = tmp_path / "out"
    done = command(Filters(), recordings / "a.wav", "-o", out)
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-1] == f"to look and listen: {out}/report.html"
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "a.wav" in page
    assert "high" in page


def test_the_command_has_the_masks_sources_and_formats(recordings, tmp_path, command):
    night = recordings / "night" / "b.flac"
    out = ("-o", tmp_path / "out", "--no-report")
    assert "one kind of mask" in str(command(Voices(), night, *out, "--mask", "soft").exception)
    masked = Voices()
    masked.mask = "binary"
    assert "no mask" in str(command(masked, night, *out, "--mask", "hard").exception)
    arguments = (*out, "--mask", "soft", "--speakers", 2, "--only", "2", "--format", "flac")
    done = command(masked, night, *arguments)
    assert done.exit_code == 0, done.output
    assert masked.mask == "soft"
    assert list(contents(tmp_path / "out")) == ["b_2.flac", "separated.csv"]


def test_nothing_usable_is_an_error(recordings, tmp_path, command):
    done = command(Filters(), recordings / "broken.wav", "-o", tmp_path / "out")
    assert isinstance(done.exception, OssicleError)
    assert "none of the 1 recordings" in str(done.exception)
