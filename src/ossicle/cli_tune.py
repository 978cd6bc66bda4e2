"""`ossicle tune`: from which score on a sound is there, learnt from labelled recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ossicle.cli_options import Json, Seed, Workers
from ossicle.console import answer, working
from ossicle.errors import OssicleError


def tune(
    model: Annotated[
        str, typer.Argument(help="A bundle, or a network with published classes, such as yamnet.")
    ],
    recordings: Annotated[
        Path, typer.Argument(help="Recordings with label files beside, or a table of events.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The bundle to write.")],
    window: Annotated[
        str, typer.Option(help="Seconds that a clip model hears at once, to choose from.")
    ] = "0.5,1,2",
    overlap: Annotated[
        float | None, typer.Option(help="Share of a window that the next hears; default .5.")
    ] = None,
    shared: Annotated[
        bool,
        typer.Option(
            "--shared",
            help="Read windows out of shared maps: overlap is nearly free, but a window hears "
            "what is beside it.",
        ),
    ] = False,
    criterion: Annotated[
        str, typer.Option(help="What F1 counts: event, segment or intersection.")
    ] = "event",
    seed: Seed = 0,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Choose windows and thresholds for `detect` on labelled recordings; kept in the new bundle."""
    from ossicle import bundle
    from ossicle.datasets.strong import read_strong
    from ossicle.line import count_workers, open_model
    from ossicle.strong.evaluated import summary
    from ossicle.strong.tuned import tune as choose

    try:
        windows = [float(part) for part in window.split(",")]
    except ValueError:
        raise OssicleError(f"--window {window!r}: seconds, with commas between") from None
    if out.exists() and not bundle.is_bundle(out):
        raise OssicleError(f"{out}: is there already and is no bundle; choose another name")
    network = open_model(model)
    clips = read_strong(recordings)
    with working("listening") as (tick, _):
        tuned = choose(
            network,
            clips,
            windows_s=windows,
            overlap=overlap,
            shared=shared,
            criterion=criterion,
            seed=seed,
            workers=count_workers(workers),
            progress=tick,
        )
    bundle.save(tuned.model, out)
    kept = tuned.model.info["detection"]
    lines = [f"note: {note}" for note in [*clips.notes, *tuned.account["notes"]]]
    lines += [f"skipped {path}: {reason}" for path, reason in tuned.skipped]
    if "window_s" in kept:
        tried = ", ".join(f"{t['window_s']:g} s {t['f1']:.3f}" for t in tuned.account["windows"])
        lines.append(f"windows of {kept['window_s']:g} s every {kept['step_s']:g} s (F1: {tried})")
    macro = tuned.account["macro"]
    if macro["both"]:
        low, high = macro["both"]["interval"] or (None, None)
        within = "" if low is None or high is None else f" ({low:.3f} to {high:.3f})"
        lines.append(
            f"{criterion} F1, rules chosen on some recordings and scored on others: "
            f"{macro['both']['cross_validated']:.3f}{within}; with a threshold of .5 and nothing "
            f"else {macro['both']['default']:.3f}"
        )
    if tuned.tested is not None:
        lines += summary(tuned.tested)
    lines.append(f"model: {out}")
    told = {
        "model": str(out),
        "detection": kept,
        "account": tuned.account,
        "test": None if tuned.tested is None else tuned.tested.scores,
    }
    answer(lines, told, as_json)
