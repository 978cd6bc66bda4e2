"""Rhythm styles: accompaniments composed by `mma` in the manner of 11 styles, played by SoundFonts.

MMA (Musical MIDI Accompaniment, https://www.mellowood.ca/mma) turns chords into drums, bass and
chords by its library of hand-written grooves. It is the one program out of a package that is run,
as the library is written in its language and nothing else reads it. It is Python, and runs with
this interpreter in isolated mode, in a folder of its own that is removed, for a limited time, out
of the archive whose checksum is pinned.

All styles are given the same chords, keys, tempi and SoundFonts, three of different descent by
turns. The three folds have grooves from other files of the library. They do not have SoundFonts of
their own: with those too, representations came out so near chance that nothing could be compared.
"""

from __future__ import annotations

import math
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import TracebackType

import numpy as np
import pandas as pd

from ossicle.benchmark.open_suite.render import Event, Row, SoundFont, read_midi, rendered
from ossicle.benchmark.open_suite.soundfonts import FONTS, font_file
from ossicle.benchmark.packages import PACKAGES, Packages, _part_of
from ossicle.benchmark.recipe import Recipe
from ossicle.download import sha256_file
from ossicle.errors import DataError

LENGTH_S = 10.0
FOLDS = ("1", "2", "3")
_FONTS = ("gmbank", "generaluser", "fluid")  # of different descent
# Style -> library files, dealt to the folds by turns. Files of which one is made from another, by
# its own words, are in one text: they stay together.
STYLES: dict[str, tuple[str, ...]] = {
    "blues_shuffle": (
        *("casio/16shuffle1", "casio/blues", "casio/popshuffle1"),
        *("casio/popshuffle2", "casio/shuffleboogie", "casio/shufflerock"),
        *("kara/happyshuffle", "stdlib/blues", "stdlib/boggiewoggie"),
        *("stdlib/countryblues", "stdlib/fastblues", "stdlib/shuffleboggie"),
    ),
    "bossa_samba": (
        *("kara/kbossa", "stdlib/bossanova", "stdlib/samba"),
        *("yamaha/jazzbossa", "yamaha/quando-g.s280"),
    ),
    "country_folk": (
        *("kara/2beatp", "kara/kwestballad", "stdlib/bluegrass"),
        *("stdlib/countryswing stdlib/westernswing", "stdlib/folk", "stdlib/hillcountry"),
        *("stdlib/slowcountry", "yamaha/western"),
    ),
    "cuban": (
        *("stdlib/chacha", "stdlib/jazzrhumba stdlib/rhumba stdlib/beguine", "stdlib/mambo"),
        *("stdlib/salsa", "stdlib/slowbolero", "stdlib/son"),
        *("yamaha/mambo", "yamaha/salsa1", "yamaha/salsa2"),
    ),
    "dance": (
        *("alexis/teamtechno", "casio/8beatdance", "casio/dance1"),
        *("casio/dance2", "casio/dancepop1", "casio/house"),
        *("casio/rave", "casio/techno", "casio/trance1"),
        *("casio/trance2", "stdlib/trance", "casio/dancepop2"),
    ),
    "funk_soul": (
        *("casio/60ssoul", "casio/discosoul stdlib/dsoul", "casio/funk1"),
        *("casio/funk2", "casio/modernrb", "casio/r+b"),
        *("casio/soul", "casio/soulpop", "kara/8beatmotown"),
        *("kara/Kfunk1", "stdlib/bvfunk", "stdlib/rb"),
    ),
    "march_polka": (
        *("casio/germanmarch", "casio/march1", "casio/polka"),
        *("casio/polkafox", "casio/poppolka", "stdlib/bwmarch"),
        *("stdlib/dixiemarch", "stdlib/march", "stdlib/polka"),
    ),
    "rock": (
        *("casio/digitalrock", "casio/heavymetal", "casio/poprock1"),
        *("casio/poprock2", "casio/rock1", "casio/rock2"),
        *("pflib/metal1", "pflib/rock1", "stdlib/basicrock"),
        *("stdlib/60srock", "stdlib/softrock", "yamaha/w-rock"),
    ),
    "rock_and_roll": (
        *("casio/twist", "kara/K50s_rock", "kara/fasttwist"),
        *("kara/twi", "stdlib/50srock", "stdlib/jive"),
        *("stdlib/twist",),
    ),
    "swing": (
        *("casio/fastbigband", "casio/jazzcombo stdlib/jazzcombo", "casio/modernjazz"),
        *("casio/slowswing", "casio/swing", "stdlib/bigband"),
        *("stdlib/easyswing", "stdlib/modernjazz", "stdlib/swing"),
        *("yamaha/jazzbasie", "yamaha/jazzswing", "yamaha/jazztrio"),
    ),
    "waltz": (
        *("casio/jazzwaltz", "casio/popwaltz", "stdlib/broadwaywaltz"),
        *("stdlib/fastwaltz", "stdlib/frenchwaltz", "stdlib/jazzwaltz stdlib/fastjazzwaltz"),
        *("stdlib/countrywaltz", "stdlib/modernjazzwaltz", "stdlib/vienesewaltz"),
        *("stdlib/waltz stdlib/latinwaltz stdlib/rockwaltz", "yamaha/jazzwaltz"),
    ),
}
_IN_THREE = ("waltz",)
# Beginnings, endings and fills are no rhythm yet; "Sus" is the same with strings above it.
_NO_RHYTHM = re.compile(r"intro|end|fill|break|hit|sus|clap|\dslow|f[ab]$|rock1e$", re.IGNORECASE)
_DEFINED = re.compile(r"^\s*DefGroove\s+(\S+)", re.IGNORECASE | re.MULTILINE)
_GROOVES_A_FILE = 2
_A_STYLE_AND_FOLD = 16
_TEMPO = (95, 145)  # beats a minute
_SEED = 1
_NOTES = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
_PROGRESSIONS = (  # semitones above the key's root, and the chord: one a bar
    ((0, ""), (9, "m"), (2, "m"), (7, "7")),
    ((0, ""), (5, ""), (7, "7"), (0, "")),
    ((2, "m7"), (7, "7"), (0, "M7"), (9, "7")),
    ((0, ""), (7, ""), (9, "m"), (5, "")),
    ((0, "m"), (5, "m"), (7, "7"), (0, "m")),
    ((0, "7"), (5, "7"), (0, "7"), (7, "7")),
    ((0, "m7"), (10, "7"), (8, "M7"), (7, "7")),
    ((0, ""), (0, ""), (5, ""), (7, "7")),
)
# What `/usr/bin/mma` does, with the place of the library given.
_START = (
    "import sys; modules, MMAdir = sys.argv[1:3]; del sys.argv[1:3]; platform = 'Linux'; "
    "sys.path.insert(0, modules); import MMA.main"
)
_LIMIT_S = 60.0
_EARLY_S = 0.05  # players may come before the bar


