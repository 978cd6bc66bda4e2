from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from scipy import signal

from ossicle.datasets.clips import Clips, read_clips
from ossicle.datasets.folds import check_folds, make_folds
from ossicle.errors import DataError
from ossicle.fingerprint import SAMPLE_RATE, candidates, correlation, landmarks
from ossicle.leaks import _near, audit, join_duplicates, near_pairs

RATE = 16000


def events(seed: int, seconds: float = 3.0, rate: int = RATE) -> np.ndarray:
    """A sound with a course of its own: gliding tones and bursts over faint noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    sound = 0.003 * rng.standard_normal(len(t))
    for _ in range(round(8 * seconds)):
        start, length = rng.uniform(0, seconds), rng.uniform(0.05, 0.4)
        low, high = rng.uniform(150, 3000, 2)
        inside = (t >= start) & (t < start + length)
        glide = signal.chirp(t[inside] - start, low, length, high)
        sound[inside] += rng.uniform(0.05, 0.2) * glide * np.hanning(inside.sum())
    return sound


def write(path: Path, sound: np.ndarray, rate: int = RATE, **kw) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound, rate, **kw)


def row(clips: Clips, name: str) -> int:
    return next(i for i, p in enumerate(clips.table["path"]) if p.endswith("/" + name))


def kinds(report: dict) -> dict[tuple[str, str], str]:
    name = {int(k): Path(v).name for k, v in report["paths"].items()}
    return {tuple(sorted((name[s["a"]], name[s["b"]]))): s["kind"] for s in report["samples"]}


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> tuple[Clips, dict]:
    """Ten unrelated sounds in two classes, and copies, encodings and cuts of the first five."""
    root = tmp_path_factory.mktemp("planted")
    for i in range(10):
        write(root / "ab"[i % 2] / f"u{i}.flac", events(i))
    noise = np.random.default_rng(9)
    for i in range(4):
        write(root / "a" / f"noise{i}.flac", 0.1 * noise.standard_normal(3 * RATE))
        tone = 0.3 * np.sin(2 * np.pi * (200 + 137 * i) * np.arange(3 * RATE) / RATE)
        write(root / "b" / f"tone{i}.flac", tone)
    (root / "b" / "copy0.flac").write_bytes((root / "a" / "u0.flac").read_bytes())
    write(root / "a" / "half2.ogg", 0.5 * events(2), format="OGG", subtype="VORBIS")
    write(root / "b" / "loud1.mp3", 1.5 * events(1))
    cut = events(4)[round(0.8137 * RATE) : round(2.4 * RATE)]
    write(root / "a" / "cut4.ogg", 0.7 * cut, format="OGG", subtype="VORBIS")
    slower = signal.resample_poly(events(3), 441, 160)
    write(root / "a" / "other_rate3.wav", -slower, 44100, subtype="PCM_16")
    long = np.concatenate([events(77, 1.5), events(5)[: 2 * RATE]])
    write(root / "a" / "shares5.flac", long)
    write(root / "a" / "silence.wav", np.zeros(RATE))
    (root / "b" / "broken.wav").write_bytes(b"RIFF....not audio")
    clips = read_clips(root, groups="none")
    return clips, audit(clips)


def test_planted_duplicates_are_found_and_nothing_else(planted):
    clips, report = planted
    assert kinds(report) == {
        ("half2.ogg", "u2.flac"): "same",
        ("loud1.mp3", "u1.flac"): "same",
        ("other_rate3.wav", "u3.flac"): "same",
        ("cut4.ogg", "u4.flac"): "contained",
        ("shares5.flac", "u5.flac"): "overlap",
    }
    assert report["bytes"] == [[row(clips, "u0.flac"), row(clips, "copy0.flac")]]
    assert report["n_clips"] == len(clips)
    assert report["silent"] == [row(clips, "silence.wav")]
    (broken,) = report["unreadable"]
    assert broken["row"] == row(clips, "broken.wav") and broken["path"].endswith("broken.wav")
    assert broken["reason"] and report["across_split"] == [] and report["n_leaked"] == 0
    json.dumps(report, allow_nan=False)


def test_where_a_cut_begins(planted):
    clips, report = planted
    cut, whole = row(clips, "cut4.ogg"), row(clips, "u4.flac")
    found = next(s for s in report["samples"] if {s["a"], s["b"]} == {cut, whole})
    shift = found["shift_s"] if found["a"] == whole else -found["shift_s"]
    assert shift == pytest.approx(0.8137, abs=0.002)


def test_labels_that_contradict(planted):
    clips, report = planted
    found = {frozenset((c["a"], c["b"])): c["labels"] for c in report["label_conflicts"]}
    pairs = [("u0.flac", "copy0.flac"), ("u3.flac", "other_rate3.wav")]
    assert set(found) == {frozenset(row(clips, name) for name in pair) for pair in pairs}
    assert all(sorted(labels) == ["a", "b"] for labels in found.values())


def test_leaks_across_folds_and_their_repair(planted):
    clips, report = planted
    test = np.array([row(clips, "copy0.flac"), row(clips, "cut4.ogg"), row(clips, "u7.flac")])
    train = np.setdiff1d(np.arange(len(clips)), test)
    leaky = audit(clips, folds=[(train[:3], train[3:4]), (train, test)])
    assert {(x["kind"], tuple(x["folds"])) for x in leaky["across_split"]} >= {
        ("bytes", (1,)),
        ("contained", (1,)),
    }
    assert leaky["n_leaked"] == 2
    joined = join_duplicates(clips, report)
    folds = make_folds(joined.y(), joined.groups(), 4, task="classes")
    check_folds(folds, joined.groups())
    mended = audit(joined, folds=folds)
    assert mended["across_split"] == [] and mended["n_leaked"] == 0
    assert len(set(joined.groups())) == len(set(clips.groups())) - 6
    with pytest.raises(DataError, match="clips"):
        join_duplicates(clips.subset([0]), report)


def test_folds_of_the_table_and_rows_of_one_file(tmp_path):
    for i in range(3):
        write(tmp_path / f"{i}.wav", events(i))
    frame = pd.DataFrame(
        {
            "path": [str(tmp_path / f"{i}.wav") for i in (0, 0, 1, 2)],
            "label": list("abab"),
            "onset": [0, 1, 0, 0],
            "offset": [2, 3, 3, 3],
            "split": ["train", "test", "train", "test"],
        }
    )
    report = audit(read_clips(frame))
    assert report["samples"] == [] and report["n_leaked"] == 1
    assert report["across_split"] == [{"a": 0, "b": 1, "kind": "file", "folds": [0]}]


def test_copies_of_a_reencoded_file_leak_too(tmp_path):
    write(tmp_path / "a" / "0.wav", events(0))
    write(tmp_path / "a" / "1.ogg", events(0), format="OGG", subtype="VORBIS")
    (tmp_path / "a" / "2.ogg").write_bytes((tmp_path / "a" / "1.ogg").read_bytes())
    clips = read_clips(tmp_path, groups="none")
    report = audit(clips, folds=[(np.array([0]), np.array([2]))])
    assert [(x["a"], x["b"], x["kind"]) for x in report["across_split"]] == [(0, 2, "same")]


def test_a_part_of_a_long_recording(tmp_path):
    long = np.concatenate([events(i, 30.0, 8000) for i in range(5)])
    write(tmp_path / "a" / "long.flac", long, 8000)
    start = round(97.31 * 8000)
    write(tmp_path / "b" / "part.ogg", long[start : start + 24000], 8000, format="OGG")
    (found,) = audit(read_clips(tmp_path))["samples"]
    assert found["kind"] == "contained" and found["shift_s"] == pytest.approx(97.31, abs=0.002)


def test_two_edits_of_one_recording(tmp_path):
    """Both share the sound, but one has a pause in the middle: no single shift fits it all."""
    sound = events(0, 6.0)
    pause = np.zeros(RATE // 10)
    write(tmp_path / "a" / "plain.wav", sound)
    write(
        tmp_path / "b" / "edit.wav", np.concatenate([sound[: 3 * RATE], pause, sound[3 * RATE :]])
    )
    write(tmp_path / "b" / "other.wav", events(1, 6.0))
    report = audit(read_clips(tmp_path))
    assert kinds(report) == {("edit.wav", "plain.wav"): "overlap"}
    assert report["samples"][0]["seconds"] < 2 and report["samples"][0]["similarity"] > 0.95


def test_unreadable_segments_are_told_with_their_part(tmp_path):
    write(tmp_path / "one.wav", events(0, 2.0))
    (tmp_path / "broken.wav").write_bytes(b"none of this is sound")
    frame = pd.DataFrame(
        {
            "path": [str(tmp_path / name) for name in ("one.wav", "one.wav", "broken.wav")],
            "label": list("aba"),
            "onset": [0.0, 7.0, np.nan],
            "offset": [1.0, 9.5, np.nan],
        }
    )
    part, whole = audit(read_clips(frame))["unreadable"]
    assert part["row"] == 1 and part["reason"].endswith(" (7.0 to 9.5 s)")
    assert whole["row"] == 2 and not whole["reason"].endswith("s)")


def test_progress(planted):
    clips, _ = planted
    steps = []
    audit(clips.subset(np.arange(4)), progress=lambda done, total: steps.append((done, total)))
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]


# --- near neighbours -------------------------------------------------------------------------


def embeddings(n: int, rng: np.random.Generator) -> np.ndarray:
    """Clusters, all positive with a large common mean, as pooled activations have."""
    centres = rng.normal(size=(10, 64))
    return np.maximum(3 + centres[rng.integers(0, 10, n)] + rng.normal(size=(n, 64)), 0)


@pytest.mark.parametrize("block", [7, 1024])
def test_near_pairs_finds_planted_ones(block):
    rng = np.random.default_rng(0)
    x = embeddings(300, rng)
    x[[10, 20, 30]] = x[[11, 250, 299]] + 0.05 * rng.normal(size=(3, 64))
    found, threshold = near_pairs(x, 300, block=block)
    assert {(p["a"], p["b"]) for p in found} == {(10, 11), (20, 250), (30, 299)}
    z = (x - x.mean(0)) / x.std(0)
    for p in found:
        cosine = z[p["a"]] @ z[p["b"]] / np.linalg.norm(z[p["a"]]) / np.linalg.norm(z[p["b"]])
        assert p["similarity"] == pytest.approx(cosine, abs=1e-4) and cosine >= threshold


def test_near_pairs_of_unrelated_clips_are_none():
    for seed in range(5):
        assert near_pairs(embeddings(200, np.random.default_rng(seed)), 200)[0] == []


def test_near_pairs_bad_input():
    for bad in (np.zeros((3, 2)), np.full((4, 2), np.nan), np.zeros(4)):
        with pytest.raises(DataError):
            near_pairs(bad, 4)
    assert near_pairs(np.zeros((1, 3)), 1)[0] == []


def test_near_pairs_in_the_report(planted):
    clips, _ = planted
    x = np.random.default_rng(0).normal(size=(len(clips), 32))
    u0, copy, u7, u8 = (row(clips, f"{n}.flac") for n in ("u0", "copy0", "u7", "u8"))
    x[copy], x[u8] = x[u0], x[u7] + 0.01
    report = audit(clips, embeddings=x, folds=[(np.array([u7, 1]), np.array([u8, 3]))])
    # the copy is told under bytes already
    assert [(p["a"], p["b"]) for p in report["near"]] == [tuple(sorted((u7, u8)))]
    assert report["across_split"][0]["kind"] == "near" and report["n_leaked"] == 0


# --- landmarks and correlation -----------------------------------------------------------------


def test_correlation_against_the_slow_definition():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 600))
    b[100:500] += 2 * np.roll(a, -17)[100:500]
    value, lag, compared = correlation(a, b, slack=50)
    template = b[50:550]
    slow = {k: abs(np.corrcoef(a[50 + k : 550 + k], template)[0, 1]) for k in range(-50, 51)}
    assert lag == max(slow, key=slow.__getitem__) == 17 and compared == 500
    assert value == pytest.approx(slow[17], abs=0.02)


@pytest.mark.parametrize("delay", [0.0, 0.25, 0.5])
def test_correlation_between_samples(delay):
    x = np.random.default_rng(0).normal(size=4096)
    spectrum = np.fft.rfft(x) * np.exp(-2j * np.pi * np.fft.rfftfreq(4096) * delay)
    spectrum[-1] = spectrum[-1].real
    assert correlation(x, np.fft.irfft(spectrum), slack=64)[0] > 0.99


def test_correlation_of_silence_is_none():
    assert correlation(np.zeros(1000), np.zeros(1000))[0] == 0.0
    assert correlation(np.ones(1000), np.ones(1000))[0] == 0.0
    assert correlation(np.zeros(0), np.zeros(0))[0] == 0.0


def test_candidates_give_the_shift_and_survive_crowds():
    """Forty copies of a sound fill each bucket; all are still linked, if only in chains."""
    sound = events(0, 2.0, SAMPLE_RATE).astype(np.float32)
    prints = [landmarks(sound) for _ in range(40)]
    found = candidates(prints)
    linked = {0}
    for _ in range(40):
        linked |= {x for c in found for x in (c.a, c.b) if {c.a, c.b} & linked}
    assert linked == set(range(40))
    assert all(abs(c.shift_s) < 0.05 and c.a < c.b for c in found)
    assert candidates(prints, most=1000) == found
    late = landmarks(sound[4000:])
    (best,) = candidates([prints[0], late])
    assert best.shift_s == pytest.approx(0.5, abs=0.05)


def test_silence_and_scraps_have_no_landmarks():
    for sound in (np.zeros(8000), np.ones(8000), np.zeros(0), np.zeros(3)):
        assert not len(landmarks(sound.astype(np.float32)).hashes)
    assert candidates([]) == [] and candidates([landmarks([])] * 3) == []


def test_gain_changes_no_landmark():
    sound = events(3, 2.0, SAMPLE_RATE).astype(np.float32)
    a, b = landmarks(sound), landmarks(sound / 8)
    assert np.array_equal(a.hashes, b.hashes) and np.array_equal(a.frames, b.frames)


# --- real clips ---------------------------------------------------------------------------------


def test_planted_leaks_among_real_clips(shared_data, tmp_path):
    chosen = sorted((shared_data / "esc10").glob("*/5-*.ogg"))[::2]
    for path in chosen:
        target = tmp_path / path.parent.name / path.name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes())
    expected = set()
    for path in chosen[::5]:
        sound, rate = soundfile.read(path, always_2d=True)
        sound = sound.mean(axis=1)
        name = f"{path.stem}x.mp3"
        write(tmp_path / path.parent.name / name, 0.5 * sound, rate)
        expected.add(tuple(sorted((path.name, name))))
    found = kinds(audit(read_clips(tmp_path, groups="none")))
    assert len(expected) == 8
    missed = expected - set(found)
    assert not missed and len(set(found) - expected) <= 1


def test_rows_without_embedding_are_passed_over_by_near():
    """Rows of NaN stand for clips that a network could not read; the others keep their numbers."""
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(60, 32)).astype(np.float32)
    embeddings[50] = embeddings[7] * 1.001
    whole = _near(embeddings)[0]
    embeddings[[3, 20]] = np.nan
    found = _near(embeddings)[0]
    assert [(p["a"], p["b"]) for p in found] == [(p["a"], p["b"]) for p in whole] == [(7, 50)]
