"""Sound effects of games and desktops, by what their files are called: events, and animals.

A file counts where words of its name are of exactly one class. What is called "fire" is mostly a
weapon, "rock" a song, "walk" a talk: names known to mean something else, and folders of music and
of speech, are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

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

LONGEST_S = 5.0

# Class -> what a whole word of a name is.
EVENTS: Mapping[str, str] = {
    "alarm": r"alarma?|alarmsound|sirens?|klaxon|claxon",
    "applause": r"applause|applose|cheer(s|ing|ingloop)?|crowd|croud",
    "beep": r"bl?eeps?|blip",
    "bell": r"bells?|chimes?|chimein|chimeout|gong|doorbell",
    "bird": r"birds?|crow|owl|eagle|hawk|(sea)?gulls?|ducks?|rooster|chick(en)?|hen|quack"
    r"|goose|raven|canary|grouse",
    "click": r"(key|mouse|menu)?click(ed|s)?|button|buttonpress",
    "dog": r"dogs?|bark|wolf|wolves|doggrowl|howl|woof",
    "door": r"doors?|gate|opengate|closegate|trapdoor",
    "engine": r"engine|motor|motorcycle|truck|bus|helicopter|jet|diesel|(air)?plane|planelow"
    r"|propeller|bulldozer|tractor",
    "explosion": r"expl|explo|explos|explot|explode|explosions?|boo+m|kaboom",
    "footstep": r"(foot)?steps?|foot|walk",
    "gunshot": r"guns?|machineguns?|shotgun|minigun|mgun|gunfire|gunshot|(auto)?cannons?|pistol"
    r"|rifle|colt|muskets",
    "laser": r"lasers?|lasershot|phaser|blaster",
    "metal": r"metal|metalbang|swords?|swordh|swordl|clang|clank|clink|anvil|knife",
    "pain": r"pain[ab]?|ouch|scream(s|ing)?|hurt|ow|ugh",
    "stone": r"stones?|stonebang|rocks?|boulder|gravel",
    "water": r"water|waterdrop|splash|drip|bubbles?|waves|waterfall|river|gurgle|ripples",
    "weather": r"thunder|lightning|(real)?rain|wind|storm",
    "whoosh": r"wh?oo+sh|swoosh|swish|whip|whiff",
}

ANIMALS: Mapping[str, str] = {
    "bird": r"birds?|crow|owl|eagle|hawk|(sea)?gulls?|blackbird|lark|canary|quail|sparrow|grouse"
    r"|vulture|tucan|quetzal",
    "cat": r"cat|kitten|meow|lion|tiger|jaguar",
    "cow": r"cow|bull|ox|moo|bison|calf",
    "dog": r"dogs?|bark|wolf|wolves|doggrowl|howl|woof|puppy|fox|coyote",
    "fowl": r"chick|chicken|hen|rooster|turkey|ducks?|quack|goose|gander",
    "frog": r"frogs?|toad",
    "horse": r"horse|foal|neigh|donkey|zebra",
    "insect": r"bee|mosquito|hornet|grasshopper|crickets?|cicada|wasp",
    "pig": r"pig|boar|piglet",
    "sheep": r"sheep|goat|mountaingoat|ram|lamb",
}

# In package/folders/name, lower case: what the words of a name do not tell.
_NOT_HERE = re.compile(
    # music, jingles, and speech: "_desc" names a picture in a language
    r"/(music|soundtrack|songs?|speech|voices?|words|alpha|symbols)/|_desc|song|jingle|happy_bell"
    r"|chimegliss|eagle_has_landed|say-beep|drum-beep|piano-beep"
    # whole battles
    r"|battle_(land|air|sea)|crashing"
    # other things of that name
    r"|windmill|technology_failure|screech|paper_airplane|sci_fi_gun|flak_gun|menuboom|powerup"
    r"|flower_|door_pass|walking-|orb-|canter|gallop|rocking_horse|sea[-_]?lion|gummy"
)
_EVENT_PACKAGES = (
    "acm",
    "afterstep-data",
    "alienblaster-data",
    "amphetamine-data",
    "ardentryst",
    "bambam",
    "barrage",
    "brainparty-data",
    "btanks-data",
    "budgie-control-center-data",
    "bzflag-data",
    "caveexpress-data",
    "ceferino-data",
    "circuslinux-data",
    "coccinella",
    "crossfire-client",
    "dclock",
    "dopewars-data",
    "dustracing2d-data",
    "enemylines3",
    "epiphany-data",
    "etw-data",
    "evolution-common",
    "excellent-bifurcation",
    "flobopuyo",
    "freefilesync",
    "garden-of-coloured-lights-data",
    "geki2",
    "gl-117-data",
    "gnome-shell-pomodoro-data",
    "heroes-sound-effects",
    "hex-a-hop-data",
    "hyperrogue-music",
    "komi",
    "laby",
    "lincity-ng-data",
    "lmarbles",
    "lugaru-data",
    "mazeofgalious-data",
    "micropolis-data",
    "minetest-data",
    "minetest-mod-homedecor",
    "minetest-mod-lucky-block",
    "mirrormagic-data",
    "monsterz-data",
    "moon-lander-data",
    "netpanzer-data",
    "orage-data",
    "osmo",
    "overgod-data",
    "pachi-data",
    "pekka-kana-2-data",
    "powermanga-data",
    "qabcs-data",
    "rrootage-data",
    "scorched3d-data",
    "scratch",
    "searchandrescue-data",
    "solarwolf",
    "sound-theme-freedesktop",
    "triplea",
    "trophy-data",
    "tuxmath-data",
    "tuxpaint-data",
    "tuxpaint-plugins-default",
    "unihedron-device-manager",
    "val-and-rick-data",
    "whichwayisup",
    "wing-data",
    "wordwarvi-sound",
    "wx3.2-examples",
    "xboard",
    "xemacs21-basesupport",
)
_ANIMAL_PACKAGES = (
    "brainparty-data",
    "btanks-data",
    "budgie-control-center-data",
    "etw-data",
    "gnome-shell-pomodoro-data",
    "gnustep-gui-common",
    "hyperrogue-music",
    "icebreaker",
    "lugaru-data",
    "megaglest-data",
    "micropolis-data",
    "minetest-mod-unified-inventory",
    "open-invaders-data",
    "pekka-kana-2-data",
    "qabcs-data",
    "scorched3d-data",
    "scratch",
    "simutrans-pak64",
    "sound-icons",
    "trophy-data",
    "tuxpaint-stamps-default",
    "wesnoth-1.16-data",
    "wx3.2-examples",
    "xemacs21-basesupport",
)


def kind(name: str, classes: Mapping[str, str]) -> str | None:
    """The class that words of a file's name are of; None where it is none, or several.

    Args:
        name: package/folders/file.
        classes: class -> pattern of a whole word, lower case.
    """
    if _NOT_HERE.search(name.lower()):
        return None
    found = {
        label
        for word in words(Path(name).name)
        for label, pattern in classes.items()
        if re.fullmatch(pattern, word)
    }
    return found.pop() if len(found) == 1 else None


def named(packages: Packages, names: tuple[str, ...], classes: Mapping[str, str]) -> Iterator[Clip]:
    """Clips of the packages whose name is of one class; of ``a.au`` and ``a.wav``, the first.

    Raises:
        DownloadError: as in ``Packages.files``.
    """
    for package in names:
        root = packages.files(package)
        seen: set[Path] = set()
        for path in packages.audio(package):
            label = kind(f"{package}/{path.relative_to(root).as_posix()}", classes)
            if label is not None and path.with_suffix("") not in seen:
                seen.add(path.with_suffix(""))
                yield Clip(path, label, package)


def _build_events(packages: Packages, folder: Path, progress: Progress | None) -> pd.DataFrame:
    clips = at_most(without_repeats(named(packages, _EVENT_PACKAGES, EVENTS)), 12)
    clips = without_copies(clips, progress=progress)
    return in_folds(clips, 5, longest_s=LONGEST_S, progress=progress)


def _build_animals(packages: Packages, folder: Path, progress: Progress | None) -> pd.DataFrame:
    # One cow in two packages would make one source of what are half the clips.
    clips = without_repeats(named(packages, _ANIMAL_PACKAGES, ANIMALS), join=False)
    clips = without_copies(at_most(clips, 12), join=False, progress=progress)
    return in_folds(clips, 4, longest_s=LONGEST_S, progress=progress)


_LICENCE = "each package's own, as its copyright file has it: most GPL-2+, CC0, CC-BY or CC-BY-SA"

EFFECTS = (
    Recipe(
        name="sound_events",
        domain="environment",
        title="what happens in a game or on a desktop, 19 sounds",
        packages=_EVENT_PACKAGES,
        licence=_LICENCE,
        caveat="labels are the files' names, read, not listened to: alarm, beep, click, "
        "laser and some explosions are synthetic, door, stone, dog and pain are in a few games "
        "what a game makes of them; one sound in two packages is found and kept once, but two "
        "parts of one recording are not; rate, coding and length go with the package",
        build=_build_events,
        source="names of files; folds by package",
    ),
    Recipe(
        name="animals",
        domain="environment",
        title="ten kinds of animals by their calls",
        packages=_ANIMAL_PACKAGES,
        licence=_LICENCE,
        caveat="a small set, intervals are wide; farm animals are mostly from one game, so that "
        "its fold is learnt from few of them; some are imitated or play a part (attacked, dying); "
        "rate, coding and length go with the package",
        build=_build_animals,
        source="names of files; folds by package",
    ),
)
