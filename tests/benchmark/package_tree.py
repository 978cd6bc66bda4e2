"""Packages that look unpacked, with noise in place of their sounds."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from ossicle.benchmark.packages import Packages


class Tree:
    """A folder of packages; every sound is another unless it is made the copy of one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def package(self, name: str) -> Path:
        """An empty package."""
        root = self.folder / name
        root.mkdir(parents=True, exist_ok=True)
        about = {"package": name, "version": "1", "sha256": "0" * 64}
        (root / ".package.json").write_text(json.dumps(about), encoding="utf-8")
        return root

    def sound(
        self, package: str, name: str, *, seconds: float = 1.5, like: Path | None = None
    ) -> Path:
        """A file of a package, below usr/share."""
        path = self.package(package) / "usr/share" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if like is not None:
            path.write_bytes(like.read_bytes())
            return path
        noise = np.random.default_rng(zlib.crc32(f"{package}/{name}".encode()))
        samples = noise.uniform(-0.5, 0.5, round(seconds * 8_000)).astype(np.float32)
        if path.suffix == ".gsm":
            soundfile.write(path, samples, 8_000, format="RAW", subtype="GSM610")
        else:
            with path.open("wb") as stream:
                soundfile.write(stream, samples, 8_000, format="WAV")
        return path

    def packages(self) -> Packages:
        """They, as a recipe is given them."""
        return Packages(self.folder)


def check_frame(frame: pd.DataFrame) -> None:
    """What every recipe promises of its rows."""
    assert all(Path(path).is_absolute() and Path(path).is_file() for path in frame["path"])
    assert frame["path"].is_unique
    assert len({Path(path).read_bytes() for path in frame["path"]}) == len(frame)
    where: dict[str, set[str]] = {}
    for group, fold in zip(frame["group"], frame["fold"], strict=True):
        where.setdefault(group, set()).add(fold)
    assert all(len(folds) == 1 for folds in where.values())
    assert 2 <= frame["fold"].nunique() <= 6
    for fold in frame["fold"].unique():
        tested, learnt = frame[frame["fold"] == fold], frame[frame["fold"] != fold]
        assert set(tested["label"]) <= set(learnt["label"])
