"""What all ways of pre-training share: the network, what it is shown, its moving average."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ossicle.backbones import Backbone
from ossicle.pretrain.optimiser import MovingAverage
from ossicle.pretrain.views import Views
from ossicle.train import Objective, Step


class Pretraining(Objective):
    """An objective over one backbone; subclasses define ``forward``.

    Args:
        backbone: what is trained.
        views: front end and augmentations.

    Attributes:
        num_views: crops of each item that the objective compares.
        last_layers: modules behind the backbone, which adaptive clipping leaves alone.
    """

    num_views = 2

    def __init__(self, backbone: Backbone, views: Views) -> None:
        super().__init__()
        backbone.requires_grad_(True)
        # The memory format in which convolutions are fastest.
        self.backbone = backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.views = views
        self.average_backbone: nn.Module | None = None
        self._average: MovingAverage | None = None

    def begin_with(self, network: Mapping[str, Tensor]) -> None:
        """Give the backbone these weights; what follows it begins there too."""
        self.backbone.load_state_dict(network)

    def keep_average(self, decay: float) -> None:
        """From now on follow the backbone by a moving average: what is taken away at the end."""
        self.average_backbone = copy.deepcopy(self.backbone)
        self._average = MovingAverage(self.backbone, self.average_backbone, decay)

    @property
    def result(self) -> nn.Module:
        """The backbone to take away: the moving average where one is kept."""
        return self.backbone if self.average_backbone is None else self.average_backbone

    def clipped(self) -> list[nn.Parameter]:
        """Parameters for adaptive gradient clipping: all of the backbone's."""
        return [p for p in self.backbone.parameters() if p.requires_grad]

    def after_update(self, step: Step) -> None:
        """The average moves a little towards the network."""
        if self._average is not None:
            self._average.update()


def embedding(maps: dict[str, Tensor]) -> Tensor:
    """The last layer's mean over bands and time: (B, C), float32."""
    return maps[next(reversed(maps))].float().flatten(2).mean(2)


def mlp(sizes: Sequence[int], *, norm: bool, last_bias: bool) -> nn.Sequential:
    """Linear layers with ReLU, and maybe batch norm before it, between them."""
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(pairwise(sizes)):
        last = i == len(sizes) - 2
        layers.append(nn.Linear(a, b, bias=not last or last_bias))
        if not last:
            layers += [nn.BatchNorm1d(b)] if norm else []
            layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)
