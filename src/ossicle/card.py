"""The model card: what a bundle says of itself in words, as Markdown for people."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ossicle import __version__
from ossicle.detector import Detector
from ossicle.model import Model

METRICS = {"map": "mean average precision", "r2": "R²"}
# What Markdown would take for a mark anywhere in a line, and what it would at its beginning.
_MARKS = re.compile(r"[\\`*_\[\]|~#]")
_FIRST = re.compile(r"^(?:[-+=]|\d+(?=[.)]))")


def plain_card(model: Model, title: str | None = None) -> str:
    """A model card with what the model itself knows: use, score, parts, classes.

    Args:
        model: with whatever its label, ``model.info``, tells; anything missing or of another kind
            than ``ossicle train`` writes there is passed over.
        title: the heading; None takes the label's title or the network's name.
    """
    label = model.info
    lines = [
        f"# {one_line(title or label.get('title') or label.get('name') or 'model')}",
        "",
        _what(model),
        "",
        *_how_to_use(model),
        "",
        "## How well it does",
        "",
        _measured(model),
        "",
        "## What it is made of",
        "",
        *(f"- {part}" for part in _parts(model)),
    ]
    if model.classes:
        lines += ["", "## Classes", ""]
        counts = _mapping(label.get("labels"))
        for i, name in enumerate(model.classes, start=1):
            lines.append(f"{i}. {one_line(name)}{_clips(counts.get(name))}")
    return "\n".join(lines) + "\n"


def _what(model: Model) -> str:
    if model.head is None:
        return "It turns sound into features; it has no classes."
    if model.task == "regression":
        return "It gives a number for a sound."
    n = len(model.classes)
    if isinstance(model, Detector):
        return (
            f"It tells when which of {n} classes sound in a recording: one, several or none at a "
            f"time. It is a detector: every {1000 * model.frame_hop_s:g} ms have a score for each "
            "class."
        )
    if model.task == "multilabel":
        return f"It tells which of {n} classes are in a sound: one, several or none."
    return f"It tells {n} classes of sound apart."


def _how_to_use(model: Model) -> list[str]:
    if isinstance(model, Detector):
        return [
            "An ossicle model. `ossicle detect THIS_FOLDER recordings/ -o events` writes a table",
            "of events, from when to when; `ossicle predict THIS_FOLDER recordings/ -o labels.csv`",
            'scores whole recordings; `ossicle.bundle.load("THIS_FOLDER")` gives it in Python.',
        ]
    return [
        "An ossicle model. `ossicle predict THIS_FOLDER recordings/ -o labels.csv` labels",
        'recordings; `ossicle.load("THIS_FOLDER")` gives it in Python.',
    ]


def _measured(model: Model) -> str:
    """The score with its interval, how it was come by, and what it does not cover."""
    label, n_clips = model.info, model.info.get("n_clips")
    fitted = f"all {n_clips} clips" if type(n_clips) is int else "all clips"
    score = _mapping(label.get("score"))
    value = _number(score.get("value"))
    if value is None and isinstance(model, Detector):
        known = f" It was trained on {n_clips} recordings." if type(n_clips) is int else ""
        return f"No score was measured with it.{known}"
    if value is None:
        known = f" It was fitted on {fitted}." if "n_clips" in label else ""
        return (
            f"No score was measured with it.{known} `ossicle evaluate` measures one on clips of "
            "your own."
        )
    metric = str(score.get("metric") or "score")
    text = f"{_upper(one_line(METRICS.get(metric, metric)))} {value:.3f}"
    low, high = _number(score.get("low")), _number(score.get("high"))
    if low is not None and high is not None:
        text += f" (95 % interval {low:.3f} to {high:.3f})"
    if label.get("protocol"):
        text += f", measured by {one_line(label['protocol'])}"
    if isinstance(model, Detector):
        return f"{text}."
    return (
        f"{text}. The model in this folder was then fitted on {fitted}, so its scores on these "
        "very clips say nothing."
    )


def _parts(model: Model) -> list[str]:
    label = model.info
    parts = [
        f"audio: mono, resampled to {model.sample_rate} Hz by itself",
        f"clips: {model.clip.describe(model.sample_rate)}",
    ]
    for key, name in (("name", "backbone"), ("source", "source")):
        if label.get(key):
            parts.append(f"{name}: {one_line(label[key])}")
    if label.get("weights"):
        licence = f"; licence: {one_line(label['licence'])}" if label.get("licence") else ""
        parts.append(f"weights: {one_line(label['weights'])}{licence}")
    if label.get("origin"):
        parts.append(f"origin of the weights: {one_line(label['origin'])}")
    probe = _mapping(label.get("probe"))
    if probe.get("name"):
        settings = [
            f"{one_line(key)} {value:g}"
            for key, value in probe.items()
            if _number(value) is not None
        ]
        chosen = f" ({', '.join(settings)})" if settings else ""
        layers = {block.rpartition("/")[0] for block in model.readout}
        read = "1 layer" if len(layers) == 1 else f"{len(layers)} layers"
        parts.append(f"probe: {one_line(probe['name'])}{chosen} on {read}")
    parts.append(f"parameters: {model.num_parameters:,}")
    date = re.match(r"\d{4}-\d\d-\d\d", str(label.get("created") or ""))
    parts.append(f"made by: ossicle {__version__}{f' on {date[0]}' if date else ''}")
    return parts


def _clips(count: Any) -> str:
    n = _mapping(count).get("clips")
    return "" if type(n) is not int else f": {n} clip{'' if n == 1 else 's'}"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _mapping(value: Any) -> Mapping[str, Any]:
    """The value where it is a mapping: a label may come from anyone's bundle."""
    return value if isinstance(value, Mapping) else {}


def _number(value: Any) -> float | None:
    """A finite number as it is, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e300 else None


def one_line(text: Any) -> str:
    """Text in one line that Markdown shows as it stands."""
    line = _MARKS.sub(r"\\\g<0>", " ".join(str(text).split()))
    line = _FIRST.sub(lambda m: f"{m[0]}\\" if m[0].isdigit() else f"\\{m[0]}", line)
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") or "(no name)"
