"""What is done to a mel spectrogram before a network hears it: twelve ways, one network each.

Repeats Choi, Fazekas, Cho, Sandler, "A comparison of audio signal preprocessing methods for deep
neural networks on music tagging" (arXiv 1709.01922; Choi's thesis, 5.2.3 and 5.2.4) on any labelled
clips: {log, linear} x {each band standardised, A-weighting, none} x {as it is, times 10}, each
standardised over the whole excerpt after the weighting and before the factor; the compact convnet
is trained from random weights on each.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from ossicle.backbones.choi_convnet import EXCERPT_S, ChoiConvNet
from ossicle.datasets.clips import Clips
from ossicle.datasets.patterns import relative_paths
from ossicle.errors import DataError
from ossicle.finetune.settings import FinetuneSettings
from ossicle.finetune.strategy import Strategy
from ossicle.finetune.trials import Outcome, Trials
from ossicle.pretrain.waveforms import Waveforms, decode_cached
from ossicle.record import record
from ossicle.study.cells import Cells
from ossicle.study.crossed import Crossed
from ossicle.study.outputs import write_study
from ossicle.study.preprocessing_inside import bias_ratio, first_layer, magnitudes
from ossicle.study.preprocessing_page import all_figures, findings
from ossicle.study.preprocessing_plan import SETTINGS, TRAINING, effects
from ossicle.transfer.protocol import choose_protocol

# Clips that the pictures of magnitudes are made of.
SAMPLED = 200


class Runner(Protocol):
    """What trains and tests; ``Trials`` does."""

    def run(
        self, strategy: Strategy, train: np.ndarray, test: np.ndarray, *, seed: int = 0
    ) -> Outcome:
        """Train on some rows, answer for others."""


def preprocessing_study(
    clips: Clips,
    out: Path,
    *,
    name: str = "preprocessing",
    seeds: int = 3,
    seed: int = 0,
    excerpt_s: float | None = None,
    training: FinetuneSettings = TRAINING,
    power: float = 1.0,
    n_folds: int = 5,
    max_folds: int | None = None,
    n_resamples: int = 1000,
    workers: int = 1,
    runner: Runner | None = None,
    cells: Path | None = None,
    arguments: Mapping[str, Any] | None = None,
    command: str = "ossicle study preprocessing",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Train the convnet on each of the twelve settings and compare.

    Interrupted, it goes on where it was: runs done are kept in ``cells``.

    Args:
        clips: labelled.
        out: folder of table, figures and numbers.
        name: of the files in it.
        seeds: S networks a setting, from seeds ``seed`` on: of weights and of the clips' order.
        seed: also of folds, sample and intervals.
        excerpt_s: what the network hears at once; None: the median clip, at most 29 s.
        training: how every network is trained.
        power: 1 (the mel filters sum |STFT|, as in the thesis) or 2 (its square).
        n_folds: folds where the data brings none.
        max_folds: only the first so many folds; None: all.
        n_resamples: of the intervals.
        workers: threads.
        runner: trains and tests, on the clips as given; None: ``Trials``.
        cells: folder of the runs done; None: ``out``.
        arguments, command: for the record.
        progress: called with (runs done, runs in all).

    Returns:
        ``settings`` (a row each: scores with intervals, mean |bias| of the first convolution),
        ``effects`` (differences with intervals), ``bias`` (x10 over x1), ``bands`` and
        ``histograms`` (what the figures show), ``protocol``, ``skipped``, ``record``.

    Raises:
        DataError: the clips cannot be used, or ``out`` holds another study.
    """
    if power not in (1, 2):
        raise DataError(f"power is {power:g}: choose 1 (magnitudes) or 2 (power)")
    if seeds < 1 or (max_folds is not None and max_folds < 1):
        raise DataError("seeds and folds must be 1 or more")
    waveforms = decode_cached(clips, ChoiConvNet.frontend["sample_rate"], workers)
    skipped = waveforms.skipped
    left = relative_paths([path for _, path, _ in skipped], clips.root)
    if skipped:
        clips = clips.subset(waveforms.rows)
    protocol = choose_protocol(clips, n_folds=n_folds, random_state=seed)
    folds = protocol.folds[:max_folds]
    if excerpt_s is None:
        excerpt_s = usual_excerpt(waveforms)
    made = record(dict(arguments or {}), seed=seed, data=sorted(set(clips.table["path"])))
    runner = Trials(clips, workers=workers) if runner is None else runner
    of = {
        "study": "preprocessing",
        "clips": clips.content(),
        "folds": _digest([[train.tolist(), test.tolist()] for train, test in protocol.folds]),
        "excerpt_s": excerpt_s,
        "training": asdict(training),
    }
    if power != 1:
        of["power"] = power

    def compute(cell: Mapping[str, Any]) -> dict[str, Any]:
        setting = next(s for s in SETTINGS if s.name == cell["setting"])
        train, test = folds[cell["fold"]]
        strategy = setting.strategy(excerpt_s, training, power)
        outcome = runner.run(strategy, train, test, seed=cell["seed"])
        first = {} if outcome.model is None else first_layer(outcome.model.backbone)
        return {
            "decisions": [[float(f"{v:.8g}") for v in row] for row in outcome.decisions],
            "seconds": outcome.seconds,
            "info": outcome.info,
            **first,
        }

    wanted = [
        {"setting": s.name, "seed": seed + i, "fold": k}
        for i in range(seeds)
        for k in range(len(folds))
        for s in SETTINGS
    ]
    rows = Cells(out if cells is None else cells, of).run(wanted, compute, progress)
    tested = np.concatenate([test for _, test in folds])
    crossed = Crossed(
        clips.task,
        clips.y()[tested],
        _decisions(rows, seeds, len(folds)),
        clips.classes,
        protocol.groups[tested],
        n_resamples=n_resamples,
        seed=seed,
    )
    first_train = np.sort(folds[0][0])
    picked = np.random.default_rng(seed).permutation(len(first_train))[:SAMPLED]
    bands, histograms = magnitudes(waveforms, np.sort(first_train[picked]), excerpt_s, power)
    result: dict[str, Any] = {
        "metrics": list(crossed.metrics),
        "settings": _by_setting(crossed, rows),
        "effects": [
            {"effect": effect, **_intervals(crossed, weights)}
            for effect, weights in effects().items()
        ],
        "bias": bias_ratio(rows),
        "bands": bands,
        "histograms": histograms,
        "excerpt_s": excerpt_s,
        "power": power,
        "training": asdict(training),
        "seeds": [seed + i for i in range(seeds)],
        "protocol": {
            "text": protocol.text,
            "folds": len(folds),
            "of_folds": len(protocol.folds),
            "n_train": [len(train) for train, _ in folds],
            "n_tested": len(tested),
            "n_groups": crossed.n_groups,
            "notes": [*clips.notes, *protocol.notes],
            "intervals": crossed.how(),
        },
        "skipped": [[path, reason] for path, (_, _, reason) in zip(left, skipped, strict=True)],
        "seconds": sum(row["seconds"] for row in rows),
    }
    write_study(
        out,
        name,
        title=f"Preprocessing: {clips.root.name}",
        text=findings(result),
        tables={
            "Settings": pd.DataFrame(result["settings"]),
            "Effects": pd.DataFrame(result["effects"]),
        },
        figures=all_figures(result),
        result=result,
        record=made,
        command=command,
    )
    return {**result, "record": made}


