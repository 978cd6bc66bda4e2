"""Networks that are not ours, by the name of their family and where they are: `hf:DIR`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from ossicle.backbones.base import Backbone
from ossicle.backbones.hear import HEARBackbone, open_hear
from ossicle.backbones.hf import HFBackbone
from ossicle.backbones.hf_files import open_hf
from ossicle.errors import OssicleError


class BackboneFamily(NamedTuple):
    """A way to name any network of one kind.

    Attributes:
        backbone: the class of its networks.
        open: (what stands after the colon, with its weights?) -> backbone, label.
        usage: how a network of it is named.
        description: which networks these are, in a few words.
    """

    backbone: type[Backbone]
    open: Callable[[str, bool], tuple[Backbone, dict[str, Any]]]
    usage: str
    description: str


FAMILIES: dict[str, BackboneFamily] = {
    "hear": BackboneFamily(
        HEARBackbone,
        open_hear,
        "hear:MODULE[:FILE]",
        "an installed Python module with the API of the HEAR benchmark",
    ),
    "hf": BackboneFamily(
        HFBackbone,
        open_hf,
        "hf:FOLDER or hf:NAME[@REVISION]",
        "an audio encoder of the transformers library: AST, CLAP, data2vec, HuBERT, UniSpeech, "
        "wav2vec 2.0, WavLM, Whisper",
    ),
}


def is_family(name: str) -> bool:
    """Whether a backbone's name begins with that of a family and a colon."""
    return ":" in name and name.partition(":")[0] in FAMILIES


def open_family(
    name: str, pretrained: bool, seed: int, config: dict[str, Any]
) -> tuple[Backbone, dict[str, Any]]:
    """A network of a family, and its label.

    Args:
        name: "FAMILY:WHAT".
        pretrained: with its weights; else they are drawn from ``seed``.
        seed: of random weights.
        config: must be empty: such a network brings its own configuration.

    Raises:
        OssicleError: there is no such network, it cannot be used, or keywords were passed.
        DownloadError: it is not to be had.
    """
    if config:
        raise OssicleError(f"{name} brings its own configuration: leave out {', '.join(config)}")
    family, _, what = name.partition(":")
    with torch.random.fork_rng(devices=[]):  # others' constructors draw; the caller's numbers stay
        backbone, label = FAMILIES[family].open(what, pretrained)
    label |= {"pretrained": pretrained, "source": backbone.source}
    if not pretrained:
        backbone.draw_weights(torch.Generator().manual_seed(seed))
        label |= {"weights": f"random, seed {seed}", "licence": "none needed"}
        label.pop("origin", None)
    return backbone, label
