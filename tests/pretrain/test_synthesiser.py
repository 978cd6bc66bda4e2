"""The random synthesiser: settings that are heard, pairs that are near, sounds that differ."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import torch

from ossicle.errors import OssicleError
from ossicle.pretrain import synthesiser
from ossicle.pretrain.synthesiser import SHARED, VOICE, RandomSynthesiser

RATE = 16_000


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def synth() -> RandomSynthesiser:
    return RandomSynthesiser(RATE, 0.64)


@pytest.fixture(scope="module")
def params(synth) -> torch.Tensor:
    return synth.draw(64, seeded(0))


@pytest.fixture(scope="module")
def sounds(synth, params) -> torch.Tensor:
    return synth.render(params)


def position(name: str, value: float) -> float:
    """Where on its way from 0 to 1 a parameter has a value: by bisection."""
    kind = next(p for p in (*VOICE, *SHARED) if p.name == name)
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if kind.value(torch.tensor(middle, dtype=torch.float64)) < value:
            low = middle
        else:
            high = middle
    return low


def one_voice(synth: RandomSynthesiser, n: int = 1, **values: float) -> torch.Tensor:
    """(n, P) a steady tone, with other settings where they are named, the same in all voices."""
    plain = {
        "level_db": 0,
        "noise_share": 0,
        "frequency_hz": 440,
        "glide_octaves": 0,
        "tilt": 3,
        "even_share": 1,
        "phase": 0,
        "vibrato_hz": 5,
        "vibrato_octaves": 0,
        "fm_ratio": 1,
        "fm_index": 0,
        "tremolo_hz": 4,
        "tremolo_depth": 0,
        "noise_hz": 1000,
        "noise_octaves": 0.1,
        "start": 0,
        "repeats_hz": 0.4,
        "attack_s": 0.001,
        "decay_s": 0.1,
        "sustain": 1,
        "gate": 1,
        "release_s": 0.5,
        "peak_db": -6,
        "seed": 0.3,
    } | values
    row = [position(name.split(".")[-1], plain[name.split(".")[-1]]) for name in synth.parameters]
    return torch.tensor(row).repeat(n, 1)


def spectrum(x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies (Hz) and power of one sound."""
    y = x.double().numpy()
    return np.fft.rfftfreq(len(y), 1 / RATE), np.abs(np.fft.rfft(y * np.hanning(len(y)))) ** 2


def envelope_of(x: torch.Tensor) -> np.ndarray:
    """Of a tone of 2,000 Hz: without the ripple of its harmonics, a period of 8 samples."""
    envelope = np.abs(scipy.signal.hilbert(x.double().numpy()))
    return np.convolve(envelope, np.ones(8) / 8, "same")


def log_stft(x: torch.Tensor) -> np.ndarray:
    _, _, values = scipy.signal.stft(x.numpy(), RATE, nperseg=512)
    return np.log(np.abs(values) + 1e-4)


def test_sounds_are_finite_within_one_and_not_silent(synth, params, sounds):
    assert sounds.shape == (64, round(0.64 * RATE))
    assert sounds.dtype == torch.float32
    assert torch.isfinite(sounds).all()
    peak_db = synth.settings(params)["peak_db"]
    assert torch.allclose(20 * sounds.abs().amax(1).log10(), peak_db, atol=1e-3)
    assert sounds.abs().max() <= 1
    assert sounds.square().mean(1).min() > 1e-6


@pytest.mark.parametrize("edge", [0.0, 1.0])
@pytest.mark.parametrize("sample_rate", [8000, 48_000])
def test_the_corners_sound_too(edge, sample_rate):
    synth = RandomSynthesiser(sample_rate, 0.1)
    size = len(synth.parameters)
    corners = torch.full((size + 1, size), 1 - edge)
    corners[1:] += (2 * edge - 1) * torch.eye(size)  # one at the other end
    x = synth.render(corners)
    assert x.shape == (size + 1, round(0.1 * sample_rate))
    assert torch.isfinite(x).all()
    assert x.abs().amax(1).min() > 0.09
    assert x.abs().max() <= 1


