"""Recordings decoded once, so that training reads any stretch of them at once.

A folder with ``waveforms.i16`` (16-bit samples, one recording after another) and ``index.jsonl``
(a line each: path, first sample, number of samples, or the reason why it was left out). The file is
mapped, not loaded: memory does not grow with the hours. A stopped run goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ossicle.backbones.clip_policy import ClipPolicy
from ossicle.datasets.clips import Clips
from ossicle.download import cache_dir
from ossicle.errors import AudioError, DataError
from ossicle.features import Clip, Progress, as_clips, clip_parts, one_thread, run_in_order
from ossicle.record import replaced

SAMPLES = "waveforms.i16"
INDEX = "index.jsonl"
FULL_SCALE = 32767
# Decoded at a time, in seconds: what one thread holds.
PART_S = 30.0


class Waveforms(NamedTuple):
    """Decoded recordings.

    Attributes:
        samples: (all samples,) int16, mapped from the file.
        rows: (n,) which of the clips asked for each is.
        starts: (n,) first sample.
        lengths: (n,) samples.
        names: (n,) paths.
        skipped: (row, path, reason) of what could not be used.
        sample_rate: Hz.
        made: (all samples,) int16 of what was made of them, mapped; see ``pretrain.made``.
    """

    samples: np.ndarray
    rows: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    names: tuple[str, ...]
    skipped: list[tuple[int, str, str]]
    sample_rate: int
    made: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def seconds(self) -> float:
        """Of audio in all."""
        return float(self.lengths.sum()) / self.sample_rate

    def without(self, rows: np.ndarray) -> Waveforms:
        """All but some of the clips asked for."""
        kept = ~np.isin(self.rows, rows)
        names = tuple(name for name, keep in zip(self.names, kept, strict=True) if keep)
        parts = self.rows[kept], self.starts[kept], self.lengths[kept], names
        return Waveforms(self.samples, *parts, self.skipped, self.sample_rate, self.made)

    def only(self, rows: np.ndarray) -> Waveforms:
        """Those of some of the clips asked for."""
        return self.without(np.setdiff1d(self.rows, rows))

    def read(self, item: int, start: int, n_samples: int) -> np.ndarray:
        """(n_samples,) float32 from ``start`` of a recording; zeros before and beyond it."""
        length, first = int(self.lengths[item]), int(self.starts[item])
        a, b = max(start, 0), min(start + n_samples, length)
        out = np.zeros(n_samples, np.float32)
        if b > a:
            out[a - start : b - start] = self.samples[first + a : first + b]
            out /= FULL_SCALE
        return out


def decode_cached(
    clips: Clips,
    sample_rate: int,
    workers: int = 1,
    progress: Callable[[Progress], None] | None = None,
) -> Waveforms:
    """All clips of a table, decoded into the cache; again it costs nothing.

    Raises:
        DataError: none of the clips can be used.
    """
    items = as_clips(clips)
    folder = cache_dir() / "waveforms" / key(items, sample_rate)[:16]
    return decode(items, sample_rate, folder, workers=workers, progress=progress)


def key(clips: Sequence[Clip], sample_rate: int) -> str:
    """What tells one set of decoded recordings from another: files, parts, sizes, times, rate."""
    total = hashlib.sha256(f"{sample_rate}\n".encode())
    for clip in clips:
        path = str(clip.source)
        try:
            status = os.stat(path)  # noqa: PTH116 (names may hold bytes that are no text)
            about = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            about = "missing"
        line = f"{path}\0{clip.onset}\0{clip.offset}\0{about}\n"
        total.update(line.encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def decode(
    clips: Sequence[Clip],
    sample_rate: int,
    folder: Path,
    *,
    workers: int = 1,
    progress: Callable[[Progress], None] | None = None,
) -> Waveforms:
    """Decode all clips (paths, or parts of files) into ``folder``, or open what is there.

    Raises:
        DataError: none of the clips can be used.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with alone_in(folder):
        return _decode(clips, sample_rate, folder, workers, progress)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """One at a time in a folder: a second run on the same recordings waits, and finds all done."""
    handle = None
    with suppress(ImportError, OSError):  # not every system or disk can lock a folder
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        # What was decoded ahead when it stopped, or when another was killed.
        for path in folder.glob(".*.part"):
            path.unlink(missing_ok=True)
        if handle is not None:
            os.close(handle)


def _decode(
    clips: Sequence[Clip],
    sample_rate: int,
    folder: Path,
    workers: int,
    progress: Callable[[Progress], None] | None,
) -> Waveforms:
    data, index = folder / SAMPLES, folder / INDEX
    lines = _lines(index, data, len(clips))
    end = max((line["start"] + line["length"] for line in lines), default=0)
    with data.open("ab") as file:
        file.truncate(2 * end)
    with replaced(index) as part:  # without a line that a crash cut short
        part.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    done, seconds = len(lines), end / sample_rate

    def to_file(clip: Clip) -> tuple[Path, int]:
        # Through a file each, as a recording may be longer than the memory.
        path = folder / f".{secrets.token_hex(8)}.part"
        n_samples = 0
        try:
            with path.open("wb") as out:
                for part in clip_parts(clip, ClipPolicy(PART_S, 0.0), sample_rate):
                    codes = np.clip(part * FULL_SCALE, -FULL_SCALE, FULL_SCALE).round()
                    out.write(codes.astype("<i2").tobytes())
                    n_samples += len(part)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path, n_samples

    with one_thread(), data.open("ab") as file, index.open("a", encoding="utf-8") as log:
        for number, result in run_in_order(to_file, clips[done:], workers):
            row = done + number
            line: dict[str, Any] = {"row": row, "path": clips[row].name, "start": end, "length": 0}
            if isinstance(result, AudioError):
                line["reason"] = result.reason
            else:
                path, line["length"] = result
                with path.open("rb") as decoded:
                    shutil.copyfileobj(decoded, file)
                path.unlink()
                end += line["length"]
                seconds += line["length"] / sample_rate
            file.flush()
            log.write(json.dumps(line) + "\n")
            log.flush()
            lines.append(line)
            if progress is not None:
                progress(Progress(row + 1, len(clips), seconds))
    return _opened(lines, data, sample_rate)


def _lines(index: Path, data: Path, n_clips: int) -> list[dict[str, Any]]:
    """What an earlier run finished: lines in order, as far as their samples are there."""
    if not index.is_file() or not data.is_file():
        return []
    size = data.stat().st_size // 2
    lines: list[dict[str, Any]] = []
    for text in index.read_text(encoding="utf-8", errors="replace").splitlines()[:n_clips]:
        try:
            line = json.loads(text)
            usable = line["row"] == len(lines) and line["start"] + line["length"] <= size
        except (ValueError, LookupError, TypeError):  # what a crash left of a line
            break
        if not usable:
            break
        lines.append(line)
    return lines


def _opened(lines: list[dict[str, Any]], data: Path, sample_rate: int) -> Waveforms:
    used = [line for line in lines if line["length"]]
    skipped = [(line["row"], line["path"], line["reason"]) for line in lines if "reason" in line]
    if not used:
        reason = f"; the first: {skipped[0][1]}: {skipped[0][2]}" if skipped else ""
        raise DataError(f"none of the {len(lines)} clips could be used{reason}")
    return Waveforms(
        np.memmap(data, "<i2", mode="r"),
        np.array([line["row"] for line in used]),
        np.array([line["start"] for line in used], np.int64),
        np.array([line["length"] for line in used], np.int64),
        tuple(line["path"] for line in used),
        skipped,
        sample_rate,
    )
