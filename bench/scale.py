"""Ray's workers against one, and what very many clips cost: `python bench/scale.py`.

Writes docs/results/scale.*. Needs the measuring data: the folder `data` in OSSICLE_SHARED (default:
../shared beside the repository). What is measured is kept in build/bench/scale, so that a stopped
run goes on; with --anew it is measured again. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
import time
from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ossicle.benchmark import cost
from ossicle.benchmark.cost import BYTES, CORE_SECONDS, Curve, Point
from ossicle.benchmark.executors import Executor, open_executor
from ossicle.benchmark.fitting import RIDGE_BYTES
from ossicle.benchmark.minibatch import train
from ossicle.benchmark.pieces import Piece, extract_piece, fill, model_of
from ossicle.benchmark.protocols import grid, run_protocol
from ossicle.benchmark.task import Fold
from ossicle.datasets.clips import Clips, read_clips
from ossicle.errors import OssicleError
from ossicle.features import FeatureTable, as_clips, extract, one_thread
from ossicle.record import record
from ossicle.store import FeatureStore, StoreMatrix
from ossicle.study.cells import Cells
from ossicle.study.outputs import COLOURS, new_figure, write_study
from ossicle.transfer.protocol import choose_protocol

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "bench" / "scale"
SPEC = ("probe backbone=yamnet", 0)
SETS: dict[str, dict[str, Any]] = {
    "esc10": {"folds": r"/^(\d)-/"},
    "speech_commands_6": {},
}
# Clips a piece of the timed pass: small, so that two workers end at about the same time.
PIECE, PASSES = 16, 2
KINDS = ((None, 1), (None, 2), ("local", 1), ("local", 2))
WIDTH, CLASSES = 1024, 10
CLIP_S, MANY, EPOCHS = 10.0, (1e4, 1e6, 1e8), 4
RIDGE_MOST = RIDGE_BYTES // (4 * 64_384)  # clips, of every layer of yamnet
CURVES = ("features", "stored", "stored last", "ridge", "sums", "batches")


class Probe(NamedTuple):
    """A fold to be probed on the features of a store."""

    store: Path
    layer: str | None
    y: np.ndarray
    groups: np.ndarray
    classes: int
    fold: Fold


def probed(job: Probe) -> np.ndarray:
    """(n_test, K) decisions; the layer's blocks, or all."""
    store = FeatureStore(job.store)
    names = [n for n in store.names() if job.layer is None or n == job.layer]
    outcome = run_protocol(
        "ossicle",
        store.matrix(names),
        job.y,
        job.fold,
        task="classes",
        num_classes=job.classes,
        groups=job.groups,
        block_sizes=store.sizes(names),
    )
    return outcome.decisions


def whereabouts(piece: Piece) -> tuple[int, int]:
    """The worker's process, once it has built the network, and the clips heard."""
    return os.getpid(), len(extract_piece(piece))


def pieces_of(clips: Clips, size: int = PIECE) -> list[Piece]:
    """The clips in pieces."""
    parts = [np.arange(len(clips))[start : start + size] for start in range(0, len(clips), size)]
    return [Piece(SPEC, rows, tuple(as_clips(clips.subset(rows)))) for rows in parts]


def warm(executor: Executor, clips: Clips) -> None:
    """Every worker has built the network and heard clips."""
    some = pieces_of(clips.subset(np.arange(min(8, len(clips)))), 2) * executor.n_workers
    for _ in range(10):
        seen = {pid for _, (pid, _) in executor.map(whereabouts, some)}
        if len(seen) == executor.n_workers or executor.threads > 1:
            return
    raise SystemExit("some workers are given nothing to do")


def throughput(clips: Clips, ray: str | None, workers: int) -> dict[str, Any]:
    """Clips a second by Ray's workers, or threads of this process, once they are warm."""
    started = time.perf_counter()
    with open_executor(ray, workers) as executor:
        start_s = time.perf_counter() - started
        warm(executor, clips)
        work = partial(extract_piece, workers=executor.threads)
        start, heard = time.perf_counter(), 0
        for _, table in executor.map(work, pieces_of(clips) * PASSES):
            heard += len(table)
        seconds = time.perf_counter() - start
    return {"clips_per_s": heard / seconds, "seconds": seconds, "start_s": start_s}


