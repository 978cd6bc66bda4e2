"""The snore detector: `python bench/snore.py` writes docs/results/snore.* .

Three ways to a detector beside MFCC and a support vector machine, on the same folds; then each on a
night of sounds that had no part in its training. Needs the measuring data: the folder `data` in
OSSICLE_SHARED (default: ../shared beside the repository). Stopped, it goes on where it was.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
from itertools import product
from pathlib import Path
from typing import Any

import night
import numpy as np
import pandas as pd
import torch
import typer
from snore_page import accuracy_figure, night_figure, tables, words
from typer.testing import CliRunner

from ossicle import bundle
from ossicle.audio import Audio, save
from ossicle.datasets.clips import Clips, read_clips
from ossicle.datasets.unlabelled import unlabelled_clips
from ossicle.datasets.windows import window_clips
from ossicle.features import extract
from ossicle.finetune.models import build
from ossicle.finetune.strategy import Strategy
from ossicle.finetune.trials import Trials
from ossicle.leaks import audit, join_duplicates
from ossicle.metrics import paired_difference
from ossicle.metrics.bootstrap import mean_interval
from ossicle.predict import predict, write_table
from ossicle.record import record
from ossicle.study.cells import Cells
from ossicle.study.outputs import write_study
from ossicle.transfer.fit import fit_model
from ossicle.transfer.protocol import choose_protocol

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "bench" / "snore"
RUNS = "runs:20"
WAYS = {
    "MobileNetV2 (ImageNet) on spectrogram pictures": "probe backbone=mobilenet_v2",
    "YAMNet (AudioSet)": "probe backbone=yamnet",
    "from scratch: Choi's convnet on 1 s": "scratch backbone=choi_convnet set.excerpt_s=1.0",
    "MFCC + SVM": "probe backbone=mfcc probe=svm",
}
SPLITS = {
    "runs": "by runs of 20 numbers",
    "joined": "runs joined where they share a sound",
    "random": "at random",
}
# What the night is made of: two of five folds of the joined runs, so that both classes have several
# recordings; the detector is trained on the other three.
NIGHT_FOLDS = 2
NIGHT_MINUTES = 28.0
DISTRACTORS = 5
# Heard after the others had shown what they make of silence.
QUIET_CLIPS = 40
QUIET = (f"YAMNet, {QUIET_CLIPS} s of the room's quiet among its clips", "probe backbone=yamnet")
WINDOW_S, STEP_S = 1.0, 0.5


def splits(folder: Path) -> tuple[dict[str, Clips], dict[str, Any]]:
    """The clips under each rule for what must stay together, and the audit of the first."""
    by_runs = read_clips(folder, groups=RUNS)
    report = audit(by_runs)
    return {
        "runs": by_runs,
        "joined": join_duplicates(by_runs, report),
        "random": read_clips(folder, groups="none"),
    }, report


def cross_validated(trials: dict[str, Trials], cell: dict[str, Any]) -> dict[str, Any]:
    """Probability of the true class of each clip in order, and seconds, of one way on one split."""
    some = trials[cell["split"]]
    folds = choose_protocol(some.clips, n_folds=5, random_state=0).folds
    strategy = Strategy.parse(cell["strategy"])
    rows, decisions, seconds = some.cross_validate(strategy, folds, seed=cell["seed"])
    if not np.array_equal(rows, np.arange(len(some.clips))):
        raise SystemExit("not every clip is tested once")
    y = some.clips.y()
    return {
        "correct": (decisions.argmax(1) == y).astype(int).tolist(),
        "seconds": seconds,
    }


def measured(cells: list[dict[str, Any]], clips: dict[str, Clips]) -> dict[str, Any]:
    """Accuracy of each way on each split, with intervals, and paired differences to the best."""
    result: dict[str, Any] = {}
    for split, text in SPLITS.items():
        groups = clips[split].groups()
        correct, rows = {}, {}
        for way in WAYS:
            some = [c for c in cells if c["way"] == way and c["split"] == split]
            if not some:
                continue
            each = np.array([c["correct"] for c in some], float)
            # Of several seeds: how often a network from one of them is right about a clip.
            correct[way] = each.mean(0)
            low, high = mean_interval(correct[way], groups=groups, bounds=(0, 1))
            rows[way] = {
                "strategy": WAYS[way],
                "value": float(correct[way].mean()),
                "low": low,
                "high": high,
                "seeds": each.mean(1).tolist(),
                "seconds": float(np.mean([c["seconds"] for c in some])),
            }
        best = max(rows, key=lambda way: rows[way]["value"])
        for way in rows:
            gap = paired_difference(correct[way], correct[best], groups=groups)
            rows[way]["to_best"] = None if way == best else gap
        n_groups = len(np.unique(groups))
        result[split] = {"text": text, "n_groups": n_groups, "best": best, "ways": rows}
    return result


def night_sounds(
    clips: Clips, around: Path
) -> tuple[np.ndarray, list[night.Sound], dict[str, Any]]:
    """Rows to train the detector on, the night's sounds, and what the two were checked for."""
    folds = choose_protocol(clips, n_folds=5, random_state=0).folds
    held = np.sort(np.concatenate([test for _, test in folds[:NIGHT_FOLDS]]))
    train = np.setdiff1d(np.arange(len(clips)), held)
    table, groups = clips.table, clips.groups()
    sounds = [
        night.Sound(
            table["path"][row], table["label"][row], f"{table['label'][row]} clips", groups[row]
        )
        for row in held
    ]
    generator = np.random.default_rng(0)
    others = read_clips(around)
    recordings = others.groups()
    for name in others.classes:
        rows = np.flatnonzero(others.table["label"] == name)
        # One clip of a recording, so that each is news.
        first = [rows[recordings[rows] == r][0] for r in dict.fromkeys(recordings[rows])]
        for row in generator.choice(first, DISTRACTORS, replace=False):
            path = others.table["path"][row]
            sounds.append(night.Sound(path, "around", name, f"around {recordings[row]}"))
    # Collections of free sounds overlap: nothing of the night may have been trained on.
    paths = [str(table["path"][row]) for row in train] + [s.path for s in sounds]
    both = pd.DataFrame({"path": paths, "label": [str(i >= len(train)) for i in range(len(paths))]})
    report = audit(read_clips(both, groups="none"))
    pairs = [(i, j) for i, j in report["bytes"]] + [(x["a"], x["b"]) for x in report["samples"]]
    shared = {j for i, j in pairs if i < len(train) <= j}
    kept = [s for i, s in enumerate(sounds, start=len(train)) if i not in shared]
    recordings_of = {
        kind: len({s.group for s in kept if s.kind == kind})
        for kind in ("snoring", "no_snoring", "around")
    }
    about = {
        "trained_on": len(train),
        "trained_on_groups": len(np.unique(groups[train])),
        "sounds": {k: sum(s.kind == k for s in kept) for k in recordings_of},
        "recordings": recordings_of,
        "left_out_as_shared_with_training": len(shared),
    }
    return train, kept, about


