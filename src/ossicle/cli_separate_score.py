"""`ossicle separate score`: systems on mixtures whose sources are known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ossicle.cli_options import Json, Seed, Workers
from ossicle.console import answer, progress_bar
from ossicle.errors import DataError

if TYPE_CHECKING:
    from ossicle.separate.score_table import Scores
    from ossicle.separators.base import Separator

# What is left out is named on the terminal so many times; the file written has all.
_TOLD = 10
# What is shown, under which title, and whether with its interval, which --json has for all.
_COLUMNS = (
    ("si_sdr_improvement", "SI-SDR improvement", True),
    ("si_sdr", "SI-SDR", False),
    ("sdr_improvement", "SDR improvement", True),
    ("sir", "SIR", False),
    ("sar", "SAR", False),
    ("log_spectral_distance", "LSD", False),
)


def score(
    bundles: Annotated[
        list[Path] | None,
        typer.Argument(help="Bundles of separators; none: only what bounds them."),
    ] = None,
    mixtures: Annotated[
        Path, typer.Argument(help="Folder of mixtures with their sources.", show_default=False)
    ] = ...,  # type: ignore[assignment]
    part: Annotated[
        str, typer.Option(help="Which mixtures: test, unseen, valid, train; with commas.")
    ] = "test",
    sources: Annotated[
        int | None, typer.Option(help="Sources in each mixture, to be checked.")
    ] = None,
    ideal: Annotated[
        str, typer.Option(help="Ideal masks beside: of binary, ratio, wiener, phase; or none.")
    ] = "binary,ratio",
    per_source: Annotated[
        bool, typer.Option("--per-source", help="Tell each source's scores, too.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Every mixture's scores, as .csv or .json.")
    ] = None,
    workers: Workers = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Score separators: SI-SDR, SDR, SIR, SAR, beside the mixture as it is and ideal masks."""
    from ossicle.datasets.mixtures import read_mixtures
    from ossicle.line import count_workers
    from ossicle.record import json_safe, record, write_json
    from ossicle.separate.score import score as run
    from ossicle.separate.score_table import joined

    if out is not None and out.suffix not in (".csv", ".json"):
        raise DataError(f"{out}: scores are written as .csv or .json")
    arguments = {
        "bundles": bundles or [],
        "mixtures": mixtures,
        "part": part,
        "sources": sources,
        "ideal": ideal,
        "seed": seed,
    }
    table = read_mixtures(mixtures)
    systems = _systems(bundles or [])
    kinds = [] if ideal == "none" else [kind.strip() for kind in ideal.split(",")]
    lines: list[str] = [f"note: {note}" for note in table.notes]
    value: dict[str, Any] = {}
    parts: list[Scores] = []
    for name in dict.fromkeys(one.strip() for one in part.split(",")):
        chosen = table.part(name, required=True)
        with progress_bar(f"scoring {name}") as tick:
            scores = run(
                systems,
                chosen,
                n_sources=sources,
                ideal=kinds,
                workers=count_workers(workers),
                progress=tick,
            )
        parts.append(scores)
        value[name] = _value(scores, list(systems), seed)
        lines += _lines(name, value[name], len(chosen), table.n_sources, scores, per_source)
    lines += [f"note: {note}" for note in joined(parts).notes]
    if out is not None and out.suffix == ".json":
        told = {
            name: one.to_dict(random_state=seed) for name, one in zip(value, parts, strict=True)
        }
        write_json(out, json_safe({"record": record(arguments, seed=seed), "parts": told}))
    elif out is not None:
        joined(parts).save(out)
    if out is not None:
        lines.append(f"every mixture's scores: {out}")
    answer(lines, {"parts": value}, as_json)


def _systems(bundles: list[Path]) -> dict[str, Separator]:
    """Separators by the name of their bundle; by its path where two have one name."""
    from ossicle.bundle import load_separator

    names = [bundle.resolve().name for bundle in bundles]
    systems = {}
    for bundle, name in zip(bundles, names, strict=True):
        systems[name if names.count(name) == 1 else str(bundle)] = load_separator(bundle)
    return systems


