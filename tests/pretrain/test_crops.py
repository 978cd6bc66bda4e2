"""Random crops: which segments a batch has, where its views lie, shares of several processes."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from ossicle.errors import DataError, OssicleError
from ossicle.pretrain.crops import CropBatches
from ossicle.pretrain.waveforms import Waveforms
from ossicle.train import Batch

RATE = 1000


def ramps(seconds: list[float], names: list[str] | None = None) -> Waveforms:
    """Recordings whose samples are numbered from 1 on, over all of them: places can be read off."""
    lengths = np.array([round(s * RATE) for s in seconds])
    total = int(lengths.sum())
    assert total < 32_767
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    names = names or [f"set{i % 3}/clip{i}.wav" for i in range(len(seconds))]
    samples = np.arange(1, total + 1).astype(np.int16)
    rows = np.arange(len(seconds))
    return Waveforms(samples, rows, starts, lengths, tuple(names), [], RATE)


def places(views: torch.Tensor) -> np.ndarray:
    """(..., N) -> (..., N) the numbers of the samples; 0 where there is no sound."""
    return (views.double() * 32767).round().long().numpy()


def heard(batches: CropBatches, batch: Batch) -> list[tuple[int, int]]:
    """(item, segment's first sample) of each row, from the samples alone."""
    found = []
    for row in places(batch.waveforms):
        first = row[row > 0].min() - 1
        item = int(np.searchsorted(batches.waveforms.starts, first, side="right")) - 1
        inside = first - batches.waveforms.starts[item]
        mine = batches.starts[batches.items == item]
        found.append((item, int(mine[mine <= inside].max())))
    return found


def same(a: Batch, b: Batch) -> bool:
    pairs = [(a.waveforms, b.waveforms), (a.partners, b.partners), (a.targets, b.targets)]
    equal = all(x is y is None or torch.equal(x, y) for x, y in pairs)
    return equal and list(a.names) == list(b.names) and a.rows == b.rows and a.size == b.size


FULL = {"batch_size": 8, "crop_s": 0.2, "partners": True}


def full(seed: int = 0, **more) -> CropBatches:
    seconds = [1.0, 0.1, 0.7, 0.3, 1.3, 0.5, 0.9, 0.25, 1.1, 0.6, 0.8, 0.4]
    targets = np.arange(12) * 10
    return CropBatches(ramps(seconds), seed=seed, **{"targets": targets, **FULL, **more})


# --- a batch is known from its number --------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"jitter_s": 0.1}, {"neighbours": 3}, {"balance": True}])
def test_a_batch_is_a_function_of_its_number(more):
    one, other = full(**more), full(**more)
    backwards = {step: other.batch(step) for step in reversed(range(5))}
    for step in range(5):
        assert same(one.batch(step), backwards[step])
        assert same(one.batch(step), one.batch(step))
    for a, b in ((one.batch(0), one.batch(1)), (one.batch(2), full(seed=1, **more).batch(2))):
        assert not torch.equal(a.waveforms, b.waveforms)
        assert not torch.equal(a.partners, b.partners)


def test_shapes_are_as_said():
    batch = full(views=3).batch(0)
    assert batch.waveforms.shape == batch.partners.shape == (8, 3, 200)
    assert batch.waveforms.dtype == batch.partners.dtype == torch.float32
    assert batch.size == 8
    assert full(views=3).seconds_per_item == pytest.approx(0.6)
    assert full(partners=False).batch(0).partners is None
    assert CropBatches(ramps([1.0]), batch_size=1, crop_s=0.1).batch(0).targets is None


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("more", [{}, {"jitter_s": 0.1, "neighbours": 2}, {"balance": True}])
def test_shares_put_together_are_the_joint_batch(world, more):
    batches = full(**more)
    for step in (0, 3):
        joint = batches.batch(step)
        shares = [full(**more).batch(step, rank, world) for rank in range(world)]
        rows = [row for share in shares for row in range(8)[share.rows]]
        assert rows == list(range(8))
        assert all(share.size == 8 for share in shares)
        for name in ("waveforms", "partners", "targets"):
            parts = torch.cat([getattr(share, name) for share in shares])
            assert torch.equal(parts, getattr(joint, name))
        assert [name for share in shares for name in share.names] == list(joint.names)


def test_a_batch_that_cannot_be_dealt_out_is_refused():
    with pytest.raises(OssicleError, match="8 items cannot be dealt out to 3 processes"):
        full().batch(0, 0, 3)


class Slow(CropBatches):
    """Others come in between wherever the order of an epoch is looked up or kept."""

    @property
    def _epoch(self):
        time.sleep(5e-4)
        return self.kept

    @_epoch.setter
    def _epoch(self, value):
        self.kept = value
        time.sleep(5e-4)


def test_loaders_may_ask_at_once():
    """Of several epochs, so that the order that is kept changes under them."""
    steps = [0, 9, 1, 5, 2, 7, 3, 8] * 4
    alone = {step: full(neighbours=2).batch(step) for step in set(steps)}
    batches = Slow(full().waveforms, neighbours=2, targets=full().targets, **FULL)
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(batches.batch, steps))
    assert all(same(batch, alone[step]) for step, batch in zip(steps, got, strict=True))


