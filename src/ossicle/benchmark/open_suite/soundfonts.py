"""Single notes of General MIDI instruments: which family (11), which key (88). After NSynth.

The four SoundFonts are three folds by where their samples come from, as a comparison of the
samples themselves has it (windows of 24 equal samples; for the compressed font, normalised
cross-correlation at 11,025 Hz):

* sf_GMbank and A320U descend from one set: most of their samples with the same name are nearly
  equal. They are one fold. (TimGM6mb is of the same descent and is not used.)
* GeneralUser shares some samples with those two, and its electric grand piano with FluidR3. The
  presets that play them are left out (`_SHARED`).
* FluidR3Mono, beyond that piano: nothing found.

Of the fonts' drum kits nothing is used here. A group is a program of a fold, with its variations
and in both fonts of the first fold, since these share samples too.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from ossicle.benchmark.open_suite.drawing import kept_once
from ossicle.benchmark.open_suite.render import Preset, Row, SoundFont, rendered
from ossicle.benchmark.packages import Packages
from ossicle.benchmark.recipe import Recipe
from ossicle.errors import DataError


class Font(NamedTuple):
    """A SoundFont file.

    Attributes:
        package: Debian package.
        file: its name there.
        fold: of the fonts with whose samples it shares some.
    """

    package: str
    file: str
    fold: str


class Family(NamedTuple):
    """A family of NSynth's.

    Attributes:
        programs: of General MIDI, from 0.
        keys: lowest and highest MIDI number played.
        words: one of these in the name of a preset beyond bank 0 says that it belongs here.
    """

    programs: tuple[int, ...]
    keys: tuple[int, int]
    words: str


FONTS = {
    "gmbank": Font("csound-soundfont", "sf_GMbank.sf2", "gmbank"),
    "a320u": Font("denemo-data", "A320U.sf2", "gmbank"),
    "generaluser": Font("minuet-data", "GeneralUser-v1.47.sf2", "generaluser"),
    "fluid": Font("fluidr3mono-gm-soundfont", "FluidR3Mono_GM.sf3", "fluid"),
}
# Left out because they stand between families: dulcimer, accordions and harmonica, harp, timpani,
# orchestra hit, the leads "chiff" to "bass and lead" that imitate others, pads and effects,
# plucked instruments of the world.
FAMILIES = {
    "bass": Family((32, 33, 34, 35, 36, 37, 38, 39), (28, 60), "bass"),
    "brass": Family((56, 57, 58, 59, 60, 61, 62, 63), (43, 79), "brass|trumpet|trombone|horn"),
    "flute": Family((72, 73, 74, 75, 76, 77, 78, 79), (60, 96), "flute|piccolo|recorder"),
    "guitar": Family((24, 25, 26, 27, 28, 29, 30, 31), (40, 79), "guitar|ukulele|mandolin"),
    "keyboard": Family(
        (0, 1, 2, 3, 4, 5, 6, 7), (28, 96), r"piano|harpsichord|grand|\bep\b|rhodes"
    ),
    "mallet": Family((8, 9, 10, 11, 12, 13, 14), (53, 96), "vibra|marimba|xylo|glocken"),
    "organ": Family((16, 17, 18, 19, 20), (36, 91), "organ"),
    "reed": Family((64, 65, 66, 67, 68, 69, 70, 71), (43, 84), "sax|oboe|bassoon|clarinet"),
    "string": Family((40, 41, 42, 43, 44, 45, 48, 49, 50, 51), (36, 91), "string|violin|cello"),
    "synth_lead": Family((80, 81, 82, 83, 84, 87), (43, 91), "square|saw|sine|lead"),
    "vocal": Family((52, 53, 54, 85), (45, 84), "choir|voice|vox|aah|ooh"),
}
_SHARED = {
    "generaluser": {
        *((0, 2), (0, 3), (0, 6), (0, 31), (0, 34), (0, 53), (0, 79)),
        *((8, 6), (8, 30), (8, 31)),
    }
}
# The MT-32 set: other numbers than General MIDI's, the same sounds as bank 0.
_OTHER_NUMBERS = 127
_A_CLASS_AND_FOLD = 50
_MOST_A_PRESET = 6
_SEED = 1
_KEYS = range(21, 109)  # a piano's
_A_KEY_AND_FOLD = 9
_REACH = 12
# Programs whose keys sound at the pitch that they say, with one pitch: no organs (16' stops),
# vibraphone and celesta (octaves differ between fonts), bells, pizzicato, harmonics, fifths.
_DEFINITE = (
    *(*range(0, 8), 10, 12, 13, *range(20, 31), *range(32, 45), 46),
    *(*range(48, 55), *range(56, 77), 78, 79, 80, 81, 82, 83, 85),
)
_WIDE = (21, 22, 23, 46)  # played, beside the families, wherever they sound
_PLAYED = {"instrument": (3.0, 4.0), "pitch": (1.2, 1.5)}  # s held, s in all


def family_of(preset: Preset) -> str | None:
    """The NSynth family of a preset, by its program; beyond bank 0 its name must say so too."""
    if preset.bank == _OTHER_NUMBERS or "&" in preset.name:
        return None
    for name, family in FAMILIES.items():
        if preset.program in family.programs:
            told = preset.bank == 0 or re.search(family.words, preset.name.lower())
            return name if told else None
    return None


def plan_instrument(presets: Mapping[str, Sequence[Preset]]) -> list[Row]:
    """Which notes are played.

    About as many for each family and fold, spread evenly over its presets; a preset's keys over
    the family's range.

    Args:
        presets: font -> its presets.

    Returns:
        Rows for ``render.rendered``: path, font, bank, program, key, velocity, label, group, fold.
    """
    rows = []
    for fold in sorted({font.fold for font in FONTS.values()}):
        for name, family in FAMILIES.items():
            chosen = [
                (font, preset)
                for font, preset in _of_fold(presets, fold)
                if family_of(preset) == name
            ]
            many = round(_A_CLASS_AND_FOLD / len(chosen)) if chosen else 0
            many = max(2, min(many, _MOST_A_PRESET))
            for font, preset in chosen:
                drawn = random.Random(f"instrument {_SEED} {font} {preset.bank}:{preset.program}")
                low, high = family.keys
                edges = [low + (high + 1 - low) * i // many for i in range(many + 1)]
                velocities = [55 if i % 2 else 105 for i in range(many)]
                drawn.shuffle(velocities)
                for first, after, velocity in zip(edges[:-1], edges[1:], velocities, strict=True):
                    key = drawn.randrange(first, after)
                    rows.append(_row(font, preset, key, velocity, name))
    return rows


def plan_pitch(presets: Mapping[str, Sequence[Preset]]) -> list[Row]:
    """Which notes are played: as many of each key and fold, of as many presets of bank 0.

    Args:
        presets: font -> its presets.

    Returns:
        As ``plan_instrument``.
    """
    rows = []
    for fold in sorted({font.fold for font in FONTS.values()}):
        chosen = [
            (font, preset)
            for font, preset in _of_fold(presets, fold)
            if preset.bank == 0 and preset.program in _DEFINITE
        ]
        drawn = random.Random(f"pitch {_SEED} {fold}")
        used = dict.fromkeys(chosen, 0)
        # From the ends inwards: few presets reach there, and they are wanted there first.
        for key in sorted(_KEYS, key=lambda key: (-abs(2 * key - 129), key)):
            able = [item for item in chosen if _reaches(item[1], key)]
            drawn.shuffle(able)
            able.sort(key=lambda item: used[item])
            for font, preset in able[:_A_KEY_AND_FOLD]:
                used[font, preset] += 1
                velocity = drawn.choice((55, 80, 105))
                rows.append(_row(font, preset, key, velocity, f"{key:03d}"))
    return sorted(rows, key=lambda row: row["path"])


def _reaches(preset: Preset, key: int) -> bool:
    family = family_of(preset)
    if family is None or family == "keyboard":
        return family == "keyboard" or preset.program in _WIDE
    low, high = FAMILIES[family].keys
    return low - _REACH <= key <= high + _REACH


def _of_fold(presets: Mapping[str, Sequence[Preset]], fold: str) -> list[tuple[str, Preset]]:
    return [
        (font, preset)
        for font in sorted(presets)
        if FONTS[font].fold == fold
        for preset in sorted(presets[font])
        if (preset.bank, preset.program) not in _SHARED.get(font, ())
    ]


def _row(font: str, preset: Preset, key: int, velocity: int, label: str) -> Row:
    fold = FONTS[font].fold
    return {
        "path": f"{font}_{preset.bank:03d}_{preset.program:03d}_{key:03d}_{velocity:03d}.flac",
        "font": font,
        "bank": preset.bank,
        "program": preset.program,
        "key": key,
        "velocity": velocity,
        "label": label,
        "group": f"{fold}:{preset.program:03d}",
        "fold": fold,
    }


def font_file(packages: Packages, font: Font) -> Path:
    """The font's file.

    Raises:
        DownloadError: as ``Packages.files``.
        DataError: it is not in its package.
    """
    found = sorted(packages.files(font.package).rglob(font.file))
    if not found:
        raise DataError(f"{packages.files(font.package)}: holds no {font.file}; remove the folder")
    return found[0]


def _builder(
    name: str, plan: Callable[[Mapping[str, Sequence[Preset]]], list[Row]]
) -> Callable[[Packages, Path, Callable[[str], None] | None], pd.DataFrame]:
    held_s, length_s = _PLAYED[name]

    def build(
        packages: Packages, folder: Path, progress: Callable[[str], None] | None
    ) -> pd.DataFrame:
        files = {font: font_file(packages, row) for font, row in FONTS.items()}
        loaded = {font: SoundFont(path) for font, path in files.items()}
        table = rendered(
            folder,
            plan({font: font_.presets() for font, font_ in loaded.items()}),
            loaded,
            lambda font, row: font.note(
                *(row["bank"], row["program"], row["key"], row["velocity"]),
                held_s=held_s,
                length_s=length_s,
            ),
            [packages.about(font.package) for font in FONTS.values()] + [{"s": [held_s, length_s]}],
            progress,
        )
        rows = kept_once(table[["path", "label", "group", "fold"]].to_dict("records"))
        return pd.DataFrame(rows)

    return build


_PACKAGES = tuple(font.package for font in FONTS.values())
_LICENCE = (
    "sf_GMbank: public domain (in the file). A320U: GPL (in the file). FluidR3Mono: MIT. "
    "GeneralUser: in minuet-data, GPL-2 or 3; its copyright file does not name the SoundFont."
)
_NSYNTH = "tasks of NSynth (Engel et al. 2017, https://arxiv.org/abs/1704.01279)"

SOUNDFONTS = (
    Recipe(
        "instrument",
        "music",
        "instrument family of a note",
        _PACKAGES,
        _LICENCE,
        "bass notes are low and flute notes high, as they are played; General MIDI numbers and "
        "names are the fonts' makers' word for what a preset is; unpublished sources that two "
        "fonts share beyond equal samples would not be found",
        _builder("instrument", plan_instrument),
        source=f"{_NSYNTH}; folds by font",
    ),
    Recipe(
        "pitch",
        "music",
        "key of a note, 21-108",
        _PACKAGES,
        _LICENCE,
        "the highest and lowest keys are played by few instruments, far from the recorded ones",
        _builder("pitch", plan_pitch),
        source=f"{_NSYNTH}; folds by font",
    ),
)
