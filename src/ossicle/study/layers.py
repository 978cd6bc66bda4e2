"""Which layers transfer: every subset of layers by a grid of support vector machines.

Reproduces Choi, Fazekas, Sandler, Cho, "Transfer learning for music classification and regression
tasks", ISMIR 2017, figure 3, from the authors' own features, and compares the project's fast
search over the same subsets with it. Works on any table of features, one block a layer.

The paper's grid has standardising on and off. The published scores are those without it, to the
digit: the authors' `OptionalStandardScaler` sets `with_mean` and `with_std` in its constructor,
but `GridSearchCV` sets `on` afterwards, with `set_params`, so that it never standardised. One
search yields both: `scores` is the grid as it was run, `with_standardising` as it was described.

Axes: n clips, d_l dimensions of a layer.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from threadpoolctl import threadpool_limits

from ossicle.errors import DataError
from ossicle.record import record, replaced, write_json
from ossicle.study.grid_svm import grid_svm_scores, layer_subsets, svm_grid
from ossicle.study.layers_table import layers_frame, layers_table
from ossicle.transfer.layer_choice import MAX_EXHAUSTIVE, choose_layers

Subset = tuple[str, ...]
Splits = list[tuple[np.ndarray, np.ndarray]]


def subset_name(subset: Subset) -> str:
    """ "135" for one-letter names, "mfcc+135" with others, which are joined by "+"."""
    letters = "".join(name for name in subset if len(name) == 1)
    words = [name for name in subset if len(name) > 1]
    return "+".join([*words, letters] if letters else words)


def read_table(
    path: str | PathLike[str],
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray, np.ndarray | None]:
    """Read a feature table.

    Args:
        path: an .npz file with `label` (n,), optionally `group` (n,), and either `layers`
            (n, L, d), whose layers are called 1 to L, beside baselines of any name (n, d), or one
            (n, d) array for each layer.

    Returns:
        Layers, baselines, labels, and groups or None.

    Raises:
        DataError: not such a file.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as table:
            arrays = {name: table[name] for name in table.files}
    except (OSError, ValueError, EOFError, AttributeError) as error:
        raise DataError(
            f"{path}: not a readable .npz table of features (arrays `layers` and `label`)"
        ) from error
    if "label" not in arrays:
        raise DataError(f"{path}: has no array `label`, one class for each clip")
    y, groups = arrays.pop("label"), arrays.pop("group", None)
    blocks, baselines = dict(arrays), {}
    if "layers" in arrays:
        stacked = arrays.pop("layers")
        if stacked.ndim != 3:
            raise DataError(f"{path}: `layers` has shape {stacked.shape}, expected (clips, L, d)")
        baselines = arrays
        blocks = {str(i + 1): stacked[:, i] for i in range(stacked.shape[1])}
    for name, block in {**blocks, **baselines}.items():
        if block.ndim != 2 or len(block) != len(y):
            raise DataError(f"{path}: {name} has shape {block.shape}, expected ({len(y)}, dims)")
    if not blocks:
        raise DataError(f"{path}: has no features beside `label`")
    return blocks, baselines, y, groups


def read_published(path: str | PathLike[str], task: str) -> dict[str, float]:
    """The authors' scores of a task, named as the subsets here.

    Args:
        path: JSON, task -> file name in the authors' repository -> score. They count layers from
            0: `mine_0134` is "1245", `mfcc_4` is "mfcc", `mfcc+12345_4` is "mfcc+12345".
        task: a key of it.
    """
    scores = {}
    for name, score in json.loads(Path(path).read_text(encoding="utf-8"))[task].items():
        kind, layers = name.rsplit("_", 1)
        own = "".join(str(int(c) + 1) for c in layers)
        scores[own if kind == "mine" else kind] = float(score)
    return scores


