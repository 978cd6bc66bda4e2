"""Recipes built: what is left out and named, what is refused, what a second build does."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from ossicle import audio
from ossicle.benchmark import build as build_module
from ossicle.benchmark.build import build_task, megabytes, read_about, read_built
from ossicle.benchmark.packages import Package, Packages
from ossicle.benchmark.recipe import Recipe
from ossicle.datasets.clips import read_clips
from ossicle.errors import DataError
from ossicle.record import write_json

RATE = 8000
SOURCE = "tiny-sounds"


def tone(hz: float, seconds: float = 0.25, seed: int = 0) -> np.ndarray:
    t = np.arange(round(RATE * seconds)) / RATE
    noise = np.random.default_rng(seed).normal(size=len(t))
    return (0.3 * np.sin(2 * np.pi * hz * t) + 0.01 * noise).astype(np.float32)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with a package unpacked: two classes of six tones."""
    monkeypatch.setenv("OSSICLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OSSICLE_OFFLINE", "1")
    root = tmp_path / "data"
    sounds = root / "packages" / SOURCE / "usr" / "share"
    sounds.mkdir(parents=True)
    for k, (name, hz) in enumerate((("high", 2000), ("low", 200))):
        for i in range(6):
            soundfile.write(sounds / f"{name}{i}.wav", tone(hz, seed=10 * k + i), RATE)
    about = {"package": SOURCE, "version": "1.0", "sha256": "a" * 64}
    (root / "packages" / SOURCE / ".package.json").write_text(json.dumps(about))
    return root


