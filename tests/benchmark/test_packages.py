"""Debian packages opened as archives: what is kept, what is refused, where they come from."""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

from ossicle.benchmark import packages
from ossicle.benchmark.open_suite.recipes import RECIPES
from ossicle.benchmark.packages import PACKAGES, Package, Packages
from ossicle.errors import DownloadError

NAME, VERSION = "tiny-sounds", "2:1.5-1"
DEB = "tiny-sounds_2%3a1.5-1_all.deb"
BELL = "usr/share/sounds/bell.wav"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, offline unless a test says otherwise."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("OSSICLE_CACHE", str(folder))
    monkeypatch.setenv("OSSICLE_OFFLINE", "1")
    return folder


def tar_of(members: list[tuple[str, bytes] | tarfile.TarInfo], mode: str = "w:xz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()


def ar_of(members: dict[str, bytes]) -> bytes:
    """An `ar` archive: 60 bytes of header a member, members on even places."""
    out = b"!<arch>\n"
    for name, content in members.items():
        header = f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n"
        assert len(header) == 60
        out += header.encode() + content + b"\n" * (len(content) % 2)
    return out


def make_deb(
    path: Path,
    members: list[tuple[str, bytes] | tarfile.TarInfo],
    name: str = NAME,
    version: str = VERSION,
) -> Path:
    control = f"Package: {name}\nVersion: {version}\nArchitecture: all\n".encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        ar_of(
            {
                "debian-binary": b"2.0\n",
                "control.tar.gz": tar_of([("./control", control)], "w:gz"),
                "data.tar.xz": tar_of(members),
            }
        )
    )
    return path


def zip_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def pin(monkeypatch: pytest.MonkeyPatch, deb: Path, **changed: object) -> Package:
    sha256 = hashlib.sha256(deb.read_bytes()).hexdigest()
    package = Package(VERSION, 0.1, "CC0-1.0", sha256)._replace(**changed)
    monkeypatch.setitem(PACKAGES, NAME, package)
    return package


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".package.json"
    }


def test_keeps_sounds_and_texts(cache: Path, tmp_path: Path, monkeypatch) -> None:
    kept = {
        BELL: b"bell",
        "usr/share/sounds/gm.SF2": b"font",
        "usr/share/mma/lib/waltz.mma": b"groove",
        "usr/share/doc/tiny/copyright": b"CC0",
        "usr/share/tiny/kit.xml": b"<kit/>",
    }
    other = {"usr/bin/tiny": b"#!/bin/sh", "usr/share/tiny/a.png": b"png"}
    deb = make_deb(cache / "debs" / DEB, [(f"./{k}", v) for k, v in {**kept, **other}.items()])
    pinned = pin(monkeypatch, deb)
    lines: list[str] = []
    opened = Packages(tmp_path / "p", progress=lines.append)
    folder = opened.files(NAME)
    assert folder == tmp_path / "p" / NAME
    assert tree(folder) == kept
    assert opened.audio(NAME) == [folder / BELL]
    assert opened.about(NAME) == {
        "package": NAME,
        "version": VERSION,
        "sha256": pinned.sha256,
        "licence": "CC0-1.0",
        "note": "",
    }
    assert lines == [f"unpacking {NAME}"]  # once
    assert [p.name for p in (tmp_path / "p").iterdir()] == [NAME]