def grooves_of(text: str) -> list[str]:
    """The first grooves that a library file defines, without intros, endings and fills."""
    names = [name for name in _DEFINED.findall(text) if not _NO_RHYTHM.search(name)]
    return list(dict.fromkeys(names))[:_GROOVES_A_FILE]


def plan_rhythm(grooves: Mapping[str, Sequence[str]]) -> list[Row]:
    """Which grooves are played, to which chords.

    Clip number i of a fold has the same chords, key, tempo and font in all styles.

    Args:
        grooves: library file -> names of its grooves.

    Returns:
        Rows for ``render.rendered``: path, font, file, groove, tempo (beats a minute), beats (a
        bar), chords (one a bar), label, group (the file, or the first of its kin),
        fold.

    Raises:
        DataError: a file has no groove.
    """
    rows = []
    for number, fold in enumerate(FOLDS):
        drawn = random.Random(f"rhythm {_SEED} {fold}")
        tempi = [drawn.randint(*_TEMPO) for _ in range(_A_STYLE_AND_FOLD)]
        keys = [drawn.randrange(12) for _ in range(_A_STYLE_AND_FOLD)]
        # Each progression comes before any comes again.
        deck = [i % len(_PROGRESSIONS) for i in range(_A_STYLE_AND_FOLD)]
        drawn.shuffle(deck)
        fonts = [_FONTS[i % len(_FONTS)] for i in range(_A_STYLE_AND_FOLD)]
        drawn.shuffle(fonts)
        for style, kin in STYLES.items():
            beats = 3 if style in _IN_THREE else 4
            own = kin[number :: len(FOLDS)]
            for i, (tempo, key, which, font) in enumerate(
                zip(tempi, keys, deck, fonts, strict=True)
            ):
                # Kin by turns, then its files, then their grooves.
                turn, who = divmod(i, len(own))
                files = own[who].split()
                again, one = divmod(turn, len(files))
                file = files[one]
                if not grooves.get(file):
                    raise DataError(f"{file}.mma: defines no groove")
                groove = grooves[file][again % len(grooves[file])]
                bars = math.ceil((LENGTH_S + 1) * tempo / 60 / beats)
                chords = [
                    _NOTES[(key + step) % 12] + kind
                    for step, kind in (_PROGRESSIONS[which] * math.ceil(bars / 4))[:bars]
                ]
                rows.append(
                    {
                        "path": f"{style}_{fold}_{i:02d}.flac",
                        "font": font,
                        "file": file,
                        "groove": groove,
                        "tempo": tempo,
                        "beats": beats,
                        "chords": chords,
                        "label": style,
                        "group": files[0],
                        "fold": fold,
                    }
                )
    return rows


