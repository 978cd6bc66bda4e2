"""Speech of many speakers out of Debian packages: `speakers(folder)` gives a clips table.

A person has one name in all packages they speak in; where a package tells languages alone, all
voices of a language are one group. Nothing is installed or run; what each package allows is in its
own copyright file. fsdd and speech_commands_6 of the measuring data come beside, where they are.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pandas as pd

from ossicle.benchmark.open_suite.telephone import VOICES, playable, prompts
from ossicle.benchmark.packages import Packages

SHARED = Path(os.environ.get("OSSICLE_SHARED", "../shared")).resolve()
# Package -> (regular expression on the path below it, how its groups are called).
SPOKEN = {
    "festvox-ru": (r"/wav/[^/]+\.wav$", "festvox-ru"),
    "fillets-ng-data-cs": (r"/cs/[^/]*-(m|v)-[^/]*\.ogg$", "fillets-cs-{0}"),
    "fillets-ng-data-nl": (r"/nl/[^/]*-(m|v)-[^/]*\.ogg$", "fillets-nl-{0}"),
    "tuxpaint-stamps-default": (r"_desc_(fr|ro|ru|ca|bg|es|be|el|da)\.ogg$", "tuxpaint-{0}"),
    "hedgewars-data": (r"/Sounds/voices/([^/]+)/[^/]+\.ogg$", "hedgewars-{0}"),
    "ktuberling-data": (r"/sounds/([A-Za-z_]+)/[^/]+\.(?:ogg|wav)$", "kde-{0}"),
    "klettres-data": (r"/klettres/([A-Za-z_]+)/(?:alpha|syllab)/[^/]+\.ogg$", "kde-{0}"),
    "kajongg": (r"/voices/((?:de/)?(?:fe)?male\d)/[^/]+\.ogg$", "kajongg-{0}"),
    "gcin-voice": (r"/ogg/[^/]+/(\d)\.ogg$", "gcin-{0}"),
}
# One setting for all folds: every speaker of the telephone prompts, 8 kHz, is one group.
LEAST_CLIPS = 15


def speakers(folder: Path) -> pd.DataFrame:
    """path, label and group (the speaker), for `ossicle.read_clips`.

    Args:
        folder: gets packages/ and audio/; several GB.
    """
    packages = Packages(folder / "packages", progress=print)
    rows = []
    for voice in VOICES:
        for name, path in prompts(packages, voice).items():
            sound = playable(path, name, voice, folder / "audio" / "speakers")
            rows.append((str(sound), f"asterisk-{voice.speaker}"))
    for package, (pattern, group) in SPOKEN.items():
        for path in packages.audio(package):
            if found := re.search(pattern, path.as_posix()):
                name = group.format(*found.groups()).replace("/", "-").lower()
                rows.append((str(path), name))
    rows += _measuring()
    table = pd.DataFrame(rows, columns=["path", "group"])
    counts = table["group"].value_counts()
    table = table[table["group"].map(counts) >= LEAST_CLIPS]
    return table.assign(label="speech").reset_index(drop=True)


def _measuring() -> list[tuple[str, str]]:
    rows = []
    for path in sorted((SHARED / "data" / "fsdd").rglob("*.flac")):
        rows.append((str(path), f"fsdd-{path.stem.split('_')[1]}"))
    return rows
