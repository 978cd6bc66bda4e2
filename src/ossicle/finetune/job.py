"""What the seeds of a fine-tuning share, and the training of one of them."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ossicle.datasets.clips import Clips
from ossicle.errors import DataError
from ossicle.features import FeatureTable, one_thread
from ossicle.finetune.objective import FineTuning, task_loss
from ossicle.finetune.settings import FinetuneSettings
from ossicle.finetune.start import Start, frozen_features, start_head
from ossicle.heads import Head
from ossicle.model import Model
from ossicle.pretrain.crops import CropBatches
from ossicle.pretrain.optimiser import warm_up_cosine
from ossicle.pretrain.views import create_views
from ossicle.pretrain.waveforms import Waveforms
from ossicle.record import json_safe
from ossicle.train import fit
from ossicle.transfer.calibrate import Calibration, calibrate

RECIPES = {"none": "plain", "mask": "mask", "mix": "mix"}  # see `create_views`
# Fewer held-out clips do not tell a temperature.
CALIBRATED = 20
Progress = Callable[[int, int, float], None]


class Job:
    """What the seeds of a run share."""

    def __init__(
        self,
        model: Model,
        clips: Clips,
        fitted: np.ndarray,
        held: np.ndarray,
        settings: FinetuneSettings,
        readout: tuple[str, ...],
        scratch: bool,
        waveforms: Waveforms,
        workers: int,
    ) -> None:
        self.model, self.clips, self.fitted, self.held = model, clips, fitted, held
        self.settings, self.readout, self.scratch = settings, readout, scratch
        self.waveforms, self.workers = waveforms, workers
        y = clips.y()
        # Numbers are learnt in units of their deviation.
        self.offset, self.unit = 0.0, 1.0
        if clips.task == "regression":
            self.offset = float(y[fitted].mean())
            self.unit = float(y[fitted].std()) or 1.0
            y = ((y - self.offset) / self.unit).astype(np.float32)
        self.y = y
        self.k = 1 if clips.task == "regression" else len(clips.classes)
        if clips.task == "classes" and len(np.unique(y[fitted])) < 2:
            raise DataError("the training part has one class only: nothing to tell apart")
        self.item = {int(row): i for i, row in enumerate(waveforms.rows)}

    def prepare(self, table: FeatureTable | None) -> None:
        """Where the head starts: from the features as they are, or from nothing."""
        width = sum(self.model.block_sizes(self.readout).values())
        self.table = table
        self.calibration: dict[int, Calibration | None] = {}
        self.start = Start(None, np.zeros(width, np.float32), np.ones(width, np.float32))
        if not self.scratch:
            self.start = self.started(table, self.fitted)

    def started(self, table: FeatureTable | None, rows: np.ndarray) -> Start:
        """The head on frozen features of some rows."""
        rows, X, sizes = frozen_features(
            self.model, self.clips, rows, self.readout, table, self.workers
        )
        s = self.settings
        weights = {"class_weight": "balanced"} if self._balanced else {}
        return start_head(
            X,
            self.y[rows],
            self.clips.groups()[rows],
            sizes,
            task=self.clips.task,
            num_outputs=self.k,
            probe=s.head_start == "probe",
            seed=s.seed,
            **weights,
        )

    @property
    def _balanced(self) -> bool:
        return self.settings.balance and self.clips.task != "regression"

    def run(
        self, seed: int, folder: Path | None, progress: Progress | None
    ) -> tuple[Model, int, float, list[dict[str, Any]]]:
        """One seed: the model, the epoch it was taken after, its validation loss, and the log."""
        validated = len(self.held) > 0
        model, objective, history = self._train(
            seed, self.fitted, self.start, validated, None, folder, progress
        )
        objective.use_best()
        best = int(objective.best_epoch) if validated else int(objective.epoch)
        loss = float(objective.best_loss)
        self.calibration[seed] = self._calibration(self._plain(model, objective), best)
        return self._taken_away(model, objective, seed), best, loss, history

    def refit(
        self, seed: int, epochs: int, folder: Path | None, progress: Progress | None
    ) -> Model:
        """The same seed on the validation part too, for as many epochs as were best."""
        rows = np.sort(np.concatenate([self.fitted, self.held]))
        start = self.start if self.scratch else self.started(self.table, rows)
        model, objective, _ = self._train(seed, rows, start, False, epochs, folder, progress)
        return self._taken_away(model, objective, seed)

    def _train(
        self,
        seed: int,
        rows: np.ndarray,
        start: Start,
        validated: bool,
        last: int | None,
        folder: Path | None,
        progress: Progress | None,
    ) -> tuple[Model, FineTuning, list[dict[str, Any]]]:
        """Train on some rows, to the epoch ``last`` at most; model, objective and log."""
        s, model = self.settings, copy.deepcopy(self.model)
        crop_s = self._crop_s()
        n_samples = round(crop_s * model.sample_rate)
        views = create_views(model.frontend, n_samples, RECIPES[s.augment])
        objective: FineTuning

        def validate() -> tuple[float, dict[str, float]]:
            return self.loss(self._plain(model, objective)), {}

        objective = FineTuning(
            model,
            self.readout,
            start.head,
            (start.mean, start.deviation),
            self.k,
            views,
            self.clips.task,
            s,
            validate if validated else None,
        )
        targets = self.y.astype(np.float32) if self.y.ndim == 2 else self.y
        chosen = self.waveforms.only(rows)
        batches = CropBatches(
            chosen,
            batch_size=min(s.batch_size, len(chosen)),
            crop_s=crop_s,
            views=1,
            partners=views.needs_partners,
            targets=targets[chosen.rows],
            balance=self._balanced,
            fill=model.clip.fill,
            seed=seed,
        )
        per_epoch = batches.steps_per_epoch
        steps = s.epochs * per_epoch
        optimiser = torch.optim.AdamW(objective.parameter_groups())

        def before_update() -> None:
            for parameter in objective.asleep(int(objective.epoch)):
                parameter.grad = None

        def finished() -> bool:
            return objective.finished() if last is None else int(objective.epoch) >= last

        threads = torch.get_num_threads()
        torch.set_num_threads(max(1, self.workers))
        try:
            with torch.random.fork_rng(devices=[]):
                if validated and not self.scratch:
                    # The probe as it is counts as an epoch: training has to better it.
                    objective.after_epoch()
                    objective.epoch.zero_()
                    objective.best_epoch.zero_()
                trained = fit(
                    objective,
                    batches,
                    optimiser,
                    steps=steps,
                    schedule=lambda step: warm_up_cosine(step, steps, round(s.warm_up * steps)),
                    before_update=before_update if s.unfreeze_every else None,
                    folder=folder,
                    fingerprint=self._fingerprint(seed, crop_s, rows, last),
                    seed=seed,
                    log_every=per_epoch,
                    monitor=objective.after_epoch,
                    monitor_every=per_epoch,
                    finished=finished,
                    progress=progress,
                )
        finally:
            torch.set_num_threads(threads)
        return model, objective, trained.history

    def probe(self, model: Model) -> Model:
        """The network as it came, with a head on the features of the validation part too."""
        rows = np.sort(np.concatenate([self.fitted, self.held]))
        head = self.started(self.table, rows).head
        if head is not None:
            model.head = self._head(*head)
        return model

    def _head(self, weight: np.ndarray, bias: np.ndarray) -> Head:
        """(K, D) weight and (K,) bias as a head that answers in the units of the labels."""
        parts = weight * self.unit, bias * self.unit + self.offset
        pair = [torch.from_numpy(np.asarray(part, np.float32)) for part in parts]
        return Head.from_layers([(pair[0], pair[1])]).eval().requires_grad_(False)

    def _crop_s(self) -> float:
        """As long as the median clip, within what the network hears at once."""
        policy, s = self.model.clip, self.settings
        lengths = self.waveforms.only(self.fitted).lengths / self.waveforms.sample_rate
        wanted = float(np.median(lengths)) if s.crop_s is None else s.crop_s
        return float(min(max(wanted, policy.min_s), policy.window_s))

    def _plain(self, model: Model, objective: FineTuning) -> Model:
        """The model as it is now, with a plain head, as ``predict`` would run it."""
        classes, task = self.clips.classes, self.clips.task
        head = objective.plain_head()
        parts: dict[str, Any] = {"clip": model.clip, "info": model.info}
        return Model(
            model.frontend,
            model.backbone,
            readout=self.readout,
            head=head,
            classes=classes,
            task=task,
            **parts,
        )

    def decisions(self, model: Model, rows: np.ndarray) -> np.ndarray:
        """(n, K) logits of whole clips, each run by itself."""
        layers, poolings = model.readout_parts()

        def run(row: int) -> np.ndarray:
            if torch.get_num_threads() != 1:
                torch.set_num_threads(1)
            item = self.item[row]
            samples = self.waveforms.read(item, 0, int(self.waveforms.lengths[item]))
            blocks = model.clip_features(samples, layers, poolings)
            vector = np.concatenate([blocks[name] for name in model.readout])
            with torch.inference_mode():
                assert model.head is not None
                return model.head(torch.from_numpy(vector)[None])[0].numpy()

        with one_thread(), ThreadPoolExecutor(self.workers) as pool:
            return np.stack(list(pool.map(run, rows.tolist())))

    def loss(self, model: Model) -> float:
        """Mean loss on the validation part."""
        return self._loss(self.decisions(model, self.held))

    def finished_loss(self, model: Model) -> float:
        """The same of a model that answers in the units of the labels."""
        return self._loss((self.decisions(model, self.held) - self.offset) / self.unit)

    def _loss(self, decisions: np.ndarray) -> float:
        logits = torch.from_numpy(decisions.astype(np.float32))
        targets = torch.from_numpy(self.y[self.held])
        return float(task_loss(self.clips.task, logits, targets).mean())

    def _calibration(self, plain: Model, epoch: int) -> Calibration | None:
        """From logits to probabilities, told by the validation part; None: the probe has its own,
        on more clips, or there are too few to tell."""
        task = self.clips.task
        if task == "regression" or len(self.held) < CALIBRATED or not (self.scratch or epoch):
            return None
        targets = self.y[self.held]
        one_hot = targets if targets.ndim == 2 else np.eye(self.k)[targets]
        decisions = self.decisions(plain, self.held).astype(np.float64)
        return calibrate(decisions, one_hot, np.ones(len(one_hot)), task)

    def _taken_away(self, model: Model, objective: FineTuning, seed: int) -> Model:
        """The finished model: calibrated, in the units of the labels, frozen."""
        model.backbone.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        plain = self._plain(model, objective)
        assert plain.head is not None
        linear: Any = plain.head.layers[0]
        weight, bias = linear.weight.detach().numpy(), linear.bias.detach().numpy()
        calibration = self.calibration[seed]
        if calibration is not None:
            weight, bias = calibration.fold(weight, bias)
        plain.head = self._head(weight, bias)
        return plain.eval().requires_grad_(False)

    def _fingerprint(self, seed: int, crop_s: float, rows: np.ndarray, last: int | None) -> str:
        """The same for the same run; ``seeds`` is no part of it, so that more can be added."""
        same = asdict(replace(self.settings, seeds=1, seed=seed))
        clips = [self.clips.classes, self.y.tolist(), rows.tolist(), self.held.tolist(), last]
        about = [same, crop_s, self.readout, self.scratch, clips, list(self.waveforms.names)]
        about.append([info for info in self.model.info.items() if info[0] in ("name", "weights")])
        return hashlib.sha256(json.dumps(json_safe(about)).encode()).hexdigest()
