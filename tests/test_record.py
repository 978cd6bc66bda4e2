"""Records: what they hold, what they must not hold, and checksums that depend on the data only."""

from __future__ import annotations

import dataclasses
import getpass
import hashlib
import json
import math
import os
import platform
import shutil
import socket
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ossicle
from ossicle import record
from ossicle.errors import DataError


def test_what_a_record_holds(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"abc")
    before = datetime.now(UTC).replace(microsecond=0)
    made = record.record({"rate": 16000}, seed=7, data=[tmp_path / "a.wav"])
    assert set(made) == {
        *("ossicle", "commit", "python", "platform", "versions"),
        *("time", "arguments", "seed", "data"),
    }
    assert made["arguments"] == {"rate": 16000}
    assert made["seed"] == 7
    assert platform.python_version() in made["python"]
    assert made["versions"]["numpy"] == np.__version__
    assert set(made["platform"]) == {"system", "machine", "cpu", "logical_cores"}
    assert made["platform"]["cpu"]
    assert before <= datetime.fromisoformat(made["time"]) <= datetime.now(UTC)
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    assert record.record({}, seed=None)["data"] is None
    absent = set(record._DISTRIBUTIONS) - set(made["versions"])
    assert all(record._version(name) is None for name in absent)


def test_a_record_tells_nothing_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home" / "grace"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    (home / "a.wav").write_bytes(b"abc")
    arguments = {
        "source": home / "clips",
        "text": f"{home}/clips",
        "option": f"--out={home}/x",
        str(home): [home],
        "error": OSError(f"{home}/x"),
    }
    text = json.dumps(record.record(arguments, seed=0, data=[home / "a.wav"]))
    assert "grace" not in text
    assert str(tmp_path) not in text
    assert socket.gethostname() not in text
    if len(getpass.getuser()) > 4:  # "root" is part of other words
        assert getpass.getuser() not in text
    made = record.json_safe(arguments)
    assert made["source"] == made["text"] == "~/clips"
    assert made["option"] == "--out=~/x"
    # A name that merely holds the home folder's is another folder.
    assert record.json_safe(f"/mnt{home}/x") == f"/mnt{home}/x"
    assert record.json_safe(f"{home}2/x") == f"{home}2/x"


@dataclasses.dataclass
class Options:
    folder: Path
    rates: tuple[int, ...]


def test_arguments_become_json() -> None:
    made = record.json_safe(
        {
            "path": Path("clips/a.wav"),
            "options": Options(Path("x"), (1, 2)),
            "set": {"b", "a"},
            "array": np.arange(3, dtype=np.int16),
            "scalar": np.float32(0.5),
            "flag": np.bool_(True),
            "limits": [math.nan, math.inf, -math.inf, 1.5],
            "thing": object(),
            "none": None,
            3: b"xy",
        }
    )
    assert made == {
        "path": str(Path("clips/a.wav")),
        "options": {"folder": "x", "rates": [1, 2]},
        "set": ["a", "b"],
        "array": [0, 1, 2],
        "scalar": 0.5,
        "flag": True,
        "limits": ["nan", "inf", "-inf", 1.5],
        "thing": "<object object>",
        "none": None,
        "3": "b'xy'",
    }


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=5),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=10,
)


@given(values)
def test_anything_becomes_json(value: object) -> None:
    made = record.json_safe(value)
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    assert record.json_safe(made) == made


# The data's checksum


def make_files(folder: Path, files: dict[str, bytes]) -> list[Path]:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return [folder / name for name in files]


FILES = {"b/1.wav": b"one", "a/2.wav": b"two!", "a/é.wav": b""}


def test_checksum_by_its_definition(tmp_path: Path) -> None:
    made = record.data_checksum(make_files(tmp_path, FILES))
    lines = "".join(
        f"{name}\0{len(FILES[name])}\0{hashlib.sha256(FILES[name]).hexdigest()}\n"
        for name in sorted(FILES)
    )
    assert made == {
        "files": 3,
        "bytes": 7,
        "sha256": hashlib.sha256(lines.encode()).hexdigest(),
    }


