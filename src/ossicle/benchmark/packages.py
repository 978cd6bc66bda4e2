"""Audio, SoundFonts and texts out of Debian packages, which are opened as archives.

Nothing of a package is installed or run here. A package of the table `PACKAGES` has its checksum
pinned.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import unquote

from ossicle.audio import is_audio
from ossicle.benchmark.package_table import PACKAGES, Package
from ossicle.download import _run, cache_dir, is_offline, sha256_file
from ossicle.errors import DownloadError

__all__ = ["PACKAGES", "Package", "Packages"]

_ARCHIVES = (".pk3", ".wz", ".zip")
# fmt: off
_TEXTS = (
    ".txt", ".md", ".csv", ".tsv", ".xml", ".json", ".cfg", ".conf", ".ini", ".lua", ".lab",
    ".properties", ".theme", ".soundtheme", ".h2song", "/copyright", "/readme",
)
# .gsm: speech without a header, which needs to be told its rate; .pat: instruments of a sound card.
_MUSIC = (".sf2", ".sf3", ".pat", ".mma", ".mid", ".midi", ".kar", ".gsm")
# fmt: on
_RECORD = ".package.json"
_STALE_S = 24 * 3600.0
_BROKEN = (OSError, EOFError, LZMAError, zlib.error, ValueError, tarfile.TarError, RuntimeError)
_AR_MAGIC = b"!<arch>\n"


class Packages:
    """Packages unpacked side by side in one folder, which several processes may share.

    Args:
        folder: where they go; made where missing.
        progress: called with a line before something takes long.
    """

    def __init__(self, folder: Path, *, progress: Callable[[str], None] | None = None) -> None:
        self.folder = Path(folder)
        self._say = progress or (lambda line: None)

    def files(self, package: str) -> Path:
        """The package's folder, `folder / package`, with its files by their path in the package.

        Such as `folder/NAME/usr/share/sounds/bell.oga`. It has audio, SoundFonts, MIDI files and
        texts, no links; archives inside (.pk3, .wz, .zip) are opened beside themselves as
        `ARCHIVE.unpacked`. What is there is taken as it is; else the package is looked for in
        `cache_dir() / "debs"`, where it can be put by hand, then asked of `apt-get download`.

        Args:
            package: its name.

        Raises:
            DownloadError: not a name, not to be had, damaged, hostile, or with another checksum
                than the pinned one.
        """
        if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]+", package):
            raise DownloadError(f"{package!r}: is no name of a Debian package")
        target = self.folder / package
        if (target / _RECORD).is_file():
            return target
        with self._deb(package) as deb:
            self._unpack(deb, package, target)
        return target

    def audio(self, package: str) -> list[Path]:
        """The package's audio files, sorted.

        Raises:
            DownloadError: as in ``files``.
        """
        found = self.files(package).rglob("*")
        return sorted(path for path in found if is_audio(path) and path.is_file())

    def about(self, package: str) -> dict[str, Any]:
        """What was unpacked.

        Returns:
            package, version, sha256 (of the .deb), licence; note, "" unless the version is another
            than the pinned one, with which clips may differ from those of others.

        Raises:
            DownloadError: as in ``files``.
        """
        path = self.files(package) / _RECORD
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DownloadError(f"{path}: cannot be read; remove {path.parent}") from error
        pinned = PACKAGES.get(package)
        note = ""
        if pinned is None:
            note = f"{package} {found['version']} is used; no version of it is pinned"
        elif found["version"] != pinned.version:
            note = f"{package} {found['version']} is used, not {pinned.version}: clips may differ"
        return {
            "package": package,
            "version": found["version"],
            "sha256": found["sha256"],
            "licence": pinned.licence if pinned else "",
            "note": note,
        }

    @contextmanager
    def _deb(self, package: str) -> Iterator[Path]:
        """The package's file: by hand, or in a folder that is removed afterwards."""
        pinned = PACKAGES.get(package)
        debs = cache_dir() / "debs"
        there = sorted(debs.glob(f"{package}_*.deb"))
        wanted = [deb for deb in there if pinned and _version(deb) == _plain(pinned.version)]
        if there:
            yield (wanted or there)[-1]
            return
        size = f" ({pinned.megabytes:.0f} MB)" if pinned else ""
        by_hand = f"put the package {package} into {debs}, or set OSSICLE_CACHE to a folder with it"
        if is_offline():
            problem = f"OSSICLE_OFFLINE forbids to fetch the Debian package {package}{size}"
            raise DownloadError(f"{problem}; {by_hand}")
        self._say(f"fetching {package}{size}")
        try:
            cache_dir().mkdir(parents=True, exist_ok=True)
            scratch = tempfile.TemporaryDirectory(dir=cache_dir(), prefix=".fetch-")
        except OSError as error:
            raise DownloadError(f"{cache_dir()} cannot be written ({error.strerror})") from error
        with scratch as name:
            asked = [f"{package}={pinned.version}"] if pinned else []
            failure: str | None = ""
            for ask in [*asked, package]:  # a security update takes the pinned version's place
                failure = _run(["apt-get", "-q", "download", ask], Path(name))
                if found := sorted(Path(name).glob("*.deb")):
                    yield found[0]
                    return
            problem = f"apt-get could not download {package} ({failure or 'no package came'})"
            raise DownloadError(f"{problem}; {by_hand}")

    def _unpack(self, deb: Path, package: str, target: Path) -> None:
        pinned = PACKAGES.get(package)
        found = sha256_file(deb)
        part = self.folder / f".{package[:64]}.{os.getpid()}.{secrets.token_hex(4)}.part"
        try:
            control = _control(deb)
            if control.get("Package") != package:
                raise DownloadError(f"{deb}: is the package {control.get('Package')}")
            version = control.get("Version", "")
            same = pinned and version == pinned.version and _built_for(control, pinned)
            if pinned and same and found != pinned.sha256:
                problem = f"{deb}: SHA-256 is {found}, expected {pinned.sha256}"
                raise DownloadError(f"{problem}; it is not used")
            self._say(f"unpacking {package}")
            for old in self.folder.glob(f".{package[:64]}.*.part"):
                # Of a run that was killed; a younger one may be another process's at work.
                if time.time() - old.stat().st_mtime > _STALE_S:
                    shutil.rmtree(old, ignore_errors=True)
            part.mkdir(parents=True)
            _extract(deb, part)
            about = {"package": package, "version": version, "sha256": found}
            (part / _RECORD).write_text(json.dumps(about) + "\n", encoding="utf-8")
            try:
                part.rename(target)
            except OSError as error:
                # Where another process was faster, what it left is as good.
                if not (target / _RECORD).is_file():
                    problem = f"{target}: is in the way of the package ({error.strerror})"
                    raise DownloadError(f"{problem}; remove it") from error
        except _BROKEN as error:
            line = " ".join(str(error).split()) or type(error).__name__
            raise DownloadError(f"{deb}: cannot be unpacked to {target} ({line})") from error
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _built_for(control: dict[str, str], pinned: Package) -> bool:
    return control.get("Architecture") == pinned.architecture


