"""The ways to a model that are set against each other, as strategies that can be run.

Eight of them: three probes of the network's frozen layers, two floors (the same network untrained,
and MFCCs), two depths of fine-tuning, and a small network trained from scratch. What they should
score was measured with these very settings (`bench/advise.py`), so that a prediction is one for the
command that is shown.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ossicle.finetune.settings import FinetuneSettings
from ossicle.finetune.strategy import SCRATCH as SCRATCH_SETTINGS
from ossicle.finetune.strategy import Strategy

# Clips heard in training, over all epochs: enough to settle on small sets, and no more than some
# minutes of one core.
HEARD = 1000
EPOCHS = (6, 16)
# Seconds of a clip heard at once while YAMNet-like networks are fine-tuned.
CROP_S = 1.0
LAST_LAYERS = 6
SCRATCH = "choi_convnet"
SCRATCH_EPOCHS = (20, 50)
SCRATCH_HEARD = 4000
EXCERPT_S = (1.0, 2.0)


@dataclass(frozen=True)
class Alternative:
    """One of the eight.

    Attributes:
        name: a key.
        words: what it is.
        read_out: whose cheap measures stand for it: "last", "all", "random" or "mfcc".
        trained: whether weights of the network are trained.
    """

    name: str
    words: str
    read_out: str
    trained: bool = False


ALTERNATIVES = {
    one.name: one
    for one in (
        Alternative("last", "probe of the last layer's mean", "last"),
        Alternative("all", "probe of all layers", "all"),
        Alternative("chosen", "probe of chosen layers", "all"),
        Alternative("random", "probe of all layers, random weights", "random"),
        Alternative("mfcc", "probe of MFCC statistics", "mfcc"),
        Alternative("finetune_last", f"fine-tune the last {LAST_LAYERS} layers", "all", True),
        Alternative("finetune_all", "fine-tune all layers", "all", True),
        Alternative("scratch", f"train {SCRATCH} from scratch", "mfcc", True),
    )
}


def strategies(
    backbone: str,
    *,
    n_training: float,
    seconds: float,
    pretrained: bool = True,
    layers: int = 2,
    min_s: float = 0.0,
) -> dict[str, Strategy]:
    """Name -> strategy, for a task of that size.

    Args:
        backbone: the network.
        n_training: clips that are learnt from.
        seconds: of the median clip.
        pretrained: False leaves out what needs a source: a network without published weights is
            probed as it is, and is not fine-tuned.
        layers: of the network; one layer leaves nothing to choose.
        min_s: the shortest clip that the network takes.
    """
    n = max(1.0, n_training)
    epochs = int(min(max(round(HEARD / n), EPOCHS[0]), EPOCHS[1]))
    crop_s = round(max(min(CROP_S, seconds), min_s), 3)
    tuned: dict[str, Any] = {"epochs": epochs, "batch_size": 16, "crop_s": crop_s}
    many = int(min(max(round(SCRATCH_HEARD / n), SCRATCH_EPOCHS[0]), SCRATCH_EPOCHS[1]))
    excerpt = min(max(float(round(seconds)), EXCERPT_S[0]), EXCERPT_S[1])
    found = {
        "last": Strategy(kind="probe", backbone=backbone, layers="last", pooling="mean"),
        "all": Strategy(kind="probe", backbone=backbone),
        "chosen": Strategy(kind="probe", backbone=backbone, choose_layers=True),
        "random": Strategy(kind="probe", backbone=backbone, random=True),
        "mfcc": Strategy(kind="probe", backbone="mfcc"),
        "finetune_last": Strategy(
            kind="finetune",
            backbone=backbone,
            settings=FinetuneSettings(unfreeze=min(LAST_LAYERS, layers), **tuned),
        ),
        "finetune_all": Strategy(
            kind="finetune", backbone=backbone, settings=FinetuneSettings(unfreeze="all", **tuned)
        ),
        "scratch": Strategy(
            kind="scratch",
            backbone=SCRATCH,
            config={"excerpt_s": excerpt},
            settings=replace(SCRATCH_SETTINGS, epochs=many, batch_size=16),
        ),
    }
    left_out: set[str] = set()
    if layers < 2:
        left_out |= {"last", "chosen", "finetune_last"}
    if not pretrained:
        left_out |= {"random", "finetune_last", "finetune_all"}
    if backbone == "mfcc":
        left_out |= {"mfcc"}
    return {name: one for name, one in found.items() if name not in left_out}
