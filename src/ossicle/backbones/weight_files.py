"""What a set of weights is, and how a converted one is kept: a safetensors file in the cache."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as as_safetensors
from torch import Tensor

from ossicle.record import replaced


class Weights(NamedTuple):
    """Weights of a network and of the classifier it was trained with.

    Attributes:
        state: tensors by the backbone's own parameter names.
        head: (weight (K, D), bias (K,)) of the source task's classifier; None where the
            publication does not name its classes.
        classes: the K class names of the source task; none without a head.
        hidden: (weight, bias) of each layer of the classifier before ``head``, with ReLU behind.
        readout: the blocks "LAYER/POOLING" that the classifier reads; none: the last layer's mean.
    """

    state: dict[str, Tensor]
    head: tuple[Tensor, Tensor] | None
    classes: tuple[str, ...]
    hidden: tuple[tuple[Tensor, Tensor], ...] = ()
    readout: tuple[str, ...] = ()


class WeightSource(NamedTuple):
    """Where a set of weights comes from and under which licence.

    Attributes:
        description: what it was trained on, in a few words.
        licence: its SPDX identifier.
        origin: the published files that it is made of.
        load: fetches and converts it.
    """

    description: str
    licence: str
    origin: str
    load: Callable[[], Weights]


def read_cached(path: Path) -> Weights | None:
    """What ``write_cached`` wrote; None where there is nothing whole."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata()
            classes = tuple(json.loads(metadata["classes"]))
            readout = tuple(json.loads(metadata.get("readout", "[]")))
        head = (tensors.pop("head.weight"), tensors.pop("head.bias")) if classes else None
        hidden: list[tuple[Tensor, Tensor]] = []
        while (name := f"hidden.{len(hidden)}") + ".weight" in tensors:
            hidden.append((tensors.pop(f"{name}.weight"), tensors.pop(f"{name}.bias")))
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError):
        return None
    return Weights(tensors, head, classes, tuple(hidden), readout)


def write_cached(path: Path, weights: Weights) -> None:
    """Keep converted weights as safetensors; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = dict(weights.state)
    if weights.head is not None:
        tensors["head.weight"], tensors["head.bias"] = weights.head
    for i, (weight, bias) in enumerate(weights.hidden):
        tensors[f"hidden.{i}.weight"], tensors[f"hidden.{i}.bias"] = weight, bias
    with replaced(path) as temporary:
        # Not safetensors' save_file, whose files nobody else may read.
        metadata = {"classes": json.dumps(weights.classes), "readout": json.dumps(weights.readout)}
        temporary.write_bytes(as_safetensors(tensors, metadata))
