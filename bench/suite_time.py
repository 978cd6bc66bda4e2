"""How long the open suite takes: `python bench/suite_time.py` writes docs/results/suite_time.*.

From an empty cache: fetch and build the tasks, then every layer of YAMNet and its probes; then the
same command again, and a board of its own from the features that are there. Needs a Debian system
and 15 GB of disk; run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from ossicle.record import record
from ossicle.study.outputs import write_study

ROOT = Path(__file__).resolve().parents[1]
BENCH = "bench --suite open --backbone yamnet"
# Label -> command of ossicle.
STEPS = {
    "fetch and build the tasks": "data get all",
    "features of every layer, and probes": f"{BENCH} -o FIRST",
    "the same command again": f"{BENCH} -o FIRST",
    "another board: features from the cache, probes anew": f"{BENCH} -o SECOND",
}


def main() -> None:
    """Run the steps one after another, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="for the cache, removed at the end")
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="suite-", dir=asked.folder))
    environment = {**os.environ, "OSSICLE_CACHE": str(folder), "OMP_NUM_THREADS": "1"}
    rows, mean = [], {}
    try:
        for label, command in STEPS.items():
            words = [sys.executable, "-m", "ossicle.cli", *command.split()]
            start = time.perf_counter()
            done = subprocess.run(
                [*words, "--workers", str(asked.workers), "--json"],
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            taken = time.perf_counter() - start
            rows.append({"what": label, "command": f"ossicle {command}", "minutes": taken / 60})
            print(f"{label}: {taken / 60:.1f} min", file=sys.stderr, flush=True)
            if command.startswith("bench"):
                told = json.loads(done.stdout.splitlines()[-1])
                mean[command] = told["scoreboard"]["rows"][0]["mean"]["value"]
        size = sum(
            p.stat().st_size for p in folder.rglob("*") if p.is_file() and not p.is_symlink()
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    first = rows[0]["minutes"] + rows[1]["minutes"]
    same = len(set(mean.values())) == 1
    write_study(
        ROOT / "docs" / "results",
        "suite_time",
        title="How long the open suite takes",
        text=[
            f"From an empty cache to the scoreboard of YAMNet, every layer: {first:.1f} minutes "
            f"with {asked.workers} workers, the fetching of its packages in it, which depends on "
            f"the network. The cache then has {size / 1e9:.1f} GB. "
            + ("All three boards have the same mean." if same else "The boards DIFFER."),
        ],
        tables={"Steps": pd.DataFrame(rows)},
        figures={},
        result={"steps": rows, "mean": mean, "bytes": size},
        record=record({"workers": asked.workers}, seed=0),
        command="python bench/suite_time.py",
    )


if __name__ == "__main__":
    main()