def scored(name: str, clips: Clips, ray: str | None) -> dict[str, Any]:
    """Checksums of features and decisions, and accuracy, made here or by Ray's workers."""
    folder = FOLDER / f"{name}-{ray or 'here'}"
    with open_executor(ray, 2 if ray else 1) as executor:
        store = FeatureStore(folder)
        fill(store, clips, SPEC, executor)
        layer = None if name == "esc10" else store.names()[-3]
        some, none = clips.subset(store.rows()), np.zeros(0, np.int64)
        about = (folder, layer, some.y(), some.groups(), len(some.classes))
        jobs = [Probe(*about, Fold(a, none, b)) for a, b in choose_protocol(some).folds]
        decisions = [result for _, result in executor.map(probed, jobs)]
    right = [d.argmax(1) == job.y[job.fold.test] for d, job in zip(decisions, jobs, strict=True)]
    features = hashlib.sha256()
    for block in store.names():
        features.update(store.matrix([block]).tobytes())
    answers = hashlib.sha256(b"".join(d.tobytes() for d in decisions))
    return {
        "features": features.hexdigest()[:16],
        "decisions": answers.hexdigest()[:16],
        "accuracy": float(np.concatenate(right).mean()),
        "blocks": "all layers" if layer is None else layer,
    }


def features_points(clips: Clips) -> list[Point]:
    """Core seconds by seconds of audio: decoding, network, pooling of every layer."""
    model, heard = model_of(SPEC), {}

    def run(n: int) -> None:
        heard[n] = extract(model, clips.subset(np.arange(n))).seconds_read

    sizes = [min(160, len(clips)) // share for share in (4, 2, 1)]
    return cost.measure(run, sizes, amount=lambda n: heard[n])


def stored_points(table: FeatureTable, folder: Path) -> list[Point]:
    """Bytes on disk by clips."""
    points = []
    for n in sorted({len(table) // share for share in (8, 4, 2, 1)}):
        target = folder / f"stored-{n}"
        shutil.rmtree(target, ignore_errors=True)
        store = FeatureStore(target)
        blocks = OrderedDict((name, block[:n]) for name, block in table.blocks.items())
        for rows in np.array_split(np.arange(n), -(-n // 64)):
            part = OrderedDict((name, block[rows]) for name, block in blocks.items())
            store.append(rows, FeatureTable(part, np.arange(len(rows))))
        store.compact()
        points.append(Point(n, store.n_bytes))
        shutil.rmtree(target)
    return points


def ridge_points(widths: list[int], sizes: tuple[int, ...]) -> list[Point]:
    """Core seconds of the exact probe on as many random numbers as the layers have, by clips."""
    random, none = np.random.default_rng(0), np.zeros(0, np.int64)
    X = random.standard_normal((max(sizes) + 1, sum(widths)), np.float32)
    y, groups = np.arange(len(X)) % CLASSES, np.arange(len(X)) // 2
    about: dict[str, Any] = {"task": "classes", "num_classes": CLASSES, "block_sizes": widths}

    def run(n: int) -> None:
        fold = Fold(np.arange(n), none, np.array([n]))
        run_protocol("ossicle", X, y, fold, groups=groups, **about)

    with one_thread():
        return cost.measure(run, sizes)


def drawn_store(folder: Path, n: int) -> StoreMatrix:
    """(n, WIDTH) random numbers in a store: how long a pass takes is not a matter of values."""
    shutil.rmtree(folder, ignore_errors=True)
    store, random = FeatureStore(folder), np.random.default_rng(0)
    for rows in np.array_split(np.arange(n), -(-n // 1024)):
        block = random.normal(size=(len(rows), WIDTH)).astype(np.float32)
        store.append(rows, FeatureTable(OrderedDict({"last/mean": block}), np.arange(len(rows))))
    store.compact()
    return StoreMatrix(store)


def pass_points(X: StoreMatrix, sizes: tuple[int, ...], way: str) -> list[Point]:
    """Core seconds of one pass for what ridge needs (X'X and X'Y), or EPOCHS by minibatches."""
    y = np.random.default_rng(1).integers(0, CLASSES, X.shape[0])
    settings, none = grid("hares", "linear", 10**6, 0), np.zeros(0, np.int64)

    def sums(n: int) -> None:
        gram, right = np.zeros((WIDTH, WIDTH)), np.zeros((WIDTH, CLASSES))
        for start in range(0, n, 1024):
            block = X[start : min(start + 1024, n)].astype(np.float64)
            gram += block.T @ block
            right += block.T @ np.eye(CLASSES)[y[start : start + len(block)]]

    def batches(n: int) -> None:
        options: dict[str, Any] = {"task": "classes", "num_classes": CLASSES, "memory": 0}
        train(X, y, np.arange(n), none, settings, epochs=EPOCHS, **options)

    return cost.measure(sums if way == "sums" else batches, sizes)


def compute(cell: dict[str, Any], sets: dict[str, Clips], sizes: tuple[int, ...]) -> dict[str, Any]:
    """One measurement."""
    what, name = cell["what"], cell.get("set", "")
    if what == "throughput":
        return throughput(sets["esc10"], cell["ray"], cell["workers"])
    if what == "scores":
        return scored(name, sets[name], cell["ray"])
    points: list[Point]
    here = FOLDER / "esc10-here"
    if what == "features":
        points = features_points(sets["esc10"])
    elif what.startswith("stored"):
        store = FeatureStore(here)
        points = stored_points(
            store.table(store.names()[-3:-2] if "last" in what else None), FOLDER
        )
    elif what == "ridge":
        points = ridge_points(FeatureStore(here).sizes(), tuple(n // 16 for n in sizes))
    else:
        drawn = drawn_store(FOLDER / "drawn", max(sizes))
        points = pass_points(drawn, sizes, what)
        shutil.rmtree(FOLDER / "drawn")
    return {"points": [list(point) for point in points]}


def cells_of(rounds: int) -> list[dict[str, Any]]:
    """What is measured, in order; every other round goes the other way about."""
    cells: list[dict[str, Any]] = [
        {"what": "throughput", "round": number, "ray": ray, "workers": workers}
        for number in range(rounds)
        for ray, workers in (KINDS if number % 2 == 0 else KINDS[::-1])
    ]
    cells += [
        {"what": "scores", "set": name, "ray": ray} for name in SETS for ray in (None, "local")
    ]
    return cells + [{"what": name} for name in CURVES]


def curves_of(rows: dict[str, Any]) -> list[Curve]:
    """The measured costs."""

    def points(name: str) -> tuple[Point, ...]:
        return tuple(Point(*pair) for pair in rows[name]["points"])

    last = f"the last layer's {WIDTH:,} means"
    return [
        Curve("features, yamnet, every layer", CORE_SECONDS, points("features"), True, 1),
        Curve("store, every layer (64,384 values)", BYTES, points("stored"), False, 1),
        Curve(f"store, {last}", BYTES, points("stored last"), False, 1),
        Curve("ridge, every layer, exact", CORE_SECONDS, points("ridge"), most=RIDGE_MOST),
        Curve(f"ridge on {last}: one pass for its moments", CORE_SECONDS, points("sums"), False, 1),
        Curve(
            f"linear layers on {last} by minibatches, four rates, 100 passes (measured: {EPOCHS})",
            CORE_SECONDS,
            points("batches"),
            False,
            1,
            times=100 / EPOCHS,
        ),
    ]


def pages(rows: list[dict[str, Any]]) -> tuple[list[str], dict[str, pd.DataFrame], dict, dict]:
    """Text, tables, figures and numbers."""
    timed = pd.DataFrame([row for row in rows if row["what"] == "throughput"]).drop(columns="what")
    timed["ray"] = timed["ray"].fillna("none")
    speed = timed.pivot(index="round", columns=["ray", "workers"], values="clips_per_s")
    gain = (speed["local", 2] / speed["local", 1]).to_numpy()
    threads = (speed["none", 2] / speed["none", 1]).median()
    start_s = timed.loc[timed["ray"] == "local", "start_s"].median()
    scores = pd.DataFrame([row for row in rows if row["what"] == "scores"]).drop(columns="what")
    scores["ray"] = scores["ray"].fillna("none")
    alike = scores.groupby("set")[["features", "decisions"]].nunique().eq(1).all(axis=None)
    curves = curves_of({row["what"]: row for row in rows})
    free = {c.what: cost.extrapolate(c.points, c.points[-1].n)["exponent"] for c in curves}
    costs = cost.prices(curves, MANY, clip_s=CLIP_S)
    carried: dict[str, dict[str, Any]] = {}
    for row in costs:
        value, low, high = (cost.shown(row[name], row["unit"]) for name in ("value", "low", "high"))
        mine = carried.setdefault(row["what"], {"what": row["what"]})
        mine["exponent"] = f"{free[row['what']]:.2f}" if row["fitted"] else 1
        mine["exponent of the measurements"] = free[row["what"]]
        low = low.split()[0] if low.split()[1:] == high.split()[1:] else low
        told = f"{value} ({low} to {high})" if row["value"] else "not done so"
        mine[f"{row['clips']:,.0f} clips"] = told
    rounds = ", ".join(f"{value:.2f}" for value in gain)
    text = [
        f"Two Ray workers against one: {np.median(gain):.2f} times the clips a second (median of "
        f"{len(gain)} rounds: {rounds}). Each time is of a Ray of its own, once its workers had "
        f"built the network and heard clips; to start took {start_s:.1f} s. Without Ray, two "
        f"threads against one: {threads:.2f} times.",
        "Features and decisions of Ray's workers and of one process are "
        + ("the same to the bit." if alike else "NOT the same: see the table."),
        f"Costs are measured on few clips and carried on to many, of {CLIP_S:.0f} s each. Core "
        "hours are processor time of one core. An exponent of 1 follows from how the work is done: "
        "clip by clip, or batch by batch; what the measurements themselves would give stands "
        "beside it. The intervals are of one further measurement at that size, should the law hold "
        "so far, which nothing here can show. Slow disks, waiting, and repeats after failures are "
        f"not in them. Exact ridge is what `ossicle bench` does up to {RIDGE_MOST:,} clips of so "
        "many values. Its work grows by parts as n^2 and n^3, so that the fitted exponent is too "
        "low, and its cost more than told, the further it is carried.",
    ]
    figure, axes = new_figure(8.0, 4.0, cols=2)
    for axis, unit in zip(axes[0], (CORE_SECONDS, BYTES), strict=True):
        mine = [curve for curve in curves if curve.unit == unit]
        for colour, curve in zip(COLOURS, mine, strict=False):
            long = CLIP_S if curve.per_second else 1.0
            x, y = np.array(curve.points).T
            n = np.geomspace(x.min() / long, curve.most or MANY[-1], 30)
            band = pd.DataFrame(cost.prices([curve], n, clip_s=CLIP_S))
            axis.plot(n, band["value"], "--", color=colour, lw=1)
            axis.fill_between(n, band["low"], band["high"], color=colour, alpha=0.15, lw=0)
            share = curve.times / (3600 if unit == CORE_SECONDS else 1)
            axis.plot(x / long, y * share, "o", color=colour, ms=4, label=curve.what)
        axis.set(xscale="log", yscale="log", xlabel=f"clips of {CLIP_S:.0f} s")
        axis.set_ylabel("core hours" if unit == CORE_SECONDS else unit)
        axis.legend(fontsize=5, loc="lower right")
    measured = [
        {"what": curve.what, "seconds" if curve.per_second else "clips": n, curve.unit: value}
        for curve in curves
        for n, value in curve.points
    ]
    tables = {
        "Cost of many clips": pd.DataFrame(carried.values()),
        "Throughput": timed.sort_values(["round", "ray", "workers"]),
        "Scores with and without Ray": scores,
        "Measured": pd.DataFrame(measured),
    }
    result = {"gain": gain.tolist(), "alike": bool(alike), "costs": costs, "cells": rows}
    return text, tables, {"costs": figure}, result


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="of one worker and of two")
    parser.add_argument("--clips", type=int, default=10**6, help="of each set at most; for a try")
    parser.add_argument("--anew", action="store_true", help="measure again what is kept")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    arguments = parser.parse_args()
    data = Path(os.environ.get("OSSICLE_SHARED", ROOT.parent / "shared")) / "data"
    if not data.is_dir():
        raise OssicleError(f"{data}: needs the measuring data (set OSSICLE_SHARED)")
    sets = {}
    for name, options in SETS.items():
        clips = read_clips(data / name, **options)
        picked = np.random.default_rng(0).permutation(len(clips))[: arguments.clips]
        sets[name] = clips.subset(np.sort(picked))
    if arguments.anew:
        shutil.rmtree(FOLDER, ignore_errors=True)
    about = {"spec": SPEC, "piece": PIECE, "clips": {name: len(c) for name, c in sets.items()}}
    sizes = (4000, 8000, 16000) if arguments.clips >= 400 else (500, 1000, 2000)
    start = time.perf_counter()

    def told(done: int, total: int) -> None:
        took = time.perf_counter() - start
        print(f"{done} of {total} measurements, {took:.0f} s", file=sys.stderr, flush=True)

    rows = Cells(FOLDER, about).run(
        cells_of(arguments.rounds), lambda cell: compute(dict(cell), sets, sizes), told
    )
    text, tables, figures, result = pages(rows)
    write_study(
        arguments.out,
        "scale",
        title="Beyond one machine: Ray's workers, and the cost of very many clips",
        text=text,
        tables=tables,
        figures=figures,
        result=result,
        record=record(
            {**about, "rounds": arguments.rounds},
            seed=0,
            data=sorted({path for clips in sets.values() for path in clips.table["path"]}),
        ),
        command="python bench/scale.py",
    )


if __name__ == "__main__":
    main()
