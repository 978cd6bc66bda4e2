"""Events as targets of frames, against a count of small steps; masks of filling."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from ossicle.strong.targets import frame_targets, merged, pack, unpack

CLASSES = ("a", "b")
STEPS = 1000  # a frame


def counted(events: list[tuple[str, float, float]], edges: np.ndarray) -> np.ndarray:
    """(K, T) the share of the middles of small steps of each frame that lie in an event."""
    out = np.zeros((len(CLASSES), len(edges) - 1))
    for t, (low, high) in enumerate(zip(edges, edges[1:], strict=False)):
        middles = low + (np.arange(STEPS) + 0.5) / STEPS * (high - low)
        for k, name in enumerate(CLASSES):
            inside = np.zeros(STEPS, bool)
            for label, onset, offset in events:
                inside |= (label == name) & (middles >= onset) & (middles < offset)
            out[k, t] = inside.mean()
    return out


@pytest.mark.parametrize("seed", range(20))
def test_targets_are_the_shares_of_frames_in_which_a_class_sounds(seed):
    rng = np.random.default_rng(seed)
    start = rng.uniform(0, 3)
    edges = start + np.concatenate([[0], np.cumsum(rng.uniform(0.02, 0.06, 40))])
    events = []
    for _ in range(rng.integers(0, 7)):
        onset = rng.uniform(max(0, start - 1), edges[-1] + 0.5)
        events.append((str(rng.choice(CLASSES)), onset, onset + rng.uniform(0.07, 1.5)))
    table = pd.DataFrame(events, columns=["label", "onset", "offset"])
    got = frame_targets(table, edges, CLASSES)
    assert got.shape == (2, 40)
    np.testing.assert_allclose(got, counted(events, edges), atol=2 / STEPS)


@pytest.mark.parametrize(
    ("onset", "offset", "want"),
    [
        (0.11, 0.12, [0, 1, 0]),  # a click fills its frame
        (0.15, 0.15, [0, 1, 0]),  # so does one that lasts no time
        (0.05, 0.16, [0.5, 0.6, 0]),  # one as long as a frame does not
        (0.09, 0.13, [0.1, 1, 0]),  # it is where its middle is
        (0.35, 0.36, [0, 0, 0]),  # outside
        (0.25, 0.9, [0, 0, 0.5]),
    ],
)
def test_what_is_shorter_than_a_frame_is_heard(onset, offset, want):
    edges = np.array([0.0, 0.1, 0.2, 0.3])
    got = frame_targets({"b": [(onset, offset)]}, edges, CLASSES)
    np.testing.assert_allclose(got, [[0, 0, 0], want], atol=1e-6)


def test_intervals_are_united():
    assert merged([]) == []
    assert merged([(3, 4), (0, 1), (1, 2), (0.2, 0.4)]) == [(0, 2), (3, 4)]


def test_packed_targets_come_out_again():
    rng = np.random.default_rng(0)
    frames, clips = rng.random((2, 3, 5)).astype(np.float32), np.array([[1, 0, 1], [0, 0, 1]])
    known, valid = np.array([[1, 1, 0, 0, 0], [0] * 5]), np.array([[1, 1, 1, 0, 0], [1] * 5])
    packed = np.stack([pack(frames[i], known[i], clips[i], valid[i]) for i in range(2)])
    got = unpack(torch.from_numpy(packed))
    np.testing.assert_array_equal(got.frames, frames)
    np.testing.assert_array_equal(got.known, known)
    np.testing.assert_array_equal(got.clips, clips)
    np.testing.assert_array_equal(got.valid, valid)
