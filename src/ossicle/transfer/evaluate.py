"""How well would it do? Cross-validated, grouped, with intervals: the product's number.

Everything that is chosen (standardisation, penalty, layers, temperature) is chosen on the training
part of each fold; a clip is reported on once, by a probe that has heard neither it nor its group.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from ossicle.datasets.clips import Clips
from ossicle.errors import DataError
from ossicle.features import FeatureTable
from ossicle.leaks import audit
from ossicle.metrics import PRIMARY, with_intervals
from ossicle.metrics.reliability import reliability
from ossicle.model import Model
from ossicle.record import record
from ossicle.transfer import diagnose
from ossicle.transfer.evaluation_rows import (
    backbone_facts,
    chance,
    class_rows,
    confusion_counts,
    items,
    skipped_rows,
)
from ossicle.transfer.isotonic import check_calibration, recalibrate
from ossicle.transfer.layer_choice import choose_layers
from ossicle.transfer.novelty_fit import novelty_auc
from ossicle.transfer.probe import create_probe
from ossicle.transfer.protocol import Protocol, choose_protocol

Progress = Callable[[str], None]
# (train rows, test rows, number of the fold) -> (m, K) probabilities or (m, 1) numbers, and what
# was chosen.
Trainer = Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, dict[str, Any]]]


def evaluate(
    clips: Clips,
    table: FeatureTable,
    model: Model,
    *,
    probe: str = "ridge",
    probe_settings: Mapping[str, Any] | None = None,
    choose: bool = False,
    calibration: str = "temperature",
    n_folds: int = 5,
    seed: int = 0,
    diagnostics: bool = True,
    trainer: Trainer | None = None,
    arguments: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Cross-validate a probe on frozen features, and everything one needs to trust the number.

    Args:
        clips: all clips asked for; those that could not be read are in ``table.skipped``.
        table: their features.
        model: what made the features.
        probe: a name in ``ossicle.transfer.probe.PROBES``.
        probe_settings: arguments of the probe.
        choose: choose the layers inside each training part instead of using all.
        calibration: of the probe's answers, one of ``isotonic.CALIBRATIONS``.
        n_folds: folds where the data brings none.
        seed: of folds, inner folds and the bootstrap.
        diagnostics: also the random split, shuffled labels, audit, layers, learning curve,
            reliability of the probabilities, and whether unheard classes would be noticed.
        trainer: what trains on rows of the readable clips and answers for others, in place of the
            probe, which is then the name of what it does.
        arguments: what the caller was asked, for the record.
        progress: called with what is being done.

    Returns:
        A dict ready for JSON; ``report.write_report`` shows it.

    Raises:
        DataError: too few clips, classes or groups to evaluate, or no such calibration.
    """
    say = progress or (lambda text: None)
    start = time.perf_counter()
    asked, clips = clips, clips.subset(table.index)
    if clips.task != "regression" and len(clips.classes) < 2:
        raise DataError(f"there is one class only ({clips.classes[0]}): nothing to tell apart")
    check_calibration(calibration, clips.task)
    y = clips.y()
    try:
        protocol = choose_protocol(clips, n_folds=n_folds, random_state=seed)
    except DataError as error:
        if not table.skipped:
            raise
        _, path, reason = table.skipped[0]
        left_out = f"{len(table.skipped)} clips were left out, the first: {path}: {reason}"
        raise DataError(f"{error}; {left_out}") from error
    tested = y[protocol.tested]
    if clips.task == "classes" and len(np.unique(tested)) < 2:
        raise DataError(
            f"only {clips.classes[tested[0]]!r} could be tested, so any score would be perfect: "
            "each class needs clips of two groups (recordings)"
        )
    outcome = _cross_validate(
        clips,
        table,
        protocol,
        create=lambda: create_probe(
            probe, clips.task, random_state=seed, **dict(probe_settings or {})
        ),
        choose=choose,
        calibration=calibration,
        seed=seed,
        say=say,
        trainer=trainer,
    )
    rows, predicted, scores = outcome["rows"], outcome["predicted"], outcome["scores"]
    groups = protocol.groups
    measured = with_intervals(
        clips.task,
        y[rows],
        predicted,
        scores,
        clips.classes,
        groups=groups[rows],
        random_state=seed,
    )
    metric = PRIMARY[clips.task]
    classes = class_rows(clips, y[rows], predicted, scores, groups[rows], seed)
    headline = measured[metric]
    result: dict[str, Any] = {
        "title": clips.root.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "task": clips.task,
        "classes": list(clips.classes),
        "metric": metric,
        metric: headline["value"],
        "score": headline,
        "scores": measured,
        "chance": chance(clips.task, y[rows]),
        "n_clips": len(rows),
        "protocol": {
            "text": protocol.text,
            "n_folds": len(protocol.folds),
            "n_clips": len(rows),
            "n_groups": len(np.unique(groups[rows])),
            "group_source": protocol.group_source,
            "notes": [*clips.notes, *protocol.notes],
            "confidence": 0.95,
        },
        "probe": {"name": probe, **outcome["chosen"]},
        "backbone": backbone_facts(model, table),
        "per_class": classes,
        "confusion": confusion_counts(clips, y[rows], predicted),
        "items": items(clips, rows, outcome, groups),
        "audio": {
            "n_files": int(clips.table["path"].nunique()),
            "seconds_read": table.seconds_read,
            "seconds_used": table.seconds_used,
            "clip_policy": model.clip.describe(model.sample_rate),
            "sample_rate": model.sample_rate,
        },
        "skipped": skipped_rows(table, asked),
        "chosen": outcome["choice"],
    }
    if diagnostics:
        if scores is not None:
            told = groups[rows]
            result["reliability"] = {
                "calibration": None if trainer is not None else calibration,
                **reliability(
                    clips.task, y[rows], scores, clips.classes, groups=told, random_state=seed
                ),
            }
        result.update(_diagnose(clips, table, protocol, classes, seed, say))
    result["timing"] = {
        "extract_s": table.elapsed_s,
        "times_real_time": table.seconds_read / max(table.elapsed_s, 1e-9),
        "evaluate_s": time.perf_counter() - start,
    }
    result["arguments"] = dict(arguments or {})
    say("record")
    result["record"] = record(
        dict(arguments or {}), seed=seed, data=sorted(set(clips.table["path"]))
    )
    return result


