"""Windows, their targets and their masks, and batches that are known from their number."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ossicle.datasets.strong import StrongClips
from ossicle.pretrain.waveforms import Waveforms
from ossicle.strong.data import Labels, StrongBatches, cut_windows
from ossicle.strong.targets import unpack

RATE, FRAME, SIZE = 100, 10, 200  # samples a second, a frame, a window
EDGES = np.arange(SIZE // FRAME + 1) * FRAME / RATE
FILES = ("long", "short", "weak", "quiet")
LENGTHS = (450, 125, 200, 200)


@pytest.fixture
def clips() -> StrongClips:
    """4.5 s in three windows; 1.25 s and filling; one that is weakly labelled; one silent."""
    events = [("long", 1.0, 1.6, "a"), ("long", 1.9, 3.0, "b"), ("short", 1.0, 1.25, "a")]
    table = pd.DataFrame(events, columns=["file", "onset", "offset", "label"]).assign(score=np.nan)
    files = pd.DataFrame(
        {
            "path": FILES,
            "group": FILES,
            "split": None,
            "kind": ["strong", "strong", "weak", "strong"],
            "labels": [["a", "b"], ["a"], ["b"], []],
        }
    )
    return StrongClips(files, table, ("a", "b"), None, [], "column 'group'")


@pytest.fixture
def waveforms() -> Waveforms:
    samples = np.arange(sum(LENGTHS), dtype=np.int16)
    starts = np.concatenate([[0], np.cumsum(LENGTHS)[:-1]])
    return Waveforms(samples, np.arange(4), starts, np.array(LENGTHS), FILES, [], RATE)


@pytest.mark.parametrize("lengths", [[450, 125, 200, 200], [1], [200], [201], [399], [401, 1000]])
def test_windows_hold_every_sample_and_none_beyond_the_end(lengths):
    windows = cut_windows(lengths, SIZE)
    for item, length in enumerate(lengths):
        mine = windows.items == item
        heard = np.zeros(max(length, SIZE), bool)
        for start, used in zip(windows.starts[mine], windows.lengths[mine], strict=True):
            assert start >= 0
            assert start + used <= length
            assert used == min(SIZE, length)
            heard[start : start + used] = True
        assert heard[:length].all()
        assert mine.sum() == -(-length // SIZE)  # no more of them than are needed


def test_frames_that_are_filling_or_not_known_are_masked(clips, waveforms):
    windows = cut_windows(waveforms.lengths, SIZE)
    labels = Labels(clips, waveforms, EDGES)
    batches = StrongBatches(waveforms, windows, labels, batch_size=6, window=SIZE)
    batch = batches.batch(0)
    targets = unpack(batch.targets)
    seen = {name: i for i, name in enumerate(batch.names)}
    assert sorted(batch.names) == ["long"] * 3 + ["quiet", "short", "weak"]
    short, weak, quiet = (seen[name] for name in ("short", "weak", "quiet"))
    # 1.25 s: the frame from 1.2 to 1.3 s is the recording's last.
    np.testing.assert_array_equal(targets.valid[short], np.arange(20) < 13)
    np.testing.assert_array_equal(targets.known[short], np.arange(20) < 13)
    np.testing.assert_allclose(targets.frames[short, 0, 9:14], [0, 1, 1, 0.5, 0], atol=1e-6)
    assert batch.waveforms[short, 0, 125:].abs().max() == 0
    assert batch.waveforms[short, 0, :125].min() > 0
    # Of the weak one only what sounds is known, not when.
    assert not targets.known[weak].any()
    assert targets.valid[weak].all()
    assert targets.clips[weak].tolist() == [0, 1]
    # Of the silent one it is known that nothing sounds.
    assert targets.known[quiet].all()
    assert targets.frames[quiet].max() == 0
    assert targets.clips[quiet].tolist() == [0, 0]


def test_targets_of_a_window_are_those_of_its_own_stretch(clips, waveforms):
    windows = cut_windows(waveforms.lengths, SIZE)
    labels = Labels(clips, waveforms, EDGES)
    np.testing.assert_array_equal(windows.starts[:3], [0, 125, 250])
    middle = unpack(_tensor(labels.of(0, 125, SIZE)))
    # From 1.25 s on: a until 1.6 s, b from 1.9 s to 3.0 s.
    at = 1.25 + (np.arange(20) + 0.5) / 10
    np.testing.assert_allclose(
        middle.frames[0, 0], np.clip((1.6 - EDGES[:-1] - 1.25) * 10, 0, 1), atol=1e-5
    )
    inside = (at > 1.95) & (at < 2.95)
    np.testing.assert_allclose(middle.frames[0, 1][inside], 1, atol=1e-5)
    assert middle.clips.tolist() == [[1, 1]]
    last = unpack(_tensor(labels.of(0, 250, SIZE)))
    assert last.clips.tolist() == [[0, 1]]


def test_batches_are_known_from_their_number(clips, waveforms):
    windows = cut_windows(waveforms.lengths, SIZE)

    def batches() -> StrongBatches:
        labels = Labels(clips, waveforms, EDGES)
        return StrongBatches(waveforms, windows, labels, batch_size=2, window=SIZE, seed=3)

    one, other = batches(), batches()
    assert one.steps_per_epoch == 3
    forward = [one.batch(step) for step in range(9)]
    for step in (8, 2, 5, 0, 7, 1, 3, 6, 4):
        again = other.batch(step)
        assert again.names == forward[step].names
        assert again.waveforms.equal(forward[step].waveforms)
        assert again.targets.equal(forward[step].targets)
    for epoch in range(3):  # each window once
        starts = [float(x[0, 0]) for b in forward[3 * epoch : 3 * epoch + 3] for x in b.waveforms]
        assert len(set(starts)) == 6
    orders = [[b.names for b in forward[3 * epoch : 3 * epoch + 3]] for epoch in range(3)]
    assert orders[0] != orders[1]


def test_maps_are_heard_in_place_of_waveforms(clips, waveforms):
    windows = cut_windows(waveforms.lengths, SIZE)
    labels = Labels(clips, waveforms, EDGES)
    maps = np.arange(20, dtype=np.float16).reshape(10, 2)
    numbers = np.array([9, 7, 5, 3, 1, 0])
    batches = StrongBatches(
        waveforms, windows, labels, batch_size=6, window=SIZE, maps=maps, numbers=numbers
    )
    got = batches.batch(0)
    assert got.waveforms.shape == (6, 1, 2)
    by_name = {name: x[0].tolist() for name, x in zip(got.names, got.waveforms, strict=True)}
    assert by_name["short"] == [6.0, 7.0]
    assert by_name["quiet"] == [0.0, 1.0]


def _tensor(packed: np.ndarray):
    import torch

    return torch.from_numpy(packed)[None]
