"""The whole line in one call: clips in, features, cross-validation, the numbers out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ossicle import bundle
from ossicle.backbones import BACKBONES, WEIGHTS, is_family
from ossicle.datasets.clips import Clips, read_clips
from ossicle.datasets.unlabelled import unlabelled_clips
from ossicle.errors import DataError, OssicleError
from ossicle.features import FeatureTable, ProgressCallback, extract
from ossicle.finetune.models import renewed
from ossicle.keywords import parse_keywords
from ossicle.metrics import compare_runs
from ossicle.model import Model, create_model
from ossicle.transfer.evaluate import evaluate
from ossicle.transfer.fit import check_foldable
from ossicle.transfer.isotonic import check_calibration
from ossicle.transfer.probe import create_probe


class Measured(NamedTuple):
    """An evaluation and what it was made from."""

    result: dict[str, Any]
    clips: Clips
    model: Model
    table: FeatureTable


def pick_model(
    backbone: str, random: bool = False, seed: int = 0, keywords: Sequence[str] = ()
) -> Model:
    """The model of that name, or the network of a bundle without its head.

    Args:
        backbone: a name, "hf:NAME", "hear:MODULE", or a bundle's folder.
        random: not the published, or the bundle's, weights but new ones.
        seed: of new weights.
        keywords: KEY=VALUE of the backbone's constructor.

    Raises:
        OssicleError: there is no such network or keyword, or keywords come with weights.
    """
    if backbone in BACKBONES:
        config = parse_keywords(keywords, BACKBONES[backbone], backbone)
        # Published weights are those of the constructor's defaults.
        trained = backbone in WEIGHTS and not random and not config
        if config and backbone in WEIGHTS and not random:
            raise OssicleError(f"{backbone}'s weights have no keywords: add --random, or leave out")
        return create_model(backbone, pretrained=trained, seed=seed, **config)
    if keywords:
        raise OssicleError(f"{backbone} brings its own configuration: leave out --set")
    if is_family(backbone) or not bundle.is_bundle(backbone):
        return create_model(backbone, pretrained=not random, seed=seed)
    model = bundle.load(backbone)
    if random:
        return renewed(model, seed)
    return Model(model.frontend, model.backbone, clip=model.clip, info=model.info).eval()


def open_model(name: str) -> Model:
    """A bundle's model, or a published network with its classes.

    Raises:
        OssicleError: it is neither, or has no classes.
    """
    if name in WEIGHTS and not bundle.is_bundle(name):
        model = create_model(name, pretrained=True)
        if model.head is None:
            raise OssicleError(f"{name} has no classes of its own: train a model on it")
        return model
    return bundle.load(name)


def split_poolings(text: str | None) -> tuple[str, ...] | None:
    """ "mean,max" -> ("mean", "max"); None, the network's own, stays None."""
    return None if text is None else tuple(part.strip() for part in text.split(","))


def probe_settings(balance: bool) -> dict[str, Any]:
    """Arguments of the probe."""
    return {"class_weight": "balanced"} if balance else {}


def count_workers(asked: int | None) -> int:
    """As many threads as asked for, else one a core that this process may use."""
    if asked is not None:
        return asked
    # Not every system can say which cores a process may use.
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def read_any(source: Path) -> Clips:
    """Labelled clips where the source has labels, else all recordings in it."""
    try:
        return read_clips(source)
    except DataError:
        return unlabelled_clips([source])


