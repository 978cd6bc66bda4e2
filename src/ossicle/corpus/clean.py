"""Takes out of a corpus what is unfit, there twice, or in an evaluation set."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ossicle.corpus.near_copies import Heard, Index, Same, Stretch, confirmed, hear
from ossicle.datasets.clips import part_text
from ossicle.download import sha256_file
from ossicle.fingerprint import Landmarks
from ossicle.record import replaced

Progress = Callable[[str], None]

_PIECE = 500  # stretches heard before they are stored
_FORMAT = 1


class Cleaned(NamedTuple):
    """What is left of a corpus, and what is not."""

    rows: pd.DataFrame
    left_out: list[list[str]]  # [path and part, reason]
    reasons: dict[str, int]  # reason in short -> rows
    near: dict[str, int]  # evaluation set -> files that were like one of its clips


class Prints:
    """Landmarks of stretches, kept in a folder, so that what was heard is not decoded again.

    Args:
        folder: of the store; made where missing.
        workers: threads.
        progress: called with a line now and then.
    """

    def __init__(self, folder: Path, workers: int = 1, progress: Progress | None = None) -> None:
        self._folder = folder
        self._workers = max(1, workers)
        self._say = progress or (lambda line: None)

    def of(self, stretches: Sequence[Stretch], names: Sequence[str], what: str) -> list[Heard]:
        """Each stretch heard; they are stored in pieces, which a stop does not lose.

        Args:
            stretches: in an order that comes again.
            names: what each is of; a piece is of one, so that others may come and go.
            what: all of them are, for the line that says how far it is.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        heard: list[Heard] = []
        with ThreadPoolExecutor(self._workers) as pool:
            for _, run in groupby(range(len(stretches)), key=lambda row: names[row]):
                rows = list(run)
                for start in range(0, len(rows), _PIECE):
                    piece = [stretches[row] for row in rows[start : start + _PIECE]]
                    path = self._folder / f"{_key(piece)}.npz"
                    if (there := _read(path, len(piece))) is None:
                        self._say(f"{what}: {len(heard):,} of {len(stretches):,} heard")
                        there = list(pool.map(hear, piece))
                        _write(path, there)
                    heard += there
        return heard


def clean(
    rows: pd.DataFrame,
    sets: Mapping[str, Sequence[Stretch]],
    prints: Prints,
    progress: Progress | None = None,
) -> Cleaned:
    """Leave out what cannot be heard, repeats, and what an evaluation set holds.

    A file is left out as a whole where any part of it that was asked for sounds like a clip of an
    evaluation set, or its bytes are those of one; of rendered notes, all of the instrument go. Of
    recordings that sound the same throughout, or
    one within the other, the first or the longer is kept.

    Args:
        rows: path, onset, offset, seconds, group, package, kind; others are kept.
        sets: clips of evaluation sets by their name.
        prints: where landmarks are kept.
        progress: called with a line now and then.
    """
    say = progress or (lambda line: None)
    rows = rows.reset_index(drop=True)
    why: dict[int, tuple[str, str]] = {}  # row -> (reason in short, reason)
    near: set[tuple[str, str]] = set()  # file, evaluation set
    by_path = rows.groupby("path").indices

    def drop_file(path: str, short: str, reason: str) -> None:
        for row in by_path[path]:
            why.setdefault(int(row), (short, reason))

    tested: dict[Stretch, list[str]] = {}
    for name, some in sets.items():
        for stretch in dict.fromkeys(some):
            tested.setdefault(stretch, []).append(name)
    say("comparing bytes")
    for path, (other, names) in _equal(list(by_path), tested).items():
        if names:
            drop_file(path, "in an evaluation set", f"is {other} of {', '.join(names)}")
            near |= {(path, name) for name in names}
        else:
            drop_file(path, "exact repeat", f"is the same file as {other}")
    # Before what is left out is known to be: what was heard is then found again by its piece.
    spans = zip(rows["path"], rows["onset"], rows["offset"], strict=True)
    stretches = [Stretch.of(*span) for span in spans]
    heard = prints.of(stretches, list(rows["package"]), "corpus")
    for row, one in enumerate(heard):
        if one.reason:
            short = "silent" if one.reason == "is silent" else "unreadable"
            why.setdefault(row, (short, one.reason))
    rows["seconds"] = [one.seconds for one in heard]
    left = [row for row in range(len(rows)) if row not in why]
    clips = sorted(tested, key=lambda clip: (clip.path, clip.onset, clip.offset or 0.0))
    known = prints.of(clips, ["/".join(tested[clip]) for clip in clips], "evaluation sets")
    say(f"comparing {len(left):,} clips with {len(clips):,} of evaluation sets")
    for same in _same(left, stretches, heard, clips, known):
        path, clip = stretches[same.a].path, clips[same.b]
        names = tested[clip]
        text = f"sounds like {clip.path}{part_text(*clip[1:])} of {', '.join(names)}"
        drop_file(path, _NEAR, text)
        near |= {(path, name) for name in names}
    for row in [row for row in why if why[row][0] == _NEAR and rows["kind"][row] in _PLAYED]:
        group, text = rows["group"][row], why[row][1]
        for mate in np.flatnonzero(rows["group"] == group):
            reason = f"is of {group}, of which {rows['path'][row]} {text}"
            why.setdefault(int(mate), ("of an instrument that an evaluation set has", reason))
    say("comparing recordings with each other")
    recorded = [r for r in left if r not in why and rows["kind"][r] in _RECORDED]
    for row, twin in _repeats(recorded, stretches, heard):
        text = f"sounds like {stretches[twin].path}{part_text(*stretches[twin][1:])}"
        why.setdefault(row, ("near-copy of another clip", text))
    left_out = [
        [stretches[row].path + part_text(*stretches[row][1:]), why[row][1]] for row in sorted(why)
    ]
    kept = rows.drop(index=list(why)).reset_index(drop=True)
    reasons = Counter(short for short, _ in why.values())
    files = {name: sum(name == other for _, other in near) for name in sets}
    like = {name: n for name, n in files.items() if n}
    return Cleaned(kept, left_out, dict(reasons), like)


