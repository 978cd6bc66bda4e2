"""Speech against music, out of games and of programs for children.

Both kinds are cut to the same lengths, brought to one rate, one channel and one level, so that
none of these tells them apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ossicle.audio import Audio, info, load, save
from ossicle.benchmark.open_suite.sources import Clip, fold_of_sources, spread, without_repeats
from ossicle.benchmark.packages import Packages
from ossicle.benchmark.recipe import Progress, Recipe
from ossicle.errors import AudioError, DataError

RATE = 16_000  # Hz: below that of all sources taken, so that bandwidth is no sign of either
LEVEL = 0.05  # root of the mean square, of full scale
SHORTEST_S, LONGEST_S = 1.0, 4.0
SHORTEST_TRACK_S = 30.0
FOLDS = 4

# Package -> whose voice a path is, (1); what has no match is no speech.
SPEECH = {
    "fillets-ng-data-cs": r"/sound/[^/]+/cs/[^/]*-([mv])-",
    "fillets-ng-data-nl": r"/sound/[^/]+/nl/[^/]*-([mv])-",
    "hedgewars-data": r"/voices/([^/]+)/",
    "kajongg": r"/voices/(.+)/",
    "klettres-data": r"/klettres/([^/]+)/syllab/",
    "ktuberling-data": r"/sounds/([^/]+)/",
}
MUSIC = (
    "adonthell-data",
    "amoebax-data",
    "ardentryst",
    "btanks-data",
    "drascula-music",
    "frozen-bubble-data",
    "hedgewars-data",
    "hex-a-hop-data",
    "holotz-castle-data",
    "hyperrogue-music",
    "noiz2sa-data",
    "powermanga-data",
    "singularity-music",
    "trackballs-data",
)
# Of KDE's programs for children, many a language was spoken by the same volunteer.
_TOGETHER = {"ktuberling-data": "klettres-data"}
# No music although long: what is to be heard in the background.
_AMBIENCE = re.compile(r"/(city|country|forest|space|swamp|horror|ambien\w*|night|rain_loop)[.]")
_SPEECH_A_PACKAGE, _MUSIC_A_PACKAGE, _CUTS_A_TRACK = 70, 36, 3


class Cut(NamedTuple):
    """A part of a file: whose it is, what is to stay together, and the seconds it lies between."""

    path: Path
    label: str
    source: str
    group: str
    onset: float
    offset: float


def speech(packages: Packages) -> list[Cut]:
    """Of each package's files, evenly by name, those long enough; the middle of long ones.

    Raises:
        DownloadError: as in ``Packages.files``.
    """
    cuts: list[Cut] = []
    for package, pattern in SPEECH.items():
        root = packages.files(package)
        found = []
        for path in packages.audio(package):
            match = re.search(pattern, f"/{path.relative_to(root).as_posix()}")
            if match:
                found.append((path, match.group(1)))
        kept = _once(path for path, _ in found)
        found = [(path, voice) for path, voice in found if path in kept]
        # Three times as many are looked at, since many are too short.
        long = []
        for path, voice in spread(found, 3 * _SPEECH_A_PACKAGE):
            seconds = _seconds(path)
            if seconds >= SHORTEST_S:
                start = max(0.0, (seconds - LONGEST_S) / 2)
                stop = min(seconds, start + LONGEST_S)
                source = _TOGETHER.get(package, package)
                group = f"{package}/{voice}"
                long.append(Cut(path, "speech", source, group, start, stop))
        cuts += spread(long, _SPEECH_A_PACKAGE)
    return cuts


def music(packages: Packages, lengths: Iterable[float]) -> list[Cut]:
    """Three parts of a track, around 30, 50 and 70 % of it, as long as given.

    Args:
        packages: as in ``speech``.
        lengths: in seconds, one a part, taken in turn; none is used twice.

    Raises:
        DownloadError: as in ``Packages.files``.
    """
    supply = iter(lengths)
    cuts: list[Cut] = []
    for package in MUSIC:
        root = packages.files(package)
        tracks = []
        for path in packages.audio(package):
            inside = f"/{path.relative_to(root).as_posix()}".lower()
            spoken = "/voices/" in inside or _AMBIENCE.search(inside)
            if not spoken and (seconds := _seconds(path)) >= SHORTEST_TRACK_S:
                tracks.append((path, seconds))
        kept = _once(path for path, _ in tracks)
        tracks = [(path, seconds) for path, seconds in tracks if path in kept]
        for path, seconds in spread(tracks, _MUSIC_A_PACKAGE // _CUTS_A_TRACK):
            for place in (0.3, 0.5, 0.7):
                length = next(supply, None)
                if length is None:
                    return cuts
                start = place * seconds - length / 2
                group = f"{package}/{path.stem}"
                cuts.append(Cut(path, "music", package, group, start, start + length))
    return cuts


def _once(paths: Iterable[Path]) -> set[Path]:
    return {clip.path for clip in without_repeats(Clip(path, "", "") for path in paths)}


def _seconds(path: Path) -> float:
    try:
        return info(path).duration_s
    except AudioError:
        return 0.0


def _written(cuts: Iterable[Cut], folder: Path) -> Iterator[tuple[Cut, Path]]:
    """Cuts as WAV files at one rate and level; what cannot be read, or is silent, is left out."""
    for number, cut in enumerate(cuts):
        try:
            audio = load(cut.path, sample_rate=RATE, onset=cut.onset, offset=cut.offset)
        except AudioError:
            continue
        samples = audio.samples
        level = float(np.sqrt(np.mean(samples.astype(np.float64) ** 2)))
        peak = float(np.abs(samples).max(initial=0.0))
        if level < 1e-4:
            continue
        # A clip with high peaks stays quieter: nothing is clipped.
        path = folder / f"{cut.label}-{number:04d}.wav"
        save(path, Audio(samples * min(LEVEL / level, 0.99 / peak), RATE))
        yield cut, path


def _build(packages: Packages, folder: Path, progress: Progress | None) -> pd.DataFrame:
    spoken = speech(packages)
    if not spoken:
        raise DataError("none of the packages holds speech long enough")
    lengths = np.random.default_rng(0).permutation([cut.offset - cut.onset for cut in spoken])
    played = music(packages, (float(length) for length in lengths))
    if progress is not None:
        progress(f"writing {len(spoken)} clips of speech and {len(played)} of music")
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for cut, path in _written([*spoken, *played], folder):
        rows.append((str(path), cut.label, cut.group, cut.source))
    table = pd.DataFrame(rows, columns=["path", "label", "group", "source"])
    clips = [Clip(Path(path), label, source) for path, label, _, source in rows]
    chosen = fold_of_sources(clips, FOLDS)
    table["fold"] = [str(chosen[source]) for source in table.pop("source")]
    return table


SPEECH_MUSIC = (
    Recipe(
        name="speech_music",
        # The suite's domains are those of HARES; what kind of sound it is, is asked of a scene.
        domain="environment",
        title="speech or music",
        packages=tuple(sorted({*SPEECH, *MUSIC})),
        licence="GPL-2+, GFDL-1.3, CC-BY, CC-BY-SA and CC0, by package",
        caveat="rate (16 kHz), channel, length and level are made the same; how strongly a source "
        "was compressed, its rooms and its noise are not: speech is dry and mostly of one voice, "
        "music is produced, some of it sung",
        build=_build,
        source="folds by package",
    ),
)
