"""Made windows on the disk: what is heard from there is what would be made anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ossicle.pretrain import made as made_module
from ossicle.pretrain.made import SAMPLES, render, render_cached
from ossicle.pretrain.waveforms import FULL_SCALE, Waveforms
from ossicle.pretrain.windows import NOTHING, Windows, cut_windows, hear, with_mixtures

RATE = 8000


@pytest.fixture(scope="module")
def sounds() -> Waveforms:
    rng = np.random.default_rng(0)
    lengths = rng.integers(RATE // 3, 3 * RATE, 9)
    codes = (rng.standard_normal(lengths.sum()) * 2000).astype(np.int16)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    names = tuple(f"{i}.wav" for i in range(9))
    return Waveforms(codes, np.arange(9), starts, lengths, names, [], RATE)


@pytest.fixture(scope="module")
def windows(sounds) -> Windows:
    return with_mixtures(cut_windows(sounds, (0.5, 1.0)), 7.0)


@pytest.mark.parametrize("workers", [1, 2])
def test_heard_from_the_disk_as_made_anew(sounds, windows, tmp_path, workers):
    seen = []
    kept = render(sounds, windows, tmp_path, workers, seen.append)
    n = int(windows.changed.sum())
    assert n > 64 and (seen[-1].done, seen[-1].total) == (n, n)
    assert [p.done for p in seen] == sorted({p.done for p in seen})
    assert seen[-1].seconds_read == windows.lengths[windows.changed].sum() / RATE
    for row in range(len(windows)):
        anew, read = hear(sounds, windows, row), hear(*kept, row)
        assert read.dtype == np.float32 and read.shape == anew.shape
        assert np.abs(read - anew).max() <= 0.51 / FULL_SCALE
        if not windows.changed[row]:
            assert np.array_equal(read, anew)


def test_the_rows_of_some_windows_keep_their_sounds(sounds, windows, tmp_path):
    sounds, kept = render(sounds, windows, tmp_path)
    rows = np.arange(len(kept))[::-3]
    for place, row in enumerate(rows):
        assert np.array_equal(hear(sounds, kept.some(rows), place), hear(sounds, kept, int(row)))
    some = sounds.only(sounds.rows)
    assert np.array_equal(hear(some, kept, len(kept) - 1), hear(sounds, kept, len(kept) - 1))


def test_a_stopped_run_goes_on_behind_the_last_whole_window(sounds, windows, tmp_path, monkeypatch):
    render(sounds, windows, tmp_path / "whole")
    whole = (tmp_path / "whole" / SAMPLES).read_bytes()
    folder = tmp_path / "stopped"
    folder.mkdir()
    lengths = windows.lengths[windows.changed]
    cut = 2 * int(lengths[:10].sum()) + 777
    (folder / SAMPLES).write_bytes(whole[:cut])
    heard = []

    def counted(waveforms: Waveforms, windows: Windows, row: int) -> np.ndarray:
        heard.append(row)
        return hear(waveforms, windows, row)

    monkeypatch.setattr(made_module, "hear", counted)
    render(sounds, windows, folder)
    assert (folder / SAMPLES).read_bytes() == whole
    assert heard == np.flatnonzero(windows.changed)[10:].tolist()
    heard.clear()
    render(sounds, windows, folder)
    assert not heard and (folder / SAMPLES).read_bytes() == whole


def test_nothing_made_needs_no_file(sounds, tmp_path, monkeypatch):
    monkeypatch.setattr(made_module, "cache_dir", lambda: tmp_path)
    plain = cut_windows(sounds, (0.5,))
    got, same = render_cached(sounds, plain, "a")
    assert got is sounds and same is plain and not list(Path(tmp_path).iterdir())
    _, made = render_cached(sounds, with_mixtures(plain, 1.0), "a")
    _, other = render_cached(sounds, with_mixtures(plain, 2.0), "b")
    assert len(list((tmp_path / "made").iterdir())) == 2
    for kept in (made, other):
        assert ((kept.kept == NOTHING) == ~kept.changed).all()
