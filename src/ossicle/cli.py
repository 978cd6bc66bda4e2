"""The command line: one verb a station. Only here is anything read from arguments or printed.

Imports that take time are inside the verbs, so that `ossicle --help` answers at once.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ossicle import __version__
from ossicle.cli_advise import advise
from ossicle.cli_bench import bench
from ossicle.cli_data import data
from ossicle.cli_detect import detect
from ossicle.cli_event_scores import score_events
from ossicle.cli_events import events_app
from ossicle.cli_export import export_xares
from ossicle.cli_finetune import finetune
from ossicle.cli_inspect import inspect_bundle
from ossicle.cli_mix import mix
from ossicle.cli_networks import backbones, export_hear
from ossicle.cli_options import (
    DEFAULT_BACKBONE,
    Backbone,
    Balance,
    Calibration,
    Choose,
    Folds,
    Groups,
    Json,
    Labels,
    Layers,
    NFolds,
    Pooling,
    Probe,
    Random,
    Seed,
    Set,
    Source,
    Workers,
)
from ossicle.cli_picture import picture
from ossicle.cli_predict import predict
from ossicle.cli_pretrain import pretrain
from ossicle.cli_report import command_line, name_of, write_numbers, write_report
from ossicle.cli_separation import denoise, separate
from ossicle.cli_strong import train_detector, train_strong
from ossicle.cli_study_layers import study_layers
from ossicle.cli_study_preprocessing import study_preprocessing
from ossicle.cli_study_training_size import study_training_size
from ossicle.cli_study_transfer import study_transfer
from ossicle.cli_tune import tune
from ossicle.console import answer, fail, progress_bar, working
from ossicle.errors import OssicleError

if TYPE_CHECKING:
    from ossicle.line import Measured

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Transfer learning for audio: labelled recordings in, an honest, working model out.",
)
study = typer.Typer(no_args_is_help=True, help="Experiments of the literature, each one command.")
app.add_typer(study, name="study")
app.add_typer(data, name="data")
app.add_typer(events_app, name="events")
app.add_typer(separate, name="separate")
app.add_typer(denoise, name="denoise")
events_app.command("score")(score_events)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"ossicle {__version__}")
        raise typer.Exit


@app.callback()
def ossicle(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="And stop.")
    ] = False,
) -> None:
    """Transfer learning for audio: labelled recordings in, an honest, working model out."""


@app.command()
def evaluate(
    clips: Source,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder of the report.")] = None,
    folds: Folds = None,
    groups: Groups = None,
    labels: Labels = None,
    backbone: Backbone = DEFAULT_BACKBONE,
    keywords: Set = None,
    random: Random = False,
    layers: Layers = "all",
    pooling: Pooling = None,
    probe: Probe = "ridge",
    choose_layers: Choose = False,
    balance: Balance = False,
    calibration: Calibration = "temperature",
    n_folds: NFolds = 5,
    seed: Seed = 0,
    workers: Workers = None,
    quick: Annotated[bool, typer.Option("--quick", help="The score alone, no report.")] = False,
    as_json: Json = False,
) -> None:
    """How well would it do? Cross-validated, grouped, with intervals and a report."""
    from ossicle.transfer.summary import brief, summary

    arguments = _effective(locals())
    result, source, _, _ = _evaluated(arguments)
    lines = list(summary(result))
    folder = out or Path(f"{name_of(clips)}-report")
    if not quick:
        lines.append(f"report: {write_report(result, folder, source)}")
    elif out is not None:
        lines.append(f"numbers: {write_numbers(result, folder)}")
    answer(lines, brief(result), as_json)


@app.command()
def train(
    context: typer.Context,
    clips: Source,
    out: Annotated[Path, typer.Option("-o", "--out", help="The bundle to write.")],
    folds: Folds = None,
    groups: Groups = None,
    labels: Labels = None,
    backbone: Backbone = DEFAULT_BACKBONE,
    keywords: Set = None,
    random: Random = False,
    layers: Layers = "all",
    pooling: Pooling = None,
    probe: Probe = "ridge",
    choose_layers: Choose = False,
    balance: Balance = False,
    calibration: Calibration = "temperature",
    n_folds: NFolds = 5,
    seed: Seed = 0,
    workers: Workers = None,
    quick: Annotated[bool, typer.Option("--quick", help="The score alone, no report.")] = False,
    strong: Annotated[
        bool,
        typer.Option("--strong", help="Labels have times: a detector, as `train-detector` makes."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure by cross-validation, then fit on all clips: the model to take away."""
    if strong:
        foreign = {
            "--folds": folds is not None,
            "--labels": labels is not None,
            "--random": random,
            "--layers": layers != "all",
            "--pooling": pooling is not None,
            "--probe": probe != "ridge",
            "--choose-layers": choose_layers,
            "--balance": balance,
            "--calibration": calibration != "temperature",
            "--n-folds": n_folds != 5,
            "--quick": quick,
        }
        for option in (name for name, given in foreign.items() if given):
            fail(f"{option} is not for --strong: see `ossicle train-detector --help`")
        settings: dict[str, Any] = {"seed": seed}
        said = context.get_parameter_source("backbone")
        if said is not None and said.name != "DEFAULT":  # detectors have a default of their own
            settings["backbone"] = backbone
        return train_strong(
            clips, out, settings, groups=groups, keywords=keywords, workers=workers, as_json=as_json
        )
    from ossicle import bundle
    from ossicle.line import probe_settings
    from ossicle.transfer.fit import fit_model
    from ossicle.transfer.summary import brief, summary

    arguments = _effective(locals())
    if out.exists() and not bundle.is_bundle(out):
        raise OssicleError(f"{out}: is there already and is not a bundle; choose another name")
    result, source, model, table = _evaluated(arguments, to_take_away=True)
    settings = probe_settings(balance)
    trained = fit_model(
        model,
        table,
        source,
        probe=probe,
        probe_settings=settings,
        calibration=calibration,
        choose=choose_layers,
        seed=seed,
    )
    trained.info.update(
        score={"metric": result["metric"], **result["score"]},
        protocol=result["protocol"]["text"],
        created=result["created"],
    )
    bundle.save(trained, out)
    lines = [*summary(result), f"model: {out}"]
    if not quick:
        folder = out.with_name(f"{out.stem}-report")
        lines.append(f"report: {write_report(result, folder, source)}")
    answer(lines, {**brief(result), "model": str(out)}, as_json)


