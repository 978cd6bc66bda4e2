"""Extraction in pieces of a few clips: what a worker is sent, what it gives back, what is missing.

A piece names the network by its strategy; each worker process builds it once. A stop, or a worker
that dies, costs the pieces that were on their way.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ossicle import __version__
from ossicle.benchmark.executors import Executor
from ossicle.datasets.clips import Clips
from ossicle.errors import AudioError, DataError
from ossicle.features import (
    Clip,
    FeatureTable,
    Progress,
    ProgressCallback,
    as_clips,
    extract,
    read_clip,
)
from ossicle.finetune.models import build
from ossicle.finetune.strategy import Strategy
from ossicle.model import Model
from ossicle.record import json_safe
from ossicle.store import FeatureStore

CLIPS_A_PIECE = 64

# The text of a strategy, and the seed of random weights.
Spec = tuple[str, int]
# The last network built in this process.
_HELD: dict[Spec, Model] = {}


@dataclass(frozen=True)
class Piece:
    """Clips for one worker.

    Attributes:
        spec: of the network.
        rows: (k,) of the clips' table.
        clips: k.
        layers: as for ``Model.select_layers``.
        poolings: names; None: the network's own.
    """

    spec: Spec
    rows: np.ndarray
    clips: tuple[Clip, ...]
    layers: str | tuple[str, ...] = "all"
    poolings: tuple[str, ...] | None = None


def model_of(spec: Spec) -> Model:
    """The network of a spec, built once in a process as long as no other is asked for.

    Raises:
        OssicleError: there is no such network.
    """
    if spec not in _HELD:
        model = build(Strategy.parse(spec[0]), spec[1])
        _HELD.clear()
        _HELD[spec] = model
    return _HELD[spec]


def extract_piece(piece: Piece, workers: int = 1) -> FeatureTable:
    """Features of the piece's clips; ``index`` and ``skipped`` count in it.

    Args:
        piece: what to hear.
        workers: threads; no number changes the result.

    Returns:
        The table; without blocks where none of the clips can be used.
    """
    model, start = model_of(piece.spec), time.perf_counter()
    try:
        return extract(
            model, piece.clips, layers=piece.layers, poolings=piece.poolings, workers=workers
        )
    except DataError:
        # None of these can be used; those of other pieces may be.
        skipped = _unusable(piece.clips, model.sample_rate)
        if len(skipped) < len(piece.clips):
            raise
        took = time.perf_counter() - start
        none = np.zeros(0, np.int64)
        return FeatureTable(
            OrderedDict(), none, skipped, elapsed_s=took, sample_rate=model.sample_rate
        )


def missing_pieces(store: FeatureStore, n: int, size: int = CLIPS_A_PIECE) -> list[np.ndarray]:
    """Rows of 0 to n - 1 that the store neither has nor left out, ascending, ``size`` at a time."""
    there = np.zeros(n, bool)
    done = store.done()
    there[done[done < n]] = True
    rows = np.flatnonzero(~there)
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def fill(
    store: FeatureStore,
    clips: Clips,
    spec: Spec,
    executor: Executor,
    *,
    layers: str | Sequence[str] = "all",
    poolings: Sequence[str] | None = None,
    size: int = CLIPS_A_PIECE,
    progress: ProgressCallback | None = None,
) -> None:
    """Extract what is missing in the store; what is there is not made again.

    Args:
        store: of these clips under this network.
        clips: all of them; rows count in it.
        spec: the text of the network's strategy, and the seed of random weights.
        executor: what runs the pieces.
        layers: as for ``Model.select_layers``.
        poolings: names; None: the network's own.
        size: clips a piece.
        progress: called after every piece.

    Raises:
        DataError: the store cannot be written.
        OssicleError: a network, layer or pooling is unknown, or the store has other blocks.
    """
    parts = missing_pieces(store, len(clips), size)
    if not parts:
        return
    done = len(clips) - sum(map(len, parts))
    chosen = layers if isinstance(layers, str) else tuple(layers)
    asked = None if poolings is None else tuple(poolings)
    pieces = (
        Piece(spec, rows, tuple(as_clips(clips.subset(rows))), chosen, asked) for rows in parts
    )
    work = partial(extract_piece, workers=executor.threads)
    for number, table in executor.map(work, pieces):
        store.append(parts[number], table)
        done += len(parts[number])
        if progress is not None:
            progress(Progress(done, len(clips), store.seconds_read))
    store.compact()


def features_key(
    model: Model, clips: Clips, layers: Sequence[str], poolings: Sequence[str]
) -> dict[str, Any]:
    """What features depend on, ready for JSON: a key of ``FeatureStore.of``.

    Network, weights, front end, clip policy, blocks, and files by path, part, size and time of
    their last change. Labels and groups are no part of it.

    Args:
        model: frozen.
        clips: whose rows the store's are.
        layers, poolings: names.
    """
    weights, files = hashlib.sha256(), hashlib.sha256()
    for name, tensor in model.state_dict().items():
        weights.update(name.encode() + tensor.cpu().numpy().tobytes())
    states: dict[str, tuple[int, int]] = {}
    for row in clips.table[["path", "onset", "offset"]].itertuples(index=False, name=None):
        path = row[0]
        if path not in states:
            states[path] = (-1, -1)  # of a file that is gone; it is told when its turn comes
            with suppress(OSError):
                stat = Path(path).stat()
                states[path] = (stat.st_size, stat.st_mtime_ns)
        files.update(repr((*row, *states[path])).encode("utf-8", "surrogatepass"))
    about = {
        "ossicle": __version__,
        "model": model.info,
        "weights": weights.hexdigest(),
        "frontend": {"name": type(model.frontend).__name__, **model.frontend.config()},
        "clip": model.clip,
        "layers": layers,
        "poolings": poolings,
        "n_clips": len(clips),
        "files": files.hexdigest(),
    }
    safe: dict[str, Any] = json_safe(about)
    return safe


def _unusable(clips: Sequence[Clip], sample_rate: int) -> list[tuple[int, str, str]]:
    """(position, path, reason) of each clip that cannot be read."""
    found = []
    for row, clip in enumerate(clips):
        try:
            read_clip(clip, sample_rate)
        except AudioError as error:
            found.append((row, error.path, error.reason))
    return found
