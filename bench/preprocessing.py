"""Twelve ways of preprocessing, measured: `python bench/preprocessing.py` writes docs/results.

For each data set preprocessing_NAME.json, .md, .csv and figures, by what `ossicle study
preprocessing` does. Runs done are kept in build/bench/preprocessing, so that a stopped run goes on.
Needs the measuring data: the folder `data` in OSSICLE_SHARED (default: ../shared beside the
repository).
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from pathlib import Path

import torch

from ossicle.datasets.clips import read_clips
from ossicle.study.preprocessing import preprocessing_study

ROOT = Path(__file__).resolve().parents[1]
# Data set -> options of the verb: of the clips, and of the study.
TASKS: dict[str, tuple[dict, dict]] = {
    "speech_commands_6": ({}, {"excerpt_s": 1.0}),
    # The mel bands of the squared magnitudes: without the logarithm, twice the range of levels.
    "speech_commands_6_power": ({}, {"excerpt_s": 1.0, "power": 2}),
    # Half of a clip at a time, and one of the five folds: otherwise hours.
    "esc10": ({"folds": r"/^(\d)-/"}, {"excerpt_s": 2.5, "max_folds": 1}),
}
OPTIONS = {
    "folds": "--folds",
    "excerpt_s": "--excerpt",
    "max_folds": "--max-folds",
    "power": "--power",
}


def command(name: str, out: Path) -> str:
    """The same by the command line."""
    given = {**TASKS[name][0], **TASKS[name][1]}
    words = ["ossicle", "study", "preprocessing", f"../shared/data/{folder(name)}"]
    words += [word for key, value in given.items() for word in (OPTIONS[key], str(value))]
    return shlex.join([*words, "-o", out.relative_to(ROOT).as_posix()])


def folder(name: str) -> str:
    """Of a task's clips."""
    return name.removesuffix("_power")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="*", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    shared = Path(os.environ.get("OSSICLE_SHARED", ROOT.parent / "shared"))
    data = shared / "data"
    if not data.is_dir():
        sys.exit(f"{data}: not there; set OSSICLE_SHARED to the folder that holds data/")
    torch.set_num_threads(arguments.workers)
    out = ROOT / "docs" / "results"
    for name in arguments.data:
        of_clips, of_study = TASKS[name]
        start = time.perf_counter()

        def tell(done: int, total: int, name: str = name, start: float = start) -> None:
            print(f"{name}: {done} of {total}, {time.perf_counter() - start:.0f} s", flush=True)

        result = preprocessing_study(
            read_clips(data / folder(name), **of_clips),
            out,
            name=f"preprocessing_{name}",
            seeds=arguments.seeds,
            workers=arguments.workers,
            cells=ROOT / "build" / "bench" / "preprocessing" / name,
            arguments={**vars(arguments), "data": name, **of_clips, **of_study},
            command=command(name, out),
            progress=tell,
            **of_study,
        )
        for row in result["effects"]:
            print(f"{name}: {row}", flush=True)
        print(f"written: {out / f'preprocessing_{name}.md'}")


if __name__ == "__main__":
    main()