def test_seeds_reproduce(synth, params, sounds):
    assert torch.equal(synth.draw(64, seeded(0)), params)
    assert not torch.equal(synth.draw(64, seeded(1)), params)
    torch.manual_seed(9)  # the global generator has no say
    assert torch.equal(synth.render(params), sounds)


@pytest.mark.parametrize("part", [slice(0, 1), slice(5, 6), slice(3, 13), slice(63, 64)])
def test_a_sound_does_not_depend_on_its_neighbours(synth, params, sounds, part):
    assert torch.equal(synth.render(params[part]), sounds[part])


def test_pairs_without_perturbation_are_identical(synth):
    a, b = synth.pairs(6, 0.0, seeded(0))
    assert torch.equal(a, b)
    assert torch.equal(a, synth.render(synth.draw(6, seeded(0))))


def test_perturbation_stays_within_delta_and_range(synth):
    params = synth.draw(400, seeded(0))
    for delta in (0.05, 0.25, 1.0):
        moved = synth.perturb(params, delta, seeded(1))
        assert moved.min() >= 0
        assert moved.max() <= 1
        away = (moved - params).abs()
        assert 0.95 * delta < away.max() <= delta + 1e-6
        assert (moved - params).mean().abs() < 0.02  # neither up nor down


def test_distance_grows_with_delta(synth, params, sounds):
    near = log_stft(sounds)
    distances = []
    for delta in (0.0, 0.02, 0.1, 0.25, 0.5, 1.0):
        moved = synth.render(synth.perturb(params, delta, seeded(1)))
        distances.append(float(np.abs(log_stft(moved) - near).mean()))
    assert distances[0] == 0
    assert all(a < b for a, b in zip(distances, distances[1:], strict=False))
    unrelated = float(np.abs(np.roll(near, 1, axis=0) - near).mean())
    assert distances[3] < 0.85 * unrelated  # a pair at 0.25 is nearer than two strangers


def test_spectra_are_diverse(sounds):
    centroids, flatness = [], []
    for x in sounds:
        hz, power = spectrum(x)
        centroids.append((hz * power).sum() / power.sum())
        smooth = power[1:].reshape(-1, 16).mean(1) + 1e-12
        flatness.append(np.exp(np.log(smooth).mean()) / smooth.mean())
    assert np.percentile(centroids, 10) < 600
    assert np.percentile(centroids, 90) > 2500
    assert np.percentile(flatness, 10) < 0.01  # tones
    assert np.percentile(flatness, 90) > 0.15  # noises


@pytest.mark.parametrize("hz", [100.0, 440.0, 3000.0])
def test_a_tone_has_its_frequency_and_harmonics(synth, hz):
    frequencies, power = spectrum(synth.render(one_voice(synth, frequency_hz=hz, tilt=1))[0])
    step = frequencies[1]

    def level(at: float) -> float:
        near = np.abs(frequencies - at) <= 3 * step
        return float(power[near].sum())

    assert abs(frequencies[power.argmax()] - hz) <= step
    for k in range(2, 25):
        if k * hz >= RATE / 2:
            break
        assert abs(level(k * hz) / level(hz) * k**2 - 1) < 0.05, k  # amplitude 1 / k
    total = sum(level(k * hz) for k in range(1, 25) if k * hz < RATE / 2)
    assert total > 0.995 * power.sum()  # nothing folds back


def test_a_tone_is_a_sum_of_sines(synth):
    """In phase, sample by sample; the first 10 ms have the attack."""
    x = synth.render(one_voice(synth, frequency_hz=313, tilt=1.2, even_share=0.5, phase=0.2))
    k = np.arange(1, 25)[:, None]
    amplitude = k**-1.2 * np.where(k % 2 == 0, 0.5, 1)
    periods = 313 * (1 + np.arange(x.shape[1])) / RATE + 0.2
    want = (amplitude * np.sin(2 * np.pi * k * periods)).sum(0)[160:]
    got = x[0].double().numpy()[160:]
    assert np.allclose(got / got.std(), want / want.std(), atol=5e-3)


