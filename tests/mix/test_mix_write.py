"""Folders of soundscapes: what is in them, resumed, extended, made by any number of workers."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from ossicle.datasets.clips import read_clips
from ossicle.errors import DataError
from ossicle.mix import MixSettings, mix_soundscapes
from ossicle.mix import write as module

SETTINGS = MixSettings(duration_s=3.0, events=(1, 3), empty=0.25, reverb=0.5)
COUNTS = {"train": 8, "valid": 4, "test": 4}


@pytest.fixture(scope="module")
def clips(tones):
    return read_clips(tones, folds=r"/(\d)-/", groups=r"/([a-z]\d)-/")


def make(clips, out, counts=COUNTS, settings=SETTINGS, **chosen):
    chosen = {"valid_folds": ["4"], "test_folds": ["5"], **chosen}
    return mix_soundscapes(clips, out, settings, counts=counts, **chosen)


@pytest.fixture(scope="module")
def made(clips, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "out"
    return out, make(clips, out)


def content(folder: Path) -> dict[str, str]:
    """Checksums of all files but mix.json, which holds the time."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "mix.json"
    }


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "events.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_files_and_table(made):
    out, done = made
    for part, many in COUNTS.items():
        names = sorted(path.name for path in (out / part).iterdir())
        assert names == [f"soundscape_{i:05d}.wav" for i in range(many)]
        for path in (out / part).iterdir():
            info = soundfile.info(path)
            assert (info.frames, info.samplerate, info.channels) == (48000, 16000, 1)
            assert info.subtype == "PCM_16"
    table = rows(out)
    assert list(table[0])[:6] == ["file", "onset", "offset", "label", "split", "group"]
    assert {row["file"] for row in table} == {
        f"{part}/soundscape_{i:05d}.wav" for part, many in COUNTS.items() for i in range(many)
    }
    for row in table:
        assert row["file"].startswith(f"{row['split']}/")
        if not row["label"]:
            assert row["onset"] == row["offset"] == ""
            assert sum(other["file"] == row["file"] for other in table) == 1
        else:
            assert 0 <= float(row["onset"]) < float(row["offset"]) <= 3.0
    order = [
        (["train", "valid", "test"].index(r["split"]), r["file"], float(r["onset"] or 0))
        for r in table
    ]
    assert order == sorted(order)
    assert sum(not row["label"] for row in table) == pytest.approx(4, abs=2)
    pd.testing.assert_frame_equal(
        pd.read_csv(out / "events.csv"), done.events, check_dtype=False, check_exact=False
    )


def test_no_source_is_in_two_parts(made):
    out, _ = made
    record = json.loads((out / "mix.json").read_text())
    for key in ("file", "sha256", "group"):
        sets = [{clip[key] for clip in part["clips"]} for part in record["sources"].values()]
        assert sum(map(len, sets)) == len(set.union(*sets))
    folds = {"train": set("0123"), "valid": {"4"}, "test": {"5"}}
    for row in rows(out):
        for name in filter(None, row["source"].split(";")):
            assert Path(name).name[1] in folds[row["split"]]


def test_labels_are_where_the_pitch_is(made):
    """Each class has its pitch: the energy there rises at the onset by more than elsewhere."""
    out, _ = made
    hz = {"high": 3000.0, "low": 400.0, "middle": 1100.0}
    checked = 0
    for row in rows(out):
        if not row["label"] or float(row["onset"]) < 0.1:
            continue
        samples, rate = soundfile.read(out / row["file"])
        same = [r for r in rows(out) if r["file"] == row["file"] and r["label"] == row["label"]]
        at = round(float(row["onset"]) * rate)
        if any(0 < at / rate - float(r["offset"]) < 0.9 for r in same):
            continue  # the reverberation of the one before
        spectra = [
            np.abs(np.fft.rfft(samples[a : a + 800] * np.hanning(800)))
            for a in (at - 800, min(at, len(samples) - 800))
        ]
        bins = np.fft.rfftfreq(800, 1 / rate)
        near = np.abs(bins / hz[row["label"]] - 1) < 0.08
        assert spectra[1][near].max() > 2 * spectra[0][near].max(), row
        checked += 1
    assert checked > 10


