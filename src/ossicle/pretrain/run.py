"""A pre-training run from recordings to a bundle: what `ossicle pretrain` does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ossicle import bundle
from ossicle.datasets.clips import Clips, class_members
from ossicle.errors import DataError, OssicleError
from ossicle.features import Progress, as_clips
from ossicle.model import Model, create_model
from ossicle.pretrain.begin import begin, begun_with, check_begin, earlier, training_folder
from ossicle.pretrain.crops import CropBatches
from ossicle.pretrain.finished import finished_model
from ossicle.pretrain.lessons import Lessons, prepare_lessons, read_facets
from ossicle.pretrain.monitor import Monitor
from ossicle.pretrain.objective import Pretraining
from ossicle.pretrain.optimiser import clip_adaptively, create_optimiser, warm_up_cosine
from ossicle.pretrain.processes import create_fabric, errors_of_processes
from ossicle.pretrain.settings import LABELLED, OBJECTIVES, QUEUE, RECIPES, Settings
from ossicle.pretrain.supervised import held_out_scores, split_groups
from ossicle.pretrain.synthetic import SyntheticBatches
from ossicle.pretrain.teachers import keep_with_run
from ossicle.pretrain.views import create_views
from ossicle.pretrain.waveforms import decode_cached, key
from ossicle.pretrain.windows import WindowBatches
from ossicle.record import json_safe, record, write_json
from ossicle.train import Batches, Trained, fit

TOLD = "result.json"  # what the processes of a run tell the one that started them


class Pretrained(NamedTuple):
    """What a run left.

    Attributes:
        model: the bundle's model.
        trained: steps, history, seconds.
        hours: of recordings.
        skipped: (row, path, reason) of what could not be used.
        out: the bundle.
        folder: checkpoint and log.
        scores: on the held-out groups, see `held_out_scores`; None without labels, or where these
            groups have one class only.
    """

    model: Model
    trained: Trained
    hours: float
    skipped: list[tuple[int, str, str]]
    out: Path
    folder: Path
    scores: dict[str, Any] | None = None


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
    check_run(clips, out, settings)
    held_out = None
    if clips is not None and settings.objective in LABELLED and settings.held_out:
        _, held_out = split_groups(clips, settings.held_out, settings.seed)
    fabric = create_fabric(settings)
    job = _Job(clips, held_out, out, settings, probe, probe_every, checkpoint_minutes, workers)
    # Before the processes part.
    decode_all(clips, settings, workers=workers)
    ask_teachers(clips, settings, workers=workers)
    launch: Any = fabric.launch
    if settings.devices == 1:
        threads = torch.get_num_threads()
        try:
            return launch(job.run, progress)
        finally:
            torch.set_num_threads(threads)
    with errors_of_processes():
        launch(job.run_and_tell)
    return job.told()


def check_run(clips: Clips | None, out: Path, settings: Settings) -> None:
    """Refuse at once what `pretrain` could not run, before anything is decoded.

    Raises:
        OssicleError: settings or clips cannot be used, or ``out`` is something else.
    """
    s = settings.check()
    if out.exists() and not bundle.is_bundle(out):
        raise OssicleError(f"{out}: is there already and is not a bundle; choose another name")
    if clips is None and s.objective in (*LABELLED, "cpc", "distill"):
        raise DataError(f"{s.objective} needs recordings: pass a folder or a manifest")
    if clips is not None and s.objective in LABELLED and clips.task == "regression":
        raise DataError(f"{s.objective} needs classes or tags, these labels are numbers")
    if s.begin:
        check_begin(s.begin, out)
    model = _new_model(s)
    if s.objective == "distill" and min(s.window_s) < model.clip.min_s:
        raise OssicleError(
            f"windows of {min(s.window_s):g} s: {s.backbone} hears {model.clip.min_s:g} s or more "
            "at once; choose longer ones"
        )
    _Job(clips, None, out, s, None, 0, 0.0, 1).objective(model)
    create_fabric(s)


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
        decode_cached(clips, _new_model(settings).sample_rate, workers, progress)


def ask_teachers(
    clips: Clips | None,
    settings: Settings,
    *,
    workers: int = 1,
    progress: Callable[[Progress], None] | None = None,
) -> Lessons | None:
    """Have teachers hear every window, where `pretrain` finds it; again it costs nothing.

    Raises:
        OssicleError: clips or teachers cannot be used.
    """
    if clips is None or settings.objective != "distill":
        return None
    rate = _new_model(settings).sample_rate
    return prepare_lessons(clips, rate, settings, workers=workers, progress=progress)


def _new_model(s: Settings) -> Model:
    model = create_model(s.backbone, s.pretrained, seed=s.seed, **s.config)
    if not model.num_parameters:
        raise OssicleError(f"{s.backbone} has no weights to train: choose a network")
    return model


def _crop_s(s: Settings, model: Model) -> float:
    """A network is trained on what it will be given: what is shorter is filled up there too."""
    return max(s.crop_s, model.clip.min_s)


@dataclass
class _Job:
    """What every process of a run is given."""

    clips: Clips | None
    held_out: np.ndarray | None  # rows of the clips
    out: Path
    settings: Settings
    probe: Clips | None
    probe_every: int
    checkpoint_minutes: float
    workers: int

    def run_and_tell(self, fabric: Any) -> None:
        """For a process of its own: the numbers go to a file, the model is in the bundle."""
        done = self.run(fabric)
        if fabric.global_rank == 0:
            trained = done.trained._asdict()
            numbers = {"trained": trained, "hours": done.hours, "scores": done.scores}
            write_json(done.folder / TOLD, json_safe({**numbers, "skipped": done.skipped}))

    def told(self) -> Pretrained:
        """What ``run_and_tell`` told."""
        folder = training_folder(self.out)
        told = json.loads((folder / TOLD).read_text(encoding="utf-8"))
        skipped = [(row, path, reason) for row, path, reason in told["skipped"]]
        trained = Trained(**told["trained"])
        model = bundle.load(self.out)
        return Pretrained(model, trained, told["hours"], skipped, self.out, folder, told["scores"])

    def run(
        self, fabric: Any, progress: Callable[[int, int, float], None] | None = None
    ) -> Pretrained:
        s = self.settings
        if fabric.device.type == "cpu":
            torch.set_num_threads(max(1, self.workers // fabric.world_size))
        model = _new_model(s)
        # Told at the start: the checkout may change while a run goes on.
        info = {**model.info, "training": record(asdict(s), seed=s.seed)}
        if s.begin:
            info["begun_with"] = earlier(s.begin)
        lessons = ask_teachers(self.clips, s)
        objective = self.objective(model, lessons)
        batches, hours, skipped = self._batches(model, objective, lessons)
        per_epoch = getattr(batches, "steps_per_epoch", 1000)
        steps = s.steps or max(1, round(s.epochs * per_epoch))
        free = "nfnet" in s.backbone
        clipping = s.clipping if s.clipping is not None else 0.05 if free else 0.0
        clipped = objective.clipped()
        monitor = None
        if self.probe is not None and fabric.global_rank == 0:
            monitor = Monitor(self.probe, model, objective, workers=self.workers)
            monitor.check()
        folder = training_folder(self.out)
        if lessons is not None:
            info["teachers"] = lessons.targets.licences
            if fabric.global_rank == 0:
                keep_with_run(lessons.targets, folder)
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
        finished = finished_model(model, objective, s, self.clips, info, hours, trained.steps)
        scores = None
        if fabric.global_rank == 0:
            if self.held_out is not None and self.clips is not None:
                kept = self.clips.subset(self.held_out)
                # Of one class alone any answer would look right.
                if len(class_members(kept.task, list(kept.table["label"]))) > 1:
                    scores = held_out_scores(finished, kept, workers=self.workers)
                    finished.info["held_out"] = json_safe(scores)
            self.out.parent.mkdir(parents=True, exist_ok=True)
            bundle.save(finished, self.out)
        return Pretrained(finished, trained, hours, skipped, self.out, folder, scores)

    def objective(self, model: Model, lessons: Lessons | None = None) -> Pretraining:
        """The model's backbone with all that it is trained with.

        Without lessons that of "distill" has the right shape for one made-up teacher: a check.
        """
        s = self.settings
        kind = OBJECTIVES[s.objective]
        n_samples = round(_crop_s(s, model) * model.sample_rate)
        queue = QUEUE if s.objective == "byol" else 0
        views = create_views(model.frontend, n_samples, RECIPES[s.objective], queue)
        options = dict(s.options)
        if s.objective == "cpc":  # which then refuses crops of too few frames
            options.setdefault("crop_s", _crop_s(s, model))
        if s.objective in LABELLED:
            assert self.clips is not None
            options |= {"num_classes": len(self.clips.classes), "task": self.clips.task}
        if s.objective == "distill":
            assert self.clips is not None
            facets = read_facets(self.clips) if lessons is None and options.get("labels") else None
            facets = lessons.facets if lessons is not None else facets
            if options.get("labels") and (facets is None or not facets.classes):
                raise DataError(
                    "labels count, but none of the form NAME:VALUE has two values of enough clips: "
                    "see the page about pre-training, or leave out labels"
                )
            options["facets"] = (
                {}
                if facets is None
                else {name: len(values) for name, values in facets.classes.items()}
            )
            options["sizes"] = {"teacher": 1} if lessons is None else lessons.targets.sizes
            options["variances"] = torch.ones(1) if lessons is None else lessons.variances
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(s.seed)  # of projectors, which torch's constructors draw
            try:
                objective = kind(model.backbone, views, **options)
            except TypeError as error:  # an unknown keyword
                raise OssicleError(f"objective {s.objective!r}: {error}") from error
        if s.begin:
            labelled = s.objective in LABELLED and self.clips is not None
            classes = self.clips.classes if labelled and self.clips is not None else ()
            begin(objective, s, classes, {} if lessons is None else lessons.targets.folders)
        if s.average:
            objective.keep_average(s.average)
        return objective

    def _batches(
        self, model: Model, objective: Pretraining, lessons: Lessons | None
    ) -> tuple[Batches, float, list[tuple[int, str, str]]]:
        s = self.settings
        if lessons is not None:
            sounds = lessons.waveforms
            windows = WindowBatches(
                sounds,
                lessons.windows,
                lessons.values,
                batch_size=s.batch_size,
                world=s.devices,
                seed=s.seed,
            )
            learnt = sounds.only(sounds.rows[np.unique(lessons.windows.items)])
            return windows, learnt.seconds / 3600, sounds.skipped
        real: CropBatches | None = None
        hours, skipped = 0.0, []
        if self.clips is not None:
            waveforms = decode_cached(self.clips, model.sample_rate)
            if self.held_out is not None:
                waveforms = waveforms.without(self.held_out)
            hours, skipped = waveforms.seconds / 3600, waveforms.skipped
            targets = None
            if s.objective in LABELLED:
                targets = self.clips.y()[waveforms.rows]
                targets = targets.astype(np.float32) if targets.ndim == 2 else targets
            real = CropBatches(
                waveforms,
                batch_size=s.batch_size,
                crop_s=_crop_s(s, model),
                views=objective.num_views,
                jitter_s=s.jitter_s,
                partners=objective.views.needs_partners,
                neighbours=s.neighbours,
                targets=targets,
                balance=s.balance,
                fill=model.clip.fill,
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
            crop_s=_crop_s(s, model),
            delta=s.delta,
            partners=objective.views.needs_partners,
            seed=s.seed,
        )
        return mixed, hours, skipped

    def _fingerprint(self, sample_rate: int, steps: int) -> str:
        """The same for the same run; where it runs is no part of it."""
        same = asdict(replace(self.settings, steps=steps, epochs=1.0, accelerator="", devices=1))
        if self.settings.objective != "distill":
            for name in ("teachers", "window_s"):
                same.pop(name)
        if not self.settings.mixtures:  # without them it is the run that knows of none
            same.pop("mixtures")
        if self.settings.begin:
            same["begin"] = begun_with(self.settings.begin)
        else:
            same.pop("begin")
        recordings = "" if self.clips is None else key(as_clips(self.clips), sample_rate)
        labels: list[Any] = []
        if self.clips is not None and (
            self.settings.objective in LABELLED or self.settings.options.get("labels")
        ):
            labels = [self.clips.classes, self.clips.y().tolist()]
        if self.clips is not None and self.settings.objective == "distill":
            split = self.clips.table["split"].astype(str).tolist()
            labels += [split] if len(set(split)) > 1 else []
        text = json.dumps(json_safe([same, recordings, labels]), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()