# --- epochs ----------------------------------------------------------------------------------


def test_an_epoch_has_each_segment_once():
    batches = CropBatches(ramps([1.0] * 12), batch_size=4, crop_s=0.2)
    assert batches.steps_per_epoch == 3
    orders = []
    for epoch in range(4):
        steps = range(3 * epoch, 3 * epoch + 3)
        orders.append([pair for step in steps for pair in heard(batches, batches.batch(step))])
        assert sorted(orders[-1]) == [(i, 0) for i in range(12)]
    assert len({tuple(order) for order in orders}) == 4


def test_what_does_not_fill_a_batch_waits():
    batches = CropBatches(ramps([1.0] * 11), batch_size=4, crop_s=0.2)
    assert batches.steps_per_epoch == 2
    left = set()
    for epoch in range(30):
        pairs = [p for s in (0, 1) for p in heard(batches, batches.batch(2 * epoch + s))]
        assert len(set(pairs)) == 8
        left |= {(i, 0) for i in range(11)} - set(pairs)
    # Not always the same ones.
    assert left == {(i, 0) for i in range(11)}


def test_long_recordings_are_cut_into_equal_segments():
    waveforms = ramps([25.0, 0.05, 3.0])
    batches = CropBatches(waveforms, batch_size=5, crop_s=0.5, jitter_s=None)
    lengths = (batches.ends - batches.starts)[batches.items == 0]
    assert len(lengths) == 3  # the fewest of at most 10 s
    assert lengths.max() - lengths.min() <= 1
    assert lengths.max() <= 10 * RATE
    # They cover the recording, and an hour of music counts as often as an hour of words.
    assert batches.starts[:3].tolist() == [0, *batches.ends[:2].tolist()]
    assert batches.ends[2] == 25 * RATE
    assert Counter(batches.items.tolist()) == {0: 3, 1: 1, 2: 1}
    exact = CropBatches(ramps([10.0, 20.0]), batch_size=3, crop_s=0.5)
    assert (exact.ends - exact.starts).tolist() == [10_000] * 3
    # Crops do not reach out of their segment.
    edges = batches.ends + waveforms.starts[batches.items]
    firsts = batches.starts + waveforms.starts[batches.items]
    for step in range(40):
        for view in places(batches.batch(step).waveforms).reshape(-1, 500):
            sounding = view[view > 0] - 1
            segment = np.searchsorted(firsts, sounding[0], side="right") - 1
            assert sounding[-1] < edges[segment]


@pytest.mark.parametrize("neighbours", [2, 4])
def test_neighbours_come_in_blocks_of_one_folder(neighbours):
    names = [f"room{i // 8}/{i}.wav" for i in np.random.default_rng(0).permutation(24)]
    waveforms = ramps([1.0] * 24, names)
    batches = CropBatches(waveforms, batch_size=8, crop_s=0.2, neighbours=neighbours)
    orders = []
    for epoch in range(3):
        told = [n for step in range(3) for n in batches.batch(3 * epoch + step).names]
        assert sorted(told) == sorted(names)
        for i in range(0, 24, neighbours):
            assert len({n.split("/")[0] for n in told[i : i + neighbours]}) == 1
        orders.append(told)
    # Blocks and what is in them change with the epoch.
    blocks = [
        {frozenset(told[i : i + neighbours]) for i in range(0, 24, neighbours)} for told in orders
    ]
    assert blocks[0] != blocks[1] != blocks[2]
    rooms = [[told[i].split("/")[0] for i in range(0, 24, neighbours)] for told in orders]
    assert rooms[0] != rooms[1] != rooms[2]
    mixed = CropBatches(waveforms, batch_size=8, crop_s=0.2).batch(0).names
    assert len({n.split("/")[0] for n in mixed[:neighbours] + mixed[neighbours:]}) > 1


def test_folders_that_do_not_fill_a_block_lose_nothing():
    names = ["a/0", "a/1", "a/2", "b/3", "c/4", "c/5"]
    batches = CropBatches(ramps([1.0] * 6, names), batch_size=6, crop_s=0.2, neighbours=2)
    told = list(batches.batch(0).names)
    assert sorted(told) == names
    assert abs(told.index("c/4") - told.index("c/5")) == 1


