"""One manifest of training audio out of all sources, without what models are measured on.

A corpus is two files in a folder: corpus.csv, a manifest that `read_clips` reads (labels are
facets, `NAME:VALUE`, joined with ";"), and corpus.json, which says where it comes from.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ossicle import __version__, audio
from ossicle.benchmark.packages import Packages
from ossicle.corpus import recordings
from ossicle.corpus.clean import Cleaned, Prints, clean
from ossicle.corpus.evaluation import evaluation_sets
from ossicle.corpus.package_list import CORPUS_PACKAGES
from ossicle.corpus.pinned import PinnedPackages
from ossicle.corpus.sources import SOURCES
from ossicle.errors import AudioError, DataError, OssicleError
from ossicle.record import json_safe, replaced, write_json

Progress = Callable[[str], None]

_COLUMNS = ("path", "label", "group", "package", "version", "licence")
_FORMAT = 1


@dataclass(frozen=True)
class Corpus:
    """A corpus on disk.

    Attributes:
        manifest: corpus.csv.
        about: what corpus.json says: seed, sources, windows (of a package), clips, files, hours,
            by_kind, by_licence, by_package (hours), packages (package, version, sha256, licence,
            note), evaluation (set -> clips), near_copies (set -> files left out for it),
            reasons (-> clips left out), left_out ([path, reason]), notes, manifest_sha256.
    """

    manifest: Path
    about: dict[str, Any]


def collect(
    folder: Path,
    *,
    data: Path,
    sources: Sequence[str] = tuple(SOURCES),
    evaluation: Iterable[Path] = (),
    windows: int = recordings.WINDOWS,
    hours: float | None = None,
    seed: int = 0,
    workers: int = 1,
    packages: Packages | None = None,
    progress: Progress | None = None,
) -> Corpus:
    """Fetch, render, clean, and write the manifest.

    Args:
        folder: gets corpus.csv, corpus.json, what is rendered in a folder a source, and .prints/
            (what was heard, so that a run that was stopped goes on); made where missing.
        data: where open tasks are built, and below it packages/.
        sources: names of ``SOURCES``.
        evaluation: folders whose audio must not be in the corpus.
        windows: of a package, of ``recordings.WINDOW_S`` seconds each.
        hours: at most so many; packages give way first, all alike.
        seed: of what is taken, and of what is rendered.
        workers: threads that decode.
        packages: where they lie; None: ``data / "packages"``.
        progress: called with a line now and then.

    Raises:
        DownloadError: what a source renders from is not to be had. Packages with recordings that
            are not to be had are left out and named.
        DataError: nothing is left, or an evaluation set is damaged.
        OssicleError: an unknown source.
    """
    for name in sources:
        if name not in SOURCES:
            raise OssicleError(f"no source is called {name!r}; there are {', '.join(SOURCES)}")
    if windows < 1 or (hours is not None and hours <= 0):
        raise OssicleError("a corpus needs at least a window of a package, and more than 0 hours")
    say = progress or (lambda line: None)
    folder, data = Path(folder).absolute(), Path(data).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    packages = packages or PinnedPackages(data / "packages", progress=progress)
    sets = evaluation_sets(data, evaluation)
    frames = [
        _rendered(name, folder / name, SOURCES[name](folder / name, packages, seed, progress))
        for name in dict.fromkeys(sources)
        if name != "packages"
    ]
    room = None if hours is None else 3600 * hours - sum(f["seconds"].sum() for f in frames)
    found = recordings.Found(pd.DataFrame(), [], [])
    if "packages" in sources:
        found = recordings.find_recordings(packages, progress=progress)
        if room is not None and len(found.files):
            windows = max(1, recordings.fitting(found.files, windows, room))
        if len(found.files):
            frames.append(recordings.chosen(found.files, windows=windows, seed=seed))
    frames = [frame for frame in frames if len(frame)]
    if not frames:
        first = "".join(f"; {name}: {why}" for name, why in found.left_out[:1])
        raise DataError(f"{folder}: no source has audio for a corpus{first}")
    rows = pd.concat(frames, ignore_index=True)
    if hours is not None:
        rows = _thinned(rows, 3600 * hours, seed)
    say(f"{len(rows):,} clips, {rows['seconds'].sum() / 3600:.1f} h, before they are heard")
    cleaned = clean(rows, sets, Prints(folder / ".prints", workers, progress), progress)
    if not len(cleaned.rows):
        raise DataError(f"{folder}: no clip is left; {cleaned.left_out[0][1]}")
    known = {about["package"] for about in found.packages}
    played = sorted(set(rows["package"]) & set(CORPUS_PACKAGES) - known)
    found = found._replace(packages=[*found.packages, *map(packages.about, played)])
    about = _about(cleaned, found, {name: len(some) for name, some in sets.items()})
    about |= {"seed": seed, "sources": list(dict.fromkeys(sources)), "windows": windows}
    return _write(folder, data, cleaned.rows, about)


def _rendered(name: str, folder: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """A source's rows with their lengths, absolute paths, and the source as their kind."""
    if lacking := set(_COLUMNS) - set(frame):
        raise DataError(f"source {name}: its rows have no {min(lacking)}")
    frame = frame.reset_index(drop=True).copy()
    frame["path"] = [str(folder / path) for path in frame["path"]]
    for column in ("onset", "offset"):
        if column not in frame:
            frame[column] = np.nan
    seconds = []
    for path, onset, offset in zip(frame["path"], frame["onset"], frame["offset"], strict=True):
        try:
            whole = audio.info(path).duration_s
        except AudioError:
            whole = 0.0  # it is left out, and named, once it is heard
        end = whole if np.isnan(offset) else min(float(offset), whole)
        seconds.append(end - (0.0 if np.isnan(onset) else float(onset)))
    frame["seconds"], frame["kind"] = seconds, name
    return frame


