"""Made windows, rendered once: heard by every teacher, and by the student in every epoch.

A file of the cache with 16-bit samples, one window after another; a stopped run goes on behind the
last whole one. It is mapped, not loaded.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ossicle.download import cache_dir
from ossicle.features import Progress, one_thread, run_in_order
from ossicle.pretrain.waveforms import FULL_SCALE, Waveforms, alone_in
from ossicle.pretrain.windows import Windows, hear

SAMPLES = "made.i16"
AT_ONCE = 64  # windows of a job


def render_cached(
    waveforms: Waveforms,
    windows: Windows,
    key: str,
    workers: int = 1,
    progress: Callable[[Progress], None] | None = None,
) -> tuple[Waveforms, Windows]:
    """The same recordings and windows, of which the made ones are read from a file.

    Args:
        waveforms: decoded recordings.
        windows: of them; as they are where nothing was made.
        key: what tells these windows from others.
        workers: threads.
        progress: told of windows rendered.
    """
    if not windows.changed.any():
        return waveforms, windows
    name = hashlib.sha256(key.encode()).hexdigest()[:16]
    return render(waveforms, windows, cache_dir() / "made" / name, workers, progress)


def render(
    waveforms: Waveforms,
    windows: Windows,
    folder: Path,
    workers: int = 1,
    progress: Callable[[Progress], None] | None = None,
) -> tuple[Waveforms, Windows]:
    """Render what is made into a folder, or open what is there; see `render_cached`."""
    folder.mkdir(parents=True, exist_ok=True)
    made = np.flatnonzero(windows.changed)
    ends = np.cumsum(windows.lengths[made])
    path = folder / SAMPLES
    with alone_in(folder):
        there = path.stat().st_size // 2 if path.is_file() else 0
        done = int(np.searchsorted(ends, there, side="right"))
        with path.open("ab") as file:
            file.truncate(2 * int(ends[done - 1]) if done else 0)
        jobs: Any = [made[i : i + AT_ONCE] for i in range(done, len(made), AT_ONCE)]

        def codes(rows: np.ndarray) -> bytes:
            sounds = np.concatenate([hear(waveforms, windows, int(row)) for row in rows])
            whole = np.clip(sounds * FULL_SCALE, -FULL_SCALE, FULL_SCALE).round()
            return whole.astype("<i2").tobytes()

        with one_thread(), path.open("ab") as file:
            for number, part in run_in_order(codes, jobs, workers):  # type: ignore[arg-type]
                if isinstance(part, Exception):
                    raise part
                file.write(part)
                done += len(jobs[number])
                if progress is not None:
                    seconds = float(ends[done - 1]) / waveforms.sample_rate
                    progress(Progress(done, len(made), seconds))
            file.flush()
            os.fsync(file.fileno())
    kept = windows.kept.copy()
    kept[made] = ends - windows.lengths[made]
    samples = np.memmap(path, "<i2", mode="r")
    return Waveforms(*waveforms[:7], made=samples), Windows(*windows[:8], kept=kept)
