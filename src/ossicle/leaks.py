"""Looks for the same sound twice, above all on both sides of a split.

Four looks, from certain to vague: equal bytes; equal sound in another format, gain or cut
(landmarks find candidates, cross-correlation confirms them, see `fingerprint`); near neighbours
among embeddings, for what sounds alike though no sample agrees; and from these, leaks across
splits and labels that contradict each other.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import combinations, pairwise, product
from typing import Any

import numpy as np
import pandas as pd

from ossicle import audio
from ossicle.datasets.clips import Clips, file_checksum, part_text
from ossicle.datasets.folds import Folds, predefined_folds, predefined_split
from ossicle.datasets.groups import UnionFind
from ossicle.errors import DataError, OssicleError
from ossicle.fingerprint import (
    SAMPLE_RATE,
    Candidate,
    Landmarks,
    candidates,
    compare,
    landmarks,
)

COMPARED_S = 30.0  # at most this much of two clips is compared
MOST_CANDIDATES = 25  # for each clip
NEAR_FLOOR = 0.90
# So many copies of a file are paired each with each; more only in a chain.
PAIRWISE = 30


def audit(
    clips: Clips,
    *,
    folds: Sequence[tuple[np.ndarray, np.ndarray]] | None = None,
    embeddings: np.ndarray | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Reports duplicates, leaks and contradictions among clips.

    Args:
        clips: what to look at. Rows of one file belong together anyway and are not reported as
            duplicates of each other, but as leaks where a fold parts them.
        folds: (train_index, test_index) pairs; None takes the table's fold or split column.
        embeddings: (n, d), one row a clip, for `near`; rows of NaN for clips that have none. None
            leaves that out.
        progress: called with (clips done, clips in all).

    Returns a dict ready for JSON, with a < b (i < j) row numbers:
        n_clips.
        bytes: [i, j], equal files.
        samples: {a, b, kind, similarity, seconds, shift_s}: kind is "same", "contained" (one is a
            part of the other) or "overlap"; b begins shift_s into a; similarity is the
            correlation over the seconds compared.
        near: {a, b, similarity}, pairs not in the two above; near_threshold: from `near_pairs`.
        across_split: {a, b, kind, folds}: pairs of any kind above, or of one "file", that a fold
            trains on and tests; folds counted from 0.
        n_leaked: clips tested while a twin, not merely a near one, is trained on.
        label_conflicts: {a, b, labels}, the same sound under different labels.
        silent: rows; unreadable: {row, path, reason}; paths: row -> path for each row named.

    Each file is decoded once, candidates once more; memory holds landmarks (150 a second of
    sound), not sound. Clips with less than about 0.2 s of sound have too few landmarks to be
    found by anything but equal bytes. Speed or pitch changes are left to `near`.
    """
    table, n = clips.table, len(clips)
    unreadable: dict[int, dict[str, Any]] = {}
    copies = _copies(table, unreadable)
    skipped = {j for same in copies for j in same[1:]}
    prints, durations, silent = [], np.zeros(n), []
    for row in range(n):
        some = Landmarks.none()
        if row not in skipped and row not in unreadable:
            try:
                blocks = _Blocks(table, row)
                some = landmarks(blocks)
                durations[row] = blocks.samples / SAMPLE_RATE
                if blocks.silent:
                    silent.append(row)
            except OssicleError as error:
                unreadable[row] = _broken(table, row, error)
        prints.append(some)
        if progress is not None:
            progress(row + 1, n)
    samples = _same_sound(table, prints, durations)
    equal = [pair for same in copies for pair in _pairs_of(same)]
    sure = [(a, b, "bytes") for a, b in equal] + _with_copies(samples, copies)
    known = {pair[:2] for pair in sure}
    near, threshold = ([], None) if embeddings is None else _near(np.asarray(embeddings))
    path = table["path"].to_numpy()
    near = [x for x in near if (x["a"], x["b"]) not in known and path[x["a"]] != path[x["b"]]]
    vague = [(x["a"], x["b"], "near") for x in near]
    folds = _given_folds(table) if folds is None else folds
    across, leaked = _across(sure, vague, path, folds)
    labels = list(table["label"])
    conflicts = [
        {"a": a, "b": b, "labels": [labels[a], labels[b]]}
        for a, b, kind in sure
        if kind != "overlap" and _as_set(labels[a]) != _as_set(labels[b])
    ]
    named = {row for x in [*samples, *near, *across] for row in (x["a"], x["b"])}
    named |= {row for pair in equal for row in pair} | set(silent) | set(unreadable)
    return {
        "n_clips": n,
        "bytes": [list(pair) for pair in equal],
        "samples": samples,
        "near": near,
        "near_threshold": threshold,
        "across_split": across,
        "n_leaked": leaked,
        "label_conflicts": conflicts,
        "silent": silent,
        "unreadable": [unreadable[row] for row in sorted(unreadable)],
        "paths": {str(row): str(path[row]) for row in sorted(named)},
    }


