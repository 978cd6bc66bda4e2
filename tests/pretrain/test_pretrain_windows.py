"""Windows of recordings: what they cover, counted sample by sample, and batches of them."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy.stats import chisquare

from ossicle.errors import DataError, OssicleError
from ossicle.pretrain.waveforms import Waveforms
from ossicle.pretrain.windows import WindowBatches, Windows, as_they_are, cut_windows

RATE = 100


def recordings(lengths: list[int], seed: int = 0) -> Waveforms:
    """Noise of so many samples each, one recording after another."""
    rng = np.random.default_rng(seed)
    samples = rng.integers(-32767, 32768, sum(lengths)).astype(np.int16)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    names = tuple(f"r{i}.wav" for i in range(len(lengths)))
    rows = np.arange(len(lengths))
    return Waveforms(samples, rows, starts, np.array(lengths), names, [], RATE)


# --- what they cover -------------------------------------------------------------------------


@pytest.mark.parametrize("size", [4, 16, 100])
def test_a_recording_is_covered_but_for_a_rest_of_a_quarter(size):
    """A rest of more than a quarter of a window has a window of its own; then nothing is missed."""
    lengths = [*range(size, 5 * size + 3)]
    waveforms = recordings(lengths)
    windows = cut_windows(waveforms, [size / RATE])
    for item, own in enumerate(lengths):
        mine = windows.items == item
        starts = windows.starts[mine]
        assert (windows.lengths[mine] == size).all()
        whole, rest = divmod(own, size)
        assert len(starts) == whole + (4 * rest > size)
        heard = np.zeros(own, int)
        for start in starts:
            assert 0 <= start <= own - size
            heard[start : start + size] += 1
        if 4 * rest > size or rest == 0:
            assert heard.min() >= 1
        else:
            assert (heard == 0).sum() == rest
        # From the beginning to the end, evenly.
        assert starts[0] == 0
        if len(starts) > 1:
            assert starts[-1] == own - size
            steps = np.diff(starts)
            assert steps.max() - steps.min() <= 1
            assert heard.max() <= 2


def test_recordings_come_in_order():
    waveforms = recordings([500, 30, 900, 100])
    windows = cut_windows(waveforms, [1.0, 2.0], seed=3)
    assert (np.diff(windows.items) >= 0).all()
    assert set(windows.items) == {0, 1, 2, 3}
    for item in range(4):
        assert len(set(windows.lengths[windows.items == item])) == 1
    assert len(windows) == len(windows.items) == len(windows.starts) == len(windows.lengths)


def test_what_is_shorter_than_all_is_one_window_with_zeros_behind():
    waveforms = recordings([37, 1, 99])
    windows = cut_windows(waveforms, [4.0, 1.0, 2.0])
    assert windows.items.tolist() == [0, 1, 2]
    assert windows.starts.tolist() == [0, 0, 0]
    assert windows.lengths.tolist() == [100, 100, 100]
    batches = WindowBatches(waveforms, windows, np.zeros((3, 1)), batch_size=3)
    for item, own in enumerate((37, 1, 99)):
        sound = batches.read(item)
        first = waveforms.starts[item]
        assert np.allclose(sound[:own] * 32767, waveforms.samples[first : first + own], atol=1e-2)
        assert (sound[own:] == 0).all()


def test_lengths_are_drawn_evenly_among_those_that_fit():
    """Of 4 s any, of 3.99 s the two shorter, of 1.99 s the shortest."""
    each = 400
    waveforms = recordings([400] * each + [399] * each + [199] * each + [100] * each)
    windows = cut_windows(waveforms, (2.0, 4.0, 1.0))
    first = np.unique(windows.items, return_index=True)[1]
    drawn = windows.lengths[first].reshape(4, each)
    for row, fitting in zip(drawn, ([100, 200, 400], [100, 200], [100], [100]), strict=True):
        found, counts = np.unique(row, return_counts=True)
        assert found.tolist() == fitting
        if len(fitting) > 1:
            assert chisquare(counts).pvalue > 1e-3


def test_seeds_differ_and_repeat():
    waveforms = recordings([400] * 50)
    first, again, other = (cut_windows(waveforms, seed=seed) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first.lengths[:20], other.lengths[:20])


def test_the_order_in_which_lengths_are_given_does_not_count():
    waveforms = recordings([400] * 50)
    up, down = (cut_windows(waveforms, lengths) for lengths in ((1.0, 2.0), (2.0, 1.0)))
    assert all(np.array_equal(a, b) for a, b in zip(up, down, strict=True))


@pytest.mark.parametrize("lengths", [(), (0.0,), (1.0, -2.0)])
def test_lengths_that_are_none_are_refused(lengths):
    with pytest.raises(OssicleError, match="one length of windows or more, in seconds, above 0"):
        cut_windows(recordings([100]), lengths)


# --- batches ---------------------------------------------------------------------------------

# 37 windows of 1 s, 17 of 2 s, 9 of 4 s: with 8, 4 and 2 a batch, 5, 1 and 1 are left over.
POOLS = {100: (37, 8), 200: (17, 4), 400: (9, 2)}


@pytest.fixture(scope="module")
def waveforms() -> Waveforms:
    return recordings([150, 430, 260, 900] * 20)


@pytest.fixture(scope="module")
def windows(waveforms) -> Windows:
    rng = np.random.default_rng(1)
    rows = []
    for length, (count, _) in POOLS.items():
        fitting = np.flatnonzero(waveforms.lengths >= length)
        for item in rng.choice(fitting, count):
            rows.append((item, rng.integers(0, waveforms.lengths[item] - length + 1), length))
    order = rng.permutation(len(rows))
    return as_they_are(*(np.array(column)[order] for column in zip(*rows, strict=True)))


def batches_of(waveforms, windows, *, batch_size: int = 8, **more) -> WindowBatches:
    """Their targets tell which window is which."""
    rows = np.arange(len(windows))
    targets = np.stack([rows, -rows], 1).astype(np.float16)
    return WindowBatches(waveforms, windows, targets, batch_size=batch_size, **more)


def test_a_batch_has_one_length_and_brings_what_it_says(waveforms, windows):
    batches = batches_of(waveforms, windows)
    for step in range(batches.steps_per_epoch):
        batch = batches.batch(step)
        rows = batch.targets[:, 0].numpy().astype(int)
        (length,) = set(windows.lengths[rows])
        assert len(rows) == batch.size == POOLS[length][1]
        assert batch.rows == slice(0, batch.size)
        assert batch.partners is None
        assert batch.targets.dtype == batch.waveforms.dtype
        assert str(batch.targets.dtype) == "torch.float32"
        assert (batch.targets[:, 1] == -batch.targets[:, 0]).all()
        assert batch.waveforms.shape == (batch.size, 1, length)
        for place, row in enumerate(rows):
            item = windows.items[row]
            first = waveforms.starts[item] + windows.starts[row]
            want = waveforms.samples[first : first + length] / 32767
            assert np.allclose(batch.waveforms[place, 0].numpy(), want, atol=1e-7)
            assert batch.names[place] == f"r{item}.wav"


def heard_in(batches: WindowBatches, epoch: int) -> list[int]:
    steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
    return [int(row) for step in steps for row in batches.batch(step).targets[:, 0]]


def test_an_epoch_has_a_window_at_most_once_and_all_but_incomplete_batches(waveforms, windows):
    batches = batches_of(waveforms, windows)
    assert batches.steps_per_epoch == sum(count // size for count, size in POOLS.values())
    epochs = [heard_in(batches, epoch) for epoch in range(12)]
    for rows in epochs:
        assert len(rows) == len(set(rows))
        for length, (count, size) in POOLS.items():
            assert (windows.lengths[rows] == length).sum() == count // size * size
    # In another order each time; whose turn it is not to be heard changes, so in the end all are.
    assert epochs[0] != epochs[1]
    assert set(itertools.chain(*epochs)) == set(range(len(windows)))


def test_lengths_come_mixed(waveforms, windows):
    batches = batches_of(waveforms, windows)
    lengths = [batches.batch(step).waveforms.shape[-1] for step in range(batches.steps_per_epoch)]
    assert lengths != sorted(lengths)
    assert lengths != sorted(lengths, reverse=True)


def test_seconds_are_those_of_an_epoch(waveforms, windows):
    batches = batches_of(waveforms, windows)
    rows = heard_in(batches, 0)
    assert batches.seconds_per_item == pytest.approx(windows.lengths[rows].mean() / RATE)


def same(a, b) -> bool:
    return (
        a.waveforms.equal(b.waveforms)
        and a.targets.equal(b.targets)
        and list(a.names) == list(b.names)
    )


def test_a_step_is_known_from_its_number(waveforms, windows):
    """To a new object, in any order, from several threads at once."""
    batches = batches_of(waveforms, windows, seed=4)
    steps = [*range(3 * batches.steps_per_epoch)]
    in_order = [batches.batch(step) for step in steps]
    for step in (0, 5, steps[-1]):
        assert same(batches_of(waveforms, windows, seed=4).batch(step), in_order[step])
    shuffled = np.random.default_rng(0).permutation(steps).tolist()
    new = batches_of(waveforms, windows, seed=4)
    with ThreadPoolExecutor(4) as pool:
        for step, batch in zip(shuffled, pool.map(new.batch, shuffled), strict=True):
            assert same(batch, in_order[step])
    other = batches_of(waveforms, windows, seed=5)
    assert not all(same(other.batch(step), in_order[step]) for step in range(5))


@pytest.mark.parametrize("world", [2, 4])
def test_shares_of_several_processes_are_the_joint_batch(waveforms, windows, world):
    batches = batches_of(waveforms, windows, world=world)
    for step in range(batches.steps_per_epoch):
        joint = batches.batch(step)
        assert joint.size % world == 0
        shares = [batches.batch(step, rank, world) for rank in range(world)]
        assert all(share.size == joint.size for share in shares)
        parts = [np.arange(joint.size)[share.rows] for share in shares]
        assert np.array_equal(np.concatenate(parts), np.arange(joint.size))
        for share in shares:
            assert share.waveforms.equal(joint.waveforms[share.rows])
            assert share.targets.equal(joint.targets[share.rows])
            assert list(share.names) == list(joint.names)[share.rows]


def test_a_length_of_too_few_windows_is_left_out(waveforms):
    """Three of 4 s are no batch of four; those of 1 s are heard."""
    items = np.array([3] * 3 + [1] * 20)
    lengths = np.array([400] * 3 + [100] * 20)
    batches = batches_of(
        waveforms, as_they_are(items, np.zeros(23, int), lengths), batch_size=16, world=2
    )
    assert batches.steps_per_epoch == 1
    assert sorted(heard_in(batches, 0)) == sorted(set(heard_in(batches, 0)))
    assert min(heard_in(batches, 0)) >= 3
    assert batches.seconds_per_item == 1.0


def test_a_batch_has_two_items_at_least(waveforms):
    """Of one alone, batch norms have nothing to tell apart."""
    items = np.repeat([3, 1], [4, 8])
    lengths = np.repeat([400, 100], [4, 8])
    batches = batches_of(waveforms, as_they_are(items, np.zeros(12, int), lengths), batch_size=4)
    sizes = {b.waveforms.shape[-1]: b.size for b in map(batches.batch, range(4))}
    assert sizes == {100: 4, 400: 2}


def test_what_cannot_be_is_refused(waveforms, windows):
    with pytest.raises(DataError, match="63 windows of the recordings do not fill a batch of 64"):
        alike = as_they_are(windows.items, windows.starts, np.full(63, 100))
        batches_of(waveforms, alike, batch_size=64)
    with pytest.raises(OssicleError, match="63 windows need as many targets, not 62"):
        WindowBatches(waveforms, windows, np.zeros((62, 2)), batch_size=8)
