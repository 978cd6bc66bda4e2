"""Windows that are made of others: faster, slower, mixed; each the same whenever it is heard."""

from __future__ import annotations

import numpy as np
import pytest

from ossicle.errors import OssicleError
from ossicle.pretrain import places
from ossicle.pretrain import windows as windows_module
from ossicle.pretrain.places import placed
from ossicle.pretrain.waveforms import Waveforms
from ossicle.pretrain.windows import (
    LEVEL_DB,
    MIXED,
    NOTHING,
    Windows,
    cut_windows,
    hear,
    mixtures_key,
    with_mixtures,
)

RATE = 16_000


def tone(hz: float, seconds: float, level: float = 0.3) -> np.ndarray:
    return level * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)


def decoded(*sounds: np.ndarray) -> Waveforms:
    lengths = np.array([len(sound) for sound in sounds])
    codes = np.round(np.concatenate(sounds) * 32767).astype(np.int16)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    names = tuple(f"{i}.wav" for i in range(len(sounds)))
    return Waveforms(codes, np.arange(len(sounds)), starts, lengths, names, [], RATE)


def unmixed(windows: Windows) -> Windows:
    nothing = np.full(len(windows), NOTHING)
    return Windows(*windows[:3], nothing, nothing, *windows[5:7], nothing, nothing)


def nowhere(windows: Windows) -> Windows:
    return Windows(*windows[:7], *[np.full(len(windows), NOTHING)] * 2)


@pytest.fixture(scope="module")
def sounds() -> Waveforms:
    return decoded(*(tone(400 + 90 * i, 1.0 + 0.31 * i) for i in range(12)))


def test_the_real_ones_stay_and_the_made_ones_come_behind(sounds):
    plain = cut_windows(sounds, (0.5, 1.0))
    made = with_mixtures(plain, 1.5, seed=3)
    n = len(plain)
    assert len(made) == n + round(1.5 * n)
    for before, after in zip(plain, made, strict=True):
        assert np.array_equal(before, after[:n])
    assert not made.changed[:n].any() and made.changed[n:].all()
    assert all(
        np.array_equal(a, b) for a, b in zip(made, with_mixtures(plain, 1.5, 3), strict=True)
    )
    assert len(with_mixtures(plain, 0)) == n


def test_shares_and_levels_are_those_that_are_said(sounds):
    plain = cut_windows(sounds, (0.5,))
    made = with_mixtures(plain, 200, seed=1).some(np.arange(len(plain), 201 * len(plain)))
    n = len(made)
    mixed = made.other_items != NOTHING
    assert abs(mixed.mean() - MIXED) < 4 * np.sqrt(MIXED * (1 - MIXED) / n)
    low, high = LEVEL_DB
    assert low <= made.levels_db.min() < low + 1 and high - 1 < made.levels_db.max() <= high
    assert 2**-0.5 <= made.speeds.min() < 0.75 and 1.35 < made.speeds.max() <= 2**0.5


def test_faster_is_higher_by_as_much(sounds):
    plain = cut_windows(sounds, (1.0,))
    made = with_mixtures(plain, 3)
    for row in range(len(plain), len(made)):
        alone = unmixed(made)
        heard = hear(sounds, alone, row)
        assert heard.shape == (RATE,) and heard.dtype == np.float32
        end = min(
            RATE, int((sounds.lengths[made.items[row]] - made.starts[row]) / made.speeds[row])
        )
        middle = heard[RATE // 8 : end - RATE // 8]
        spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 8 * RATE))
        want = (400 + 90 * int(made.items[row])) * made.speeds[row]
        assert abs(np.argmax(spectrum) / 8 - want) < 3


def test_what_is_mixed_in_is_so_much_softer(sounds):
    plain = cut_windows(sounds, (1.0,))
    made = with_mixtures(plain, 4, seed=2)
    rows = np.flatnonzero(made.other_items != NOTHING)
    assert len(rows) > 20
    for row in rows:
        mixture = hear(sounds, nowhere(made), row).astype(float)
        alone = unmixed(made)
        own = hear(sounds, alone, row).astype(float)
        other = sounds.read(int(made.other_items[row]), int(made.other_starts[row]), RATE)
        # The mixture is a * own + b * other: both by least squares.
        (a, b), *_ = np.linalg.lstsq(np.stack([own, other], 1), mixture, rcond=None)
        assert np.allclose(a * own + b * other, mixture, atol=1e-4)
        ratio = 10 * np.log10((a**2 * (own**2).mean()) / (b**2 * (other.astype(float) ** 2).mean()))
        assert abs(ratio - made.levels_db[row]) < 0.05
        assert np.abs(mixture).max() <= 1 + 1e-6


def test_silence_beside_changes_nothing():
    quiet = decoded(tone(500, 1.0), np.zeros(RATE))
    made = with_mixtures(cut_windows(quiet, (1.0,)), 20)
    for row in np.flatnonzero((made.other_items == 1) & (made.items == 0)):
        alone = unmixed(made)
        assert np.array_equal(hear(quiet, nowhere(made), row), hear(quiet, alone, row))


def test_made_ones_are_recorded_in_places_of_their_own(sounds):
    made = with_mixtures(cut_windows(sounds, (1.0,)), 2)
    rows = np.flatnonzero(made.changed)
    assert len(set(made.places[rows])) == len(rows)
    for row in rows[:20]:
        sound = hear(sounds, nowhere(made), row)
        want = placed(sound, RATE, int(made.places[row]))
        assert np.array_equal(hear(sounds, made, row), want)
        assert not np.array_equal(want, sound)


@pytest.mark.parametrize("share", [-0.1, float("nan"), float("inf")])
def test_no_such_share(sounds, share):
    with pytest.raises(OssicleError, match="mixtures"):
        with_mixtures(cut_windows(sounds, (1.0,)), share)


def test_windows_made_otherwise_have_another_key(monkeypatch):
    """Or what teachers said of the former ones would be taken for what they say of these."""
    keys = {mixtures_key(1.0), mixtures_key(0.5)}
    assert mixtures_key(1) in keys  # a number is the same in Python and on the command line
    monkeypatch.setattr(windows_module, "LEVEL_DB", (0.0, 1.0))
    keys.add(mixtures_key(1.0))
    for name in [name for name in dir(places) if name.isupper() and name not in ("KEY", "PLACE")]:
        assert any(value is getattr(places, name) for value in places.KEY), name
    assert len(keys) == 3
