"""Recordings out of packages: what lies there, what it is called, and how much of each is taken."""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ossicle import audio
from ossicle.benchmark.open_suite.effects import ANIMALS, EVENTS, kind
from ossicle.benchmark.packages import Packages
from ossicle.corpus.package_list import RECORDED
from ossicle.errors import AudioError, DownloadError

Progress = Callable[[str], None]

WINDOWS = 420  # of a package
WINDOW_S = 4.0  # the longest that is learnt from at a time
SHORTEST_S = 0.2
LONGEST_ROW_S = 60.0

_SOUNDS = {**EVENTS, **ANIMALS}
_MUSIC = re.compile(
    r"/(musics?|bgm|soundtracks?|songs?|zik|cdtracks|moh|music\.ocg)/|/music[^/]*$|/mus[0-9]"
    r"|^[^/]*(-music|-songs)|theme\.|/titles/"
)
_SPEECH = re.compile(
    r"/(speech|voices?|voice_samples|announcer|librivox|cards)/|^(festvox|saytime|codec2)"
    r"|^warzone2100-data/.*/(memressp|vtoltalk|taunts|countdown)/"
)
# Path, lower case -> the language that is spoken.
_LANGUAGES = {
    "ru": re.compile(r"^festvox-ru"),
    "en": re.compile(r"^(saytime|pocketsphinx|codec2|warzone2100-data)"),
}


class Found(NamedTuple):
    """Files of packages, and what is not among them."""

    files: pd.DataFrame  # path, package, version, licence, kind, label, seconds
    packages: list[dict[str, object]]  # as of ``Packages.about``
    left_out: list[list[str]]  # [path or package, reason]


def described(package: str, inside: str) -> tuple[str, str]:
    """What a file is, and its facets.

    Args:
        package: its name.
        inside: the path in the package.

    Returns:
        ("music", "speech" or "effects", facets joined with ";").
    """
    name = f"{package}/{inside}"
    low = re.sub(r"/usr/(share|lib)/(games/)?", "/", name.lower())
    facets = [f"package:{package}"]
    what = "speech" if _SPEECH.search(low) else "music" if _MUSIC.search(low) else "effects"
    sound = what if what != "effects" else kind(name, _SOUNDS)
    facets += [f"sound:{sound}"] if sound else []
    if what == "speech":
        facets += [f"language:{k}" for k, pattern in _LANGUAGES.items() if pattern.search(low)]
    return what, ";".join(facets)


def find_recordings(
    packages: Packages, names: Sequence[str] | None = None, progress: Progress | None = None
) -> Found:
    """Audio files of packages with their lengths; packages that are not to be had are left out.

    Args:
        packages: where they lie.
        names: of packages; None: RECORDED.
        progress: called with a line a package.
    """
    rows: list[tuple[object, ...]] = []
    abouts: list[dict[str, object]] = []
    left_out: list[list[str]] = []
    for name in RECORDED if names is None else names:
        try:
            about, root, paths = packages.about(name), packages.files(name), packages.audio(name)
        except DownloadError as error:
            left_out.append([name, f"not to be had: {error}"])
            continue
        abouts.append(about)
        if progress is not None:
            progress(f"{name}: {len(paths)} files")
        for path in paths:
            try:
                seconds = audio.info(path).duration_s
            except AudioError as error:
                left_out.append([str(path), error.reason])
                continue
            if seconds < SHORTEST_S:
                left_out.append([str(path), f"is shorter than {SHORTEST_S:g} s"])
                continue
            what, label = described(name, path.relative_to(root).as_posix())
            rows.append((str(path), name, about["version"], about["licence"], what, label, seconds))
    columns = ["path", "package", "version", "licence", "kind", "label", "seconds"]
    return Found(pd.DataFrame(rows, columns=columns), abouts, left_out)