def _thinned(rows: pd.DataFrame, most_s: float, seed: int) -> pd.DataFrame:
    """Rows drawn until they are so long; all where they are not."""
    if rows["seconds"].sum() <= most_s:
        return rows
    order = np.random.default_rng([seed, 1]).permutation(len(rows))
    total = np.cumsum(rows["seconds"].to_numpy()[order])
    return rows.iloc[np.sort(order[total <= most_s])].reset_index(drop=True)


def _about(cleaned: Cleaned, found: recordings.Found, evaluation: dict[str, int]) -> dict[str, Any]:
    rows = cleaned.rows
    files = [entry for entry in found.left_out]
    reasons = dict(cleaned.reasons)
    for _, reason in files:
        short = reason.split(":")[0]
        reasons[short] = reasons.get(short, 0) + 1
    return {
        "format": _FORMAT,
        "ossicle": __version__,
        "clips": len(rows),
        "files": int(rows["path"].nunique()),
        "hours": float(rows["seconds"].sum()) / 3600,
        "by_kind": recordings.hours_of(rows, "kind"),
        "by_licence": recordings.hours_of(rows, "licence"),
        "by_package": recordings.hours_of(rows, "package"),
        "packages": found.packages,
        "evaluation": evaluation,
        "near_copies": cleaned.near,
        "reasons": dict(sorted(reasons.items(), key=lambda item: -item[1])),
        "left_out": [*files, *cleaned.left_out],
        "notes": [str(p["note"]) for p in found.packages if p["note"]],
    }


def _write(folder: Path, data: Path, rows: pd.DataFrame, about: dict[str, Any]) -> Corpus:
    manifest = folder / "corpus.csv"
    table = rows.copy()
    table["path"] = [_relative(Path(path), folder, data) for path in rows["path"]]
    columns = [*_COLUMNS, "kind", "onset", "offset"]
    table = table[columns].sort_values(["package", "path", "onset"], kind="stable")
    with replaced(manifest) as part:
        table.to_csv(part, index=False)
        about["manifest_sha256"] = hashlib.sha256(part.read_bytes()).hexdigest()
    # The JSON last: it vouches for the manifest by its checksum.
    write_json(folder / "corpus.json", json_safe(about))
    return Corpus(manifest, about)


def _relative(path: Path, folder: Path, data: Path) -> str:
    """From the manifest on where both lie in the data's folder, so that it can be moved."""
    if path.is_relative_to(folder) or (path.is_relative_to(data) and folder.is_relative_to(data)):
        return Path(os.path.relpath(path, folder)).as_posix()
    return path.as_posix()
