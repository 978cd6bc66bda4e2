"""`ossicle separate train`: mixtures with their stems in, a bundle that separates out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ossicle.cli_options import Json, Seed
from ossicle.console import answer, say, steps_of
from ossicle.errors import OssicleError


def train(
    mixtures: Annotated[
        Path, typer.Argument(help="Folder of `ossicle separate mix`, or mix/, s1/, s2/ of others.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The bundle to write.")],
    system: Annotated[
        str,
        typer.Option(
            help="deep_clustering, nmf, unfolded_nmf, nonnegative_autoencoder or end_to_end; "
            "default: deep_clustering where sources are alike, else unfolded_nmf."
        ),
    ] = "",
    options: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Of the system: steps=8000, hidden=600."),
    ] = None,
    listing: Annotated[
        bool, typer.Option("--settings", help="Say what can be set, and stop.")
    ] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train a system on mixtures whose stems are known; a stopped run goes on."""
    from dataclasses import fields

    from ossicle import bundle
    from ossicle.datasets.mixtures import read_mixtures
    from ossicle.keywords import parse_keywords
    from ossicle.separate.systems import SYSTEMS, fit_system, settings_of
    from ossicle.separate.training import training_folder

    if system and system not in SYSTEMS:
        raise OssicleError(f"unknown system {system!r}: choose one of {', '.join(SYSTEMS)}")
    table = read_mixtures(mixtures)
    system = system or ("unfolded_nmf" if table.sources else "deep_clustering")
    kind = settings_of(system)
    if listing:
        found = {field.name: field.default for field in fields(kind)}
        answer([f"{name}={_text(value)}" for name, value in found.items()], found, as_json)
        return
    keywords = parse_keywords(options or [], kind, system)
    settings = kind(**{"seed": seed, **keywords})
    if out.exists() and not bundle.is_bundle(out):
        raise OssicleError(f"{out}: is there already and is not a bundle; choose another name")
    say([f"note: {note}" for note in table.notes])
    folder = training_folder(out)
    try:
        with steps_of(f"training {system}") as progress:
            separator = fit_system(system, table, settings, folder=folder, progress=progress)
    except KeyboardInterrupt:
        say([f"stopped; the same command goes on from {folder}"])
        raise
    bundle.save(separator, out)
    info = separator.info
    lines = [
        f"{system}: {SYSTEMS[system].does}; {separator.num_parameters:,} parameters, "
        f"{info['trained_on']['n_train']} mixtures to learn from",
        *_chosen(info),
        f"how well it does on others: ossicle separate score {out} {mixtures}",
        f"model: {out}",
    ]
    told = {"out": str(out), "parameters": separator.num_parameters, **info}
    answer(lines, told, as_json)


def _chosen(info: dict[str, object]) -> list[str]:
    chosen = info.get("chosen")
    if not isinstance(chosen, dict):
        return []
    return [
        f"chosen on the part valid: {name} {_text(value)}"
        for name, value in chosen.items()
        if isinstance(value, str | int | float | bool)
    ]


def _text(value: object) -> str:
    if isinstance(value, tuple | list):
        return ",".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
