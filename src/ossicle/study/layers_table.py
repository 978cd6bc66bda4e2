"""The layers study as a page: a table, the comparison, the search, what it was made with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

# The authors' tasks: only of their scores is it known how they were made.
AUTHORS_TASKS = ("ballroom_extended.npz", "gtzan_genre.npz", "gtzan_speechmusic.npz")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _points(value: float | None) -> str:
    return "not known" if value is None else f"{100 * value:.2f} points"


def layers_frame(result: Mapping[str, Any]) -> pd.DataFrame:
    """A row for each set of features: the scores that are known of it."""
    search, published = result["search"]["scores"], result["published"]
    columns: dict[str, Mapping[str, float]] = {"published": published}
    if "scores" in result:
        whole = result["with_standardising"]
        columns["without_standardising"] = {**result["scores"], **result["baselines"]}
        columns["whole_grid"] = {**whole["scores"], **whole["baselines"]}
    columns["fast_search"] = search
    names = list(dict.fromkeys(name for scores in columns.values() for name in scores))
    rows = [{"layers": n, **{c: scores.get(n) for c, scores in columns.items()}} for n in names]
    return pd.DataFrame(rows)


def layers_table(result: Mapping[str, Any]) -> str:
    """Markdown of what `layers_study` returned."""
    search, record, published = result["search"], result["record"], result["published"]
    used = record["arguments"]
    source = used["source"]
    lines = [f"# Layers of {source}", ""]
    lines.append(
        f"{used['clips']} clips, {used['n_folds']} folds; "
        + ", ".join(f"{name}: {dim} dims" for name, dim in used["dims"].items())
        + "."
    )
    lines += ["", "```", _command(used), "```", ""]
    if "scores" in result:
        whole = result["with_standardising"]
        rows = {**whole["scores"], **whole["baselines"]}
        bare = {**result["scores"], **result["baselines"]}
        lines += [
            "Mean accuracy over the folds of the best support vector machine of the grid, not "
            "nested: without standardising, and the whole grid, with it on and off.",
            "",
            "| layers | published | without standardising | whole grid | fast search |",
            "|---|---|---|---|---|",
        ]
        for name in sorted(rows, key=lambda name: -rows[name]):
            cells = (published.get(name), bare[name], rows[name], search["scores"].get(name))
            lines.append(f"| {name} | " + " | ".join(_number(c) for c in cells) + " |")
    else:
        lines += ["| layers | fast search | published |", "|---|---|---|"]
        scores = search["scores"]
        for name in sorted(scores, key=lambda name: -scores[name]):
            lines.append(f"| {name} | {_number(scores[name])} | {_number(published.get(name))} |")
    lines.append("")
    if result.get("compared", 0) >= 3:
        lines += ["## Against the published scores", ""]
        for title, part in (
            ("without standardising", result),
            ("whole grid", result["with_standardising"]),
        ):
            correlation = _number(part["rank_correlation"]) or "not defined"
            lines.append(
                f"- {title}: {part['compared']} sets of features, median difference "
                f"{_points(part['median_difference'])}, largest "
                f"{_points(part['largest_difference'])}, rank correlation {correlation}."
            )
        lines.append("")
        if source in AUTHORS_TASKS:
            lines += [
                "The published scores were made without standardising: the authors' "
                "`OptionalStandardScaler` decides in its constructor, and `GridSearchCV` switches "
                "it on afterwards, by `set_params`, so that it never standardised.",
                "",
            ]
    lines += ["## The fast search", ""]
    lines.append(
        f"All {len(search['scores'])} subsets by kernel ridge on sums of the layers' distances, "
        f"folds held out in closed form: chose **{search['layers']}** in {search['cpu_s']:.2f} s "
        "of one core."
    )
    if "grid_cpu_s" in search:
        lines.append(
            f"The grid took {search['grid_cpu_s']:.0f} s of one core for the same subsets: "
            f"{search['times_faster']:.0f} times as long."
        )
    if search.get("judged_by"):
        whose = "the whole grid's" if search["judged_by"] == "grid" else "the published"
        lines.append(
            f"By {whose} scores the best set is {search['best_layers']} "
            f"({_number(search['best_score'])}); the chosen one is "
            f"{_points(search['shortfall'])} below it."
        )
    versions = ", ".join(f"{k} {v}" for k, v in record["versions"].items())
    platform = record["platform"]
    lines += [
        "",
        "## Made with",
        "",
        f"ossicle {record['ossicle']}, {record['python']}, {versions}; {platform['cpu']}, "
        f"{used['n_jobs']} process(es) of one thread; {record['time']}. Nothing is drawn at "
        "random for up to 2,048 clips; above, landmarks are drawn with seed 0.",
    ]
    return "\n".join(lines) + "\n"


def _command(used: Mapping[str, Any]) -> str:
    options = "" if used["grid"] else " --no-grid"
    options += "" if used["n_folds"] == 10 else f" --folds {used['n_folds']}"
    return f"ossicle study layers {used['source']}{options} -o OUT.json"