app.command()(finetune)
app.command()(predict)
app.command()(detect)
app.command()(tune)
app.command()(mix)
app.command()(picture)
app.command()(train_detector)
app.command()(advise)
app.command("inspect")(inspect_bundle)


@app.command()
def embed(
    clips: Source,
    out: Annotated[Path, typer.Option("-o", "--out", help="The .parquet file to write.")],
    backbone: Backbone = DEFAULT_BACKBONE,
    keywords: Set = None,
    random: Random = False,
    layers: Layers = "all",
    pooling: Pooling = None,
    seed: Seed = 0,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Write the pooled features of every clip; a stopped run goes on where it stopped."""
    from ossicle import line
    from ossicle.embed import embed as write

    source, model = line.read_any(clips), line.pick_model(backbone, random, seed, keywords or ())
    with progress_bar("embedding") as tick:
        done = write(
            source,
            model,
            out,
            layers=layers,
            poolings=line.split_poolings(pooling),
            workers=line.count_workers(workers),
            progress=tick,
        )
    lines = [f"skipped {item['path']}: {item['reason']}" for item in done.skipped]
    lines.append(f"{done.n_clips} clips, {done.seconds_read:.0f} s of audio: {out}")
    answer(lines, {**done._asdict(), "path": str(out), "out": str(out)}, as_json)


@app.command()
def audit(
    clips: Source,
    folds: Folds = None,
    groups: Groups = None,
    labels: Labels = None,
    backbone: Backbone = DEFAULT_BACKBONE,
    near: Annotated[bool, typer.Option(help="Also near-duplicates, by the backbone.")] = True,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Find duplicates, near-duplicates, leaks across splits, contradicting labels, broken files."""
    import numpy as np

    from ossicle.datasets.clips import read_clips
    from ossicle.features import extract
    from ossicle.leaks import audit as look
    from ossicle.leaks_text import audit_lines
    from ossicle.line import count_workers, pick_model

    source = read_clips(clips, folds=folds, groups=groups, labels=labels)
    lines, embeddings = list(source.notes), None
    if near:
        model = pick_model(backbone)
        with progress_bar("embedding") as tick:
            table = extract(
                model, source, layers="last", workers=count_workers(workers), progress=tick
            )
        known = table.matrix()
        embeddings = np.full((len(source), known.shape[1]), np.nan, np.float32)
        embeddings[table.index] = known
    report = look(source, embeddings=embeddings)
    lines += audit_lines(report, source.root)
    answer(lines, report, as_json)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="Report folder, or its report.json.")],
    second: Annotated[Path, typer.Argument(help="The same of another run on the same clips.")],
    as_json: Json = False,
) -> None:
    """Is one run better than another? The paired difference, with its interval."""
    from ossicle.line import compare as difference
    from ossicle.line import compare_lines

    result = difference(first, second)
    answer(compare_lines(result, [str(first), str(second)]), result, as_json)


app.command()(pretrain)
app.command()(backbones)
app.command("export-hear")(export_hear)
app.command("export-xares")(export_xares)
app.command()(bench)


study.command("layers")(study_layers)
study.command("preprocessing")(study_preprocessing)
study.command("training-size")(study_training_size)
study.command("transfer")(study_transfer)


def main() -> None:
    """Entry point: a user's mistake is one line and exit code 2."""
    # Threads inside a product of matrices fight with the workers for the same cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        # Typer turns Ctrl-C into a returned exit code.
        code = app(standalone_mode=False)
        if code == 130:
            raise KeyboardInterrupt
        sys.exit(code)
    except OssicleError as error:
        fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("interrupted", err=True)
        sys.exit(130)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except Exception as error:
        # Errors of the argument parser; anything else is ours and keeps its traceback.
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):
            if not error.format_message():
                sys.exit(2)
            context = getattr(error, "ctx", None)
            command = context.command_path if context is not None else "ossicle"
            fail(f"{error.format_message()} (see `{command} --help`)")
        raise


def _effective(values: dict[str, Any]) -> dict[str, Any]:
    """The arguments that count, for the record."""
    hidden = ("context", "as_json", "brief", "summary", "bundle", "fit_model", "probe_settings")
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in values.items()
        if name not in hidden
    }


def _evaluated(arguments: dict[str, Any], to_take_away: bool = False) -> Measured:
    """An evaluation with a verb's arguments, shown as it goes."""
    from ossicle.line import measure

    with working("embedding") as (tick, tell):
        measured = measure(arguments, to_take_away=to_take_away, progress=tick, tell=tell)
    measured.result["command"] = command_line()
    return measured


if __name__ == "__main__":
    main()
