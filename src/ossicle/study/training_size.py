"""Score against training size for two settings or more: "B needs k times the data of A".

The question of Choi, Fazekas, Cho, Sandler, "A comparison of audio signal preprocessing methods for
deep neural networks on music tagging", EUSIPCO 2018 (arXiv 1709.01922), where a network without
logarithmic compression seemed to need twice the data, asked of any strategies on any clips.

The test part is that of the data's own folds or split and never changes; training sets are parts of
the training part, nested, the same for every setting (see `nested`). How k and its interval are
made: see `size_curve` and `size_scores`.

Symbols: S settings, J sizes, R seeds, m clips tested, K outputs.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ossicle.datasets.clips import Clips
from ossicle.datasets.patterns import relative_paths
from ossicle.errors import DataError
from ossicle.finetune.strategy import Strategy
from ossicle.finetune.trials import Trials
from ossicle.metrics import PRIMARY
from ossicle.pretrain.waveforms import decode_cached
from ossicle.record import record
from ossicle.study.cells import Cells
from ossicle.study.nested import Size, nested_parts, parse_sizes
from ossicle.study.outputs import write_study
from ossicle.study.size_scores import analyse
from ossicle.study.training_size_page import figures, tables, title, words
from ossicle.transfer.protocol import Protocol, choose_protocol

NAME = "training_size"
# Hz; what can be decoded at one rate can be at any.
DECODED_AT = 16_000
SIZES = "10%,20%,40%,70%,100%"


def training_size_study(
    clips: Clips,
    strategies: Sequence[str | Strategy],
    out: str | PathLike[str],
    *,
    sizes: str | Sequence[str] = SIZES,
    seeds: int = 5,
    n_folds: int = 5,
    draw_by: str = "groups",
    names: Sequence[str] | None = None,
    seed: int = 0,
    workers: int = 1,
    confidence: float = 0.95,
    n_resamples: int = 1000,
    command: str | None = None,
    trials: Trials | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Score every strategy at every size, and tell how much more data each needs than the first.

    Interrupted, it goes on where it was; more seeds, sizes or strategies on the same clips add to
    what the folder holds.

    Args:
        clips: labelled.
        strategies: two or more, as `Strategy` or the texts that `Strategy.parse` reads; a text may
            begin with a name: "log: scratch backbone=choi_convnet".
        out: folder to write training_size.json, .md, .csv, .png and .svg to.
        sizes: "10%,100%" of the training part, or "5,20" clips a class.
        seeds: repeats, each with training sets and random weights of its own.
        n_folds: folds where the data brings none.
        draw_by: "groups" (training sets grow by whole recordings, speakers ...) or "clips".
        names: of the strategies; None: those in the texts, or what tells the texts apart.
        seed: the first one; it also deals the folds.
        workers: threads.
        confidence: coverage of all intervals.
        n_resamples: of the test groups.
        command: that makes it again, for the page; None: the usual one.
        trials: features of these very clips, made before; None: made here.
        progress: called with (cells done, cells in all).

    Returns:
        "metric"; "settings" (name, strategy); "scores", a row for each setting and size ("n"
        clips, "score", "low", "high", "by_seed", "seconds"); "needs", for each setting after the
        first what `size_curve.needs` tells of "b" (it) against "a" (the first); "protocol"; "text".

    Raises:
        DataError: fewer than two strategies, sizes of the same clips, another study in `out`, or
            none of the clips can be read.
        OssicleError: a strategy that cannot be read or run.
    """
    settings, labels = read_settings(strategies, names)
    wanted = parse_sizes(sizes)
    if seeds < 1:
        raise DataError(f"seeds is {seeds}: it must be 1 or more")
    if trials is None:
        clips = _readable(clips, workers)
    protocol = choose_protocol(clips, n_folds=n_folds, random_state=seed)
    repeats = range(seed, seed + seeds)
    parts = _parts(clips, protocol, wanted, repeats, draw_by)
    n = np.mean([[len(part) for part in nest] for nest in parts.values()], axis=0)
    if (np.diff(n) <= 0).any():
        raise DataError(
            f"the sizes {', '.join(s.label for s in wanted)} give training sets of "
            f"{', '.join(f'{x:g}' for x in n)} clips: leave out those that are alike"
        )
    known = {setting.text(): setting for setting in settings}
    places = {size.label: j for j, size in enumerate(wanted)}
    shape = (len(settings), seeds, len(protocol.folds), len(wanted))
    todo = [
        {"strategy": text, "seed": r, "fold": f, "size": size}
        for text, r, f, size in itertools.product(
            known, repeats, range(len(protocol.folds)), places
        )
    ]
    runner = Trials(clips, workers=workers) if trials is None else trials

    def compute(cell: Mapping[str, Any]) -> dict[str, Any]:
        train = parts[cell["seed"], cell["fold"]][places[cell["size"]]]
        test = protocol.folds[cell["fold"]][1]
        outcome = runner.run(known[cell["strategy"]], train, test, seed=cell["seed"])
        return {
            "n": len(train),
            **_packed(clips.task, outcome.decisions),
            "seconds": round(outcome.seconds, 3),
            "info": outcome.info,
        }

    rows = Cells(Path(out), _identity(clips, protocol, draw_by)).run(todo, compute, progress)
    cells = np.arange(len(rows)).reshape(shape)
    # (S, J, R) of (m, K): folds side by side, in the order of `tested`.
    decisions = np.stack(
        [
            np.concatenate([_unpacked(clips.task, rows[i]) for i in cells[s, r, :, j]])
            for s, j, r in itertools.product(range(shape[0]), range(shape[3]), range(seeds))
        ]
    )
    decisions = decisions.reshape(shape[0], shape[3], seeds, *decisions.shape[1:])
    tested = np.concatenate([test for _, test in protocol.folds])
    measured = analyse(
        clips.task,
        clips.y()[tested],
        decisions,
        n,
        protocol.groups[tested],
        classes=clips.classes,
        confidence=confidence,
        n_resamples=n_resamples,
        seed=seed,
    )
    for s, j in np.ndindex(shape[0], shape[3]):
        seconds = sum(rows[i]["seconds"] for i in cells[s, :, :, j].flat)
        own = {"setting": labels[s], "size": wanted[j].label, "seconds": round(seconds, 2)}
        measured["scores"][s * shape[3] + j] |= own
    for told, label in zip(measured["needs"], labels[1:], strict=True):
        told |= {"a": labels[0], "b": label}
    arguments = {
        "clips": clips.root.name,
        "strategies": list(known),
        "names": labels,
        "sizes": list(places),
        "seeds": seeds,
        "n_folds": n_folds,
        "draw": draw_by,
        "confidence": confidence,
        "n_resamples": n_resamples,
        "workers": workers,
    }
    result: dict[str, Any] = {
        **arguments,
        "task": clips.task,
        "metric": PRIMARY[clips.task],
        "settings": [
            {"name": label, "strategy": text} for label, text in zip(labels, known, strict=True)
        ],
        **measured,
        "protocol": {
            "text": protocol.text,
            "n_clips": len(tested),
            "n_groups": len(np.unique(protocol.groups[tested])),
            "group_source": protocol.group_source,
            "notes": [*clips.notes, *protocol.notes],
        },
    }
    result["text"] = words(result)
    write_study(
        Path(out),
        NAME,
        title=title(result),
        text=result["text"],
        tables=tables(result),
        figures=figures(result),
        result=result,
        record=record(arguments, seed=seed, data=sorted(set(clips.table["path"]))),
        command=_command(arguments, seed) if command is None else command,
    )
    return result


