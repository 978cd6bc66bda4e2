"""Pre-training on open audio: `python bench/pretrain.py FOLDER` writes docs/results/pretrain.*.

FOLDER is what `python bench/open_audio.py FOLDER` filled. Runs that are not in build/pretrain are
trained (SimCLR and BYOL take most of an hour each on one core); then the frozen networks are
evaluated on the measuring data (the folder `data` in OSSICLE_SHARED), beside their own random
weights. Every score is what `ossicle evaluate ... --json` printed.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

from line import TASKS

from ossicle.line import compare
from ossicle.record import record, write_json

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "pretrain"
SETS = ("esc10", "fsdd", "speech_commands_6")
NARROW = ["--set", "width=1/8", "--steps", "5000", "--neighbours", "8"]
# Name -> table of recordings, arguments of `ossicle pretrain`.
RUNS = {
    "simclr": ("clips.csv", ["--objective", "simclr", *NARROW]),
    "byol": ("clips.csv", ["--objective", "byol", *NARROW]),
    "choi_tagger": (
        "tags.csv",
        shlex.split(
            "--objective supervised --backbone choi_convnet --labels multilabel --tags 50 "
            "--steps 600 --batch-size 16 --learning-rate 5e-3"
        ),
    ),
}
READ_OUTS = {
    "all layers": [],
    "last layer's mean": ["--layers", "last", "--pooling", "mean"],
    "all layers, random weights": ["--random"],
}


def trained(name: str, folder: Path) -> dict:
    """How a run went; it is made where it is missing, and gone on with where it was stopped."""
    table, options = RUNS[name]
    out = BUILD / f"{name}.ossicle"
    # One thread, so that two runs share two cores.
    options = [*options, "--accelerator", "cpu", "--workers", "1"]
    command = ["ossicle", "pretrain", f"FOLDER/{table}", *options]
    command += ["-o", f"build/pretrain/{name}.ossicle"]
    answer = BUILD / f"{name}.json"
    if not answer.is_file():
        BUILD.mkdir(parents=True, exist_ok=True)
        real = [sys.executable, "-m", "ossicle.cli", "pretrain", str(folder / table), *options]
        run = subprocess.run(
            [*real, "-o", str(out), "--json"],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        answer.write_text(run.stdout.splitlines()[-1], encoding="utf-8")
    told = json.loads(answer.read_text(encoding="utf-8"))
    info = json.loads((out / "config.json").read_text(encoding="utf-8"))["info"]
    told.pop("out", None)
    return {
        "command": shlex.join(command),
        **told,
        "weights": info["weights"],
    }


# Networks that were not trained here, for comparison: all layers.
BASELINES = {
    "slowfast, 1/8, random, skip gains at 1": shlex.split(
        "slowfast_nfnet_f0 --set width=1/8 --set skip_gain=1 --random"
    ),
}


def evaluated(name: str, data: str, read_out: str, shared: Path, workers: int) -> dict:
    """One row: the command and its answer."""
    arguments, options = TASKS[data][0], READ_OUTS.get(read_out, [])
    bundle = [f"build/pretrain/{name}.ossicle"] if name in RUNS else BASELINES[name]
    title = f"{name}-{data}-{read_out}".replace(" ", "_").replace("/", "-")
    report = ROOT / "build" / "bench" / "pretrain" / title
    command = ["ossicle", "evaluate", f"../shared/data/{data}", *arguments]
    command += ["--backbone", *bundle, *options]
    real = [sys.executable, "-m", "ossicle.cli", "evaluate", str(shared / data), *command[3:]]
    kept = report / "answer.json"
    if not kept.is_file():  # `rm -r build/bench/pretrain` to evaluate anew
        run = subprocess.run(
            [*real, "--quick", "--json", "--workers", str(workers), "--out", str(report)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            cwd=ROOT,
        )
        kept.write_text(run.stdout.splitlines()[-1], encoding="utf-8")
    answer = json.loads(kept.read_text(encoding="utf-8"))
    row = {"command": shlex.join([*command, "--json"]), "report": report, **answer["score"]}
    return {**row, "dims": answer["backbone"]["dims"]}


def main() -> None:
    """Train what is missing, evaluate, write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runs", default=",".join(RUNS), help="Names, with commas.")
    arguments = parser.parse_args()
    shared = Path(os.environ.get("OSSICLE_SHARED", ROOT.parent / "shared")) / "data"
    result: dict = {"runs": {}, "rows": {}}
    for name in arguments.runs.split(","):
        result["runs"][name] = trained(name, arguments.folder)
        for data in SETS:
            rows = {r: evaluated(name, data, r, shared, arguments.workers) for r in READ_OUTS}
            reports = [rows[r].pop("report") for r in READ_OUTS]
            gain = compare(reports[0], reports[2])
            result["rows"][f"{name}, {data}"] = {**rows, "all layers over random": gain}
            print(name, data, {r: round(rows[r]["value"], 4) for r in READ_OUTS}, flush=True)
    result["baselines"] = {}
    for name in BASELINES:
        rows = {d: evaluated(name, d, "all layers", shared, arguments.workers) for d in SETS}
        for row in rows.values():
            row.pop("report")
        result["baselines"][name] = rows
    result["record"] = record({"runs": arguments.runs}, seed=0)
    out = ROOT / "docs" / "results"
    write_json(out / "pretrain.json", json.loads(json.dumps(result, default=str)))
    (out / "pretrain.md").write_text(page(result), encoding="utf-8")