def measure(
    arguments: Mapping[str, Any],
    *,
    to_take_away: bool = False,
    progress: ProgressCallback | None = None,
    tell: Callable[[str], None] | None = None,
) -> Measured:
    """Read, embed and cross-validate, as `ossicle evaluate` does.

    Args:
        arguments: of that verb, by name: clips, folds, groups, labels, backbone, random, layers,
            keywords, pooling, probe, choose_layers, balance, n_folds, seed, workers, quick.
        to_take_away: refuse a probe that cannot become a network, before the work.
        progress: called after every clip that was embedded.
        tell: called with what is being done afterwards.

    Raises:
        OssicleError: the arguments or the clips cannot be used.
    """
    a = arguments
    clips = read_clips(Path(a["clips"]), folds=a["folds"], groups=a["groups"], labels=a["labels"])
    if a["balance"] and clips.task == "regression":
        raise DataError("--balance weighs classes, and these labels are numbers: leave it out")
    # A wrong name is told before the long work, not after.
    create_probe(a["probe"], clips.task)
    calibration = a.get("calibration", "temperature")
    check_calibration(calibration, clips.task)
    if to_take_away:
        check_foldable(a["probe"], clips.task)
    model = pick_model(a["backbone"], a["random"], a["seed"], a.get("keywords") or ())
    if to_take_away:
        model.backbone.config()  # which refuses what no bundle can carry
    table = extract(
        model,
        clips,
        layers=a["layers"],
        poolings=split_poolings(a["pooling"]),
        workers=count_workers(a["workers"]),
        progress=progress,
    )
    result = evaluate(
        clips,
        table,
        model,
        probe=a["probe"],
        probe_settings=probe_settings(a["balance"]),
        calibration=calibration,
        choose=a["choose_layers"],
        n_folds=a["n_folds"],
        seed=a["seed"],
        diagnostics=not a["quick"],
        arguments=a,
        progress=tell,
    )
    if Path(a["clips"]).is_file():
        # A manifest is called by its name, not by that of the folder it happens to lie in.
        result["title"] = Path(a["clips"]).stem
    return Measured(result, clips, model, table)


def compare(first: Path, second: Path) -> dict[str, Any]:
    """The paired difference of two runs on the same clips, from their `report.json`.

    Args:
        first, second: `report.json`, or the folder that holds it.

    Returns:
        What ``ossicle.metrics.compare_runs`` gives, with the metric.

    Raises:
        DataError: not such files, or the runs describe other clips.
    """
    runs = [_run(Path(path)) for path in (first, second)]
    tasks = {run["task"] for run in runs}
    if len(tasks) > 1:
        raise DataError(f"the runs are of different tasks: {' and '.join(sorted(tasks))}")
    result = compare_runs(runs[0], runs[1], task=runs[0]["task"], common_only=True)
    return {"metric": runs[0]["metric"], **result}


def _run(path: Path) -> dict[str, Any]:
    path = path / "report.json" if path.is_dir() else path
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; pass what `ossicle evaluate -o` wrote")
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        task, classes, items = report["task"], report["classes"], report["items"]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not the report.json of an evaluation ({error})") from error
    index = {name: i for i, name in enumerate(classes)}

    def coded(value: Any) -> Any:
        if task == "classes":
            return index[value]
        return [int(name in value) for name in classes] if task == "multilabel" else value

    def predicted(item: Mapping[str, Any]) -> Any:
        if task == "multilabel":
            return [item["probability"][name] for name in classes]
        return coded(item["predicted"])

    return {
        "task": task,
        "metric": report["metric"],
        "items": [_name(item) for item in items],
        "y_true": [coded(item["label"]) for item in items],
        "y_pred": [predicted(item) for item in items],
        "group": [item["group"] for item in items],
    }


def _name(item: Mapping[str, Any]) -> str:
    return f"{item['path']} {item['onset']} {item['offset']}"


def compare_lines(result: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """The comparison in words."""
    apart = result["low"] > 0 or result["high"] < 0
    rare = result["p_value"] < 0.05
    if apart and rare:
        verdict = "the interval leaves out zero: the difference is more than chance"
    elif apart or rare:
        verdict = "interval and p disagree: too few clips set the two runs apart to tell"
    else:
        verdict = "the interval holds zero: these clips do not tell the two apart"
    return [
        f"{names[0]}: {result['metric']} {result['a']:.4f}; {names[1]}: {result['b']:.4f}",
        f"difference {result['difference']:+.4f} (95 % interval {result['low']:+.4f} to "
        f"{result['high']:+.4f}, p = {result['p_value']:.3g}) on {result['n_items']} clips, "
        f"{result['n_groups']} groups",
        verdict,
    ]
