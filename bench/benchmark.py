"""The open suite's scoreboard: `python bench/benchmark.py` writes docs/results/benchmark_open.*.

Fetches what the suite is made of, trains the two networks of its own that are missing from
build/benchmark (about an hour on two cores; on recordings out of packages that no task of the suite
uses), then runs every row under ossicle's protocol, and some under the protocols of others. Every
cell that is done is kept in build/benchmark/open, so that a stopped run goes on. `--only pages`
writes the page of the rows that are there; others are taken over from the page as it is.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

from kept_board import told as told_of_kept
from kept_board import with_kept_rows

from ossicle.benchmark.entries import Entry, facts
from ossicle.benchmark.open_suite.recipes import RECIPES
from ossicle.benchmark.packages import Packages
from ossicle.benchmark.results import Results
from ossicle.benchmark.scoreboard import write_scoreboard
from ossicle.benchmark.suite_scores import collect
from ossicle.download import cache_dir
from ossicle.finetune.strategy import Strategy
from ossicle.record import record, replaced

ROOT = Path(__file__).resolve().parents[1]
BUILD = Path("build/benchmark")
OUT = ROOT / "docs" / "results"
# No recipe of the suite uses these.
UNHEARD = ("0ad-data", "festvox-ru", "warzone2100-music")
STEPS = 2500
NETWORKS = {"SlowFast NFNet 1/8": "slowfast_nfnet_f0", "NFNet 1/8": "nfnet_f0"}
HEARD = "without labels, packages that the suite's tasks also use"
# Label -> bundle trained by bench/pretrain.py.
OLDER = {
    "SlowFast NFNet 1/8, SimCLR, 5,000 steps": "simclr",
    "SlowFast NFNet 1/8, BYOL, 5,000 steps": "byol",
}
# HEAR's grid of eight networks takes minutes a fold.
PROTOCOLS = ("evar", "xares", "xares-knn")
PROTOCOL_ROWS = {
    "yamnet, last layer": "probe backbone=yamnet layers=last pooling=mean",
    "mel statistics": "probe backbone=mel layers=all",
}


def pretrained(network: str) -> Path:
    """The bundle of a network of the suite's own; made where it is missing."""
    out = BUILD / f"simclr_{network}.ossicle"
    if (out / "config.json").is_file():
        return out
    folder = cache_dir() / "data" / "packages"
    packages = Packages(folder)
    table = BUILD / "unheard.csv"
    with replaced(table) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label"))
        for package in UNHEARD:
            writer.writerows((str(path), package) for path in packages.audio(package))
    run(
        f"pretrain {table} --objective simclr --backbone {network} --set width=1/8 "
        f"--steps {STEPS} --neighbours 8 --accelerator cpu --workers 1 -o {out}"
    )
    return out


def run(command: str) -> None:
    """One line of ossicle's, its answer shown."""
    print(f"ossicle {command}", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "ossicle.cli", *shlex.split(command)], check=True)


def board(rows: dict[str, str], options: str = "", heard: str = "") -> None:
    """Add rows to the board."""
    words = " ".join(f"--row {shlex.quote(f'{label}:{text}')}" for label, text in rows.items())
    said = f"--heard {shlex.quote(heard)}" if heard else ""
    run(f"bench --suite open -o {BUILD / 'open'} {words} {said} {options}")


def main() -> None:
    """Run what is missing and write the pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1, help="of random weights")
    parser.add_argument("--only", choices=("ours", "protocols", "speed", "pages"), help="one part")
    asked = parser.parse_args()
    # Bundles are named by their path below the repository, the same wherever it lies.
    os.chdir(ROOT)
    BUILD.mkdir(parents=True, exist_ok=True)
    if asked.only in (None, "ours"):
        run(f"bench --suite open -o {BUILD / 'open'} --comparisons --seeds {asked.seeds}")
        own = {}
        for name, network in NETWORKS.items():
            bundle = pretrained(network)
            own[f"{name}, SimCLR, {STEPS:,} steps"] = f"probe backbone={bundle} layers=all"
        board(own)
        older = {
            label: f"probe backbone=build/pretrain/{name}.ossicle layers=all"
            for label, name in OLDER.items()
            if Path(f"build/pretrain/{name}.ossicle").is_dir()
        }
        if older:
            board(older, heard=HEARD)
    if asked.only in (None, "protocols"):
        for protocol in PROTOCOLS:
            board(PROTOCOL_ROWS, f"--protocol {protocol}")
    if asked.only in (None, "speed"):
        speeds()
    write(asked.seeds)


def speeds() -> None:
    """How quick each row is, all measured in one run."""
    results = Results(BUILD / "open", "open")
    for row, told in results.rows().items():
        entry = Entry(Strategy.parse(told["strategy"]), told["name"], told["heard"])
        quick = facts(entry, entry.model(0))["times_real_time"]
        results.put_row(row, {**told, "times_real_time": quick})


def write(seeds: int) -> None:
    """The pages of what is done."""
    results = Results(BUILD / "open", "open")
    of = {row: told["protocol"] for row, told in results.rows().items()}
    ours = [row for row, protocol in of.items() if protocol == "ossicle"]
    command = "python bench/benchmark.py"
    about = record({"seeds": seeds}, seed=0)
    # Without the sets at hand, which had a part in settling the defaults.
    open_board = with_kept_rows(
        collect(results, rows=ours, only=list(RECIPES)), OUT / "benchmark_open.json"
    )
    write_scoreboard(
        OUT, "benchmark_open", open_board, about, command, text=told_of_kept(open_board)
    )
    labels = set(PROTOCOL_ROWS)
    rows = [row for row, told in results.rows().items() if told["name"] in labels]
    if {of[row] for row in rows} - {"ossicle"}:
        told = collect(results, rows=rows, only=list(RECIPES))
        for entry in told["rows"]:
            entry["name"] = f"{entry['protocol']}: {entry['name']}"
        write_scoreboard(OUT, "benchmark_protocols", told, about, f"{command} --only protocols")
    print(json.dumps({"rows": len(ours)}))


if __name__ == "__main__":
    main()
