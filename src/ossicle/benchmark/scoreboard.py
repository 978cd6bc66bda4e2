"""The scoreboard: Markdown, CSV, JSON, figures, and one HTML file that fetches nothing."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from ossicle.benchmark.critical_difference import ranks
from ossicle.benchmark.scoreboard_figures import draw_all
from ossicle.benchmark.task import DOMAINS
from ossicle.record import replaced
from ossicle.study.outputs import DPI, made_with, write_study


def write_scoreboard(
    folder: Path,
    name: str,
    board: Mapping[str, Any],
    record: Mapping[str, Any],
    command: str,
    missing: Mapping[str, str] | None = None,
    text: Sequence[str] = (),
) -> list[Path]:
    """Write NAME.md, .csv, .json, .html and the figures, each whole or not at all.

    Args:
        folder: made where it is missing.
        name: of the files.
        board: see ``ossicle.benchmark.suite_scores.collect``.
        record: what it was made with.
        command: that makes it again.
        missing: tasks that were not run, and what to do.
        text: what was found, paragraphs to stand first.

    Returns:
        The files.
    """
    found = _ranked(board)
    tables = tables_of(board, found)
    paragraphs = [*text, *texts_of(board, found, missing or {})]
    figures = draw_all(board, found)
    result = {**board, "ranks": found, "missing": dict(missing or {})}
    files = write_study(
        folder,
        name,
        title=f"Benchmark: the {board['suite']} suite",
        text=paragraphs,
        tables=tables,
        figures=figures,
        result=result,
        record=record,
        command=command,
    )
    pictures = {}
    for heading, figure in figures.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
        pictures[heading] = base64.b64encode(buffer.getvalue()).decode()
    source = resources.files("ossicle.benchmark").joinpath("scoreboard.html").read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(source).render(
        title=f"The {board['suite']} suite",
        paragraphs=paragraphs,
        tables={heading: _cells(table) for heading, table in tables.items()},
        pictures=pictures,
        command=command,
        made=made_with(record),
    )
    path = folder / f"{name}.html"
    with replaced(path) as part:
        part.write_text(page, encoding="utf-8")
    return [*files, path]


def lines_of(board: Mapping[str, Any]) -> list[str]:
    """The scoreboard for a terminal: a line a row."""
    width = max(len(row["name"]) for row in board["rows"])
    heads = [domain[:11].rjust(13) for domain in DOMAINS]
    lines = [f"{'':{width}}  {'mean':>21}{''.join(heads)}  tasks"]
    for row in board["rows"]:
        domains = [_plain(row["domains"][domain]).rjust(13) for domain in DOMAINS]
        count = f"{len(row['scores'])} of {len(board['tasks'])}"
        lines.append(
            f"{row['name']:{width}}  {_interval(row['mean']):>21}{''.join(domains)}  {count}"
        )
    return lines


def tables_of(board: Mapping[str, Any], found: Mapping[str, Any] | None) -> dict[str, pd.DataFrame]:
    """Heading -> table; the first is the scoreboard."""
    complete = [row for row in board["rows"] if row["mean"] is not None]
    rank = (
        {}
        if found is None
        else {row["row"]: value for row, value in zip(complete, found["mean_ranks"], strict=True)}
    )
    several = len({row["protocol"] for row in board["rows"]}) > 1
    scores, details = [], []
    for row in board["rows"]:
        shown: dict[str, Any] = {"row": row["name"] + (" *" if row["heard"] else "")}
        if several:
            shown["protocol"] = row["protocol"]
        shown["mean"] = _interval(row["mean"])
        for domain in DOMAINS:
            if any(task["domain"] == domain for task in board["tasks"]):
                shown[domain] = _interval(row["domains"][domain])
        if rank:
            shown["mean rank"] = f"{rank[row['row']]:.2f}" if row["row"] in rank else "-"
        for task in board["tasks"]:
            shown[task["name"]] = _plain(row["scores"].get(task["name"]))
        scores.append(shown)
        details.append(
            {
                "row": shown["row"],
                "strategy": row["strategy"],
                "protocol": row["protocol"],
                "input": row["input"],
                "parameters": f"{row['parameters']:,}",
                "times real time": f"{row['times_real_time']:,.0f}",
                "weights": row["weights"],
                "licence": row["licence"],
                "clips": row["clip_policy"],
            }
        )
    tables = {"Scores": pd.DataFrame(scores)}
    names = {row["row"]: row["name"] for row in board["rows"]}
    if board["differences"]:
        tables["Differences"] = pd.DataFrame(_difference(d, names) for d in _ordered(board))
    tables["Tasks"] = pd.DataFrame(_task(task, board["rows"]) for task in board["tasks"])
    tables["Intervals"] = pd.DataFrame(
        {
            "row": row["name"],
            **{t["name"]: _interval(row["scores"].get(t["name"])) for t in board["tasks"]},
        }
        for row in board["rows"]
    )
    tables["Rows"] = pd.DataFrame(details)
    return tables


def texts_of(
    board: Mapping[str, Any], found: Mapping[str, Any] | None, missing: Mapping[str, str]
) -> list[str]:
    """What the tables mean, a paragraph each."""
    protocols = {row["protocol"]: row["how"] for row in board["rows"]}
    texts = [
        " ".join(["Every network is frozen.", *(f"{n}: {how}." for n, how in protocols.items())]),
        "Scores are each task's own metric (accuracy, or mean average precision); the mean is "
        f"over tasks. Intervals ({100 * board['confidence']:g} %) are over groups of clips, and "
        "seeds where there are several, resampled alike for all rows; they are of these tasks, not "
        "of tasks at large. Differences are paired.",
    ]
    if found is not None:
        same = "some rows differ" if found["friedman_p"] < found["alpha"] else "no row differs"
        texts.append(
            f"Over {found['n_tasks']} tasks {same} (Friedman's test, F form: "
            f"p {_p(found['friedman_p'])}). Nemenyi's critical difference of mean ranks is "
            f"{found['critical_difference']:.2f}; the bars of the picture come from signed-rank "
            "tests with Holm's correction."
        )
    marked = {row["name"]: row["heard"] for row in board["rows"] if row["heard"]}
    if marked:
        said = "; ".join(f"{name}: {what}" for name, what in marked.items())
        texts.append(f"* was trained on audio of the suite: {said}.")
    partial = [row["name"] for row in board["rows"] if row["mean"] is None]
    if partial:
        texts.append(f"Without all tasks, so without a mean: {', '.join(partial)}.")
    for name, why in missing.items():
        texts.append(f"Not run: {name}: {why}.")
    return texts


def _ranked(board: Mapping[str, Any]) -> dict[str, Any] | None:
    complete = [row for row in board["rows"] if row["mean"] is not None]
    if len(complete) < 3 or len(board["tasks"]) < 3:
        return None
    scores = [[row["scores"][t["name"]]["value"] for t in board["tasks"]] for row in complete]
    return ranks(np.array(scores))


def _ordered(board: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Each pair with the better one first, largest difference first."""
    turned = [
        d
        if d["value"] >= 0
        else {
            **d,
            "a": d["b"],
            "b": d["a"],
            "value": -d["value"],
            "low": -d["high"],
            "high": -d["low"],
        }
        for d in board["differences"]
    ]
    return sorted(turned, key=lambda d: -d["value"])


