"""Layers of YAMNet over four tasks: `python bench/layers.py` writes docs/results/layers_yamnet.*.

Every number is what `ossicle study layers` wrote. Needs the measuring data: the folder `data` in
OSSICLE_SHARED (default: ../shared beside the repository). A stopped run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Data set -> fold and group of each clip, "" where the data set says so itself.
TASKS = {
    "esc10": (r"/^(\d)-/", ""),
    "fsdd": (r"/_([a-z]+)_/", r"/_([a-z]+)_/"),
    "speech_commands_6": ("", ""),
    "urbansound_2folds": ("", ""),
}
NAME = "layers_yamnet"


def options(backbone: str) -> list[str]:
    """The arguments after the sources."""
    found = ["--backbone", backbone]
    for place, option in enumerate(("--folds", "--groups")):
        for task in TASKS.values():
            found += [option, task[place]]
    return found


def main() -> None:
    """Run the study and copy its files, without the cells, into docs/results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    shared = Path(os.environ.get("OSSICLE_SHARED", ROOT.parent / "shared"))
    data = shared / "data"
    if not data.is_dir():
        sys.exit(f"{data}: not there; set OSSICLE_SHARED to the folder that holds data/")
    folder = ROOT / "build" / "bench" / NAME
    rest = [*options("yamnet"), "--workers", str(arguments.workers)]
    told = shlex.join(
        ["ossicle", "study", "layers", *(f"../shared/data/{task}" for task in TASKS), *rest]
    )
    print(told, flush=True)
    subprocess.run(
        [
            *[sys.executable, "-c", "from ossicle.cli import main; main()", "study", "layers"],
            *[str(data / task) for task in TASKS],
            *rest,
            *["--out", str(folder)],
        ],
        check=True,
    )
    results = ROOT / "docs" / "results"
    for path in sorted(folder.glob(f"{NAME}*")):
        if path.suffix in (".json", ".md"):
            # The page's own command names a folder of this machine.
            lines = path.read_text(encoding="utf-8").replace(str(data), "../shared/data")
            lines = lines.replace(str(folder), f"build/bench/{NAME}")
            (results / path.name).write_text(lines, encoding="utf-8")
        else:
            shutil.copyfile(path, results / path.name)
        print(f"written: {results / path.name}")


if __name__ == "__main__":
    main()
