"""Real audio out of Debian packages: `python bench/open_audio.py FOLDER` writes FOLDER/clips.csv.

Needs apt-get and dpkg-deb (Debian bookworm) and about 10 GB. Packages are opened as archives for
their audio; nothing of them is installed or run. Speech in many languages, effects, instruments
and music of games, most of it GPL-2+ or Creative Commons: each package's own copyright file says.
None of the sets that ossicle is measured on is among them.
"""

from __future__ import annotations

import argparse
import csv
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
    with (
        replaced(folder / "clips.csv") as part,
        part.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(("path", "label"))
        writer.writerows(rows)
    print(f"{len(rows)} files: {folder / 'clips.csv'}")


if __name__ == "__main__":
    main()
