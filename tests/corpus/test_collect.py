"""A corpus out of made-up packages: what is kept, what is not, and that it comes out the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from typer.testing import CliRunner

from ossicle.audio import info
from ossicle.benchmark.build import build_task
from ossicle.benchmark.packages import PACKAGES, Package, Packages
from ossicle.benchmark.recipe import Recipe
from ossicle.cli_data import data
from ossicle.corpus import clean, recordings
from ossicle.corpus.collect import collect
from ossicle.corpus.package_list import CORPUS_PACKAGES
from ossicle.corpus.pinned import PinnedPackages
from ossicle.corpus.sources import SOURCES
from ossicle.datasets.clips import read_clips
from ossicle.errors import DataError, DownloadError, OssicleError

RATE = 16000


def song(seed: int, seconds: float) -> np.ndarray:
    """Notes that are drawn, each a decaying tone with overtones."""
    rng = np.random.default_rng(seed)
    out = np.zeros(round(seconds * RATE))
    for start in np.arange(0.0, seconds, 0.11):
        first = round(start * RATE)
        t = np.arange(min(RATE // 3, len(out) - first)) / RATE
        f = rng.uniform(150, 1500)
        tone = sum(np.sin(2 * np.pi * f * k * t) / k for k in (1, 2, 3))
        out[first : first + len(t)] += rng.uniform(0.3, 1) * np.exp(-9 * t) * tone
    return 0.3 * out / np.abs(out).max()


def put(root: Path, package: str, name: str, samples: np.ndarray) -> Path:
    """A file of a package that looks unpacked."""
    folder = root / "packages" / package
    path = folder / "usr/share" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"package": package, "version": "1.0", "sha256": "a" * 64}
    (folder / ".package.json").write_text(json.dumps(about))
    soundfile.write(path, samples, RATE)
    return path


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three packages, a fourth that is not to be had, a set that is measured, and a built task."""
    monkeypatch.setenv("OSSICLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OSSICLE_OFFLINE", "1")
    monkeypatch.setattr(recordings, "RECORDED", ("one", "other", "third", "gone"))
    for name, licence in (("one", "GPL-2+"), ("other", "CC0-1.0"), ("third", "CC0-1.0")):
        monkeypatch.setitem(CORPUS_PACKAGES, name, Package("1.0", 1.0, licence, "a" * 64))
    root = tmp_path / "data"
    put(root, "one", "sounds/door_open.wav", song(0, 3))
    put(root, "one", "music/long.wav", song(1, 130))
    put(root, "one", "sounds/short.wav", song(2, 0.1))
    put(root, "one", "sounds/quiet.wav", np.full(RATE, 1e-5))
    put(root, "one", "sounds/text.wav", song(3, 1)).write_text("no sound")
    # the same bytes, the same sound in another format, a part of it
    put(root, "other", "sounds/b_door.wav", song(0, 3))
    put(root, "other", "sounds/c.wav", song(4, 6))
    put(root, "other", "sounds/d.ogg", 0.4 * song(4, 6))
    put(root, "other", "sounds/e.wav", song(4, 6)[RATE : 3 * RATE])
    # what is measured: a file whose tail is in the set, and one that is in the task
    put(root, "third", "sounds/f.wav", song(5, 6))
    put(root, "third", "sounds/g.wav", song(6, 3))
    put(root, "third", "sounds/h.wav", song(7, 3))
    tested = tmp_path / "measured"
    tested.mkdir()
    soundfile.write(tested / "x.ogg", 0.5 * song(5, 6)[3 * RATE :], RATE)
    (tested / "notes.txt").write_text("no sound")
    for i in range(4):
        put(root, "of-the-suite", f"{i}.wav", song(6, 3) if i == 0 else song(90 + i, 2))
    monkeypatch.setitem(PACKAGES, "of-the-suite", Package("1.0", 1.0, "CC0-1.0", "a" * 64))
    build_task(Recipe("tones", "music", "which", ("of-the-suite",), "CC0-1.0", "", _task), root)
    return root


