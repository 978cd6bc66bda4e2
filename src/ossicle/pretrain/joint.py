"""Labels and pairs at once: what the labels name is learnt, and what they do not is kept.

SimCLR (Chen et al. 2020, arXiv 2002.05709) and a tagger on the same pictures.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ossicle.backbones import Backbone
from ossicle.errors import OssicleError
from ossicle.pretrain.objective import embedding, mlp
from ossicle.pretrain.simclr import TEMPERATURE, nt_xent
from ossicle.pretrain.supervised import Supervised
from ossicle.pretrain.views import Views
from ossicle.train import Batch, Step


class Joint(Supervised):
    """NT-Xent of two views + weight * supervised loss, the mean of both views.

    Items without a label (a class of -1, tags of NaN) count in the first part alone.

    Args:
        backbone: what is trained; head and projector read the last layer's mean.
        views: front end and augmentations.
        num_classes: K.
        task: "classes" or "multilabel".
        weight: of the supervised loss.
        label_smoothing: as for ``Supervised``.
        projection: widths of the projector, as for ``SimCLR``.
        temperature: of the contrastive loss.

    Raises:
        OssicleError: as ``Supervised``, or the weight is below 0.
    """

    num_views = 2

    def __init__(
        self,
        backbone: Backbone,
        views: Views,
        num_classes: int,
        task: str = "classes",
        weight: float = 1.0,
        label_smoothing: float = 0.0,
        projection: tuple[int, ...] = (1024, 128),
        temperature: float = TEMPERATURE,
    ) -> None:
        super().__init__(backbone, views, num_classes, task, label_smoothing)
        if not weight >= 0:
            raise OssicleError(f"weight {weight} of the supervised loss: choose 0 or more")
        self.projector = mlp((backbone.num_features, *projection), norm=True, last_bias=False)
        self.weight, self.temperature = weight, temperature

    def forward(self, batch: Batch, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss (), both its parts, and how often pairs and labels are found."""
        pictures = self.views(batch, step)
        features = embedding(self.backbone(torch.cat(pictures)))
        both = torch.cat([step.gather(h) for h in features.chunk(2)])
        first, second = self.projector(both).chunk(2)
        contrastive = nt_xent(first, second, self.temperature)
        supervised, numbers = self.supervised_loss(features, batch, step)
        with torch.no_grad():
            a, b = F.normalize(first.float(), dim=1), F.normalize(second.float(), dim=1)
            found = (a @ b.T).argmax(1) == torch.arange(len(a), device=a.device)
        numbers |= {"contrastive": contrastive.detach(), "supervised": supervised.detach()}
        return contrastive + self.weight * supervised, {**numbers, "found": found.float().mean()}