def by_name(packages: Packages, folder: Path, progress: Any, column: str = "part") -> pd.DataFrame:
    """high0, high1 -> group g0, ...; two groups a part, or three folds."""
    rows = []
    for path in packages.audio(SOURCE):
        number = int(path.stem[-1])
        value = ("train", "valid", "test")[number // 2] if column == "part" else f"f{number // 2}"
        rows.append((str(path), re.sub(r"\d|_.*", "", path.stem), f"g{number}", value))
    return pd.DataFrame(rows, columns=["path", "label", "group", column])


by_fold = functools.partial(by_name, column="fold")


def recipe(build: Callable[..., pd.DataFrame] = by_name, **changed: Any) -> Recipe:
    made = Recipe("tones", "environment", "high or low", (SOURCE,), "CC0-1.0", "none known", build)
    return replace(made, **changed)


def sounds_of(root: Path) -> Path:
    return root / "packages" / SOURCE / "usr" / "share"


def test_what_is_written(root: Path) -> None:
    built = build_task(recipe(), root)
    assert built.fresh
    about = built.about
    assert about == read_about(root, "tones") == json.loads((root / "tones.json").read_text())
    assert about["clips"] == 12
    assert about["classes"] == {"high": 6, "low": 6}
    assert about["parts"] == {"test": 4, "train": 4, "valid": 4}
    assert about["groups"] == 6
    assert about["hours"] == pytest.approx(12 * 0.25 / 3600, rel=1e-9)
    assert about["left_out"] == []
    assert [p["sha256"] for p in about["packages"]] == ["a" * 64]
    assert about["notes"] == [f"{SOURCE} 1.0 is used; no version of it is pinned"]
    assert (about["licence"], about["caveat"]) == ("CC0-1.0", "none known")
    assert sorted(p.name for p in root.iterdir() if p.is_file()) == ["tones.csv", "tones.json"]


def test_round_trip(root: Path) -> None:
    build_task(recipe(), root)
    data = read_built(root, "tones")
    clips = read_clips(root / "tones.csv")
    assert data.clips.classes == clips.classes == ("high", "low")
    assert list(data.clips.table["path"]) == list(clips.table["path"])
    assert list(data.clips.y()) == list(clips.y())
    assert list(data.clips.groups()) == list(clips.groups())
    (fold,) = data.folds
    for k, part in enumerate(("train", "valid", "test")):
        expected = np.flatnonzero(clips.table["split"] == part)
        np.testing.assert_array_equal(getattr(fold, part), expected)
        assert {int(Path(p).stem[-1]) // 2 for p in clips.table["path"][expected]} == {k}


def test_folds(root: Path) -> None:
    built = build_task(recipe(by_fold), root)
    assert built.about["folds"] == {"f0": 4, "f1": 4, "f2": 4}
    data = read_built(root, "tones")
    clips = read_clips(root / "tones.csv")
    assert set(clips.table["fold"]) == {"f0", "f1", "f2"}
    tested = np.concatenate([fold.test for fold in data.folds])
    assert sorted(tested) == list(range(12))
    for fold in data.folds:
        assert set(fold.train) == set(range(12)) - set(fold.test)


def test_segments(root: Path) -> None:
    def halves(packages: Packages, folder: Path, progress: Any) -> pd.DataFrame:
        rows = by_name(packages, folder, progress)
        first, second = rows.assign(onset=0.0, offset=0.1), rows.assign(onset=0.1, offset=np.nan)
        return pd.concat([first, second], ignore_index=True)

    about = build_task(recipe(halves), root).about
    assert about["clips"] == 24
    assert about["hours"] == pytest.approx(12 * 0.25 / 3600, rel=1e-6)
    table = read_built(root, "tones").clips.table
    assert sorted(table["onset"].unique()) == [0.0, 0.1]
    assert table["offset"].isna().sum() == 12


def test_unfit_clips_are_left_out_and_named(root: Path) -> None:
    folder = sounds_of(root)
    soundfile.write(folder / "high_silent_0.wav", np.zeros(RATE), RATE)
    soundfile.write(folder / "high_short_0.wav", tone(2000, 0.019), RATE)
    soundfile.write(folder / "low_just_0.wav", tone(200, 0.021), RATE)
    (folder / "low_broken_0.wav").write_bytes(b"RIFF, no sound")
    same = (folder / "high1.wav").read_bytes()
    (folder / "high_same_0.wav").write_bytes(same)
    # The same samples under another container are the same sound.
    soundfile.write(folder / "low_flac_0.flac", *soundfile.read(folder / "low0.wav"))
    about = build_task(recipe(), root).about
    reasons = {Path(clip).name: reason for clip, reason in about["left_out"]}
    assert set(reasons) == {
        *("high_silent_0.wav", "high_short_0.wav", "low_broken_0.wav"),
        *("high_same_0.wav", "low_flac_0.flac"),
    }
    assert "silen" in reasons["high_silent_0.wav"]
    assert "0.02" in reasons["high_short_0.wav"]
    assert reasons["high_same_0.wav"].endswith(f"{SOURCE}/usr/share/high1.wav")
    assert reasons["low_flac_0.flac"].endswith(f"{SOURCE}/usr/share/low0.wav")
    assert about["clips"] == 13
    assert about["notes"][-1].startswith("5 of 18 clips left out")
    assert not set(reasons) & {Path(p).name for p in read_built(root, "tones").clips.table["path"]}


def test_a_sound_under_two_labels_goes(root: Path) -> None:
    folder = sounds_of(root)
    (folder / "low_odd_0.wav").write_bytes((folder / "high0.wav").read_bytes())
    about = build_task(recipe(), root).about
    assert {Path(clip).name for clip, _ in about["left_out"]} == {"low_odd_0.wav", "high0.wav"}
    assert {reason for _, reason in about["left_out"]} == {
        "sounds the same under the labels high, low"
    }


def test_a_class_that_vanishes(root: Path) -> None:
    for path in sounds_of(root).glob("low*.wav"):
        soundfile.write(path, np.zeros(RATE), RATE)
    with pytest.raises(DataError, match="no clip of the class low is fit"):
        build_task(recipe(), root)
    assert not (root / "tones.csv").exists()


@pytest.mark.parametrize(("build", "what"), [(by_name, "part test"), (by_fold, "fold f2")])
def test_a_part_that_vanishes(root: Path, build, what: str) -> None:
    for number in (4, 5):
        for path in sounds_of(root).glob(f"*{number}.wav"):
            path.write_bytes(b"")
    with pytest.raises(DataError, match=f"no clip of the {what} is fit"):
        build_task(recipe(build), root)


def test_a_class_that_cannot_be_learnt(root: Path) -> None:
    for number in (0, 1):
        soundfile.write(sounds_of(root) / f"low{number}.wav", np.zeros(RATE), RATE)
    with pytest.raises(DataError, match="low is tested in part test, with no clip to learn"):
        build_task(recipe(), root)


def test_a_class_that_is_not_tested_is_told(root: Path) -> None:
    for number in (4, 5):
        soundfile.write(sounds_of(root) / f"low{number}.wav", np.zeros(RATE), RATE)
    assert "no clip to test of: low" in build_task(recipe(), root).about["notes"]


def edited(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[..., pd.DataFrame]:
    return lambda packages, folder, progress: change(by_name(packages, folder, progress))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="label"), "have no label"),
        (lambda t: t.drop(columns="part"), "need a part or a fold"),
        (lambda t: t.assign(fold="a"), "need a part or a fold"),
        (lambda t: t.assign(part="dev"), "part 'dev' is none of"),
        (lambda t: t.assign(part="test"), "no clip to learn from"),
        (lambda t: t.assign(group="all"), "the group 'all' stands in several parts"),
        (lambda t: t.assign(path="/elsewhere/a.wav"), "/elsewhere/a.wav is not below"),
        (lambda t: t.assign(label=" "), "a clip has no label"),
        (lambda t: t.iloc[:0], "found no clips"),
        (lambda t: t.drop(columns="part").assign(fold=t["group"] + t["label"]), "has 12 folds"),
    ],
)
def test_rows_that_are_no_task(root: Path, change, message: str) -> None:
    with pytest.raises(DataError, match=f"recipe tones: .*{message}"):
        build_task(recipe(edited(change)), root)


