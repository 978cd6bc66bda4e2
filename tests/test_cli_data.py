"""`ossicle data`: get, list, show, with a recipe of its own."""

from __future__ import annotations

import json
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import typer
from typer.testing import CliRunner

from ossicle.benchmark.packages import PACKAGES, Package, Packages
from ossicle.benchmark.recipe import Recipe
from ossicle.cli_data import data
from ossicle.errors import OssicleError

SOURCE = "tiny-sounds"


def build(packages: Packages, folder: Path, progress: Any) -> pd.DataFrame:
    rows = []
    for i, path in enumerate(packages.audio(SOURCE)):
        rows.append((str(path), path.stem[:-1], f"g{i}", ("train", "test")[int(path.stem[-1]) % 2]))
    return pd.DataFrame(rows, columns=["path", "label", "group", "part"])


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two tasks in place of the suite's: one whose package is unpacked, one that is not there."""
    monkeypatch.setenv("OSSICLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OSSICLE_OFFLINE", "1")
    monkeypatch.setitem(PACKAGES, SOURCE, Package("1.0", 1.5, "CC0-1.0", "a" * 64))
    monkeypatch.setitem(PACKAGES, "far-away", Package("2.0", 7.25, "MIT", "b" * 64))
    tones = Recipe(
        *("tones", "environment", "high or low", (SOURCE,), "CC0-1.0", "the loudness"),
        *(build, "accuracy", "tones of this test"),
    )
    far = Recipe("far", "music", "near or far", ("far-away",), "MIT", "", build)
    suite = types.ModuleType("ossicle.benchmark.open_suite.recipes")
    suite.RECIPES = {"tones": tones, "far": far}
    monkeypatch.setitem(sys.modules, suite.__name__, suite)
    root = tmp_path / "data"
    sounds = root / "packages" / SOURCE
    sounds.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("high", "low"):
        for i in range(4):
            soundfile.write(sounds / f"{name}{i}.wav", 0.1 * rng.normal(size=4000), 8000)
    about = {"package": SOURCE, "version": "1.0", "sha256": "a" * 64}
    (sounds / ".package.json").write_text(json.dumps(about))
    return root


def run(*arguments: object) -> tuple[str, str]:
    """Standard output and standard error; what the verb raises is raised."""
    done = CliRunner().invoke(data, [str(argument) for argument in arguments])
    if done.exception is not None:
        raise done.exception
    return done.stdout, done.stderr


def test_is_a_verb_with_four_below() -> None:
    command = typer.main.get_command(data)
    assert sorted(command.commands) == ["corpus", "get", "list", "show"]


def test_get(root: Path) -> None:
    out, _ = run("get", "tones", "--data", root, "--workers", 1)
    assert out.splitlines() == [
        "tones: 8 clips, 2 classes, 0.1 min",
        "  licence: CC0-1.0",
        "  packages: 1",
        "  what could give it away: the loudness",
        f"  manifest: {root / 'tones.csv'}",
    ]
    again, _ = run("get", "tones", "--data", root)
    assert again.splitlines()[0] == "tones: 8 clips, 2 classes, 0.1 min; was there"


def test_get_json(root: Path) -> None:
    out, err = run("get", "tones", "--data", root, "--json")
    (line,) = out.splitlines()
    (task,) = json.loads(line)["tasks"]
    assert task["manifest"] == str(root / "tones.csv")
    assert task["classes"] == {"high": 4, "low": 4}
    assert task["hours"] == pytest.approx(8 * 0.5 / 3600)
    assert task["packages"][0]["sha256"] == "a" * 64
    assert (task["built"], task["mb"]) == (True, 0)
    assert "tones: decoding 8 clips" in err


def test_default_folder_is_in_the_cache(root: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    root.rename(tmp_path / "cache" / "data")
    run("get", "tones")
    assert (tmp_path / "cache" / "data" / "tones.csv").is_file()


def test_one_that_fails_keeps_none_from_being_built(root: Path) -> None:
    done = CliRunner().invoke(data, ["get", "far", "tones", "--data", str(root), "--json"])
    assert isinstance(done.exception, OssicleError)
    assert "far-away" in str(done.exception)
    told = json.loads(done.stdout.splitlines()[-1])
    assert [task["name"] for task in told["tasks"]] == ["tones"]
    assert list(told["failed"]) == ["far"]
    assert (root / "tones.csv").is_file()


def test_all_is_all(root: Path) -> None:
    shutil.copytree(root / "packages" / SOURCE, root / "packages" / "far-away")
    out, _ = run("get", "all", "--data", root)
    assert [line.split(":")[0] for line in out.splitlines() if line[0] != " "] == ["tones", "far"]


def test_several_that_fail_are_all_named(root: Path) -> None:
    shutil.rmtree(root / "packages" / SOURCE)
    done = CliRunner().invoke(data, ["get", "all", "--data", str(root)])
    assert str(done.exception) == "not built: tones, far; see above"
    assert sum("OSSICLE_OFFLINE" in line for line in done.stderr.splitlines()) == 2


@pytest.mark.parametrize("verb", ["get", "show"])
def test_unknown_name(root: Path, verb: str) -> None:
    with pytest.raises(OssicleError, match=r"no open task is called 'nope'; `ossicle data list`"):
        run(verb, "nope", "--data", root)


def test_list(root: Path) -> None:
    run("get", "tones", "--data", root)
    out, _ = run("list", "--data", root)
    assert out.splitlines() == [
        "tones  environment  high or low (8 clips, 0.1 min)",
        "far    music        near or far (not built, 7.2 MB to fetch)",
    ]
    rows = json.loads(run("list", "--data", root, "--json")[0])["tasks"]
    assert [(row["name"], row["built"], row["clips"], row["mb"]) for row in rows] == [
        ("tones", True, 8, 0),
        ("far", False, None, 7.25),
    ]


def test_show(root: Path) -> None:
    out, _ = run("show", "far", "--data", root)
    assert "package: far-away 2.0, 7.2 MB, MIT" in out.splitlines()
    assert out.splitlines()[-1] == "not built: `ossicle data get far` fetches 7.2 MB"
    run("get", "tones", "--data", root)
    out, _ = run("show", "tones", "--data", root)
    assert "classes: high 4, low 4" in out.splitlines()
    assert "parts: test 4, train 4" in out.splitlines()
    assert "source: tones of this test" in out.splitlines()
    told = json.loads(run("show", "tones", "--data", root, "--json")[0])
    assert (told["caveat"], told["built"]["clips"]) == ("the loudness", 8)