def test_checksum_knows_no_order_or_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = make_files(tmp_path / "x", FILES)
    there = make_files(tmp_path / "deeper" / "y", dict(reversed(FILES.items())))
    expected = record.data_checksum(here)
    assert record.data_checksum(there) == expected
    assert record.data_checksum(iter([*here, *reversed(here)])) == expected
    assert record.data_checksum([tmp_path / "x"]) == expected
    monkeypatch.chdir(tmp_path / "x")
    assert record.data_checksum([Path(name) for name in FILES]) == expected
    composed, decomposed = "\u00e9.wav", "e\u0301.wav"
    one = make_files(tmp_path / "c", {composed: b"1", "z": b""})
    two = make_files(tmp_path / "d", {decomposed: b"1", "z": b""})
    assert record.data_checksum(one) == record.data_checksum(two)


def test_checksum_sees_every_change(tmp_path: Path) -> None:
    variants = [
        FILES,
        {**FILES, "b/1.wav": b"onf"},
        {**FILES, "b/1.wav": b"one "},
        {"b/1.wav": b"one", "a/2.wav": b"two!"},
        {"b/3.wav": b"one", "a/2.wav": b"two!", "a/é.wav": b""},
        {"b/1.wav": b"two!", "a/2.wav": b"one", "a/é.wav": b""},
    ]
    found = {
        record.data_checksum(make_files(tmp_path / str(i), files))["sha256"]
        for i, files in enumerate(variants)
    }
    assert len(found) == len(variants)


def test_checksum_of_nothing_and_of_one(tmp_path: Path) -> None:
    assert record.data_checksum([])["files"] == 0
    (path,) = make_files(tmp_path, {"a.wav": b"abc"})
    assert record.data_checksum([path])["bytes"] == 3
    with pytest.raises(DataError, match=r"absent\.wav: cannot be read"):
        record.data_checksum([path, tmp_path / "absent.wav"])


# The commit


def git(folder: Path, *arguments: str) -> str:
    options = ["-c", "user.name=a", "-c", "user.email=a@a", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", "-C", str(folder), *options, *arguments],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "GIT_CONFIG_GLOBAL": os.devnull},
    )
    return done.stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_commit_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "src" / "package"
    package.mkdir(parents=True)
    (package / "a.py").write_text("a = 1\n")
    assert record.source_commit(package) is None
    git(tmp_path, "init", "-q")
    assert record.source_commit(package) is None  # nothing tracked
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert record.source_commit(package) == {"commit": head, "modified": False}
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "absent"))  # as inside a hook
    assert record.source_commit(package) == {"commit": head, "modified": False}
    monkeypatch.delenv("GIT_DIR")
    (package / "a.py").write_text("a = 2\n")
    assert record.source_commit(package) == {"commit": head, "modified": True}
    installed = tmp_path / "venv" / "package"  # inside a checkout, but no part of it
    installed.mkdir(parents=True)
    (installed / "a.py").write_text("a = 1\n")
    assert record.source_commit(installed) is None


def test_no_git_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert record.source_commit(Path(ossicle.__file__).parent) is None

    def slow(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("git", 1)

    monkeypatch.setattr(record.subprocess, "run", slow)
    assert record.source_commit(tmp_path) is None
    assert record.record({}, seed=0)["commit"] is None


# Writing


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    record.write_json(path, {"café": [1, 2.5, None]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"café": [1, 2.5, None]}
    assert "café" in path.read_text(encoding="utf-8")
    before = path.read_bytes()
    for value, error in [({"a": math.nan}, ValueError), ({"a": object()}, TypeError)]:
        with pytest.raises(error):
            record.write_json(path, value)
    with pytest.raises(FileNotFoundError):
        record.write_json(tmp_path / "absent" / "a.json", 1)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["record.json"]


def test_a_replaced_file_is_old_or_new(tmp_path: Path) -> None:
    path = tmp_path / f"{'n' * 240}.txt"
    path.write_text("old")

    def fail() -> None:
        with record.replaced(path) as part:
            part.write_text("half")
            assert part.parent == tmp_path
            assert path.read_text() == "old"
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fail()
    assert path.read_text() == "old"
    with record.replaced(path) as part:
        part.write_text("new")
    assert path.read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
def test_a_written_file_is_as_readable_as_any(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    record.write_json(tmp_path / "made.json", {})
    assert (tmp_path / "made.json").stat().st_mode == (tmp_path / "plain").stat().st_mode