def layers_study(
    source: str | PathLike[str] | Mapping[str, np.ndarray],
    out: str | PathLike[str] | None = None,
    *,
    y: Any = None,
    groups: Any = None,
    grid: bool = True,
    n_folds: int = 10,
    n_jobs: int = 1,
    published: str | PathLike[str] | Mapping[str, float] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Score every subset of layers by the grid, and search the same subsets the fast way.

    Interrupted, it goes on where it was: subsets done are kept in `out` + ".partial".

    Args:
        source: an .npz feature table (see `read_table`), or layer -> (n, d_l) features with `y`.
        out: JSON to write, and beside it a table in Markdown and a figure, OUT-sets.png and .svg
            (score by set, grouped by size); None writes nothing.
        y: (n,) classes, where `source` holds features.
        groups: (n,) group of each clip; None: the table's, if any. With groups the folds are
            stratified and grouped, without they are those of the paper: stratified, unshuffled.
        grid: False skips the slow grid: only the fast search, compared with what was published.
        n_folds: folds.
        n_jobs: processes for the grid.
        published: scores to compare with: JSON (see `read_published`) or subset -> score; None:
            `published.json` beside `source`, where it has a task named like the file.
        progress: called with (steps done, steps in all).

    Returns:
        `scores` (subset -> the grid's best score without standardising, as published),
        `published`, `median_difference` and `rank_correlation` (Spearman) to it;
        `baselines` (MFCC), alone and with all layers; `with_standardising` (the same for the
        whole grid, on and off); `settings` (the best of the whole grid);
        `search` (the fast search: chosen layers, its own scores, seconds of one core, the whole
        grid's seconds for the same subsets, their ratio, and how far the chosen subset's score
        by the whole grid, and without standardising, is from the best subset's); `record`.

    Raises:
        DataError: a table that cannot be used, or more than 12 layers for the grid.
    """
    baselines: dict[str, np.ndarray] = {}
    reported: dict[str, float] = {}
    if isinstance(source, Mapping):
        if y is None:
            raise DataError("features need their labels: pass y")
        blocks, labels = dict(source), np.asarray(y)
    else:
        blocks, baselines, labels, own_groups = read_table(source)
        groups = own_groups if groups is None else groups
        beside = Path(source).with_name("published.json")
        if published is None and beside.is_file():
            with_task = json.loads(beside.read_text(encoding="utf-8"))
            if Path(source).stem in with_task:
                reported = read_published(beside, Path(source).stem)
    if isinstance(published, Mapping):
        reported = dict(published)
    elif published is not None:
        task = "" if isinstance(source, Mapping) else Path(source).stem
        reported = read_published(published, task)
    if len(blocks) > MAX_EXHAUSTIVE and grid:
        raise DataError(
            f"{len(blocks)} layers have {2 ** len(blocks) - 1} subsets: too many for the grid, "
            f"which takes up to {MAX_EXHAUSTIVE} layers; use grid=False"
        )
    splits = _splits(labels, groups, n_folds)
    subsets = layer_subsets(list(blocks)) if grid else []
    extra = [s for b in baselines for s in ((b,), (b, *blocks))] if grid else []
    steps = 1 + len(subsets) + len(extra)

    with threadpool_limits(1):
        wall, cpu = time.perf_counter(), time.process_time()
        choice = choose_layers(blocks, labels, folds=splits, kernel="rbf")
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if progress is not None:
        progress(1, steps)
    search: dict[str, Any] = {
        "layers": subset_name(choice.layers),
        "score": choice.score,
        "scores": {subset_name(s): score for s, score in choice.scores.items()},
        "cpu_s": cpu,
        "wall_s": wall,
    }
    result: dict[str, Any] = {"published": reported, "search": search}
    if grid:
        done = _grid(blocks, baselines, labels, subsets + extra, splits, n_jobs, out, progress)
        result = {**_summary(done, subsets, extra, reported, search), **result}
    elif reported:
        search.update(_shortfall(search["layers"], _layer_sets(reported, blocks), "published"))
    result["record"] = record(
        {
            "source": "features" if isinstance(source, Mapping) else Path(source).name,
            "grid": grid,
            "n_folds": n_folds,
            "n_jobs": n_jobs,
            "clips": len(labels),
            "dims": {name: block.shape[1] for name, block in {**blocks, **baselines}.items()},
        },
        seed=None,
        data=None if isinstance(source, Mapping) else [source],
    )
    if out is not None:
        write_json(out, result)
        with replaced(Path(out).with_suffix(".md")) as part:
            part.write_text(layers_table(result), encoding="utf-8")
        with replaced(Path(out).with_suffix(".csv")) as part:
            layers_frame(result).to_csv(part, index=False)
        _write_figure(result, Path(out), list(blocks))
        _partial(out).unlink(missing_ok=True)
    return result


def _splits(y: np.ndarray, groups: Any, n_folds: int) -> Splits:
    if y.ndim != 1:
        raise DataError(f"the grid needs one class for each clip, not labels of shape {y.shape}")
    smallest = int(np.unique(y, return_counts=True)[1].min())
    if smallest < n_folds and groups is None:
        raise DataError(f"the smallest class has {smallest} clips, fewer than {n_folds} folds")
    try:
        if groups is None:
            return list(StratifiedKFold(n_folds).split(y, y))
        return list(StratifiedGroupKFold(n_folds).split(y, y, np.asarray(groups)))
    except ValueError as error:
        raise DataError(f"cannot make {n_folds} folds: {error}") from error


def _partial(out: str | PathLike[str]) -> Path:
    return Path(f"{out}.partial")


def _grid(
    blocks: Mapping[str, np.ndarray],
    baselines: Mapping[str, np.ndarray],
    y: np.ndarray,
    subsets: list[Subset],
    splits: Splits,
    n_jobs: int,
    out: str | PathLike[str] | None,
    progress: Callable[[int, int], None] | None,
) -> dict[str, dict[str, Any]]:
    """Subset name -> result of the grid; results of an interrupted run with the same data count."""
    features = {**blocks, **baselines}
    digest = hashlib.sha256(repr(svm_grid(1)).encode())
    for name, block in features.items():
        digest.update(name.encode() + repr(block.shape).encode() + np.ascontiguousarray(block).data)
    for array in (y, *(test for _, test in splits)):
        digest.update(np.ascontiguousarray(array).tobytes())
    done: dict[str, dict[str, Any]] = {}
    if out is not None and _partial(out).is_file():
        try:
            saved = json.loads(_partial(out).read_text(encoding="utf-8"))
        except ValueError:
            saved = {}
        if saved.get("of") == digest.hexdigest():
            done = saved["results"]
    left = [s for s in subsets if subset_name(s) not in done]
    for subset, found in grid_svm_scores(features, y, left, splits, n_jobs=n_jobs):
        done[subset_name(subset)] = found
        if out is not None:
            write_json(_partial(out), {"of": digest.hexdigest(), "results": done})
        if progress is not None:
            progress(1 + len(done), 1 + len(subsets))
    return done


def _compare(scores: Mapping[str, float], reported: Mapping[str, float]) -> dict[str, Any]:
    """Median absolute difference and Spearman's rank correlation over the sets in both."""
    both = [name for name in scores if name in reported]
    if len(both) < 3:
        return {"compared": len(both), "median_difference": None, "rank_correlation": None}
    own, theirs = (np.array([s[name] for name in both]) for s in (scores, reported))
    constant = np.ptp(own) == 0 or np.ptp(theirs) == 0
    return {
        "compared": len(both),
        "median_difference": float(np.median(np.abs(own - theirs))),
        "largest_difference": float(np.max(np.abs(own - theirs))),
        "rank_correlation": None if constant else float(spearmanr(own, theirs).statistic),
    }


def _layer_sets(scores: Mapping[str, float], blocks: Mapping[str, Any]) -> dict[str, float]:
    names = {subset_name(s) for s in layer_subsets(list(blocks))}
    return {name: score for name, score in scores.items() if name in names}


def _shortfall(chosen: str, scores: Mapping[str, float], by: str) -> dict[str, Any]:
    """How much lower the chosen set scores than the best one; None where it has no score."""
    best = max(scores, key=lambda name: scores[name])
    return {
        "judged_by": by,
        "best_layers": best,
        "best_score": scores[best],
        "chosen_score": scores.get(chosen),
        "shortfall": scores[best] - scores[chosen] if chosen in scores else None,
    }


def _write_figure(result: Mapping[str, Any], out: Path, layers: list[str]) -> None:
    """OUT-sets.png and .svg: the grid as it was published, and the fast search."""
    from ossicle.study.layers_figures import save_figure, sets_figure

    named = {subset_name(s): s for s in layer_subsets(layers)} if len(layers) <= 12 else {}
    panels = {
        title: [(named[name], score) for name, score in scores.items() if name in named]
        for title, scores in (
            ("grid of support vector machines", result.get("scores", {})),
            ("fast search", result["search"]["scores"]),
        )
    }
    panels = {title: sets for title, sets in panels.items() if sets}
    if panels:
        chosen = named[result["search"]["layers"]]
        save_figure(
            sets_figure(panels, chosen=dict.fromkeys(panels, chosen)),
            out.with_name(f"{out.stem}-sets"),
        )


def _summary(
    done: Mapping[str, dict[str, Any]],
    subsets: list[Subset],
    extra: list[Subset],
    reported: Mapping[str, float],
    search: dict[str, Any],
) -> dict[str, Any]:
    names = [subset_name(s) for s in subsets]
    others = [subset_name(s) for s in extra]
    whole, bare = (
        {name: done[name][key] for name in names + others} for key in ("score", "score_unscaled")
    )
    search.update(_shortfall(search["layers"], {name: whole[name] for name in names}, "grid"))
    search["shortfall_as_published"] = max(bare[name] for name in names) - bare[search["layers"]]
    for clock in ("cpu_s", "wall_s"):
        search[f"grid_{clock}"] = sum(done[name][clock] for name in names)
    search["times_faster"] = search["grid_cpu_s"] / max(search["cpu_s"], 1e-9)
    return {
        "scores": {name: bare[name] for name in names},
        "baselines": {name: bare[name] for name in others},
        **_compare(bare, reported),
        "with_standardising": {
            "scores": {name: whole[name] for name in names},
            "baselines": {name: whole[name] for name in others},
            **_compare(whole, reported),
        },
        "settings": {name: done[name]["setting"] for name in names + others},
    }