def test_vibrato(synth):
    values = {"frequency_hz": 2000, "vibrato_hz": 8, "vibrato_octaves": 0.2, "even_share": 0}
    x = synth.render(one_voice(synth, **values))[0].double().numpy()
    hz = np.diff(np.unwrap(np.angle(scipy.signal.hilbert(x)))) * RATE / (2 * np.pi)
    octaves = np.log2(np.convolve(hz, np.ones(80) / 80, "same") / 2000)[1600:-1600]
    t = np.arange(1600, 1600 + len(octaves)) / RATE
    assert np.abs(octaves - 0.2 * np.sin(2 * np.pi * 8 * t)).max() < 0.02


def test_gate_and_release(synth):
    """A repeat of 0.5 s sounds for 0.1 s, then falls by e every 0.05 s."""
    values = {"repeats_hz": 2, "gate": 0.2, "release_s": 0.05, "frequency_hz": 2000}
    envelope = envelope_of(synth.render(one_voice(synth, **values, even_share=0))[0])
    for at, want in ((0.05, 1), (0.15, np.exp(-1)), (0.2, np.exp(-2))):
        assert abs(envelope[round(at * RATE)] / envelope[round(0.08 * RATE)] - want) < 0.03, at


def test_repeats_end_without_a_click(synth):
    """The last 2 ms of a repeat fade to nothing."""
    x = synth.render(one_voice(synth, repeats_hz=5, attack_s=0.05, frequency_hz=2000))[0]
    envelope = envelope_of(x)
    end = round(0.2 * RATE)
    assert envelope[end - 4] < 0.2 * envelope[end - 100]
    assert abs(envelope[end - 16] / envelope[end - 100] - 0.5) < 0.05


def test_even_harmonics_can_be_left_out(synth):
    frequencies, power = spectrum(synth.render(one_voice(synth, even_share=0, tilt=1))[0])
    second = power[np.abs(frequencies - 880) < 5].sum()
    third = power[np.abs(frequencies - 1320) < 5].sum()
    assert second < 1e-4 * third


def test_a_glide_is_a_chirp(synth):
    x = synth.render(one_voice(synth, frequency_hz=400, glide_octaves=2))[0].double().numpy()
    phase = np.unwrap(np.angle(scipy.signal.hilbert(x)))
    octaves = np.log2(np.diff(phase) * RATE / (2 * np.pi) / 400)
    t = np.arange(len(octaves)) / len(octaves)
    middle = slice(1000, -1000)
    smooth = np.convolve(octaves, np.ones(200) / 200, "same")
    assert np.abs(smooth[middle] - 2 * t[middle]).max() < 0.1


def test_frequency_modulation_makes_sidebands(synth):
    """Bessel: index 2 at ratio 0.5 gives J_0(2), J_1(2), J_2(2) at f, f +- f/2, f +- f."""
    from scipy.special import jv

    values = {"frequency_hz": 2000, "fm_ratio": 0.25, "fm_index": 2, "even_share": 0}
    frequencies, power = spectrum(synth.render(one_voice(synth, **values))[0])

    def level(at: float) -> float:
        return float(power[np.abs(frequencies - at) < 8].sum())

    for order in (1, 2, 3):
        want = (jv(order, 2) / jv(0, 2)) ** 2
        assert abs(level(2000 + 500 * order) / level(2000) / want - 1) < 0.05


def test_noise_has_its_band(synth):
    values = {"noise_share": 1, "noise_hz": 2000, "noise_octaves": 0.1}
    frequencies, power = spectrum(synth.render(one_voice(synth, **values))[0])
    octaves = np.log2(np.maximum(frequencies, 1) / 2000)
    share = power / power.sum()
    assert abs((share * octaves).sum()) < 0.03
    # The bell is one of amplitudes: of powers its deviation is smaller by the root of 2.
    assert abs(np.sqrt((share * octaves**2).sum()) / (0.1 / np.sqrt(2)) - 1) < 0.2