def song(rows: Sequence[Row]) -> str:
    """The text for MMA: the rows' excerpts one after the other, each as if it were the first."""
    lines, bar = [], 0
    for row in rows:
        # The seed of MMA's own humanising.
        lines += [f"RndSeed {_SEED}", f"Tempo {row['tempo']}"]
        lines.append(f"Groove {row['file']}:{row['groove']}")
        for chord in row["chords"]:
            bar += 1
            lines.append(f"{bar} {chord}")
    return "\n".join(lines) + "\n"


def excerpts(rows: Sequence[Row], events: Sequence[Event]) -> list[list[Event]]:
    """The events of each excerpt of a ``song``, its first bar at 0 s.

    What was chosen before (programs, controls) is chosen at its beginning.
    """
    begin, parts = 0.0, []
    for row in rows:
        end = begin + len(row["chords"]) * row["beats"] * 60 / row["tempo"]
        part = []
        for event in events:
            note = event.kind in ("on", "off")
            if event.time < (end - _EARLY_S) and (not note or event.time >= begin - _EARLY_S):
                part.append(event._replace(time=max(0.0, event.time - begin)))
        parts.append(part)
        begin = end
    return parts


class Accompanist:
    """MMA out of its package, as a context; see the module for how it is run.

    Args:
        packages: where the package is. It is opened when something is composed.
    """

    def __init__(self, packages: Packages) -> None:
        self._packages = packages
        self._scratch = tempfile.TemporaryDirectory(prefix="mma-")
        self._folder = Path(self._scratch.name)
        self._places: tuple[Path, Path] | None = None

    def __enter__(self) -> Accompanist:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._scratch.cleanup()

    def compose(self, text: str) -> list[Event]:
        """The events of a song.

        Raises:
            DataError: MMA does not understand it, or takes too long; or the package is not the
                pinned one, and nothing of it is run.
            DownloadError: as ``Packages.files``.
        """
        if self._places is None:
            self._places = self._open()
        source, target = self._folder / "song.mma", self._folder / "song.mid"
        source.write_text(text, encoding="utf-8")
        (self._folder / "empty").write_text("", encoding="utf-8")  # no settings of the user's
        target.unlink(missing_ok=True)
        isolated = [sys.executable, "-I", "-X", f"pycache_prefix={self._folder / 'cache'}"]
        places = [str(place) for place in self._places]
        try:
            done = subprocess.run(
                [*isolated, "-c", _START, *places, "song.mma", "-i", "empty", "-f", "song.mid"],
                cwd=self._folder,
                env={"HOME": str(self._folder), "LC_ALL": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_LIMIT_S,
                check=False,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise DataError(f"mma cannot be run ({error})") from error
        if done.returncode or not target.is_file():
            told = " ".join((done.stdout + done.stderr).split())
            raise DataError(f"mma: {told[-300:] or 'wrote nothing'}")
        return read_midi(target)

    def _open(self) -> tuple[Path, Path]:
        """The folders of MMA's modules and of its library."""
        home = self._packages.files("mma") / "usr" / "share" / "mma"
        about, pinned = self._packages.about("mma"), PACKAGES["mma"]
        refusal = f"is not the pinned {pinned.version}; it is not run"
        if about["sha256"] != pinned.sha256:
            raise DataError(f"mma {about['version']}: {refusal}")
        if (home / "MMA" / "main.py").is_file():
            return home, home
        modules = self._folder / "modules"
        with self._packages._deb("mma") as deb:
            if sha256_file(deb) != pinned.sha256:
                raise DataError(f"{deb}: {refusal}")
            _copy_modules(deb, modules)
        return modules, home


def _copy_modules(deb: Path, folder: Path) -> None:
    with _part_of(deb, "data.tar") as archive:
        for member in archive:
            path = PurePosixPath(member.name)
            source = archive.extractfile(member) if member.isreg() else None
            if source is None or path.suffix != ".py" or path.parts[-3:-1] != ("mma", "MMA"):
                continue
            (folder / "MMA").mkdir(parents=True, exist_ok=True)
            with (folder / "MMA" / path.name).open("wb") as target:
                shutil.copyfileobj(source, target)


def _build(
    packages: Packages, folder: Path, progress: Callable[[str], None] | None
) -> pd.DataFrame:
    library = packages.files("mma") / "usr" / "share" / "mma" / "lib"
    files = sorted({file for kin in STYLES.values() for one in kin for file in one.split()})
    grooves = {}
    for file in files:
        try:
            text = (library / f"{file}.mma").read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise DataError(f"{library / file}.mma: {error.strerror}; remove {library}") from error
        grooves[file] = grooves_of(text)
    plan = plan_rhythm(grooves)
    fonts = {font: SoundFont(font_file(packages, FONTS[font])) for font in _FONTS}
    names = ("mma", *(FONTS[font].package for font in _FONTS))
    with Accompanist(packages) as mma:
        composed: dict[str, list[Event]] = {}

        def sound(font: SoundFont, row: Row) -> np.ndarray:
            if row["path"] not in composed:
                same = [
                    other
                    for other in plan
                    if all(other[name] == row[name] for name in ("fold", "file", "groove"))
                ]
                parts = excerpts(same, mma.compose(song(same)))
                composed.update(zip((other["path"] for other in same), parts, strict=True))
            return font.play(composed.pop(row["path"]), onset_s=0.0, length_s=LENGTH_S)

        sources = [*(packages.about(name) for name in names), {"s": LENGTH_S}]
        table = rendered(folder, plan, fonts, sound, sources, progress)
    return table[["path", "label", "group", "fold"]]


RHYTHM = (
    Recipe(
        "rhythm_style",
        "music",
        "style of an accompaniment",
        ("mma", *(FONTS[font].package for font in _FONTS)),
        "mma: GPL-2+. sf_GMbank: public domain (in the file). FluidR3Mono: MIT. GeneralUser: in "
        "minuet-data, GPL-2 or 3; its copyright file does not name the SoundFont.",
        "the same three SoundFonts play in all folds; tempi are the same for all styles, so that "
        "some sound slower or faster than they are danced; metre (the waltz is in three) and "
        "choice of instruments and drums tell styles apart, as in music; grooves by one author "
        "may have habits in common",
        _build,
        source="styles as in ballroom and genre collections; grooves of MMA 21.09",
    ),
)
