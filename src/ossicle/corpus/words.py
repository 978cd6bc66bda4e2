"""Spoken words and phrases, by speech synthesis: what is said, by which voice, in which language.

Two engines speak, espeak-ng in 16 languages and, where its package can be had, Flite in English.
Some 600 words are said by many voices each and named by a facet `word`; more words and phrases,
said once, add variety. Half of all are worn by rooms, noise and telephones; see
``ossicle.corpus.wear``.
"""

from __future__ import annotations

import hashlib
import string
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ossicle import audio
from ossicle.benchmark.packages import Packages
from ossicle.corpus import espeak, flite, wordlists
from ossicle.corpus.synthesis import SAMPLE_RATE, Job, Synthesiser, engine_command
from ossicle.corpus.wear import trimmed, worn
from ossicle.errors import DataError, OssicleError

Progress = Callable[[str], None]

COLUMNS = ("path", "label", "group", "package", "version", "licence")
# Language -> espeak-ng's voices of it: regions and manners of speaking.
ACCENTS: dict[str, tuple[str, ...]] = {language: (language,) for language in wordlists.LISTS}
ACCENTS["en"] = (
    *("en", "en-us", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd"),
    *("en-029", "en-us-nyc"),
)
ACCENTS |= {"fr": ("fr", "fr-be", "fr-ch"), "es": ("es", "es-419"), "pt": ("pt", "pt-br")}
# espeak-ng's variants of a voice, less those that sound like another one or unlike any speech.
VARIANTS = (
    *("m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5"),
    *("croak", "whisper", "whisperf", "klatt", "klatt3", "klatt4", "adam", "Alex", "Alicia"),
    *("Andrea", "Andy", "Annie", "anika", "announcer", "antonio", "aunty", "belinda", "benjamin"),
    *("boris", "caleb", "david", "Denis", "Diogo", "ed", "edward", "Gene", "grandma", "ian"),
    *("iven", "iven3", "Jacky", "john", "kaukovalta", "Lee", "linda", "marcelo", "Mario", "max"),
    *("michel", "Mike", "mike2", "Nguyen", "norbert", "pablo", "paul", "pedro", "quincy", "Reed"),
    *("RicishayMax", "robert", "robosoft", "robosoft4", "sandro", "shelby", "steph", "steph3"),
    *("Storm", "travis", "Tweaky", "UniRobot", "victor", "zac"),
)
DIGITS = tuple(string.digits)
# Words by facet beside digits and (in English) letters.
MANY_WORDS, FEW_WORDS = 120, 20
VOICES_A_WORD = 22
FLITE_TIMES = 2  # that a Flite voice says a word of English, at two speeds
FLITE_PHRASES = 600
SINGLES, PHRASES = 5000, 7000
SLOWEST, FASTEST = 110, 240  # words a minute
LEAST_S = 0.08
PROCESSES = 4  # of an engine: each speaks 100 words a second of a core, and waits much
_LIST_LENGTH = 1000
_MADE = "words 1"  # goes into every file's name; changed whenever files would differ


class Item(NamedTuple):
    """One file to be.

    Attributes:
        engine: "espeak" or "flite".
        voice: facet: the variant, or "flite-NAME".
        language: facet.
        word: facet without its language; "": none.
        job: what the engine is told.
    """

    engine: str
    voice: str
    language: str
    word: str
    job: Job

    def path(self, seed: int) -> str:
        """Its path in the folder, which no other content has."""
        told = "\n".join(map(str, (_MADE, seed, *self[:4], *self.job)))
        return f"{self.voice}/{self.language}-{hashlib.sha256(told.encode()).hexdigest()[:16]}.flac"


def write_words(
    folder: Path,
    packages: Packages | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    *,
    share: float = 1.0,
) -> pd.DataFrame:
    """Write the words as 16 kHz FLAC files; those that are there are kept.

    The engines and word lists are fetched into the cache once. The files depend on the seed alone.
    Where Flite cannot be had its voices are left out, which `progress` tells; where espeak-ng
    cannot, nothing is written. What an engine fails to say, or says in silence, is left out.

    Args:
        folder: where to; made where missing.
        packages: not needed; here as for other parts of the corpus.
        seed: of all that is drawn.
        progress: called with a line now and then.
        share: of the items, an even draw of them.

    Returns:
        COLUMNS, a row a file: path (absolute); label such as
        `word:en_house;voice:m3;language:en`; group `words-VOICE`; package, version and licence of
        the engine.

    Raises:
        OssicleError: another machine than Linux on x86_64, an engine that does not run, or a share
            that is not in (0, 1].
        DownloadError: espeak-ng or the word lists cannot be had.
        DataError: no file could be made.
    """
    if not 0 < share <= 1:
        raise OssicleError(f"the share of the words is in (0, 1], not {share:g}")
    say = progress or (lambda line: None)
    engines = {"espeak": engine_command("ossicle.corpus.espeak", espeak.fetch_espeak())}
    files = wordlists.fetch_word_lists()
    lists = {
        language: wordlists.frequent_words(path, language, _LIST_LENGTH)
        for language, path in files.items()
    }
    try:
        engines["flite"] = engine_command("ossicle.corpus.flite", flite.fetch_flite())
        _try_out(engines["flite"], Job("house", flite.VOICES[0]))
    except OssicleError as error:
        engines.pop("flite", None)
        say(f"Flite is left out: {error}")
    with Synthesiser(engines["espeak"], PROCESSES) as engine:
        named = facet_words(lists, engine)
    items = plan(lists, named, seed)
    items = items[:: max(1, round(1 / share))]
    return write_items(Path(folder).absolute(), items, engines, seed, say)


def _try_out(command: list[str], job: Job) -> None:
    with Synthesiser(command) as engine:
        for _ in engine.render([job]):
            pass


def facet_words(lists: Mapping[str, Sequence[str]], engine: Synthesiser) -> dict[str, list[str]]:
    """The words of each language that have a facet: digits, English letters, the most frequent.

    Of words that sound alike ("two", "to") the first is taken, as no network could tell them.

    Args:
        lists: language -> words, most frequent first.
        engine: speaks espeak-ng's voices.
    """
    named: dict[str, list[str]] = {}
    for language, words in lists.items():
        most = len(DIGITS) + FEW_WORDS
        candidates = list(DIGITS)
        if language == "en":
            candidates += string.ascii_lowercase
            most = len(candidates) + MANY_WORDS
        # Twice as many as needed: some sound like others.
        candidates += words[: 2 * most]
        heard = set()
        kept = named[language] = []
        spoken = engine.render(Job(text, ACCENTS[language][0]) for text in candidates)
        for text, samples in zip(candidates, spoken, strict=True):
            sound = None if samples is None else hashlib.sha256(samples.tobytes()).digest()
            if sound is not None and sound not in heard and len(kept) < most:
                kept.append(text)
                heard.add(sound)
    return named


def plan(
    lists: Mapping[str, Sequence[str]], named: Mapping[str, Sequence[str]], seed: int
) -> list[Item]:
    """What is said by whom: first espeak-ng's items, then Flite's.

    Args:
        lists: language -> words, most frequent first.
        named: language -> words with a facet; see ``facet_words``.
        seed: of the draws.
    """
    generator = np.random.default_rng([seed, 1])
    items = []
    for language, words in named.items():
        for word in words:
            for variant in generator.permutation(VARIANTS)[:VOICES_A_WORD]:
                items.append(_espeak_item(word, language, str(variant), word, generator))
    languages = [*lists, "en", "en"]  # English three times as often
    for number in range(SINGLES + PHRASES):
        language = languages[generator.integers(len(languages))]
        once = lists[language]
        count = 1 if number < SINGLES else int(generator.integers(2, 4))
        text = " ".join(once[i] for i in generator.integers(len(once), size=count))
        word = text if text in named[language] else ""
        items.append(_espeak_item(text, language, _drawn(VARIANTS, generator), word, generator))
    generator = np.random.default_rng([seed, 2])
    for word in named.get("en", ()):
        for voice in flite.VOICES * FLITE_TIMES:
            items.append(_flite_item(word, voice, word, generator))
    once = lists.get("en", ())
    for _ in range(FLITE_PHRASES if once else 0):
        count = int(generator.integers(1, 4))
        text = " ".join(once[i] for i in generator.integers(len(once), size=count))
        word = text if text in named["en"] else ""
        items.append(_flite_item(text, _drawn(flite.VOICES, generator), word, generator))
    return list(dict.fromkeys(items))


def _drawn(names: Sequence[str], generator: np.random.Generator) -> str:
    return names[int(generator.integers(len(names)))]


def _espeak_item(
    text: str, language: str, variant: str, word: str, generator: np.random.Generator
) -> Item:
    accent = _drawn(ACCENTS[language], generator)
    speed, (pitch, lift) = generator.integers(SLOWEST, FASTEST + 1), generator.integers(20, 81, 2)
    noise_seed = int(generator.integers(1, 2**31))
    job = Job(text, f"{accent}+{variant}", int(speed), int(pitch), int(lift), noise_seed)
    return Item("espeak", variant, language, word, job)


def _flite_item(text: str, voice: str, word: str, generator: np.random.Generator) -> Item:
    # 130 and up: slower, its recordings are stretched to a drawl.
    job = Job(text, voice, int(generator.integers(130, FASTEST + 1)))
    return Item("flite", f"flite-{voice}", "en", word, job)


def write_items(
    folder: Path,
    items: Sequence[Item],
    engines: Mapping[str, list[str]],
    seed: int,
    say: Progress,
) -> pd.DataFrame:
    """Write items and tell of them; the rows of ``write_words``.

    Args:
        folder: where to.
        items: what to write; those of an engine that is not in `engines` are left out.
        engines: engine -> the command that starts it.
        seed: of what wears the voices.
        say: called with a line now and then.

    Raises:
        OssicleError: an engine has ended.
        DataError: no file could be made.
    """
    named = {item.path(seed): item for item in items if item.engine in engines}
    lost: set[str] = set()
    for name, command in engines.items():
        missing = [
            path
            for path, item in named.items()
            if item.engine == name and not (folder / path).is_file()
        ]
        if not missing:
            continue
        with Synthesiser(command, PROCESSES) as engine:
            spoken = engine.render(named[path].job for path in missing)
            for done, (path, samples) in enumerate(zip(missing, spoken, strict=True), start=1):
                if not _save(folder / path, samples, path, seed):
                    lost.add(path)
                if done % 1000 == 0 or done == len(missing):
                    say(f"words: {done} of {len(missing)} by {name}, {len(lost)} left out")
    rows = [_row(item, folder / path) for path, item in named.items() if path not in lost]
    if not rows:
        raise DataError(f"{folder}: none of the words could be spoken")
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _save(target: Path, samples: np.ndarray | None, path: str, seed: int) -> bool:
    if samples is None or np.abs(samples).max() < 1e-3:
        return False
    voice = trimmed(samples, SAMPLE_RATE)
    if len(voice) < LEAST_S * SAMPLE_RATE:
        return False
    own = int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "big")
    target.parent.mkdir(parents=True, exist_ok=True)
    sound = worn(voice, SAMPLE_RATE, np.random.default_rng([seed, own]))
    audio.save(target, audio.Audio(sound, SAMPLE_RATE))
    return True


def _row(item: Item, path: Path) -> dict[str, str]:
    facets = [f"voice:{item.voice}", f"language:{item.language}"]
    if item.word:
        facets.insert(0, f"word:{item.language}_{item.word}")
    source = espeak if item.engine == "espeak" else flite
    return {
        "path": str(path),
        "label": ";".join(facets),
        "group": f"words-{item.voice}",
        "package": source.NAME,
        "version": source.VERSION,
        "licence": f"{source.LICENCE}; {wordlists.LICENCE}",
    }
