"""SimCLR: two views of a sound are to be closer to each other than to any other sound.

Chen et al. 2020, arXiv 2002.05709; for audio Wang et al. 2022 (HARES), arXiv 2111.12124.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ossicle.backbones import Backbone
from ossicle.pretrain.objective import Pretraining, embedding, mlp
from ossicle.pretrain.views import Views
from ossicle.train import Batch, Step

TEMPERATURE = 0.1


def nt_xent(first: Tensor, second: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """The normalised temperature-scaled cross entropy (2002.05709, eq. 1), mean over 2 B views.

    l(i, j) = -log(exp(z_i z_j / tau) / sum over k other than i of exp(z_i z_k / tau)).

    Args:
        first, second: (B, D) projections of two views of each item; they are L2-normalised here.
        temperature: tau.
    """
    z = F.normalize(torch.cat([first, second]).float(), dim=1)
    similarity = z @ z.T / temperature
    similarity.fill_diagonal_(float("-inf"))
    n = len(first)
    partner = torch.arange(2 * n, device=z.device).roll(n)
    return F.cross_entropy(similarity, partner)


class SimCLR(Pretraining):
    """NT-Xent on projections of two views.

    Args:
        backbone: what is trained; projected is the last layer's mean.
        views: front end and augmentations.
        projection: widths of the projector after the embedding, with batch norm between; its last
            layer has no bias.
        temperature: tau.
    """

    def __init__(
        self,
        backbone: Backbone,
        views: Views,
        projection: tuple[int, ...] = (1024, 128),
        temperature: float = TEMPERATURE,
    ) -> None:
        super().__init__(backbone, views)
        sizes = (backbone.num_features, *projection)
        # Without its norm the direction that all embeddings of a new network share is all that
        # the loss sees, and nothing is learnt for thousands of steps.
        self.projector = mlp(sizes, norm=True, last_bias=False)
        self.temperature = temperature

    def forward(self, batch: Batch, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss (), and how often a view's nearest is its partner."""
        pictures = self.views(batch, step)
        # One pass for both views.
        views = embedding(self.backbone(torch.cat(pictures))).chunk(2)
        # Each process projects and compares the joint batch: negatives and norms are all of it.
        first, second = self.projector(torch.cat([step.gather(h) for h in views])).chunk(2)
        loss = nt_xent(first, second, self.temperature)
        with torch.no_grad():
            a, b = F.normalize(first.float(), dim=1), F.normalize(second.float(), dim=1)
            found = (a @ b.T).argmax(1) == torch.arange(len(a), device=a.device)
        return loss, {"found": found.float().mean()}
