"""Single strokes of drum kits, real and electronic: which instrument of a kit it is.

What a file is, is told by its name, and for Hydrogen's kits by the name of the instrument that
plays it in ``drumkit.xml``; where both say something and not the same, the file is left out.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd

from ossicle.benchmark.open_suite.sources import (
    Clip,
    at_most,
    in_folds,
    without_copies,
    without_repeats,
    words,
)
from ossicle.benchmark.packages import Packages
from ossicle.benchmark.recipe import Progress, Recipe
from ossicle.errors import DataError

LONGEST_S = 3.0

# Instrument -> what is in its name, words with a space between; digits are gone.
DRUMS_BY_NAME: Mapping[str, str] = {
    "clap": r"clap",
    "closed_hat": r"\b(hats?|hi ?hats?|hh)\b.*\bcl(osed?)?\b|\bcl(osed?)?\b.*\b(hats?|hh)\b"
    r"|\bchh\b|hhclosed|closehihat",
    "crash": r"crash|\bcra\b",
    "kick": r"kick|bass ?drum|\bbd\b|drum bass",
    "open_hat": r"\b(hats?|hi ?hats?|hh)\b.*\bop(en(ed)?)?\b|\bop(en(ed)?)?\b.*\b(hats?|hh)\b"
    r"|\bohh\b|hhopen|openhat",
    "ride": r"\bride\b",
    "rim": r"side ?stick|\bstick\b|rim ?click|\brims?\b|rim ?shot",
    "snare": r"snares?\b|[jr]snare|\bsn\b",
    "tom": r"\btoms?\b|floortom|tomh\b",
}
# Between two instruments, or more than one stroke.
_NEITHER = re.compile(
    r"semi|half|pedal|foot|\bpd\b|choke|swish|free|roll|\bbell\b|\bcup\b|china|splash|empty|phaser"
    r"|\bloop|beats?\b|mod\b|cymbal"
)
# A kit whose instruments play something else (a tom as its bass drum); two sticks, without a drum.
_NOT = re.compile(r"Audiophob/|ForzeeStereo/Stick")
_MAX_XML_BYTES = 4_000_000
# Package -> a folder that its drums are below; each package is one kit.
_LOOSE = {
    "chuck-data": "audio",
    "exadrums": "exadrums",
    "lmms-common": "samples/drums",
    "performous": "sounds",
    "sonic-pi-samples": "samples",
}
_PACKAGES = tuple(sorted((*_LOOSE, "hydrogen-data", "hydrogen-drumkits")))


def instruments(name: str) -> set[str]:
    """The instruments that a name tells: none, one, or several ("crash ride").

    Args:
        name: of a file or of a kit's instrument, such as "Hard_CHH_01" or "Snare (Pearl 14x3.5)".
    """
    text = _text(name)
    return {label for label, pattern in DRUMS_BY_NAME.items() if re.search(pattern, text)}


def stroke(name: str, players: Iterable[str]) -> str | None:
    """What a file is, by all its names; None where they do not say one and the same.

    Args:
        name: of the file.
        players: of the instruments that play it.
    """
    names = (name, *players)
    if any(_NEITHER.search(_text(text)) for text in names):
        return None
    told = set().union(*(instruments(text) for text in names))
    return told.pop() if len(told) == 1 else None


def _text(name: str) -> str:
    return " ".join(words(re.sub(r"\(.*?\)", " ", name)))  # in parentheses: make and size


def layers(path: Path) -> dict[str, set[str]]:
    """File -> names of the instruments that play it, of a kit of Hydrogen (``drumkit.xml``).

    Raises:
        DataError: the file cannot be read, is no XML, is large beyond reason, or declares a
            document type, with which XML can be made to grow without bound.
    """
    try:
        size = path.stat().st_size
        # As text, and without NUL, so that no other coding hides what is looked for.
        text = path.read_text(encoding="utf-8") if size <= _MAX_XML_BYTES else ""
        if not text or any(sign in text for sign in ("\0", "<!DOCTYPE", "<!ENTITY")):
            raise DataError(f"{path}: is no drum kit (too large, or with a document type)")
        tree = ElementTree.fromstring(text)
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a drum kit ({error})") from error
    players: dict[str, set[str]] = defaultdict(set)
    for element in tree.iter():
        if _tag(element) == "instrument":
            names = [(child.text or "").strip() for child in element if _tag(child) == "name"]
            for child in element.iter():
                if _tag(child) == "filename" and child.text and names:
                    players[child.text.strip()].add(names[0])
    return dict(players)


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rsplit("}", 1)[-1]  # newer kits have a namespace


def _strokes(packages: Packages) -> Iterator[Clip]:
    for package in _PACKAGES:
        root = packages.files(package)
        kits: dict[Path, dict[str, set[str]]] = {}
        for path in packages.audio(package):
            inside = f"/{path.parent.relative_to(root).as_posix()}/"
            if package in _LOOSE:
                kit, players = package, set[str]()
                if f"/{_LOOSE[package]}/" not in inside:
                    continue
            else:
                sheet = path.parent / "drumkit.xml"
                if not sheet.is_file():
                    continue
                if path.parent not in kits:
                    kits[path.parent] = layers(sheet)
                kit, players = path.parent.name, kits[path.parent].get(path.name, set())
            label = stroke(path.name, players)
            if label is not None and not _NOT.match(f"{kit}/{path.stem}"):
                yield Clip(path, label, kit)


def _build(packages: Packages, folder: Path, progress: Progress | None) -> pd.DataFrame:
    clips = without_copies(at_most(without_repeats(_strokes(packages)), 8), progress=progress)
    return in_folds(clips, 5, longest_s=LONGEST_S, progress=progress)


DRUMS = (
    Recipe(
        name="drums",
        domain="music",
        title="which instrument of a drum kit is struck",
        packages=_PACKAGES,
        licence="GPL-2+, CC-BY-3.0, CC-BY-SA-3.0, CC0, by kit",
        caveat="single strokes, cut and normalised by each kit's maker; electronic kits synthesise "
        "what the others record; kits of one maker may share a room; rare instruments come from "
        "few kits",
        build=_build,
        source="names of files and of instruments in drumkit.xml; folds by kit",
    ),
)
