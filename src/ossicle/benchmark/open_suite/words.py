"""What is said: digits, words of numbers and dates, tiles of a game, exclamations."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pandas as pd

from ossicle.benchmark.open_suite import telephone
from ossicle.benchmark.open_suite.drawing import Row, kept_once, table
from ossicle.benchmark.packages import Packages
from ossicle.benchmark.recipe import Progress, Recipe

LONGEST_S = 4.0  # of speech in a clip

# Fold of each reader. Each language keeps a voice to learn from, each fold has several ways of
# recording, and who reads two languages (Allison) is tested in both at once.
DIGIT_FOLDS = {
    ("Allison", "en"): "voices 1",
    ("Allison", "es"): "voices 1",
    ("Menardi", "it"): "voices 1",
    ("July", "es"): "voices 2",
    ("June", "fr"): "voices 2",
    ("IvrvoiceRU", "ru"): "voices 2",
    ("Carlo", "it"): "voices 3",
    ("Armelle", "fr"): "voices 3",
}
# Tux Paint's stamps of the digits: what follows the digit in the name -> fold. There are two
# recordings in French and in Russian, perhaps by one person: they share a fold.
STAMP_FOLDS = {
    "_fr": "voices 1",
    "_desc_fr": "voices 1",
    "_ru": "voices 1",
    "_desc_ru": "voices 1",
    "_it": "voices 2",
    "_en_GB": "voices 2",
    "": "voices 3",
    "_es": "voices 3",
}
PROMPT_FOLDS = {
    "Allison": "voices 1",
    "Armelle": "voices 1",
    "Carlo": "voices 1",
    "July": "voices 2",
    "June": "voices 2",
    "Menardi": "voices 2",
}
NUMBERS = (*map(str, range(21)), "30", "40", "50", "60", "70", "80", "90")
WORDS_SAID = (
    *NUMBERS,
    *("hundred", "thousand", "million"),
    *(f"day-{day}" for day in range(7)),
    *(f"mon-{month}" for month in range(12)),
    *("today", "tomorrow", "yesterday"),
)
# Hedgewars' voices that speak English. Classic and Default hold the same recordings in part.
PACK_FOLDS = {
    "Classic": "packs 1",
    "Default": "packs 1",
    "British": "packs 2",
    "Mobster": "packs 2",
    "HillBilly": "packs 3",
    "Robot": "packs 3",
    "Pirate": "packs 4",
    "Russian": "packs 4",
    "Singer": "packs 5",
    "Surfer": "packs 5",
}
FEWEST_PACKS = 8  # in which an exclamation must occur
TAKES = 2  # of an exclamation in a pack


def _digits(packages: Packages, folder: Path, progress: Progress | None) -> pd.DataFrame:
    rows: list[Row] = []
    for voice in telephone.VOICES:
        names = telephone.prompts(packages, voice)
        fold = DIGIT_FOLDS[voice.speaker, voice.language]
        for digit in map(str, range(10)):
            if (name := f"digits/{digit}") in names:
                path = telephone.playable(names[name], name, voice, folder)
                rows.append(_row(path, digit, voice.speaker, fold))
    for path in packages.audio("tuxpaint-stamps-default"):
        match = re.fullmatch(r"(\d)((?:_desc)?(?:_[a-zA-Z_]+)?)", path.stem)
        if match and path.parent.name == "math" and match[2] in STAMP_FOLDS:
            # Without a language it is American English.
            reader = match[2].removeprefix("_desc").strip("_") or "en"
            rows.append(_row(path, match[1], f"stamps/{reader}", STAMP_FOLDS[match[2]]))
    return table(kept_once(rows), "digits")


def _prompts(packages: Packages, folder: Path, progress: Progress | None) -> pd.DataFrame:
    readers = [
        (voice, telephone.prompts(packages, voice))
        for voice in telephone.VOICES
        if voice.language in ("es", "fr", "it")
    ]
    rows: list[Row] = []
    for word in WORDS_SAID:
        name = f"digits/{word}"
        if all(name in names for _, names in readers):
            for voice, names in readers:
                path = telephone.playable(names[name], name, voice, folder)
                rows.append(_row(path, word, voice.speaker, PROMPT_FOLDS[voice.speaker]))
    return table(kept_once(rows), "prompts")


def _phrase(packages: Packages, folder: Path, progress: Progress | None) -> pd.DataFrame:
    rows: list[Row] = []
    for path in packages.audio("kajongg"):
        voice = path.parent.name
        language = {"voices": "en", "de": "de"}.get(path.parent.parent.name)
        if language and re.fullmatch(r"(fe)?male\d", voice):
            # Whoever is called male1 in both languages may be one person: tested together.
            rows.append(_row(path, path.stem, f"{language}/{voice}", voice))
    return table(kept_once(_common(rows, 4)), "phrase")


def _intention(packages: Packages, folder: Path, progress: Progress | None) -> pd.DataFrame:
    rows: list[Row] = []
    for path in packages.audio("hedgewars-data"):
        pack = path.parent.name
        if path.parent.parent.name == "voices" and pack in PACK_FOLDS:
            rows.append(_row(path, path.stem.rstrip("0123456789"), pack, PACK_FOLDS[pack]))
    takes: dict[tuple[str, str], list[Row]] = {}
    for row in kept_once(rows):
        takes.setdefault((Path(row["path"]).parent.name, row["label"]), []).append(row)
    few = [row for of_pack in takes.values() for row in of_pack[:TAKES]]
    return table(_common(few, FEWEST_PACKS), "intention")


def _common(rows: list[Row], fewest: int) -> list[Row]:
    """The rows of labels that so many groups have."""
    groups = Counter(label for label, _ in {(row["label"], row["group"]) for row in rows})
    return [row for row in rows if groups[row["label"]] >= fewest]


def _row(path: Path, label: str, group: str, fold: str) -> Row:
    where = {"onset": 0.0, "offset": LONGEST_S}
    return {"path": path, "label": label, "group": group, "fold": fold, **where}


WORDS = (
    Recipe(
        name="digits",
        domain="speech",
        title="spoken digit in five languages, unseen voices",
        packages=("tuxpaint-stamps-default", *telephone.PACKAGES),
        licence=f"GPL-2 (stamps); {telephone.LICENCE}",
        caveat=(
            "thirteen voices or so: the interval is wide; the telephone prompts (8 kHz) and the "
            "stamps are spread over the folds, and no voice is heard before it is tested"
        ),
        build=_digits,
        source="names of Asterisk's prompts and of Tux Paint's stamps",
    ),
    Recipe(
        name="prompts",
        domain="speech",
        title="53 words for numbers and dates in Spanish, French and Italian, unseen voices",
        packages=tuple(v.package for v in telephone.VOICES if v.language in ("es", "fr", "it")),
        licence=telephone.LICENCE.replace(", ru-wav", ""),
        caveat=(
            "six voices, three to learn from, one of them in the tested language: one example a "
            "word; related words (tre, tres, trois) help across languages; the interval over six "
            "voices is rough"
        ),
        build=_prompts,
        source="names of Asterisk's prompts",
    ),
    Recipe(
        name="phrase",
        domain="speech",
        title="42 calls of a tile game in English and German, unseen voices",
        packages=("kajongg",),
        licence="GPL-2+",
        caveat=(
            "eight voices, each with its own set-up, which can only mislead: a voice is never on "
            "both sides; calls in the two languages share a class and often sound alike"
        ),
        build=_phrase,
        source="file names of kajongg's voices",
    ),
    Recipe(
        name="intention",
        domain="speech",
        title="what an exclamation is for, English, unseen acted characters",
        packages=("hedgewars-data",),
        licence="GFDL-1.3",
        caveat=(
            "the class is the event of the game and mostly, not always, the same words; some are "
            "cries; the characters are acted and some actors may have spoken several; recordings "
            "that two packs share are kept once, both packs in one fold"
        ),
        build=_intention,
        source="file names of Hedgewars' voice packs",
    ),
)
