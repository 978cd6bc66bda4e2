"""From a plan to samples: background, events at their SNR, one gain for all.

The SNR of an event is taken in its own stretch, between onset o and offset f (Salamon et al. 2017,
"Scaper: a library for soundscape synthesis and augmentation", set events against the background's
loudness in this way; here levels are plain powers):

    snr_db = 10 log10( mean of e(t)^2 over o <= t < f  /  max(mean of b(t)^2 over o <= t < f, p) )

where e is the event as it is heard, with its reverberation, b the background, and p the power 40 dB
below the background's level in the whole soundscape: without it an event in a moment of silence
would vanish. A recording that is silent throughout counts as if it sounded at its level.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import soxr

from ossicle.errors import DataError
from ossicle.mix.plan import EventPlan, ScapePlan
from ossicle.mix.rooms import measured_room, reverberate, synthetic_room
from ossicle.mix.settings import MixSettings
from ossicle.mix.sources import Reader, Sources

# Just below full scale, so that no rounding to 16 bits can reach it.
PEAK = 0.99
FLOOR_DB = -40.0
# Mean square of what counts as silent throughout.
_SILENT = 1e-10
_SEAM_S = 0.05


class Rendered(NamedTuple):
    """A soundscape's samples.

    Attributes:
        samples: (N,) float32, no greater than `PEAK`: the sum of all below.
        gain: the factor that all of it was multiplied by, 1 unless it would have clipped.
        background: (N,) float64, with that gain.
        events: for each of the plan's events the first sample and its sound (float64), with that
            gain; what sounds before its onset or after its offset is fading or reverberation.
    """

    samples: np.ndarray
    gain: float
    background: np.ndarray
    events: list[tuple[int, np.ndarray]]


def render(plan: ScapePlan, sources: Sources, settings: MixSettings, reader: Reader) -> Rendered:
    """The samples of a plan; the same plan and sources give the same bits.

    Args:
        plan: from `draw_scape` with these sources and settings.
        sources: what the plan's numbers refer to.
        settings: the plan's.
        reader: at the settings' rate.

    Raises:
        AudioError: a source cannot be read.
        DataError: a background has become shorter than it was.
    """
    background = _background(plan, sources, settings, reader)
    now, wanted = float(np.mean(background**2)), 10 ** (plan.level_db / 10)
    silent = now <= _SILENT
    background *= 0.0 if silent else np.sqrt(wanted / now)
    least = wanted * (1.0 if silent else 10 ** (FLOOR_DB / 10))
    measured = (
        None if plan.room is None else measured_room(sources.rooms[plan.room], settings.sample_rate)
    )
    mixture = background.copy()
    events = []
    for event in plan.events:
        start, sound = _sound(plan, event, sources, settings, reader, measured)
        under = np.mean(background[event.onset : event.offset] ** 2)
        heard = np.mean(sound[event.onset - start : event.offset - start] ** 2)
        power = max(under, least) * 10 ** (event.snr_db / 10)
        sound = sound * np.sqrt(power / heard) if heard > 0 else sound
        mixture[start : start + len(sound)] += sound
        events.append((start, sound))
    gain = min(1.0, PEAK / max(float(np.abs(mixture).max()), 1e-12))
    return Rendered(
        (mixture * gain).astype(np.float32),
        gain,
        background * gain,
        [(start, sound * gain) for start, sound in events],
    )


def _sound(
    plan: ScapePlan,
    event: EventPlan,
    sources: Sources,
    settings: MixSettings,
    reader: Reader,
    measured: np.ndarray | None,
) -> tuple[int, np.ndarray]:
    """The event's first sample in the soundscape and its sound, cut to the soundscape."""
    clip = sources.clips[event.clip]
    dry, lead = _stretch(reader.clip(clip.path, clip.onset, clip.offset), event, settings)
    if measured is not None:
        dry = reverberate(dry, measured)
    elif plan.t60_s is not None and event.direct_db is not None:
        noise = np.random.default_rng(event.seed)
        room = synthetic_room(settings.sample_rate, plan.t60_s, event.direct_db, noise)
        dry = reverberate(dry, room)
    start = event.onset - lead
    sound = dry[max(0, -start) : plan.size - start]
    return max(0, start), np.asarray(sound, np.float64)


