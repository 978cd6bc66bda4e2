"""BYOL: one network predicts what a slowly following copy of itself makes of another view.

Grill et al. 2020, arXiv 2006.07733; for audio Niizumi et al. 2021 and 2023 (BYOL-A), arXiv
2103.06695 and 2204.07402.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ossicle.backbones import Backbone
from ossicle.pretrain.objective import Pretraining, embedding, mlp
from ossicle.pretrain.optimiser import MovingAverage
from ossicle.pretrain.views import Views
from ossicle.train import Batch, Step

DECAY = 0.99


def byol_distance(prediction: Tensor, target: Tensor) -> Tensor:
    """2 - 2 cos(q, z), mean over the batch (2006.07733, eq. 2): (B, D), (B, D) -> ()."""
    q, z = F.normalize(prediction.float(), dim=1), F.normalize(target.float(), dim=1)
    return (2 - 2 * (q * z).sum(1)).mean()


class BYOL(Pretraining):
    """Symmetrised prediction of the target network's projection.

    The target follows the online network by an exponential moving average that covers buffers
    (running statistics) too.

    Args:
        backbone: what is trained; projected is the last layer's mean.
        views: front end and augmentations.
        hidden: width inside projector and predictor.
        projection: width of what is compared.
        decay: of the target's moving average.
        normalise_batch: bring the pictures of both views together to mean 0 and deviation 1, as
            BYOL-A does after its augmentations.
    """

    def __init__(
        self,
        backbone: Backbone,
        views: Views,
        hidden: int = 4096,
        projection: int = 256,
        decay: float = DECAY,
        normalise_batch: bool = False,
    ) -> None:
        super().__init__(backbone, views)
        sizes = (backbone.num_features, hidden, projection)
        self.projector = mlp(sizes, norm=True, last_bias=True)
        self.predictor = mlp((projection, hidden, projection), norm=True, last_bias=True)
        self.target_backbone = copy.deepcopy(self.backbone)
        self.target_projector = copy.deepcopy(self.projector)
        self._averages = (
            MovingAverage(self.backbone, self.target_backbone, decay),
            MovingAverage(self.projector, self.target_projector, decay),
        )
        self.normalise_batch = normalise_batch

    def forward(self, batch: Batch, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss (), from 0 to 8, and how far projections spread (0: all alike)."""
        pictures = self.views(batch, step)
        if self.normalise_batch:
            deviation, mean = torch.std_mean(torch.cat(pictures))
            pictures = [(x - mean) / deviation.clamp(min=1e-6) for x in pictures]
        # Each view by itself: a batch norm sees one view's statistics, as published; those of
        # projector and predictor see the joint batch of all processes.
        online = [step.gather(embedding(self.backbone(x))) for x in pictures]
        predicted = [self.predictor(self.projector(h)) for h in online]
        with torch.no_grad():
            followed = [step.gather(embedding(self.target_backbone(x))) for x in pictures]
            targets = [self.target_projector(h) for h in followed]
            spread = F.normalize(targets[0].float(), dim=1).std(0, correction=0).mean()
        first = byol_distance(predicted[0], targets[1])
        second = byol_distance(predicted[1], targets[0])
        spread = spread * targets[0].shape[1] ** 0.5
        return first + second, {"spread": spread}

    def begin_with(self, network: Mapping[str, Tensor]) -> None:
        """The target begins where the online network does, as it does at random."""
        super().begin_with(network)
        self.target_backbone.load_state_dict(network)

    def after_update(self, step: Step) -> None:
        """The target moves a little towards the online network."""
        super().after_update(step)
        for average in self._averages:
            average.update()