def join_duplicates(clips: Clips, report: dict[str, Any]) -> Clips:
    """The clips with groups joined wherever `audit` found one sound in two of them.

    Folds made from these groups have none of the duplicates on both sides; near ones stay apart.
    """
    if report["n_clips"] != len(clips):
        raise DataError(f"the report is on {report['n_clips']} clips, not on these {len(clips)}")
    sets, groups = UnionFind(), list(clips.table["group"])
    joined = 0
    for a, b in [*report["bytes"], *([s["a"], s["b"]] for s in report["samples"])]:
        joined += sets.union(groups[a], groups[b])
    result = clips.subset(np.arange(len(clips)))
    result.table["group"] = pd.Series([sets.find(group) for group in groups], dtype=object)
    if joined:
        result.notes.append(f"groups joined as they share sounds: {joined}")
    return result


def near_pairs(
    embeddings: np.ndarray, n: int, block: int = 1024
) -> tuple[list[dict[str, Any]], float]:
    """Pairs of clips whose embeddings are conspicuously alike, most alike first, at most 10 n.

    Args:
        embeddings: (n, d). Each dimension is standardised first: the outputs of networks have a
            large mean in common, beside which all clips look alike.
        n: number of clips, to check against.
        block: rows to compare at a time; memory is block x n.

    Returns {a, b, similarity} with similarity the cosine, and the threshold t. With q50 and q75
    the quartiles of log(1 - cosine to the nearest other clip), 1 - t = exp(q50 - 5 (q75 - q50)),
    which is about 3.4 standard deviations below the median; the spread is that of the upper
    half, where duplicates are not. t is at least NEAR_FLOOR and at most 0.9999.
    """
    x = np.asarray(embeddings, np.float32)
    if x.ndim != 2 or len(x) != n:
        raise DataError(f"embeddings must be ({n}, d), one row a clip, not {x.shape}")
    if not np.isfinite(x).all():
        raise DataError("embeddings have values that are not finite")
    if n < 2:
        return [], 1.0
    spread = x.std(axis=0)
    x = (x - x.mean(axis=0))[:, spread > 1e-8] / spread[spread > 1e-8]
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)

    def similarities() -> Iterator[tuple[int, np.ndarray]]:
        """Cosines of a block of rows to all rows from the block's first on; self is -1."""
        for start in range(0, n, block):
            cosine = x[start : start + block] @ x.T
            rows = np.arange(len(cosine))
            cosine[rows, start + rows] = -1.0
            yield start, cosine

    nearest = np.concatenate([cosine.max(axis=1) for _, cosine in similarities()])
    middle, upper = np.quantile(np.log(np.maximum(1 - nearest, 1e-6)), [0.5, 0.75])
    threshold = float(np.clip(1 - np.exp(middle - 5 * (upper - middle)), NEAR_FLOOR, 0.9999))
    found: list[tuple[float, int, int]] = []
    for start, cosine in similarities():
        rows, others = np.nonzero(cosine >= threshold)
        later = others > start + rows
        rows, others = rows[later], others[later]
        triples = zip(cosine[rows, others].tolist(), start + rows, others, strict=True)
        found += [(s, int(a), int(b)) for s, a, b in triples]
        found = sorted(found, key=lambda t: (-t[0], t[1], t[2]))[: 10 * n]
    return [{"a": a, "b": b, "similarity": round(min(s, 1.0), 5)} for s, a, b in found], threshold


