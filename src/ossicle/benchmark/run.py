"""Rows by tasks: features once, then one probe a fold; what is done is not done again."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from ossicle.benchmark.entries import Entry, facts, identity
from ossicle.benchmark.executors import Executor
from ossicle.benchmark.pieces import features_key, fill
from ossicle.benchmark.protocols import PROTOCOLS, run_protocol
from ossicle.benchmark.results import Results
from ossicle.benchmark.task import Fold, Task, TaskData, differences, targets
from ossicle.errors import DataError, OssicleError
from ossicle.features import ProgressCallback, one_thread
from ossicle.model import Model
from ossicle.store import FeatureStore

Say = Callable[[str], None]


class Ran(NamedTuple):
    """What a run could not do, a line each: parts that failed, clips that were left out."""

    failures: list[str]
    skipped: list[str]


class Loaded(NamedTuple):
    """A task with its clips and the checksum of what was read."""

    task: Task
    data: TaskData
    checksum: str


@dataclass(frozen=True)
class ProbeJob:
    """One probe to train and ask: a fold of a task on features that lie in a store.

    Attributes:
        store: folder of the features.
        blocks: "LAYER/POOLING" that are read.
        sizes: columns of each.
        y: (n,) or (n, K) targets of the stored clips.
        groups: (n,).
        fold: rows of the stored clips.
        task: "classes" or "multilabel".
        num_classes: K.
        protocol: name.
        seed: of the probe.
        probe: "linear" or "mlp".
    """

    store: Path
    blocks: tuple[str, ...]
    sizes: tuple[int, ...]
    y: np.ndarray
    groups: np.ndarray
    fold: Fold
    task: str
    num_classes: int
    protocol: str
    seed: int
    probe: str


# The last matrix read: folds of a task follow each other and share it.
_HELD: dict[tuple[Path, tuple[str, ...]], Any] = {}


def _matrix(job: ProbeJob) -> Any:
    """(n, d) features of the stored clips."""
    key = (job.store, job.blocks)
    if key not in _HELD:
        _HELD.clear()
        _HELD[key] = FeatureStore(job.store).features(list(job.blocks))
    return _HELD[key]


def run_probe(job: ProbeJob) -> tuple[np.ndarray, dict[str, Any]]:
    """(n_test, K) decisions of a job, and what was chosen.

    Raises:
        DataError: the probe cannot be fitted on these clips.
    """
    X = _matrix(job)
    start = time.perf_counter()
    with one_thread():
        outcome = run_protocol(
            job.protocol,
            X,
            job.y,
            job.fold,
            task=job.task,
            num_classes=job.num_classes,
            groups=job.groups,
            block_sizes=list(job.sizes),
            seed=job.seed,
            probe=job.probe,
        )
    return outcome.decisions, {**outcome.info, "seconds": time.perf_counter() - start}


def load_tasks(
    tasks: Mapping[str, Task], folders: Mapping[str, Path], say: Say
) -> tuple[list[Loaded], dict[str, str]]:
    """The tasks whose sets are there, and why the others are not: name -> what to do.

    Args:
        tasks: name -> task.
        folders: name -> where the set is looked for.
        say: told what is read.
    """
    loaded, missing = [], {}
    for name, task in tasks.items():
        say(f"reading {name}")
        try:
            data = task.read(folders[name])
        except OssicleError as error:
            missing[name] = f"{error}; {task.get}"
            continue
        data.notes += differences(data, task.published)
        loaded.append(Loaded(task, data, checksum(data)))
    return loaded, missing


def checksum(data: TaskData) -> str:
    """A name for clips, labels, groups, parts and folds, wherever the set and its files lie."""
    digest = hashlib.sha256()
    table = data.clips.table[["path", "label", "onset", "offset", "group"]]
    for path, *rest in table.itertuples(index=False):
        file = Path(path)
        size = file.stat().st_size if file.is_file() else -1
        digest.update(repr((file.name, size, *map(str, rest))).encode("utf-8", "surrogatepass"))
    for fold in data.folds:
        for part in fold:
            digest.update(part.astype(np.int64).tobytes() + b"|")
    return digest.hexdigest()[:16]


def run(
    entries: Sequence[Entry],
    loaded: Sequence[Loaded],
    results: Results,
    *,
    cache: Path,
    executor: Executor,
    protocol: str = "ossicle",
    seeds: Sequence[int] = (0,),
    keep_features: bool = True,
    say: Say | None = None,
    bar: ProgressCallback | None = None,
) -> Ran:
    """Fill the results with every row on every task; what is in them already is left.

    Args:
        entries: rows.
        loaded: tasks.
        results: where they go.
        cache: folder of features.
        executor: what runs the pieces: this process, or Ray.
        protocol: name in ``PROTOCOLS``.
        seeds: of random weights and of probes that draw.
        keep_features: leave them in the cache for other read-outs and protocols.
        say: told what is being done.
        bar: called after every clip of an extraction.

    Returns:
        What could not be done.

    Raises:
        OssicleError: there is no such network or protocol.
    """
    if protocol not in PROTOCOLS:
        raise OssicleError(f"no protocol {protocol!r}: choose one of {', '.join(PROTOCOLS)}")
    told = say or (lambda text: None)
    failures: list[str] = []
    skipped: dict[str, None] = {}
    for given in entries:
        entry = given.with_layers(PROTOCOLS[protocol].layers)
        for seed in entry.seeds(seeds):
            model = entry.model(seed)
            weights = identity(model)
            cells = _cells(entry, weights, loaded, protocol, seed, seeds)
            open_cells = [c for c in cells if not results.has(c)]
            row = row_name(entry, protocol)
            before = results.rows().get(row)
            if open_cells or before is None:
                how = {"protocol": protocol, "how": PROTOCOLS[protocol].how}
                # A bundle that is trained anew keeps its path: these say which cells are of it.
                of = {**(before or {}).get("weights_of", {}), **_weights(cells)}
                results.put_row(row, {**facts(entry, model), **how, "weights_of": of})
            for each in loaded:
                mine = [c for c in open_cells if c["task"] == each.task.name]
                _keep_task(results, each)
                if not mine:
                    continue
                told(f"{entry.name}: {each.task.name}")
                try:
                    lost = _fill_cells(
                        entry, model, seed, each, mine, results, cache, executor, bar
                    )
                    skipped |= dict.fromkeys(f"{each.task.name}: {line}" for line in lost)
                except DataError as error:
                    failures.append(f"{entry.name}, {each.task.name}: {error}")
                if not keep_features:
                    _HELD.clear()
                    shutil.rmtree(_store(entry, model, each, cache).folder, ignore_errors=True)
    return Ran(failures, list(skipped))


def row_name(entry: Entry, protocol: str) -> str:
    """What tells rows apart."""
    return f"{protocol}: {entry.strategy.text()}"


def _weights(cells: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Seed -> identity of the network."""
    return {str(cell["seed"]): cell["weights"] for cell in cells}


