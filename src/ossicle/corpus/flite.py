"""Flite, whose four American voices are made from recordings, by its Debian package's libraries.

They are free software (BSD-like, Carnegie Mellon University). As with espeak-ng, a process of its
own loads them: ``python -m ossicle.corpus.flite FOLDER``. The functions are those of flite.h.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ossicle.corpus.espeak import check_machine
from ossicle.corpus.speaker import Speak, serve
from ossicle.download import _run, cache_dir, fetch_debian_member, is_offline

NAME = "libflite1"
VERSION = "2.2-5"
LICENCE = "output of Flite (BSD-like, Carnegie Mellon University)"
_INSIDE = "usr/lib/x86_64-linux-gnu"
# The order of loading: what the later ones need comes first.
_LIBRARIES = {
    "libflite.so.2.2": "35bec492db716f26ad12de26e1fe6bfd2519972a9f735d7205f732edd72a101d",
    "libflite_cmulex.so.2.2": "c956f8c4e2076152dd1b761444947787d9a46f7dd69b46b6cae9004a78854ce0",
    "libflite_usenglish.so.2.2": (
        "045dbfd35918b4a597d85823832dbfbfdf5fda13414ae8a4c73d6d4170bad20f"
    ),
    "libflite_cmu_us_kal16.so.2.2": (
        "e4e439812daa2f2c3094b096895629eca787fbde0f3a8f030e05ddc5b2a9316e"
    ),
    "libflite_cmu_us_slt.so.2.2": (
        "eade61da04628c79737acdd7924e656bfce0b4ede63d593ea1b936897c131334"
    ),
    "libflite_cmu_us_rms.so.2.2": (
        "cde623e852070bf3a34aa43dee7951fb6c24538bde0642cae586cd7b77807e19"
    ),
    "libflite_cmu_us_awb.so.2.2": (
        "d6d4d9c247d33abc016328df805faf91e64cfddf7895552fd06e9267bf7bd583"
    ),
}
VOICES = ("kal16", "slt", "rms", "awb")
_USUAL_SPEED = 175


class _Wave(ctypes.Structure):
    # cst_wave of cst_wave.h
    _fields_ = (
        ("type", ctypes.c_char_p),
        ("sample_rate", ctypes.c_int),
        ("num_samples", ctypes.c_int),
        ("num_channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    )


class _Voice(ctypes.Structure):
    # The head of cst_voice of cst_voice.h.
    _fields_ = (("name", ctypes.c_char_p), ("features", ctypes.c_void_p))


def fetch_flite() -> Path:
    """The folder of the libraries: the cache.

    The package is looked for in `cache_dir() / "debs"`, then asked of `apt-get download`.

    Raises:
        OssicleError: another machine than Linux on x86_64.
        DownloadError: not to be had, or with another checksum than the pinned one.
    """
    check_machine("flite")
    debs = cache_dir() / "debs"
    there = all((cache_dir() / name).is_file() for name in _LIBRARIES)
    if not there and not any(debs.glob(f"{NAME}_*.deb")) and not is_offline():
        # Once for all members; where it fails, the first member's error says what to do.
        debs.mkdir(parents=True, exist_ok=True)
        _run(["apt-get", "-q", "download", f"{NAME}={VERSION}"], debs)
    for name, sha256 in _LIBRARIES.items():
        fetch_debian_member(f"{NAME}={VERSION}", f"{_INSIDE}/{name}", sha256)
    return cache_dir()


def is_at_hand() -> bool:
    """Whether `fetch_flite` needs no network."""
    return all((cache_dir() / name).is_file() for name in _LIBRARIES)


def load_flite(folder: Path) -> Speak:
    """Load the libraries into this process; what speaks with them.

    Raises:
        OSError: one cannot be loaded; they need the system's libasound2.
    """
    flite = None
    voices = {}
    for name in _LIBRARIES:
        library = ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
        flite = flite or library
        if "_us_" in name:
            voice = name.split("_us_")[1].split(".")[0]
            register = library[f"register_cmu_us_{voice}"]
            register.restype = ctypes.POINTER(_Voice)
            voices[voice] = register(None)
    assert flite is not None
    flite.flite_init()
    flite.flite_text_to_wave.restype = ctypes.POINTER(_Wave)
    flite.feat_set_float.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_float)

    def speak(job: Mapping[str, Any]) -> tuple[bytes, int]:
        voice = voices[job["voice"]]
        features = voice.contents.features
        flite.feat_set_float(features, b"duration_stretch", _USUAL_SPEED / job["speed"])
        wave = flite.flite_text_to_wave(job["text"].encode(), voice).contents
        return ctypes.string_at(wave.samples, 2 * wave.num_samples), wave.sample_rate

    return speak


if __name__ == "__main__":
    serve(load_flite(Path(sys.argv[1])), sys.stdin, sys.stdout)
