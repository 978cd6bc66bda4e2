"""A pre-training run from recordings to a bundle: what `ossicle pretrain` does."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ossicle import bundle
from ossicle.datasets.clips import Clips
from ossicle.download import cache_dir
from ossicle.errors import DataError, OssicleError
from ossicle.features import Progress, as_clips
from ossicle.heads import Head
from ossicle.model import Model, create_model
from ossicle.pretrain.byol import BYOL
from ossicle.pretrain.cpc import CPC
from ossicle.pretrain.crops import CropBatches
from ossicle.pretrain.joint import Joint
from ossicle.pretrain.monitor import Monitor
from ossicle.pretrain.objective import Pretraining
from ossicle.pretrain.optimiser import clip_adaptively, create_optimiser, warm_up_cosine
from ossicle.pretrain.simclr import SimCLR
from ossicle.pretrain.supervised import Supervised
from ossicle.pretrain.synthetic import SyntheticBatches
from ossicle.pretrain.views import create_views
from ossicle.pretrain.waveforms import Waveforms, decode, key
from ossicle.record import json_safe, record
from ossicle.train import Batches, Trained, fit

OBJECTIVES: dict[str, type[Pretraining]] = {
    "byol": BYOL,
    "cpc": CPC,
    "joint": Joint,
    "simclr": SimCLR,
    "supervised": Supervised,
}
# What the objective is shown, see `create_views`.
RECIPES = {
    "byol": "byol",
    "cpc": "plain",
    "joint": "contrast",
    "simclr": "contrast",
    "supervised": "mask",
}
LABELLED = ("supervised", "joint")
QUEUE = 512  # past pictures for BYOL to mix with


@dataclass(frozen=True)
class Settings:
    """How a network is pre-trained; every value is part of the record.

    Attributes:
        objective: a name in ``OBJECTIVES``.
        backbone: a name of ``list_models()``.
        config: keywords of its constructor.
        pretrained: begin from published weights instead of random ones.
        epochs: times that every segment of at most 10 s is heard, where ``steps`` is None.
        steps: batches in all.
        batch_size: items a batch, over all processes.
        crop_s: length of a crop, in seconds.
        jitter_s: how far two views lie apart at most; None: anywhere in their segment.
        neighbours: segments of one folder that come together in a batch.
        learning_rate, weight_decay, optimiser: of the weights.
        warm_up: share of the steps in which the learning rate rises; then half a cosine.
        clipping: lambda of adaptive gradient clipping; 0 is none; None: 0.05 for networks without
            normalisation, none for others.
        average: decay of the moving average of weights that is taken away; 0 is none.
        balance: draw all classes equally often.
        synthetic: share of pairs from the synthesiser, all of them where there are no clips.
        delta: how far the two sounds of a synthetic pair lie apart, 0 to 1.
        options: further keywords of the objective.
        seed: of everything drawn.
        precision: of Lightning Fabric: "32-true", "bf16-mixed", ...
        accelerator, devices: of Lightning Fabric.
    """

    objective: str = "simclr"
    backbone: str = "slowfast_nfnet_f0"
    config: Mapping[str, Any] = field(default_factory=dict)
    pretrained: bool = False
    epochs: float = 10.0
    steps: int | None = None
    batch_size: int = 64
    crop_s: float = 1.28
    jitter_s: float | None = 0.5
    neighbours: int = 1
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    optimiser: str = "adamw"
    warm_up: float = 0.05
    clipping: float | None = None
    average: float = 0.0
    balance: bool = False
    synthetic: float = 0.0
    delta: float = 0.25
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    precision: str = "32-true"
    accelerator: str = "cpu"
    devices: int = 1

    def check(self) -> Settings:
        """The settings, if they can be meant.

        Raises:
            OssicleError: a name is unknown or a number out of range.
        """
        if self.objective not in OBJECTIVES:
            known = ", ".join(OBJECTIVES)
            raise OssicleError(f"unknown objective {self.objective!r}: choose one of {known}")
        for name in ("epochs", "batch_size", "crop_s", "learning_rate", "devices"):
            if not getattr(self, name) > 0:
                raise OssicleError(f"{name} is {getattr(self, name)}: it must be above 0")
        for name in ("warm_up", "average", "synthetic", "delta"):
            if not 0 <= getattr(self, name) <= 1:
                raise OssicleError(f"{name} is {getattr(self, name)}: it must be from 0 to 1")
        if self.batch_size < 2 or self.batch_size % self.devices:
            raise OssicleError(
                f"a batch of {self.batch_size} items: choose 2 or more, a multiple of the devices"
            )
        return self


class Pretrained(NamedTuple):
    """What a run left.

    Attributes:
        model: the bundle's model.
        trained: steps, history, seconds.
        hours: of recordings.
        skipped: (row, path, reason) of what could not be used.
        out: the bundle.
        folder: checkpoint and log.
    """

    model: Model
    trained: Trained
    hours: float
    skipped: list[tuple[int, str, str]]
    out: Path
    folder: Path


def training_folder(out: Path) -> Path:
    """Where the run that makes ``out`` keeps its checkpoint and log."""
    return out.with_name(f"{out.stem}-training")


def pretrain(
    clips: Clips | None,
    out: Path,
    settings: Settings,
    *,
    probe: Clips | None = None,
    probe_every: int = 0,
    checkpoint_minutes: float = 10.0,
    workers: int = 1,
    progress: Callable[[int, int, float], None] | None = None,
) -> Pretrained:
    """Train a backbone on recordings and save it as a bundle; a stopped run goes on.

    Args:
        clips: recordings, with labels for "supervised" and "joint"; None: synthetic pairs alone.
        out: the bundle to write.
        settings: how.
        probe: a small labelled set whose frozen kNN and ridge scores are logged.
        probe_every: steps between them; 0: at the end alone.
        checkpoint_minutes: between checkpoints.
        workers: threads that decode, and that torch computes with on a CPU.
        progress: called after each step; with one process only.

    Raises:
        OssicleError: settings or clips cannot be used, the loss is not finite, or the folder of
            ``out`` holds another run.
        KeyboardInterrupt: it was asked to stop; what it did is kept.
    """
    from lightning.fabric import Fabric

    settings = settings.check()
    if out.exists() and not bundle.is_bundle(out):
        raise OssicleError(f"{out}: is there already and is not a bundle; choose another name")
    if clips is None and settings.objective in (*LABELLED, "cpc"):
        raise DataError(f"{settings.objective} needs recordings: pass a folder or a manifest")
    job = _Job(clips, out, settings, probe, probe_every, checkpoint_minutes, workers)
    decode_all(clips, settings, workers=workers)  # before the processes part
    strategy = "auto" if settings.devices == 1 else "ddp_spawn"
    fabric = Fabric(
        accelerator=settings.accelerator,
        devices=settings.devices,
        strategy=strategy,
        precision=settings.precision,  # type: ignore[arg-type]
    )
    launch: Any = fabric.launch
    return launch(job.run, None if settings.devices > 1 else progress)


def decode_all(
    clips: Clips | None,
    settings: Settings,
    *,
    workers: int = 1,
    progress: Callable[[Progress], None] | None = None,
) -> None:
    """Decode the recordings into the cache, where `pretrain` finds them; again it costs nothing.

    Raises:
        DataError: none of the clips can be used.
    """
    if clips is not None:
        _waveforms(clips, _new_model(settings).sample_rate, workers, progress)


def _new_model(s: Settings) -> Model:
    return create_model(s.backbone, s.pretrained, seed=s.seed, **s.config)


def _waveforms(
    clips: Clips,
    sample_rate: int,
    workers: int = 1,
    progress: Callable[[Progress], None] | None = None,
) -> Waveforms:
    items = as_clips(clips)
    folder = cache_dir() / "waveforms" / key(items, sample_rate)[:16]
    return decode(items, sample_rate, folder, workers=workers, progress=progress)


@dataclass
class _Job:
    """What every process of a run is given."""

    clips: Clips | None
    out: Path
    settings: Settings
    probe: Clips | None
    probe_every: int
    checkpoint_minutes: float
    workers: int

    def run(self, fabric: Any, progress: Callable[[int, int, float], None] | None) -> Pretrained:
        s = self.settings
        if fabric.device.type == "cpu":
            torch.set_num_threads(max(1, self.workers // fabric.world_size))
        model = _new_model(s)
        info = dict(model.info)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(s.seed)  # of projectors, which torch's constructors draw
            objective = self._objective(model)
        batches, hours, skipped = self._batches(model, objective)
        per_epoch = getattr(batches, "steps_per_epoch", 1000)
        steps = s.steps or max(1, round(s.epochs * per_epoch))
        free = "nfnet" in s.backbone
        clipping = s.clipping if s.clipping is not None else 0.05 if free else 0.0
        clipped = objective.clipped()
        monitor = None
        if self.probe is not None and fabric.global_rank == 0:
            monitor = Monitor(self.probe, model, objective, workers=self.workers)
        folder = training_folder(self.out)
        trained = fit(
            objective,
            batches,
            create_optimiser(objective, s.optimiser, s.learning_rate, s.weight_decay),
            steps=steps,
            schedule=lambda step: warm_up_cosine(step, steps, round(s.warm_up * steps)),
            before_update=(lambda: clip_adaptively(clipped, clipping)) if clipping else None,
            fabric=fabric,
            folder=folder,
            fingerprint=self._fingerprint(model.sample_rate, steps),
            seed=s.seed,
            checkpoint_minutes=self.checkpoint_minutes,
            monitor=monitor,
            monitor_every=self.probe_every,
            progress=progress,
        )
        finished = self._finished(model, objective, info, hours, trained)
        if fabric.global_rank == 0:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            bundle.save(finished, self.out)
        return Pretrained(finished, trained, hours, skipped, self.out, folder)

    def _objective(self, model: Model) -> Pretraining:
        s = self.settings
        kind = OBJECTIVES[s.objective]
        n_samples = round(s.crop_s * model.sample_rate)
        queue = QUEUE if s.objective == "byol" else 0
        views = create_views(model.frontend, n_samples, RECIPES[s.objective], queue)
        options = dict(s.options)
        if s.objective in LABELLED:
            assert self.clips is not None
            if self.clips.task == "regression":
                raise DataError(f"{s.objective} needs classes or tags, these labels are numbers")
            options |= {"num_classes": len(self.clips.classes), "task": self.clips.task}
        try:
            objective = kind(model.backbone, views, **options)
        except TypeError as error:  # an unknown keyword
            raise OssicleError(f"objective {s.objective!r}: {error}") from error
        if s.average:
            objective.keep_average(s.average)
        return objective

    def _batches(
        self, model: Model, objective: Pretraining
    ) -> tuple[Batches, float, list[tuple[int, str, str]]]:
        s = self.settings
        real: CropBatches | None = None
        hours, skipped = 0.0, []
        if self.clips is not None:
            waveforms = _waveforms(self.clips, model.sample_rate)
            hours, skipped = waveforms.seconds / 3600, waveforms.skipped
            targets = None
            if s.objective in LABELLED:
                targets = self.clips.y()[waveforms.rows]
                targets = targets.astype(np.float32) if targets.ndim == 2 else targets
            real = CropBatches(
                waveforms,
                batch_size=s.batch_size,
                crop_s=s.crop_s,
                views=objective.num_views,
                jitter_s=s.jitter_s,
                partners=objective.views.needs_partners,
                neighbours=s.neighbours,
                targets=targets,
                balance=s.balance,
                seed=s.seed,
            )
        share = 1.0 if real is None else s.synthetic
        if share == 0:
            assert real is not None
            return real, hours, skipped
        mixed = SyntheticBatches(
            model.sample_rate,
            real=real,
            share=share,
            batch_size=s.batch_size,
            crop_s=s.crop_s,
            delta=s.delta,
            partners=objective.views.needs_partners,
            seed=s.seed,
        )
        return mixed, hours, skipped

    def _fingerprint(self, sample_rate: int, steps: int) -> str:
        """The same for the same run; where it runs is no part of it."""
        same = asdict(replace(self.settings, steps=steps, epochs=1.0, accelerator="", devices=1))
        recordings = "" if self.clips is None else key(as_clips(self.clips), sample_rate)
        text = json.dumps(json_safe([same, recordings]), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def _finished(
        self,
        model: Model,
        objective: Pretraining,
        info: dict[str, Any],
        hours: float,
        trained: Trained,
    ) -> Model:
        s = self.settings
        backbone = copy.deepcopy(objective.result).cpu()
        backbone.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        head: Head | None = None
        readout: tuple[str, ...] = ()
        classes: tuple[str, ...] = ()
        if isinstance(objective, Supervised | Joint):
            assert self.clips is not None
            weight, bias = objective.head_layer()
            head = Head.from_layers([(weight.cpu(), bias.cpu())])
            readout, classes = (f"{model.layers[-1]}/mean",), self.clips.classes
        source = "synthetic sounds" if self.clips is None else f"{hours:.1f} h of recordings"
        info |= {
            "pretrained": True,
            "weights": f"{s.objective} on {source}, {trained.steps} steps, seed {s.seed}",
            "licence": "that of the recordings it was trained on",
            "training": record(asdict(s), seed=s.seed),
        }
        finished = Model(
            model.frontend,
            backbone,  # type: ignore[arg-type]
            clip=model.clip,
            readout=readout,
            head=head,
            classes=classes,
            task=self.clips.task if head is not None and self.clips is not None else "classes",
            info=info,
        )
        return finished.eval().requires_grad_(False)
