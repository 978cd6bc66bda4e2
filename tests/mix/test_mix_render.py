"""Samples: the SNR that was asked for, true onsets, no clipping, one sum, the same bits again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import soundfile

from ossicle.datasets.clips import read_clips
from ossicle.mix import MixSettings, draw_scape, render
from ossicle.mix.parts import Span
from ossicle.mix.render import PEAK
from ossicle.mix.sources import Reader, Sources, read_foreground

RATE = 16000
SHORT = MixSettings(duration_s=4.0, empty=0.0, events=(2, 5))


@pytest.fixture(scope="module")
def clips(tones):
    read, _ = read_foreground(read_clips(tones), Reader(RATE), SHORT)
    return tuple(read)


def scapes(clips, settings, many=6, backgrounds=(), rooms=()):
    own = Sources(clips, tuple(backgrounds), tuple(rooms))
    reader = Reader(settings.sample_rate)
    for number in range(many):
        plan = draw_scape(own, settings, "train", number)
        yield plan, render(plan, own, settings, reader)


def mean_square(samples, start, stop):
    total = 0.0
    for value in samples[start:stop].tolist():
        total += value * value
    return total / (stop - start)


CASES = {
    "plain": {},
    "reverberant": {"reverb": 1.0, "direct_db": (-6.0, 0.0)},
    "other speed": {"speed": (0.8, 1.25)},
    "cut at the end": {"cut_at_end": True},
    "loud background": {"level_db": (-12.0, -10.0)},
    "below the noise": {"snr_db": (-15.0, -5.0)},
}


@pytest.mark.parametrize("case", CASES)
def test_snr_measured_from_the_parts_is_the_one_asked_for(clips, case):
    settings = replace(SHORT, **CASES[case])
    for plan, made in scapes(clips, settings, many=3):
        for event, (start, sound) in zip(plan.events, made.events, strict=True):
            alone = np.zeros(plan.size)
            alone[start : start + len(sound)] = sound
            heard = mean_square(alone, event.onset, event.offset)
            under = mean_square(made.background, event.onset, event.offset)
            assert 10 * np.log10(heard / under) == pytest.approx(event.snr_db, abs=0.02)


def test_snr_over_a_recording(clips, street):
    span = Span(str(street / "long.wav"), "long.wav", 3.0, 20.0)
    for plan, made in scapes(clips, SHORT, many=2, backgrounds=[span]):
        level = 10 * np.log10(mean_square(made.background, 0, plan.size) / made.gain**2)
        assert level == pytest.approx(plan.level_db, abs=1e-6)
        for event, (start, sound) in zip(plan.events, made.events, strict=True):
            piece = sound[event.onset - start : event.offset - start]
            ratio = np.mean(piece**2) / np.mean(made.background[event.onset : event.offset] ** 2)
            assert 10 * np.log10(ratio) == pytest.approx(event.snr_db, abs=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_onsets_are_true_to_a_millisecond_and_offsets_where_dry(clips, case):
    settings = replace(SHORT, **CASES[case])
    for plan, made in scapes(clips, settings):
        for event, (start, sound) in zip(plan.events, made.events, strict=True):
            loud = np.flatnonzero(np.abs(sound) > 0.1 * np.abs(sound).max()) + start
            assert abs(loud[0] - event.onset) <= RATE / 1000
            if case != "reverberant":
                assert abs(loud[-1] + 1 - event.offset) <= RATE / 1000


def test_reverberation_rings_on_behind_the_label(clips):
    settings = replace(SHORT, reverb=1.0, direct_db=(-6.0, -6.0), t60_s=(0.8, 0.8))
    for plan, made in scapes(clips, settings):
        assert plan.t60_s == 0.8
        for event, (start, sound) in zip(plan.events, made.events, strict=True):
            tail = sound[event.offset - start :]
            room = min(800, plan.size - event.offset)
            assert len(tail) >= room
            if room:
                assert np.mean(tail[:room] ** 2) > 1e-3 * np.mean(sound**2)


@pytest.mark.parametrize("case", CASES)
def test_the_sum_of_the_parts_and_no_clipping(clips, case):
    gains = []
    for plan, made in scapes(clips, replace(SHORT, **CASES[case])):
        total = made.background.copy()
        for start, sound in made.events:
            total[start : start + len(sound)] += sound
        assert made.samples.dtype == np.float32
        assert made.samples.shape == (plan.size,)
        assert np.abs(made.samples - total).max() < 1e-6
        assert np.abs(made.samples).max() <= PEAK + 1e-6
        gains.append(made.gain)
        if made.gain < 1:
            assert np.abs(made.samples).max() == pytest.approx(PEAK, abs=1e-6)
    if case == "loud background":
        assert min(gains) < 1


def test_levels_follow_the_plan(clips):
    for plan, made in scapes(clips, SHORT):
        level = 10 * np.log10(np.mean(made.background**2)) - 20 * np.log10(made.gain)
        assert level == pytest.approx(plan.level_db, abs=1e-6)
        assert -55 <= plan.level_db <= -35


def test_the_same_bits_again_and_other_bits_for_another_seed(clips):
    first = [made.samples.tobytes() for _, made in scapes(clips, SHORT)]
    assert [made.samples.tobytes() for _, made in scapes(clips, SHORT)] == first
    others = [made.samples.tobytes() for _, made in scapes(clips, replace(SHORT, seed=1))]
    assert not set(first) & set(others)


def test_speed_changes_pitch_and_length(clips):
    low = tuple(clip for clip in clips if clip.labels == ("low",))
    for plan, made in scapes(low, replace(SHORT, speed=(1.2, 1.2), events=(1, 1)), many=3):
        ((_, sound),) = made.events
        (event,) = plan.events
        assert event.offset - event.onset == round((event.stop - event.start) / 1.2)
        spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
        hz = np.fft.rfftfreq(len(sound), 1 / RATE)[spectrum.argmax()]
        # 400 Hz, up to 5 % off by the clips' own variety.
        assert 0.95 * 480 - 3 <= hz <= 1.05 * 480 + 3


def test_fades_at_cuts_lie_outside_the_stretch(tmp_path):
    """A clip of steady sound, cut: full level from its first sample on, faded before it."""
    samples = 0.3 * np.sign(np.sin(np.arange(5 * RATE) * 0.7))
    (tmp_path / "a").mkdir()
    soundfile.write(tmp_path / "a" / "x.wav", samples, RATE)
    chosen = replace(SHORT, fade_s=0.02, max_event_s=(1.0, 1.5), events=(1, 1))
    read, _ = read_foreground(read_clips(tmp_path, labels="classes"), Reader(RATE), chosen)
    found = 0
    for plan, made in scapes(tuple(read), chosen, many=12):
        ((start, sound),), (event,) = made.events, plan.events
        lead = event.onset - start
        if lead < 320:
            continue
        found += 1
        size = np.abs(sound) / np.abs(sound[lead])
        assert np.allclose(size[lead : lead + event.offset - event.onset], 1, atol=1e-3)
        assert np.allclose(size[:lead], (np.arange(320) + 0.5) / 320, atol=1e-3)
    assert found > 5


@pytest.mark.parametrize("seed", range(4))
def test_noise_is_pink_or_brown(clips, seed):
    settings = replace(SHORT, duration_s=20.0, seed=seed)
    for plan, made in scapes(clips, settings, many=2):
        power = np.abs(np.fft.rfft(made.background)) ** 2
        hz = np.fft.rfftfreq(plan.size, 1 / RATE)
        octaves = [(100 * 2**k, 200 * 2**k) for k in range(5)]
        density = [10 * np.log10(power[(hz >= a) & (hz < b)].mean()) for a, b in octaves]
        slope = np.polyfit(np.arange(5), density, 1)[0]
        assert slope == pytest.approx({"pink": -3.01, "brown": -6.02}[plan.color], abs=0.5)


def test_a_background_lies_within_its_span(clips, street):
    """Where it was taken from, by the highest correlation with the whole recording."""
    whole = soundfile.read(street / "long.wav")[0]
    span = Span(str(street / "long.wav"), "long.wav", 12.0, 20.0)
    places = []
    for plan, made in scapes(clips, SHORT, backgrounds=[span]):
        size = len(whole) + plan.size
        both = np.fft.rfft(whole, size) * np.conj(np.fft.rfft(made.background, size))
        place = int(np.fft.irfft(both, size).argmax())
        piece = whole[place : place + plan.size]
        assert np.corrcoef(piece, made.background)[0, 1] > 0.999
        places.append(place / RATE)
    assert min(places) >= 12.0
    assert max(places) + 4.0 <= 20.0 + 2 / RATE
    assert max(places) - min(places) > 1.0


def test_a_short_background_is_repeated_without_a_gap(clips, street):
    files = sorted((street / "many").iterdir())
    spans = [Span(str(f), f.name, 0.0, soundfile.info(f).duration) for f in files]
    for _, made in scapes(clips, SHORT, backgrounds=spans):
        level = np.sqrt(np.mean(made.background.reshape(-1, 400) ** 2, axis=1))
        assert level.max() / level.min() < 1.6


def test_a_silent_background_still_gives_a_level(clips, tmp_path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(8 * RATE), RATE)
    span = Span(str(tmp_path / "silent.wav"), "silent.wav", 0.0, 8.0)
    for plan, made in scapes(clips, SHORT, backgrounds=[span], many=2):
        assert not made.background.any()
        for event, (start, sound) in zip(plan.events, made.events, strict=True):
            piece = sound[event.onset - start : event.offset - start] / made.gain
            level = 10 * np.log10(np.mean(piece**2))
            assert level == pytest.approx(plan.level_db + event.snr_db, abs=1e-6)


def test_measured_rooms(clips, tmp_path):
    response = np.zeros(3000)
    response[500], response[2500] = 0.9, 0.45
    soundfile.write(tmp_path / "echo.wav", response, RATE, "FLOAT")
    settings = replace(SHORT, reverb=1.0, events=(1, 1))
    ours = scapes(clips, settings, rooms=[str(tmp_path / "echo.wav")])
    dried = scapes(clips, replace(settings, reverb=0.0))
    for (plan, made), (_, dry) in zip(ours, dried, strict=True):
        assert plan.room == 0
        assert plan.room_name == "echo.wav"
        ((start, wet),), ((also, plain),) = made.events, dry.events
        assert start == also
        # The echo by its definition: half as loud, 2000 samples later.
        slow = np.zeros(plan.size - start)
        slow[: len(plain)] += plain
        slow[2000 : 2000 + len(plain)] += 0.5 * plain[: max(0, len(slow) - 2000)]
        many = min(len(wet), len(slow))
        scale = np.abs(wet[:many]).max() / np.abs(slow[:many]).max()
        assert np.allclose(wet[:many], scale * slow[:many], atol=1e-4 * np.abs(wet).max())
