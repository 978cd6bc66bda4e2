"""The contract of every backbone: named layer maps, and how the network expects to be fed.

B batch, C channels, F bands, T frames; time is always last.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ossicle.backbones.layers import he_normal_


class LayerInfo(NamedTuple):
    """What a layer gives, known without running the network.

    Attributes:
        name: the key in the ordered dict that ``forward`` returns.
        channels: C of the map.
        bands: F' of the map under the network's own front end; 0 where the map has no band axis.
        stride: frames of the front end for each frame of the map.
    """

    name: str
    channels: int
    bands: int
    stride: int


class Backbone(nn.Module):
    """A network without its front end: (B, 1, F, T) -> {layer: (B, C, F', T') or (B, C, T')}.

    Attributes:
        feature_info: one ``LayerInfo`` a layer, shallow to deep, built with the network.
        frontend: ``{"name": ..., **config}`` of the front end it was trained with.
        clip: how a clip of any length is cut or filled, see ``ossicle.backbones.clip_policy``.
        patches: how the classifier it was published with hears a clip, see
            ``ossicle.model.Patches``; None: as ``clip`` says.
        poolings: the read-outs of a layer that suit it, see ``ossicle.heads.POOLINGS``.
        source: paper and licence of the network, one line.
        reach: input frames on either side that a frame of any map depends on, where that is so by
            the network's design; None: it depends on the whole clip.
        seedless_layers: those that are the same for all random weights, by the network's design.
    """

    frontend: ClassVar[dict[str, Any]]
    clip: ClassVar[dict[str, Any]]
    patches: ClassVar[dict[str, Any] | None] = None
    poolings: ClassVar[tuple[str, ...]] = ("mean", "max", "band")
    source: ClassVar[str] = ""
    reach: ClassVar[int | None] = None
    seedless_layers: ClassVar[tuple[str, ...]] = ()
    feature_info: tuple[LayerInfo, ...]

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of all layers, shallow to deep."""
        return tuple(info.name for info in self.feature_info)

    @property
    def num_features(self) -> int:
        """C of the last layer: the size of the usual clip embedding."""
        return self.feature_info[-1].channels

    def config(self) -> dict[str, Any]:
        """Keyword arguments that rebuild the network; JSON values."""
        return {}

    def draw_weights(self, generator: torch.Generator) -> None:
        """Put random weights into a network just built: all of them from ``generator``.

        The default is He's for convolutions and linear layers. Batch norms stay the identity: He's
        variance alone keeps every layer alive (about half of all values are 0, hardly one
        saturates), while statistics fitted on noise make the deep layers of a random network
        chaotic: YAMNet's last one fell from .72 to .44 on ESC-10.
        """
        he_normal_(self, generator)

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """(B, 1, F, T) -> every layer's map by name, shallow to deep."""
        raise NotImplementedError(f"{type(self).__name__} must define forward")
