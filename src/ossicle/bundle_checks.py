"""What a bundle's config may say: values of the right kind, in a real range, or one error.

Bundles come from strangers: nothing is bent into shape, and no number makes memory run out.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ossicle.backbones.clip_policy import ClipPolicy, Patches
from ossicle.errors import BundleError

CONFIG = "config.json"
# Beyond these only memory would be eaten: any number in a front end or clip policy, those that
# matrices are made of, values of a filter bank, samples of a clip's window (over an hour at
# 16 kHz).
MAX_NUMBER = 1_000_000
MAX_SIZES = {"n_fft": 65_536, "win_length": 65_536, "n_mels": 2048, "delta_width": 1001}
MAX_LIST = 1000
MAX_FILTERS = 4_000_000
MAX_WINDOW_SAMPLES = 80_000_000


def object_of(config: dict[str, Any], key: str) -> dict[str, Any]:
    """The object under a key.

    Raises:
        BundleError: there is none.
    """
    value = config.get(key)
    if not isinstance(value, dict):
        raise BundleError(f"{CONFIG} lacks {key!r}")
    return value


def strings_of(config: dict[str, Any], key: str) -> tuple[str, ...]:
    """The list of strings under a key.

    Raises:
        BundleError: there is none.
    """
    value = config.get(key)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BundleError(f"{CONFIG}: {key!r} must be a list of strings")
    return tuple(value)


def one_of(config: dict[str, Any], key: str, known: Mapping[str, Any], what: str) -> str:
    """The name under a key, if it is known.

    Args:
        config: an object.
        key: in it.
        known: the names.
        what: they are of, for the message.

    Raises:
        BundleError: it is not.
    """
    value = config.get(key)
    if not isinstance(value, str) or value not in known:
        raise BundleError(f"{what} {shown(value)} is unknown to this version ({', '.join(known)})")
    return value


def sizes_of(head: dict[str, Any]) -> list[int]:
    """A head's sizes.

    Raises:
        BundleError: they are none.
    """
    sizes = head.get("sizes")
    if not isinstance(sizes, list) or not 2 <= len(sizes) <= 8:
        raise BundleError("the head's sizes are not a list of two or a few more")
    if not all(type(size) is int and 0 < size <= MAX_NUMBER for size in sizes):
        raise BundleError("the head's sizes are not all sizes")
    return sizes


def patches_of(config: dict[str, Any]) -> Patches | None:
    """How the head hears a clip; bundles without the entry have heads that hear whole clips.

    Raises:
        BundleError: the entry makes no sense.
    """
    if config.get("patches") is None:
        return None
    entry = object_of(config, "patches")
    check_values(entry, get_type_hints(Patches), "patches")
    patches = Patches(**entry)
    if not 0.001 <= patches.hop_s <= patches.window_s <= 3600:
        raise BundleError(f"patches of {patches.window_s} s every {patches.hop_s} s make no sense")
    if patches.last not in ("zeros", "overlap"):
        raise BundleError(f"unknown last patch: {shown(patches.last)}")
    return patches


def clip_policy_of(clip: dict[str, Any], sample_rate: int) -> ClipPolicy:
    """How clips are cut and filled.

    Raises:
        BundleError: it makes no sense.
    """
    check_values(clip, get_type_hints(ClipPolicy), "clip")
    policy = ClipPolicy(**clip)
    if policy.fill not in ("none", "repeat"):
        raise BundleError(f"unknown way to fill a clip: {policy.fill!r}")
    shortest_window = max(policy.min_s, 1 / sample_rate)
    longest_window = MAX_WINDOW_SAMPLES / sample_rate
    if not (policy.min_s >= 0 and shortest_window <= policy.window_s <= longest_window):
        raise BundleError(f"clip windows of {policy.min_s} to {policy.window_s} s make no sense")
    return policy


def check_values(keywords: dict[str, Any], hints: dict[str, Any], where: str) -> None:
    """Refuse values of other types than the parameters', and numbers beyond any real range.

    Args:
        keywords: to be passed to a constructor.
        hints: type hints of its parameters.
        where: in the config, for messages.

    Raises:
        BundleError: a value is refused.
    """
    for key, value in keywords.items():
        if key not in hints and key != "name":
            raise BundleError(f"{where}: {shown(key)} is unknown to this version")
        if key in hints and type(value) not in _types(hints[key]):
            raise BundleError(f"{where}.{key} is a {type(value).__name__}, which it cannot be")
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, int | float) and not abs(item) <= MAX_SIZES.get(key, MAX_NUMBER):
                raise BundleError(f"{where}.{key} is out of any real range")
        if isinstance(value, list):
            _check_list(value, hints.get(key), f"{where}.{key}")
    if keywords.get("n_fft", 0) * keywords.get("n_mels", 1) > MAX_FILTERS:
        raise BundleError(f"{where}: its filters would fill the memory")
    if keywords.get("sample_rate", 1) < 1:
        raise BundleError(f"{where}.sample_rate must be at least 1")


def _check_list(values: list[Any], hint: Any, where: str) -> None:
    """Refuse long lists and, where the hint says of what a list is, items of other types."""
    if len(values) > MAX_LIST:
        raise BundleError(f"{where} is longer than any real one")
    kinds = [part for part in (hint, *get_args(hint)) if get_origin(part) is list]
    if kinds and not all(type(value) in _types(get_args(kinds[0])[0]) for value in values):
        raise BundleError(f"{where} holds what it cannot")


def _types(hint: Any) -> set[type]:
    """The JSON types that a type hint takes; a whole number may stand for a float."""
    if get_origin(hint) in (Union, UnionType):
        return set().union(*(_types(part) for part in get_args(hint)))
    if get_origin(hint) is Literal:
        return {type(value) for value in get_args(hint)}
    return {int, float} if hint is float else {get_origin(hint) or hint}


def short(error: Exception) -> str:
    """An error in one line; what it quotes from the file cannot steer a terminal."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return "".join(c if c.isprintable() else "?" for c in line)


def shown(value: Any) -> str:
    """Any value in a few characters that cannot steer a terminal."""
    return ascii(value)[:80]
