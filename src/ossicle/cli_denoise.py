"""`ossicle denoise train|run|score`: noise out of recordings, without ever hearing a clean one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ossicle.cli_options import Groups, Json, Seed, Workers
from ossicle.cli_report import command_line, name_of
from ossicle.console import answer, progress_bar, say, steps_of, working
from ossicle.errors import DataError, OssicleError

if TYPE_CHECKING:
    from ossicle.separators.base import Separator

GATE = "gate"
_ARGUMENTS = ("bundle", "recordings", "floor_db", "keep_background", "output", "kind")


def train(
    clips: Annotated[
        Path,
        typer.Argument(help="Noisy recordings; with --noise-label a labelled clips table."),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The bundle to write.")],
    noise: Annotated[
        Path | None, typer.Option(help="Recordings of noise alone: a folder, file or manifest.")
    ] = None,
    noise_label: Annotated[
        str | None, typer.Option(help="Classes of CLIPS that are noise alone, with commas.")
    ] = None,
    system: Annotated[
        str, typer.Option(help="partitioned_autoencoder or spectral_gate.")
    ] = "partitioned_autoencoder",
    form: Annotated[
        str, typer.Option(help="Of the autoencoder: bands, or paper (the authors' network).")
    ] = "bands",
    steps: Annotated[int | None, typer.Option(help="Batches to learn from.")] = None,
    penalty: Annotated[
        float | None, typer.Option(help="Lambda: on foreground latents of noise alone.")
    ] = None,
    remix: Annotated[
        float | None, typer.Option(help="Weight of learning from added noise; 0: as the paper.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of Adam, at its peak.")] = None,
    output: Annotated[str, typer.Option(help="mask, decoded, or auto: what does better.")] = "auto",
    options: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Other settings: teacher=none, rounds=3."),
    ] = None,
    sample_rate: Annotated[int, typer.Option(help="Hz that the model works at.")] = 22_050,
    validation: Annotated[
        float, typer.Option(help="Share of the groups that is kept to choose by.")
    ] = 0.2,
    groups: Groups = None,
    seed: Seed = 0,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Train a denoiser on noisy recordings and noise alone; a stopped run goes on."""
    from dataclasses import replace

    from ossicle import bundle
    from ossicle.denoise.data import read_recordings
    from ossicle.denoise.fit import FITS
    from ossicle.denoise.settings import PAPER, AutoencoderSettings, GateSettings
    from ossicle.keywords import parse_keywords
    from ossicle.line import count_workers
    from ossicle.pretrain.run import training_folder

    if system not in FITS:
        raise OssicleError(f"unknown system {system!r}: choose one of {', '.join(FITS)}")
    own: dict[str, Any] = {
        "steps": steps,
        "penalty": penalty,
        "remix": remix,
        "learning_rate": learning_rate,
    }
    given = {name: value for name, value in own.items() if value is not None}
    further = parse_keywords(options or [], FITS[system][0], system)
    settings: AutoencoderSettings | GateSettings
    if system == "spectral_gate":
        if given:
            told = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise OssicleError(f"a gate has no {told}")
        settings = replace(GateSettings(sample_rate=sample_rate, seed=seed), **further).check()
    else:
        base = PAPER if form == "paper" else AutoencoderSettings(form=form)
        settings = replace(
            base, output=output, sample_rate=sample_rate, seed=seed, **{**given, **further}
        ).check()
    labels = [label.strip() for label in (noise_label or "").split(",") if label.strip()]
    recordings = read_recordings(
        clips, noise=noise, noise_labels=labels, groups=groups, validation=validation, seed=seed
    )
    say([f"note: {note}" for note in recordings.notes])
    folder = training_folder(out)
    try:
        with progress_bar("decoding") as decoding, steps_of("training") as progress:
            separator = FITS[system][1](
                recordings,
                settings,
                folder=folder,
                workers=count_workers(workers),
                decoding=decoding,
                progress=progress,
            )
    except KeyboardInterrupt:
        say([f"stopped; the same command goes on from {folder}"])
        raise
    out.parent.mkdir(parents=True, exist_ok=True)
    bundle.save(separator, out)
    info = separator.info
    chosen = ", ".join(f"{name} {value}" for name, value in info["chosen"].items())
    about = info["trained_on"]
    lines = [
        f"{system} on {about['noisy_recordings']} noisy recordings and "
        f"{about['noise_recordings']} of noise alone, {info['seconds']:.0f} s",
        f"chosen on {about['kept_to_choose_by']} others, without clean ones: {chosen}",
        f"model: {out}",
    ]
    answer(lines, {"out": str(out), **info}, as_json)


