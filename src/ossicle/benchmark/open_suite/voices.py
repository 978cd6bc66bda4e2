"""Who speaks, and how: the tone of a syllable, the speaker, a high or a low voice."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ossicle.benchmark.open_suite import telephone
from ossicle.benchmark.open_suite.drawing import Row, draw, kept_once, long_enough, table
from ossicle.benchmark.packages import Packages
from ossicle.benchmark.recipe import Progress, Recipe

LONGEST_S = 3.0  # of speech in a clip
SHORTEST_S = 1.0  # for telling who speaks
SHORTEST_WORD_S = 0.4  # where there are single words only

# Bopomofo letters that are no syllable without a vowel; their folders hold the letters' names.
LETTERS = frozenset("ㄅㄆㄇㄈㄉㄊㄋㄌㄍㄎㄏㄐㄑㄒ")
CLIPS_A_TONE = 150  # a speaker

# Small and big fish, by the letter in the file name.
FISH = {"m": "small", "v": "big"}
FISH_PACKAGES = {"cs": "fillets-ng-data-cs", "nl": "fillets-ng-data-nl"}
CLIPS_A_FOLD = 30  # a speaker
CLIPS_A_VOICE = 80  # in "voice_sex"
CLIPS_A_PLAYER = 20
KAJONGG = ("female1", "female2", "male1", "male2")


def _tone(packages: Packages, folder: Path, progress: Progress | None) -> pd.DataFrame:
    spoken: dict[tuple[str, str], dict[str, Path]] = {}
    for path in packages.audio("gcin-voice"):
        syllable, tone = path.parent.name, "1"
        # No digit is the first tone; the digit 1 marks the neutral one, of thirteen particles.
        if syllable[-1].isascii():
            syllable, tone = syllable[:-1], syllable[-1]
            if tone not in "234":
                continue
        if syllable not in LETTERS and path.stem in ("3", "5"):
            spoken.setdefault((tone, syllable), {})[path.stem] = path
    rows: list[Row] = []
    for tone in "1234":
        # The same syllables by both, so that the speakers differ in nothing else.
        both = sorted(s for (t, s), takes in spoken.items() if t == tone and len(takes) == 2)
        for syllable in draw(both, CLIPS_A_TONE, f"tone {tone}"):
            for speaker, path in sorted(spoken[tone, syllable].items()):
                rows.append(
                    {
                        "path": path,
                        "label": f"tone {tone}",
                        "group": f"speaker {speaker}/{syllable}",
                        "fold": f"speaker {speaker}",
                    }
                )
    return table(kept_once(rows), "tone")


def fish_lines(packages: Packages, language: str) -> dict[str, dict[str, list[Path]]]:
    """What the two fishes say: "m" or "v" -> level -> files.

    Args:
        packages: where Fish Fillets is taken from.
        language: "cs" or "nl".
    """
    lines: dict[str, dict[str, list[Path]]] = {fish: {} for fish in FISH}
    for path in packages.audio(FISH_PACKAGES[language]):
        parts = path.stem.split("-")
        if path.parent.name == language and len(parts) > 2 and parts[1] in FISH:
            lines[parts[1]].setdefault(path.parent.parent.name, []).append(path)
    return lines


def _speaker(packages: Packages, folder: Path, progress: Progress | None) -> pd.DataFrame:
    rows: list[Row] = []
    for language in FISH_PACKAGES:
        lines = fish_lines(packages, language)
        levels = sorted({level for by_level in lines.values() for level in by_level})
        for fish, by_level in lines.items():
            speaker = f"{FISH[fish]} fish, {language}"
            for part in (0, 1):
                paths = [p for level in levels[part::2] for p in by_level.get(level, [])]
                level_of = {p: level for level in levels for p in by_level.get(level, [])}
                for path in long_enough(paths, CLIPS_A_FOLD, SHORTEST_S, f"speaker {speaker}"):
                    # Both fishes of a level: they were recorded for the same scene.
                    group = f"{language}/{level_of[path]}"
                    rows.append(_row(path, speaker, group, f"half {part + 1}"))
    for voice in telephone.VOICES:
        names = telephone.prompts(packages, voice)
        if progress is not None:
            progress(f"speaker: {voice.speaker} in {voice.language}")
        for part, mailbox in enumerate((True, False)):
            # One half is about the mailbox, the other about everything else; who speaks two
            # languages is learnt in the one and tested in the other.
            if voice.speaker == "Allison" and (voice.language == "en") != mailbox:
                continue
            wanted = {n for n in names if n.startswith("vm-") == mailbox}
            said = {telephone.playable(names[n], n, voice, folder): n for n in sorted(wanted)}
            seed = f"speaker {voice.package}"
            for path in long_enough(list(said), CLIPS_A_FOLD, SHORTEST_S, seed):
                group = f"{voice.package}/{said[path]}"
                rows.append(_row(path, voice.speaker, group, f"half {part + 1}"))
    return table(kept_once(rows), "speaker")


def _voice_sex(packages: Packages, folder: Path, progress: Progress | None) -> pd.DataFrame:
    rows: list[Row] = []
    for language, package in FISH_PACKAGES.items():
        for fish, by_level in fish_lines(packages, language).items():
            level_of = {path: level for level, paths in by_level.items() for path in paths}
            sex = "female" if fish == "m" else "male"
            seed = f"voice_sex {language} {fish}"
            for path in long_enough(list(level_of), CLIPS_A_VOICE, SHORTEST_S, seed):
                rows.append(_row(path, sex, f"{language}/{level_of[path]}", package))
    players: dict[tuple[str, str], list[Path]] = {}
    for path in packages.audio("kajongg"):
        if path.parent.name in KAJONGG:
            players.setdefault((path.parent.parent.name, path.parent.name), []).append(path)
    for (parent, player), paths in sorted(players.items()):
        seed = f"voice_sex {parent} {player}"
        for path in long_enough(paths, CLIPS_A_PLAYER, SHORTEST_WORD_S, seed):
            group = f"kajongg/{parent}/{player}"
            rows.append(_row(path, player.rstrip("12"), group, "kajongg"))
    return table(kept_once(rows), "voice_sex")


def _row(path: Path, label: str, group: str, fold: str) -> Row:
    where = {"onset": 0.0, "offset": LONGEST_S}
    return {"path": path, "label": label, "group": group, "fold": fold, **where}


VOICES = (
    Recipe(
        name="tone",
        domain="speech",
        title="the four tones of Mandarin syllables, unseen speaker",
        packages=("gcin-voice",),
        licence="GPL-3 or LGPL-3 (speaker 3); CC-BY-3 (speaker 5)",
        caveat=(
            "two speakers, each tested by a probe that heard the other alone: the interval is over "
            "syllables and says nothing of further speakers; length and loudness go with the tone"
        ),
        build=_tone,
        source="Debian's gcin-voice: the folder is the syllable with its tone",
    ),
    Recipe(
        name="speaker",
        domain="speech",
        title="eleven speakers, other material; one of them in another language",
        packages=(*FISH_PACKAGES.values(), *telephone.PACKAGES),
        licence=f"GPL-2 (fillets-ng); {telephone.LICENCE}",
        caveat=(
            "most speakers are one recording set-up each (sampling rate, GSM coding, room), which "
            "tells them apart as well as the voice does: statistics of mel bands are right on nine "
            "clips of ten, but on four of ten by Allison, who alone is tested in another language "
            "than she is learnt in; only the two fishes of a language share their set-up"
        ),
        build=_speaker,
        source="file names of Fish Fillets (levels apart) and of Asterisk's prompts (topics apart)",
    ),
    Recipe(
        name="voice_sex",
        domain="speech",
        title="female or male voice, unseen speakers and packages",
        packages=(*FISH_PACKAGES.values(), "kajongg"),
        licence="GPL-2 (fillets-ng); GPL-2+ (kajongg)",
        caveat=(
            "twelve voices, labelled by what the packages call them: in kajongg male1 is hardly "
            "lower than female1; the fishes are acted, two a language, and share a set-up; the "
            "interval is over levels and voices, not over voices alone"
        ),
        build=_voice_sex,
        source="small (female) and big (male) fish of Fish Fillets; kajongg's folders",
    ),
)
