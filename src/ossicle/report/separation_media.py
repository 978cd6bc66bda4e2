"""What a page of separations shows of one recording: levels, pictures and sounds, before and after.

A short recording is carried whole. Of a long one the page carries an excerpt, pictures of the
whole, and links to the files. All tracks of a recording are measured by one ruler: the gain that
its outputs were written with is taken back, and pictures share their scale. N samples, F bands,
W columns, time last.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import matplotlib
import numpy as np
from PIL import Image

from ossicle import audio
from ossicle.frontend.mel import mel_edges_hz
from ossicle.report.clips import encode_sound
from ossicle.report.detection_spectrogram import Spectrogram, columns_of

#: Up to this long, a recording is carried whole; of a longer one, an excerpt of so many seconds.
WHOLE_S = 30.0
EXCERPT_S = 15.0
PICTURE = (800, 128)
PICTURE_BYTES = 22_000
#: Of a recording the page compares levels in frames of so many seconds (ITU-R BS.1770's blocks).
FRAME_S = 0.4
REMOVED = "removed"
_RANGE_DB, _LEAST_DB = 70.0, 25.0
# Quieter than this beside the loudest track, a track is not waited for when all are made alike.
_HELD_DB = 20.0
_BLOCK_S = 20.0
_PLAYED = (".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".webm")
_TICKS_HZ = (100, 200, 500, 1000, 2000, 4000, 8000, 16000, 32000)


@dataclass(frozen=True)
class SeparationItem:
    """A recording and what was made of it.

    Attributes:
        name: what the page calls it.
        before: the recording.
        after: name of a source -> its file, as long as the recording and at its rate. With one
            only (a denoised recording), the page adds what was removed: the difference.
        notes: lines for the reader.
        gain_db: the gain in dB that the outputs were written with so as not to clip; 0 for none.
    """

    name: str
    before: Path
    after: Mapping[str, Path]
    notes: Sequence[str] = ()
    gain_db: float = 0.0


class Track(NamedTuple):
    """One sound of a recording: itself, a source, or what was removed.

    Attributes:
        name: shown; "" for the recording itself.
        path: its file; None for what was removed, which has none.
        offset_db: from a level in the file to one beside the outputs.
    """

    name: str
    path: Path | None
    offset_db: float


@dataclass
class Measured:
    """Of one track: mean squares (frames,) of frames of FRAME_S, and its picture."""

    powers: np.ndarray
    picture: Spectrogram | None = None
    samples: list[np.ndarray] = field(default_factory=list)


def tracks_of(item: SeparationItem) -> list[Track]:
    """The recording first, then its sources; what was removed last, where there is one source."""
    found = [Track("", Path(item.before), item.gain_db)]
    found += [Track(name, Path(path), 0.0) for name, path in item.after.items()]
    if len(found) == 2:
        found.append(Track(REMOVED, None, 0.0))
    return found


def views_of(item: SeparationItem, page: Path) -> list[dict[str, Any]]:
    """What is seen and heard of a recording: the excerpt, and the whole where it is longer.

    Args:
        item: the recording.
        page: where the page will lie; links are relative to its folder.

    Returns:
        A dict a view: start, stop (s), linked, top_hz, ticks, and tracks: name, link, image (WebP),
        alt, level_db (beside the recording; None where one of them is silent), plain and equal
        (volumes, 0 to 1, in true proportion and equally loud), sound (MP3; None: the linked file).

    Raises:
        AudioError: a file cannot be read.
    """
    tracks = tracks_of(item)
    about = audio.info(item.before)
    seconds = about.duration_s
    gain = 10 ** (item.gain_db / 20)
    views = []
    whole: dict[str, Any] | None = None
    start, stop = 0.0, seconds
    if seconds > WHOLE_S:
        measured = [
            _streamed(blocks, about.sample_rate, seconds)
            for blocks in (_blocks(item, track, gain, about.sample_rate) for track in tracks)
        ]
        whole = _view(item, tracks, measured, (0.0, seconds), page)
        start = _busiest([each.powers for each in measured[1:]], EXCERPT_S)
        stop = min(seconds, start + EXCERPT_S)
    measured = [
        _streamed(iter([samples]), about.sample_rate, stop - start, keep=True)
        for samples in _excerpts(item, tracks, gain, about.sample_rate, start, stop)
    ]
    view = _view(item, tracks, measured, (start, stop), page)
    # Values past 1, which a file of floats may hold, would be clipped by the coding.
    peak = max([1.0, *(float(np.abs(x).max(initial=0.0)) for m in measured for x in m.samples)])
    for track, each in zip(view["tracks"], measured, strict=True):
        track["sound"] = encode_sound(np.concatenate(each.samples) / peak, about.sample_rate)
    if whole is not None:
        # The levels that are told are those of the whole.
        for track, other in zip(view["tracks"], whole["tracks"], strict=True):
            track["level_db"] = other["level_db"]
    views.append(view)
    if whole is not None:
        views.append(whole)
    return views


def seconds_read(item: SeparationItem) -> float:
    """How much sound is read for a recording's views, seconds.

    Raises:
        AudioError: the recording cannot be read.
    """
    return audio.info(item.before).duration_s * (1 + len(item.after))


def loudness_db(powers: np.ndarray) -> float | None:
    """The gated level of mean squares (frames,) in dB of full scale; None of silence.

    As in ITU-R BS.1770-4, annex 1, without its frequency weighting and overlap: the mean over
    frames above -70 dB that are no more than 10 dB below the mean of these. Pauses then make a
    source no quieter.
    """
    loud = powers[powers > 1e-7]
    if not len(loud):
        return None
    return float(10 * np.log10(loud[loud >= 0.1 * loud.mean()].mean()))


def volumes(
    powers: Sequence[np.ndarray], offsets_db: Sequence[float]
) -> tuple[list[float], list[float]]:
    """Volumes of a recording's tracks, 0 to 1: in true proportion, and equally loud.

    A player's volume can only be turned down, so all are brought to the quietest; one that is more
    than 20 dB below the loudest is played as it is, or nothing would be heard of the others.

    Args:
        powers: (frames,) mean squares of each track's file.
        offsets_db: of each, from its file's level to the true one.
    """
    top = max(offsets_db)
    plain = [10 ** ((offset - top) / 20) for offset in offsets_db]
    levels = [loudness_db(each) for each in powers]
    known = [level for level in levels if level is not None]
    if not known:
        return plain, [1.0] * len(plain)
    target = min(level for level in known if level >= max(known) - _HELD_DB)
    equal = [1.0 if x is None else min(1.0, 10 ** ((target - x) / 20)) for x in levels]
    return plain, equal


def ticks(top_hz: float) -> list[tuple[str, float]]:
    """Labels of a picture's frequency axis: (text, height from 0 at its foot to 1 at its top)."""
    bands = 1024
    edges = mel_edges_hz(bands, 0.0, top_hz)
    found: list[tuple[str, float]] = []
    for hz in _TICKS_HZ:
        if hz <= top_hz:
            text = f"{hz / 1000:g} kHz" if hz >= 1000 else f"{hz} Hz"
            at = float(np.interp(hz, edges, np.arange(len(edges))) / (len(edges) - 1))
            # Two labels need a line's height between them.
            if not found or at - found[-1][1] > 0.13:
                found.append((text, round(at, 4)))
    return found


