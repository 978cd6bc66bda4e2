"""Two people at once: `python bench/deep_clustering.py` writes docs/results/deep_clustering.*.

Deep clustering trained within an hour on mixtures of free speech (see bench/speakers.py), scored on
unseen utterances of the same speakers, on unseen speakers, on another collection of which it has
heard nothing, and on three speakers at once though it was trained on two. Needs the measuring data:
the folder `data` in OSSICLE_SHARED (default: ../shared beside the repository).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from speakers import SHARED, speakers

from ossicle import bundle
from ossicle.datasets.clips import read_clips
from ossicle.datasets.mixtures import Mixtures, MixtureSettings, read_mixtures, write_mixtures
from ossicle.download import cache_dir
from ossicle.record import record
from ossicle.separate.fit_deep_clustering import DeepClusteringSettings, fit_deep_clustering
from ossicle.separate.score import score
from ossicle.separators.deep_clustering import DeepClustering
from ossicle.study.outputs import new_figure, write_study

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "results"
BUILD = ROOT / "build" / "bench" / "deep_clustering"
RATE, SECONDS, LEVELS = 8000, 4.0, (-5.0, 5.0)
SEED = 0
TRAINING = DeepClusteringSettings(steps=6000, judge_every=1000, precision="bf16-mixed", seed=SEED)
NAME = "deep clustering"
# What each part tells, and how many speakers at once.
PARTS = {
    "unseen utterances": ("mixtures", "test"),
    "unseen speakers": ("mixtures", "unseen"),
    "another collection": ("commands", "test"),
    "three, unseen utterances": ("three", "test"),
    "three, unseen speakers": ("three", "unseen"),
}
TEXT = (
    "Two people speak at once, each a level between -5 and 5 dB of the other's, 8 kHz, four "
    "seconds. Both are told apart by a BLSTM of two layers of 300 units each way that was trained "
    "on mixtures of two drawn anew at each step. Scores are means over mixtures, intervals (95 %) "
    "are over speakers. The mask (binary or soft) was chosen on validation mixtures.",
    "Unseen utterances: other recordings of the speakers of training. Unseen speakers: a fifth of "
    "the speakers, heard nowhere else. Another collection: Speech Commands, single words of about "
    "a second by people of whom none was heard. Three at once: the same network, asked for three.",
    "For comparison, on WSJ0-2mix (30 hours of read English to train on, not free): about 6 dB of "
    "SDR improvement in the paper that brought deep clustering up (Hershey et al., 2016), 10.3 dB "
    "with better regularisation, longer context and an enhancement network (Isik et al., 2016), "
    "and 7.1 dB there for three. Other data, other languages, other lengths: not the same number.",
)


def mixtures_of(name: str) -> Mixtures:
    """One of the sets, made where it is not there."""
    folder = BUILD / name
    if (folder / "mixtures.csv").is_file():
        return read_mixtures(folder)
    counts = {"train": 5000, "valid": 100, "test": 300, "unseen": 300}
    settings: dict[str, Any] = {
        "level_db": LEVELS,
        "duration_s": SECONDS,
        "join": True,
        "sample_rate": RATE,
        "disjoint": "clips",
        "unseen": 0.2,
        "seed": SEED,
    }
    if name == "commands":
        clips = read_clips(SHARED / "data" / "speech_commands_6", groups="speaker")
        settings |= {"duration_s": None, "join": False, "min_duration_s": 0.5, "unseen": 0.0}
        settings |= {"shares": (0.0, 0.0, 1.0)}
        counts = {"test": 300}
    else:
        clips = read_clips(speakers(cache_dir() / "data"))
    if name == "three":
        settings |= {"n_sources": 3}
        counts = {"test": 150, "unseen": 150}
    return write_mixtures([clips], folder, MixtureSettings(**settings), counts=counts, workers=2)


def trained(mixtures: Mixtures) -> tuple[DeepClustering, list[dict[str, Any]]]:
    """The network, and the lines of its training; a finished run is not run again."""
    folder = BUILD / "run"

    def tell(done: int, total: int, seconds: float) -> None:
        if done % 100 == 0:
            print(f"{done} of {total} steps, {seconds / 3600:.1f} h heard", flush=True)

    network = fit_deep_clustering(mixtures, TRAINING, folder=folder, progress=tell)
    bundle.save(network, BUILD / "two_speakers.ossicle")
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert isinstance(network, DeepClustering)
    return network, [json.loads(line) for line in lines]


def rows_of(heading: str, network: DeepClustering) -> list[dict[str, Any]]:
    """A row a system, for one set of mixtures."""
    name, part = PARTS[heading]
    scores = score({NAME: network}, mixtures_of(name).part(part))
    rows = []
    for row in scores.summary(random_state=SEED):
        gain, sdr = row["si_sdr_improvement"], row["sdr_improvement"]
        rows.append(
            {
                "mixtures of": heading,
                "system": row["system"],
                "mixtures": row["mixtures"],
                "pairs of speakers": row["groups"],
                "SI-SDR (dB)": row["si_sdr"]["value"],
                "SI-SDR improvement (dB)": gain["value"],
                "low": gain["low"],
                "high": gain["high"],
                "SDR improvement (dB)": sdr["value"],
                "SDR low": sdr["low"],
                "SDR high": sdr["high"],
                "times real time": row["times_real_time"],
            }
        )
    return rows


def minutes(history: list[dict[str, Any]]) -> float:
    """Wall-clock time of the training, from its log."""
    last = next(line for line in reversed(history) if "steps_per_s" in line)
    return float(last["step"] / last["steps_per_s"] / 60)


def main() -> None:
    """Mix, train, score, write."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(1)
    network, history = trained(mixtures_of("mixtures"))
    rows = [row for heading in PARTS for row in rows_of(heading, network)]
    table = pd.DataFrame(rows).round(3)
    table["times real time"] = table["times real time"].round(0)
    figure, axes = new_figure(7, 3, 1, 2)
    losses = [(line["step"], line["loss"]) for line in history if "loss" in line]
    key = "validation_si_sdr_improvement"
    judged = [(line["step"], line[key]) for line in history if key in line]
    for axis, points, name in (
        (axes[0, 0], losses, "loss"),
        (axes[0, 1], judged, "validation: SI-SDR improvement (dB), binary masks"),
    ):
        axis.plot(*zip(*points, strict=True), marker="" if name == "loss" else "o")
        axis.set(xlabel="step", title=name)
    took = minutes(history)
    heard = TRAINING.steps * TRAINING.batch_size * TRAINING.frames * TRAINING.hop_s / 3600
    facts = {
        "training_minutes": took,
        "hours_heard": heard,
        "threads": 1,
        "parameters": network.num_parameters,
        "label": network.info,
    }
    parts = [read_mixtures(BUILD / name) for name in ("mixtures", "commands", "three")]
    text = [
        *TEXT,
        f"Training: {took:.0f} minutes on one thread for {TRAINING.steps} steps, {heard:.0f} hours "
        f"of mixtures heard, {network.num_parameters:,} parameters; masks: {network.mask}.",
    ]
    written = write_study(
        OUT,
        "deep_clustering",
        title="Deep clustering: two people at once",
        text=text,
        tables={"Scores": table},
        figures={"training": figure},
        result={"facts": facts, "rows": rows},
        record=record({"training": TRAINING, "mixtures": [len(part) for part in parts]}, seed=SEED),
        command="python bench/deep_clustering.py",
    )
    for path in written:
        print(path)


if __name__ == "__main__":
    main()
