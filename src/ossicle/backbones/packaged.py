"""Weights that lie inside the package: read from its own files, never fetched.

`ossicle/weights/NAME.safetensors` holds a network's parameters in float16, half of what they take
in training, and its card is `NAME.md` beside it. `write_packaged` makes the file from a bundle.
"""

from __future__ import annotations

import hashlib
import json
from functools import partial
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as as_safetensors
from torch import Tensor

from ossicle.backbones.clip_policy import ClipPolicy
from ossicle.backbones.weight_files import Weights, WeightSource
from ossicle.errors import BundleError
from ossicle.frontend import create_frontend
from ossicle.record import replaced

MAX_BYTES = 4_000_000  # of a file: every copy of the package carries it
FORMAT = "ossicle-weights"
_MEND = "install ossicle anew, or make it with `make weights`"
_PREFIX = "backbone."


def packaged_source(name: str, description: str, licence: str) -> WeightSource:
    """The weights of a network that lie in the package.

    Args:
        name: of the network and the file.
        description: what it was trained on, in a few words.
        licence: its SPDX identifier.
    """
    origin = f"in the package, ossicle/weights/{name}.safetensors; made by `make weights`"
    return WeightSource(description, licence, origin, partial(read_packaged, name))


def read_packaged(name: str, folder: Traversable | None = None) -> Weights:
    """The weights of a network from the package's own files, as float32.

    Args:
        name: of the network.
        folder: that holds them; None is the package's.

    Returns:
        All parameters and statistics; no classifier.

    Raises:
        BundleError: the file is missing, damaged, or another network's.
    """
    place = (resources.files("ossicle") / "weights" if folder is None else folder) / (
        f"{name}.safetensors"
    )
    if not place.is_file():
        raise BundleError(f"{place}: the weights that come with the package are missing: {_MEND}")
    try:
        with resources.as_file(place) as path:
            with safe_open(path, framework="pt") as file:
                label = json.loads((file.metadata() or {})["ossicle"])
            tensors = load_file(path)
        whole = label["format"] == FORMAT and label["sha256"] == _checksum(tensors)
        found = label["backbone"]
    except (SafetensorError, OSError, LookupError, TypeError, ValueError) as error:
        raise BundleError(f"{place}: damaged or cut short: {_MEND}") from error
    if not whole:
        raise BundleError(f"{place}: damaged, its checksum is another: {_MEND}")
    if found != name:
        raise BundleError(f"{place}: holds the weights of {found}: {_MEND}")
    return Weights({key: _widened(tensor) for key, tensor in tensors.items()}, None, ())


def write_packaged(bundle_folder: str | Path, out: str | Path) -> Path:
    """The network of a bundle as a file of the package; its head, if it has one, stays behind.

    Kernels are rounded to the nearest float16. What has one axis or none stays as it is (biases,
    scales and statistics of batch norms, counts). The same bundle gives the same bytes.

    Args:
        bundle_folder: what ``ossicle.bundle.save`` wrote.
        out: the file, .safetensors; it appears whole or not at all.

    Returns:
        The file.

    Raises:
        BundleError: it is no bundle; its network, front end or clips are not those that the name
            stands for; a value is not finite or too large for float16; or the file would have more
            than ``MAX_BYTES``.
    """
    folder, out = Path(bundle_folder), Path(out)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        state = {
            key.removeprefix(_PREFIX): tensor
            for key, tensor in load_file(folder / "model.safetensors").items()
            if key.startswith(_PREFIX)
        }
        name = str(config["backbone"]["name"])
    except (SafetensorError, OSError, LookupError, TypeError, ValueError) as error:
        raise BundleError(f"{folder}: no bundle that could be packaged ({error})") from error
    _check_network(folder, name, config, state)
    tensors = {key: _narrowed(folder, key, tensor) for key, tensor in state.items()}
    label = {"format": FORMAT, "backbone": name, "sha256": _checksum(tensors)}
    # One entry: safetensors writes several in any order.
    data = as_safetensors(tensors, {"ossicle": json.dumps(label)})
    if len(data) > MAX_BYTES:
        raise BundleError(
            f"{folder}: its weights take {len(data):,} bytes as float16, and the package carries "
            f"{MAX_BYTES:,} at most: train a smaller network"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with replaced(out) as temporary:
        temporary.write_bytes(data)
    return out


def _check_network(
    folder: Path, name: str, config: dict[str, Any], state: dict[str, Tensor]
) -> None:
    """Refuse what `create_model(name, pretrained=True)` would put together in another way."""
    from ossicle.backbones import BACKBONES  # which holds the sources made here

    if name not in BACKBONES:
        raise BundleError(f"{folder}: {name} is no network of ours")
    kind = BACKBONES[name]
    with torch.device("meta"):
        network = kind()
    own: dict[str, Any] = {
        "backbone": {"name": name, "config": network.config()},
        "frontend": {"name": kind.frontend["name"], **create_frontend(**kind.frontend).config()},
        "clip": ClipPolicy(**kind.clip)._asdict(),
    }
    for part, plain in own.items():
        # By way of JSON, as the bundle's have gone.
        if config.get(part) != json.loads(json.dumps(plain)):
            raise BundleError(
                f"{folder}: its {part} is not that of a plain {name}: train it without keywords"
            )
    shapes = {key: (tensor.shape, tensor.dtype) for key, tensor in network.state_dict().items()}
    if {key: (tensor.shape, tensor.dtype) for key, tensor in state.items()} != shapes:
        raise BundleError(f"{folder}: its weights are not those of {name}")


def _narrowed(folder: Path, key: str, tensor: Tensor) -> Tensor:
    """What is kept of a tensor.

    Raises:
        BundleError: a value is not finite, or would not be.
    """
    if not tensor.is_floating_point():
        return tensor
    if not tensor.isfinite().all():
        raise BundleError(f"{folder}: {key} holds NaN or infinity")
    # A number for a whole channel: together they are a hundredth of the file, rounding them costs
    # the features as much again as rounding the kernels, and a variance may lie outside of float16.
    kept = tensor if tensor.dim() < 2 else tensor.half()
    if not kept.isfinite().all():
        raise BundleError(f"{folder}: {key} holds {tensor.abs().max():.6g}, too large for float16")
    return kept.contiguous()


def _widened(tensor: Tensor) -> Tensor:
    # Copies: the mapped file may be removed while the network lives.
    return tensor.float() if tensor.dtype == torch.float16 else tensor.clone()


def _checksum(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values, in the order of names."""
    total = hashlib.sha256()
    for key in sorted(tensors):
        tensor = tensors[key]
        total.update(f"{key}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        total.update(tensor.contiguous().numpy().tobytes())
    return total.hexdigest()


STAPES = packaged_source("stapes", "open audio, by distillation of frozen networks", "MIT")