def test_second_build_does_nothing(root: Path) -> None:
    calls = []

    def counted(packages: Packages, folder: Path, progress: Any) -> pd.DataFrame:
        calls.append(folder)
        return by_name(packages, folder, progress)

    first = build_task(recipe(counted), root)
    before = (root / "tones.json").stat().st_mtime_ns
    second = build_task(recipe(counted), root)
    assert (len(calls), first.fresh, second.fresh) == (1, True, False)
    assert second.about == first.about
    assert (root / "tones.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("what", ["text", "version", "manifest", "file"])
def test_what_changes_is_built_anew(root: Path, what: str) -> None:
    asked = recipe()
    build_task(asked, root)
    if what == "text":
        asked = recipe(caveat="the room")
    elif what == "version":
        record = root / "packages" / SOURCE / ".package.json"
        record.write_text(record.read_text().replace("1.0", "1.1"))
    elif what == "manifest":
        (root / "tones.csv").write_text((root / "tones.csv").read_text().replace("high", "low"))
    else:
        (sounds_of(root) / "low0.wav").unlink()
    assert build_task(asked, root).fresh
    assert not build_task(asked, root).fresh


def test_killed_build_leaves_nothing_half_written(root: Path, monkeypatch) -> None:
    def killed(path: Path, value: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(build_module, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        build_task(recipe(), root)
    assert read_about(root, "tones") is None
    assert not list(root.rglob("*.part"))
    monkeypatch.setattr(build_module, "write_json", write_json)
    assert build_task(recipe(), root).fresh


def test_killed_rebuild_is_not_taken_for_whole(root: Path, monkeypatch) -> None:
    build_task(recipe(), root)

    def killed(path: Path, value: Any) -> None:
        raise KeyboardInterrupt

    # Between the two files: the manifest is new, the JSON vouches for the old one.
    monkeypatch.setattr(build_module, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        build_task(recipe(by_fold), root)
    monkeypatch.setattr(build_module, "write_json", write_json)
    assert build_task(recipe(), root).fresh
    assert "parts" in build_task(recipe(), root).about


def rendering(packages: Packages, folder: Path, progress: Any, hz: float = 440) -> pd.DataFrame:
    table = by_name(packages, folder, progress)
    for i, path in enumerate(table["path"]):
        samples = tone(hz + 10 * i, seed=i)
        audio.save(folder / Path(path).name, audio.Audio(samples[np.newaxis], RATE))
    return table.assign(path=[str(folder / Path(path).name) for path in table["path"]])


def test_rendered_audio_is_the_tasks_own(root: Path) -> None:
    build_task(recipe(rendering), root)
    (first,) = (root / "audio" / "tones").iterdir()
    assert {Path(p).parent for p in read_built(root, "tones").clips.table["path"]} == {first}
    build_task(recipe(functools.partial(rendering, hz=880)), root)
    (second,) = (root / "audio" / "tones").iterdir()
    assert second != first
    assert {Path(p).parent for p in read_built(root, "tones").clips.table["path"]} == {second}
    build_task(recipe(), root)
    assert not (root / "audio" / "tones").exists()


def test_several_labels(root: Path) -> None:
    def tagged(packages: Packages, folder: Path, progress: Any) -> pd.DataFrame:
        rows = by_name(packages, folder, progress)
        return rows.assign(label=[f"{x};tone" for x in rows["label"]])

    about = build_task(recipe(tagged, metric="map"), root).about
    assert (about["task"], about["classes"]) == ("multilabel", {"high": 6, "low": 6, "tone": 12})
    data = read_built(root, "tones")
    assert data.clips.task == "multilabel"
    np.testing.assert_array_equal(data.clips.y().sum(axis=0), [6, 6, 12])


def test_threads_give_the_same(root: Path) -> None:
    build_task(recipe(), root)
    one = hashlib.sha256((root / "tones.csv").read_bytes()).hexdigest()
    (root / "tones.json").unlink()
    build_task(recipe(), root, workers=4)
    assert hashlib.sha256((root / "tones.csv").read_bytes()).hexdigest() == one


def test_not_built(root: Path) -> None:
    assert read_about(root, "tones") is None
    with pytest.raises(DataError, match=r"tones.csv: is not there; `ossicle data get tones`"):
        read_built(root, "tones")
    with pytest.raises(DataError, match="letters, digits"):
        read_built(root, "../tones")
    (root / "tones.csv").write_text("path,label\n")
    (root / "tones.json").write_text("{")
    with pytest.raises(DataError, match=r"tones.json: cannot be read"):
        read_built(root, "tones")
    (root / "tones.json").write_text('{"name": "tones"}')
    with pytest.raises(DataError, match=r"tones.csv: has no column group"):
        read_built(root, "tones")


def test_megabytes_to_fetch(root: Path, tmp_path: Path, monkeypatch) -> None:
    table = {name: Package("1", mb, "", "") for name, mb in (("a1", 2.5), ("b1", 4), ("c1", 8))}
    monkeypatch.setattr(build_module, "PACKAGES", table)
    asked = recipe(packages=("a1", "b1", "c1", "unknown"))
    (root / "packages" / "b1").mkdir()
    (tmp_path / "cache" / "debs").mkdir(parents=True)
    (tmp_path / "cache" / "debs" / "c1_1_all.deb").write_bytes(b"")
    assert megabytes(asked, root) == 2.5
