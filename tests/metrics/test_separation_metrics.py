"""Scores of separated signals against mir_eval, torchmetrics, closed forms and slow definitions."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
import torch
from scipy.signal import lfilter
from torchmetrics.functional.audio import (
    permutation_invariant_training,
    scale_invariant_signal_distortion_ratio,
    signal_distortion_ratio,
    signal_noise_ratio,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mir_eval.separation as mir_eval

from ossicle import audio
from ossicle.errors import DataError
from ossicle.metrics.bss_eval import bss_eval
from ossicle.metrics.separation import (
    LIMIT_DB,
    Scorer,
    best_permutation,
    log_spectral_distance,
    sdr,
    separation_scores,
    si_sdr,
    snr,
)


def _noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def _coloured(seed: int, *shape: int) -> np.ndarray:
    """Noise with most energy at low frequencies, as speech has."""
    return lfilter([1], [1, -0.9], _noise(seed, *shape))


def _leaky(sources: np.ndarray, seed: int) -> np.ndarray:
    """Estimates in another order, with the others leaking in, filtered, and noise."""
    leak = 0.2 * sources.sum(0)
    shifted = np.roll(sources, 1, axis=0)
    filtered = shifted + 0.5 * np.pad(shifted, ((0, 0), (3, 0)))[:, :-3]
    return filtered + leak + 0.05 * sources.std() * _noise(seed, *sources.shape)


def _bss(sources: np.ndarray, estimates: np.ndarray, permute: bool = True) -> tuple:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mir_eval.bss_eval_sources(sources, estimates, permute)


@pytest.fixture(scope="module")
def voices(shared_data) -> np.ndarray:
    """(3, N) of three speakers at 8 kHz."""
    names = ("george", "jackson", "nicolas")
    takes = [
        np.concatenate(
            [audio.load(shared_data / f"fsdd/{d}/{d}_{name}_0.flac").samples[0] for d in range(4)]
        )
        for name in names
    ]
    length = min(map(len, takes))
    return np.stack([take[:length] for take in takes]).astype(np.float64)


# SI-SDR


@pytest.mark.parametrize("db", [-30.0, 0.0, 7.5, 60.0])
@pytest.mark.parametrize("gain", [1.0, -3.0, 1e-4])
def test_si_sdr_of_orthogonal_noise_is_the_ratio_it_was_made_with(db, gain):
    reference = _noise(0, 4000)
    noise = _noise(1, 4000)
    noise -= (noise @ reference) / (reference @ reference) * reference
    noise *= np.linalg.norm(reference) / np.linalg.norm(noise) * 10 ** (-db / 20)
    assert si_sdr(gain * (reference + noise), 5 * reference) == pytest.approx(db, abs=1e-9)


@pytest.mark.parametrize("zero_mean", [False, True])
def test_si_sdr_is_torchmetrics(zero_mean):
    reference = _coloured(2, 3, 2, 5000) + 0.3
    estimate = 0.5 * reference + _noise(3, 3, 2, 5000) - 0.7
    theirs = scale_invariant_signal_distortion_ratio(
        torch.tensor(estimate), torch.tensor(reference), zero_mean=zero_mean
    )
    ours = si_sdr(estimate, reference, zero_mean=zero_mean)
    assert ours.shape == (3, 2)
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=1e-9)


def test_an_offset_is_distortion_unless_it_is_taken_off():
    reference = _noise(4, 4000)
    reference -= reference.mean()
    estimate = reference + 2.0
    wanted = 10 * np.log10(np.mean(reference**2) / 4.0)
    assert si_sdr(estimate, reference) == pytest.approx(wanted, abs=1e-9)
    assert si_sdr(estimate, reference, zero_mean=True) > 250


def test_si_sdr_pairs_everything_with_everything_by_broadcasting():
    estimates, sources = _noise(5, 3, 900), _noise(6, 2, 900)
    table = si_sdr(estimates[:, None], sources[None])
    assert table.shape == (3, 2)
    for i, j in itertools.product(range(3), range(2)):
        assert table[i, j] == si_sdr(estimates[i], sources[j])


@pytest.mark.parametrize("measure", [si_sdr, sdr, snr, log_spectral_distance])
def test_a_silent_reference_has_no_score(measure):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(measure(_noise(7, 900), np.zeros(900)))
        assert np.isnan(measure(np.zeros(900), np.zeros(900)))
        both = measure(_noise(7, 2, 900), np.stack([np.zeros(900), _noise(8, 900)]))
    assert np.isnan(both[0]) and np.isfinite(both[1])


def test_silent_and_perfect_estimates():
    reference = _noise(9, 2000)
    assert si_sdr(np.zeros(2000), reference) == -np.inf
    assert sdr(np.zeros(2000), reference) == -np.inf
    assert snr(np.zeros(2000), reference) == 0
    assert si_sdr(reference, reference) == np.inf
    assert snr(reference, reference) == np.inf
    assert sdr(reference, reference) > 200
    assert np.isnan(si_sdr(np.ones(900), np.full(900, 3.0), zero_mean=True))


@pytest.mark.parametrize("measure", [si_sdr, sdr])
def test_levels_do_not_matter(measure):
    reference, estimate = _noise(10, 3000), _noise(11, 3000)
    estimate += reference
    plain = measure(estimate, reference)
    for gains in ((1e-30, 1.0), (-7.0, 1e25), (1e-160, 1e-160)):
        assert measure(gains[0] * estimate, gains[1] * reference) == pytest.approx(plain, abs=1e-9)


@pytest.mark.parametrize("measure", [si_sdr, sdr, snr, log_spectral_distance])
def test_single_precision_is_worked_out_in_double(measure):
    reference = _noise(12, 2, 3000).astype(np.float32)
    estimate = (reference + np.float32(1e-3) * _noise(13, 2, 3000)).astype(np.float32)
    ours = measure(estimate, reference)
    assert ours.dtype == np.float64
    np.testing.assert_array_equal(
        ours, measure(estimate.astype(np.float64), reference.astype(np.float64))
    )


@pytest.mark.parametrize("measure", [si_sdr, sdr, snr, log_spectral_distance])
def test_what_cannot_be_scored_is_told_in_a_line(measure):
    good = _noise(14, 100)
    with pytest.raises(DataError, match=r"100 samples, the reference 99: cut or pad"):
        measure(good, good[:-1])
    with pytest.raises(DataError, match="no samples"):
        measure(np.zeros(0), np.zeros(0))
    with pytest.raises(DataError, match="estimate holds values that are not finite"):
        measure(np.where(np.arange(100) == 3, np.nan, good), good)
    with pytest.raises(DataError, match="reference holds values that are not finite"):
        measure(good, np.where(np.arange(100) == 3, np.inf, good))


def test_snr_is_torchmetrics():
    reference, estimate = _noise(15, 4, 800), _noise(16, 4, 800)
    theirs = signal_noise_ratio(torch.tensor(estimate), torch.tensor(reference))
    np.testing.assert_allclose(snr(estimate, reference), theirs.numpy(), rtol=0, atol=1e-9)


# BSS Eval


@pytest.mark.parametrize(("count", "seed"), [(2, 0), (2, 1), (3, 2)])
@pytest.mark.parametrize("make", [_noise, _coloured])
@pytest.mark.parametrize("permute", [True, False])
def test_bss_eval_is_mir_eval(count, seed, make, permute):
    sources = make(seed, count, 4500)
    estimates = _leaky(sources, seed + 50)
    theirs = _bss(sources, estimates, permute)
    ours = bss_eval(estimates, sources, permute=permute)
    for one, other in zip(ours[:3], theirs[:3], strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-8)
    np.testing.assert_array_equal(ours.order, theirs[3])


def test_voices_score_as_in_mir_eval_and_torchmetrics(voices):
    estimates = _leaky(voices, 60)
    theirs = _bss(voices, estimates)
    ours = bss_eval(estimates, voices)
    for one, other in zip(ours[:3], theirs[:3], strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-7)
    np.testing.assert_array_equal(ours.order, theirs[3])
    given = torch.tensor(estimates[ours.order]), torch.tensor(voices)
    np.testing.assert_allclose(sdr(*given), signal_distortion_ratio(*given), rtol=0, atol=1e-8)
    scale_invariant = scale_invariant_signal_distortion_ratio(*given)
    np.testing.assert_allclose(si_sdr(*given), scale_invariant, rtol=0, atol=1e-9)
    scores = separation_scores(estimates, voices.sum(0), voices, ordered=False)
    for name, other in zip(("sdr", "sir", "sar"), theirs[:3], strict=True):
        np.testing.assert_allclose(scores[name], other, rtol=0, atol=1e-7)


@pytest.mark.parametrize("taps", [1, 64, 512])
def test_sdr_is_torchmetrics(taps):
    reference = _coloured(17, 2, 3, 3000)
    estimate = reference + 0.1 * _noise(18, 2, 3, 3000)
    theirs = signal_distortion_ratio(
        torch.tensor(estimate), torch.tensor(reference), filter_length=taps
    )
    np.testing.assert_allclose(
        sdr(estimate, reference, taps=taps), theirs.numpy(), rtol=0, atol=1e-8
    )
    with pytest.raises(DataError, match="0 taps"):
        sdr(estimate, reference, taps=0)


def test_one_tap_is_si_sdr():
    reference, estimate = _noise(19, 2000), _noise(20, 2000)
    np.testing.assert_allclose(
        sdr(estimate, reference, taps=1), si_sdr(estimate, reference), rtol=0, atol=1e-9
    )


def test_filters_are_forgiven_up_to_their_length():
    reference = _noise(21, 4000)
    late = np.concatenate([np.zeros(511), reference[:-511]])
    later = np.concatenate([np.zeros(512), reference[:-512]])
    # What the shift pushes past the end is not in the estimate: 511 of 4000 samples.
    assert sdr(np.pad(late[:4000], (0, 600)), np.pad(reference, (0, 600))) > 8
    assert sdr(np.pad(later, (0, 600)), np.pad(reference, (0, 600))) < 0
    whole = np.pad(reference, (511, 600))[: 4000 + 600]
    assert sdr(whole, np.pad(reference, (0, 600))) > 200


def _exact(estimates: np.ndarray, sources: np.ndarray, taps: int) -> np.ndarray:
    """The definition: orthogonal projections (QR) onto all delays, written out."""

    def delayed(source: np.ndarray) -> np.ndarray:
        padded = np.zeros((len(source) + taps - 1, taps))
        for d in range(taps):
            padded[d : d + len(source), d] = source
        return padded

    def onto(matrix: np.ndarray, signal: np.ndarray) -> np.ndarray:
        basis = np.linalg.qr(matrix)[0]
        return basis @ (basis.T @ signal)

    def db(one: np.ndarray, other: np.ndarray) -> float:
        return 10 * np.log10(np.sum(one**2) / np.sum(other**2))

    everything = np.hstack([delayed(source) for source in sources])
    rows = []
    for source, estimate in zip(sources, estimates, strict=True):
        padded = np.pad(estimate, (0, taps - 1))
        target, explained = onto(delayed(source), padded), onto(everything, padded)
        rest = padded - explained
        rows.append((db(target, padded - target), db(target, explained - target)))
        rows[-1] += (db(explained, rest),)
    return np.array(rows).T


@pytest.mark.parametrize(("pole", "noise"), [(0.9, 0.05), (0.99, 1.0)])
def test_ratios_are_exact_where_half_the_band_is_empty(pole, noise):
    # Resampled and faded: above half the band there is rounding alone, and correlations square it.
    sources = np.hanning(1500) * lfilter([1], [1, -pole], _noise(22, 2, 1500))
    sources = (sources / sources.std()).astype(np.float32)
    sources = np.stack([audio.resample(one, 8000, 16000) for one in sources]).astype(np.float64)
    estimates = sources + 0.3 * sources[::-1] + noise * _noise(23, *sources.shape)
    ours = np.array(bss_eval(estimates, sources, permute=False, taps=256)[:3])
    np.testing.assert_allclose(ours, _exact(estimates, sources, 256), rtol=0, atol=1e-6)
    np.testing.assert_allclose(sdr(estimates, sources, taps=256), ours[0], rtol=0, atol=1e-6)


def test_sources_that_are_filters_of_each_other_can_be_scored():
    source = _noise(24, 3000)
    estimates = source + 0.5 * _noise(25, 2, 3000)
    scores = bss_eval(estimates, np.stack([source, -2 * source]), permute=False)
    # Nothing is left that the other source alone explains.
    assert (scores.sir > 100).all()
    np.testing.assert_allclose(scores.sdr, scores.sar, rtol=0, atol=1e-8)
    np.testing.assert_allclose(scores.sdr, sdr(estimates, source), rtol=0, atol=1e-8)


def test_a_source_that_has_hardly_any_band_can_be_scored():
    # A tone that fades in and out: of its 512 delays, rounding leaves a few to tell apart.
    time = np.arange(8000) / 8000
    tone = np.hanning(8000) ** 2 * np.sin(2 * np.pi * 100 * time)
    estimates = tone + 0.1 * _noise(39, 2, 8000)
    scores = bss_eval(estimates, np.stack([tone, tone]), permute=False)
    # A scaling is a filter; and of white noise 512 directions of 8000 hold 0.3 dB.
    gained = scores.sdr - si_sdr(estimates, tone)
    assert (gained >= 0).all() and (gained < 0.3).all()
    assert (scores.sir > 40).all()


def test_a_silent_source_is_no_interference():
    sources = np.stack([_noise(26, 2500), np.zeros(2500), _noise(27, 2500)])
    estimates = sources[[0, 2, 2]] + 0.2 * _noise(28, 3, 2500)
    ours = bss_eval(estimates, sources, permute=False)
    theirs = _bss(sources[[0, 2]], estimates[[0, 2]], False)
    for one, other in zip(ours[:3], theirs[:3], strict=True):
        assert np.isnan(one[1])
        np.testing.assert_allclose(one[[0, 2]], other, rtol=0, atol=1e-8)


# Permutations


def test_the_permutation_is_the_best_of_all_and_torchmetrics():
    for seed in range(12):
        count = 2 + seed % 4
        sources = _noise(seed, count, 400)
        mix = np.random.default_rng(seed).uniform(0, 1, (count, count))
        estimates = mix @ sources
        order = best_permutation(estimates, sources)
        means = {
            tried: np.mean([si_sdr(estimates[i], sources[j]) for j, i in enumerate(tried)])
            for tried in itertools.permutations(range(count))
        }
        assert tuple(order) == max(means, key=means.get)
        value, theirs = permutation_invariant_training(
            torch.tensor(estimates)[None],
            torch.tensor(sources)[None],
            scale_invariant_signal_distortion_ratio,
        )
        np.testing.assert_array_equal(order, theirs[0])
        assert max(means.values()) == pytest.approx(float(value[0]), abs=1e-8)


def test_silent_sources_take_what_is_left():
    sources = np.stack([np.zeros(500), _noise(1, 500), _noise(2, 500)])
    estimates = sources[[2, 1, 0]] + 0.01 * _noise(3, 3, 500)
    np.testing.assert_array_equal(best_permutation(estimates, sources), [2, 1, 0])
    perfect = sources[[2, 1, 0]]
    np.testing.assert_array_equal(best_permutation(perfect, sources), [2, 1, 0])


# Log-spectral distance


def test_log_spectral_distance_by_its_definition():
    reference, estimate = _coloured(29, 3000), _coloured(30, 3000)
    n_fft, hop, floor_db = 256, 64, 30.0
    window = np.array([np.sin(np.pi * n / n_fft) ** 2 for n in range(n_fft)])
    starts = range(0, 3000 - n_fft + 1, hop)
    kernel = np.exp(-2j * np.pi * np.outer(np.arange(n_fft // 2 + 1), np.arange(n_fft)) / n_fft)
    powers = [
        np.array([np.abs(kernel @ (window * x[s : s + n_fft])) ** 2 for s in starts])
        for x in (estimate, reference)
    ]
    floor = powers[1].max() / 1000
    frames = []
    for one, other in zip(*powers, strict=True):
        apart = [
            10 * np.log10(max(a, floor) / max(b, floor)) for a, b in zip(one, other, strict=True)
        ]
        frames.append(np.sqrt(np.mean(np.square(apart))))
    ours = log_spectral_distance(
        estimate, reference, n_fft=n_fft, hop_length=hop, floor_db=floor_db
    )
    assert ours == pytest.approx(np.mean(frames), abs=1e-9)


def test_a_gain_costs_its_decibels_and_silence_the_way_down_to_the_floor():
    reference = np.tile(_noise(31, 128), 20)
    assert log_spectral_distance(reference, reference) == 0
    loud = log_spectral_distance(10 * reference, reference, n_fft=128, floor_db=300)
    assert loud == pytest.approx(20, abs=1e-9)
    # A click in each frame is white: every bin lies the window's weight below the greatest.
    click = np.zeros(1000)
    click[500] = 1.0
    silent = log_spectral_distance(np.zeros(1000), click, n_fft=1000, floor_db=50)
    assert silent == pytest.approx(50, abs=1e-6)
    assert np.isfinite(log_spectral_distance(_noise(32, 100), _noise(33, 100)))
    with pytest.raises(DataError, match="must be positive"):
        log_spectral_distance(reference, reference, hop_length=0)


# All of it


def test_all_scores_of_a_mixture():
    sources = _coloured(34, 3, 3000)
    estimates = _leaky(sources, 61)
    mixture = sources.sum(0)
    scores = separation_scores(estimates, mixture, sources, ordered=False)
    order = scores["order"]
    np.testing.assert_array_equal(order, best_permutation(estimates, sources))
    assert sorted(order) == [0, 1, 2] and list(order) != [0, 1, 2]
    chosen = estimates[order]
    np.testing.assert_allclose(scores["si_sdr"], si_sdr(chosen, sources), rtol=0, atol=1e-12)
    np.testing.assert_allclose(scores["snr"], snr(chosen, sources), rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        scores["log_spectral_distance"], log_spectral_distance(chosen, sources), atol=1e-12
    )
    theirs = _bss(sources, chosen, False)
    for name, other in zip(("sdr", "sir", "sar"), theirs[:3], strict=True):
        np.testing.assert_allclose(scores[name], other, rtol=0, atol=1e-7)
    untouched = np.stack([mixture] * 3)
    gained = scores["si_sdr"] - si_sdr(untouched, sources)
    np.testing.assert_allclose(scores["si_sdr_improvement"], gained, rtol=0, atol=1e-9)
    gained = scores["sdr"] - sdr(untouched, sources)
    np.testing.assert_allclose(scores["sdr_improvement"], gained, rtol=0, atol=1e-7)


def test_in_order_means_in_order():
    sources = _noise(35, 2, 1500)
    estimates = sources[::-1] + 0.1 * _noise(36, 2, 1500)
    fixed = separation_scores(estimates, sources.sum(0), sources, ordered=True)
    free = separation_scores(estimates, sources.sum(0), sources, ordered=False)
    assert list(fixed["order"]) == [0, 1] and list(free["order"]) == [1, 0]
    assert (fixed["si_sdr"] < -5).all() and (free["si_sdr"] > 15).all()


def test_the_mixture_as_it_is_improves_on_nothing_and_means_stay_finite():
    sources = _noise(37, 2, 1500)
    mixture = sources.sum(0)
    scores = separation_scores(np.stack([mixture] * 2), mixture, sources, ordered=False)
    np.testing.assert_array_equal(scores["si_sdr_improvement"], 0)
    np.testing.assert_allclose(scores["sdr_improvement"], 0, atol=1e-9)
    perfect = separation_scores(sources, mixture, sources, ordered=True)
    np.testing.assert_array_equal(perfect["si_sdr"], LIMIT_DB)
    np.testing.assert_array_equal(perfect["sar"], LIMIT_DB)
    silent = separation_scores(np.zeros((2, 1500)), mixture, sources, ordered=False)
    np.testing.assert_array_equal(silent["si_sdr"], -LIMIT_DB)
    quiet = separation_scores(sources, sources[0], sources * [[1], [0]], ordered=True)
    assert np.isnan(quiet["si_sdr"][1]) and quiet["si_sdr_improvement"][0] == 0


def test_one_scorer_serves_many_estimates_and_refuses_other_shapes():
    sources = _noise(38, 2, 1200)
    scorer = Scorer(sources.sum(0), sources)
    for seed in range(2):
        estimates = sources + _noise(seed, 2, 1200)
        alone = separation_scores(estimates, sources.sum(0), sources, ordered=False)
        for name, values in scorer.scores(estimates, ordered=False).items():
            np.testing.assert_array_equal(values, alone[name])
    with pytest.raises(DataError, match="as many of both"):
        scorer.scores(sources[:1], ordered=True)
    with pytest.raises(DataError, match=r"a mixture must be \(samples,\)"):
        Scorer(sources, sources)