# --- where the views lie ---------------------------------------------------------------------


def test_views_lie_within_jitter():
    batches = CropBatches(
        ramps([9.0, 9.0, 9.0]), batch_size=3, crop_s=0.5, views=4, jitter_s=0.3, seed=1
    )
    spread, firsts = [], []
    for step in range(100):
        views = places(batches.batch(step).waveforms)
        assert (np.diff(views, axis=2) == 1).all()
        first = views[:, :, 0]
        spread += (first.max(1) - first.min(1)).tolist()
        firsts += ((first[:, 0] - 1) % 9000).tolist()
    assert max(spread) <= 300
    # All of it is used, and all of the recording is heard.
    assert max(spread) > 250
    assert min(spread) < 150
    assert min(firsts) < 300
    assert max(firsts) > 8500 - 300
    assert np.mean(firsts) == pytest.approx(4250, abs=4 * 8500 / 12**0.5 / 300**0.5)


def test_no_jitter_is_one_place_and_none_is_anywhere():
    data = ramps([9.0, 9.0])
    at_once = CropBatches(data, batch_size=2, crop_s=0.5, jitter_s=0.0)
    anywhere = CropBatches(data, batch_size=2, crop_s=0.5, jitter_s=None)
    apart = []
    for step in range(100):
        a, b = places(at_once.batch(step).waveforms)[:, :, 0].T
        assert np.array_equal(a, b)
        a, b = places(anywhere.batch(step).waveforms)[:, :, 0].T
        apart += np.abs(a - b).tolist()
    assert max(apart) > 5000
    # Two even draws on 8.5 s lie a third of it apart on average.
    assert np.mean(apart) == pytest.approx(8500 / 3, rel=0.15)


@pytest.mark.parametrize("jitter_s", [None, 0.05, 5.0])
def test_short_clips_lie_whole_within_zeros(jitter_s):
    waveforms = ramps([0.1, 0.1])
    batches = CropBatches(
        waveforms, batch_size=2, crop_s=0.4, jitter_s=jitter_s, partners=True, seed=2
    )
    offsets = []
    for step in range(60):
        batch = batches.batch(step)
        for view in places(torch.cat([batch.waveforms, batch.partners])).reshape(-1, 400):
            sounding = np.flatnonzero(view)
            assert len(sounding) == 100
            assert (np.diff(view[sounding]) == 1).all()
            assert (view[sounding[0]] - 1) % 100 == 0
            offsets.append(sounding[0])
    assert min(offsets) >= 0
    assert max(offsets) <= 300
    assert max(offsets) - min(offsets) > 250


@pytest.mark.parametrize("jitter_s", [None, 0.05])
def test_short_clips_come_over_and_over_where_the_network_has_them_so(jitter_s):
    waveforms = ramps([0.15, 9.0])
    batches = CropBatches(
        waveforms, batch_size=2, crop_s=0.4, jitter_s=jitter_s, partners=True, fill="repeat"
    )
    once = np.arange(1, 151)
    for step in range(10):
        batch = batches.batch(step)
        for view in places(torch.cat([batch.waveforms, batch.partners])).reshape(-1, 400):
            if view[0] <= 150:
                assert view.tolist() == [*once, *once, *once[:100]]
            else:
                assert (np.diff(view) == 1).all()


def test_a_crop_longer_than_segments_makes_them_longer():
    batches = CropBatches(ramps([24.0]), batch_size=1, crop_s=12.0)
    assert (batches.ends - batches.starts).tolist() == [12_000] * 2
    assert (np.diff(places(batches.batch(0).waveforms)) == 1).all()


def test_a_crop_of_the_whole_clip_is_the_clip():
    batch = CropBatches(ramps([0.4]), batch_size=1, crop_s=0.4).batch(0)
    assert np.array_equal(places(batch.waveforms)[0], [np.arange(1, 401)] * 2)


def test_partners_are_of_all_recordings_and_of_their_own_place():
    batches = full()
    seen, firsts = Counter(), set()
    for step in range(100):
        batch = batches.batch(step)
        for view in places(batch.partners).reshape(-1, 200):
            number = view.max() - 1
            seen[int(np.searchsorted(batches.waveforms.starts, number, side="right")) - 1] += 1
            firsts.add(int(number))
    assert set(seen) == set(range(12))
    assert min(seen.values()) > 1600 / 12 * 0.6
    assert len(firsts) > 500


# --- targets ---------------------------------------------------------------------------------


