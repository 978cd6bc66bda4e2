"""Recordings decoded once: the samples, what is left out, stopped halves, memory."""

from __future__ import annotations

import hashlib
import os
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from ossicle.audio import load
from ossicle.datasets.clips import read_clips
from ossicle.errors import DataError
from ossicle.features import Clip
from ossicle.pretrain.waveforms import INDEX, SAMPLES, Waveforms, decode, decode_cached, key

RATE = 16_000


def sound(seconds: float, rate: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """(N,) or (N, C), peaks of 0.8."""
    x = np.random.default_rng(seed).normal(size=(round(seconds * rate), channels))
    x = np.cumsum(x - 0.2 * np.roll(x, 1, 0), 0)
    x -= x.mean(0)
    return 0.8 * (x / np.abs(x).max())


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[Clip]:
    """Of other rates, channels and formats, parts of a file, and the four kinds of broken ones."""
    root = tmp_path_factory.mktemp("sounds")
    soundfile.write(root / "mono.wav", sound(0.5, RATE), RATE, "PCM_16")
    soundfile.write(root / "stereo.flac", sound(0.7, 44_100, 2, 1), 44_100, "PCM_24")
    soundfile.write(root / "slow.wav", sound(0.9, 8000, 1, 2), 8000, "FLOAT")
    (root / "noise.wav").write_bytes(b"RIFFnot really" * 9)
    (root / "empty.wav").write_bytes(b"")
    soundfile.write(root / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(root / "short.wav", sound(0.01, RATE), RATE)
    return [
        Clip(str(root / "mono.wav")),
        Clip(str(root / "noise.wav")),
        Clip(str(root / "stereo.flac")),
        Clip(str(root / "stereo.flac"), 0.2, 0.45),
        Clip(str(root / "empty.wav")),
        Clip(str(root / "slow.wav"), 0.5, None),
        Clip(str(root / "slow.wav")),
        Clip(str(root / "silent.wav")),
        Clip(str(root / "short.wav")),
        Clip(str(root / "missing.wav")),
        Clip(str(root / "mono.wav"), None, 0.3),
    ]


USABLE = [0, 2, 3, 5, 6, 10]


@pytest.fixture(scope="module")
def whole(clips, tmp_path_factory) -> tuple[Waveforms, Path]:
    folder = tmp_path_factory.mktemp("whole")
    return decode(clips, RATE, folder), folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class StopError(Exception):
    pass


# --- what is in it ---------------------------------------------------------------------------


def test_samples_are_those_of_the_reader(clips, whole):
    waveforms, _ = whole
    assert waveforms.rows.tolist() == USABLE
    assert waveforms.names == tuple(clips[row].name for row in USABLE)
    for item, row in enumerate(USABLE):
        clip = clips[row]
        want = load(clip.source, sample_rate=RATE, onset=clip.onset, offset=clip.offset).samples[0]
        got = waveforms.read(item, 0, int(waveforms.lengths[item]))
        assert len(got) == len(want)
        assert got.dtype == np.float32
        assert np.abs(got - want).max() <= 1 / 32767
        assert np.abs(want).max() > 0.1
    lengths = [0.5, 0.7, 0.25, 0.4, 0.9, 0.3]
    assert waveforms.lengths == pytest.approx(np.multiply(lengths, RATE), abs=1)
    assert waveforms.seconds == pytest.approx(sum(lengths), abs=1e-3)
    assert len(waveforms) == 6


def test_a_recording_is_decoded_in_parts_that_join(tmp_path, monkeypatch, clips):
    monkeypatch.setattr("ossicle.pretrain.waveforms.PART_S", 0.13)
    waveforms = decode([clips[2], clips[3]], RATE, tmp_path / "parts")
    for item, (onset, offset) in enumerate([(None, None), (0.2, 0.45)]):
        want = load(clips[2].source, sample_rate=RATE, onset=onset, offset=offset).samples[0]
        got = waveforms.read(item, 0, len(want) + 1)
        assert np.abs(got[:-1] - want).max() <= 1 / 32767
        assert got[-1] == 0


def test_what_cannot_be_used_is_named_with_its_reason(clips, whole):
    waveforms, _ = whole
    reasons = {row: (path, reason) for row, path, reason in waveforms.skipped}
    assert list(reasons) == [1, 4, 7, 8, 9]
    assert all(path == clips[row].name for row, (path, _) in reasons.items())
    words = {4: "empty", 7: "silent", 8: "0.02 s", 9: "does not exist"}
    for row, word in words.items():
        assert word in reasons[row][1], reasons[row]
    assert reasons[1][1]


def test_none_usable_is_told(clips, tmp_path):
    with pytest.raises(DataError, match=r"none of the 2 clips.*noise\.wav: \w+"):
        decode([clips[1], clips[4]], RATE, tmp_path)
    with pytest.raises(DataError, match="none of the 0 clips"):
        decode([], RATE, tmp_path / "no")


def test_reading_beyond_the_ends_gives_zeros(whole):
    waveforms, _ = whole
    item, length = 1, int(waveforms.lengths[1])
    inside = waveforms.read(item, 0, length)
    got = waveforms.read(item, -300, length + 800)
    # Neighbours in the file are not heard.
    assert not got[:300].any()
    assert not got[300 + length :].any()
    assert np.array_equal(got[300:-500], inside)
    assert np.array_equal(waveforms.read(item, length - 10, 30)[:10], inside[-10:])
    for start in (-50, length, length + 999):
        assert not waveforms.read(item, start, 50).any()
    assert np.array_equal(waveforms.read(item, 7, 5), inside[7:12])


def test_loud_samples_are_held_at_full_scale(tmp_path):
    x = np.linspace(-3, 3, RATE)
    soundfile.write(tmp_path / "loud.wav", x, RATE, "FLOAT")
    got = decode([Clip(str(tmp_path / "loud.wav"))], RATE, tmp_path / "out").read(0, 0, RATE)
    assert np.abs(got - np.clip(x, -1, 1)).max() <= 1 / 32767


def test_workers_and_rates_are_as_asked(clips, whole, tmp_path):
    _, folder = whole
    decode(clips, RATE, tmp_path / "many", workers=3)
    assert files(tmp_path / "many") == files(folder)
    half = decode(clips, RATE // 2, tmp_path / "half")
    want = load(clips[2].source, sample_rate=RATE // 2).samples[0]
    assert half.sample_rate == RATE // 2
    assert np.abs(half.read(1, 0, len(want)) - want).max() <= 1 / 32767


# --- stopped and gone on with ----------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("done", [1, 2, 5, 10])
def test_stopped_and_resumed_is_one_go(clips, whole, tmp_path, done, workers):
    _, folder = whole

    def stop(progress):
        if progress.done == done:
            raise StopError

    with pytest.raises(StopError):
        decode(clips, RATE, tmp_path, progress=stop, workers=workers)
    # Nothing of what was decoded ahead lies about.
    assert set(files(tmp_path)) == {INDEX, SAMPLES}
    seen = []
    decode(clips, RATE, tmp_path, progress=seen.append, workers=workers)
    assert [p.done for p in seen] == list(range(done + 1, len(clips) + 1))
    assert seen[-1].seconds_read == pytest.approx(3.05, abs=1e-3)
    assert files(tmp_path) == files(folder)


def test_finished_is_not_decoded_again(clips, whole):
    waveforms, folder = whole
    before = {path: path.stat().st_ino for path in folder.glob("*.i16")}
    seen = []
    again = decode(clips, RATE, folder, progress=seen.append)
    assert not seen
    assert {path: path.stat().st_ino for path in folder.glob("*.i16")} == before
    for name in ("rows", "starts", "lengths"):
        assert np.array_equal(getattr(again, name), getattr(waveforms, name))
    assert again.names == waveforms.names
    assert again.skipped == waveforms.skipped


def cut(path: Path, size: int) -> None:
    os.truncate(path, size)


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def line_ends(folder: Path) -> list[int]:
    data = (folder / INDEX).read_bytes()
    return [i + 1 for i, byte in enumerate(data) if byte == 10]


DAMAGE = {
    "index gone": lambda f: (f / INDEX).unlink(),
    "samples gone": lambda f: (f / SAMPLES).unlink(),
    "index empty": lambda f: cut(f / INDEX, 0),
    "index after a line": lambda f: cut(f / INDEX, line_ends(f)[2]),
    "index before a line's end": lambda f: cut(f / INDEX, line_ends(f)[4] - 1),
    "index within a number": lambda f: cut(f / INDEX, line_ends(f)[4] - 2),
    "index within a line": lambda f: cut(f / INDEX, line_ends(f)[4] - 20),
    "index after a brace": lambda f: cut(f / INDEX, line_ends(f)[2] + 1),
    "index filled with zeros": lambda f: (
        cut(f / INDEX, line_ends(f)[5]),
        append(f / INDEX, bytes(99)),
    ),
    "index with bytes that are no text": lambda f: (
        cut(f / INDEX, line_ends(f)[5]),
        append(f / INDEX, b"\xff\xfe\x80" * 9),
    ),
    "a line that is no clip": lambda f: (
        cut(f / INDEX, line_ends(f)[5]),
        append(f / INDEX, b"{}\n[]\n3\n"),
    ),
    "a line lost": lambda f: (f / INDEX).write_bytes(
        (f / INDEX).read_bytes().replace((f / INDEX).read_bytes().splitlines(True)[3], b"")
    ),
    "samples empty": lambda f: cut(f / SAMPLES, 0),
    "samples within the first": lambda f: cut(f / SAMPLES, 1000),
    "samples within a sample": lambda f: cut(f / SAMPLES, 40_001),
    "samples of one not in the index": lambda f: append(f / SAMPLES, bytes(12_345)),
    "a part file left": lambda f: (
        cut(f / INDEX, line_ends(f)[2]),
        (f / ".0123456789abcdef.part").write_bytes(bytes(99)),
    ),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_crash_anywhere_is_mended(clips, whole, tmp_path, damage):
    _, folder = whole
    for name, data in files(folder).items():
        (tmp_path / name).write_bytes(data)
    damage(tmp_path)
    assert files(tmp_path) != files(folder)
    decode(clips, RATE, tmp_path)
    assert files(tmp_path) == files(folder)


def test_two_runs_at_once_decode_it_once(clips, whole, tmp_path):
    """Two runs that begin together, as when seeds are compared."""
    _, folder = whole
    started = threading.Barrier(2)
    failed, seen = [], []

    def job():
        try:
            started.wait(10)
            decode(clips, RATE, tmp_path, progress=lambda p: seen.append(p.done))
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=job) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert seen == list(range(1, len(clips) + 1))
    assert files(tmp_path) == files(folder)


# --- what tells sets apart -------------------------------------------------------------------


def test_the_key_is_of_files_parts_and_rate(tmp_path):
    path, other = tmp_path / "a.wav", tmp_path / "b.wav"
    for p in (path, other):
        soundfile.write(p, sound(0.1, RATE), RATE)
        os.utime(p, ns=(10**18, 10**18))
    one = [Clip(str(path)), Clip(str(other))]
    keys = [key(one, RATE)]
    assert key(list(one), RATE) == keys[0]
    keys += [key(one, 8000), key(one[::-1], RATE), key(one[:1], RATE)]
    keys += [key([Clip(str(path), 0.0, None), one[1]], RATE)]
    keys += [key([Clip(str(path), None, 0.05), one[1]], RATE)]
    os.utime(path, ns=(10**18, 10**18 + 1))
    keys.append(key(one, RATE))
    path.write_bytes(path.read_bytes() + b"\0")
    os.utime(path, ns=(10**18, 10**18))
    keys.append(key(one, RATE))
    path.unlink()
    keys.append(key(one, RATE))
    assert len(set(keys)) == len(keys)
    # The same wherever and whenever it is asked: it names folders of the cache.
    text = b"16000\nno/such.wav\x001.0\x002.5\x00missing\n"
    assert key([Clip("no/such.wav", 1.0, 2.5)], 16_000) == hashlib.sha256(text).hexdigest()


def test_names_that_are_no_text_are_kept(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")
    try:
        soundfile.write(tmp_path / "a.wav", sound(0.1, RATE), RATE)
        (tmp_path / "a.wav").rename(path)
    except OSError:
        pytest.skip("this file system takes no such names")
    for _ in range(2):
        assert decode([Clip(path)], RATE, tmp_path / "out").names == (path,)
    assert len(key([Clip(path)], RATE)) == 64


# --- memory ----------------------------------------------------------------------------------


def test_a_read_takes_no_more_memory_than_what_is_read(tmp_path):
    n = 40_000_000
    with (tmp_path / SAMPLES).open("wb") as file:
        file.truncate(2 * n)  # sparse
    line = f'{{"row": 0, "path": "long.wav", "start": 0, "length": {n}}}\n'
    (tmp_path / INDEX).write_text(line)
    tracemalloc.start()
    try:
        waveforms = decode([Clip("long.wav")], RATE, tmp_path)
        for start in (0, n // 2, n - 8000):
            waveforms.read(0, start, RATE)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_decoding_takes_no_more_memory_than_a_part(tmp_path, monkeypatch):
    monkeypatch.setattr("ossicle.pretrain.waveforms.PART_S", 1.0)
    soundfile.write(tmp_path / "long.wav", np.tile(sound(1, 8000), (200, 1)), 8000)
    tracemalloc.start()
    try:
        waveforms = decode([Clip(str(tmp_path / "long.wav"))], 8000, tmp_path / "out")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert waveforms.seconds == 200
    # 200 s are 6.4 MB as float32; the reader itself holds 6 s of 44.1 kHz.
    assert peak < 5_000_000


def test_without_some_clips(clips, whole):
    waveforms, _ = whole
    rest = waveforms.without(np.array([0, 1, 5]))
    assert rest.rows.tolist() == [2, 3, 6, 10]
    assert rest.names == tuple(clips[row].name for row in (2, 3, 6, 10))
    for item, other in enumerate([1, 2, 4, 5]):
        length = int(waveforms.lengths[other])
        assert rest.lengths[item] == length
        assert np.array_equal(rest.read(item, 0, length), waveforms.read(other, 0, length))
    assert len(waveforms) == 6


def test_only_some_clips(clips, whole):
    waveforms, _ = whole
    assert waveforms.rows.tolist() == [0, 2, 3, 5, 6, 10]
    # In the order of the clips, whatever that of the rows; those that could not be read are none.
    some = waveforms.only(np.array([6, 1, 2, 99, 2]))
    assert some.rows.tolist() == [2, 6]
    assert some.names == tuple(clips[row].name for row in (2, 6))
    for item, other in enumerate([1, 4]):
        length = int(waveforms.lengths[other])
        assert some.lengths[item] == length
        assert np.array_equal(some.read(item, 0, length), waveforms.read(other, 0, length))
    assert some.seconds == pytest.approx(waveforms.lengths[[1, 4]].sum() / RATE)
    assert len(waveforms.only(np.empty(0, np.int64))) == 0
    assert waveforms.only(waveforms.rows).names == waveforms.names


def test_decoded_clips_are_kept_in_the_cache(clips, whole, tmp_path, monkeypatch):
    monkeypatch.setenv("OSSICLE_CACHE", str(tmp_path))
    table = pd.DataFrame(
        {"path": [str(clips[0].source), str(clips[2].source)], "label": ["a", "b"]}
    )
    labelled = read_clips(table)
    told = []
    first = decode_cached(labelled, RATE, progress=lambda p: told.append(p.done))
    assert told == [1, 2]
    expected = whole[0].only(np.array([0, 2]))
    for item in (0, 1):
        length = int(expected.lengths[item])
        assert np.array_equal(first.read(item, 0, length), expected.read(item, 0, length))
    again = decode_cached(labelled, RATE, progress=lambda p: told.append(p.done))
    assert told == [1, 2]
    assert again.lengths.tolist() == first.lengths.tolist()
    decode_cached(labelled.subset([1]), RATE, progress=lambda p: told.append(p.done))
    assert told == [1, 2, 1]