def run(
    bundle: Annotated[
        str, typer.Argument(help="What `ossicle denoise train` made, or gate, which needs none.")
    ],
    recordings: Annotated[
        list[Path], typer.Argument(help="Audio files, folders, or a manifest of paths.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the results.")],
    floor_db: Annotated[
        float | None, typer.Option(help="Noise is turned down by no more than this: -20.")
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="The same from 0, nothing, to 1, all of it."),
    ] = None,
    output: Annotated[str | None, typer.Option(help="Of an autoencoder: mask or decoded.")] = None,
    keep_background: Annotated[
        bool, typer.Option("--keep-background", help="Write what was taken out, too.")
    ] = False,
    kind: Annotated[str, typer.Option("--format", help="wav or flac.")] = "wav",
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="A page with spectrograms and players.")
    ] = True,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Take noise out of recordings of any length; run again, it goes on where it stopped."""
    from ossicle.datasets.unlabelled import unlabelled_clips
    from ossicle.line import count_workers
    from ossicle.separate.results import (
        failures,
        problem_lines,
        result_lines,
        summary,
        write_page,
    )
    from ossicle.separators.many_files import RunSettings, separate_files

    arguments = {name: value for name, value in locals().items() if name in _ARGUMENTS}
    clips = unlabelled_clips(recordings)
    separator = _denoiser(bundle, clips.table["path"].iloc[0])
    _set(separator, floor_db=_floor(floor_db, strength), output=output)
    kept = ("foreground", "background") if keep_background else ("foreground",)
    endings = ("denoised", "background") if keep_background else ("denoised",)
    with working("denoising") as (tick, tell):
        made = separate_files(
            separator,
            clips,
            out,
            RunSettings(keep=kept, endings=endings, kind=kind),
            workers=count_workers(workers),
            arguments=arguments,
            progress=None if tick is None else _bar(tick, len(set(clips.table["path"]))),
            tell=tell,
        )
    if failures(made) == made.recordings:
        say(problem_lines(made))
        raise OssicleError(f"none of the {made.recordings} recordings could be used")
    lines = result_lines(made)
    page = None
    if report:
        page = write_page(made, separator, f"{name_of(Path(bundle))}: {out.name}", command_line())
        lines.append(f"to look and listen: {page}")
    answer(lines, summary(made, page), as_json)


def score(
    bundles: Annotated[
        list[Path] | None, typer.Argument(help="Bundles of denoisers, beside the gate.")
    ] = None,
    mixtures: Annotated[
        Path, typer.Argument(help="Folder of mixtures with their clean parts.", show_default=False)
    ] = ...,  # type: ignore[assignment]
    part: Annotated[str, typer.Option(help="Which mixtures: test, unseen, valid, train.")] = "test",
    foreground: Annotated[
        str | None, typer.Option(help="The source to keep; default: foreground, or the first.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Every mixture's scores, as .csv or .json.")
    ] = None,
    workers: Workers = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Score denoisers: SI-SDR, its improvement, log-spectral distance, beside gate and bounds."""
    from ossicle.bundle import load_separator
    from ossicle.datasets.mixtures import read_mixtures
    from ossicle.denoise.score import score_denoisers
    from ossicle.denoise.score import summary as summarise
    from ossicle.line import count_workers
    from ossicle.separators.spectral_gate import SpectralGate

    if out is not None and out.suffix not in (".csv", ".json"):
        raise DataError(f"{out}: scores are written as .csv or .json")
    table = read_mixtures(mixtures)
    chosen = table.part(part, required=True)
    systems: dict[str, Separator] = {
        f"{GATE}, {kind}": SpectralGate(table.sample_rate, kind=kind)
        for kind in ("stationary", "running")
    }
    for path in bundles or []:
        name = path.resolve().name
        systems[str(path) if name in systems else name] = load_separator(path)
    with progress_bar("scoring") as tick:
        scores, source = score_denoisers(
            systems, chosen, foreground=foreground, workers=count_workers(workers), progress=tick
        )
    value = summarise(scores, source, seed=seed)
    if out is not None:
        scores.save(out)
    first = value["rows"][0]
    lines = [
        f"{part}: {first['mixtures']} mixtures, {first['groups']} groups; means in dB with 95 % "
        "intervals over groups"
    ]
    lines += [_row(row) for row in value["rows"]]
    for gained in value["against_the_best_gate"]:
        unit = gained["score"].replace("_", " ")
        limits = "" if gained["low"] is None else f" ({gained['low']:.2f} to {gained['high']:.2f})"
        lines.append(
            f"{gained['one']} against {gained['other']}: {unit} {gained['difference']:+.2f}{limits}"
        )
    lines += [f"note: {note}" for note in [*table.notes, *scores.notes]]
    lines += [f"left out: {one['mixture']}: {one['reason']}" for one in value["left_out"][:10]]
    if out is not None:
        lines.append(f"every mixture's scores: {out}")
    answer(lines, {"part": part, **value}, as_json)


