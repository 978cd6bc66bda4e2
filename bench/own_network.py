"""Our own network measured: `python bench/own_network.py` writes docs/results/own_network.*.

Parts, each kept in build/bench/own_network/PART.json, so that one can be made anew with --only;
what is not kept there is taken over from the page as it is:

- five: the measuring sets, beside yamnet and efficientat_mn04, paired;
- open: its row on the open suite's board in build/benchmark/open;
- speed: size, and seconds for the same audio beside yamnet, in one run;
- runs: training runs on the development tasks, each against the run that it changes;
- curves: scores against hours of audio and against epochs.

Runs that were not made are left out and told; `--only train` makes them. Every choice was made by
the development tasks (`own_network_tasks.py`), whose clips and what they ask for are in no training
table; the measuring sets and the open suite are for reporting alone. Needs the measuring data: the
folder `data` in OSSICLE_SHARED (default: ../shared beside the repository).
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import own_network_curves as curves
import own_network_page as page
import own_network_runs as runs
import own_network_speed as speed
from kept_board import with_kept_rows
from own_network_scores import FOLDER, ROOT, Network, Set, dev_sets, five_sets, scored

from ossicle import bundle
from ossicle.backbones import BACKBONES, WEIGHTS
from ossicle.benchmark.critical_difference import ranks
from ossicle.benchmark.open_suite.recipes import RECIPES
from ossicle.benchmark.results import Results
from ossicle.benchmark.suite_scores import collect
from ossicle.finetune.strategy import Strategy
from ossicle.heads import count_parameters
from ossicle.line import pick_model
from ossicle.record import json_safe, record, write_json
from ossicle.study.outputs import write_study

BOARD = Path("build/benchmark/open")
PAGE = ROOT / "docs" / "results" / "own_network.json"
BOARD_PAGE = ROOT / "docs" / "results" / "benchmark_open.json"
# Networks of at most so many parameters are what it is measured against.
SMALL = 10_000_000
YAMNET = Network("yamnet, all layers", "yamnet")
OTHERS = (
    YAMNET,
    Network("yamnet, last layer", "yamnet", ("--layers", "last", "--pooling", "mean")),
    Network("efficientat_mn04, all layers", "efficientat_mn04"),
)


class Asked(argparse.Namespace):
    """What the command line says."""

    network: str
    title: str
    only: list[str] | None
    workers: int
    repeats: int
    out: Path
    dev: Path


def ours(asked: Asked) -> Network:
    """The network that is measured."""
    return Network(f"{asked.title}, all layers", asked.network)


def five(asked: Asked) -> dict[str, Any]:
    """The measuring sets: scores, means, and differences to YAMNet, all layers."""
    network = ours(asked)
    random = Network(f"{asked.title}, random weights", asked.network, ("--random",))
    first = Network("the run that it began with", bundled(runs.FIRST).backbone)
    began = [first] if asked.network == runs.NAME and runs.done(runs.FIRST) else []
    networks = [network, *began, random, *OTHERS]
    scores, answers = scored(networks, five_sets(), asked.workers)
    rows = {}
    for one in networks:
        pair = {one.title: 1.0, YAMNET.title: -1.0}
        rows[one.title] = {
            "sets": {name: scores.on(name, {one.title: 1.0}) for name in scores.sets},
            "mean": scores.mean({one.title: 1.0}),
            "commands": {name: answers[one.title][name]["command"] for name in scores.sets},
        }
        if one is not YAMNET:
            rows[one.title]["over_yamnet"] = {name: scores.on(name, pair) for name in scores.sets}
            rows[one.title]["mean_over_yamnet"] = scores.mean(pair)
    groups = {name: scores.crossed[name].n_groups for name in scores.sets}
    told = {"network": network.title, "rows": rows, "clips": scores.n_clips, "groups": groups}
    if began:
        pair = {network.title: 1.0, first.title: -1.0}
        told["over_first"] = {"row": first.title, **scores.mean(pair)}
    return told


def open_suite(asked: Asked) -> dict[str, Any]:
    """Its row on the board, made where it is missing, and where that stands."""
    strategy = f"probe backbone={asked.network} layers=all"
    label = f"{asked.title}, all layers"
    command = f"bench --suite open -o {BOARD} --row {shlex.quote(f'{label}:{strategy}')}"
    call([*shlex.split(command), "--workers", str(asked.workers)])
    results = Results(BOARD, "open")
    rows = [row for row, told in results.rows().items() if told["protocol"] == "ossicle"]
    board = with_kept_rows(collect(results, rows=rows, only=list(RECIPES)), BOARD_PAGE)
    complete = [row for row in board["rows"] if row["mean"] is not None]
    text = Strategy.parse(strategy).text()
    found = [row for row in complete if row["strategy"] == text]
    if not found or len(complete) < 2:
        sys.exit(f"{BOARD}: no other row has all tasks as they are; run python bench/benchmark.py")
    mine = found[0]
    scores = [[row["scores"][t["name"]]["value"] for t in board["tasks"]] for row in complete]
    mean_ranks = dict(
        zip((row["row"] for row in complete), ranks(np.array(scores))["mean_ranks"], strict=True)
    )
    differences = []
    for d in board["differences"]:
        if mine["row"] not in (d["a"], d["b"]):
            continue
        first = d["a"] == mine["row"]
        other = next(row for row in complete if row["row"] == d["b" if first else "a"])
        sides = (d["low"], d["high"]) if first else (-d["high"], -d["low"])
        differences.append(
            {
                "to": other["name"],
                "parameters": other["parameters"],
                "mean": other["mean"],
                "mean_rank": mean_ranks[other["row"]],
                "value": d["value"] if first else -d["value"],
                "low": sides[0],
                "high": sides[1],
                "heard": other["heard"],
            }
        )
    small = [row for row in complete if row["parameters"] <= SMALL]
    return {
        "network": label,
        "command": f"ossicle {command}",
        "rank": [row["row"] for row in small].index(mine["row"]) + 1,
        "of": len(small),
        "mean": mine["mean"],
        "domains": mine["domains"],
        "tasks": {name: score["value"] for name, score in mine["scores"].items()},
        "mean_rank": mean_ranks[mine["row"]],
        "differences": [d for d in differences if d["parameters"] <= SMALL],
    }


def quick(asked: Asked) -> dict[str, Any]:
    """Sizes and seconds, all in one run."""
    (esc10,) = [one for one in five_sets() if one.name == "esc10"]
    networks = [ours(asked), Network("efficientat_mn04, all layers", "efficientat_mn04"), YAMNET]
    return {"network": networks[0].title, **speed.speeds(networks, esc10.clips, asked.repeats)}


def bundled(name: str) -> Network:
    """A bundle in build/own as a network."""
    return Network(name, os.path.relpath(runs.bundle_of(name), ROOT))


def there(names: Sequence[str]) -> list[str]:
    """Names whose bundles are there; the others are told."""
    missing = [name for name in names if not runs.done(name)]
    if missing:
        print(f"not trained, left out: {', '.join(missing)}", file=sys.stderr)
    return [name for name in names if runs.done(name)]


def development(asked: Asked) -> list[Set]:
    """The development tasks.

    Raises:
        SystemExit: there are none.
    """
    sets = dev_sets(asked.dev)
    if not sets:
        sys.exit(f"{asked.dev}: no tasks; run python bench/own_network_tasks.py CORPUS")
    return sets


def training(asked: Asked) -> dict[str, Any]:
    """Every run on the development tasks, against the run that it changes."""
    shown = [name for name, run in runs.RUNS.items() if run.kind]
    named = list(dict.fromkeys([*(runs.RUNS[name].of for name in shown), *shown, runs.FINAL]))
    present = there([name for name in named if name and runs.is_blind(name)])
    if not present:
        return {"rows": {}}
    scores, _ = scored([bundled(name) for name in present], development(asked), asked.workers)
    rows: dict[str, Any] = {}
    for name in present:
        run, told = runs.RUNS[name], runs.answer(name)
        model = pick_model(bundled(name).backbone)
        rows[name] = {
            "kind": run.kind,
            "of": run.of,
            "changes": runs.changed(name),
            "command": shlex.join(["ossicle", *runs.words(name)]),
            "mean": scores.mean({name: 1.0}),
            "sets": {one: scores.on(one, {name: 1.0}) for one in scores.sets},
            "hours": told.get("hours"),
            "steps": told.get("steps"),
            "epochs": runs.epochs(name),
            "minutes": told["seconds"] / 60 if "seconds" in told else None,
            "parameters": count_parameters(model.backbone),
            "times_real_time": speed.times_real_time(model),
        }
        if run.of in present:
            pair = {name: 1.0, run.of: -1.0}
            rows[name]["over_base"] = scores.mean(pair)
            rows[name]["over_base_sets"] = {one: scores.on(one, pair) for one in scores.sets}
    kept_rows = earlier(rows)
    final = {"name": runs.FINAL, "command": shlex.join(["ossicle", *runs.words(runs.FINAL)])}
    final |= {"told": runs.answer(runs.FINAL), "blind": runs.is_blind(runs.FINAL)}
    first = {"name": runs.FIRST, "command": shlex.join(["ossicle", *runs.words(runs.FIRST)])}
    final["begun_with"] = first | {"told": runs.answer(runs.FIRST)}
    told = {"final": final, "clips": scores.n_clips, "earlier": list(kept_rows)}
    return {"rows": rows | kept_rows, **told}


def earlier(rows: dict[str, Any]) -> dict[str, Any]:
    """Rows of the page as it is, of networks that are not here and commands that are the same."""
    if not PAGE.is_file():
        return {}
    before = json.loads(PAGE.read_text(encoding="utf-8")).get("runs", {}).get("rows", {})
    return {
        name: row
        for name, row in before.items()
        if name not in rows
        and name in runs.RUNS
        and row["command"] == shlex.join(["ossicle", *runs.words(name)])
    }


def learning(asked: Asked) -> dict[str, Any]:
    """Scores against hours and against epochs, on the development tasks and on the five sets."""
    wanted = []
    names = there(runs.HOURS)
    hours = [(runs.answer(name).get("hours"), name) for name in names]
    known = sorted((h, name) for h, name in hours if h)
    if len(known) > 2:
        x, y = zip(*known, strict=True)
        wanted.append(curves.Curve("hours of audio", x, y))
    steps = sorted((n, name) for n, name in runs.STEPS.items() if name in there([name]))
    if len(steps) > 2:
        epochs = [runs.epochs(name) for _, name in steps]
        # Where runs did not keep how often they heard everything, steps stand for it.
        told = all(epochs)
        x = tuple(float(e or 0) for e in (epochs if told else (n for n, _ in steps)))
        names = tuple(name for _, name in steps)
        wanted.append(curves.Curve("epochs" if told else "steps", x, names))
    if not wanted:
        return {"curves": {}}
    networks = [bundled(name) for name in dict.fromkeys(n for c in wanted for n in c.networks)]
    groups = {"development tasks": development(asked), "the five sets": five_sets()}
    of = {name: scored(networks, sets, asked.workers)[0] for name, sets in groups.items() if sets}
    return {"curves": curves.curves(wanted, of), "note": runs.NOTE}


def train() -> None:
    """Make the runs whose networks are missing; a stopped one goes on."""
    for name in runs.RUNS:
        if runs.done(name):
            continue
        words = runs.words(name)
        print(f"ossicle {shlex.join(words)}", file=sys.stderr, flush=True)
        run = subprocess.run(
            [sys.executable, "-m", "ossicle.cli", *words],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        (runs.OWN / f"{name}.json").write_text(run.stdout.splitlines()[-1], encoding="utf-8")


def kept(title: str) -> dict[str, Any]:
    """The parts that there are, here or on the page as it is; none of another network."""
    before = json.loads(PAGE.read_text(encoding="utf-8")) if PAGE.is_file() else {}
    found = {}
    for name in PARTS:
        path = FOLDER / f"{name}.json"
        here = path.is_file()
        told = json.loads(path.read_text(encoding="utf-8")) if here else before.get(name)
        if told is None:
            continue
        if told.get("network", title) == title:
            found[name] = told
        else:
            print(f"{path if here else PAGE}: is of {told['network']}, left out", file=sys.stderr)
    return found


def call(words: Sequence[str]) -> None:
    """One line of ossicle's, its answer shown."""
    print(f"ossicle {shlex.join(words)}", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "ossicle.cli", *words], check=True)