def _cells(
    entry: Entry,
    weights: str,
    loaded: Sequence[Loaded],
    protocol: str,
    seed: int,
    seeds: Sequence[int],
) -> list[dict[str, Any]]:
    probes = seeds if PROTOCOLS[protocol].draws and not entry.strategy.random else [seed]
    return [
        {
            "row": row_name(entry, protocol),
            "weights": weights,
            "task": each.task.name,
            "clips": each.checksum,
            "protocol": protocol,
            "seed": int(probe_seed),
            "fold": fold,
        }
        for each in loaded
        for probe_seed in probes
        for fold in range(len(each.data.folds))
    ]


def _fill_cells(
    entry: Entry,
    model: Model,
    seed: int,
    each: Loaded,
    cells: Sequence[Mapping[str, Any]],
    results: Results,
    cache: Path,
    executor: Executor,
    bar: ProgressCallback | None,
) -> list[str]:
    """Does the cells of a task; the clips that could not be heard, a line each."""
    clips, store = each.data.clips, _store(entry, model, each, cache)
    spec = (entry.strategy.text(), seed)
    poolings = entry.extracted(model)
    fill(store, clips, spec, executor, poolings=poolings, progress=bar)
    if len(clips) > len(store) and not len(store):
        _, path, reason = store.skipped[0]
        raise DataError(f"no clip can be used; the first: {path}: {reason}")
    kept = store.rows()
    place = np.full(len(clips), -1)
    place[kept] = np.arange(len(kept))
    blocks = tuple(entry.blocks(model, store.names()))
    sizes = dict(zip(store.names(), store.sizes(), strict=True))
    y, groups = targets(clips)[kept], clips.groups()[kept]
    jobs = []
    for cell in cells:
        parts = [place[part] for part in each.data.folds[cell["fold"]]]
        fold = Fold(*(part[part >= 0] for part in parts))
        jobs.append(
            ProbeJob(
                store.folder,
                blocks,
                tuple(sizes[name] for name in blocks),
                y,
                groups,
                fold,
                clips.task,
                len(clips.classes),
                cell["protocol"],
                cell["seed"],
                each.task.probe,
            )
        )
    used = {
        "seconds_used": store.seconds_used,
        "skipped": len(clips) - len(kept),
        "extract_s": store.elapsed_s,
    }
    for number, (decisions, info) in _answers(executor, jobs):
        cell, job = cells[number], jobs[number]
        results.put(cell, kept[job.fold.test], decisions, {**info, **used})
    return [f"{path}: {reason}" for _, path, reason in store.skipped]


def _answers(
    executor: Executor, jobs: Sequence[ProbeJob]
) -> Iterator[tuple[int, tuple[np.ndarray, dict[str, Any]]]]:
    """(number, what ``run_probe`` gave) in order; in this process, folds side by side in threads.

    A probe's algebra runs outside Python's lock, each in one thread, so that no number changes.
    """
    if executor.threads == 1 or len(jobs) == 1:
        yield from executor.map(run_probe, jobs)
        return
    _matrix(jobs[0])  # read once, before the threads ask for it
    with one_thread(), threadpool_limits(1), ThreadPoolExecutor(executor.threads) as pool:
        yield from enumerate(pool.map(run_probe, jobs))


def _store(entry: Entry, model: Model, each: Loaded, cache: Path) -> FeatureStore:
    """The features of a task's clips, of all layers, under a network."""
    layers, poolings = model.select_layers("all"), entry.extracted(model)
    key = features_key(model, each.data.clips, layers, poolings)
    return FeatureStore.of(cache / f"{each.task.suite}-{each.task.name}", key)


def _keep_task(results: Results, each: Loaded) -> None:
    task, clips = each.task, each.data.clips
    tested = np.concatenate([fold.test for fold in each.data.folds])
    fold = each.data.folds[0]
    results.put_task(
        task.name,
        each.checksum,
        targets(clips),
        clips.groups(),
        {
            "name": task.name,
            "domain": task.domain,
            "title": task.title,
            "metric": task.metric,
            "task": clips.task,
            "classes": list(clips.classes),
            "n_clips": len(clips),
            "n_tested": len(tested),
            "n_groups": len(np.unique(clips.groups()[tested])),
            "group_source": clips.group_source,
            "n_folds": len(each.data.folds),
            "parts": [len(part) for part in fold] if len(each.data.folds) == 1 else None,
            "licence": task.licence,
            "caveat": task.caveat,
            "source": task.source,
            "notes": each.data.notes,
        },
    )
