"""The files of a bundle, read without trust: bounded, of the expected shapes, all finite."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ossicle.bundle_checks import CONFIG, short, shown
from ossicle.errors import BundleError

MAX_CONFIG_BYTES = 20_000_000
MAX_HEADER_BYTES = 20_000_000
# Beyond this only the stack would be eaten: nesting of the config.
MAX_DEPTH = 32


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file, of bounded size and depth, without NaN and infinity.

    Raises:
        BundleError: anything else.
    """
    if file.stat().st_size > MAX_CONFIG_BYTES:
        raise BundleError(f"{file}: larger than any real one")
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
        _check_depth(value)
        # What could not be written again: NaN, infinity, half a surrogate pair.
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{file}: not JSON ({short(error)})") from error
    if not isinstance(value, dict):
        raise BundleError(f"{file}: not a JSON object")
    return value


def _check_depth(value: Any, depth: int = 0) -> None:
    if depth > MAX_DEPTH:
        raise ValueError("nested deeper than any real one")
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, depth + 1)


def read_tensors(path: Path, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of exactly the expected names, shapes and types, all finite.

    Raises:
        BundleError: anything else.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
    header = struct.unpack("<Q", start)[0] if len(start) == 8 else size
    if header > min(size - 8, MAX_HEADER_BYTES):
        raise BundleError(f"{path}: not safetensors, or cut short")
    try:
        # Copies: the file may change or shrink while the model lives.
        tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    except (SafetensorError, OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise BundleError(f"{path}: not safetensors, or cut short ({short(error)})") from error
    missing, foreign = sorted(set(expected) - set(tensors)), sorted(set(tensors) - set(expected))
    if missing or foreign:
        what = f"lacks {missing[0]}" if missing else f"holds {shown(foreign[0])}, not the model's"
        raise BundleError(f"{path}: {what}")
    for name, tensor in tensors.items():
        want = expected[name]
        if tensor.shape != want.shape or tensor.dtype != want.dtype:
            raise BundleError(
                f"{path}: {name} is {_shape(tensor)}, {CONFIG} asks for {_shape(want)}"
            )
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise BundleError(f"{path}: {name} holds NaN or infinity")
    return tensors


def _shape(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