def test_what_the_record_says(made):
    out, _ = made
    record = json.loads((out / "mix.json").read_text())
    assert record["settings"]["snr_db"] == [6.0, 24.0]
    assert record["counts"] == COUNTS
    assert record["seed"] == 0
    assert record["versions"]["numpy"] == np.__version__
    table = pd.read_csv(out / "events.csv")
    for part, told in record["parts"].items():
        own = table[(table["split"] == part) & table["label"].notna()]
        assert told["events"] == len(own) == sum(c["events"] for c in told["classes"].values())
        assert told["empty"] == table[table["split"] == part]["label"].isna().sum()
        shares = told["share_of_time_with_classes"]
        # The classes sounding, summed over time, are the seconds of all rows.
        seconds = sum(int(n) * share for n, share in shares.items()) * told["soundscapes"] * 3.0
        assert seconds == pytest.approx((own["offset"] - own["onset"]).sum(), abs=0.02)
    assert math.isclose(sum(shares.values()), 1, abs_tol=1e-3)


@pytest.mark.parametrize("workers", [2, 5])
def test_any_number_of_workers_gives_the_same_bytes(clips, made, tmp_path, workers):
    make(clips, tmp_path / "out", workers=workers)
    assert content(tmp_path / "out") == content(made[0])


def test_more_leave_the_first_ones_alone(clips, made, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(made[0], out)
    before = content(out)
    done = make(clips, out, counts={"train": 12, "valid": 4, "test": 6})
    assert (done.kept, done.rendered) == (16, 6)
    after = content(out)
    del before["events.csv"]
    assert before.items() <= after.items()
    fresh = tmp_path / "fresh"
    make(clips, fresh, counts={"train": 12, "valid": 4, "test": 6})
    assert content(fresh) == after


def test_a_stopped_run_goes_on(clips, made, tmp_path, monkeypatch):
    out, calls = tmp_path / "out", []

    def stops(*arguments):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return rendered(*arguments)

    rendered = module.render
    monkeypatch.setattr(module, "render", stops)
    with pytest.raises(KeyboardInterrupt):
        make(clips, out)
    monkeypatch.undo()
    assert not (out / "events.csv").exists()
    done = make(clips, out)
    assert done.kept >= 4
    assert done.kept + done.rendered == 16
    assert content(out) == content(made[0])


def test_what_is_broken_is_made_again(clips, made, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(made[0], out)
    (out / "train" / "soundscape_00001.wav").write_bytes(b"RIFF")
    (out / "plans" / "train" / "soundscape_00002.json").write_text("{")
    (out / "valid" / "soundscape_00000.wav").unlink()
    # Whole, but another soundscape's.
    shutil.copy(out / "train" / "soundscape_00004.wav", out / "train" / "soundscape_00005.wav")
    plans = out / "plans" / "train"
    shutil.copy(plans / "soundscape_00004.json", plans / "soundscape_00005.json")
    done = make(clips, out)
    assert done.rendered == 4
    assert content(out) == content(made[0])


def test_other_settings_or_sources_in_one_folder_are_refused(clips, made):
    with pytest.raises(DataError, match="made with other snr_db, seed; choose another folder"):
        make(clips, made[0], settings=replace(SETTINGS, seed=3, snr_db=(0.0, 3.0)))
    with pytest.raises(DataError, match="made with other sources"):
        make(clips, made[0], test_folds=["3"])
    with pytest.raises(DataError, match="holds 8 soundscapes of train, more than the 5"):
        make(clips, made[0], counts={**COUNTS, "train": 5})


def test_folders_of_other_things_are_refused(clips, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(DataError, match="holds files that are no soundscapes"):
        make(clips, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    with pytest.raises(DataError, match="is a file"):
        make(clips, tmp_path / "mine" / "notes.txt")


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"train": 0, "valid": 0, "test": 0}, "no soundscapes are asked for"),
        ({"train": -1}, "-1 soundscapes for train"),
        ({"tests": 3}, "no part tests"),
    ],
)
def test_counts_that_cannot_be(clips, tmp_path, counts, message):
    with pytest.raises(DataError, match=message):
        make(clips, tmp_path / "out", counts=counts)
    assert not (tmp_path / "out").exists()


