"""Mixtures as files: stems that add up, levels as drawn, parts apart, the same bytes again."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from ossicle.datasets.clips import read_clips
from ossicle.datasets.mixtures import MixtureSettings, read_mixtures, write_mixtures
from ossicle.datasets.mixtures import write as write_module
from ossicle.errors import DataError

RATE = 8000
FEW = {"train": 6, "valid": 3, "test": 3}


def by_speaker(folder: Path):
    """A class a speaker is all that the folder tells."""
    clips = read_clips(folder)
    clips.table["group"] = clips.table["label"]
    return clips


def level_db(samples: np.ndarray) -> float:
    """Root mean square over the 20 ms frames within 30 dB of the loudest, frame by frame."""
    size = RATE // 50
    frames = [samples[at : at + size].astype(np.float64) for at in range(0, len(samples), size)]
    powers = [np.mean(frame**2) for frame in frames]
    heard = np.concatenate(
        [f for f, p in zip(frames, powers, strict=True) if p >= 1e-3 * max(powers)]
    )
    return 10 * np.log10(np.mean(heard**2))


def steps(path: str) -> np.ndarray:
    samples, rate = soundfile.read(path, dtype="int16")
    assert rate == RATE
    return samples.astype(np.int64)


def checksums(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "mixtures.json"
    }


@pytest.fixture(scope="module")
def written(speakers, tmp_path_factory):
    settings = MixtureSettings(
        **{"sample_rate": RATE, "disjoint": "clips", "unseen": ("eve", "fay"), "seed": 5},
        **{"duration_s": 1.0, "join": True, "level_db": (-6.0, 6.0), "n_sources": 2},
    )
    out = tmp_path_factory.mktemp("written") / "mixtures"
    counts = {"train": 12, "valid": 4, "test": 4, "unseen": 4}
    return write_mixtures([by_speaker(speakers)], out, settings, counts=counts)


def test_the_stems_add_up_to_the_mixture_exactly(written):
    for row in written.table.to_dict("records"):
        mixture = steps(row["mixture"])
        stems = [steps(row["source1"]), steps(row["source2"])]
        assert len(mixture) == RATE
        assert np.array_equal(sum(stems), mixture)
        assert np.abs([mixture, *stems]).max() <= 0.95 * 32768 + 2


def test_levels_are_as_the_table_says(written):
    differences = []
    for row in written.table.to_dict("records"):
        first, second = (level_db(steps(row[name]) / 32768) for name in ("source1", "source2"))
        # One step of 16 bits is -90 dB; words are at -26 dB and -20 to -32 dB.
        assert second - first == pytest.approx(row["level_db2"], abs=0.02)
        assert row["level_db1"] == 0
        assert first == pytest.approx(-26, abs=0.02)
        differences.append(row["level_db2"])
    assert min(differences) < -2
    assert max(differences) > 2


def test_the_table_tells_whose_clips_these_are(written, speakers):
    cut = written.table["clip1"].tolist() + written.table["clip2"].tolist()
    names = written.table["name1"].tolist() + written.table["name2"].tolist()
    assert all("; " in text for text in cut)
    for text, name in zip(cut, names, strict=True):
        for piece in text.split("; "):
            file = piece.split(" (")[0]
            assert file.startswith(f"{name}/")
            assert (speakers / file).is_file()
    assert written.table["group"].tolist() == [
        "+".join(sorted(pair)) for pair in written.table[["name1", "name2"]].to_numpy().tolist()
    ]


def test_parts_share_no_file_and_unseen_no_speaker(written):
    files: dict[str, set] = {}
    for row in written.table.to_dict("records"):
        pieces = f"{row['clip1']}; {row['clip2']}".split("; ")
        files.setdefault(row["split"], set()).update(piece.split(" (")[0] for piece in pieces)
    assert len(set().union(*files.values())) == sum(map(len, files.values()))
    whose = {part: {file.split("/")[0] for file in held} for part, held in files.items()}
    assert whose["unseen"] == {"eve", "fay"}
    assert not whose["unseen"] & (whose["train"] | whose["valid"] | whose["test"])
    assert whose["train"] == {"ada", "bob", "cyd", "dee"}


def test_what_was_written_is_what_is_read(written):
    again = read_mixtures(written.root)
    pd.testing.assert_frame_equal(again.table, written.table)
    assert (again.sources, again.n_sources, again.sample_rate) == ((), 2, RATE)
    assert again.parts == ("train", "valid", "test", "unseen")
    assert len(again.part("unseen")) == 4
    one = again.part("test").load(2)
    row = again.table[again.table["split"] == "test"].iloc[2]
    assert one.mixture.dtype == one.sources.dtype == np.float32
    assert one.sources.shape == (2, RATE)
    assert np.array_equal(one.mixture * 32768, steps(row["mixture"]))
    assert np.array_equal(one.sources[1] * 32768, steps(row["source2"]))
    assert np.array_equal(one.sources.sum(0), one.mixture)


def test_the_record_names_no_place_and_holds_the_files_checksum(written):
    text = (written.root / "mixtures.json").read_text()
    info = json.loads(text)
    assert info["finished"] is True
    assert info["counts"] == {"train": 12, "valid": 4, "test": 4, "unseen": 4}
    assert info["hours"]["train"] == pytest.approx(12 / 3600)
    assert info["checksum"]["files"] == 24 * 3 + 1
    assert str(written.root) not in text
    assert str(written.root) not in (written.root / "mixtures.csv").read_text()
    assert info["clips"]["unseen"]["clips"] == {"clips": 20, "groups": 2, "names": ["eve", "fay"]}


def test_joined_clips_do_not_click(tmp_path):
    """Clips that begin and end at their loudest meet in a moment of silence."""
    for speaker, hz in (("ada", 200), ("bob", 300)):
        (tmp_path / "clips" / speaker).mkdir(parents=True)
        for i in range(6):
            # Whole periods of a cosine: no constant part, the last sample near the crest again.
            tone = 0.3 * np.cos(2 * np.pi * hz * np.arange((4 + i) * RATE // 10) / RATE)
            soundfile.write(tmp_path / "clips" / speaker / f"{i}.wav", tone, RATE)
    settings = MixtureSettings(sample_rate=RATE, duration_s=1.0, join=True, shares=(1, 0, 0))
    settings = replace(settings, disjoint="clips")
    done = write_mixtures(
        [by_speaker(tmp_path / "clips")], tmp_path / "out", settings, counts={"train": 3}
    )
    for i in range(3):
        stem = done.load(i).sources[0]
        first = done.table["clip1"][i].split("; ")[0].split(" (")[0]
        border = soundfile.info(tmp_path / "clips" / first).frames
        assert np.abs(stem[border - 2 : border + 2]).max() < 0.01 * np.abs(stem).max()
        assert np.abs(stem[border - 200 : border - 40]).max() > 0.95 * np.abs(stem).max()


def test_roles(speakers, noises, tmp_path):
    settings = MixtureSettings(sample_rate=RATE, level_db=(-12.0, -3.0), duration_s=0.5)
    done = write_mixtures(
        [by_speaker(speakers), read_clips(noises, groups="none")],
        tmp_path / "out",
        settings,
        counts=FEW,
        names=("speech", "noise"),
    )
    assert done.sources == ("speech", "noise")
    assert Path(done.table["source2"][0]).name == "noise.flac"
    for row in done.table.to_dict("records"):
        stems = [steps(row["source1"]), steps(row["source2"])]
        assert np.array_equal(sum(stems), steps(row["mixture"]))
        speech, noise = (level_db(stem / 32768) for stem in stems)
        assert -12.05 < noise - speech < -2.95
        assert noise - speech == pytest.approx(row["level_db2"], abs=0.02)
        # The second half of each noise is silent; half of what the fullest cut holds is heard.
        assert np.count_nonzero(stems[1]) >= 0.2 * RATE
    groups = {part: set(done.part(part).table["group2"]) for part in done.parts}
    assert not (groups["train"] & groups["test"] or groups["train"] & groups["valid"])
    assert done.part("train").table["name1"].tolist() == ["speech"] * 6


@pytest.mark.parametrize("workers", [1, 3])
def test_more_mixtures_and_other_workers_change_no_byte(speakers, tmp_path, workers):
    clips = by_speaker(speakers)
    settings = MixtureSettings(sample_rate=RATE, suffix=".wav", disjoint="clips")
    few, more = tmp_path / "few", tmp_path / "more"
    write_mixtures([clips], few, settings, counts={"train": 3})
    shuffled = clips.subset(np.random.default_rng(0).permutation(len(clips)))
    write_mixtures([shuffled], more, settings, counts={"train": 5, "test": 2}, workers=workers)
    before, after = checksums(few), checksums(more)
    del before["mixtures.csv"]
    assert len(before) == 9
    assert before.items() <= after.items()
    # Asking for more in the same folder adds to what is there.
    write_mixtures([clips], few, settings, counts={"train": 5, "test": 2})
    assert checksums(few) == after


def test_a_stopped_run_goes_on(speakers, tmp_path, monkeypatch):
    clips, out = by_speaker(speakers), tmp_path / "out"
    settings = MixtureSettings(sample_rate=RATE, disjoint="clips")
    render, calls, told = write_module.render, [], threading.Event()

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait=True, *, cancel_futures=False):
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            told.set()
            super().shutdown(wait=wait)

    def stops(plan, settings):
        calls.append(plan)
        if len(calls) == 5:
            raise KeyboardInterrupt
        if len(calls) > 5:  # until the worker has been told, however slow the machine is
            assert told.wait(60)
        return render(plan, settings)

    monkeypatch.setattr(write_module, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(write_module, "render", stops)
    with pytest.raises(KeyboardInterrupt):
        write_mixtures([clips], out, settings, counts=FEW)
    with pytest.raises(DataError, match="its making was stopped; run the same command again"):
        read_mixtures(out)
    ready = {path: path.stat().st_mtime_ns for path in out.rglob("*.flac")}
    # The worker may have begun another before it was told to stop, and finishes that.
    assert len(calls) in (5, 6)
    assert len(ready) == (len(calls) - 1) * 3
    assert not list(out.rglob("*.part"))
    # A folder that lacks a file is made anew.
    (out / "train" / "00001" / "source2.flac").unlink()
    before = len(calls)
    write_mixtures([clips], out, settings, counts=FEW)
    assert len(calls) - before == 12 - len(ready) // 3 + 1
    kept = [path for path in ready if path.exists()]
    kept = [path for path in kept if path.stat().st_mtime_ns == ready[path]]
    assert len(kept) == len(ready) - 3
    monkeypatch.undo()
    fresh = tmp_path / "fresh"
    write_mixtures([clips], fresh, settings, counts=FEW)
    assert checksums(fresh) == checksums(out)


def test_other_settings_in_the_same_folder_are_refused(speakers, tmp_path):
    clips, out = by_speaker(speakers), tmp_path / "out"
    settings = MixtureSettings(sample_rate=RATE, disjoint="clips")
    write_mixtures([clips], out, settings, counts={"train": 2})
    before = checksums(out)
    other = MixtureSettings(sample_rate=RATE, disjoint="clips", seed=1, length="max")
    with pytest.raises(DataError, match="made with other length, seed; choose another folder"):
        write_mixtures([clips], out, other, counts={"train": 2})
    with pytest.raises(DataError, match="made with other clips; choose another folder"):
        write_mixtures([clips.subset(np.arange(55))], out, settings, counts={"train": 2})
    with pytest.raises(DataError, match="holds 2 mixtures of train, more than the 1 asked for"):
        write_mixtures([clips], out, settings, counts={"train": 1})
    assert checksums(out) == before


def test_a_folder_of_other_things_is_refused(speakers, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="holds files that are no mixtures"):
        settings = MixtureSettings(sample_rate=RATE, disjoint="clips")
        write_mixtures([by_speaker(speakers)], tmp_path, settings, counts=FEW)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_clips_that_cannot_be_used_are_told(speakers, tmp_path):
    root = tmp_path / "clips"
    shutil.copytree(speakers, root)
    soundfile.write(root / "ada" / "silent.wav", np.full(RATE, 0.25), RATE)
    soundfile.write(root / "ada" / "brief.wav", np.random.default_rng(0).normal(0, 0.1, 90), RATE)
    (root / "ada" / "broken.wav").write_bytes(b"no audio at all")
    shutil.copy(root / "bob" / "0-A.wav", root / "bob" / "copy.wav")
    settings = MixtureSettings(sample_rate=RATE, disjoint="clips")
    done = write_mixtures([by_speaker(root)], tmp_path / "out", settings, counts=FEW)
    told = "\n".join(done.notes)
    assert "left out 1 clips, silent: ada/silent.wav" in told
    assert "left out 1 clips, shorter than 0.1 s: ada/brief.wav" in told
    assert "ada/broken.wav" in told
    assert "left out 1 clips whose bytes are there twice: bob/copy.wav" in told
    used = " ".join(done.table["clip1"]) + " ".join(done.table["clip2"])
    assert not any(name in used for name in ("silent", "brief", "broken", "copy"))


def test_clips_of_another_rate_and_several_channels(speakers, noises, tmp_path):
    """Any remainder of a joined clip is long enough to be read at its own rate."""
    settings = MixtureSettings(sample_rate=11025, duration_s=1.7, join=True, level_db=(0.0, 0.0))
    stereo = tmp_path / "stereo"
    for path in sorted(noises.glob("*/*.wav")):
        samples, _ = soundfile.read(path)
        (stereo / path.parent.name).mkdir(parents=True, exist_ok=True)
        soundfile.write(stereo / path.parent.name / path.name, np.stack([samples] * 2, 1), 22050)
    done = write_mixtures(
        [by_speaker(speakers), read_clips(stereo, groups="none")],
        tmp_path / "out",
        settings,
        counts={"train": 20},
        names=("speech", "noise"),
    )
    for i in range(20):
        one = done.load(i)
        assert one.mixture.shape == (round(1.7 * 11025),)
        assert np.array_equal(one.sources.sum(0), one.mixture)


def test_a_file_that_is_shortened_meanwhile_is_named(speakers, tmp_path, monkeypatch):
    root = tmp_path / "clips"
    shutil.copytree(speakers, root)
    draw = write_module.draw_mixture

    def shortens(pool, settings, part, number):
        plan = draw(pool, settings, part, number)
        samples, _ = soundfile.read(plan.sources[0].pieces[0].clip.path)
        soundfile.write(plan.sources[0].pieces[0].clip.path, samples[: len(samples) // 2], RATE)
        return plan

    monkeypatch.setattr(write_module, "draw_mixture", shortens)
    settings = MixtureSettings(sample_rate=RATE, disjoint="clips", length="max")
    with pytest.raises(DataError, match=r"\.wav: is shorter than it was when it was looked at"):
        write_mixtures([by_speaker(root)], tmp_path / "out", settings, counts={"train": 1})


def test_progress_counts_clips_then_mixtures(speakers, tmp_path):
    seen = []
    settings = MixtureSettings(sample_rate=RATE, disjoint="clips")
    write_mixtures(
        [by_speaker(speakers)],
        tmp_path / "out",
        settings,
        counts={"train": 4},
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(i, 64) for i in range(1, 65)]


def test_sources_by_label_and_by_column(speakers, tmp_path):
    clips = read_clips(speakers, groups="none")
    settings = MixtureSettings(sample_rate=RATE, by="label", n_sources=3)
    done = write_mixtures([clips], tmp_path / "label", settings, counts=FEW)
    names = done.table[["name1", "name2", "name3"]].to_numpy()
    assert all(len(set(row)) == 3 for row in names)
    assert set(names.ravel()) <= set(clips.classes)
    settings = MixtureSettings(sample_rate=RATE, by=r"/([0-4])-[AB]/", disjoint="clips")
    done = write_mixtures([clips], tmp_path / "word", settings, counts=FEW)
    assert set(done.table["name1"]) <= set("01234")
    settings = MixtureSettings(sample_rate=RATE, by="voice")
    with pytest.raises(DataError, match="--by voice: is not a column"):
        write_mixtures([clips], tmp_path / "none", settings, counts=FEW)


@pytest.mark.parametrize(
    ("settings", "counts", "names", "message"),
    [
        ({}, {"train": 0}, (), "no mixtures are asked for"),
        ({}, {"later": 1}, (), "there is no part later"),
        ({}, {"train": -1}, (), "-1 mixtures for train"),
        ({}, {"unseen": 3}, (), "unseen mixtures need groups of their own"),
        ({"n_sources": 5}, FEW, (), "train: has clips of 4 groups and a mixture needs 5"),
        ({}, FEW, ("a", "b"), "names are for several tables"),
        ({"min_duration_s": 9.0}, FEW, (), "no clip can be used: left out 60 clips, shorter"),
    ],
)
def test_what_is_refused(speakers, tmp_path, settings, counts, names, message):
    settings = MixtureSettings(sample_rate=RATE, **settings)
    with pytest.raises(DataError, match=message):
        write_mixtures(
            [by_speaker(speakers)], tmp_path / "out", settings, counts=counts, names=names
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("speech",), "1 names for 2 tables"),
        (("speech", "Speech"), "sources need different names"),
        (("speech", "mixture"), "cannot be called 'mixture'"),
        (("speech", "../noise"), "cannot be called '../noise'"),
    ],
)
def test_names_that_are_refused(speakers, noises, tmp_path, names, message):
    with pytest.raises(DataError, match=message):
        write_mixtures(
            [by_speaker(speakers), read_clips(noises)], tmp_path / "out", counts=FEW, names=names
        )
    assert not (tmp_path / "out").exists()


def test_real_speech(shared_data, tmp_path):
    """Speech Commands: unseen speakers, no file in two parts, stems that add up."""
    clips = read_clips(shared_data / "speech_commands_6", groups="speaker")
    settings = MixtureSettings(duration_s=1.5, join=True, unseen=0.2, sample_rate=RATE)
    counts = {"train": 8, "valid": 4, "test": 4, "unseen": 4}
    done = write_mixtures([clips], tmp_path / "out", settings, counts=counts)
    whose = {
        part: {g for pair in done.part(part).groups() for g in pair.split("+")}
        for part in done.parts
    }
    assert len(set().union(*whose.values())) == sum(map(len, whose.values()))
    for row in done.table.to_dict("records"):
        assert np.array_equal(steps(row["source1"]) + steps(row["source2"]), steps(row["mixture"]))
