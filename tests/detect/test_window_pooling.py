"""Windows read out of one stretch's maps: the numbers of pooling each window's frames alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ossicle.detect.window_pooling import pool_windows, window_frames
from ossicle.heads import POOLINGS, pool


@pytest.mark.parametrize("shape", [(1, 5, 32, 60), (1, 3, 4, 20), (1, 3, 12, 33), (1, 7, 40)])
def test_each_window_is_pooled_as_by_itself(shape):
    rng = np.random.default_rng(0)
    maps = torch.from_numpy(rng.standard_normal(shape).astype(np.float32))
    maps[..., 0] += 100  # a mean far from 0, where squares would cancel
    first = np.array([0, 3, 3, 10, shape[-1] - 1])
    last = np.array([4, 5, 9, 20, shape[-1]])
    got = pool_windows(maps, first, last, tuple(POOLINGS))
    for i, (a, b) in enumerate(zip(first, last, strict=True)):
        want = pool(maps[..., a:b], tuple(POOLINGS))
        for name in POOLINGS:
            torch.testing.assert_close(got[name][i], want[name][0], rtol=2e-5, atol=2e-5)


def test_frames_of_a_window_are_as_many_as_it_has_alone():
    """Windows of 98 front-end frames, whatever their onset; the nearest frame begins them."""
    onsets = np.arange(0, 1000, 12.5)
    lengths = np.full(len(onsets), 98)
    for stride in (1, 2, 8, 32):
        frames = -(-1200 // stride)
        first, last = window_frames(onsets, lengths, stride, frames)
        assert set(last - first) == {-(-98 // stride)}
        assert np.abs(first * stride - onsets).max() <= stride / 2


def test_a_window_at_the_end_keeps_one_frame():
    first, last = window_frames(np.array([59.9]), np.array([5]), 32, 2)
    assert (first, last) == (np.array([1]), np.array([2]))
