"""The package's door: every public name is there, and importing it stays light."""

from __future__ import annotations

import subprocess
import sys

import pytest

import ossicle.metrics


def test_every_name_is_found() -> None:
    for name in ossicle.metrics.__all__:
        assert getattr(ossicle.metrics, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = ossicle.metrics.nonsense


def test_import_is_light() -> None:
    code = "import sys, ossicle.metrics; print({'sklearn', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