def _denoiser(bundle: str, first: str) -> Separator:
    """The bundle's, or a gate at the rate of the first recording that can be read."""
    from ossicle.audio import info
    from ossicle.bundle import load_separator
    from ossicle.errors import AudioError
    from ossicle.separators.spectral_gate import SpectralGate

    if bundle != GATE:
        separator = load_separator(bundle)
        if "foreground" not in separator.sources or "background" not in separator.sources:
            raise OssicleError(
                f"{bundle}: takes {', '.join(separator.sources) or 'like sources'} apart and is "
                "no denoiser; use `ossicle separate run`"
            )
        return separator
    try:
        sample_rate = info(first).sample_rate
    except AudioError:
        sample_rate = 44_100
    # 46 ms, whatever the rate.
    n_fft = 2 * round(0.0232 * sample_rate)
    return SpectralGate(sample_rate, n_fft=n_fft, hop_length=n_fft // 4)


def _floor(floor_db: float | None, strength: float | None) -> float | None:
    from math import log10

    if strength is None:
        return floor_db
    if floor_db is not None:
        raise OssicleError("--strength and --floor-db say the same: give one of them")
    return max(-80.0, 20 * log10(max(1 - strength, 1e-4)))


def _set(separator: Separator, *, floor_db: float | None, output: str | None) -> None:
    if floor_db is not None:
        if not hasattr(separator, "floor_db"):
            raise OssicleError(f"{type(separator).__name__} has no floor: leave --floor-db out")
        separator.floor_db = floor_db  # type: ignore[assignment]
    if output is not None:
        if not hasattr(separator, "output"):
            raise OssicleError(f"{type(separator).__name__} has one output: leave --output out")
        separator.output = output  # type: ignore[assignment]


def _bar(tick: Any, files: int) -> Any:
    from ossicle.features import Progress

    return lambda now: tick(Progress(max(1, now.files), files, now.seconds))


def _row(row: dict[str, Any]) -> str:
    told = [row["system"]]
    for name in ("si_sdr", "si_sdr_improvement", "log_spectral_distance"):
        value = row[name]
        if value["value"] is None:
            continue
        text = f"{name.replace('_', ' ')} {value['value']:.2f}"
        if value["low"] is not None:
            text += f" ({value['low']:.2f} to {value['high']:.2f})"
        told.append(text)
    if row["times_real_time"]:
        told.append(f"{row['times_real_time']:.0f} times real time")
    return ", ".join(told)
