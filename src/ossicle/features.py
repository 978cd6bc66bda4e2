"""Features of many clips from a frozen model: every layer in one pass, nothing of it trained.

Each clip is read and run by itself, with one thread, so that its numbers depend neither on its
neighbours nor on the number of workers.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from ossicle.audio import Audio, load, resample, stream
from ossicle.datasets.clips import Clips, part_text
from ossicle.errors import AudioError, DataError, OssicleError
from ossicle.model import ClipPolicy, Model

# Shorter than two frames of any front end here: there is nothing to hear in it.
MIN_DURATION_S = 0.02
# Peak to peak, in units of full scale: below the last bit of 24-bit samples.
SILENCE = 1e-7


class Clip(NamedTuple):
    """One item to embed: a file or a part of it, or samples in memory with their rate."""

    source: str | Audio
    onset: float | None = None
    offset: float | None = None

    @property
    def name(self) -> str:
        """Path, or "array"."""
        return self.source if isinstance(self.source, str) else "array"


class Progress(NamedTuple):
    """How far a long run has come: clips done of all, and seconds of audio read."""

    done: int
    total: int
    seconds_read: float


ProgressCallback = Callable[[Progress], None]


@dataclass
class FeatureTable:
    """Pooled layers of many clips.

    Attributes:
        blocks: "LAYER/POOLING" -> (clips, dims) float32, shallow to deep.
        index: (clips,) row of each clip in what was asked for.
        skipped: (row, path, reason) of what could not be used.
        seconds_read: decoded audio.
        seconds_used: audio that entered the features.
        elapsed_s: wall-clock time of the extraction.
        sample_rate: Hz of the model.
    """

    blocks: OrderedDict[str, np.ndarray]
    index: np.ndarray
    skipped: list[tuple[int, str, str]] = field(default_factory=list)
    seconds_read: float = 0.0
    seconds_used: float = 0.0
    elapsed_s: float = 0.0
    sample_rate: int = 0

    def __len__(self) -> int:
        return len(self.index)

    @property
    def layers(self) -> tuple[str, ...]:
        """Layer names, shallow to deep."""
        return tuple(dict.fromkeys(name.rpartition("/")[0] for name in self.blocks))

    def names(self, layers: Sequence[str] | None = None) -> list[str]:
        """Blocks of the given layers, in order; None is all."""
        wanted = None if layers is None else set(layers)
        return [n for n in self.blocks if wanted is None or n.rpartition("/")[0] in wanted]

    def sizes(self, names: Sequence[str] | None = None) -> list[int]:
        """Columns of each block, in the order of ``matrix``."""
        return [self.blocks[n].shape[1] for n in (names or self.blocks)]

    def matrix(self, names: Sequence[str] | None = None) -> np.ndarray:
        """(clips, sum of dims) float32: the blocks side by side; None is all of them.

        Raises:
            OssicleError: no block is named, or one is not in the table.
        """
        names = list(self.blocks) if names is None else list(names)
        unknown = [name for name in names if name not in self.blocks]
        if unknown or not names:
            which = unknown[0] if unknown else "none is named"
            raise OssicleError(f"no such block in the table: {which}")
        return np.concatenate([self.blocks[name] for name in names], axis=1)

    def by_layer(self) -> OrderedDict[str, np.ndarray]:
        """Layer -> (clips, dims) with its poolings side by side."""
        return OrderedDict((layer, self.matrix(self.names([layer]))) for layer in self.layers)


def as_clips(items: Clips | Iterable[Any]) -> list[Clip]:
    """Clips from a clips table, paths, (samples, sample_rate) pairs, or clips.

    Samples are (N,) or (C, N) floating point in [-1, 1].

    Raises:
        DataError: an item is none of these, its samples are integers, or its rate is no rate.
    """
    if isinstance(items, Clips):
        rows = items.table[["path", "onset", "offset"]].itertuples(index=False)
        return [Clip(str(r.path), _seconds(r.onset), _seconds(r.offset)) for r in rows]
    if isinstance(items, pd.DataFrame):
        raise DataError("a table goes through ossicle.read_clips first")
    if isinstance(items, str | Path):
        raise DataError(f"{items}: one path stands where a list of paths is expected")
    clips = []
    for item in items:
        if isinstance(item, Clip):
            clips.append(item)
        elif isinstance(item, str | Path):
            clips.append(Clip(str(item)))
        elif isinstance(item, tuple) and len(item) == 2 and np.ndim(item[0]) in (1, 2):
            clips.append(Clip(_audio(*item)))
        else:
            raise DataError(
                f"cannot read {type(item).__name__} as a clip: pass paths, or pairs of samples "
                "and sample rate"
            )
    return clips


def read_clip(clip: Clip, sample_rate: int) -> np.ndarray:
    """(N,) float32, mono, at ``sample_rate``.

    Raises:
        AudioError: it cannot be used; the message names the file, the reason and the part.
    """
    if isinstance(clip.source, str):
        try:
            audio = load(
                clip.source,
                sample_rate=sample_rate,
                onset=clip.onset,
                offset=clip.offset,
                min_duration_s=MIN_DURATION_S,
                allow_silent=False,
            )
        except AudioError as error:
            part = part_text(clip.onset, clip.offset)
            raise AudioError(error.path, f"{error.reason}{part}") from error
        return audio.samples[0]
    samples, rate = clip.source
    if not np.isfinite(samples).all():
        raise AudioError(clip.name, "holds NaN or infinite samples")
    mono = samples.mean(0, keepdims=True)
    if mono.shape[1] < MIN_DURATION_S * rate:
        shape = "" if len(samples) <= samples.shape[1] else "; time is the last axis, (C, N)"
        raise AudioError(clip.name, f"shorter than {MIN_DURATION_S} s{shape}")
    if np.ptp(mono) < SILENCE:
        raise AudioError(clip.name, "silent: all samples are alike")
    return resample(mono, rate, sample_rate)[0].astype(np.float32, copy=False)


def clip_parts(clip: Clip, policy: ClipPolicy, sample_rate: int) -> Iterator[np.ndarray]:
    """The parts that ``policy.segments`` cuts the clip into, each (N,) float32 at ``sample_rate``.

    A whole file is streamed: two parts are held, however long it is.

    Raises:
        AudioError: as for ``read_clip``; what only the end shows is raised at the end.
    """
    if not isinstance(clip.source, str) or clip.onset is not None or clip.offset is not None:
        samples = read_clip(clip, sample_rate)
        yield from (samples[a:b] for a, b in policy.segments(len(samples), sample_rate))
        return
    window = max(1, round(policy.window_s * sample_rate))
    blocks = stream(
        clip.source,
        sample_rate=sample_rate,
        block_s=window / sample_rate,
        min_duration_s=MIN_DURATION_S,
        allow_silent=False,
    )
    held: np.ndarray | None = None
    for block in blocks:
        part = block.samples[0]
        if held is not None and len(part) < window:
            # The last two parts share what is left.
            joined = np.concatenate([held, part])
            half = -(-len(joined) // 2)
            yield joined[:half]
            part = joined[half:]
        elif held is not None:
            yield held
        held = part
    if held is not None:
        yield held


def embed_clip(
    model: Model,
    clip: Clip,
    layers: Sequence[str] | None = None,
    poolings: Sequence[str] | None = None,
) -> tuple[OrderedDict[str, np.ndarray], float]:
    """The clip's blocks as from ``Model.clip_features``, and its length in seconds.

    Raises:
        AudioError: it cannot be used; the message names the file and the reason.
    """
    n_samples = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal n_samples
        for part in clip_parts(clip, model.clip, model.sample_rate):
            n_samples += len(part)
            yield part

    vectors = model.join_features(counted(), layers, poolings)
    return vectors, n_samples / model.sample_rate


@contextmanager
def one_thread() -> Iterator[None]:
    """One torch thread inside: the same sums in the same order on every machine load."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_in_order(
    function: Callable[[Clip], Any], clips: Sequence[Clip], workers: int
) -> Iterator[tuple[int, Any]]:
    """(row, result or AudioError) in order of the rows, a few clips ahead in ``workers`` threads.

    Threads serve because decoding, resampling and convolutions run outside Python's lock.
    """

    def attempt(clip: Clip) -> Any:
        # The number of threads is a property of each thread in some OpenMP builds.
        if torch.get_num_threads() != 1:
            torch.set_num_threads(1)
        try:
            return function(clip)
        except AudioError as error:
            return error

    # One worker is a thread too: Ctrl-C in the middle of a decoder's callback would be lost.
    pool = ThreadPoolExecutor(workers)
    pending: list[tuple[int, Future[Any]]] = []
    rows = iter(enumerate(clips))
    try:
        for row, clip in islice(rows, 4 * workers):
            pending.append((row, pool.submit(attempt, clip)))
        while pending:
            row, future = pending.pop(0)
            result = future.result()
            for next_row, clip in islice(rows, 1):
                pending.append((next_row, pool.submit(attempt, clip)))
            yield row, result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def extract(
    model: Model,
    items: Clips | Iterable[Any],
    *,
    layers: str | Sequence[str | int] = "all",
    poolings: Sequence[str] | None = None,
    workers: int = 1,
    progress: ProgressCallback | None = None,
) -> FeatureTable:
    """Pool the layers of every clip.

    Args:
        model: frozen; it is put into evaluation.
        items: a clips table, paths, or (samples, sample_rate) pairs.
        layers: see ``Model.select_layers``.
        poolings: names in ``ossicle.heads.POOLINGS``; None is the backbone's own.
        workers: threads, each with one clip at a time; no number changes the result.
        progress: called after every clip.

    Returns:
        The table; clips that cannot be used are in ``skipped``, the rest is there.

    Raises:
        DataError: no clip at all could be used.
        OssicleError: a layer or a pooling is unknown.
    """
    clips = as_clips(items)
    if not clips:
        raise DataError("no clips to embed")
    if workers < 1:
        raise OssicleError(f"workers must be at least 1, got {workers}")
    names = model.select_layers(layers)
    model.eval()

    def embed(clip: Clip) -> tuple[OrderedDict[str, np.ndarray], float]:
        return embed_clip(model, clip, names, poolings)

    blocks: dict[str, np.ndarray] = {}
    index: list[int] = []
    skipped = []
    seconds = 0.0
    start = time.perf_counter()
    with one_thread():
        for row, result in run_in_order(embed, clips, workers):
            if isinstance(result, AudioError):
                skipped.append((row, result.path, result.reason))
            else:
                vectors, duration_s = result
                seconds += duration_s
                for name, vector in vectors.items():
                    if name not in blocks:
                        blocks[name] = np.empty((len(clips), len(vector)), np.float32)
                    blocks[name][len(index)] = vector
                index.append(row)
            if progress is not None:
                progress(Progress(row + 1, len(clips), seconds))
    if not index:
        _, path, reason = skipped[0]
        raise DataError(
            f"none of the {len(clips)} clips could be used; the first: {path}: {reason}"
        )
    return FeatureTable(
        OrderedDict((name, block[: len(index)]) for name, block in blocks.items()),
        np.array(index),
        skipped,
        seconds_read=seconds,
        seconds_used=seconds,
        elapsed_s=time.perf_counter() - start,
        sample_rate=model.sample_rate,
    )


def _audio(samples: Any, sample_rate: Any) -> Audio:
    """Samples in memory with their rate, checked."""
    array = np.asarray(samples)
    if array.dtype.kind != "f":
        # Their scale is not told by their type: 24-bit samples come in 32 bits.
        raise DataError(
            f"samples are {array.dtype}: pass floating point in [-1, 1] (16-bit integers / 32768)"
        )
    try:
        rate = int(sample_rate)
    except (TypeError, ValueError, OverflowError):
        rate = 0
    if rate < 1 or rate != sample_rate:
        raise DataError(f"a sample rate is a positive whole number of Hz, not {sample_rate!r}")
    return Audio(np.atleast_2d(array.astype(np.float32, copy=False)), rate)


def _seconds(value: Any) -> float | None:
    return None if value is None or pd.isna(value) else float(value)