def _cross_validate(
    clips: Clips,
    table: FeatureTable,
    protocol: Protocol,
    *,
    create: Callable[[], Any],
    choose: bool,
    calibration: str,
    seed: int,
    say: Progress,
    trainer: Trainer | None,
) -> dict[str, Any]:
    """Outputs for every tested clip: rows, predicted, scores, fold, and what was chosen."""
    y, k = clips.y(), len(clips.classes)
    X = table.matrix() if trainer is None else None
    rows, fold_of, chosen, choices = [], [], [], []
    predicted: list[np.ndarray] = []
    scores: list[np.ndarray] = []
    for number, (train, test) in enumerate(protocol.folds, start=1):
        say(f"fold {number} of {len(protocol.folds)}")
        if clips.task == "classes" and len(np.unique(y[train])) < 2:
            only = clips.classes[y[train][0]]
            raise DataError(f"fold {number}: its training part has the one class {only}")
        rows.append(test)
        fold_of.append(np.full(len(test), number))
        if trainer is not None:
            decisions, about = trainer(train, test, number)
            chosen.append(about)
            _answered(clips.task, decisions, scores, predicted)
            continue
        names, columns = table.names(), X
        if choose:
            layers = _choice(table, y, train, protocol.groups, clips.task, seed)
            choices.append(list(layers))
            names = table.names(layers)
            columns = table.matrix(names)
        assert columns is not None
        estimator = create()
        try:
            groups, sizes = protocol.groups[train], table.sizes(names)
            estimator.fit(columns[train], y[train], groups=groups, block_sizes=sizes)
        except DataError as error:
            raise DataError(f"fold {number}: {error}") from error
        chosen.append(estimator.chosen_)
        if clips.task == "regression":
            decisions = np.asarray(estimator.predict(columns[test])).reshape(len(test), 1)
            _answered(clips.task, decisions, scores, predicted)
            continue
        probability = np.zeros((len(test), k))
        # A class that the training part lacks keeps probability 0.
        index = np.asarray(estimator.classes_, np.int64)
        calibrated = recalibrate(estimator, calibration, y[train])
        answers = estimator.predict_proba(columns[test])
        probability[:, index] = answers if calibrated is None else calibrated(answers)
        _answered(clips.task, probability, scores, predicted)
    order = np.argsort(np.concatenate(rows), kind="stable")
    settings_chosen = {
        name: [entry[name] for entry in chosen] for name in chosen[0] if name in chosen[-1]
    }
    return {
        "rows": np.concatenate(rows)[order],
        "predicted": np.concatenate(predicted)[order],
        "scores": np.concatenate(scores)[order] if scores else None,
        "fold": np.concatenate(fold_of)[order],
        "chosen": settings_chosen,
        "choice": {"layers_by_fold": choices, "method": "inside each training part"}
        if choose
        else None,
    }


