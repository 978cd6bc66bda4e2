"""`ossicle separate mix` as a user types it."""

from __future__ import annotations

import json
import shutil

import pytest
import typer
from typer.testing import CliRunner

from ossicle.cli_separate_mix import mix
from ossicle.datasets.mixtures import read_mixtures
from ossicle.errors import OssicleError

QUICK = (
    *("--n-train", 3, "--n-valid", 2, "--n-test", 2, "--sample-rate", 8000, "--workers", 1),
    *("--groups", r"/^([a-z]+)\//"),
)


@pytest.fixture
def run():
    """Runs the command: (exit code, standard output, standard error); errors of ours are raised."""
    app = typer.Typer()
    app.command()(mix)

    def call(*arguments: object) -> tuple[int, str, str]:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if isinstance(result.exception, OssicleError):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return call


def test_from_speakers_to_mixtures(run, speakers, tmp_path):
    out = tmp_path / "out"
    arguments = (
        *(speakers, "-o", out, "--disjoint", "clips", "--unseen-groups", "eve,fay"),
        *("--duration", 1, "--join", "--level-db", "0,5", "--json", *QUICK),
    )
    code, told, _ = run(*arguments)
    assert code == 0
    value = json.loads(told)
    assert value["counts"] == {"train": 3, "valid": 2, "test": 2, "unseen": 2}
    assert value["clips"]["unseen"]["clips"]["names"] == ["eve", "fay"]
    found = read_mixtures(out)
    assert found.table["level_db2"].between(0, 5).all()
    assert set(found.part("unseen").groups()) == {"eve+fay"}
    assert run(*arguments)[0] == 0


def test_what_it_says(run, speakers, tmp_path):
    code, told, notes = run(speakers, "-o", tmp_path / "out", "--disjoint", "clips", *QUICK)
    assert code == 0
    lines = told.splitlines()
    assert lines[0] == "train: 3 mixtures, 0.00 h, from 36 clips of 6 groups"
    assert lines[-1] == f"mixtures: {tmp_path / 'out' / 'mixtures.csv'}"
    assert all(line.startswith("note: ") for line in notes.splitlines())


def test_roles_and_a_folder_of_noises_beside_each_other(run, speakers, noises, tmp_path):
    flat = tmp_path / "street"
    flat.mkdir()
    for path in noises.glob("*/*.wav"):
        shutil.copy(path, flat / f"{path.parent.name}-{path.name}")
    out = tmp_path / "out"
    code, told, _ = run(speakers, flat, "-o", out, "--unseen-groups", "0.25", "--wav", *QUICK)
    assert code == 0
    assert "clips of 4 groups of street" in told
    found = read_mixtures(out)
    assert found.sources == (speakers.name, "street")
    assert found.parts == ("train", "valid", "test", "unseen")
    assert not any(str(tmp_path) in group for group in found.groups())
    out = tmp_path / "named"
    groups = ("--groups", r"/^([a-z]+)\//", "--groups", "none")
    code, _, _ = run(
        *(speakers, noises, "-o", out, "--names", "speech,noise", *QUICK[:-2], *groups)
    )
    assert code == 0
    found = read_mixtures(out)
    assert found.sources == ("speech", "noise")
    assert len(set(found.table["group2"])) > 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("--level-db", "1,x"), "--level-db 1,x: write two numbers"),
        (("--level-db", "9,3"), "level 9, 3: give two numbers, the lower first"),
        (("--shares", "3,1"), "--shares 3,1: write three numbers"),
        (("--groups", "a", "--groups", "b"), "--groups is given 3 times: give it once"),
        (("--n-unseen", "2"), "unseen mixtures need groups of their own"),
        (("--unseen-groups", "zoe"), "unseen: there is no group zoe"),
        (("--test-folds", "5"), "have no folds"),
        (("--join",), "give a duration too"),
        (("--names", "a,b"), "names are for several tables"),
    ],
)
def test_what_is_refused(run, speakers, tmp_path, wrong, message):
    with pytest.raises(OssicleError) as error:
        run(speakers, "-o", tmp_path / "out", *QUICK, *wrong)
    assert message in str(error.value)
    assert not (tmp_path / "out").exists()


def test_the_folder_of_the_clips_is_no_place(run, speakers):
    with pytest.raises(OssicleError, match="lies in"):
        run(speakers, "-o", speakers / "out", *QUICK)
    assert not (speakers / "out").exists()
