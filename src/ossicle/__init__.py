"""ossicle: transfer learning for audio.

The public names load on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# The network where none is named: the only place that says so. It stands here because the command
# line shows it in its help, and ossicle.backbones, which hands it on, loads torch.
DEFAULT_BACKBONE = "yamnet"

# Public name -> (module, name there).
_PUBLIC = {
    "AudioClassifier": ("ossicle.classifier", "AudioClassifier"),
    "AudioError": ("ossicle.errors", "AudioError"),
    "Model": ("ossicle.model", "Model"),
    "OssicleError": ("ossicle.errors", "OssicleError"),
    "audit": ("ossicle.leaks", "audit"),
    "create_model": ("ossicle.model", "create_model"),
    "evaluate": ("ossicle.transfer.evaluate", "evaluate"),
    "extract": ("ossicle.features", "extract"),
    "list_models": ("ossicle.model", "list_models"),
    "load": ("ossicle.classifier", "load"),
    "read_clips": ("ossicle.datasets.clips", "read_clips"),
}

__all__ = ["DEFAULT_BACKBONE", "__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
