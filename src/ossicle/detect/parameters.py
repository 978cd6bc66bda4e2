"""What a detection depends on besides the recordings: windows, rules, and the model itself."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ossicle.detect.grid import Grid, lay_grid
from ossicle.detect.rules import Rules
from ossicle.errors import DataError, OssicleError
from ossicle.features import MIN_DURATION_S
from ossicle.model import Model

# Raised whenever the same sound would give other numbers than before.
VERSION = 1
# Short enough to find a call in, and as long as the shortest clips that networks here hear well.
DEFAULT_WINDOW_S = 1.0
DEFAULT_OVERLAP = 0.5


def window_of(
    model: Model,
    window_s: float | None = None,
    step_s: float | None = None,
    overlap: float | None = None,
) -> Grid | None:
    """The windows in which a model hears recordings; None for a `Detector`, which has frames.

    What is not given is what the bundle says (``info["detection"]``), else the patches that the
    model was published with, else one second; and half of each window is heard by the next.

    Args:
        model: with a head.
        window_s: length in seconds.
        step_s: from one onset to the next, in seconds.
        overlap: share of a window that the next one hears too, instead of a step.

    Raises:
        OssicleError: a value is out of its range, or is given for a detector.
        DataError: the bundle's own values make no sense.
    """
    if model.framewise:
        if (window_s, step_s, overlap) != (None, None, None):
            raise OssicleError("this model scores frames: it has no windows, steps or overlaps")
        return None
    own = _detection(model)
    if window_s is None:
        patch_s = None if model.patches is None else model.patches.window_s
        window_s = _number(own, "window_s") or patch_s or DEFAULT_WINDOW_S
        if step_s is None and overlap is None:
            step_s = _number(own, "step_s")
    if step_s is None and overlap is None:
        overlap = DEFAULT_OVERLAP
    if window_s < MIN_DURATION_S:
        raise OssicleError(f"a window must last at least {MIN_DURATION_S} s, got {window_s:g}")
    return lay_grid(window_s, step_s, overlap, model.sample_rate)


def rules_of(model: Model) -> Rules:
    """The rules that a bundle keeps (``info["detection"]["rules"]``), else one half for all.

    Raises:
        DataError: the bundle's own rules make no sense.
    """
    own = _detection(model).get("rules")
    return Rules.default(model.classes) if own is None else Rules.from_json(own, model.classes)


def shares_maps(model: Model, shared: bool | None = None) -> bool:
    """Whether windows are read out of shared maps: as asked for, else as the bundle says, else no.

    Raises:
        DataError: the bundle's own value makes no sense.
    """
    own = _detection(model).get("shared", False)
    if type(own) is not bool:
        raise DataError("the bundle's detection settings: shared is not true or false")
    return own if shared is None else shared


def parameters_of(
    model: Model,
    grid: Grid | None,
    rules: Rules,
    unknown: float | None = None,
    shared: bool = False,
) -> dict[str, Any]:
    """All that the events of a recording depend on, as JSON values."""
    return {
        "version": VERSION,
        "model": model_checksum(model),
        "window_s": None if grid is None else grid.seconds(grid.width),
        "step_s": None if grid is None else grid.seconds(grid.stride),
        "rules": rules.to_json(),
        "unknown": unknown,
        "shared": shared,
    }


def model_checksum(model: Model) -> str:
    """SHA-256 of all that a model's scores depend on: weights, front end, read-out, classes."""
    about = {
        "frontend": [type(model.frontend).__name__, model.frontend.config()],
        "backbone": [type(model.backbone).__name__, model.backbone.config()],
        "clip": model.clip,
        "patches": model.patches,
        "readout": model.readout,
        "classes": model.classes,
        "task": model.task,
        "calibration": None if model.calibration is None else model.calibration.to_json(),
    }
    total = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def _detection(model: Model) -> dict[str, Any]:
    own = model.info.get("detection")
    if own is None:
        return {}
    if not isinstance(own, dict):
        raise DataError("the bundle's detection settings are no object")
    return own


def _number(own: dict[str, Any], name: str) -> float | None:
    value = own.get(name)
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 < value <= 3600:
        raise DataError(f"the bundle's detection settings: {name} is no number of seconds")
    return float(value)