def _near(embeddings: np.ndarray) -> tuple[list[dict[str, Any]], float]:
    """`near_pairs` among the rows that are not NaN."""
    rows = np.flatnonzero(~np.isnan(embeddings).all(axis=1))
    pairs, threshold = near_pairs(embeddings[rows], len(rows))
    return [{**p, "a": int(rows[p["a"]]), "b": int(rows[p["b"]])} for p in pairs], threshold


class _Blocks:
    """The sound of a row, mono at SAMPLE_RATE, in blocks; counts its samples on the way."""

    def __init__(self, table: pd.DataFrame, row: int) -> None:
        self._path, self._onset, self._offset = _segment(table, row)
        self.samples = 0
        self.silent = True

    def __iter__(self) -> Iterator[np.ndarray]:
        blocks: Iterable[audio.Audio]
        if self._onset == 0.0 and self._offset is None:
            blocks = audio.stream(self._path, sample_rate=SAMPLE_RATE, block_s=60.0)
        else:
            blocks = [_load(self._path, self._onset, self._offset)]
        for block in blocks:
            samples = block.samples[0]
            self.samples += len(samples)
            self.silent &= bool(np.abs(samples).max(initial=0.0) < 1e-6)
            yield samples


def _segment(table: pd.DataFrame, row: int) -> tuple[str, float, float | None]:
    onset, offset = float(table["onset"][row]), float(table["offset"][row])
    return (
        str(table["path"][row]),
        0.0 if np.isnan(onset) else onset,
        None if np.isnan(offset) else offset,
    )


def _load(path: str, onset: float, offset: float | None) -> audio.Audio:
    return audio.load(path, sample_rate=SAMPLE_RATE, onset=onset, offset=offset)


def _broken(table: pd.DataFrame, row: int, error: OssicleError) -> dict[str, Any]:
    path = str(table["path"][row])
    reason = getattr(error, "reason", str(error).removeprefix(f"{path}: "))
    part = part_text(table["onset"][row], table["offset"][row])
    return {"row": row, "path": path, "reason": f"{reason}{part}"}


def _copies(table: pd.DataFrame, unreadable: dict[int, dict[str, Any]]) -> list[list[int]]:
    """Rows with equal bytes (and equal segments of them) in different files, set by set."""
    checksums: dict[str, str] = {}
    same: dict[tuple[str, float, float | None], list[int]] = defaultdict(list)
    for row in range(len(table)):
        path, onset, offset = _segment(table, row)
        try:
            if path not in checksums:
                checksums[path] = file_checksum(path)
            same[checksums[path], onset, offset].append(row)
        except DataError as error:
            unreadable[row] = _broken(table, row, error)
    paths = table["path"].to_numpy()
    return [rows for rows in same.values() if len({paths[r] for r in rows}) > 1]


def _pairs_of(rows: list[int]) -> list[tuple[int, int]]:
    if len(rows) <= PAIRWISE:
        return list(combinations(rows, 2))
    return list(pairwise(rows))


