"""The networks as a table: what `ossicle backbones` prints."""

from __future__ import annotations

from typing import Any

from ossicle.backbones import FAMILIES, WEIGHTS
from ossicle.model import create_model, list_models


def describe_models(pattern: str = "*") -> list[dict[str, Any]]:
    """A row for each network whose name matches; nothing is downloaded.

    Keys: name, parameters, sample_rate (Hz), layers, embedding (values of the last layer), dims
    (values of all layers under the network's own poolings), weights (in a few words), licence,
    origin (of the weights' files; None where there are none), source.
    """
    rows = []
    for name in list_models(pattern):
        model = create_model(name)
        blocks = [f"{layer}/{p}" for layer in model.layers for p in model.backbone.poolings]
        weights = WEIGHTS.get(name)
        rows.append(
            {
                "name": name,
                "parameters": model.num_parameters,
                "sample_rate": model.sample_rate,
                "layers": len(model.layers),
                "embedding": model.backbone.num_features,
                "dims": sum(model.block_sizes(blocks).values()),
                "weights": weights.description if weights else model.info["weights"],
                "licence": weights.licence if weights else "none needed",
                "origin": weights.origin if weights else None,
                "source": model.backbone.source,
            }
        )
    return rows


def describe_families() -> list[dict[str, str]]:
    """How networks that are not ours are named: family, usage, description."""
    return [
        {"family": name, "usage": family.usage, "description": family.description}
        for name, family in FAMILIES.items()
    ]