def _answered(
    task: str, decisions: np.ndarray, scores: list[np.ndarray], predicted: list[np.ndarray]
) -> None:
    """Add (m, K) probabilities, or (m, 1) numbers, of a fold to what is known."""
    if task == "regression":
        predicted.append(decisions[:, 0])
        return
    scores.append(decisions)
    labels = decisions >= 0.5 if task == "multilabel" else decisions.argmax(1)
    predicted.append(labels.astype(np.int64))


def _choice(
    table: FeatureTable,
    y: np.ndarray,
    train: np.ndarray,
    groups: np.ndarray,
    task: str,
    seed: int,
) -> tuple[str, ...]:
    blocks = {name: X[train] for name, X in table.by_layer().items()}
    chosen = choose_layers(blocks, y[train], groups=groups[train], task=task, random_state=seed)
    return chosen.layers


def _diagnose(
    clips: Clips,
    table: FeatureTable,
    protocol: Protocol,
    classes: list[dict[str, Any]],
    seed: int,
    say: Progress,
) -> dict[str, Any]:
    y, groups, n = clips.y(), protocol.groups, len(clips)
    blocks = {layer: table.names([layer]) for layer in table.layers}
    sizes = {layer: table.sizes(names) for layer, names in blocks.items()}

    def prepared(limit: int) -> tuple[diagnose.Diagnosis, Any, np.ndarray]:
        some = diagnose.sample_rows(y, limit, clips.task, seed)
        study = diagnose.Diagnosis(
            {layer: table.matrix(names)[some] for layer, names in blocks.items()},
            y[some],
            groups[some],
            task=clips.task,
            classes=clips.classes,
            block_sizes=sizes,
            random_state=seed,
        )
        return study, diagnose.restrict(protocol.folds, some, n), some

    say("other splits and labels")
    study, folds, some = prepared(diagnose.MAX_CLIPS)
    result: dict[str, Any] = {
        "random_split": study.random_split(len(folds)) if len(folds) > 1 else None,
        "shuffled_labels": study.shuffled_labels(folds, repeats=3),
    }
    say("learning curve")
    points = study.learning_curve(folds)
    result["learning_curve"] = {"points": points, "advice": diagnose.advice(points, classes)}
    result["diagnosed_clips"] = {"all": len(study.y), "layers": len(study.y)}
    if len(blocks) > 1:
        say("score by layer")
        if n > diagnose.MAX_CLIPS_LAYERS:
            study, folds, some = prepared(diagnose.MAX_CLIPS_LAYERS)
        result["diagnosed_clips"]["layers"] = len(study.y)
        result["by_layer"] = study.by_layer(folds, say)
        result["subsets"] = study.subsets(folds)
        result["all_layers"] = study.interval(*study.run(folds), study.groups)
    last = table.matrix(blocks[table.layers[-1]])
    say("classes it has never heard")
    result["novelty"] = novelty_auc(
        last[some],
        study.y,
        study.groups,
        folds,
        task=clips.task,
        classes=clips.classes,
        kernel=study.kernel(),
        block_sizes=sizes[table.layers[-1]],
        random_state=seed,
    )
    say("audit")
    result["audit"] = audit(clips, folds=protocol.folds, embeddings=last)
    return result