def usual_excerpt(waveforms: Waveforms) -> float:
    """The median clip in seconds, to a tenth, and no longer than the paper's 29 s."""
    median = float(np.median(waveforms.lengths)) / waveforms.sample_rate
    return float(np.clip(round(median, 1), EXCERPT_S[0], ChoiConvNet.clip["window_s"]))


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _decisions(rows: list[dict[str, Any]], seeds: int, n_folds: int) -> np.ndarray:
    """(12, S, n, K) from the cells, which come by seed, then fold, then setting."""
    found = {(r["setting"], r["seed"], r["fold"]): r["decisions"] for r in rows}
    first = rows[0]["seed"]
    return np.array(
        [
            [
                np.concatenate([np.array(found[s.name, first + i, k]) for k in range(n_folds)])
                for i in range(seeds)
            ]
            for s in SETTINGS
        ],
        np.float64,
    )


def _intervals(crossed: Crossed, weights: np.ndarray) -> dict[str, float]:
    columns: dict[str, float] = {}
    for metric in crossed.metrics:
        found = crossed.contrast(metric, weights)
        columns[metric] = found["value"]
        columns |= {f"{metric} {limit}": found[limit] for limit in ("low", "high")}
    return columns


def _by_setting(crossed: Crossed, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    table = []
    for number, setting in enumerate(SETTINGS):
        mine = [row for row in rows if row["setting"] == setting.name]
        entry: dict[str, Any] = {
            "setting": setting.name,
            **_intervals(crossed, np.eye(len(SETTINGS))[number]),
        }
        for metric in crossed.metrics:
            entry[f"{metric} by seed"] = " ".join(
                f"{value:.4f}" for value in crossed.scores[metric][number]
            )
        if all("bias" in row for row in mine):
            entry["first bias"] = float(np.mean([row["bias"] for row in mine]))
        table.append(entry)
    return table
