"""The table behind `ossicle advise`: `python bench/advise.py` runs every alternative on tasks.

Writes src/ossicle/advise/calibration.json (the table and what was learnt from it) and
docs/results/advise.json and .md. Stopped, it goes on from build/bench/advise; `--table` writes what
is done so far.
Needs the measuring data: the folder `data` in OSSICLE_SHARED (default: ../shared beside the
repository). About an hour of one core.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ossicle.advise import calibration
from ossicle.advise.alternatives import ALTERNATIVES, strategies
from ossicle.advise.cases import place
from ossicle.advise.measure import measure
from ossicle.advise.quick import sample_clips
from ossicle.datasets.clips import Clips, read_clips
from ossicle.finetune.trials import Trials, score_interval
from ossicle.record import json_safe, record, replaced, write_json
from ossicle.study.cells import Cells
from ossicle.study.outputs import made_with
from ossicle.transfer.protocol import choose_protocol

ROOT = Path(__file__).resolve().parents[1]
# A task is a data set and how many of its clips are used.
SETS: dict[str, dict[str, Any]] = {
    "esc10": {"folds": r"/^(\d)-/"},
    "fsdd": {"folds": r"/_([a-z]+)_/", "groups": r"/_([a-z]+)_/"},
    "speech_commands_6": {},
    "urbansound_2folds": {},
    "snoring": {"groups": "runs:20"},
    "clips": {},
}
YAMNET, EFFICIENTAT = "yamnet", "efficientat_mn04"
# Name -> data set, clips, network.
TASKS = {
    "clips": ("clips", 86, YAMNET),
    "fsdd_200": ("fsdd", 200, YAMNET),
    "speech_commands_6_200": ("speech_commands_6", 200, YAMNET),
    "snoring_200": ("snoring", 200, YAMNET),
    "esc10_200": ("esc10", 200, YAMNET),
    "urbansound_2folds_200": ("urbansound_2folds", 200, YAMNET),
    "fsdd_80": ("fsdd", 80, YAMNET),
    "speech_commands_6_48": ("speech_commands_6", 48, YAMNET),
    "snoring_32": ("snoring", 32, YAMNET),
    "esc10_80": ("esc10", 80, YAMNET),
    "urbansound_2folds_80": ("urbansound_2folds", 80, YAMNET),
    # Of another network the frozen alternatives alone: fine-tuning it takes too long for the table.
    "clips, efficientat_mn04": ("clips", 86, EFFICIENTAT),
    "fsdd_200, efficientat_mn04": ("fsdd", 200, EFFICIENTAT),
    "speech_commands_6_200, efficientat_mn04": ("speech_commands_6", 200, EFFICIENTAT),
    "snoring_200, efficientat_mn04": ("snoring", 200, EFFICIENTAT),
    "esc10_200, efficientat_mn04": ("esc10", 200, EFFICIENTAT),
    "urbansound_2folds_200, efficientat_mn04": ("urbansound_2folds", 200, EFFICIENTAT),
}
# Of the protocol's folds, so many are run: to end within an hour.
FOLDS = 2
FROZEN = [name for name, one in ALTERNATIVES.items() if not one.trained]
TRAINED = [name for name, one in ALTERNATIVES.items() if one.trained]


def read_task(data: Path, name: str, seed: int) -> Clips:
    """The clips of a task."""
    family, limit, _ = TASKS[name]
    folder = ROOT / "examples" / "clips" if family == "clips" else data / family
    clips = read_clips(folder, **SETS[family])
    # One small test part would tell little: speakers are dealt to folds instead.
    clips.table["split"] = None
    return clips.subset(sample_clips(clips, limit, seed))


class Task:
    """A task as the alternatives see it; the same folds for all of them."""

    def __init__(self, data: Path, name: str, seed: int, workers: int) -> None:
        self.clips, self.seed, self.workers = read_task(data, name, seed), seed, workers
        self.backbone = TASKS[name][2]
        protocol = choose_protocol(self.clips, n_folds=3, random_state=seed)
        self.folds = protocol.folds[:FOLDS]
        self.text = f"{protocol.text}; {len(self.folds)} of {len(protocol.folds)} run"
        self.n_training = float(np.mean([len(train) for train, _ in self.folds]))
        self.trials = Trials(self.clips, workers=workers)

    def facts(self) -> dict[str, Any]:
        """What `ossicle advise` measures."""
        found = measure(self.clips, self.backbone, seed=self.seed, workers=self.workers).facts
        n_tested = int(sum(len(test) for _, test in self.folds))
        return {
            **found,
            "n_training": self.n_training,
            "n_tested": n_tested,
            "n_groups": len(np.unique(self.clips.groups())),
            "protocol": self.text,
        }

    def verified(self, name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
        """An alternative, run on the folds."""
        network = facts["network"]
        strategy = strategies(
            self.backbone,
            n_training=self.n_training,
            seconds=facts["sound"]["seconds"]["median"],
            layers=network["layers"],
            min_s=network["min_s"],
        )[name]
        start = time.process_time()
        rows, decisions, seconds = self.trials.cross_validate(strategy, self.folds, seed=self.seed)
        score = score_interval(self.clips, rows, decisions, seed=self.seed)
        return {
            "text": strategy.text(),
            "score": score["value"],
            "low": score["low"],
            "high": score["high"],
            "seconds": seconds / len(self.folds),
            "core_seconds": time.process_time() - start,
        }


def main() -> None:
    """Measure what is missing, then write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", help="alternatives, with commas")
    parser.add_argument("--table", action="store_true", help="write what is done so far")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "bench" / "advise")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = Path(os.environ.get("OSSICLE_SHARED", ROOT.parent / "shared")) / "data"
    tasks: dict[str, Task] = {}

    def task(name: str) -> Task:
        if name not in tasks:
            tasks.clear()  # one set of features at a time
            tasks[name] = Task(data, name, arguments.seed, arguments.workers)
        return tasks[name]

    cells = Cells(arguments.folder, {"seed": arguments.seed, "folds": FOLDS})
    wanted = arguments.only.split(",") if arguments.only else list(ALTERNATIVES)
    facts: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []

    def ask(cell: Mapping[str, Any]) -> Mapping[str, Any]:
        if cell["what"] == "facts":
            return {"facts": task(cell["task"]).facts()}
        return task(cell["task"]).verified(cell["what"], facts[cell["task"]])

    # Cheap ones of all tasks first: a run that is stopped early has every task.
    for names, network in ((FROZEN, YAMNET), (TRAINED, YAMNET), (FROZEN, EFFICIENTAT)):
        for name, (family, limit, backbone) in TASKS.items():
            if backbone != network:
                continue
            about = {"task": name, "family": family, "limit": limit, "backbone": backbone}
            for what in ("facts", *(n for n in names if n in wanted)):
                cell = {**about, "what": what}
                if arguments.table and json.dumps(cell, sort_keys=True) not in cells.done:
                    continue
                found = cells.run([cell], ask)[0]
                if what == "facts":
                    facts[name] = found["facts"]
                else:
                    rows.append(found)
                    print(f"{name}: {found['text']}: {found['score']:.3f}", flush=True)
    write(rows, facts, vars(arguments))


