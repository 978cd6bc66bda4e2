"""What instruments play, written into files with their labels; a plan written before is found.

The instruments are those of two packages that the open suite has none of: `opl3-soundfont`
(synthesised, by frequency modulation) and `freepats` (recorded, patches of a sound card).
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ossicle.audio import Audio, save
from ossicle.benchmark.open_suite.render import SAMPLE_RATE, Row, SoundFont, player
from ossicle.benchmark.packages import Packages
from ossicle.corpus.patch_font import KIT, read_instruments, write_font
from ossicle.errors import DataError
from ossicle.record import replaced

COLUMNS = ("path", "label", "group", "package", "version", "licence")
OPL3, FREEPATS = "opl3-soundfont", "freepats"
# Where the table of packages does not say it: as their copyright files have it.
_LICENCES = {
    FREEPATS: "GPL, with an exception for compositions",
    "openttd-openmsx": "GPL-2",
    "simutrans-data": "Artistic-1.0",
}
# Programs of freepats of which `ossicle data corpus` found notes among those of the SoundFonts that
# the open suite's tasks are played with: one recording went into both.
SHARED = (26, 27, 44, 46, 79, 84)
_INDEX = "played.json"
# Of full scale, before the level is drawn; a note in full is about 0.3.
_SILENT = 2e-3
_END_S = 0.01  # faded, or it would click where it is cut
_EACH = 500
_LOWEST_HZ = 20.0
_CENTS = np.arange(-100.0, 101.0, 10.0)
_OFF_CENTS = 40  # how far from its key a tone may lie
_PERIODIC, _LESS, _MORE = 0.9, 0.9, 0.04
_WEAK = 1e-6  # of the strongest bin: what is below takes time and tells nothing


class Source(NamedTuple):
    """What a package is.

    Attributes:
        package: its name.
        version: of Debian.
        sha256: of the .deb.
        licence: of its audio or music.
    """

    package: str
    version: str
    sha256: str
    licence: str


def source(packages: Packages, package: str) -> Source:
    """A package, fetched where it is not there.

    Raises:
        DownloadError: as ``Packages.files``.
    """
    about = packages.about(package)
    licence = about["licence"] or _LICENCES.get(package, "")
    return Source(package, about["version"], about["sha256"], licence)


def fonts(packages: Packages) -> dict[str, SoundFont]:
    """The two sets of instruments, by package.

    Raises:
        DownloadError: as ``Packages.files``.
        OssicleError: tinysoundfont is not installed.
        DataError: a package has no instruments.
    """
    found = sorted(packages.files(OPL3).rglob("*.sf2"))
    if not found:
        raise DataError(f"{packages.files(OPL3)}: holds no SoundFont; remove the folder")
    with tempfile.TemporaryDirectory(prefix="ossicle-") as folder:
        patches = Path(folder) / f"{FREEPATS}.sf2"
        found_there = read_instruments(packages.files(FREEPATS))
        own = [item for item in found_there if item.bank == KIT or item.program not in SHARED]
        write_font(patches, own)
        return {OPL3: SoundFont(found[0]), FREEPATS: SoundFont(patches)}


def write_played(
    folder: Path,
    plan: Sequence[Row],
    sources: Sequence[Source],
    played: Callable[[Row], np.ndarray],
    label: Callable[[Row, np.ndarray], str],
    progress: Callable[[str], None] | None = None,
) -> pd.DataFrame:
    """Plays a plan into FLAC files of 16 kHz, mono. What is silent is left out.

    Args:
        folder: for the files; made where missing. What the same plan left there is kept.
        plan: a row a sound, ready for JSON: path (file name), group, package, version, licence,
            level_db (of its peak, relative to full scale), and what the callables read.
        sources: what the sounds depend on.
        played: row -> (N,) at 16 kHz.
        label: (row, what it sounds) -> its facets.
        progress: called with a line from time to time.

    Returns:
        Columns `COLUMNS`; path is relative to the folder.

    Raises:
        AudioError: a file cannot be written.
    """
    folder = Path(folder)
    heard = [_SILENT, _OFF_CENTS, _PERIODIC, _LESS, _MORE, list(SHARED)]
    told = json.dumps([list(plan), list(sources), player(), heard], sort_keys=True)
    key = hashlib.sha256(told.encode()).hexdigest()
    rows = _found(folder, key)
    if rows is None:
        folder.mkdir(parents=True, exist_ok=True)
        # Stopped half-way, the folder must not pass for what it was.
        (folder / _INDEX).unlink(missing_ok=True)
        rows = []
        for number, row in enumerate(plan):
            if progress and number % _EACH == 0:
                progress(f"playing {number} of {len(plan)} sounds into {folder.name}")
            samples = played(row)
            peak = float(np.abs(samples).max(initial=0.0))
            if peak < _SILENT:
                continue
            samples = _faded(samples * np.float32(10 ** (row["level_db"] / 20) / peak))
            save(folder / row["path"], Audio(samples[None], SAMPLE_RATE))
            rows.append({**{name: row.get(name) for name in COLUMNS}, "label": label(row, samples)})
        with replaced(folder / _INDEX) as part:
            part.write_text(json.dumps({"key": key, "rows": rows}) + "\n", encoding="utf-8")
    return pd.DataFrame(rows, columns=list(COLUMNS))


def told_by(*sources: Source) -> Mapping[str, str]:
    """The manifest's package, version and licence of a sound: its first source's, licences of all.

    Several are told as ``Artistic-1.0 (simutrans-data); CC-BY-SA-4.0 (opl3-soundfont)``.
    """
    first = sources[0]
    licences = [f"{item.licence} ({item.package})" for item in sources]
    licence = first.licence if len(sources) == 1 else "; ".join(licences)
    return {"package": first.package, "version": first.version, "licence": licence}


def has_pitch(samples: np.ndarray, key: int) -> bool:
    """Whether a sound repeats with the period of a key, and neither faster nor slower only.

    By its autocorrelation, which is taken from the power spectrum P (Wiener-Khinchin):
    r(t) = sum P(f) cos(2 pi f t) / sum P(f), at periods that no whole sample has.

    Args:
        samples: (N,) at 16 kHz.
        key: MIDI number, 60 for middle C.
    """
    size = 2 * len(samples)
    power = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), size)) ** 2
    hertz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    power[hertz < _LOWEST_HZ] = 0.0
    wanted = 440.0 * 2 ** ((key - 69) / 12)
    if power.max() <= 0:
        return False
    strong = power > _WEAK * power.max()
    power, hertz = power[strong] / power[strong].sum(), hertz[strong]

    def repeats(times: float) -> np.ndarray:
        periods = times / (wanted * 2 ** (_CENTS / 1200))
        found: np.ndarray = np.cos(2 * np.pi * periods[:, None] * hertz) @ power
        return found

    once = repeats(1)
    best = float(once.max())
    if best < _PERIODIC or abs(_CENTS[once.argmax()]) > _OFF_CENTS:
        return False
    near = abs(_CENTS) <= _OFF_CENTS
    faster = max(float(repeats(part)[near].max()) for part in (1 / 2, 1 / 3))
    return faster < _LESS * best and float(repeats(2)[near].max()) < best + _MORE


def _faded(samples: np.ndarray) -> np.ndarray:
    many = min(round(_END_S * SAMPLE_RATE), len(samples))
    samples[len(samples) - many :] *= np.linspace(1, 0, many, dtype=np.float32)
    return samples


def _found(folder: Path, key: str) -> list[dict[str, Any]] | None:
    try:
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        rows: list[dict[str, Any]] = index["rows"]
        same = index["key"] == key and all((folder / row["path"]).is_file() for row in rows)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return rows if same else None