def link_to(path: Path, page: Path) -> str:
    """The address of a file, seen from the page's folder."""
    return quote(Path(os.path.relpath(path, Path(page).parent)).as_posix())


def _blocks(item: SeparationItem, track: Track, gain: float, rate: int) -> Iterator[np.ndarray]:
    """The (N,) blocks of a track, one channel, at the recording's rate."""
    if track.path is not None:
        for block in audio.stream(track.path, sample_rate=rate, block_s=_BLOCK_S):
            yield block.samples[0]
        return
    (after,) = item.after.values()
    pair = (audio.stream(path, sample_rate=rate, block_s=_BLOCK_S) for path in (item.before, after))
    for one, other in zip(*pair, strict=False):
        n = min(one.samples.shape[1], other.samples.shape[1])
        yield gain * one.samples[0, :n] - other.samples[0, :n]


def _excerpts(
    item: SeparationItem, tracks: Sequence[Track], gain: float, rate: int, low: float, high: float
) -> list[np.ndarray]:
    """(N,) of each track, between two times in seconds."""
    found = [
        audio.load(track.path, sample_rate=rate, onset=low, offset=high).samples[0]
        for track in tracks
        if track.path is not None
    ]
    if len(found) < len(tracks):
        n = min(map(len, found))
        found.append(gain * found[0][:n] - found[1][:n])
    return found


