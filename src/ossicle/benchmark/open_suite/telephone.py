"""The telephone prompts of Asterisk: the same sentences by several people in several languages.

Prompts have the same names in all packages: ``digits/7``, ``vm-goodbye``. 8 kHz; two of the
packages hold raw GSM 06.10, a coding without a header, which is written out as WAV.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import soundfile

from ossicle.audio import Audio, save
from ossicle.benchmark.packages import Packages
from ossicle.errors import DataError

RATE = 8_000  # Hz


class Voice(NamedTuple):
    """Who reads the prompts of a package.

    Attributes:
        speaker: by name; one person may have read several packages.
        language: two letters.
        package: Debian's name.
        folder: below the package's folder ``sounds``.
    """

    speaker: str
    language: str
    package: str
    folder: str


VOICES = (
    Voice("Allison", "en", "asterisk-core-sounds-en-wav", "en_US_f_Allison"),
    Voice("Allison", "es", "asterisk-core-sounds-es-wav", "es_MX_f_Allison"),
    Voice("July", "es", "asterisk-prompt-es-co", "es"),
    Voice("June", "fr", "asterisk-core-sounds-fr-wav", "fr_CA_f_June"),
    Voice("Armelle", "fr", "asterisk-prompt-fr-armelle", "fr"),
    Voice("Carlo", "it", "asterisk-core-sounds-it-wav", "it_IT_m_Carlo"),
    Voice("Menardi", "it", "asterisk-prompt-it-menardi-wav", "it_IT_f_Menardi"),
    Voice("IvrvoiceRU", "ru", "asterisk-core-sounds-ru-wav", "ru_RU_f_IvrvoiceRU"),
)
PACKAGES = tuple(sorted({voice.package for voice in VOICES}))
LICENCE = (
    "CC-BY-SA-3.0; CC-BY-3.0 (it-wav, ru-wav); GPL-2 (es-co); BSD-like (fr-armelle); "
    "menardi: by M. Menardi and P. Dal Zot, http://www.voip.ammdomus.it"
)


def prompts(packages: Packages, voice: Voice) -> dict[str, Path]:
    """Prompt -> its file, as it is in the package; without ``silence/``.

    Raises:
        DataError: the package does not hold the folder.
    """
    root = packages.files(voice.package)
    places = sorted(place for place in root.rglob(f"sounds/{voice.folder}") if place.is_dir())
    if not places:
        raise DataError(f"{root}: no folder sounds/{voice.folder}; remove it and fetch again")
    found = {}
    for path in sorted(places[0].rglob("*")):
        name = path.relative_to(places[0]).with_suffix("").as_posix()
        sound = path.suffix in (".wav", ".gsm") and path.is_file() and path.stat().st_size
        if sound and not name.startswith("silence/"):
            found[name] = path
    return found


def playable(path: Path, name: str, voice: Voice, folder: Path) -> Path:
    """The file itself, or where it is raw GSM the same sound as WAV below ``folder``.

    Args:
        path: of the prompt, as `prompts` has it.
        name: of the prompt, likewise.
        voice: who reads it.
        folder: where WAV files may be written.

    Raises:
        DataError: the file is damaged.
    """
    if path.suffix != ".gsm":
        return path
    made = folder / voice.package / f"{name}.wav"
    if not made.is_file():
        try:
            # GSM 06.10 has no header: what it is has to be said.
            samples, _ = soundfile.read(
                path, samplerate=RATE, channels=1, format="RAW", subtype="GSM610", dtype="float32"
            )
        except (OSError, soundfile.SoundFileError) as error:
            raise DataError(f"{path}: cannot be read as GSM 06.10 ({error})") from error
        made.parent.mkdir(parents=True, exist_ok=True)
        save(made, Audio(samples[None], RATE))
    return made
