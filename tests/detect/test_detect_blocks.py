"""Recordings as blocks: nothing lost, nothing heard twice, damage told, readers in order."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ossicle.audio import load
from ossicle.detect import blocks as module
from ossicle.detect.blocks import Layout, blocks_of, read_ahead
from ossicle.errors import AudioError

RATE = 8000


@pytest.fixture
def recording(tmp_path):
    def write(seconds: float, name: str = "a.wav", rate: int = RATE):
        rng = np.random.default_rng(round(seconds * 10))
        path = tmp_path / name
        soundfile.write(path, rng.uniform(-0.5, 0.5, round(seconds * rate)), rate)
        return str(path)

    return write


@pytest.mark.parametrize("seconds", [0.5, 4.0, 10.0, 12.0, 12.5, 37.3])
@pytest.mark.parametrize("layout", [Layout(16000, 0, 4000), Layout(24000, 8000, 40000)])
@pytest.mark.parametrize("rate", [RATE, 44100])
def test_blocks_hold_what_their_layout_says(recording, seconds, layout, rate):
    path = recording(seconds, rate=rate)
    whole = load(path, sample_rate=RATE).samples[0]
    begin = 0
    found = list(blocks_of(path, 7, RATE, layout))
    for number, block in enumerate(found):
        assert (block.file, block.number, block.begin) == (7, number, begin)
        assert block.start == max(0, begin - layout.left)
        np.testing.assert_array_equal(block.samples, whole[block.start : block.stop + layout.right])
        if block.end is None:
            assert len(whole) >= block.stop + layout.right
        else:
            assert block.end == len(whole)
        assert block.last == (number == len(found) - 1) and not block.damage
        begin += layout.core
    assert found[-1].begin < len(whole) <= begin


def test_a_truncated_recording_is_heard_up_to_the_damage(recording, tmp_path):
    path = recording(40.0)
    cut = tmp_path / "cut.wav"
    cut.write_bytes(Path(path).read_bytes()[: 44 + 2 * 33 * RATE])
    found = list(blocks_of(str(cut), 0, RATE, Layout(10 * RATE, 0, RATE)))
    assert found[-1].last and "truncated" in found[-1].damage
    assert [block.damage for block in found[:-1]] == [""] * (len(found) - 1)
    assert found[-1].end == 33 * RATE
    np.testing.assert_array_equal(
        np.concatenate([b.samples[: b.stop - b.begin] for b in found]),
        load(path).samples[0][: 33 * RATE],
    )


def test_what_cannot_be_read_at_all_is_an_error(tmp_path):
    path = tmp_path / "text.wav"
    path.write_text("this is no sound")
    with pytest.raises(AudioError, match="text.wav"):
        list(blocks_of(str(path), 0, RATE, Layout(RATE, 0, 0)))


@pytest.mark.parametrize("readers", [1, 2, 5])
def test_several_readers_keep_the_order(recording, tmp_path, readers):
    paths = [recording(1 + 3 * (i % 4), f"{i}.wav") for i in range(6)]
    bad = tmp_path / "bad.wav"
    bad.write_text("no")
    paths.insert(2, str(bad))
    layout = Layout(2 * RATE, 0, RATE)
    want = []
    for number, path in enumerate(paths):
        try:
            want += [
                (number, b.number, len(b.samples)) for b in blocks_of(path, number, RATE, layout)
            ]
        except AudioError:
            want.append((number, None, None))
    got = [
        (n, None, None) if isinstance(b, AudioError) else (n, b.number, len(b.samples))
        for n, b in read_ahead(paths, range(len(paths)), RATE, layout, readers)
    ]
    assert got == want


def test_readers_end_when_nobody_listens(recording):
    paths = [recording(60.0, f"{i}.wav") for i in range(3)]
    before = threading.active_count()
    reading = read_ahead(paths, range(3), RATE, Layout(RATE, 0, 0), 3)
    next(reading)
    reading.close()
    assert threading.active_count() == before


def test_surprises_in_a_reader_are_not_swallowed(recording, monkeypatch):
    def broken(*arguments):
        raise RuntimeError("a fault of ours")
        yield

    monkeypatch.setattr(module, "blocks_of", broken)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        list(read_ahead([recording(1.0)], [0], RATE, Layout(RATE, 0, 0), 2))
