"""Batches of synthetic pairs: shares of processes, mixtures with recordings, labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ossicle.errors import OssicleError
from ossicle.pretrain.crops import CropBatches
from ossicle.pretrain.synthesiser import RandomSynthesiser
from ossicle.pretrain.synthetic import SyntheticBatches
from ossicle.pretrain.waveforms import Waveforms
from ossicle.train import Batch

RATE = 8000
CROP_S = 0.1
N = 800


def recordings(n: int = 12) -> Waveforms:
    """Recording i is i + 1 all over, in steps of 1 / 32767."""
    samples = np.repeat(np.arange(1, n + 1), 2 * N).astype(np.int16)
    names = tuple(f"{i}.wav" for i in range(n))
    starts = 2 * N * np.arange(n)
    return Waveforms(samples, np.arange(n), starts, np.full(n, 2 * N), names, [], RATE)


def real(size: int = 8, targets: np.ndarray | None = None, **more) -> CropBatches:
    more = {"partners": True, **more}
    return CropBatches(recordings(), batch_size=size, crop_s=CROP_S, targets=targets, **more)


def synthetic(size: int = 8, **more) -> SyntheticBatches:
    return SyntheticBatches(RATE, batch_size=size, crop_s=CROP_S, **{"partners": True, **more})


def same(a: Batch, b: Batch) -> bool:
    pairs = [(a.waveforms, b.waveforms), (a.partners, b.partners)]
    return all(torch.equal(x, y) for x, y in pairs) and list(a.names) == list(b.names)


def test_a_batch_is_a_function_of_its_number():
    one, other = synthetic(seed=3), synthetic(seed=3)
    backwards = {step: other.batch(step) for step in (2, 1, 0)}
    for step in range(3):
        assert same(one.batch(step), backwards[step])
    assert not same(one.batch(0), one.batch(1))
    assert not same(one.batch(0), synthetic(seed=4).batch(0))
    batch = one.batch(0)
    assert batch.waveforms.shape == batch.partners.shape == (8, 2, N)
    assert batch.names == ["synthetic"] * 8
    assert batch.size == 8
    assert batch.targets is None
    assert one.seconds_per_item == pytest.approx(0.2)
    assert one.steps_per_epoch > 0


def test_pairs_are_those_of_the_synthesiser():
    """As near to each other as delta says, and far from the others."""
    for delta, low, high in ((0.0, 0.0, 0.0), (0.05, 1e-4, 1.0), (1.0, 0.3, 10.0)):
        batch = synthetic(16, delta=delta).batch(0)
        a, b = (spectrum(batch.waveforms[:, v]) for v in (0, 1))
        apart = float((a - b).abs().mean(1).median())
        assert low <= apart <= high, delta
        others = float((a - b.roll(1, 0)).abs().mean(1).median())
        assert others > 0.3
    assert float(batch.waveforms.abs().max()) <= 1
    assert (batch.waveforms.abs().amax(2) > 0.05).all()
    # The same numbers as anybody draws from that class.
    sounds = RandomSynthesiser(RATE, CROP_S)
    first, _ = sounds.pairs(1, 0.0, torch.Generator().manual_seed(0))
    assert first.shape == (1, N)


def spectrum(x: torch.Tensor) -> torch.Tensor:
    """(b, N) -> (b, bins) log levels of a normalised sound."""
    power = torch.fft.rfft(x / x.norm(dim=1, keepdim=True)).abs().square()
    return (torch.nn.functional.avg_pool1d(power, 8) + 1e-3).log()


def test_partners_are_other_sounds():
    batch = synthetic().batch(0)
    for row in range(8):
        for view in range(2):
            matches = (batch.waveforms[:, view] == batch.partners[row, view]).all(1)
            assert matches.nonzero()[:, 0].tolist() == [(row - 1) % 8]
    assert synthetic(partners=False).batch(0).partners is None


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("share", [None, 0.5, 1.0])
def test_shares_of_processes_put_together_are_the_joint_batch(world, share):
    def made() -> SyntheticBatches:
        if share is None:
            return synthetic()
        return synthetic(real=real(targets=np.arange(12)), share=share)

    joint = made().batch(5)
    parts = [made().batch(5, rank, world) for rank in range(world)]
    assert [row for part in parts for row in range(8)[part.rows]] == list(range(8))
    assert all(part.size == 8 for part in parts)
    for name in ("waveforms", "partners", "targets"):
        if getattr(joint, name) is not None:
            assert torch.equal(torch.cat([getattr(p, name) for p in parts]), getattr(joint, name))
    assert [name for part in parts for name in part.names] == list(joint.names)


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.2, 2), (0.5, 4), (0.99, 8), (1.0, 8)])
def test_the_rest_are_recordings(share, count):
    source = real(targets=np.arange(12) * 10)
    batch = synthetic(real=source, share=share).batch(3)
    plain = source.batch(3)
    assert batch.waveforms.shape == (8, 2, N)
    assert torch.equal(batch.waveforms[count:], plain.waveforms[count:])
    assert torch.equal(batch.partners[count:], plain.partners[count:])
    assert list(batch.names) == ["synthetic"] * count + list(plain.names[count:])
    assert batch.targets.tolist() == [-1] * count + plain.targets[count:].tolist()
    # What is synthetic is no recording, and what is none has its own label.
    flat = batch.waveforms.amax(2) == batch.waveforms.amin(2)
    assert flat.all(1).tolist() == [False] * count + [True] * (8 - count)
    for row in range(count, 8):
        number = round(float(batch.waveforms[row, 0, 0]) * 32767) - 1
        assert int(batch.targets[row]) == 10 * number
        assert batch.names[row] == f"{number}.wav"


def test_tags_of_what_is_synthetic_are_not_known():
    tags = np.eye(12, dtype=np.float32)
    source = real(targets=tags)
    batch = synthetic(real=source, share=0.25).batch(0)
    assert batch.targets[:2].isnan().all()
    assert torch.equal(batch.targets[2:], source.batch(0).targets[2:])
    # The recordings' own labels stay as they are.
    assert not np.isnan(tags).any()


def test_without_labels_there_are_none():
    assert synthetic(real=real(), share=0.5).batch(0).targets is None


def test_an_epoch_is_that_of_the_recordings():
    source = real(4)
    assert synthetic(4, real=source, share=0.5).steps_per_epoch == source.steps_per_epoch == 3


def test_one_view_is_no_pair():
    with pytest.raises(OssicleError, match="compare two views"):
        synthetic(real=real(views=1), share=0.5)


@pytest.mark.parametrize("wrong", [{"size": 4}, {"partners": False}])
def test_batches_that_do_not_fit_together_are_refused(wrong):
    with pytest.raises(OssicleError, match="alike"):
        synthetic(real=real(**wrong), share=0.5)
    with pytest.raises(OssicleError, match="alike"):
        SyntheticBatches(RATE, batch_size=8, crop_s=0.2, partners=True, real=real(), share=0.5)


def test_what_cannot_be_made_is_told():
    with pytest.raises(OssicleError, match="8000"):
        SyntheticBatches(4000, batch_size=2, crop_s=0.1)
    with pytest.raises(OssicleError, match="delta"):
        synthetic(delta=1.5).batch(0)
    with pytest.raises(OssicleError, match="8 items cannot be dealt out to 3 processes"):
        synthetic().batch(0, 0, 3)
