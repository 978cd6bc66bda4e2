"""Does training on other sounds help? `python bench/transfer_matrix.py` writes docs/results.

Environmental sounds (esc10) and spoken words (speech_commands_6), each as the other's source, from
the measuring data (the folder `data` in OSSICLE_SHARED). It is `ossicle study transfer` with the
options below; a stopped run goes on where it stopped, in build/transfer_matrix.

`--pilot` is how the rate was chosen, once: networks from scratch, plain and multiscale, on four
fifths of the clips that no fold tests, scored on the others. With twenty epochs 3e-3 was as good as
1e-3 or better (esc10 .61 and .63 against .51 and .63; words .89 and .91 against .87 and .88). The
study has fifteen, to end within about half an hour of one core.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

from ossicle.datasets.clips import Clips, read_clips
from ossicle.finetune.strategy import Strategy
from ossicle.finetune.trials import Trials
from ossicle.pretrain.supervised import split_groups
from ossicle.study.transfer_matrix import NAME, transfer_study
from ossicle.study.transfer_plan import TRAINING, TransferPlan
from ossicle.transfer.protocol import choose_protocol

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / NAME
RESULTS = ROOT / "docs" / "results"
SETS = {"esc10": r"/^(\d)-/", "speech_commands_6": None}
# Two of ESC-10's five folds, to save time.
TEST_FOLDS = {"esc10": 2}
CROP_S = 2.0
RATES, EPOCHS = (1e-3, 3e-3), (20, 10)
PLAN = TransferPlan(
    config={"width": 1 / 8},
    shares=(0.1, 0.2, 0.4, 0.7, 1.0),
    seeds=3,
    test_folds=TEST_FOLDS,
    settings=replace(TRAINING, epochs=15, batch_size=16, learning_rate=3e-3, crop_s=CROP_S),
)
COMMAND = (
    "ossicle study transfer esc10=DATA/esc10 speech_commands_6=DATA/speech_commands_6 "
    r"--folds 'esc10=/^(\d)-/' --test-folds esc10=2 --set width=1/8 --epochs {epochs} "
    "--batch-size {batch} --learning-rate {rate:g} --crop {crop:g} --seeds {seeds} -o FOLDER"
)


def read_sets() -> dict[str, Clips]:
    """The two sets by name."""
    data = Path(os.environ.get("OSSICLE_SHARED", ROOT.parent / "shared")) / "data"
    return {name: read_clips(data / name, folds=folds) for name, folds in SETS.items()}


def pilot(sets: dict[str, Clips]) -> None:
    """Accuracy from scratch by rate and epochs, on a fifth of what no fold tests."""
    for (name, clips), epochs, rate in product(sets.items(), EPOCHS, RATES):
        folds = choose_protocol(clips).folds[: TEST_FOLDS.get(name)]
        train = np.setdiff1d(folds[0][0], np.concatenate([test for _, test in folds]))
        fitted, held = split_groups(clips.subset(train), 0.2, 0)
        crop_s = CROP_S if name == "esc10" else 1.0
        settings = replace(PLAN.settings, epochs=epochs, learning_rate=rate, crop_s=crop_s)
        scores = []
        start = time.process_time()
        for config in PLAN.networks().values():
            strategy = Strategy("scratch", PLAN.backbone, config=config, settings=settings)
            outcome = Trials(clips).run(strategy, train[fitted], train[held], seed=1000)
            hit = outcome.decisions.argmax(axis=1) == clips.y()[train[held]]
            scores.append(f"{np.mean(hit):.3f}")
        spent = time.process_time() - start
        print(f"{name}: {epochs} epochs at {rate:g}:", *scores, f"({spent:.0f} s)", flush=True)


def main() -> None:
    """The study, or its pilot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pilot", action="store_true")
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    sets = read_sets()
    if arguments.pilot:
        pilot(sets)
        return
    s = PLAN.settings
    command = COMMAND.format(
        epochs=s.epochs, batch=s.batch_size, rate=s.learning_rate, crop=CROP_S, seeds=PLAN.seeds
    )
    start = time.perf_counter()

    def told(done: int, total: int) -> None:
        print(f"{done} of {total} after {time.perf_counter() - start:.0f} s", flush=True)

    result = transfer_study(
        sets, BUILD, plan=PLAN, workers=arguments.workers, command=command, progress=told
    )
    RESULTS.mkdir(parents=True, exist_ok=True)
    for path in map(Path, result["files"]):
        shutil.copyfile(path, RESULTS / path.name)
    print("\n".join(result["text"]))


if __name__ == "__main__":
    main()