def quotas(available: Sequence[int], most: int, rng: np.random.Generator) -> list[int]:
    """How many windows of each file: all, or as evenly as can be, ``most`` in all.

    Args:
        available: windows that each file has, 1 or more.
        most: in all.
        rng: draws the files that get one more, or one at all, where it does not come out even.
    """
    if sum(available) <= most:
        return list(available)
    given = [0] * len(available)
    left, open_files = most, set(range(len(available)))
    while left and open_files:
        share = left // len(open_files)
        if not share:
            for row in rng.permutation(sorted(open_files))[:left]:
                given[int(row)] += 1
            break
        for row in sorted(open_files):
            more = min(share, available[row] - given[row])
            given[row] += more
            left -= more
        open_files = {row for row in open_files if given[row] < available[row]}
    return given


def parts(seconds: float, windows: int, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Onsets and offsets (s) of so many windows of a file; NaN for the whole of a short one.

    All of a file: in rows of LONGEST_ROW_S or less, of one length. Else one window in each of as
    many equal cells, where in it is drawn.
    """
    available = windows_of(seconds)
    if windows >= available:
        n = int(np.ceil(seconds / LONGEST_ROW_S))
        if n <= 1:
            return [(float("nan"), float("nan"))]
        edges = [round(seconds * i / n, 3) for i in range(n + 1)]
        return list(pairwise(edges))
    cell = seconds / windows
    onsets = [i * cell + rng.uniform(0.0, cell - WINDOW_S) for i in range(windows)]
    return [(round(onset, 3), round(onset + WINDOW_S, 3)) for onset in onsets]


def windows_of(seconds: float) -> int:
    """Windows that a file has, at least 1."""
    return max(1, int(seconds // WINDOW_S))


def chosen(files: pd.DataFrame, *, windows: int = WINDOWS, seed: int = 0) -> pd.DataFrame:
    """Rows of a manifest, sorted by package and path.

    Args:
        files: as of ``find_recordings``.
        windows: at most so many of WINDOW_S seconds of each package.
        seed: what a package gets depends on it and on the package alone.

    Returns:
        path, label, group, package, version, licence, kind, onset, offset, seconds.
    """
    rows = []
    for package, own in files.sort_values(["package", "path"]).groupby("package", sort=True):
        rng = np.random.default_rng([seed, zlib.crc32(str(package).encode())])
        own = own.to_dict("records")
        given = quotas([windows_of(file["seconds"]) for file in own], windows, rng)
        for file, some in zip(own, given, strict=True):
            for onset, offset in parts(file["seconds"], some, rng) if some else ():
                length = file["seconds"] if np.isnan(onset) else offset - onset
                rows.append(
                    {
                        **file,
                        "group": package,
                        "onset": onset,
                        "offset": offset,
                        "seconds": length,
                    }
                )
    columns = ["path", "label", "group", "package", "version", "licence", "kind"]
    return pd.DataFrame(rows, columns=[*columns, "onset", "offset", "seconds"])


def fitting(files: pd.DataFrame, windows: int, seconds: float) -> int:
    """The most windows a package, ``windows`` or fewer, that together are no longer than that."""
    lengths = [
        [min(s, WINDOW_S) for s in own["seconds"] for _ in range(windows_of(s))]
        for _, own in files.groupby("package")
    ]
    least, most = 0, windows
    while least < most:
        middle = (least + most + 1) // 2
        total = sum(
            sum(own) if len(own) <= middle else middle * float(np.mean(own)) for own in lengths
        )
        least, most = (middle, most) if total <= seconds else (least, middle - 1)
    return least


def write_recordings(
    folder: Path,
    packages: Packages,
    *,
    seed: int = 0,
    windows: int = WINDOWS,
    names: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Rows of all packages; nothing is written, as what packages hold is taken where it lies.

    Returns:
        As of ``chosen``; ``attrs`` holds "left_out" and "packages".
    """
    found = find_recordings(packages, names, progress)
    rows = chosen(found.files, windows=windows, seed=seed)
    rows.attrs |= {"left_out": found.left_out, "packages": found.packages}
    return rows


def hours_of(rows: pd.DataFrame, column: str) -> dict[str, float]:
    """Hours by what a column says, most first."""
    total: dict[str, float] = defaultdict(float)
    for value, seconds in zip(rows[column], rows["seconds"], strict=True):
        total[str(value)] += float(seconds) / 3600
    return {
        name: round(hours, 6) for name, hours in sorted(total.items(), key=lambda item: -item[1])
    }
