"""Makes small trees of files; readers of clips look at names, not into the audio."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Path]:
    """tree("dog/1.wav", ...) makes these files in a folder of its own and returns it."""

    def make(*names: str, **texts: str) -> Path:
        root = tmp_path / "data"
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(b"")
        root.mkdir(exist_ok=True)
        for name, text in texts.items():
            (root / name.replace("_csv", ".csv").replace("_tsv", ".tsv")).write_text(
                text, encoding="utf-8"
            )
        return root

    return make