def _streamed(
    blocks: Iterator[np.ndarray], rate: int, seconds: float, keep: bool = False
) -> Measured:
    """One pass over a track: levels and picture, in constant memory unless it is kept."""
    size = max(1, round(FRAME_S * rate))
    measured = Measured(np.zeros(0))
    powers: list[np.ndarray] = []
    held = np.zeros(0, np.float32)

    def watched() -> Iterator[np.ndarray]:
        nonlocal held
        for block in blocks:
            if keep:
                measured.samples.append(block)
            held = np.concatenate([held, block])
            n = len(held) // size * size
            powers.append(np.square(held[:n].reshape(-1, size), dtype=np.float64).mean(1))
            held = held[n:]
            yield block

    measured.picture = columns_of(watched(), rate, seconds, PICTURE[0])
    if len(held):
        # As a share of a whole frame, so that powers add up to the energy.
        powers.append(np.array([np.square(held, dtype=np.float64).sum() / size]))
    measured.powers = np.concatenate(powers) if powers else np.zeros(0)
    return measured


def _busiest(powers: Sequence[np.ndarray], seconds: float) -> float:
    """Where the stretch begins in which most is heard of all sources at once, in seconds."""
    n = min(map(len, powers))
    width = max(1, min(n, round(seconds / FRAME_S)))
    # The geometric mean over sources: a stretch where one is silent shows nothing of separation.
    together = np.mean([np.log(each[:n] + 1e-10) for each in powers], axis=0)
    sums = np.convolve(np.exp(together), np.ones(width), "valid")
    return round(float(np.argmax(sums)) * FRAME_S, 3)


def _view(
    item: SeparationItem,
    tracks: Sequence[Track],
    measured: Sequence[Measured],
    span: tuple[float, float],
    page: Path,
) -> dict[str, Any]:
    pictures = [each.picture for each in measured]
    assert pictures[0] is not None
    top_hz = pictures[0].top_hz
    scale = scale_of(pictures[0].decibels + tracks[0].offset_db)
    plain, equal = volumes([m.powers for m in measured], [t.offset_db for t in tracks])
    energies = [
        m.powers.sum() * 10 ** (t.offset_db / 10) for m, t in zip(measured, tracks, strict=True)
    ]
    told = []
    for i, (track, picture) in enumerate(zip(tracks, pictures, strict=True)):
        assert picture is not None
        linked = track.path is not None and track.path.suffix.lower() in _PLAYED
        silent = min(energies[i], energies[0]) <= 0
        told.append(
            {
                "name": track.name or "the recording",
                "link": None if track.path is None else link_to(track.path, page),
                "playable": linked,
                "image": coloured(picture.decibels + track.offset_db, scale),
                "alt": f"Spectrogram of {track.name or 'the recording'}, {item.name}: "
                f"{span[0]:.1f} to {span[1]:.1f} s, 0 to {top_hz:g} Hz",
                "level_db": None if silent else 10 * math.log10(energies[i] / energies[0]),
                "plain": round(plain[i], 4),
                "equal": round(equal[i], 4),
                "sound": None,
            }
        )
    return {
        "start": round(span[0], 6),
        "stop": round(span[1], 6),
        "top_hz": top_hz,
        "ticks": ticks(top_hz),
        "range_db": round(scale[0] - scale[1]),
        "tracks": told,
    }


def scale_of(decibels: np.ndarray) -> tuple[float, float]:
    """(brightest, darkest) in dB, from the picture of the recording, for all of its tracks.

    70 dB, or less where the quietest tenth of a noisy recording lies higher, but 25 dB at least.
    """
    top = float(decibels.max())
    below = np.maximum(decibels - top, -_RANGE_DB)
    return top, top + min(-_LEAST_DB, float(np.quantile(below, 0.1)))


def coloured(decibels: np.ndarray, scale: tuple[float, float]) -> bytes:
    """WebP of (F, W) dB, low bands at the foot, at most about PICTURE_BYTES long."""
    shades = np.clip((decibels - scale[1]) / (scale[0] - scale[1]), 0, 1).astype(np.float32)
    image = Image.fromarray(shades[::-1]).resize(PICTURE, Image.Resampling.BILINEAR)
    colours = matplotlib.colormaps["cividis"](np.asarray(image), bytes=True)[..., :3]
    for quality in (60, 40, 20, 5):
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(colours)).save(buffer, "WEBP", quality=quality)
        if buffer.tell() <= PICTURE_BYTES:
            break
    return buffer.getvalue()
