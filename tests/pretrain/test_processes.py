"""Several processes from the command line: the run of one, and its errors as one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ossicle import bundle

COMMON = ["--set", "width=1/8", "--set", "drop_rate=0", "--steps", "3", "--batch-size", "8"]
# Adam's first steps are the sign of each gradient, which for the smallest is a matter of rounding.
COMMON += ["--optimiser", "sgd", "--learning-rate", "0.1"]


def pretrain(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ossicle.cli", "pretrain", *arguments, "--accelerator", "cpu"]
    environment = {**os.environ, "OSSICLE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=environment, cwd=folder
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory, carried_clips) -> list[tuple[Path, dict]]:
    folder = tmp_path_factory.mktemp("processes")
    done = []
    for devices in (1, 2):
        out = folder / f"on{devices}.ossicle"
        told = pretrain(
            str(carried_clips),
            *COMMON,
            *("--devices", str(devices), "--workers", "1", "--json", "-o", str(out)),
            folder=folder,
        )
        assert told.returncode == 0, told.stderr[-1500:]
        done.append((out, json.loads(told.stdout.splitlines()[-1])))
    return done


def test_two_processes_give_the_run_of_one(runs):
    (one, told), (two, told_two) = runs
    assert told_two["last"]["loss"] == pytest.approx(told["last"]["loss"], rel=1e-4)
    assert told_two["steps"] == told["steps"] == 3
    assert told_two["hours"] == pytest.approx(told["hours"])
    a, b = (bundle.load(path).backbone.state_dict() for path in (one, two))
    for name, tensor in a.items():
        assert (tensor - b[name]).abs().max() <= 1e-4, name


def test_another_run_in_the_folder_is_one_line_from_two_processes(runs, carried_clips):
    out, _ = runs[1]
    told = pretrain(
        str(carried_clips),
        *COMMON,
        *("--devices", "2", "--workers", "1", "--seed", "5", "-o", str(out)),
        folder=out.parent,
    )
    assert told.returncode == 2
    last = told.stderr.strip().splitlines()[-1]
    assert "holds a run with other arguments or clips" in last
    assert not told.stdout