def with_quiet(some: Clips) -> Clips:
    """The clips, and `QUIET_CLIPS` seconds of other noise of the night's kind as "no_snoring"."""
    noise = night.pink(QUIET_CLIPS * night.RATE, np.random.default_rng(1)) * night.QUIET_RMS
    path = WORK / "quiet.wav"
    save(path, Audio(noise.astype(np.float32), night.RATE), "FLOAT")
    onsets = np.arange(QUIET_CLIPS, dtype=float)
    quiet = pd.DataFrame({"path": str(path), "label": "no_snoring", "onset": onsets})
    quiet = quiet.assign(offset=onsets + 1, group="quiet", split=None, fold=None)
    table = pd.concat([some.table, quiet], ignore_index=True)
    return Clips(table, some.task, some.classes, some.root)


def detectors(trials: Trials, train: np.ndarray) -> dict[str, Path]:
    """A bundle of each way, trained on some rows; then YAMNet's with the room's quiet beside."""
    paths = {}
    for number, (way, text) in enumerate([*WAYS.items(), QUIET]):
        path = WORK / f"detector{number}.ossicle"
        paths[way] = path
        if bundle.is_bundle(path):  # `rm -r build/bench/snore` to train anew
            continue
        strategy = Strategy.parse(text)
        if strategy.kind == "probe":
            some = trials.clips.subset(train)
            some = with_quiet(some) if way == QUIET[0] else some
            model = build(strategy, 0)
            model = fit_model(model, extract(model, some), some, probe=strategy.probe)
        else:
            outcome = trials.run(strategy, train, train[:1], seed=0)
            assert outcome.model is not None
            model = outcome.model
        bundle.save(model, path)
    return paths


