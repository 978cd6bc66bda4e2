"""How much data settings need: `python bench/training_size.py` writes docs/results/training_size.*.

Needs the measuring data: the folder `data` in OSSICLE_SHARED (default: ../shared beside the
repository). Each study is kept in build/bench/training_size, so that a stopped run goes on.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd

from ossicle.datasets.clips import read_clips
from ossicle.record import record
from ossicle.study.outputs import write_study
from ossicle.study.training_size import NAME, training_size_study
from ossicle.study.training_size_page import figures, tables

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "bench" / NAME
# As in `ossicle study preprocessing`: magnitudes, standardised over each excerpt.
CONVNET = (
    "scratch backbone=choi_convnet set.excerpt_s=1 layers=last frontend.power=1 "
    "frontend.standardise_per_sample=true {} epochs=16 learning_rate=3e-3 head_rate=0.3 "
    "validation=0 patience=0"
)
LAYERS = [
    "every layer: probe backbone=yamnet",
    "last layer's mean: probe backbone=yamnet layers=last pooling=mean",
]
# Name -> heading, data set, its folds, strategies, sizes, seeds.
STUDIES: dict[str, dict[str, Any]] = {
    "layers_esc10": {
        "heading": "YAMNet's last layer against every layer, esc10",
        "data": "esc10",
        "options": {"folds": r"/^(\d)-/"},
        "strategies": LAYERS,
        "sizes": "10%,20%,40%,70%,100%",
        "seeds": 5,
    },
    "layers_speech": {
        "heading": "YAMNet's last layer against every layer, speech_commands_6",
        "data": "speech_commands_6",
        "options": {},
        "strategies": LAYERS,
        "sizes": "5,10,20,40,80,160",
        "seeds": 5,
    },
    "log_linear": {
        "heading": "Linear against logarithmic mel, speech_commands_6",
        "data": "speech_commands_6",
        "options": {},
        "strategies": [
            "log: " + CONVNET.format("frontend.scaling=log frontend.offset=1e-7"),
            "linear: " + CONVNET.format("frontend.scaling=linear"),
        ],
        "sizes": "25%,50%,100%",
        "seeds": 3,
    },
}


def command(study: dict[str, Any]) -> str:
    """The command line that makes a study again."""
    first, *others = study["strategies"]
    words = ["ossicle", "study", "training-size", f"../shared/data/{study['data']}"]
    for option, value in study["options"].items():
        words += [f"--{option}", value]
    words += ["--a", first]
    for other in others:
        words += ["--b", other]
    return shlex.join(
        [*words, "--sizes", study["sizes"], "--seeds", str(study["seeds"]), "-o", "OUT"]
    )


def run(name: str, data: Path, workers: int) -> dict[str, Any]:
    """One study, or what was measured of it before."""
    study = STUDIES[name]
    start = time.perf_counter()

    def told(done: int, total: int) -> None:
        took = time.perf_counter() - start
        print(f"{name}: {done} of {total} cells, {took:.0f} s", file=sys.stderr, flush=True)

    return training_size_study(
        read_clips(data / study["data"], **study["options"]),
        study["strategies"],
        FOLDER / name,
        sizes=study["sizes"],
        seeds=study["seeds"],
        workers=workers,
        command=command(study),
        progress=told,
    )


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=list(STUDIES), help="measure, write no page")
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    data = Path(os.environ.get("OSSICLE_SHARED", ROOT.parent / "shared")) / "data"
    results = {name: run(name, data, arguments.workers) for name in arguments.only or STUDIES}
    if arguments.only:
        return
    paragraphs = [result["text"] for result in results.values()]
    shared = [p for p in paragraphs[0] if all(p in others for others in paragraphs)]
    text: list[str] = []
    for name, result in results.items():
        own = [paragraph for paragraph in result["text"] if paragraph not in shared]
        text += [f"## {STUDIES[name]['heading']}", f"```\n{command(STUDIES[name])}\n```", *own]
    every = {name: tables(result) for name, result in results.items()}
    joined = {
        heading: pd.concat(
            [some[heading].assign(study=name) for name, some in every.items() if heading in some]
        ).drop(columns="seconds", errors="ignore")  # of a machine that had other work too
        for heading in dict.fromkeys(heading for some in every.values() for heading in some)
    }
    write_study(
        ROOT / "docs" / "results",
        NAME,
        title="Score against training size, measured",
        text=[*text, "## How", *shared],
        tables={
            heading: table[["study", *table.columns.drop("study")]]
            for heading, table in joined.items()
        },
        figures={name: figure for name in results for figure in figures(results[name]).values()},
        result=results,
        record=record(
            {"studies": STUDIES},
            seed=0,
            data=sorted({path for name in STUDIES for path in _files(data, name)}),
        ),
        command="python bench/training_size.py",
    )


def _files(data: Path, name: str) -> list[str]:
    study = STUDIES[name]
    return list(read_clips(data / study["data"], **study["options"]).table["path"])


if __name__ == "__main__":
    main()