def _value(scores: Scores, systems: list[str], seed: int) -> dict[str, Any]:
    from itertools import pairwise

    value: dict[str, Any] = {"summary": scores.summary(random_state=seed)}
    numbers = sorted(int(number) for number in scores.per_source["source"].unique())
    value["per_source"] = {
        str(number): scores.summary(number, random_state=seed) for number in numbers
    }
    known = {row["system"]: row["si_sdr_improvement"]["value"] for row in value["summary"]}
    ranked = sorted(
        (name for name in systems if known[name] is not None), key=lambda name: -known[name]
    )
    value["differences"] = [
        scores.difference(one, other, random_state=seed) for one, other in pairwise(ranked)
    ]
    value["left_out"] = scores.left_out
    return value


def _lines(
    part: str,
    value: dict[str, Any],
    n_mixtures: int,
    n_sources: int,
    scores: Scores,
    per_source: bool,
) -> list[str]:
    from ossicle.report.words import plural

    first = value["summary"][0]
    lines = [
        f"{part}: {plural(n_mixtures, 'mixture')} of {n_sources} sources, "
        f"{plural(first['groups'], 'group')}; means in dB, with 95 % intervals over groups"
    ]
    lines += _table(value["summary"])
    if per_source:
        names = scores.per_source.drop_duplicates("source").set_index("source")["name"]
        for number, rows in value["per_source"].items():
            name = str(names[int(number)])
            alike = scores.per_source["name"][scores.per_source["source"] == int(number)].nunique()
            lines.append(f"source {number}" + (f", {name}" if name and alike == 1 else ""))
            lines += _table(rows)
    for gained in value["differences"]:
        lines.append(_difference(gained))
    for entry in value["left_out"][:_TOLD]:
        of = f", {entry['system']}" if entry["system"] else ""
        source = f", source {entry['source']}" if entry["source"] else ""
        lines.append(f"left out: {entry['mixture']}{of}{source}: {entry['reason']}")
    if len(value["left_out"]) > _TOLD:
        lines.append(f"and {len(value['left_out']) - _TOLD} more left out")
    for row in value["summary"]:
        if row["limited"]:
            lines.append(
                f"{row['system']}: {plural(row['limited'], 'source')} silent or perfect, "
                "counted as 100 dB"
            )
    return lines


def _table(rows: list[dict[str, Any]]) -> list[str]:
    """Systems below one another, a column a score."""
    cells = [["", *(title for _, title, _ in _COLUMNS), "x real time"]]
    for row in rows:
        speed = row["times_real_time"]
        told = "" if speed is None else f"{speed:.3g}" if speed < 1000 else f"{speed:.0f}"
        shown = (_cell(row[name], interval) for name, _, interval in _COLUMNS)
        cells.append([row["system"], *shown, told])
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return [
        "  ".join(
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def _cell(score: dict[str, float | None], interval: bool) -> str:
    if score["value"] is None:
        return "-"
    text = _db(score["value"])
    if not interval or score["low"] is None or score["high"] is None:
        return text
    return f"{text} ({_db(score['low'])} to {_db(score['high'])})"


def _difference(gained: dict[str, Any]) -> str:
    text = f"{gained['one']} above {gained['other']} by {gained['difference']:.2f} dB"
    if gained["low"] is not None:
        text += f" ({gained['low']:.2f} to {gained['high']:.2f})"
    if gained["p_value"] is not None:
        text += f", p = {gained['p_value']:.2g}"
    return f"{text} in SI-SDR improvement, mixture by mixture"


def _db(value: float) -> str:
    # What rounds to nothing has no sign.
    return f"{value + 0.0:.1f}" if abs(value) >= 0.05 else "0.0"
