"""Training a detector from recordings with known events: what `ossicle train --strong` does."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from ossicle.datasets.strong import StrongClips
from ossicle.detect.rules import Rules
from ossicle.detect.tune import fit_rules
from ossicle.detector import Detector, create_detector
from ossicle.download import cache_dir
from ossicle.errors import DataError, OssicleError
from ossicle.events import FrameScores
from ossicle.pretrain.optimiser import create_optimiser, warm_up_cosine
from ossicle.pretrain.waveforms import Waveforms, decode, key
from ossicle.record import json_safe
from ossicle.strong.data import Labels, StrongBatches, Windows, cut_windows, recordings
from ossicle.strong.front import Front
from ossicle.strong.judge import Judge
from ossicle.strong.label import described
from ossicle.strong.maps import fits, precomputed
from ossicle.strong.objective import StrongTraining
from ossicle.strong.parts import Parts, choose_parts
from ossicle.strong.scoring import frames_of
from ossicle.strong.settings import StrongSettings
from ossicle.train import fit

Steps = Callable[[int, int, float], None]
AT_ONCE = 16  # windows whose statistics are summed together


class TrainedDetector(NamedTuple):
    """A detector and how it came about.

    Attributes:
        detector: frozen, with its rules in ``info["detection"]``, ready for a bundle.
        parts: which recordings it learnt from, and which were kept for what.
        rules: fitted on the validation part.
        epoch: whose weights were taken.
        validation: the score there, see ``StrongSettings.judge``.
        history: the lines of the log.
        skipped: (row, path, reason) of recordings that could not be used.
        seconds: wall-clock time.
        notes: what the user should know.
    """

    detector: Detector
    parts: Parts
    rules: Rules
    epoch: int
    validation: float
    history: list[dict[str, Any]]
    skipped: list[tuple[int, str, str]]
    seconds: float
    notes: list[str]


@torch.random.fork_rng(devices=[])  # the caller's random numbers stay
def train_detector(
    clips: StrongClips,
    settings: StrongSettings,
    folder: Path | None,
    *,
    network: dict[str, Any] | None = None,
    workers: int = 1,
    progress: Steps | None = None,
    tell: Callable[[str], None] | None = None,
) -> TrainedDetector:
    """Train a detector on some recordings, and fit its rules on others.

    Args:
        clips: recordings with strong labels, and others with weak ones.
        settings: how.
        folder: of checkpoint, log and what the front makes; a stopped run goes on there. None
            keeps all in memory.
        network: keywords of ``ossicle.backbones.frame_crnn.FrameCRNN``.
        workers: threads that decode and run the front, and that torch computes with.
        progress: called after each step with steps done, all steps, and seconds of audio heard.
        tell: called with what is being done.

    Raises:
        OssicleError: the settings or the recordings cannot be used.
        TrainingError: a loss is not finite, or ``folder`` holds another run.
        KeyboardInterrupt: it was asked to stop; what it did is kept.
    """
    start = time.perf_counter()
    s = settings.check()
    say = tell or (lambda text: None)
    parts = choose_parts(clips, validation=s.validation, test=s.test, seed=s.seed)
    detector = new_detector(clips.classes, s, network)
    say("decoding")
    chosen = np.sort(np.concatenate([parts.train, parts.validation]))
    waveforms = _decoded(clips, chosen, detector.sample_rate, workers)
    job = _Job(clips, parts, s, detector, waveforms, workers)
    say("listening with the frozen front")
    job.listen(folder, parts.notes)
    say("training")
    objective, history = job.train(folder, progress)
    detector = objective.taken()
    say("fitting rules")
    rules, fitted = job.fit_rules(detector)
    epoch, score = int(objective.best_epoch), float(objective.best_score)
    seconds = time.perf_counter() - start
    ended = {"taken_after": epoch, "validation_score": score, "seconds": seconds}
    detector.info = described(detector.info, clips, parts, s, ended)
    detector.info["detection"] = {"rules": rules.to_json(), "fitted": json_safe(fitted)}
    return TrainedDetector(
        detector,
        parts,
        rules,
        epoch,
        score,
        history,
        [(int(chosen[row]), path, reason) for row, path, reason in waveforms.skipped],
        seconds,
        parts.notes,
    )


def new_detector(
    classes: tuple[str, ...], settings: StrongSettings, network: dict[str, Any] | None = None
) -> Detector:
    """A detector that has learnt nothing yet, as the settings describe it.

    Args:
        classes: of its outputs.
        settings: whose inputs, backbone, window and seed count.
        network: further keywords of ``FrameCRNN``.

    Raises:
        OssicleError: the backbone is none whose frames can be read, a keyword is unknown, or the
            window is too short for the network.
    """
    config = dict(network or {})
    for name in ("base", "mel"):
        if name in config:
            raise OssicleError(f"{name} is what inputs and backbone say: leave it out")
    base = None if settings.inputs == "mel" else settings.backbone
    config["mel"] = settings.inputs != "features"
    detector = create_detector(classes, base=base, seed=settings.seed, **config)
    policy = detector.clip
    if settings.window_s < policy.min_s:
        raise OssicleError(
            f"window_s is {settings.window_s:g}: {settings.backbone} hears {policy.min_s:g} s at "
            "least"
        )
    detector.clip = policy._replace(window_s=settings.window_s)
    return detector


class _Job:
    """What the steps of a training share."""

    def __init__(
        self,
        clips: StrongClips,
        parts: Parts,
        settings: StrongSettings,
        detector: Detector,
        waveforms: Waveforms,
        workers: int,
    ) -> None:
        self.clips, self.parts, self.settings = clips, parts, settings
        self.detector, self.waveforms, self.workers = detector, waveforms, workers
        self.size = round(settings.window_s * detector.sample_rate)
        self.front = Front(detector, self.size)
        self.windows = cut_windows(waveforms.lengths, self.size)
        edges = detector.frame_scores(np.zeros(self.size, np.float32)).edges
        self.labels = Labels(clips, waveforms, edges)
        held = np.isin(waveforms.rows, parts.validation)[self.windows.items]
        self.held, self.fitted = np.flatnonzero(held), np.flatnonzero(~held)
        for name, rows in (("training", self.fitted), ("validation", self.held)):
            if not len(rows):
                raise DataError(f"{clips.root}: no recording of the {name} part could be read")
        self.maps: np.ndarray | None = None

    def listen(self, folder: Path | None, notes: list[str]) -> None:
        """Run the frozen front over all windows, if what it makes is to be kept; statistics."""
        s = self.settings
        n_values = len(self.windows.items) * self.front.size
        kept = s.precompute and fits(n_values, folder)
        if s.precompute and not kept:
            notes.append(
                f"what the front makes takes {2 * n_values / 1e9:.0f} GB, more than half of what "
                "is free: it is made anew each time, which takes several times as long"
            )
        if kept:
            self.maps = precomputed(
                self.front.flat,
                self.front.size,
                self.waveforms,
                self.windows,
                self.size,
                folder=folder and folder / "front",
                key=self._key(),
                workers=self.workers,
            )
        # Statistics of the training part alone.
        chosen = np.array_split(self.fitted, max(1, len(self.fitted) // AT_ONCE))
        with torch.inference_mode():
            self.detector.fit_statistics(self.front.unflat(self.rows(part)) for part in chosen)
        self._start_at_the_shares()

    def rows(self, numbers: np.ndarray) -> torch.Tensor:
        """(B, M) what the front makes of some windows."""
        if self.maps is not None:
            return torch.from_numpy(self.maps[numbers].astype(np.float32))
        return self.front.flat(torch.from_numpy(self.heard(numbers)))

    def heard(self, numbers: np.ndarray) -> np.ndarray:
        """(B, N) samples of some windows."""
        w = self.windows
        return np.stack(
            [self.waveforms.read(int(w.items[i]), int(w.starts[i]), self.size) for i in numbers]
        )

    def targets(self, numbers: np.ndarray) -> np.ndarray:
        """(B, K + 2, T + 1) packed targets of some windows."""
        w = self.windows
        return np.stack(
            [self.labels.of(int(w.items[i]), int(w.starts[i]), int(w.lengths[i])) for i in numbers]
        )

    def _start_at_the_shares(self) -> None:
        """Let the head begin with how often each class sounds, not with one half."""
        k = len(self.clips.classes)
        sums, count = np.zeros(k), 0.0
        for part in np.array_split(self.fitted, max(1, len(self.fitted) // AT_ONCE)):
            packed = self.targets(part)
            sums += packed[:, :k, :-1].sum((0, 2))
            count += packed[:, k, :-1].sum()
        share = np.clip((sums + 1) / (count + 2 * k), 1e-4, 0.5)
        layer: Any = self.detector.head.layers[-1]
        with torch.no_grad():
            layer.bias.copy_(torch.from_numpy(np.log(share / (1 - share))))

    def train(
        self, folder: Path | None, progress: Steps | None
    ) -> tuple[StrongTraining, list[dict[str, Any]]]:
        """Train; the objective at its end, and the log."""
        s = self.settings
        fitted = Windows(*(part[self.fitted] for part in self.windows))
        batches = StrongBatches(
            self.waveforms,
            fitted,
            self.labels,
            batch_size=s.batch_size,
            window=self.size,
            maps=self.maps,
            numbers=self.fitted,
            seed=s.seed,
        )
        judge = Judge(self.front, self.rows, self.targets, self.held)
        objective = StrongTraining(
            self.detector,
            self.front,
            s,
            precomputed=self.maps is not None,
            validate=judge,
        )
        optimiser = create_optimiser(self.detector, "adamw", s.learning_rate, s.weight_decay)
        per_epoch = batches.steps_per_epoch
        steps = s.epochs_of(per_epoch) * per_epoch
        threads = torch.get_num_threads()
        torch.set_num_threads(max(1, self.workers))
        try:
            trained = fit(
                objective,
                batches,
                optimiser,
                steps=steps,
                schedule=lambda step: warm_up_cosine(step, steps, round(s.warm_up * steps)),
                folder=folder,
                fingerprint=self._key(),
                seed=s.seed,
                log_every=per_epoch,
                monitor=objective.after_epoch,
                monitor_every=per_epoch,
                finished=objective.finished,
                progress=progress,
            )
        finally:
            torch.set_num_threads(threads)
        return objective, trained.history

    def fit_rules(self, detector: Detector) -> tuple[Rules, dict[str, Any]]:
        """Rules by the validation part, whose recordings are heard as in use."""
        held = self.clips.subset(self.parts.validation)
        frames, _ = frames_of(held, detector.frame_scores, detector.sample_rate, self.workers)
        return rules_for(frames, held)

    def _key(self) -> str:
        """The same for the same run."""
        about: list[Any] = [asdict(self.settings), self.detector.backbone.config()]
        about += [self.clips.classes, self.parts.train.tolist(), self.parts.validation.tolist()]
        about += [key(recordings(self.clips), self.detector.sample_rate), self.front.shapes]
        events = self.clips.events[["file", "onset", "offset", "label"]]
        about += [pd.util.hash_pandas_object(events, index=False).to_numpy().tolist()]
        about += [self.clips.files[["kind", "labels"]].to_numpy().tolist()]
        return hashlib.sha256(json.dumps(json_safe(about)).encode()).hexdigest()


def rules_for(
    frames: Mapping[str, FrameScores], clips: StrongClips, **choices: Any
) -> tuple[Rules, dict[str, Any]]:
    """Rules that suit recordings' events best, class by class, and how well they do.

    Args:
        frames: file -> scores, by anything that scores frames.
        clips: with the events of these files; others of its files are passed over.
        choices: of ``ossicle.detect.tune.fit_rules``.
    """
    events = clips.events[clips.events["file"].isin(set(frames))]
    groups = dict(zip(clips.files["path"], clips.files["group"].map(str), strict=True))
    return fit_rules(frames, events, clips.classes, groups=groups, **choices)


def _decoded(clips: StrongClips, rows: np.ndarray, sample_rate: int, workers: int) -> Waveforms:
    """Some recordings decoded; ``rows`` of the result are those of the whole table."""
    items = [recordings(clips)[row] for row in rows]
    folder = cache_dir() / "waveforms" / key(items, sample_rate)[:16]
    found = decode(items, sample_rate, folder, workers=workers)
    parts = found.starts, found.lengths, found.names, found.skipped, found.sample_rate
    return Waveforms(found.samples, rows[found.rows], *parts)
