"""Training a network and the head that reads its layers, on labelled clips.

B items, K classes, D values of the read-out.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ossicle.errors import OssicleError
from ossicle.finetune.settings import FinetuneSettings
from ossicle.finetune.stages import layer_parameters, norms_of
from ossicle.heads import Head, pool
from ossicle.model import Model
from ossicle.pretrain.supervised import clip_losses
from ossicle.pretrain.views import Views
from ossicle.train import Batch, Objective, Step

Loss = Callable[[Tensor, Tensor], Tensor]


def task_loss(task: str, logits: Tensor, targets: Tensor) -> Tensor:
    """(B, K) logits and targets -> (B,): cross entropy, its binary kind, or squared error.

    Args:
        task: "classes", "multilabel" or "regression".
        logits: (B, K).
        targets: (B,) class numbers, (B, K) 0/1, or (B,) numbers.
    """
    if task == "regression":
        return (logits[:, 0].float() - targets.float()).square()
    return clip_losses(logits, targets, task)[0]


class FineTuning(Objective):
    """The loss of a head on the pooled layers of a network, some of whose layers learn.

    The head is W (z - mean) / deviation + b with the statistics of the frozen features, so that all
    of its columns move alike; ``tuned`` folds them into a plain linear layer.

    Args:
        model: front end, network and clip policy; its network is trained in place.
        readout: blocks "LAYER/POOLING" that the head reads.
        head: (K, D) weight and (K,) bias on raw columns; None: zeros.
        statistics: (D,) mean and (D,) deviation of the columns.
        num_outputs: K.
        views: front end and augmentation.
        task: "classes", "multilabel" or "regression".
        settings: how.
        validate: weights in place -> loss on the validation part, lower is better; None: there is
            no such part.

    Raises:
        OssicleError: nothing that the head reads can be trained, and not the head alone is to be.
    """

    best_loss: Tensor
    best_epoch: Tensor
    epoch: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        model: Model,
        readout: tuple[str, ...],
        head: tuple[np.ndarray, np.ndarray] | None,
        statistics: tuple[np.ndarray, np.ndarray],
        num_outputs: int,
        views: Views,
        task: str,
        settings: FinetuneSettings,
        validate: Callable[[], tuple[float, dict[str, float]]] | None = None,
    ) -> None:
        super().__init__()
        self.settings, self.task, self.readout = settings, task, readout
        network: Any = model.backbone
        self.backbone = network.to(memory_format=torch.channels_last)
        self.views, self.validate = views, validate
        pairs = [name.rpartition("/")[::2] for name in readout]
        self._poolings = {
            layer: tuple(p for other, p in pairs if other == layer) for layer, _ in pairs
        }
        width = len(statistics[0])
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        self.head = nn.Linear(width, num_outputs)
        self.set_head(head, *statistics)
        self.register_buffer("best_loss", torch.tensor(float("inf")))
        self.register_buffer("best_epoch", torch.tensor(0))
        self.register_buffer("epoch", torch.tensor(0))
        self._stages = layer_parameters(model)
        self._choose_learning()
        # The weights of the best epoch; without a validation part, no second copy is needed.
        self.best: nn.ModuleDict | None = None
        if validate is not None:
            self.best = nn.ModuleDict({"backbone": self.backbone, "head": self.head})
            self.best = copy.deepcopy(self.best).requires_grad_(False)

    @torch.no_grad()
    def set_head(
        self, head: tuple[np.ndarray, np.ndarray] | None, mean: np.ndarray, deviation: np.ndarray
    ) -> None:
        """Put a head on raw columns, (K, D) weight and (K,) bias, in place; None: zeros."""
        self.mean.copy_(torch.from_numpy(np.asarray(mean, np.float32)))
        self.deviation.copy_(torch.from_numpy(np.asarray(deviation, np.float32)))
        self.head.weight.zero_()
        self.head.bias.zero_()
        if head is not None:
            weight, bias = (torch.from_numpy(np.asarray(part, np.float32)) for part in head)
            self.head.weight.copy_(weight * self.deviation)
            self.head.bias.copy_(bias + weight @ self.mean)

    def _choose_learning(self) -> None:
        """Which layers learn; batch norms of those that do not stay as they are in any case."""
        s, layers = self.settings, self.backbone.layers
        # What comes after the deepest layer that the head reads has no part in the logits.
        deepest = max(layers.index(layer) for layer in self._poolings)
        names = [name for name in self._stages if layers.index(name) <= deepest]
        if s.unfreeze != "head" and not names:
            raise OssicleError(
                "the layers that the head reads have no weights that can be trained: choose others"
            )
        if s.unfreeze == "all":
            self.learning = names
        elif s.unfreeze == "head":
            self.learning = []
        else:
            self.learning = names[-int(s.unfreeze) :]
        self.backbone.requires_grad_(False)
        for name in self.learning:
            for parameter in self._stages[name]:
                parameter.requires_grad_(True)
        live = {id(p) for name in self.learning for p in self._stages[name]}
        moving = [] if s.frozen_norms else norms_of(self.backbone, live)
        self._moving_norms = {id(norm) for norm in moving}

    def train(self, mode: bool = True) -> FineTuning:
        """Training mode, but for batch norms that keep their statistics and for frozen networks."""
        super().train(mode)
        if not self.learning:
            self.backbone.train(False)
        moving = self._moving_norms if mode else set()
        if moving and (asleep := {id(p) for p in self.asleep(int(self.epoch))}):
            moving = moving - {id(norm) for norm in norms_of(self.backbone, asleep)}
        for module in self.backbone.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.train(id(module) in moving)
        if self.best is not None:
            self.best.train(False)
        return self

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups for an optimiser, each with its peak rate, its weight decay and its depth.

        The head's rate is divided by its number of columns: a step of Adam moves each of them by
        the rate, and in the direction of the clip's own values, so that the logits move by about
        the rate times their sum.
        """
        s = self.settings
        columns = self.head.in_features
        groups: list[dict[str, Any]] = [
            {"params": [self.head.weight], "lr": s.head_rate / columns, "weight_decay": 0.0},
            {"params": [self.head.bias], "lr": s.head_rate / 10, "weight_decay": 0.0},
        ]
        for depth, name in enumerate(reversed(self.learning)):
            rate = s.learning_rate * s.layer_decay**depth
            for wide in (True, False):
                part = [p for p in self._stages[name] if (p.dim() > 1) == wide]
                if part:
                    decay = s.weight_decay if wide else 0.0
                    groups.append(
                        {"params": part, "lr": rate, "weight_decay": decay, "depth": depth}
                    )
        return groups

    def asleep(self, epoch: int) -> list[nn.Parameter]:
        """Parameters whose turn in gradual unfreezing has not come in an epoch (from 0)."""
        every = self.settings.unfreeze_every
        if not every:
            return []
        awake = epoch // every
        late = list(reversed(self.learning))[awake:]
        return [p for name in late for p in self._stages[name]]

    def logits(self, maps: Mapping[str, Tensor]) -> Tensor:
        """Layer maps -> (B, K)."""
        pooled = {layer: pool(maps[layer], names) for layer, names in self._poolings.items()}
        parts = (name.rpartition("/")[::2] for name in self.readout)
        columns = torch.cat([pooled[layer][p] for layer, p in parts], 1).float()
        return self.head((columns - self.mean) / self.deviation)

    def forward(self, batch: Batch, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean loss (), and for classes how often the likeliest is right.

        Raises:
            OssicleError: the batch has no targets.
        """
        if batch.targets is None:
            raise OssicleError("training with labels needs labels: the batches have none")
        (picture,) = self.views(batch, step)
        logits = self.logits(self.backbone(picture))
        loss = task_loss(self.task, logits, batch.targets).mean()
        numbers = {}
        if self.task == "classes":
            numbers["accuracy"] = (logits.argmax(1) == batch.targets).float().mean()
        return loss, numbers

    @torch.no_grad()
    def after_epoch(self) -> dict[str, float]:
        """Score the weights on the validation part; the best ones are kept."""
        self.epoch += 1
        if self.validate is None or self.best is None:
            return {}
        loss, numbers = self.validate()
        if loss < float(self.best_loss):
            self.best_loss.fill_(loss)
            self.best_epoch.copy_(self.epoch)
            self.best["backbone"].load_state_dict(self.backbone.state_dict())
            self.best["head"].load_state_dict(self.head.state_dict())
        return {"validation_loss": loss, **numbers}

    def finished(self) -> bool:
        """Whether it has not got better for as many epochs as it may."""
        patience = self.settings.patience
        if self.best is None or not patience:
            return False
        # Nothing is given up before every layer has had its turn.
        turns = len(self.learning) * self.settings.unfreeze_every
        return int(self.epoch) - max(int(self.best_epoch), turns) >= patience

    def use_best(self) -> None:
        """Put the best epoch's weights in place."""
        if self.best is not None and bool(self.best_loss.isfinite()):
            self.backbone.load_state_dict(self.best["backbone"].state_dict())
            self.head.load_state_dict(self.best["head"].state_dict())

    def plain_head(self) -> Head:
        """The head on raw columns: (K, D) weight and (K,) bias."""
        with torch.no_grad():
            weight = self.head.weight / self.deviation
            bias = self.head.bias - weight @ self.mean
        return Head.from_layers([(weight, bias)])