def _readable(clips: Clips, workers: int) -> Clips:
    """The clips that can be read; a note names each of the others."""
    waveforms = decode_cached(clips, DECODED_AT, workers)
    if not waveforms.skipped:
        return clips
    kept = clips.subset(waveforms.rows)
    kept.notes += [f"left out {path}: {reason}" for _, path, reason in waveforms.skipped]
    return kept


def read_settings(
    strategies: Sequence[str | Strategy], names: Sequence[str] | None = None
) -> tuple[list[Strategy], list[str]]:
    """Strategies and a short name for each: given, before a colon, or what tells them apart.

    Raises:
        DataError: fewer than two, two alike, or names that are not one for each.
        OssicleError: a text that `Strategy.parse` cannot read.
    """
    settings, labels = [], []
    for given in strategies:
        named = None
        if isinstance(given, str):
            # "hf:NAME" stands behind an equals sign, a name before any.
            named = re.fullmatch(r"\s*([^=:]+):\s+(.+)", given, re.DOTALL)
            given = Strategy.parse(named[2] if named else given)
        settings.append(given)
        labels.append(named[1].strip() if named else "")
    texts = [setting.text() for setting in settings]
    if len(texts) < 2 or len(set(texts)) < len(texts):
        raise DataError(f"compare two different strategies or more, not {'; '.join(texts)}")
    if names is not None:
        labels = list(names)
    split = [shlex.split(text) for text in texts]
    shared = set.intersection(*map(set, split))
    own = [[word for word in parts if word not in shared] for parts in split]
    keys = {tuple(word.partition("=")[0] for word in parts) for parts in own}
    if len(keys) == 1 and len(next(iter(keys))) == 1:
        # One keyword apart: its values are names enough.
        own = [[parts[0].partition("=")[2]] for parts in own]
    told = [" ".join(parts) or text for parts, text in zip(own, texts, strict=True)]
    labels = [label or told[i] for i, label in enumerate(labels)]
    if len(labels) != len(texts) or len(set(labels)) < len(labels):
        raise DataError(f"{len(texts)} strategies need a name each, not {', '.join(labels)}")
    return settings, labels


