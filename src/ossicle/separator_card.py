"""The card of a separator's bundle: what it takes apart, how well, and how to use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ossicle import __version__
from ossicle.card import one_line
from ossicle.separators.base import Separator


def separator_card(separator: Separator, title: str | None = None) -> str:
    """Markdown, with what the separator itself knows.

    Args:
        separator: with whatever its label, ``separator.info``, tells; what is missing or of another
            kind than training writes there is passed over.
        title: the heading.
    """
    info = separator.info
    denoises = separator.sources == ("foreground", "background")
    verb = "denoise" if denoises else "separate"
    system = one_line(info.get("system") or type(separator).__name__)
    lines = [f"# {one_line(title or info.get('title') or system)}", ""]
    lines += [_what(separator, denoises), ""]
    lines += [f"An ossicle model. `ossicle {verb} run THIS_FOLDER recordings/ -o DIR` takes"]
    lines += ["recordings of any length, rate and number of channels apart;"]
    lines += ['`ossicle.bundle.load_separator("THIS_FOLDER")` gives it in Python.', ""]
    lines += ["## How well it does", "", _measured(info), ""]
    lines += ["## What it is made of", "", f"- system: {system}"]
    lines += [f"- audio: resampled to {separator.sample_rate} Hz by itself, and back"]
    lines += [f"- parameters: {separator.num_parameters:,}"]
    trained = info.get("trained_on")
    if isinstance(trained, Mapping):
        told = [f"{one_line(key)} {one_line(value)}" for key, value in trained.items() if value]
        lines += [f"- trained on: {', '.join(told)}"]
    for key in ("weights", "licence"):
        if info.get(key):
            lines += [f"- {key}: {one_line(info[key])}"]
    lines += [f"- made by: ossicle {__version__}", ""]
    return "\n".join(lines)


def _what(separator: Separator, denoises: bool) -> str:
    if denoises:
        return "It takes noise out of recordings."
    if not separator.sources:
        return "It takes recordings of several like sources, such as speakers, apart."
    names = ", ".join(one_line(name) for name in separator.sources)
    return f"It takes recordings apart into {names}."


def _measured(info: Mapping[str, Any]) -> str:
    score = info.get("validation")
    if isinstance(score, Mapping):
        for name, value in score.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                return (
                    f"{one_line(name).replace('_', ' ')}: {value:.2f}, on the mixtures it was "
                    "chosen by. `ossicle separate score` measures it on others."
                )
    return "No score was measured with it. `ossicle separate score` measures one."
