"""Layers as a user asks for them: names, numbers, ranges."""

from __future__ import annotations

from collections.abc import Sequence

from ossicle.errors import OssicleError


def layers_asked(names: Sequence[str], layers: str | int | Sequence[str | int]) -> tuple[str, ...]:
    """Of a network's layer names those asked for, shallow to deep, each once.

    Args:
        names: all, shallow to deep.
        layers: as for ``Model.select_layers``.

    Raises:
        OssicleError: no such layer, or none at all.
    """
    if isinstance(layers, int):
        layers = [layers]
    parts = layers.split(",") if isinstance(layers, str) else list(layers)
    if not parts:
        raise OssicleError("no layer is chosen: pass all, last, numbers or names")
    chosen: set[int] = set()
    for part in parts:
        chosen.update(_layer_range(names, str(part).strip()))
    return tuple(names[i] for i in sorted(chosen))


def _layer_range(names: Sequence[str], text: str) -> range:
    n = len(names)
    if text == "all":
        return range(n)
    if text == "last":
        return range(n - 1, n)
    if text in names:
        return range(names.index(text), names.index(text) + 1)
    first, dash, last = text.partition("-") if not text.startswith("-") else (text, "", "")
    try:
        a = int(first)
        b = int(last) if dash else a
    except ValueError:
        a = b = 0
    if a < 0:
        a = b = n + 1 + a
    if not 1 <= a <= b <= n:
        shown = ", ".join(names if n <= 8 else [*names[:3], "...", *names[-3:]])
        raise OssicleError(f"no layer {text!r}: 1 to {n}, all, last, or a name ({shown})")
    return range(a - 1, b)
