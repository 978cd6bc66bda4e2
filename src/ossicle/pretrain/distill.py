"""Distillation: a small network learns what frozen ones say of every sound.

The teachers' pooled features, as `teachers` reduces them, are read from the student's own pooled
layers by one linear map, as a probe will read them later: so what is learnt lies where it is read.
B items, D numbers that are read, K components.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ossicle.augment import RandomGain
from ossicle.backbones import Backbone
from ossicle.errors import OssicleError
from ossicle.heads import pool, pooled_size
from ossicle.model import channels_last
from ossicle.pretrain.objective import Pretraining, embedding, mlp
from ossicle.pretrain.renorm import renormalise
from ossicle.pretrain.simclr import TEMPERATURE, nt_xent
from ossicle.pretrain.views import Views
from ossicle.train import Batch, Step

GAIN_DB = (-12.0, 6.0)
UNKNOWN = -1


class Distill(Pretraining):
    """Mean squared error to the teachers' components, with labelled heads and pairs beside it.

    Args:
        backbone: the student.
        views: the front end; what "pairs" changes a second picture by.
        sizes: teacher -> columns of the targets, in order.
        variances: (K,) of the targets: the error of a teacher is divided by the sum of its own.
        facets: name -> number of classes; their columns of class numbers, -1 where unknown, follow
            those of the teachers.
        labels: weight of the facets' mean cross entropy.
        pairs: weight of NT-Xent between the sound and a changed one: mixed, stretched, masked
            (Chen et al. 2020, arXiv 2002.05709). Teachers do not teach what is mixed.
        gain: whether the sound is made louder or softer by -12 to 6 dB.

    Raises:
        OssicleError: a weight is below 0, or there is nothing to learn.
    """

    num_views = 1
    variances: Tensor

    def __init__(
        self,
        backbone: Backbone,
        views: Views,
        sizes: Mapping[str, int],
        variances: Tensor,
        facets: Mapping[str, int] | None = None,
        labels: float = 0.0,
        pairs: float = 0.0,
        gain: bool = True,
    ) -> None:
        super().__init__(backbone, views)
        if labels < 0 or pairs < 0:
            raise OssicleError("labels and pairs are weights: choose 0 or more")
        self.sizes, self.facets = dict(sizes), dict(facets or {})
        if not self.sizes and not (labels and self.facets):
            raise OssicleError("there is nothing to learn: give teachers, or labels of facets")
        self.labels, self.pairs = labels, pairs
        self.gain = RandomGain(GAIN_DB) if gain else None
        self.blocks = student_blocks(backbone)
        width = sum(
            pooled_size(info.channels, info.bands, name)
            for info in backbone.feature_info
            for name in self.blocks[info.name]
        )
        # Layers differ in scale a thousandfold; a probe will standardise them too.
        self.norm = nn.BatchNorm1d(width, affine=False)
        self.head = nn.Linear(width, sum(self.sizes.values()))
        # At first nothing is said: noise in the last components would drown what is learnt.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        heads = {name: nn.Linear(width, n) for name, n in self.facets.items()} if labels else {}
        self.heads = nn.ModuleDict(heads)
        if pairs:
            self.projector = mlp((backbone.num_features, 512, 128), norm=True, last_bias=False)
        self.register_buffer("variances", variances.float().clone())
        # Batches have windows of one length, and with it one kind of sounds.
        renormalise(self)

    def forward(self, batch: Batch, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss (); each teacher's share of variance not explained, and the other losses."""
        assert batch.targets is not None
        sounds = batch.waveforms
        if self.gain is not None:
            drawn = self.gain.draw(step.size, step.generator)
            drawn = {name: value[step.rows] for name, value in drawn.items()}
            sounds = self.gain.apply(sounds[:, 0], drawn)[:, None]
        with torch.no_grad(), torch.autocast(sounds.device.type, enabled=False):
            picture = self.views.frontend(sounds[:, 0])
            picture = channels_last(picture)
        maps = self.backbone(picture)
        numbers: dict[str, Tensor] = {}
        with torch.autocast(sounds.device.type, enabled=False):
            # Thousands of correlated numbers: unscaled, a step of the usual size would throw the
            # answer about by many times what is to be learnt.
            read = self.norm(self.read_out(maps)) * self.head.in_features**-0.5
        said = self.head(read).float()
        with torch.autocast(sounds.device.type, enabled=False):
            # Every component is as far from its usual size as any other.
            loss = self._taught(said * self.variances.sqrt(), batch.targets, numbers)
            if self.labels:
                known = self._named(read, batch.targets, numbers)
                loss = loss + self.labels * known
        if self.pairs:
            loss = loss + self.pairs * self._paired(maps, batch, step, numbers)
        return loss, numbers

    def read_out(self, maps: Mapping[str, Tensor]) -> Tensor:
        """(B, D) float32: what heads read."""
        parts = [
            block
            for layer, names in self.blocks.items()
            for block in pool(maps[layer].float(), names).values()
        ]
        return torch.cat(parts, 1)

    def _taught(self, answer: Tensor, targets: Tensor, numbers: dict[str, Tensor]) -> Tensor:
        losses, first = [], 0
        for name, size in self.sizes.items():
            part = slice(first, first + size)
            errors = (answer[:, part] - targets[:, part]).square().sum(1).mean()
            losses.append(errors / self.variances[part].sum().clamp(min=1e-12))
            numbers[name] = losses[-1].detach()
            first += size
        return torch.stack(losses).mean() if losses else answer.new_zeros(())

    def _named(self, read: Tensor, targets: Tensor, numbers: dict[str, Tensor]) -> Tensor:
        losses = []
        first = sum(self.sizes.values())
        for place, (name, head) in enumerate(self.heads.items()):
            classes = targets[:, first + place].long()
            known = classes != UNKNOWN
            logits = head(read)
            total = F.cross_entropy(logits, classes, ignore_index=UNKNOWN, reduction="sum")
            # Of all items, so that a batch with one labelled item is not all about it.
            losses.append(total / len(classes))
            right = (logits.argmax(1) == classes)[known].float()
            numbers[f"{name}_right"] = right.mean() if len(right) else right.new_zeros(())
        return torch.stack(losses).sum()

    def _paired(
        self, maps: Mapping[str, Tensor], batch: Batch, step: Step, numbers: dict[str, Tensor]
    ) -> Tensor:
        partners = batch.waveforms.roll(1, 0) if self.views.needs_partners else None
        (changed,) = self.views(batch._replace(partners=partners), step)
        other = embedding(self.backbone(changed))
        own = embedding(dict(maps))
        both = self.projector(torch.cat([step.gather(own), step.gather(other)]))
        first, second = both.chunk(2)
        loss = nt_xent(first, second, TEMPERATURE)
        numbers["pairs"] = loss.detach()
        return loss


def student_blocks(backbone: Backbone) -> dict[str, tuple[str, ...]]:
    """Layer -> poolings that heads read: all of the backbone's, but bands of every second layer.

    Those of a network's last layers are read always; neighbours' bands say much the same.
    """
    infos = backbone.feature_info
    blocks = {}
    for place, info in enumerate(infos):
        names = [name for name in backbone.poolings if name != "band"] or ["mean"]
        last = place == len(infos) - 1
        if info.bands > 1 and (last or place % 2):
            names.append("band")
        blocks[info.name] = tuple(names)
    return blocks