def _parts(
    clips: Clips, protocol: Protocol, sizes: Sequence[Size], repeats: Sequence[int], draw_by: str
) -> dict[tuple[int, int], list[np.ndarray]]:
    """(seed, fold) -> rows to learn from, for each size."""
    return {
        (r, f): nested_parts(
            clips.y(), protocol.groups, train, sizes, task=clips.task, seed=[r, f], draw=draw_by
        )
        for r in repeats
        for f, (train, _) in enumerate(protocol.folds)
    }


def _identity(clips: Clips, protocol: Protocol, draw_by: str) -> dict[str, Any]:
    """What makes cells of another run those of this one: clips, their order, groups and folds."""
    digest = hashlib.sha256()
    paths = relative_paths(list(clips.table["path"]), clips.root)
    rows = zip(paths, clips.table["onset"], protocol.groups, strict=True)
    digest.update(repr([(path, str(onset), str(group)) for path, onset, group in rows]).encode())
    for part in itertools.chain(*protocol.folds):
        digest.update(np.ascontiguousarray(part, np.int64).tobytes() + b"|")
    return {
        "study": NAME,
        "clips": clips.content(),
        "folds": digest.hexdigest(),
        "draw": draw_by,
    }


def _packed(task: str, decisions: np.ndarray) -> dict[str, Any]:
    """Probabilities in ten-thousandths, or numbers to six digits: short texts in the file."""
    flat = decisions.ravel()
    if task == "regression":
        values: list[Any] = [float(f"{value:.6g}") for value in flat]
    else:
        values = np.round(flat * 10_000).astype(int).tolist()
    return {"outputs": decisions.shape[1], "decisions": values}


def _unpacked(task: str, row: Mapping[str, Any]) -> np.ndarray:
    values = np.array(row["decisions"], np.float64).reshape(-1, row["outputs"])
    return values if task == "regression" else values / 10_000


def _command(arguments: Mapping[str, Any], seed: int) -> str:
    first, *others = (
        f"{name}: {text}"
        for name, text in zip(arguments["names"], arguments["strategies"], strict=True)
    )
    words = ["ossicle", "study", "training-size", arguments["clips"], "--a", first]
    for other in others:
        words += ["--b", other]
    sizes = [size.removesuffix(" a class").replace(" ", "") for size in arguments["sizes"]]
    words += ["--sizes", ",".join(sizes), "--seeds", str(arguments["seeds"]), "--seed", str(seed)]
    words += ["--draw", arguments["draw"], "--n-folds", str(arguments["n_folds"]), "-o", "OUT"]
    return shlex.join(words)
