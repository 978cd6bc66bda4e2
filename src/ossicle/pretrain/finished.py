"""What a pre-training run leaves: the network, its head where labels gave it one, and its label."""

from __future__ import annotations

import copy
from typing import Any

import torch

from ossicle.datasets.clips import Clips
from ossicle.heads import Head
from ossicle.model import Model
from ossicle.pretrain.joint import Joint
from ossicle.pretrain.objective import Pretraining
from ossicle.pretrain.renorm import normalise
from ossicle.pretrain.settings import Settings
from ossicle.pretrain.supervised import Supervised

NONE = "none needed"  # of what was learnt from synthetic sounds alone


def finished_model(
    model: Model,
    objective: Pretraining,
    settings: Settings,
    clips: Clips | None,
    info: dict[str, Any],
    hours: float,
    steps: int,
) -> Model:
    """The network as it is to be used, frozen.

    Args:
        model: what training began from: front end and clip policy.
        objective: holds the trained network.
        settings: of the run.
        clips: it was trained on; None: synthetic sounds.
        info: what is known of it; weights and licence are added here.
        hours: of recordings.
        steps: done.
    """
    s = settings
    backbone = copy.deepcopy(objective.result).cpu()
    normalise(backbone)
    backbone.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    head: Head | None = None
    readout: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    if isinstance(objective, Supervised | Joint):
        assert clips is not None
        weight, bias = objective.head_layer()
        head = Head.from_layers([(weight.cpu(), bias.cpu())])
        readout, classes = (f"{model.layers[-1]}/mean",), clips.classes
    source = "synthetic sounds" if clips is None else f"{hours:.1f} h of recordings"
    source += " and synthetic sounds" if clips is not None and s.synthetic else ""
    licences = [info["licence"]] if s.pretrained else []
    licences += [f"{name}: {licence}" for name, licence in info.get("teachers", {}).items()]
    before = info.get("begun_with", {})
    licences += [x for x in before.get("licence", NONE).split("; and ") if x != NONE]
    licences += [] if clips is None else ["that of the recordings it was trained on"]
    begun = ", from published weights" if s.pretrained else ""
    begun += f"; begun with: {before.get('weights', before['bundle'])}" if before else ""
    taught = f" by {', '.join(s.teachers)}" if s.teachers else ""
    info |= {
        "pretrained": True,
        "weights": f"{s.objective}{taught} on {source}, {steps} steps, seed {s.seed}{begun}",
        "licence": "; and ".join(dict.fromkeys(licences)) or NONE,
    }
    finished = Model(
        model.frontend,
        backbone,  # type: ignore[arg-type]
        clip=model.clip,
        readout=readout,
        head=head,
        classes=classes,
        task=clips.task if head is not None and clips is not None else "classes",
        info=info,
    )
    return finished.eval().requires_grad_(False)