@pytest.mark.parametrize("octaves", [0.1, 0.4])
def test_tone_and_noise_are_as_strong(synth, octaves):
    values = {"noise_share": 0.5, "frequency_hz": 300, "noise_hz": 3000, "noise_octaves": octaves}
    x = synth.render(one_voice(synth, **values, even_share=0))[0]
    frequencies, power = spectrum(x)
    # Three voices: their tones coincide, amplitudes add; their noises differ, powers add.
    ratio = power[frequencies < 1000].sum() / power[frequencies > 1000].sum()
    assert abs(ratio / 3 - 1) < 0.2


def test_no_glide_leaves_the_band(synth):
    """4,000 Hz and three octaves more stops at 45 % of the sample rate, below its half."""
    x = synth.render(one_voice(synth, frequency_hz=4000, glide_octaves=3))[0].double().numpy()
    frequencies, _, map_ = scipy.signal.stft(x, RATE, nperseg=512)
    loudest = frequencies[np.abs(map_)[:, 1:-1].argmax(0)]
    assert np.all(np.diff(loudest) >= 0)
    assert abs(loudest[-1] - 0.45 * RATE) <= RATE / 512


def test_seeds_of_noise(synth):
    params = one_voice(synth, 3, noise_share=1, noise_octaves=2)
    params[1, -1] += 0.001
    x = synth.render(params).numpy()
    assert np.array_equal(x[0], x[2])
    assert abs(np.corrcoef(x[0], x[1])[0, 1]) < 0.1


def test_repeats_are_onsets(synth):
    values = {"repeats_hz": 10, "sustain": 0, "decay_s": 0.015, "frequency_hz": 2000}
    x = synth.render(one_voice(synth, **values))[0].abs().numpy()
    level = np.convolve(x, np.ones(32) / 32, "same")
    peaks, _ = scipy.signal.find_peaks(level, height=0.5 * level.max(), distance=400)
    assert len(peaks) == 7  # at 0, 0.1, ..., 0.6 s
    assert np.abs(np.diff(peaks) / RATE - 0.1).max() < 0.005


def test_start_attack_and_decay(synth):
    values = {"start": 0.25, "attack_s": 0.05, "sustain": 0, "decay_s": 0.1, "frequency_hz": 2000}
    x = synth.render(one_voice(synth, **values))[0]
    envelope = envelope_of(x)
    envelope /= envelope.max()
    t = np.arange(len(x)) / RATE
    assert x[t < 0.159].abs().max() == 0
    for at, want in ((0.185, 0.5), (0.21, 1.0), (0.31, np.exp(-1)), (0.41, np.exp(-2))):
        assert abs(envelope[np.abs(t - at) < 0.002].mean() - want) < 0.05, at


def test_tremolo(synth):
    values = {"tremolo_hz": 20, "tremolo_depth": 0.8, "frequency_hz": 2000}
    envelope = envelope_of(synth.render(one_voice(synth, **values))[0])[1600:-1600]
    rate = np.abs(np.fft.rfft(envelope - envelope.mean(), 16 * RATE)).argmax() / 16
    assert abs(rate - 20) < 0.5
    assert abs(envelope.min() / envelope.max() - 0.2) < 0.03


def test_settings_are_within_their_ranges(synth, params):
    settings = synth.settings(params)
    assert list(settings) == list(synth.parameters)
    assert len(set(synth.parameters)) == params.shape[1]
    for p in VOICE:
        values = torch.cat([settings[f"{v}.{p.name}"] for v in range(synthesiser.N_VOICES)])
        assert p.low * 0.999 <= values.min() if p.low >= 0 else p.low <= values.min()
        assert values.max() <= p.high * 1.001


def test_what_cannot_be_is_refused(synth, params):
    with pytest.raises(OssicleError, match="sample_rate"):
        RandomSynthesiser(4000)
    with pytest.raises(OssicleError, match="duration_s"):
        RandomSynthesiser(RATE, 0.01)
    with pytest.raises(OssicleError, match="delta"):
        synth.perturb(params, 1.5, seeded(0))
    with pytest.raises(OssicleError, match="parameters"):
        synth.render(params[:, :-1])
    with pytest.raises(OssicleError, match="from 0 to 1"):
        synth.render(params + 1)