def _plain(version: str) -> str:
    return version.split(":")[-1]  # file names may leave the epoch out


def _version(deb: Path) -> str:
    return _plain(unquote(deb.name).split("_")[1])


@contextmanager
def _part_of(deb: Path, name: str) -> Iterator[tarfile.TarFile]:
    """The tar archive called ``name`` + suffix in a .deb, which is an `ar` archive (deb(5))."""
    with deb.open("rb") as handle:
        if handle.read(len(_AR_MAGIC)) != _AR_MAGIC:
            raise ValueError("not a Debian package")
        while len(header := handle.read(60)) == 60:
            size = int(header[48:58])
            if header[:16].decode("ascii", "replace").strip(" /").startswith(name):
                with tempfile.TemporaryFile() as copy:
                    _copy(handle, copy, size)
                    copy.seek(0)
                    with tarfile.open(fileobj=copy) as archive:
                        yield archive
                return
            handle.seek(size + size % 2, os.SEEK_CUR)
    raise ValueError(f"holds no {name}")


def _copy(source: IO[bytes], target: IO[bytes], size: int) -> None:
    while size:
        chunk = source.read(min(size, 1 << 20))
        if not chunk:
            raise EOFError("ends too early")
        target.write(chunk)
        size -= len(chunk)


def _control(deb: Path) -> dict[str, str]:
    with _part_of(deb, "control.tar") as archive:
        for member in archive:
            if PurePosixPath(member.name).name == "control" and member.isreg():
                source = archive.extractfile(member)
                text = source.read().decode("utf-8", "replace") if source else ""
                return dict(
                    re.findall(r"^(Package|Version|Architecture):\s*(\S+)", text, re.MULTILINE)
                )
    raise ValueError("holds no control file")


def _is_kept(name: str) -> bool:
    low = name.lower()
    return is_audio(low) or low.endswith((*_TEXTS, *_MUSIC))


def _below(folder: Path, member: str) -> Path:
    """Where a member goes; it never leaves the folder."""
    pure = PurePosixPath(member)
    if pure.is_absolute() or ".." in pure.parts or "\\" in member or "\0" in member:
        raise ValueError(f"{member!r} would be written elsewhere")
    return folder / pure


def _extract(deb: Path, folder: Path) -> None:
    with _part_of(deb, "data.tar") as archive:
        for member in archive:
            target = _below(folder, member.name)
            inside = member.name.lower().endswith(_ARCHIVES)
            # Hard links are files; symbolic ones name the same bytes again.
            if not (member.isreg() or member.islnk()) or not (inside or _is_kept(member.name)):
                continue
            source = archive.extractfile(member)
            if source is None:
                continue
            if inside:
                _extract_zip(source, target.with_name(f"{target.name}.unpacked"))
            else:
                _write(source, target)


def _extract_zip(source: IO[bytes], folder: Path) -> None:
    if not zipfile.is_zipfile(source):
        return
    with zipfile.ZipFile(source) as archive:
        for member in archive.infolist():
            target = _below(folder, member.filename)
            if not member.is_dir() and _is_kept(member.filename):
                with archive.open(member) as file:
                    _write(file, target)


def _write(source: IO[bytes], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as handle:
        shutil.copyfileobj(source, handle, 1 << 20)
