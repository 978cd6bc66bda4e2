"""Recordings of any length, rate and number of channels: joined blocks equal the whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fixed_separators import RATE, Filters, Voices, low_and_high
from hypothesis import given, settings
from hypothesis import strategies as st

from ossicle.audio import Audio, load
from ossicle.errors import AudioError, DataError, OssicleError
from ossicle.separators.long_files import separate_array, separate_file, separate_stream
from ossicle.separators.matching import Matcher
from ossicle.separators.overlap import Join, Plan, cut, plan_blocks, ramp
from ossicle.separators.spectral_gate import SpectralGate

LSB = 1 / 32768


def noise(n: int, channels: int = 1, seed: int = 0, level: float = 0.1) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((channels, n)) * level).astype(np.float32)


def in_pieces(samples: np.ndarray, lengths: list[int]):
    at = 0
    while at < samples.shape[-1]:
        size = lengths[at % len(lengths)]
        yield samples[:, at : at + size]
        at += size


# Blocks.


@settings(max_examples=80, deadline=None)
@given(
    n=st.integers(1, 400),
    overlap=st.integers(1, 20),
    more=st.integers(0, 40),
    grid=st.integers(1, 7),
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=4),
)
def test_blocks_stand_where_they_must_and_join_to_the_stream(n, overlap, more, grid, lengths):
    step = max(grid, (overlap + more) // grid * grid)
    overlap = min(overlap, step)
    plan = Plan(step + overlap, overlap, grid)
    x = noise(n, 2)
    blocks = list(cut(in_pieces(x, lengths), plan))
    # In closed form: as many whole steps as leave something beyond the block, then one moved back.
    whole = 0 if n <= plan.block else -(-(n - plan.block) // step)
    starts = [i * step for i in range(whole)]
    starts.append((n - plan.block) // grid * grid if whole else 0)
    assert [block.start for block in blocks] == starts
    assert [block.last for block in blocks] == [False] * whole + [True]
    for block in blocks:
        stop = n if block.last else block.start + plan.block
        np.testing.assert_array_equal(block.samples, x[:, block.start : stop])
    join = Join(plan)
    out = [join.push(b.start, np.stack([b.samples, 2 * b.samples]), b.last) for b in blocks]
    np.testing.assert_allclose(np.concatenate(out, -1), [x, 2 * x], atol=2e-7)


def test_what_two_blocks_disagree_on_is_faded_by_a_squared_sine():
    plan = Plan(30, 8)
    join = Join(plan)
    first = join.push(0, np.ones((1, 1, 30), np.float32), False)
    second = join.push(22, np.zeros((1, 1, 25), np.float32), True)
    joined = np.concatenate([first, second], -1)[0, 0]
    want = [1.0] * 24  # the outer quarter of what they share is the older block's alone
    want += [np.cos(np.pi / 2 * (i + 0.5) / 4) ** 2 for i in range(4)] + [0.0] * 19
    np.testing.assert_allclose(joined, want, atol=1e-6)
    assert ramp(1).tolist() == [0.5]


@pytest.mark.parametrize("shares", [(2.0, 1.5), (2.0, 0.0), (float("inf"), 1.0)])
def test_blocks_that_share_too_much_or_nothing_are_refused(shares):
    with pytest.raises(OssicleError, match="share"):
        plan_blocks(*shares, 8000, 8000)


def test_blocks_begin_where_samples_of_both_rates_and_frames_lie():
    plan = plan_blocks(20.0, 4.0, 44100, 8000, 64)
    assert plan.step * 8000 % (44100 * 64) == 0
    assert plan.grid * 8000 % (44100 * 64) == 0
    assert plan_blocks(20.0, 4.0, 44101, 8000, 64).grid == 44101
    assert plan_blocks(2.0, 0.5, 44101, 8000).grid == 1


# Block by block equals the whole.


@pytest.mark.parametrize("n", [1, 100, 16000, 16001, 28000, 28001, 100_003])
def test_fixed_filters_give_what_they_give_on_the_whole(n):
    x = noise(n, 2)
    got = separate_array(Filters(), Audio(x, RATE))
    np.testing.assert_allclose(got, low_and_high(x), atol=2e-7)


def test_frames_of_blocks_are_frames_of_the_whole():
    class Whole(SpectralGate):
        block_s = 1000.0

    class Cut(SpectralGate):
        block_s, overlap_s = 2.3, 0.7

    # A gate whose threshold is from the block itself is not the same for all blocks: only its
    # framing is looked at, by a mask of one half.
    for kind in (Whole, Cut):
        kind.masks = lambda self, spectrum, n: (spectrum.abs() > 1).float()[None].repeat(2, 1, 1)
    x = noise(5 * 22050, level=0.05)
    whole, parts = (separate_array(kind(), Audio(x, 22050)) for kind in (Whole, Cut))
    assert np.abs(whole).max() > 0.01
    np.testing.assert_allclose(parts, whole, atol=1e-6)


def test_pieces_and_workers_change_nothing():
    x = noise(70_000, 2)
    want = separate_array(Filters(), Audio(x, 16000))
    pieces = separate_stream(Filters(), in_pieces(x, [999, 1, 30_000]), 16000, workers=3)
    np.testing.assert_array_equal(np.concatenate(list(pieces), -1), want)


# Other rates.


@settings(max_examples=25, deadline=None)
@given(
    rate=st.sampled_from([44100, 8000, 48000, 22050, 6000, 44101, 96000]),
    channels=st.integers(1, 3),
    n=st.one_of(st.integers(1, 300), st.integers(1000, 60_000)),
    seed=st.integers(0, 99),
)
def test_sources_are_as_long_as_the_recording_and_add_up_to_it_at_any_rate(rate, channels, n, seed):
    x = noise(n, channels, seed)
    got = separate_array(Filters(), Audio(x, rate))
    assert got.shape == (2, channels, n)
    np.testing.assert_allclose(got.sum(0), x, atol=1e-6)


def level_at(samples: np.ndarray, hertz: float, rate: int) -> float:
    """Amplitude of a tone, by its inner product with a complex one."""
    t = np.arange(samples.shape[-1]) / rate
    return float(2 * np.abs((samples * np.exp(-2j * np.pi * hertz * t)).mean()))


def test_what_the_model_cannot_hear_goes_where_the_topmost_octave_goes_or_is_dropped():
    rate, n = 44100, 10 * 44100
    t = np.arange(n) / rate
    x = sum(0.1 * np.sin(2 * np.pi * f * t) for f in (300, 3000, 10_000))[None].astype(np.float32)
    low, high = separate_array(Filters(), Audio(x, rate))
    middle = slice(rate, -rate)
    assert level_at(low[0, middle], 300, rate) == pytest.approx(0.1, rel=0.01)
    assert level_at(low[0, middle], 10_000, rate) < 1e-4
    assert level_at(high[0, middle], 3000, rate) == pytest.approx(0.1, rel=0.01)
    assert level_at(high[0, middle], 10_000, rate) == pytest.approx(0.1, rel=0.01)
    dropped = separate_array(Filters(), Audio(x, rate), band="model")
    assert level_at(dropped[1, 0, middle], 3000, rate) == pytest.approx(0.1, rel=0.01)
    assert max(level_at(one[0, middle], 10_000, rate) for one in dropped) < 1e-4


def test_what_the_model_cannot_hear_is_dealt_out_in_time():
    """Two voices in turn, each with a hiss above the band: each gets its own hiss."""
    rate, n = 32000, 12 * 32000
    t = np.arange(n) / rate
    first = (t % 4) < 2
    voice = [noise(n, seed=1)[0] * first, noise(n, seed=2)[0] * ~first]
    got = separate_array(Voices(shuffled=False, leak=0.0), Audio(np.stack(voice), rate))
    inside = ((t % 2) > 0.3) & ((t % 2) < 1.7)
    for i, mine in enumerate((first, ~first)):
        own, other = inside & mine, inside & ~mine
        np.testing.assert_allclose(got[i, i][own], voice[i][own], atol=2e-4)
        assert np.abs(got[i, :, other]).max() < 2e-4


def test_silence_gives_silence():
    got = separate_array(SpectralGate(), Audio(np.zeros((2, 60_000), np.float32), 16000))
    assert got.shape == (2, 2, 60_000)
    assert not got.any()


def test_nonsense_is_refused():
    x = Audio(noise(4000), RATE)
    with pytest.raises(OssicleError, match="not 3"):
        separate_array(Filters(), x, 3)
    with pytest.raises(OssicleError, match="band"):
        separate_array(Filters(), x, band="low")
    with pytest.raises(OssicleError, match="samples must be"):
        separate_array(Filters(), Audio(np.full((1, 9), np.nan, np.float32), RATE))
    with pytest.raises(OssicleError, match="workers"):
        separate_array(Filters(), x, workers=0)

    class Broken(Filters):
        def separate(self, samples, n_sources=None):
            return super().separate(samples) * float("nan")

    with pytest.raises(OssicleError, match="not finite"):
        separate_array(Broken(), x)

    class Flat(Filters):
        def separate(self, samples, n_sources=None):
            return super().separate(samples)[:, 0]

    with pytest.raises(OssicleError, match="sources, channels, samples"):
        separate_array(Flat(), x)


# Sources without names.


def voices(n: int, count: int, seed: int = 3) -> np.ndarray:
    """(count, n): noises of different colour that sound for a second or so and pause."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        hertz = 300 * 2.2**i
        spectrum = np.fft.rfft(rng.standard_normal(n))
        f = np.fft.rfftfreq(n, 1 / RATE)
        spectrum *= np.exp(-(np.log((f + 1) / hertz) ** 2))
        sound = np.fft.irfft(spectrum, n)
        pauses = np.repeat(rng.random(n // 4000 + 1) < 0.6, 4000)[:n]
        found.append(0.1 * sound / sound.std() * pauses)
    return np.stack(found).astype(np.float32)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_swapped_sources_are_put_back(count):
    x = voices(40 * RATE, count)
    separator = Voices()
    got = separate_array(separator, Audio(x, RATE), count)
    straight = separate_array(Voices(shuffled=False), Audio(x, RATE), count)
    assert len({tuple(order) for order in separator.orders}) > 1, "nothing was swapped"
    np.testing.assert_allclose(got, straight[separator.orders[0]], atol=1e-6)


def test_after_a_pause_of_all_a_source_is_known_by_its_sound():
    """Every overlap is silent: only spectra can tell."""
    x = voices(30 * RATE, 2)
    step, overlap = round(1.5 * RATE), round(0.5 * RATE)
    for start in range(step, x.shape[1], step):
        x[:, start - 80 : start + overlap + 80] = 0
    separator = Voices()
    got = separate_array(separator, Audio(x, RATE))
    straight = separate_array(Voices(shuffled=False), Audio(x, RATE))
    assert len({tuple(order) for order in separator.orders}) == 2
    np.testing.assert_allclose(got, straight[separator.orders[0]], atol=1e-6)


def test_waveforms_outweigh_spectra_and_silent_sources_take_what_is_left():
    x = voices(2 * RATE, 3)[:, None]
    x += noise(x.shape[-1], seed=9, level=0.03)[None]
    matcher = Matcher(3, RATE)
    matcher.remember(x)
    shared = x[..., :4000].copy()
    # The block sounds as if sources 0 and 1 had changed places, but what it shares says no.
    np.testing.assert_array_equal(matcher.order(shared, shared, x[[1, 0, 2]]), [0, 1, 2])
    after = shared[[2, 0, 1]].copy()
    after[2] = 0  # source 1 pauses
    np.testing.assert_array_equal(matcher.order(shared, after, x[[2, 0, 1]]), [1, 2, 0])
    before = np.zeros_like(shared)
    np.testing.assert_array_equal(matcher.order(before, before, x[[2, 0, 1]]), [1, 2, 0])
    np.testing.assert_array_equal(Matcher(3, RATE).order(before, before, x), [0, 1, 2])


def test_voices_that_share_most_of_their_spectrum_are_told_apart_by_the_rest():
    """A steep tilt is common; 3 dB in one band are not. What is shared says nothing, loudly."""
    rng = np.random.default_rng(5)
    n, f = 4 * RATE, np.fft.rfftfreq(4 * RATE, 1 / RATE)

    def voice(centre: float) -> np.ndarray:
        spectrum = np.fft.rfft(rng.standard_normal(n)) / (1 + (f / 100) ** 2)
        spectrum[np.abs(f - centre) < centre / 3] *= 10 ** (3 / 20)
        return (np.fft.irfft(spectrum, n) * 5).astype(np.float32)

    right = 0
    for _ in range(20):
        matcher = Matcher(2, RATE)
        matcher.remember(np.stack([voice(600), voice(1500)])[:, None])
        before, after = (noise(4000, 2, int(rng.integers(2**31)))[:, None] for _ in range(2))
        block = np.stack([voice(1500), voice(600)])[:, None]
        right += matcher.order(before, after, block).tolist() == [1, 0]
    assert right == 20


def test_two_real_speakers_stay_apart(shared_data):
    files = sorted((shared_data / "fsdd").rglob("*.flac"))
    first, second = (
        np.concatenate([load(f).samples[0] for f in files if who in f.name][:60])
        for who in ("_jackson_", "_nicolas_")
    )
    n = min(len(first), len(second))
    rng = np.random.default_rng(0)
    pauses = [np.repeat(rng.random(n // 8000 + 1) < 0.7, 8000)[:n] for _ in range(2)]
    x = np.stack([first[:n] * pauses[0], second[:n] * pauses[1]])
    separator = Voices(leak=0.3)
    got = separate_array(separator, Audio(x, RATE))
    straight = separate_array(Voices(shuffled=False, leak=0.3), Audio(x, RATE))
    assert len(separator.orders) > 10
    assert len({tuple(order) for order in separator.orders}) == 2
    np.testing.assert_allclose(got, straight[separator.orders[0]], atol=1e-6)


# Files.


@pytest.mark.parametrize(
    ("rate", "channels", "subtype"),
    [(44100, 2, "PCM_16"), (8000, 1, "PCM_24"), (22050, 1, "FLOAT"), (48000, 2, "PCM_32")],
)
def test_files_hold_what_arrays_hold(tmp_path, rate, channels, subtype):
    soundfile.write(tmp_path / "in.wav", noise(3 * rate + 7, channels).T, rate, subtype)
    outputs = [tmp_path / "a.wav", tmp_path / "deep" / "b.wav"]
    seen = []
    result = separate_file(Filters(), tmp_path / "in.wav", outputs, progress=seen.append)
    want = separate_array(Filters(), load(tmp_path / "in.wav", mono=False))
    half = {"PCM_16": 2**-16, "PCM_24": 2**-24, "FLOAT": 0, "PCM_32": 2**-25}[subtype]
    for output, source in zip(outputs, want, strict=True):
        about = soundfile.info(output)
        assert (about.frames, about.samplerate, about.channels) == (3 * rate + 7, rate, channels)
        assert about.subtype == subtype
        np.testing.assert_allclose(load(output, mono=False).samples, source, atol=half + 1e-9)
    assert result.gain_db == 0
    assert result.duration_s == seen[-1] == (3 * rate + 7) / rate
    energy = np.square(want.astype(np.float64)).sum((1, 2))
    np.testing.assert_allclose(result.energy_shares, energy / energy.sum(), rtol=1e-5)
    assert (result.subtype, result.sources, result.damage) == (subtype, ["low", "high"], "")
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} == {"in.wav", "a.wav", "b.wav"}


def test_written_sources_add_up_to_the_recording_to_the_last_bit_but_rounding(tmp_path):
    x = noise(5 * 44100 + 3, 2)
    soundfile.write(tmp_path / "in.flac", x.T, 44100)
    separate_file(Filters(), tmp_path / "in.flac", [tmp_path / "a.flac", tmp_path / "b.wav"])
    a, b, whole = (
        soundfile.read(tmp_path / name, dtype="int16")[0].astype(int)
        for name in ("a.flac", "b.wav", "in.flac")
    )
    assert np.abs(a + b - whole).max() <= 1


def test_same_file_same_bytes_with_any_workers(tmp_path):
    soundfile.write(tmp_path / "in.wav", voices(20 * RATE, 2).T, RATE)
    content = []
    for i, workers in enumerate((1, 3, 1)):
        outputs = [tmp_path / f"{i}_{s}.wav" for s in range(2)]
        separate_file(Voices(), tmp_path / "in.wav", outputs, workers=workers)
        content.append([output.read_bytes() for output in outputs])
    assert content[0] == content[1] == content[2]


def test_only_some_sources_are_written(tmp_path):
    soundfile.write(tmp_path / "in.wav", noise(9000).T, RATE)
    both = [tmp_path / "a.wav", tmp_path / "b.wav"]
    separate_file(Filters(), tmp_path / "in.wav", both)
    result = separate_file(Filters(), tmp_path / "in.wav", [tmp_path / "c.wav"], keep=[1])
    assert (tmp_path / "c.wav").read_bytes() == both[1].read_bytes()
    assert result.sources == ["high"]
    assert 0.5 < result.energy_shares[0] < 1
    for keep in ([], [2], [0, 0]):
        with pytest.raises(OssicleError, match="keep"):
            separate_file(Filters(), tmp_path / "in.wav", both[: len(keep)], keep=keep)


def test_sources_beyond_full_scale_are_turned_down_together(tmp_path):
    """A square wave's low-pass overshoots."""
    t = np.arange(5 * RATE) / RATE
    x = (0.99 * np.sign(np.sin(2 * np.pi * 200 * t)))[None].astype(np.float32)
    soundfile.write(tmp_path / "in.wav", x.T, RATE)
    outputs = [tmp_path / "a.wav", tmp_path / "b.wav"]
    result = separate_file(Filters(), tmp_path / "in.wav", outputs)
    want = low_and_high(load(tmp_path / "in.wav").samples)
    peak = np.abs(want).max()
    assert peak > 1.05
    gain = 10 ** (result.gain_db / 20)
    assert gain == pytest.approx(1 / peak, rel=1e-4)
    assert any("turned down" in note for note in result.notes)
    for output, source in zip(outputs, want, strict=True):
        np.testing.assert_allclose(load(output).samples, gain * source, atol=0.51 * LSB)


def test_a_file_that_is_cut_short_is_separated_up_to_there(tmp_path):
    soundfile.write(tmp_path / "in.wav", noise(40_000).T, RATE)
    data = (tmp_path / "in.wav").read_bytes()
    (tmp_path / "in.wav").write_bytes(data[: 44 + 2 * 30_000])
    outputs = [tmp_path / "a.wav", tmp_path / "b.wav"]
    result = separate_file(Filters(), tmp_path / "in.wav", outputs)
    assert "truncated" in result.damage
    assert [soundfile.info(o).frames for o in outputs] == [30_000, 30_000]


def test_files_that_cannot_be_used_leave_nothing(tmp_path):
    (tmp_path / "bad.wav").write_text("no sound")
    soundfile.write(tmp_path / "in.wav", noise(900).T, RATE)
    pair = [tmp_path / "a.wav", tmp_path / "b.wav"]
    before = sorted(tmp_path.iterdir())
    with pytest.raises(AudioError, match=r"bad\.wav"):
        separate_file(Filters(), tmp_path / "bad.wav", pair)
    with pytest.raises(OssicleError, match="2 sources for 1"):
        separate_file(Filters(), tmp_path / "in.wav", pair[:1])
    with pytest.raises(OssicleError, match="differ"):
        separate_file(Filters(), tmp_path / "in.wav", [tmp_path / "in.wav", pair[0]])
    with pytest.raises(AudioError, match=r"\.wav or \.flac"):
        separate_file(Filters(), tmp_path / "in.wav", [tmp_path / "a.mp3", pair[0]])
    with pytest.raises(DataError, match="cannot be written"):
        separate_file(Filters(), tmp_path / "in.wav", [tmp_path / "in.wav" / "a.wav", pair[0]])
    assert sorted(tmp_path.iterdir()) == before


PEAK = """
import resource, sys
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
from fixed_separators import Quarters
from ossicle.separators.long_files import separate_file
separate_file(Quarters(), sys.argv[2], [sys.argv[2] + "_a.wav", sys.argv[2] + "_b.wav"])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_length(tmp_path):
    """Ten minutes are 38 MB as float32, twice that as two sources: none of it may stay."""
    peaks = []
    for minutes in (1, 10):
        path = tmp_path / f"{minutes}.wav"
        with soundfile.SoundFile(path, "w", RATE, 2, "PCM_16") as file:
            for i in range(minutes):
                file.write(noise(60 * RATE, 2, seed=i).T)
        done = subprocess.run(
            [sys.executable, "-c", PEAK, str(Path(__file__).parent), str(path)],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] < peaks[0] + 15, f"{peaks} MB"