def page(result: dict) -> str:
    """Markdown of the runs and of what their networks are worth."""
    about = result["record"]
    lines = [
        "# Pre-training on open audio",
        "",
        "`python bench/open_audio.py FOLDER`, then `python bench/pretrain.py FOLDER`; seed 0, "
        f"{about['platform']['cpu']}, torch {about['versions']['torch']}. The recordings come "
        "from Debian packages; none of the sets below is among them. Frozen networks, ridge, "
        "grouped cross-validation as in [line.md](line.md), 95 % intervals over groups. "
        "Each run had one thread; minutes are wall-clock, beside other work on the machine. The "
        "gain is paired, clip by clip.",
        "",
        "| run | hours | steps | minutes | waiting for data | last line of the log |",
        "|---|---|---|---|---|---|",
    ]
    for name, run in result["runs"].items():
        last = ", ".join(
            f"{k} {v:.3g}" for k, v in run["last"].items() if k not in ("step", "lr", "waiting")
        )
        lines.append(
            f"| {name} | {run['hours']:.1f} | {run['steps']} | {run['seconds'] / 60:.0f} "
            f"| {100 * run['waiting']:.1f} % | {last} |"
        )
    lines += ["", "| network | set | " + " | ".join(READ_OUTS) + " | gain over random |"]
    lines.append("|---" * (len(READ_OUTS) + 3) + "|")
    for name, rows in result["rows"].items():
        scores = [
            f"{rows[r]['value']:.4f} ({rows[r]['low']:.3f}-{rows[r]['high']:.3f})"
            for r in READ_OUTS
        ]
        gain = rows["all layers over random"]
        run, data = name.split(", ")
        lines.append(
            f"| {run} | {data} | {' | '.join(scores)} | {100 * gain['difference']:+.1f} points "
            f"({100 * gain['low']:+.1f} to {100 * gain['high']:+.1f}) |"
        )
    lines += ["", "| for comparison, all layers | " + " | ".join(SETS) + " |"]
    lines.append("|---" * (len(SETS) + 1) + "|")
    for name, rows in result["baselines"].items():
        scores = [f"{r['value']:.4f} ({r['low']:.3f}-{r['high']:.3f})" for r in rows.values()]
        lines.append(f"| {name} | {' | '.join(scores)} |")
    for name, run in result["runs"].items():
        if run.get("held_out"):
            scores = ", ".join(
                f"{k} {s['value']:.4f} ({s['low']:.4f} to {s['high']:.4f})"
                for k, s in run["held_out"]["scores"].items()
            )
            lines += ["", f"{name}, on groups held out: {scores}."]
    lines += ["", "Commands of the runs:", ""]
    lines += [f"    {run['command']}" for run in result["runs"].values()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
