"""`ossicle inspect`: a look inside a trained network or separator, as pictures and numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ossicle.cli_options import Groups, Json, Labels, Random, Seed, Set, Workers
from ossicle.cli_report import command_line
from ossicle.console import answer, counts, progress_bar

if TYPE_CHECKING:
    from ossicle.inspection.exhibit import Inspection


def inspect_bundle(
    source: Annotated[
        str,
        typer.Argument(
            help="A bundle, of a classifier, a detector or a separator; or a backbone's name."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder of the page, pictures and numbers.")
    ] = None,
    clips: Annotated[
        Path | None,
        typer.Option(help="Labelled clips: compare the layers, and draw clouds of them."),
    ] = None,
    mixtures: Annotated[
        Path | None,
        typer.Option(help="Of `ossicle separate mix`: what a separator makes of its mixtures."),
    ] = None,
    split: Annotated[
        str, typer.Option(help="Which part of the mixtures: test, valid, ...")
    ] = "test",
    without: Annotated[
        str | None,
        typer.Option(help="Of clips for a partitioned autoencoder: the label of noise alone."),
    ] = None,
    largest: Annotated[
        int, typer.Option(min=1, max=256, help="Kernels of a layer that are shown, by norm.")
    ] = 32,
    most: Annotated[
        int | None,
        typer.Option(min=8, help="Clips (default 300, drawn at random) or mixtures (40) at most."),
    ] = None,
    groups: Groups = None,
    labels: Labels = None,
    keywords: Set = None,
    random: Random = False,
    seed: Seed = 0,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Look inside: filters, bases, layers as pictures; with clips or mixtures, CKA and clouds."""
    from ossicle.inspection.folder import check_folder, summary, write_inspection
    from ossicle.inspection.look import look
    from ossicle.line import count_workers, pick_model
    from ossicle.record import record

    if out is not None:
        check_folder(out)
    with progress_bar("listening") as tick:
        found = look(
            source,
            lambda name: pick_model(name, random, seed, keywords or []),
            clips=clips,
            mixtures=mixtures,
            split=split,
            without=without,
            largest=largest,
            most=most,
            groups=groups,
            labels=labels,
            random=random,
            seed=seed,
            workers=count_workers(workers),
            progress=tick,
        )
    told = summary(found)
    if out is not None:
        made = record(
            {
                "source": source,
                "clips": clips,
                "mixtures": mixtures,
                "split": split,
                "without": without,
                "largest": largest,
                "most": most,
                "groups": groups,
                "labels": labels,
                "set": keywords,
                "random": random,
            },
            seed=seed,
        )
        with progress_bar("drawing") as tick:
            page = write_inspection(
                found, out, record=made, command=command_line(), progress=counts(tick)
            )
        told["page"] = str(page)
    answer(_lines(found, out), told, as_json)


def _lines(found: Inspection, out: Path | None) -> list[str]:
    lines = [f"{found.title}: " + "; ".join(f"{k} {v}" for k, v in found.facts.items())]
    if out is not None:
        lines += [f"note: {note}" for note in found.notes]
        count = len(found.exhibits)
        return [*lines, f"{count} {'picture' if count == 1 else 'pictures'}: {out / 'index.html'}"]
    lines += _layers(found.numbers.get("layers") or [])
    lines += _weights(found)
    lines += _clip_lines(found)
    lines += [f"{e.title}: {e.caption}" for e in found.exhibits if e.shown or e.section == "Sound"]
    return [*lines, *(f"note: {note}" for note in found.notes)]


def _layers(rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return []
    width = max(len(row["name"]) for row in rows)
    lines = ["layers:"]
    for row in rows:
        bands = f" x {row['bands']} bands" if row["bands"] else ""
        size = "" if row["parameters"] is None else f"  {row['parameters']:,} parameters"
        stride = f"a frame for each {row['stride']} of the front end's"
        lines.append(f"  {row['name']:<{width}}  {row['channels']:>5}{bands}, {stride}{size}")
    return lines


def _weights(found: Inspection) -> list[str]:
    table = next((e.table for e in found.exhibits if e.name == "weights"), None)
    if table is None:
        return []
    width = max(len(name) for name in table["weight"])
    lines = ["weights (effective rank of the most that the shape allows):"]
    for row in table.to_dict("records"):
        lines.append(
            f"  {row['weight']:<{width}}  {row['shape']:>20}  norm {row['norm']:9.3f}  "
            f"rank {row['effective_rank']:7.1f} of {row['rank_bound']}"
        )
    return lines


def _clip_lines(found: Inspection) -> list[str]:
    lines = []
    cka = found.numbers.get("cka")
    if cka:
        near = cka["neighbours"]
        lines.append(
            f"CKA of neighbouring layers: {near['value']:.3f} (95 % interval {near['low']:.3f} to "
            f"{near['high']:.3f}); of the first and the last: {cka['matrix'][0][-1]:.3f}"
        )
    for row in found.numbers.get("clouds") or []:
        lines.append(
            f"  {row['layer']}: nearest clips of other groups with the same label "
            f"{row['agreement']:.3f} ({row['low']:.3f} to {row['high']:.3f}), by chance "
            f"{row['chance']:.3f}"
        )
    return lines