def test_agrees_with_dpkg(cache: Path, tmp_path: Path) -> None:
    if shutil.which("dpkg-deb") is None:
        pytest.skip("needs dpkg-deb, which makes the package")
    source = tmp_path / "source"
    (source / "DEBIAN").mkdir(parents=True)
    (source / "DEBIAN/control").write_text(
        f"Package: {NAME}\nVersion: {VERSION}\nArchitecture: all\nMaintainer: A <a@b.c>\n"
        "Description: sounds\n"
    )
    for name in (BELL, "usr/share/sounds/a space/Ünï.ogg"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(name.encode())
    (cache / "debs").mkdir(parents=True)
    command = ["dpkg-deb", "--root-owner-group", "--build", str(source), str(cache / "debs" / DEB)]
    subprocess.run(command, check=True, capture_output=True)
    opened = Packages(tmp_path / "p")
    found = tree(opened.files(NAME))
    assert found == {n: n.encode() for n in (BELL, "usr/share/sounds/a space/Ünï.ogg")}
    assert opened.about(NAME)["version"] == VERSION


def test_archives_inside_are_opened(cache: Path, tmp_path: Path) -> None:
    inner = zip_of({"sound/shot.ogg": b"shot", "sound/shot.tga": b"image", "copyright": b""})
    members = [("./usr/share/g/data.pk3", inner), ("./usr/share/g/not.zip", b"no zip")]
    make_deb(cache / "debs" / DEB, members)
    found = tree(Packages(tmp_path / "p").files(NAME))
    assert found == {"usr/share/g/data.pk3.unpacked/sound/shot.ogg": b"shot"}


def test_links_are_left_out_and_hard_links_are_files(cache: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.wav"
    secret.write_bytes(b"not for you")
    members = [
        (f"./{BELL}", b"bell"),
        link("./usr/share/sounds/soft.wav", "bell.wav", tarfile.SYMTYPE),
        link("./usr/share/sounds/out.wav", str(secret), tarfile.SYMTYPE),
        link("./usr/share/elsewhere", str(tmp_path), tarfile.SYMTYPE),
        link("./usr/share/sounds/hard.wav", f"./{BELL}", tarfile.LNKTYPE),
    ]
    make_deb(cache / "debs" / DEB, members)
    found = tree(Packages(tmp_path / "p").files(NAME))
    assert found == {BELL: b"bell", "usr/share/sounds/hard.wav": b"bell"}


@pytest.mark.parametrize("name", ["../../out.wav", "/ossicle-out.wav", "./a/../../b.wav"])
def test_members_outside_are_refused(cache: Path, tmp_path: Path, name: str) -> None:
    make_deb(cache / "debs" / DEB, [(f"./{BELL}", b"bell"), (name, b"evil")])
    with pytest.raises(DownloadError, match="would be written elsewhere"):
        Packages(tmp_path / "p").files(NAME)
    assert list((tmp_path / "p").iterdir()) == []
    assert not (tmp_path / "out.wav").exists()


def test_archive_inside_is_no_way_out(cache: Path, tmp_path: Path) -> None:
    inner = zip_of({"../../../../out.wav": b"evil"})
    make_deb(cache / "debs" / DEB, [("./usr/share/data.zip", inner)])
    with pytest.raises(DownloadError, match="would be written elsewhere"):
        Packages(tmp_path / "p").files(NAME)
    assert not list(tmp_path.rglob("out.wav"))


def test_through_a_link_nothing_leaves(cache: Path, tmp_path: Path) -> None:
    # A link to a folder, then a file "in" it: as links are not made, the file stays below.
    members = [link("./usr/share/out", str(tmp_path), tarfile.SYMTYPE)]
    make_deb(cache / "debs" / DEB, [*members, ("./usr/share/out/evil.wav", b"evil")])
    found = tree(Packages(tmp_path / "p").files(NAME))
    assert found == {"usr/share/out/evil.wav": b"evil"}
    assert not (tmp_path / "evil.wav").exists()


def test_wrong_checksum_is_refused(cache: Path, tmp_path: Path, monkeypatch) -> None:
    deb = make_deb(cache / "debs" / DEB, [(f"./{BELL}", b"bell")])
    pin(monkeypatch, deb, sha256="0" * 64)
    with pytest.raises(DownloadError, match=rf"{re.escape(str(deb))}: SHA-256 is .* expected 000"):
        Packages(tmp_path / "p").files(NAME)
    assert not (tmp_path / "p" / NAME).exists()


def test_another_version_is_used_and_told(cache: Path, tmp_path: Path, monkeypatch) -> None:
    deb = make_deb(cache / "debs" / DEB, [(f"./{BELL}", b"bell")])
    sha256 = hashlib.sha256(deb.read_bytes()).hexdigest()
    pin(monkeypatch, deb, version="2:1.4-9", sha256="0" * 64)
    about = Packages(tmp_path / "p").about(NAME)
    assert (about["version"], about["sha256"]) == (VERSION, sha256)
    assert about["note"] == f"{NAME} {VERSION} is used, not 2:1.4-9: clips may differ"


def test_another_architecture_has_another_checksum(cache, tmp_path, monkeypatch) -> None:
    deb = make_deb(cache / "debs" / DEB, [(f"./{BELL}", b"bell")])
    pin(monkeypatch, deb, sha256="0" * 64, architecture="amd64")
    assert Packages(tmp_path / "p").audio(NAME)


def test_pinned_version_is_preferred(cache: Path, tmp_path: Path, monkeypatch) -> None:
    make_deb(cache / "debs" / "tiny-sounds_9_all.deb", [(f"./{BELL}", b"new")], version="9")
    deb = make_deb(cache / "debs" / DEB, [(f"./{BELL}", b"bell")])
    pin(monkeypatch, deb)
    assert Packages(tmp_path / "p").audio(NAME)[0].read_bytes() == b"bell"


def test_another_package_under_the_name_is_refused(cache: Path, tmp_path: Path) -> None:
    make_deb(cache / "debs" / DEB, [(f"./{BELL}", b"bell")], name="other")
    with pytest.raises(DownloadError, match="is the package other"):
        Packages(tmp_path / "p").files(NAME)


def test_offline_says_what_to_do(cache: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(PACKAGES, NAME, Package(VERSION, 12.3, "CC0-1.0", "0" * 64))
    with pytest.raises(DownloadError) as caught:
        Packages(tmp_path / "p").files(NAME)
    text = str(caught.value)
    assert "OSSICLE_OFFLINE" in text
    assert "12 MB" in text
    assert str(cache / "debs") in text


def test_fetched_with_apt(cache: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("OSSICLE_OFFLINE", "0")
    monkeypatch.setitem(PACKAGES, NAME, Package("2:1.4-9", 12.3, "CC0-1.0", "0" * 64))
    asked = []

    def apt(command: list[str], folder: Path) -> str | None:
        asked.append(command[-1])
        if "=" in command[-1]:
            return "E: Version '2:1.4-9' was not found"
        make_deb(folder / DEB, [(f"./{BELL}", b"bell")])
        return None

    monkeypatch.setattr(packages, "_run", apt)
    assert Packages(tmp_path / "p").audio(NAME)[0].read_bytes() == b"bell"
    assert asked == [f"{NAME}=2:1.4-9", NAME]
    assert list(cache.iterdir()) == []  # the package is not kept


def test_apt_that_fails_is_told(cache: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("OSSICLE_OFFLINE", "0")
    monkeypatch.setattr(packages, "_run", lambda command, folder: "E: no such package")
    with pytest.raises(DownloadError, match=r"apt-get could not.*E: no such package.*put the pack"):
        Packages(tmp_path / "p").files(NAME)


@pytest.mark.parametrize("name", ["../x", "a b", "", "-o=x", "/etc"])
def test_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(DownloadError, match="no name of a Debian package"):
        Packages(tmp_path / "p").files(name)


@pytest.mark.parametrize("damage", [lambda b: b[:-200], lambda b: b"junk" + b, lambda b: b""])
def test_damaged_packages_leave_nothing(cache: Path, tmp_path: Path, damage) -> None:
    noise = bytes(range(256)) * 40 + hashlib.sha256(b"").digest()
    deb = make_deb(cache / "debs" / DEB, [(f"./{BELL}", noise)])
    deb.write_bytes(damage(deb.read_bytes()))
    with pytest.raises(DownloadError, match="cannot be unpacked"):
        Packages(tmp_path / "p").files(NAME)
    assert not (tmp_path / "p").exists() or list((tmp_path / "p").iterdir()) == []


def _open(folder: Path) -> None:
    assert len(Packages(folder).audio(NAME)) == 40


def test_processes_share_a_folder(cache: Path, tmp_path: Path) -> None:
    sounds = [(f"./usr/share/{i}.wav", bytes([i]) * 50_000) for i in range(40)]
    make_deb(cache / "debs" / DEB, sounds)
    context = multiprocessing.get_context("fork")
    running = [context.Process(target=_open, args=(tmp_path / "p",)) for _ in range(4)]
    for process in running:
        process.start()
    for process in running:
        process.join(30)
    assert [process.exitcode for process in running] == [0] * 4
    assert [path.name for path in (tmp_path / "p").iterdir()] == [NAME]


def test_what_a_killed_run_left_goes(cache: Path, tmp_path: Path) -> None:
    make_deb(cache / "debs" / DEB, [(f"./{BELL}", b"bell")])
    old, young = (tmp_path / "p" / f".{NAME}.{pid}.abcd.part" for pid in (1, 2))
    for path in (old, young):
        (path / "usr").mkdir(parents=True)
    long_ago = time.time() - 2 * 24 * 3600
    os.utime(old, (long_ago, long_ago))
    Packages(tmp_path / "p").files(NAME)
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == [young.name, NAME]


def test_a_folder_without_its_record_is_not_taken(cache: Path, tmp_path: Path) -> None:
    # As `dpkg-deb -x` by hand leaves it: what it was is not known.
    (tmp_path / "p" / NAME / "usr").mkdir(parents=True)
    make_deb(cache / "debs" / DEB, [(f"./{BELL}", b"bell")])
    with pytest.raises(DownloadError, match=rf"/p/{NAME}: is in the way.*; remove it"):
        Packages(tmp_path / "p").files(NAME)


def test_a_broken_record_is_named(cache: Path, tmp_path: Path) -> None:
    make_deb(cache / "debs" / DEB, [(f"./{BELL}", b"bell")])
    opened = Packages(tmp_path / "p")
    record = opened.files(NAME) / ".package.json"
    assert json.loads(record.read_text())["package"] == NAME
    record.write_text("{")
    with pytest.raises(DownloadError, match=re.escape(str(record))):
        opened.about(NAME)


def test_the_table_is_whole() -> None:
    for name, package in PACKAGES.items():
        assert re.fullmatch(r"[0-9a-f]{64}", package.sha256), name
        assert package.licence, name
        assert 0 < package.megabytes < 500, name
        assert re.match(r"\d", package.version), name
    assert list(PACKAGES) == sorted(PACKAGES)


def test_the_suite_is_pinned() -> None:
    used = {package for recipe in RECIPES.values() for package in recipe.packages}
    assert sorted(used - set(PACKAGES)) == []