def _difference(d: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {
        "better": names[d["a"]],
        "than": names[d["b"]],
        "by, points": f"{100 * d['value']:+.1f}",
        "interval": f"{100 * d['low']:+.1f} to {100 * d['high']:+.1f}",
        "beyond chance": "yes" if d["low"] > 0 else "no",
    }


def _task(task: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    scores = [row["scores"][task["name"]] for row in rows if task["name"] in row["scores"]]
    used = [score["seconds_used"] for score in scores]
    parts = task.get("parts")
    return {
        "task": task["name"],
        "domain": task["domain"],
        "what": task["title"],
        "metric": task["metric"],
        "clips": f"{task['n_clips']:,}",
        "tested": f"{task['n_tested']:,}",
        "classes": len(task["classes"]),
        "groups": f"{task['n_groups']:,}",
        "split": " / ".join(f"{n:,}" for n in parts) if parts else f"{task['n_folds']} folds",
        "chance": f"{task['chance']:.3f}",
        "minutes": f"{max(used) / 60:.0f}" if used and used[0] is not None else "",
        "unheard clips": max((score["skipped"] or 0 for score in scores), default=0),
        "could give it away": task["caveat"],
        "licence": task["licence"],
    }


def _interval(score: Mapping[str, Any] | None) -> str:
    if score is None:
        return "-"
    return f"{score['value']:.3f} ({score['low']:.3f}-{score['high']:.3f})"


def _plain(score: Mapping[str, Any] | None) -> str:
    return "-" if score is None else f"{score['value']:.3f}"


def _p(p: float) -> str:
    return "below .001" if p < 0.001 else f"{p:.3f}"


def _cells(table: pd.DataFrame) -> dict[str, Any]:
    return {"columns": list(table.columns), "rows": table.fillna("").to_numpy(object).tolist()}
