"""What the frozen front of a detector makes of each window, computed once and mapped.

The front (log-mels, the layers of a frozen network) is the larger part of the work of training and
gives the same every time. A folder holds ``maps.f16`` and ``maps.json``, which says of what they
are and how many are done; a stopped run goes on there. W windows, M values of each.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ossicle.features import Progress, one_thread
from ossicle.pretrain.waveforms import Waveforms
from ossicle.record import write_json
from ossicle.strong.data import Windows

VALUES, ABOUT = "maps.f16", "maps.json"
LARGEST = 65_504.0  # of float16
TOLD_EVERY = 64  # windows between notes of how many are done
# Of what is free on the disk, so that a run does not fill it.
SHARE_OF_DISK = 0.5

Front = Callable[[Tensor], Tensor]


def fits(n_values: int, folder: Path | None) -> bool:
    """Whether so many values of 16 bits may be kept in a folder's disk."""
    if folder is None:
        return True
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return 2 * n_values <= SHARE_OF_DISK * shutil.disk_usage(there).free


def precomputed(
    front: Front,
    size: int,
    waveforms: Waveforms,
    windows: Windows,
    n_samples: int,
    *,
    folder: Path | None = None,
    key: str = "",
    workers: int = 1,
    progress: Callable[[Progress], None] | None = None,
) -> np.ndarray:
    """(W, M) float16: the front's values of every window; again they are read, not computed.

    Args:
        front: (1, N) waveform -> (1, M).
        size: M.
        waveforms: decoded recordings.
        windows: of them.
        n_samples: N.
        folder: where they are kept; None: in memory.
        key: of what they are made: others in the folder are made anew.
        workers: threads, each with a window at a time; no number changes the values.
        progress: called after every window.
    """
    total = len(windows.items)
    done = 0
    if folder is None:
        values: np.ndarray = np.empty((total, size), np.float16)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        done = _done(folder, key, total, size)
        path, shape = folder / VALUES, (total, size)
        if done:
            values = np.memmap(path, np.float16, "r+", shape=shape)
        else:
            values = np.memmap(path, np.float16, "w+", shape=shape)

    def compute(number: int) -> np.ndarray:
        if torch.get_num_threads() != 1:
            torch.set_num_threads(1)  # a property of each thread in some OpenMP builds
        item, start = int(windows.items[number]), int(windows.starts[number])
        samples = torch.from_numpy(waveforms.read(item, start, n_samples))[None]
        with torch.inference_mode():
            return front(samples)[0].clamp(-LARGEST, LARGEST).to(torch.float16).numpy()

    def note(number: int) -> None:
        if folder is not None and isinstance(values, np.memmap):
            values.flush()
            write_json(folder / ABOUT, {"key": key, "windows": total, "size": size, "done": number})

    with one_thread(), ThreadPoolExecutor(workers) as pool:
        for first in range(done, total, TOLD_EVERY):
            last = min(first + TOLD_EVERY, total)
            for number, row in zip(
                range(first, last), pool.map(compute, range(first, last)), strict=True
            ):
                values[number] = row
                if progress is not None:
                    seconds = (number + 1) * n_samples / waveforms.sample_rate
                    progress(Progress(number + 1, total, seconds))
            note(last)
    return values


def _done(folder: Path, key: str, total: int, size: int) -> int:
    """How many windows an earlier run finished."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        same = (about["key"], about["windows"], about["size"]) == (key, total, size)
        whole = (folder / VALUES).stat().st_size == 2 * total * size
        return int(about["done"]) if same and whole else 0
    except (OSError, ValueError, LookupError, TypeError):
        return 0
