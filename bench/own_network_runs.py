"""The runs of bench/own_network.py, each as what it changes of another one.

A run is `ossicle pretrain build/own/TABLE OPTIONS -o build/own/NAME.ossicle --json`, its answer
build/own/NAME.json. `python bench/own_network.py --only train` makes those that are missing.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
OWN = ROOT / "build" / "own"
# The network that ships, and the runs that it comes from, one after the other.
NAME = "stapes"
FIRST, FINAL = "first", "final"
# Option -> value; "" for a flag, None for an option that is left out. What can be given several
# times has its key in its name: "--set width".
Options = dict[str, str | None]
BASE: Options = {
    "--objective": "distill",
    "--teachers": "yamnet,efficientat_mn04,speech_embedding,speaker_encoder",
    "--backbone": NAME,
    "--labels": "multilabel",
    "--batch-size": "128",
    "--learning-rate": "3e-3",
    "--precision": "bf16-mixed",
    "--steps": "500",
}
FIRST_STEPS, FINAL_STEPS = 15000, 26000
MUON: Options = {"--optimiser": "muon", "--learning-rate": "2e-2"}


class Run(NamedTuple):
    """A training run.

    Attributes:
        kind: the table that it stands in: "ablation", "search", or "" for none.
        changes: options that are not those of `of`.
        of: the run that it changes; "" for `BASE`.
        table: what it is trained on, in build/own.
        about: what it asks, where the options do not say it.
    """

    kind: str = ""
    changes: Options = {}  # noqa: RUF012
    of: str = ""
    table: str = ""
    about: str = ""


RUNS: dict[str, Run] = {
    # What ships: nothing was chosen by it, so nothing is held out of what it hears.
    "first": Run(
        changes={**MUON, "--steps": str(FIRST_STEPS), "--mixtures": "1"},
        table="corpus/corpus.csv",
    ),
    "final": Run(
        changes={
            "--begin": "build/own/first.ossicle",
            "--steps": str(FINAL_STEPS),
            "--learning-rate": "1e-2",
        },
        of="first",
    ),
    # Half the hours and few steps: what is chosen between is compared alike.
    "base": Run(table="train-1_2.csv"),
    "muon": Run("ablation", MUON, of="base"),
    "labels": Run("ablation", {"--option labels": "0.1"}, of="base"),
    "mixtures": Run("ablation", {"--mixtures": "1"}, of="base"),
    "sound_teachers": Run("ablation", {"--teachers": "yamnet,efficientat_mn04"}, of="base"),
    "one_teacher": Run("ablation", {"--teachers": "yamnet"}, of="base"),
    "deepest": Run(
        "ablation",
        {
            "--teachers": "yamnet,yamnet/last,efficientat_mn04,efficientat_mn04/last,"
            "speech_embedding,speaker_encoder"
        },
        of="base",
        about="last layers once more, as teachers of their own",
    ),
    "pairs": Run(
        "ablation",
        {"--option pairs": "0.1", "--steps": "250"},
        of="base",
        about="SimCLR beside it, half the steps, as a step takes twice the time",
    ),
    "narrow": Run("search", {"--set width": "0.5"}, of="base"),
    "wide": Run("search", {"--set width": "1.15"}, of="base"),
    "slowfast": Run("search", {"--backbone": "slowfast_nfnet_f0", "--set width": "1/8"}, of="base"),
    "mobilenet": Run("search", {"--backbone": "mobilenet_v2", "--steps": "100"}, of="base"),
    "plain": Run("search", {"--backbone": "choi_convnet", "--set excerpt_s": "1"}, of="base"),
    "hours_1_4": Run(of="base", table="train-1_4.csv"),
    "hours_1_8": Run(of="base", table="train-1_8.csv"),
    "steps_250": Run(changes={"--steps": "250"}, of="base"),
    "steps_1000": Run(changes={"--steps": "1000"}, of="base"),
    "steps_2000": Run(changes={"--steps": "2000"}, of="base"),
}
# Runs at equal steps on ever more hours.
HOURS = ("hours_1_8", "hours_1_4", "base")
# Steps -> bundle in build/own: of one run as it went on, or of runs of so many steps.
STEPS: dict[int, str] = {
    250: "steps_250",
    500: "base",
    1000: "steps_1000",
    2000: "steps_2000",
}
# What has to be known of these two lists.
NOTE = (
    "Runs on parts of the hours took as many steps as the others, and so heard the same more "
    "often; runs of fewer steps came to the end of their own schedule of the learning rate."
)


def options(name: str) -> Options:
    """All options of a run."""
    run = RUNS[name]
    return {**(options(run.of) if run.of else BASE), **run.changes}


def table(name: str) -> str:
    """The table that a run is trained on."""
    run = RUNS[name]
    return run.table or (table(run.of) if run.of else "train.csv")


def words(name: str) -> list[str]:
    """`pretrain ...`, the command of a run."""
    said = ["pretrain", f"build/own/{table(name)}"]
    for option, value in options(name).items():
        if value is None:
            continue
        flag, _, key = option.partition(" ")
        said += [flag, *([f"{key}={value}" if key else value] if value or key else [])]
    return [*said, "-o", f"build/own/{name}.ossicle", "--json"]


def changed(name: str) -> str:
    """What a run changes, as words of the command line."""
    run = RUNS[name]
    said = []
    if run.table:
        said.append(run.table)
    for option, value in run.changes.items():
        if value is None:
            said.append(f"without {option}")
            continue
        flag, _, key = option.partition(" ")
        said.append(" ".join([flag, shlex.quote(f"{key}={value}" if key else value)]).strip(" '"))
    return "; ".join([*([run.about] if run.about else []), *said]) or "the base"


def is_blind(name: str) -> bool:
    """Whether a run has heard nothing of the development tasks, and so can be scored on them."""
    return table(name).startswith("train")


def bundle_of(name: str) -> Path:
    """Where a run's network lies."""
    return OWN / f"{name}.ossicle"


def done(name: str) -> bool:
    """Whether a run's network is there."""
    return (bundle_of(name) / "config.json").is_file()


def answer(name: str) -> dict[str, Any]:
    """What a run said of itself, {} where that was not kept."""
    path = OWN / f"{name}.json"
    if not path.is_file():
        return {}
    told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
    return told


def epochs(name: str) -> float | None:
    """How often a run heard its hours: audio of all steps over audio that there is.

    A batch holds as much audio as `--batch-size` of the shortest windows, which are of 1 s
    (``ossicle.pretrain.windows``).
    """
    told = answer(name)
    if not told.get("hours") or not told.get("steps"):
        return None
    return float(told["steps"] * int(options(name)["--batch-size"] or 0) / (3600 * told["hours"]))
