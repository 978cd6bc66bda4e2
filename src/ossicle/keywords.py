"""KEY=VALUE texts as keyword arguments, typed by what a callable's signature says."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from ossicle.errors import OssicleError

TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def parse_keywords(texts: Sequence[str], function: Callable[..., Any], what: str) -> dict[str, Any]:
    """["width=1/8", "multiscale=true"] -> {"width": 0.125, "multiscale": True}.

    Args:
        texts: KEY=VALUE each; a number may be a fraction, a tuple's values have commas between.
        function: a class or function that takes the keywords.
        what: it in words, for messages.

    Raises:
        OssicleError: a text is no KEY=VALUE, the keyword is unknown, or the value is of another
            type.
    """
    target = function.__init__ if inspect.isclass(function) else function
    hints = get_type_hints(target)
    known = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if _known(hints.get(name, Any)) and parameter.kind is not parameter.VAR_KEYWORD
    ]
    values: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip().replace("-", "_")
        if not equals:
            raise OssicleError(f"{text!r}: write it as KEY=VALUE")
        if key not in known:
            listed = ", ".join(known) or "none"
            raise OssicleError(f"{what} has no keyword {key!r}; it has: {listed}")
        where = f"{what}: {key}"
        if several := _items(hints[key]):
            parts = [part.strip() for part in value.split(",") if part.strip()]
            values[key] = tuple(_value(part, several, where) for part in parts)
        else:
            values[key] = _value(value.strip(), _kinds(hints[key]), where)
    return values


def _known(hint: Any) -> bool:
    return bool(_kinds(hint) or _items(hint))


def _items(hint: Any) -> list[type]:
    """The types that the items of a tuple of any length may have; none for other hints."""
    arguments = get_args(hint)
    if get_origin(hint) is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return _kinds(arguments[0])
    return []


def _kinds(hint: Any) -> list[type]:
    """The types among bool, int, float and str that a hint allows, and None."""
    if get_origin(hint) in (Union, UnionType):
        return [kind for part in get_args(hint) for kind in _kinds(part)]
    return [hint] if hint in (bool, int, float, str, type(None)) else []


def _value(text: str, kinds: list[type], where: str) -> Any:
    for kind in (type(None), bool, int, float, str):
        if kind not in kinds:
            continue
        if kind is type(None) and text.lower() == "none":
            return None
        if kind is bool and text.lower() in TRUTHS:
            return TRUTHS[text.lower()]
        if kind in (int, float):
            number = _number(text)
            if number is not None and (kind is float or number == int(number)):
                return kind(number)
        if kind is str:
            return text
    names = " or ".join("none" if kind is type(None) else kind.__name__ for kind in kinds)
    raise OssicleError(f"{where} is {text!r}: it must be {names}")


def _number(text: str) -> float | None:
    top, slash, bottom = text.partition("/")
    try:
        number = float(top) / float(bottom) if slash else float(top)
    except (ValueError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) else None
