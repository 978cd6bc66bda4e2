"""Fixtures shared by all tests: one thread, real audio where it is at hand, carried clips."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from ossicle import cli
from ossicle.download import cache_dir

torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets for measuring; skips where it is absent."""
    folder = Path(os.environ.get("OSSICLE_SHARED", ROOT.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the measuring data in {folder} (set OSSICLE_SHARED to their parent)")
    return folder


@pytest.fixture(scope="session", autouse=True)
def weights_at_hand() -> None:
    """Published files beside the measuring data, put where a user would put them by hand."""
    folder = Path(os.environ.get("OSSICLE_SHARED", ROOT.parent / "shared")) / "weights"
    for path in folder.glob("*.pt"):
        target = cache_dir() / path.name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


@pytest.fixture(scope="session")
def carried_clips() -> Path:
    """The public-domain clips that the repository carries: one folder a class."""
    return ROOT / "examples" / "clips"


@pytest.fixture
def ossicle(monkeypatch, capsys):
    """Runs `ossicle ARGUMENTS` in this process: (exit code, standard output, standard error)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ossicle", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def clips(carried_clips, tmp_path_factory) -> Path:
    """A folder with eight clips of each of three classes."""
    root = tmp_path_factory.mktemp("sets") / "drums"
    for name in ("ambience", "cymbal", "kick"):
        (root / name).mkdir(parents=True)
        for path in sorted((carried_clips / name).iterdir())[:8]:
            shutil.copy(path, root / name)
    return root