def _same_sound(
    table: pd.DataFrame, prints: Sequence[Landmarks], durations: np.ndarray
) -> list[dict[str, Any]]:
    """Candidates of the landmarks that cross-correlation confirms."""

    @lru_cache(maxsize=256)
    def whole(row: int) -> np.ndarray:
        return _load(*_segment(table, row)).samples[0]

    def stretch(row: int, start_s: float) -> np.ndarray:
        """COMPARED_S of a row from `start_s` on; long ones are not decoded whole."""
        if durations[row] <= 2 * COMPARED_S:
            start = round(start_s * SAMPLE_RATE)
            return whole(row)[start : start + round(COMPARED_S * SAMPLE_RATE)]
        path, onset, _ = _segment(table, row)
        end = min(start_s + COMPARED_S, float(durations[row]))
        return _load(path, onset + start_s, onset + end).samples[0]

    path = table["path"].to_numpy()
    met: Counter[int] = Counter()
    chosen: list[Candidate] = []
    for candidate in candidates(prints):
        a, b = candidate.a, candidate.b
        if path[a] != path[b] and min(met[a], met[b]) < MOST_CANDIDATES:
            met.update((a, b))
            chosen.append(candidate)
    found = []
    for a, b, shift_s, votes in sorted(chosen):
        overlap_s = min(durations[a] - max(0.0, shift_s), durations[b] - max(0.0, -shift_s))
        if overlap_s <= 0:
            continue
        in_a, in_b = stretch(a, max(0.0, shift_s)), stretch(b, max(0.0, -shift_s))
        verdict = compare(in_a, in_b, votes)
        if verdict is None:
            continue
        similarity, lag, seconds, throughout = verdict
        kind = "overlap"
        if throughout and overlap_s >= 0.95 * max(durations[a], durations[b]):
            kind = "same"
        elif throughout and overlap_s >= 0.9 * min(durations[a], durations[b]):
            kind = "contained"
        found.append(
            {
                "a": a,
                "b": b,
                "kind": kind,
                "similarity": round(similarity, 4),
                "seconds": round(seconds, 3),
                "shift_s": round(shift_s + lag / SAMPLE_RATE, 4),
            }
        )
    return found


def _with_copies(
    samples: Sequence[dict[str, Any]], copies: Sequence[list[int]]
) -> list[tuple[int, int, str]]:
    """Pairs of equal sound, those with an equal file in place of one or both included."""
    same = {row: rows[:PAIRWISE] for rows in copies for row in rows}
    return [
        (min(a, b), max(a, b), s["kind"])
        for s in samples
        for a, b in product(same.get(s["a"], [s["a"]]), same.get(s["b"], [s["b"]]))
    ]


def _given_folds(table: pd.DataFrame) -> Folds:
    """The folds that the table itself has, if any."""
    if table["fold"].notna().all() and table["fold"].nunique() > 1:
        return predefined_folds(list(table["fold"]))
    if table["split"].notna().all() and len(table):
        try:
            split = predefined_split(list(table["split"]))
        except DataError:
            return []
        return [(split.train, part) for part in (split.validation, split.test) if len(part)]
    return []


def _across(
    sure: Sequence[tuple[int, int, str]],
    vague: Sequence[tuple[int, int, str]],
    path: np.ndarray,
    folds: Sequence[tuple[np.ndarray, np.ndarray]],
) -> tuple[list[dict[str, Any]], int]:
    """Pairs that a fold parts, and the number of tested clips with a sure twin in training."""
    n = len(path)
    rows_of = pd.Series(np.arange(n)).groupby(path, sort=False).agg(list)
    files = [(a, b, "file") for rows in rows_of for a, b in pairwise(rows)]
    pairs = [*sure, *files, *vague]
    a = np.array([p[0] for p in pairs], np.int64)
    b = np.array([p[1] for p in pairs], np.int64)
    certain = np.arange(len(pairs)) < len(sure)
    parted: dict[int, list[int]] = defaultdict(list)
    leaked = np.zeros(n, bool)
    for k, (train, test) in enumerate(folds):
        trained, tested = np.zeros(n, bool), np.zeros(n, bool)
        trained[train], tested[test] = True, True
        a_tested, b_tested = tested[a] & trained[b], tested[b] & trained[a]
        for i in np.flatnonzero(a_tested | b_tested):
            parted[int(i)].append(k)
        leaked[a[a_tested & certain]] = True
        leaked[b[b_tested & certain]] = True
        leaked |= tested & np.isin(path, path[trained])
    across = [
        {"a": pairs[i][0], "b": pairs[i][1], "kind": pairs[i][2], "folds": parted[i]}
        for i in sorted(parted)
    ]
    return across, int(leaked.sum())


def _as_set(label: Any) -> Any:
    return frozenset(label) if isinstance(label, list) else label