def slept(
    trials: Trials, around: Path
) -> tuple[dict[str, Any], dict[str, np.ndarray], pd.DataFrame]:
    """The night by each detector: numbers, frames' scores, and the truth of the frames."""
    train, sounds, about = night_sounds(trials.clips, around)
    samples, events = night.build_night(sounds, NIGHT_MINUTES, seed=0)
    path = WORK / "night.wav"
    save(path, Audio(samples, night.RATE))
    truth = night.frame_truth(events, round(len(samples) / night.RATE / night.FRAME_S))
    windows = window_clips(unlabelled_clips([path]), WINDOW_S, STEP_S)
    result: dict[str, Any] = {
        **about,
        "minutes": NIGHT_MINUTES,
        "window_s": WINDOW_S,
        "step_s": STEP_S,
        "frame_s": night.FRAME_S,
        "frames": len(truth),
        "frames_snoring": int(truth["snoring"].sum()),
        "detectors": {},
    }
    scores = {}
    for way, bundle_path in detectors(trials, train).items():
        table = bundle_path.with_suffix(".parquet")
        if not table.is_file():
            frame, skipped = predict(bundle.load(bundle_path), windows)
            if skipped:
                raise SystemExit(f"{len(skipped)} windows were left out: {skipped[0]}")
            write_table(frame, table)
        frame = pd.read_parquet(table)
        scores[way] = night.frame_scores(frame, "snoring", len(truth))
        result["detectors"][way] = night.night_scores(truth, scores[way], events)
        print(way, {k: v for k, v in result["detectors"][way].items() if k != "called_snoring"})
    return result, scores, truth


def advice(folder: Path) -> dict[str, Any] | None:
    """What `ossicle advise` says of the same clips; None where it is not there."""
    if importlib.util.find_spec("ossicle.cli_advise") is None:
        return None
    verb = typer.Typer()
    verb.command()(importlib.import_module("ossicle.cli_advise").advise)
    name = os.path.relpath(folder, ROOT)
    os.chdir(ROOT)
    options = [name, "--groups", RUNS, "--backbone", "yamnet"]
    run = CliRunner().invoke(verb, [*options, "--workers", "1", "--json"])
    if run.exception is not None:
        print(f"no advice: {run.exception}")
        return None
    answer = json.loads(run.stdout.splitlines()[-1])
    return {
        "command": " ".join(["ossicle advise", *options]),
        "lines": run.stderr.splitlines(),
        "answer": {k: v for k, v in answer.items() if k not in ("record", "arguments")},
    }


def main() -> None:
    """Measure what is missing, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2, help="Networks trained from scratch.")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    out = arguments.out.resolve()
    shared = Path(os.environ.get("OSSICLE_SHARED", ROOT.parent / "shared")) / "data"
    about = record({"seeds": arguments.seeds}, seed=0, data=[shared / "snoring"])
    clips, report = splits(shared / "snoring")
    trials = {split: Trials(some, keep=3) for split, some in clips.items()}
    cells = Cells(WORK, {"data": clips["runs"].content()})
    wanted = []
    for split, (way, text) in product(SPLITS, WAYS.items()):
        # Training anew is dear: several seeds by runs, one to see what a random split claims.
        scratch = {"runs": arguments.seeds, "joined": 0, "random": 1}[split]
        for seed in range(scratch if text.startswith("scratch") else 1):
            wanted.append({"split": split, "way": way, "strategy": text, "seed": seed})
    done = cells.run(
        wanted,
        lambda cell: cross_validated(trials, dict(cell)),
        lambda number, total: print(f"{number} of {total}", flush=True),
    )
    ways = measured(done, clips)
    asleep, scores, truth = slept(trials["joined"], shared / "esc10")
    result = {
        "audit": {
            "pairs": len(report["samples"]) + len(report["bytes"]),
            "runs": len(np.unique(clips["runs"].groups())),
            "joined": len(np.unique(clips["joined"].groups())),
        },
        "accuracy": ways,
        "night": asleep,
        "advice": advice(shared / "snoring"),
    }
    write_study(
        out,
        "snore",
        title="A snore detector, three ways",
        text=words(result),
        tables=tables(result),
        figures={"accuracy": accuracy_figure(ways), "night": night_figure(scores, truth)},
        result=result,
        record=about,
        command="python bench/snore.py",
    )


if __name__ == "__main__":
    main()