KEPT = ("task", "family", "backbone", "text", "score", "low", "high", "seconds")


def table_rows(
    cells: list[dict[str, Any]], facts: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """What the calibration is made from: results, and the cheap quantities of each."""
    return [
        {
            **{key: cell[key] for key in KEPT},
            "alternative": cell["what"],
            "n_training": facts[cell["task"]]["n_training"],
            **calibration.quantities(
                facts[cell["task"]], cell["what"], facts[cell["task"]]["n_training"]
            ),
        }
        for cell in cells
    ]


def write(
    cells: list[dict[str, Any]], facts: Mapping[str, Mapping[str, Any]], asked: Mapping[str, Any]
) -> None:
    """calibration.json, advise.json and advise.md."""
    rows = table_rows(cells, facts)
    told = {key: value for key, value in asked.items() if key in ("seed", "workers")}
    made = record(told, seed=asked["seed"])
    table = {"rows": rows, "model": calibration.fit(rows), "record": made}
    write_json(calibration.TABLE, json_safe(table))
    found = calibration.check(rows)
    tasks = {
        name: {
            **agreement,
            "case": place(facts[name])["case"],
            **{key: facts[name][key] for key in ("protocol", "n_training", "n_tested")},
            "last_to_best": facts[name]["last_to_best"],
            "facts": facts[name],
        }
        for name, agreement in found["tasks"].items()
    }
    result = {**found, "tasks": tasks, "rows": rows, "record": made}
    folder = ROOT / "docs" / "results"
    write_json(folder / "advise.json", json_safe(result))
    with replaced(folder / "advise.md") as part:
        part.write_text(markdown(result), encoding="utf-8")


def markdown(result: Mapping[str, Any]) -> str:
    """The page."""
    rows, tasks = result["rows"], result["tasks"]
    expected = {(p["task"], p["alternative"]): p for p in result["predictions"]}
    names = [name for name in ALTERNATIVES if any(r["alternative"] == name for r in rows)]
    families = list(dict.fromkeys(row["family"] for row in rows))

    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.2f}"

    lines = [
        "# Advice, predicted and verified",
        "",
        "`python bench/advise.py` writes this page and the table that",
        "[`ossicle advise`](../advise.md) predicts from. Each alternative was run on each task;",
        f"what is predicted for a task comes from the other data sets alone ({len(families)} data",
        "sets; all subsamples of a data set are left out together).",
        "",
        "| | prediction | a fixed order |",
        "|---|---|---|",
    ]
    shown = (
        ("Kendall tau_w of the alternatives, mean over tasks", "mean_tau_w"),
        ("Spearman of the alternatives, mean over tasks", "mean_spearman"),
        ("score lost by the recommended one, mean over tasks", "mean_regret"),
    )
    for words, key in shown:
        lines.append(f"| {words} | {result[key]:.3f} | {result[key + '_fixed']:.3f} |")
    lines += [
        f"| Spearman over all {len(rows)} runs | {result['spearman']:.3f} "
        f"| {result['spearman_fixed']:.3f} |",
        f"| mean absolute error of the score | {result['error']:.3f} | |",
        f"| scores inside their {100 * calibration.LEVEL:.0f} % interval "
        f"| {result['covered']:.2f} | |",
        "",
        "The fixed order ranks the alternatives by their mean on the other data sets and knows",
        "nothing of the task: what a prediction is worth is what it adds to that.",
        "",
        "## Tasks",
        "",
        "| task | case | last to best | tau_w | Spearman | fixed: tau_w | recommended | best "
        "| lost |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, t in tasks.items():
        lines.append(
            f"| {name} | {t['case']} | {t['last_to_best']:.2f} | {number(t['tau_w'])} | "
            f"{number(t['spearman'])} | {number(t['fixed']['tau_w'])} | {t['recommended']} | "
            f"{t['best']} | {t['regret']:.3f} |"
        )
    lines += [
        "",
        "Lost: the best alternative's verified score less the recommended one's, both from the",
        "same few test clips, so that the best is partly lucky. By the intervals below, most of",
        "these orders are uncertain in themselves.",
        "",
        "## Scores",
        "",
        "Verified accuracy (95 % interval over groups), and in brackets the prediction.",
        "",
        f"| task | {' | '.join(names)} |",
        f"|---|{'---|' * len(names)}",
    ]
    for task in tasks:
        cells = []
        for name in names:
            row = next((r for r in rows if (r["task"], r["alternative"]) == (task, name)), None)
            cells.append(
                ""
                if row is None
                else f"{row['score']:.2f} ({row['low']:.2f} to {row['high']:.2f}) "
                f"[{expected[task, name]['expected']:.2f}]"
            )
        lines.append(f"| {task} | {' | '.join(cells)} |")
    lines += ["", "## Alternatives", ""]
    for name in names:
        text = next(r["text"] for r in rows if r["alternative"] == name)
        lines.append(f"- {name}: {ALTERNATIVES[name].words}, such as `{text}`")
    lines += ["", "The number of epochs follows the number of clips.", "", "## Protocols", ""]
    for name, t in tasks.items():
        lines.append(
            f"- {name}: {t['n_training']:.0f} clips learnt from, {t['n_tested']} tested, "
            f"{t['facts']['size']['n_groups']} groups; {t['protocol']}"
        )
    lines += ["", made_with(result["record"])]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
