"""Which language: eight, each from several sources, tested on a source that was not learnt from."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ossicle.benchmark.open_suite import telephone
from ossicle.benchmark.open_suite.drawing import Row, draw, kept_once, long_enough, shares, table
from ossicle.benchmark.open_suite.voices import FISH_PACKAGES, fish_lines
from ossicle.benchmark.packages import Packages
from ossicle.benchmark.recipe import Progress, Recipe

LANGUAGES_TOLD = ("de", "en", "es", "fr", "it", "nl", "ru", "uk")
CLIPS_A_LANGUAGE = 120
SHORTEST_S = 0.4
LONGEST_S = 3.0

Found = dict[tuple[str, str, str], dict[Path, str]]


def _stamps(packages: Packages, found: Found) -> None:
    for path in packages.audio("tuxpaint-stamps-default"):
        name, mark, language = path.stem.rpartition("_desc")
        # Without a language it is English.
        language = language.strip("_") or "en"
        if mark and name and language in LANGUAGES_TOLD:
            found.setdefault((language, "stamps", f"stamps/{language}"), {})[path] = path.stem


def _potato(packages: Packages, found: Found) -> None:
    for path in packages.audio("ktuberling-data"):
        language = path.parent.name
        if path.parent.parent.name == "sounds" and language in LANGUAGES_TOLD:
            found.setdefault((language, "ktuberling", f"ktuberling/{language}"), {})[path] = ""


def _syllables(packages: Packages, found: Found) -> None:
    for path in packages.audio("klettres-data"):
        # Letters are left out: their names are nearly the same in many languages.
        code = path.parent.parent.name
        language = "en" if code == "en_GB" else code
        if path.parent.name == "syllab" and language in LANGUAGES_TOLD:
            found.setdefault((language, "klettres", f"klettres/{code}"), {})[path] = ""


def _primer(packages: Packages, found: Found) -> None:
    for path in packages.audio("qabcs-data"):
        code = path.parent.parent.parent.name
        language = "en" if code == "en_gb" else code
        if path.parent.name == "words" and language in LANGUAGES_TOLD:
            found.setdefault((language, "qabcs", f"qabcs/{code}"), {})[path] = ""


def _games(packages: Packages, found: Found) -> None:
    for by_level in fish_lines(packages, "nl").values():
        for paths in by_level.values():
            for path in paths:
                found.setdefault(("nl", "games", "fillets/nl"), {})[path] = ""
    for path in packages.audio("kajongg"):
        language = {"voices": "en", "de": "de"}.get(path.parent.parent.name)
        if language:
            group = f"kajongg/{language}/{path.parent.name}"
            found.setdefault((language, "games", group), {})[path] = ""


def _telephone(packages: Packages, found: Found, folder: Path) -> None:
    for voice in telephone.VOICES:
        names = telephone.prompts(packages, voice)
        for name in sorted(names):
            # Letters and foreign alphabets say little of the language.
            if name.startswith(("letters/", "phonetic/")):
                continue
            path = telephone.playable(names[name], name, voice, folder)
            key = (voice.language, "asterisk", f"asterisk/{voice.speaker}")
            found.setdefault(key, {})[path] = name


def _language(packages: Packages, folder: Path, progress: Progress | None) -> pd.DataFrame:
    found: Found = {}
    for read in (_stamps, _potato, _syllables, _primer, _games):
        read(packages, found)
    _telephone(packages, found, folder)
    rows: list[Row] = []
    for language in LANGUAGES_TOLD:
        if progress is not None:
            progress(f"language: {language}")
        by_source: dict[str, dict[str, list[Path]]] = {}
        for (spoken, source, reader), paths in sorted(found.items()):
            if spoken == language:
                usable = long_enough(list(paths), CLIPS_A_LANGUAGE, SHORTEST_S, reader)
                by_source.setdefault(source, {})[reader] = usable
        have = {source: sum(map(len, r.values())) for source, r in by_source.items()}
        for source, wanted in shares(have, CLIPS_A_LANGUAGE).items():
            readers = by_source[source]
            counts = {reader: len(paths) for reader, paths in readers.items()}
            for reader, most in shares(counts, wanted).items():
                for path in draw(readers[reader], most, f"language {reader}"):
                    rows.append(
                        {
                            "path": path,
                            "label": language,
                            "group": reader,
                            "fold": source,
                            "onset": 0.0,
                            "offset": LONGEST_S,
                        }
                    )
    return table(kept_once(rows), "language")


LANGUAGES = (
    Recipe(
        name="language",
        domain="speech",
        title="eight languages, tested on sources that were not learnt from",
        packages=(
            "kajongg",
            "klettres-data",
            "ktuberling-data",
            "qabcs-data",
            "tuxpaint-stamps-default",
            FISH_PACKAGES["nl"],
            *telephone.PACKAGES,
        ),
        licence=f"GPL-2 and later (most); GPL-3+ (qabcs); {telephone.LICENCE}",
        caveat=(
            "a language in a source is one or a few people and one set-up, so that a probe learns "
            "voices and microphones, which fail it on the next source: scores near or below chance "
            "(.125) are to be expected; single words and syllables for the most part"
        ),
        build=_language,
        source="folder and file names; leave one source out",
    ),
)