def _task(packages: Packages, folder: Path, progress: Any) -> pd.DataFrame:
    rows = [
        (str(path), "ab"[i % 2], f"g{i}", ("train", "test")[i // 2])
        for i, path in enumerate(packages.audio("of-the-suite"))
    ]
    return pd.DataFrame(rows, columns=["path", "label", "group", "part"])


def made(root: Path, **options: Any) -> tuple[pd.DataFrame, dict[str, Any]]:
    options = {"sources": ("packages",), "evaluation": [root.parent / "measured"]} | options
    corpus = collect(root / "corpus", data=root, **options)
    about = json.loads((root / "corpus" / "corpus.json").read_text())
    return pd.read_csv(corpus.manifest), about


def test_what_is_kept(root: Path) -> None:
    rows, about = made(root)
    kept = rows["path"].str.rsplit("/", n=1).str[-1]
    assert sorted(set(kept)) == ["c.wav", "door_open.wav", "h.wav", "long.wav"]
    assert list(rows.columns) == [
        *("path", "label", "group", "package", "version", "licence", "kind", "onset", "offset")
    ]
    long = rows[kept == "long.wav"]
    assert list(long["onset"]) == pytest.approx([0, 130 / 3, 260 / 3], abs=1e-3)
    assert list(long["offset"]) == pytest.approx([130 / 3, 260 / 3, 130], abs=1e-3)
    assert set(long["kind"]) == {"music"} and set(long["label"]) == {"package:one;sound:music"}
    assert list(rows["label"][kept == "door_open.wav"]) == ["package:one;sound:door"]
    assert about["clips"] == len(rows) == 6
    assert about["hours"] == pytest.approx((130 + 3 + 6 + 3) / 3600)
    licences = {"GPL-2+": 133 / 3600, "CC0-1.0": 9 / 3600}
    assert about["by_licence"] == pytest.approx(licences, abs=1e-5)
    kinds = {"music": 130 / 3600, "effects": 12 / 3600}
    assert about["by_kind"] == pytest.approx(kinds, abs=1e-5)


def test_what_is_left_out_and_why(root: Path) -> None:
    _, about = made(root)
    why = {Path(path.split(" (")[0]).name: reason for path, reason in about["left_out"]}
    assert why.pop("gone").startswith("not to be had: OSSICLE_OFFLINE forbids")
    assert why["short.wav"] == "is shorter than 0.2 s"
    assert why["quiet.wav"] == "is silent"
    assert "not an audio file" in why["text.wav"]
    assert why["b_door.wav"].startswith("is the same file as ")
    assert why["b_door.wav"].endswith("one/usr/share/sounds/door_open.wav")
    assert "sounds like" in why["d.ogg"] and why["d.ogg"].endswith("c.wav")
    assert why["e.wav"].endswith("c.wav")
    assert why["f.wav"].endswith("measured/x.ogg of measured")
    assert why["g.wav"].endswith("of-the-suite/usr/share/0.wav of tones")
    assert len(why) == 8
    assert about["evaluation"] == {"tones": 4, "measured": 1}
    assert about["near_copies"] == {"tones": 1, "measured": 1}
    assert sum(about["reasons"].values()) == 9
    assert about["reasons"]["near-copy of another clip"] == 2


def test_a_copy_in_part_takes_the_whole_file(root: Path) -> None:
    soundfile.write(root.parent / "measured" / "y.wav", song(1, 130)[100 * RATE : 105 * RATE], RATE)
    rows, about = made(root)
    assert not rows["path"].str.endswith("long.wav").any()
    assert sum("y.wav" in reason for _, reason in about["left_out"]) == 3
    assert about["near_copies"]["measured"] == 2


def test_without_evaluation_folders_only_built_tasks_count(root: Path) -> None:
    rows, about = made(root, evaluation=[])
    assert rows["path"].str.endswith("f.wav").any()
    assert list(about["evaluation"]) == ["tones"]


def test_read_clips_reads_it(root: Path) -> None:
    made(root)
    clips = read_clips(root / "corpus" / "corpus.csv", labels="multilabel")
    assert clips.task == "multilabel" and len(clips) == 6
    assert {"package:one", "sound:door"} <= set(clips.classes)
    assert set(clips.groups()) == {"one", "other", "third"}
    assert all(info(path).sample_rate == RATE for path in clips.table["path"])


def test_paths_are_relative_where_the_data_lies_around_it(root: Path) -> None:
    rows, _ = made(root)
    assert all(not Path(path).is_absolute() for path in rows["path"])
    elsewhere = collect(root.parent / "far", data=root, sources=("packages",))
    assert all(Path(path).is_absolute() for path in pd.read_csv(elsewhere.manifest)["path"])


def test_again_it_is_the_same_and_nothing_is_heard_twice(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(root)
    first = (root / "corpus" / "corpus.csv").read_bytes()
    monkeypatch.setattr(clean, "hear", lambda stretch: pytest.fail(f"{stretch} is heard again"))
    made(root)
    assert (root / "corpus" / "corpus.csv").read_bytes() == first


def test_a_damaged_store_is_heard_anew(root: Path) -> None:
    made(root)
    first = (root / "corpus" / "corpus.csv").read_bytes()
    for path in (root / "corpus" / ".prints").iterdir():
        path.write_bytes(path.read_bytes()[:50])
    made(root)
    assert (root / "corpus" / "corpus.csv").read_bytes() == first


def test_a_stop_leaves_the_old_corpus(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(root)
    first = (root / "corpus" / "corpus.csv").read_bytes()
    monkeypatch.setattr(clean, "confirmed", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        made(root, seed=1)
    assert (root / "corpus" / "corpus.csv").read_bytes() == first


def test_windows_and_seed(root: Path) -> None:
    rows, about = made(root, windows=3)
    span = rows["offset"] - rows["onset"]
    assert about["windows"] == 3
    assert span.dropna().sum() <= 12.01
    other, _ = made(root, windows=3, seed=1)
    assert not rows["onset"].equals(other["onset"])


@pytest.mark.parametrize("hours", [0.002, 0.01, 1.0])
def test_hours(root: Path, hours: float) -> None:
    rows, about = made(root, hours=hours)
    assert len(rows) and about["hours"] <= hours


def test_a_source_that_renders(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(folder: Path, packages: Packages, seed: int, progress: Any) -> pd.DataFrame:
        folder.mkdir(parents=True, exist_ok=True)
        rows = []
        for i in range(3):
            path = folder / f"{i}.wav"
            soundfile.write(path, song(70 + i, 1 + seed), RATE)
            rows.append(
                (path.name if i else str(path), f"pitch:{60 + i}", "bank", "bank", "1", "GPL-3+")
            )
        columns = ["path", "label", "group", "package", "version", "licence"]
        return pd.DataFrame(rows, columns=columns)

    monkeypatch.setitem(SOURCES, "notes", write)
    rows, about = made(root, sources=("notes", "packages"), seed=1)
    assert about["by_kind"]["notes"] == pytest.approx(6 / 3600, abs=1e-5)
    assert next(iter(rows["path"][rows["kind"] == "notes"])) == "notes/0.wav"
    alone, _ = made(root, sources=("notes",), seed=1, hours=5 / 3600)
    assert len(alone) == 2


def test_an_instrument_that_is_measured_goes_altogether(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(folder: Path, packages: Packages, seed: int, progress: Any) -> pd.DataFrame:
        folder.mkdir(parents=True, exist_ok=True)
        rows = []
        # the first is in the measured set
        for i, (note, group) in enumerate(((5, "a:1"), (80, "a:1"), (81, "a:2"))):
            soundfile.write(folder / f"{i}.wav", song(note, 6), RATE)
            rows.append((f"{i}.wav", f"pitch:{60 + i}", group, "one", "1.0", "GPL-2+"))
        columns = ["path", "label", "group", "package", "version", "licence"]
        return pd.DataFrame(rows, columns=columns)

    for name in ("notes", "tunes"):
        monkeypatch.setitem(SOURCES, name, write)
    rows, about = made(root, sources=("notes",))
    assert list(rows["path"]) == ["notes/2.wav"]
    assert [package["package"] for package in about["packages"]] == ["one"]
    assert about["reasons"] == {
        "near-copy of an evaluation set": 1,
        "of an instrument that an evaluation set has": 1,
    }
    rows, _ = made(root, sources=("tunes",))
    assert list(rows["path"]) == ["tunes/1.wav", "tunes/2.wav"]


def test_errors(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OssicleError, match="no source is called 'loops'; there are packages"):
        made(root, sources=("loops",))
    (root / "empty").mkdir()
    with pytest.raises(DataError, match="holds no audio"):
        made(root, evaluation=[root / "empty"])
    with pytest.raises(DataError, match="is no folder"):
        made(root, evaluation=[root / "nowhere"])
    with pytest.raises(OssicleError, match="more than 0 hours"):
        made(root, hours=0.0)
    monkeypatch.setattr(recordings, "RECORDED", ("gone",))
    with pytest.raises(DataError, match="no source has audio for a corpus; gone: not to be had"):
        made(root)


def test_a_package_with_another_checksum_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSSICLE_CACHE", str(tmp_path))
    version = CORPUS_PACKAGES["zaz-data"].version
    (tmp_path / "debs").mkdir()
    (tmp_path / "debs" / f"zaz-data_{version}_all.deb").write_bytes(b"!<arch>\n")
    with pytest.raises(DownloadError, match="SHA-256 is .*, expected .*; it is not used"):
        PinnedPackages(tmp_path / "packages").files("zaz-data")


def test_pins_tell_the_licence(root: Path) -> None:
    about = PinnedPackages(root / "packages").about("one")
    assert (about["licence"], about["note"]) == ("GPL-2+", "")
    CORPUS_PACKAGES["one"] = CORPUS_PACKAGES["one"]._replace(version="2.0")
    note = PinnedPackages(root / "packages").about("one")["note"]
    assert note == "one 1.0 is used, not 2.0: clips may differ"


def test_command(root: Path) -> None:
    arguments = ["corpus", "--data", str(root), "--source", "packages", "--workers", "1"]
    arguments += ["--evaluation", str(root.parent / "measured")]
    done = CliRunner().invoke(data, arguments, catch_exceptions=False)
    lines = done.stdout.splitlines()
    assert lines[0] == "corpus: 6 clips of 4 files, 2.4 min"
    assert "  kind music: 2.2 min" in lines
    assert "  licence GPL-2+: 2.2 min" in lines
    assert "  package one: 2.2 min" in lines
    assert "  compared with: tones, measured" in lines
    assert "  files like a clip of an evaluation set: tones 1, measured 1" in lines
    assert lines[-1] == f"  manifest: {root / 'corpus' / 'corpus.csv'}"
    done = CliRunner().invoke(data, [*arguments, "--json"], catch_exceptions=False)
    told = json.loads(done.stdout)
    assert told["clips"] == 6 and told["near_copies"] == {"tones": 1, "measured": 1}
    assert "6 clips" in done.stderr
