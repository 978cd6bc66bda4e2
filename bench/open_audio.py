"""Real audio out of Debian packages: `python bench/open_audio.py FOLDER` writes two tables there.

clips.csv has all files, tags.csv those whose names say what they are (`path,label,group`, several
tags with ";"), with the folder as group.

Needs apt-get and dpkg-deb (Debian bookworm) and about 10 GB. Packages are opened as archives for
their audio; nothing of them is installed or run. Speech in many languages, effects, instruments
and music of games, most of it GPL-2+ or Creative Commons: each package's own copyright file says.
None of the sets that ossicle is measured on is among them.
"""

from __future__ import annotations

import argparse
import csv
import re
import subprocess
import sys
import zipfile
from pathlib import Path

from ossicle.audio import is_audio
from ossicle.record import replaced

# Of Debian bookworm.
PACKAGES = (
    "0ad-data",
    "ardentryst",
    "asterisk-core-sounds-en-wav",
    "asterisk-core-sounds-it-wav",
    "asterisk-core-sounds-ru-wav",
    "btanks-data",
    "drascula-music",
    "enigma-data",
    "etw-data",
    "festvox-ru",
    "fillets-ng-data-cs",
    "fillets-ng-data-nl",
    "freedink-data",
    "gcin-voice",
    "hedgewars-data",
    "hydrogen-drumkits",
    "hyperrogue-music",
    "kajongg",
    "klettres-data",
    "ktuberling-data",
    "lincity-ng-data",
    "lmms-common",
    "lugaru-data",
    "megaglest-data",
    "minetest-data",
    "nexuiz-data",
    "planetblupi-common",
    "plee-the-bear-data",
    "qabcs-data",
    "scorched3d-data",
    "scratch",
    "searchandrescue-data",
    "singularity-music",
    "sonic-pi-samples",
    "tuxpaint-stamps-default",
    "warzone2100-data",
    "wesnoth-1.16-data",
    "widelands-data",
)
# Tag -> what the path, from the package's name on, looks like in lower case.
TAGS = {
    "animal": r"animal|horse|dog|cow|bull|sheep|goat|pig|chicken|frog|wolf|lion|elephant|cat[_./]",
    "arrow": r"arrow|bow_",
    "attack": r"attack|swordhit|weapon",
    "be": r"_be\.ogg|qabcs.*/be/",
    "bell": r"bell|chime",
    "bg": r"_bg\.ogg",
    "bird": r"bird|eagle|crow|duck|parrot|owl",
    "building": r"build|construct|con_wood",
    "ca": r"_ca\.ogg|/ca/",
    "click": r"click|button|select|menu",
    "command": r"_ack|ack[0-9]|coms/|/order",
    "cymbal": r"crash|ride|cymbal|splash_|china",
    "cs": r"fillets-ng-data-cs|/cs/",
    "de": r"/de/",
    "death": r"death|die[_0-9.]",
    "digit": r"digits/|symbols/math/[0-9]",
    "door": r"door|gate",
    "drum": r"hydrogen|drum|snare|kick|hihat|_bd|_sn",
    "el": r"_el\.ogg",
    "en": r"-en-wav|/en(_gb)?/|_en\.ogg",
    "es": r"_es\.ogg|/es/",
    "explosion": r"explo|bomb|boom",
    "female": r"-m-|female|woman|_f_",
    "fire": r"fire|burn|flame",
    "footstep": r"footstep|walk|step",
    "fr": r"_fr\.ogg|/fr/",
    "gunshot": r"gun|shot|rifle|cannon",
    "hihat": r"hihat|hi-hat|hh_|hat[_ ]",
    "hit": r"hit|impact|punch",
    "it": r"-it-wav|/it/",
    "kick": r"kick|_bd",
    "letter": r"letters/|alpha|syllab",
    "machine": r"engine|motor|vehicle|tank|plane|helicopter|train",
    "male": r"-v-|[^e]male|_m_",
    "metal": r"metal|sword|steel|shield",
    "music": r"music|soundtrack|/track|theme",
    "nl": r"fillets-ng-data-nl|/nl/",
    "pain": r"[_/]pain|hurt|scream",
    "pt": r"/pt|_pt",
    "ro": r"_ro\.ogg",
    "ru": r"_ru\.ogg|-ru-wav|festvox-ru|/ru/",
    "snare": r"snare|_sn_|sn_",
    "speech": r"fillets|festvox|asterisk|voice|klettres|tuxpaint.*_desc|gcin|kajongg|ktuberling",
    "stone": r"stone|rock|mine_",
    "tom": r"tom[_ 0-9]",
    "tone": r"gcin",
    "uk": r"_uk\.ogg|/uk/",
    "water": r"water|splash|sea|rain|river",
    "wood": r"wood|lumber|tree|chop",
    "word": r"words/|ktuberling|kajongg",
}
ARCHIVES = (".pk3", ".wz", ".zip")


def fetch(package: str, folder: Path) -> Path:
    """The unpacked package; what is there already is not fetched again."""
    target = folder / package
    if not target.is_dir():
        debs = folder / "deb"
        debs.mkdir(parents=True, exist_ok=True)
        if not list(debs.glob(f"{package}_*.deb")):
            subprocess.run(["apt-get", "download", package], cwd=debs, check=True)
        (deb,) = debs.glob(f"{package}_*.deb")
        part = folder / f".{package}.part"
        subprocess.run(["dpkg-deb", "-x", str(deb), str(part)], check=True)
        part.rename(target)
    for archive in [p for p in target.rglob("*") if p.suffix in ARCHIVES and p.is_file()]:
        inside = archive.with_name(f"{archive.name}.unpacked")
        if not inside.exists() and zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:  # extract() keeps members below the folder
                for member in file.namelist():
                    if is_audio(member):
                        file.extract(member, inside)
    return target


def main() -> None:
    """Fetch all packages and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for package in PACKAGES:
        found = [p for p in fetch(package, folder).rglob("*") if p.is_file() and is_audio(p)]
        print(f"{package}: {len(found)} files", file=sys.stderr)
        rows += [(str(p.relative_to(folder)), package) for p in sorted(found)]
    tagged = []
    for path, package in rows:
        text = re.sub(r"/usr/(share|lib)/(games/)?", "/", path.lower())
        tags = [tag for tag, pattern in TAGS.items() if re.search(pattern, text)]
        if tags:
            tagged.append((path, ";".join(tags), f"{package}/{Path(path).parent.name}"))
    write(folder / "clips.csv", ("path", "label"), rows)
    write(folder / "tags.csv", ("path", "label", "group"), tagged)
    print(f"{len(rows)} files: {folder / 'clips.csv'}; with tags {len(tagged)}")


def write(path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """A table, whole or not at all."""
    with (
        replaced(path) as part,
        part.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


if __name__ == "__main__":
    main()