PARTS: dict[str, Callable[[Asked], dict[str, Any]]] = {
    "five": five,
    "open": open_suite,
    "speed": quick,
    "runs": training,
    "curves": learning,
}


def main() -> None:
    """Make the parts that are asked for, and the page of all that there are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="", help="a name, or a bundle; default: what ships")
    parser.add_argument("--title", default="", help="what it is called; default: its name")
    parser.add_argument("--only", action="append", choices=[*PARTS, "train", "page"])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=21, help="of the timing")
    parser.add_argument("--dev", type=Path, default=runs.OWN / "dev", help="development tasks")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    asked = parser.parse_args(namespace=Asked())
    asked.out, asked.dev = asked.out.absolute(), asked.dev.absolute()
    # Bundles are named by their path below the repository, the same wherever it lies.
    os.chdir(ROOT)
    shipped = runs.NAME if runs.NAME in WEIGHTS else os.path.relpath(runs.bundle_of(runs.FINAL))
    asked.network = asked.network or shipped
    asked.title = asked.title or Path(asked.network).name.removesuffix(".ossicle")
    if asked.network in BACKBONES:
        if asked.network not in WEIGHTS and count_parameters(pick_model(asked.network)):
            sys.exit(f"{asked.network} has no weights: name the bundle that a run left")
    elif not bundle.is_bundle(asked.network):
        sys.exit(f"{asked.network}: neither a network nor a bundle")
    FOLDER.mkdir(parents=True, exist_ok=True)
    if asked.only and "train" in asked.only:
        train()
    for name, part in PARTS.items():
        if asked.only is None or name in asked.only:
            write_json(FOLDER / f"{name}.json", json_safe(part(asked)))
    found = kept(ours(asked).title)
    old = [name for name in found if not (FOLDER / f"{name}.json").is_file()]
    note = [f"Taken over from an earlier run of this command: {', '.join(old)}."] if old else []
    told = {"network": asked.network, "repeats": asked.repeats}
    write_study(
        asked.out,
        "own_network",
        title="Our own network",
        text=[*page.texts(found), *note],
        tables=page.tables(found),
        figures=page.figures(found),
        result=found,
        record=record(told, seed=0),
        command="python bench/own_network.py",
    )


if __name__ == "__main__":
    main()