def test_backgrounds_are_disjoint(clips, street, tmp_path):
    make(clips, tmp_path / "few", backgrounds=[street / "long.wav"])
    record = json.loads((tmp_path / "few" / "mix.json").read_text())
    spans = [record["sources"][part]["backgrounds"] for part in ("train", "valid", "test")]
    assert [len(own) for own in spans] == [1, 1, 1]
    for before, after in pairwise(spans):
        assert before[0]["offset"] < after[0]["onset"]
    make(clips, tmp_path / "many", backgrounds=[street / "many"])
    record = json.loads((tmp_path / "many" / "mix.json").read_text())
    files = [
        {span["file"] for span in record["sources"][part]["backgrounds"]}
        for part in ("train", "valid", "test")
    ]
    assert set.union(*files) == {f"{i}.wav" for i in range(6)}
    assert sum(map(len, files)) == 6
    for part, own in zip(("train", "valid", "test"), files, strict=True):
        for path in (tmp_path / "many" / "plans" / part).iterdir():
            assert json.loads(path.read_text())["plan"]["background_name"] in own


def test_rooms_are_disjoint_and_enough(clips, tmp_path):
    folder = tmp_path / "rooms"
    folder.mkdir()
    for number in range(2):
        response = np.zeros(3200)
        response[[0, 1600 + number]] = 0.9, 0.4
        soundfile.write(folder / f"{number}.wav", response, 16000)
    with pytest.raises(DataError, match="2 impulse responses for 3 parts"):
        make(clips, tmp_path / "out", rooms=[folder])
    counts = {"train": 6, "test": 6}
    make(clips, tmp_path / "out", counts=counts, valid_folds=(), rooms=[folder])
    used = {}
    for part in counts:
        plans = [
            json.loads(path.read_text())["plan"]
            for path in (tmp_path / "out" / "plans" / part).iterdir()
        ]
        used[part] = {plan["room_name"] for plan in plans} - {""}
        assert all(plan["t60_s"] is None for plan in plans)
    assert len(used["train"]) == len(used["test"]) == 1
    assert used["train"] != used["test"]


def test_progress_counts_to_the_end(clips, tmp_path):
    seen = []
    make(clips, tmp_path / "out", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 36 + 16) for i in range(1, 53)]


def test_clips_that_no_part_can_use(clips, tmp_path):
    with pytest.raises(DataError, match="no clip can be used for train"):
        make(clips, tmp_path / "out", settings=replace(SETTINGS, min_event_s=2.0,
                                                       max_event_s=(2.0, 3.0)))  # fmt: skip


def test_esc10(shared_data, tmp_path):
    """Real clips: recordings stay in their folds, and onsets are true to the clip's energy."""
    source = shared_data / "esc10"
    clips = read_clips(source, folds=r"/^(\d)-/", groups=r"/-(\d+)-/")
    some = clips.subset(np.arange(len(clips)) % 5 == 0)
    done = make(some, tmp_path / "out", counts={"train": 6, "test": 6}, valid_folds=())
    for row in done.events.dropna(subset=["label"]).to_dict("records"):
        for name in row["source"].split(";"):
            assert (Path(name).name[0] == "5") == (row["split"] == "test")
            assert Path(name).parent.name == row["label"]