def _stretch(
    samples: np.ndarray, event: EventPlan, settings: MixSettings
) -> tuple[np.ndarray, int]:
    """The stretch with its fades, and how many samples of them lie before its onset.

    Fades lie outside of the stretch, where there is sound to fade, so that attacks stay whole;
    at the clip's own ends they lie within it.
    """
    fade = settings.samples(settings.fade_s)
    before, after = min(fade, event.start), min(fade, max(0, len(samples) - event.stop))
    piece = samples[event.start - before : event.stop + after].astype(np.float64)
    ramp = (np.arange(fade) + 0.5) / max(fade, 1)
    inside = min(fade, len(piece) // 2)
    if inside:
        piece[:inside] *= ramp[:inside]
        piece[len(piece) - inside :] *= ramp[:inside][::-1]
    if event.speed == 1.0:
        return piece, before
    played = soxr.resample(piece, event.speed, 1.0, quality="HQ")
    return played, round(before / event.speed)


def _background(
    plan: ScapePlan, sources: Sources, settings: MixSettings, reader: Reader
) -> np.ndarray:
    """(N,) float64 at any level."""
    if plan.background is None:
        return _noise(plan, settings)
    rate = settings.sample_rate
    span = sources.backgrounds[plan.background]
    onset = span.onset + plan.place * max(0.0, span.offset - span.onset - plan.size / rate)
    # One sample more, as the resampler rounds.
    offset = min(span.offset, onset + (plan.size + 1) / rate)
    found = reader.span(span.path, onset, offset).astype(np.float64)
    found -= found.mean()
    return _filled(found, plan.size, settings.samples(_SEAM_S), span.path)


def _filled(found: np.ndarray, size: int, seam: int, path: str) -> np.ndarray:
    """The sound repeated up to `size` samples, one crossfade of equal power at each seam."""
    if len(found) >= size:
        return found[:size]
    seam = min(seam, len(found) // 4)
    if len(found) - seam < 1 or len(found) < 8:
        raise DataError(f"{path}: too short for a background")
    step = len(found) - seam
    angle = (np.arange(seam) + 0.5) / max(seam, 1) * (np.pi / 2)
    out = np.zeros(size + len(found))
    out[: len(found)] = found
    for at in range(step, size, step):
        out[at : at + seam] *= np.cos(angle)
        piece = found.copy()
        piece[:seam] *= np.sin(angle)
        out[at : at + len(piece)] += piece
    return out[:size]


def _noise(plan: ScapePlan, settings: MixSettings) -> np.ndarray:
    """Pink or brown noise whose level changes slowly, sometimes with a stretch of near silence."""
    draw = np.random.default_rng(plan.seed)
    rate, size = settings.sample_rate, plan.size
    spectrum = np.fft.rfft(draw.standard_normal(size))
    hz = np.fft.rfftfreq(size, 1 / rate)
    # Flat below 20 Hz, or most of the power would lie where nothing is heard.
    spectrum /= np.maximum(hz, 20.0) ** (0.5 if plan.color == "pink" else 1.0)
    spectrum[0] = 0.0
    noise = np.fft.irfft(spectrum, size)
    seconds = size / rate
    knots = max(2, round(seconds / 2.5) + 1)
    t = np.arange(size) / rate
    level = np.interp(t, np.linspace(0, seconds, knots), draw.uniform(-6, 6, knots))
    if draw.random() < 0.3:
        length = min(draw.uniform(1, 4), seconds / 2)
        middle = draw.uniform(0, seconds)
        away = np.clip((np.abs(t - middle) - length / 2) / 0.3, 0, 1)
        level -= draw.uniform(12, 25) * (0.5 + 0.5 * np.cos(np.pi * away))
    return np.asarray(noise * 10 ** (level / 20))