def test_targets_follow_items():
    waveforms = ramps([11.0, 0.5, 0.7, 12.0])
    tags = np.eye(4, dtype=np.float32)[:, ::-1].copy()
    for targets in (np.array([7, 5, 3, 1]), tags):
        batches = CropBatches(waveforms, batch_size=6, crop_s=0.2, targets=targets)
        for step in range(4):
            batch = batches.batch(step)
            items = [item for item, _ in heard(batches, batch)]
            assert sorted(items) == [0, 0, 1, 2, 3, 3]
            assert batch.targets.numpy().tolist() == targets[items].tolist()
            assert list(batch.names) == [waveforms.names[item] for item in items]


def drawn(targets: np.ndarray, steps: int = 150) -> np.ndarray:
    """(16 * steps,) items, balanced."""
    waveforms = ramps([0.3] * len(targets))
    batches = CropBatches(waveforms, batch_size=16, crop_s=0.1, targets=targets, balance=True)
    numbers = [int(n.split("clip")[1][:-4]) for s in range(steps) for n in batches.batch(s).names]
    return np.array(numbers)


def check(counts: np.ndarray, expected: np.ndarray) -> None:
    """Pearson's chi-square, far beyond its 99.99 % point for up to 40 cells."""
    assert (np.asarray(counts)[np.asarray(expected) == 0] == 0).all()
    live = np.asarray(expected) > 0
    chi_square = ((counts - expected)[live] ** 2 / expected[live]).sum()
    degrees = live.sum() - 1
    assert chi_square < degrees + 5 * (2 * degrees) ** 0.5


def test_balance_draws_classes_equally():
    targets = np.repeat([0, 1, 2, 4], [30, 6, 3, 1])  # nothing has class 3
    items = drawn(targets)
    n = len(items)
    check(np.bincount(targets[items], minlength=5), n / 4 * np.array([1, 1, 1, 0, 1]))
    # Within a class all alike.
    check(np.bincount(items, minlength=40), n / 4 / np.repeat([30, 6, 3, 1], [30, 6, 3, 1]))


def test_balance_keeps_the_share_of_what_has_no_label():
    targets = np.array([0] * 20 + [1] * 4 + [-1] * 16)
    items = drawn(targets)
    n = len(items)
    expected = np.repeat([0.3 / 20, 0.3 / 4, 0.4 / 16], [20, 4, 16]) * n
    check(np.bincount(items, minlength=40), expected)
    check(np.bincount(drawn(np.full(20, -1)), minlength=20), np.full(20, n / 20))


def test_balance_of_tags():
    """A tag, or "none of them", all alike; then one of those that have it."""
    tags = np.zeros((40, 3), np.float32)
    tags[:24, 0] = 1
    tags[20:30, 1] = 1  # four have both
    tags[30:36] = np.nan  # six are not labelled; the last four have none of the tags
    kinds = [np.arange(24), np.arange(20, 30), np.arange(36, 40)]
    chance = np.zeros(40)
    for mine in kinds:
        chance[mine] += 1 / 3 / len(mine)
    chance *= 34 / 40
    chance[30:36] = 1 / 40
    items = drawn(tags)
    check(np.bincount(items, minlength=40), chance * len(items))


def test_balance_counts_segments():
    waveforms = ramps([15.0, 1.0, 1.0])
    batches = CropBatches(
        waveforms, batch_size=4, crop_s=0.1, targets=np.array([0, 1, 1]), balance=True
    )
    names = [n for step in range(300) for n in batches.batch(step).names]
    check(np.array([names.count(n) for n in waveforms.names]), 1200 * np.array([0.5, 0.25, 0.25]))


# --- what cannot be --------------------------------------------------------------------------


def test_too_little_data_is_told():
    with pytest.raises(DataError, match="a batch has 4 items, the recordings have 3 segments"):
        CropBatches(ramps([1.0] * 3), batch_size=4, crop_s=0.2)
    CropBatches(ramps([1.0, 21.0]), batch_size=4, crop_s=0.2)


@pytest.mark.parametrize(
    "wrong",
    [{"batch_size": 0}, {"crop_s": 0}, {"crop_s": -1.0}, {"views": 0}, {"neighbours": 0}],
)
def test_sizes_must_be_above_zero(wrong):
    with pytest.raises(OssicleError, match="must be above zero"):
        full(**wrong)


@pytest.mark.parametrize("crop_s", [float("nan"), float("inf"), 1e-9])
def test_a_crop_is_a_length(crop_s):
    with pytest.raises(OssicleError, match="crop"):
        full(crop_s=crop_s)


def test_what_has_no_classes_cannot_be_balanced():
    with pytest.raises(OssicleError, match="where there are none"):
        CropBatches(ramps([1.0] * 4), batch_size=2, crop_s=0.2, balance=True)
    with pytest.raises(OssicleError, match="no classes to balance"):
        full(targets=np.linspace(0, 1, 12, dtype=np.float32), balance=True)