_RECORDED = ("music", "speech", "effects")
# Each group is an instrument. SoundFonts share samples: where one note is found in an evaluation
# set, the others are the same recording at another speed, which no landmark finds.
_PLAYED = ("notes",)
_NEAR = "near-copy of an evaluation set"


def _equal(
    paths: Sequence[str], tested: Mapping[Stretch, list[str]]
) -> dict[str, tuple[str, list[str]]]:
    """Files with the bytes of another: that one, and the evaluation sets that it is in."""
    sets: dict[str, set[str]] = defaultdict(set)
    for stretch, names in tested.items():
        sets[stretch.path].update(names)
    ordered = [*sorted(sets), *(path for path in paths if path not in sets)]
    sizes = {path: Path(path).stat().st_size for path in ordered}
    often = Counter(sizes.values())
    first: dict[str, str] = {}
    found = {path: (path, sorted(sets[path])) for path in paths if path in sets}
    for path in ordered:
        if often[sizes[path]] > 1:
            other = first.setdefault(sha256_file(path), path)
            if other != path and path not in sets:
                found[path] = (other, sorted(sets.get(other, ())))
    return found


def _same(
    rows: Sequence[int],
    stretches: Sequence[Stretch],
    heard: Sequence[Heard],
    clips: Sequence[Stretch],
    known: Sequence[Heard],
) -> list[Same]:
    """Pairs of a row and a clip of an evaluation set with a sound in common."""
    index = Index([one.prints for one in known])
    found = index.candidates([heard[row].prints for row in rows])
    pairs = confirmed(
        found,
        [stretches[row] for row in rows],
        clips,
        [heard[row].seconds for row in rows],
        [one.seconds for one in known],
    )
    return [same._replace(a=rows[same.a]) for same in pairs]


def _repeats(
    rows: Sequence[int], stretches: Sequence[Stretch], heard: Sequence[Heard]
) -> list[tuple[int, int]]:
    """(row to leave out, the row that it is a repeat of); parts of one file are none."""
    own = [stretches[row] for row in rows]
    seconds = [heard[row].seconds for row in rows]
    prints = [heard[row].prints for row in rows]
    found = (
        c for c in Index(prints).candidates(prints) if c.b < c.a and own[c.a].path != own[c.b].path
    )
    gone: dict[int, int] = {}
    for a, b, overlap_s, throughout in confirmed(found, own, own, seconds, seconds):
        if not throughout or a in gone or b in gone:
            continue
        if overlap_s >= 0.9 * seconds[a]:
            gone[a] = b
        elif overlap_s >= 0.9 * seconds[b]:
            gone[b] = a
    return [(rows[a], rows[b]) for a, b in gone.items()]


def _key(piece: Sequence[Stretch]) -> str:
    parts: list[object] = [_FORMAT]
    for path, onset, offset in piece:
        about = Path(path).stat()
        parts.append([path, str(onset), str(offset), about.st_size, about.st_mtime_ns])
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def _write(path: Path, heard: Sequence[Heard]) -> None:
    with replaced(path) as part, part.open("wb") as file:
        np.savez(
            file,
            hashes=np.concatenate([one.prints.hashes for one in heard]),
            frames=np.concatenate([one.prints.frames for one in heard]),
            sizes=np.array([len(one.prints.hashes) for one in heard]),
            seconds=np.array([one.seconds for one in heard]),
            reasons=np.array([one.reason for one in heard], dtype=np.str_),
        )


def _read(path: Path, n: int) -> list[Heard] | None:
    try:
        with np.load(path) as stored:
            ends = np.cumsum(stored["sizes"])[:-1]
            hashes = np.split(stored["hashes"], ends)
            frames = np.split(stored["frames"], ends)
            seconds, reasons = stored["seconds"], stored["reasons"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None  # not there, or of a run that a full disk stopped
    if not len(hashes) == len(frames) == len(seconds) == len(reasons) == n:
        return None
    return [
        Heard(Landmarks(h, f), float(s), str(r))
        for h, f, s, r in zip(hashes, frames, seconds, reasons, strict=True)
    ]
