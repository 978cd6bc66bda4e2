"""A denoiser that learns from what another one heard: the same stretches, the target it should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ossicle import audio
from ossicle.denoise.data import Decoded, RecordingBatches, decode, read_recordings
from ossicle.denoise.fit import fit_partitioned_autoencoder
from ossicle.denoise.objective import PartitionedTraining
from ossicle.denoise.settings import AutoencoderSettings
from ossicle.denoise.teacher import foregrounds
from ossicle.errors import OssicleError
from ossicle.separators.base import Separator
from ossicle.separators.partitioned_autoencoder import PartitionedAutoencoder
from ossicle.train import Batch, Step

RATE = 8000


class Half(Separator):
    """Takes the first half of the samples it is given for the foreground."""

    def __init__(self) -> None:
        super().__init__(RATE, ["foreground", "background"])

    def separate(self, samples: torch.Tensor, n_sources: int | None = None) -> torch.Tensor:
        kept = samples.clone()
        kept[..., samples.shape[-1] // 2 :] = 0
        return torch.stack([kept, samples - kept])


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("places")
    rng = np.random.default_rng(0)
    for kind, count in (("noisy", 6), ("noise", 4)):
        for i in range(count):
            path = folder / kind / f"{i}.wav"
            path.parent.mkdir(exist_ok=True)
            samples = (0.1 * rng.standard_normal((1, 6000 + 500 * i))).astype(np.float32)
            audio.save(path, audio.Audio(samples, RATE))
    return folder / "noisy", folder / "noise"


@pytest.fixture(scope="module")
def train(places: tuple[Path, Path]) -> Decoded:
    recordings = read_recordings(places[0], noise=places[1], groups="none")
    return decode(recordings, RATE)[0]


def test_foregrounds_are_what_the_teacher_hears_of_each_recording(train: Decoded) -> None:
    found = foregrounds(Half(), train.noisy)
    assert found.names == train.noisy.names
    np.testing.assert_array_equal(found.lengths, train.noisy.lengths)
    for item, length in enumerate(found.lengths.tolist()):
        heard = train.noisy.read(item, 0, length)
        expected = np.where(np.arange(length) < length // 2, heard, 0)
        np.testing.assert_allclose(found.read(item, 0, length), expected, atol=2e-5)


def test_batches_give_the_same_stretch_of_the_foreground(train: Decoded) -> None:
    plain, taught = (
        RecordingBatches(train, batch_size=8, crop_s=0.2, foregrounds=given, seed=1)
        for given in (None, foregrounds(Half(), train.noisy))
    )
    kept = 0
    for step in range(5):
        before, after = plain.batch(step), taught.batch(step)
        assert before.names == after.names
        assert before.targets is not None
        for one, other, noisy in zip(
            before.waveforms.numpy(), after.waveforms.numpy(), before.targets, strict=True
        ):
            np.testing.assert_array_equal(one[1], other[1])  # noise like the recording's
            if not noisy:
                np.testing.assert_array_equal(one[0], other[0])
                continue
            same = np.abs(one[0] - other[0]) < 1e-4
            assert (same | (np.abs(other[0]) < 1e-6)).all()
            kept += bool(same.mean() > 0.9)
    assert kept > 2


def _loss(net: PartitionedAutoencoder, taught: bool, waveforms: torch.Tensor) -> float:
    training = PartitionedTraining(net, penalty=0.0, remix=1.0, even=0.0, taught=taught)
    batch = Batch(waveforms, ["a", "b"], slice(0, 2), 2, targets=torch.tensor([1, 0]))
    step = Step(0, 1, torch.Generator().manual_seed(0), 2, slice(0, 2), lambda x: x)
    return float(training(batch, step)[1]["remix"])


def test_the_target_is_the_foreground_where_it_is_taught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    waveforms = torch.from_numpy(rng.standard_normal((2, 2, 4000)).astype(np.float32))
    net = PartitionedAutoencoder(RATE)
    monkeypatch.setattr(net, "share", lambda ours, theirs: torch.full_like(ours, 0.5))

    def spectrum(samples: np.ndarray) -> np.ndarray:
        return net.fourier.analyse(torch.from_numpy(samples)).numpy().astype(np.complex128)

    expected = {True: 0.0, False: 0.0}
    for item, noisy in ((0, 1), (1, 0)):
        first, second = waveforms[item].numpy()
        heard = spectrum(first + second)
        for taught, wanted in ((True, first), (False, first - second)):
            target = noisy * spectrum(wanted)
            error = np.square(np.abs(0.5 * heard - target)) - np.square(np.abs(target))
            expected[taught] += error.sum() / np.square(np.abs(heard)).sum() / 2
    for taught in (True, False):
        assert _loss(net, taught, waveforms) == pytest.approx(expected[taught], rel=1e-3)
    assert expected[True] != pytest.approx(expected[False], rel=0.1)


def test_the_round_of_the_best_alignment_is_taken(places: tuple[Path, Path]) -> None:
    recordings = read_recordings(places[0], noise=places[1], groups="none")
    settings = AutoencoderSettings(
        sample_rate=RATE, steps=2, judge_every=0, batch_size=4, crop_s=0.4, n_valid=2, valid_s=0.5,
        width=8, rounds=3, gates=(0.0,),
    )  # fmt: skip
    found = fit_partitioned_autoencoder(recordings, settings)
    chosen = found.info["chosen"]
    told = chosen["alignment_of_rounds"]
    assert len(told) == 3
    assert chosen["round"] == 1 + int(np.argmax(told))
    assert chosen["alignment"] == max(told)
    assert found.info["steps"] == 6
    with pytest.raises(OssicleError, match="teacher 'parrot'"):
        AutoencoderSettings(teacher="parrot").check()


def test_whitened_bands_know_no_colour(train: Decoded) -> None:
    net = PartitionedAutoencoder(RATE, whiten=0.5)
    sound = torch.from_numpy(train.noisy.read(0, 0, 6000))
    spectrum = net.fourier.analyse(sound)
    colour = torch.linspace(1.0, 3.0, len(spectrum))[:, None]
    # Bands are a few bins wide: within them a colour changes a little.
    torch.testing.assert_close(net.bands(spectrum * colour), net.bands(spectrum), rtol=0.1, atol=0)
    power = net.bands(spectrum).square()
    place = int(np.ceil(0.5 * power.shape[-1])) - 1
    middle = np.sort(power.numpy(), -1)[:, place]
    np.testing.assert_allclose(middle, 1, rtol=1e-4)
    assert not np.isnan(net.bands(torch.zeros_like(spectrum)).numpy()).any()
