"""`ossicle separate mix`: mixtures with their stems, made from clips."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ossicle.cli_options import Json, Labels, Seed, Workers
from ossicle.console import answer, counts, progress_bar, say
from ossicle.errors import OssicleError

if TYPE_CHECKING:
    from ossicle.datasets.clips import Clips


def mix(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="One source of clips, mixed with each other (speakers), or one a role: speech "
            "noise. Folder per class, folder with metadata.csv, or manifest."
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder; a stopped run goes on.")],
    names: Annotated[
        str | None, typer.Option(help="Of several sources: speech,noise; default: their folders'.")
    ] = None,
    speakers: Annotated[
        int, typer.Option(min=2, help="How many in a mixture, with one source of clips.")
    ] = 2,
    by: Annotated[
        str,
        typer.Option(help="What those in a mixture differ in: group, label, a column, '/regex/'."),
    ] = "group",
    n_train: Annotated[int, typer.Option(min=0, help="Mixtures to train on.")] = 1000,
    n_valid: Annotated[int, typer.Option(min=0, help="Mixtures to choose by.")] = 200,
    n_test: Annotated[int, typer.Option(min=0, help="Mixtures to report on.")] = 200,
    n_unseen: Annotated[
        int | None,
        typer.Option(min=0, help="Mixtures of unseen groups; default: as many as for test."),
    ] = None,
    level_db: Annotated[
        str,
        typer.Option(
            help="Lowest,highest level of later sources against the first (dB); of noise against "
            "speech it is minus the SNR."
        ),
    ] = "-5,5",
    duration: Annotated[
        float | None, typer.Option(help="Length of a mixture (s); default: as --length says.")
    ] = None,
    length: Annotated[
        str, typer.Option(help="min: cut to the shortest source; max: zeros to the longest.")
    ] = "min",
    join: Annotated[
        bool, typer.Option("--join", help="Clips of one group follow each other up to --duration.")
    ] = False,
    min_duration: Annotated[float, typer.Option(help="Shorter clips are left out (s).")] = 0.1,
    sample_rate: Annotated[int, typer.Option(help="Of the files (Hz).")] = 16000,
    disjoint: Annotated[
        str,
        typer.Option(help="What no two parts share: groups, clips (files only), or a column."),
    ] = "groups",
    unseen_groups: Annotated[
        str | None,
        typer.Option(help="Groups kept for the part unseen alone: a share (0.2) or names: a,b."),
    ] = None,
    shares: Annotated[
        str, typer.Option(help="Of train, valid and test, where parts are drawn.")
    ] = "3,1,1",
    use_split: Annotated[
        bool, typer.Option("--use-split", help="Parts are the clips' own split.")
    ] = False,
    valid_folds: Annotated[
        str | None, typer.Option(help="Folds of the clips for valid, with commas: 4.")
    ] = None,
    test_folds: Annotated[
        str | None, typer.Option(help="Folds of the clips for test; train has the others.")
    ] = None,
    wav: Annotated[bool, typer.Option("--wav", help="Write WAV instead of FLAC.")] = False,
    folds: Annotated[
        list[str] | None,
        typer.Option(help="Column or '/regex/' that names the fold; once, or once a source."),
    ] = None,
    groups: Annotated[
        list[str] | None,
        typer.Option(
            help="Column, '/regex/', 'runs:K' or 'none': what must not straddle parts (speaker, "
            "recording); once, or once a source, 'auto' to infer."
        ),
    ] = None,
    labels: Labels = None,
    seed: Seed = 0,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Mix clips at known levels and keep what was mixed: mixtures with their stems, and a table."""
    import json

    from ossicle.datasets.mixtures import MixtureSettings, write_mixtures
    from ossicle.line import count_workers

    unseen = _unseen(unseen_groups)
    if n_unseen is None:
        n_unseen = n_test if unseen else 0
    settings = MixtureSettings(
        n_sources=speakers,
        by=by,
        level_db=_numbers("--level-db", level_db, 2),
        duration_s=duration,
        length=length,
        join=join,
        min_duration_s=min_duration,
        sample_rate=sample_rate,
        disjoint=disjoint,
        unseen=unseen,
        use_split=use_split,
        valid_folds=tuple(_names(valid_folds)),
        test_folds=tuple(_names(test_folds)),
        shares=_numbers("--shares", shares, 3),
        suffix=".wav" if wav else ".flac",
        seed=seed,
    )
    for source in sources:
        if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
            raise OssicleError(f"{out}: lies in {source}, which is read; choose another folder")
    each_fold = _each("--folds", folds, len(sources))
    each_group = _each("--groups", groups, len(sources))
    tables = [
        _clips(source, fold, group, labels, alone=len(sources) == 1)
        for source, fold, group in zip(sources, each_fold, each_group, strict=True)
    ]
    for source, clips in zip(sources, tables, strict=True):
        before = f"{source.name}: " if len(sources) > 1 else ""
        say([f"note: {before}{note}" for note in clips.notes])
    if len(tables) == 1 and by == "group" and len(tables[0].classes) > 1:
        say([_told_apart_by(tables[0])])
    try:
        with progress_bar("mixing") as tick:
            done = write_mixtures(
                tables,
                out,
                settings,
                counts={"train": n_train, "valid": n_valid, "test": n_test, "unseen": n_unseen},
                names=_names(names),
                workers=count_workers(workers),
                progress=counts(tick),
            )
    except KeyboardInterrupt:
        say([f"stopped; the same command goes on from {out}"])
        raise
    say([f"note: {note}" for note in done.notes])
    info = json.loads((out / "mixtures.json").read_text(encoding="utf-8"))
    lines = [_line(part, info) for part in done.parts]
    lines.append(f"mixtures: {out / 'mixtures.csv'}")
    told = {
        "out": str(out),
        "sources": list(done.sources),
        "n_sources": done.n_sources,
        "counts": info["counts"],
        "hours": info["hours"],
        "clips": info["clips"],
        "notes": done.notes,
    }
    answer(lines, told, as_json)


def _clips(
    source: Path, folds: str | None, groups: str | None, labels: str | None, *, alone: bool
) -> Clips:
    from ossicle.datasets.clips import read_clips
    from ossicle.datasets.layouts import METADATA_NAMES, audio_below
    from ossicle.datasets.patterns import relative_paths
    from ossicle.datasets.unlabelled import unlabelled_clips

    # A role needs no classes: a folder of noises, one beside the other, is enough.
    if not alone and source.is_dir() and not any((source / n).exists() for n in METADATA_NAMES):
        files, _ = audio_below(source)
        if files and all(len(parts) == 1 for parts in files):
            clips = unlabelled_clips([source])
            clips.table["group"] = relative_paths(list(clips.table["path"]), clips.root)
            return clips
    return read_clips(source, folds=folds, groups=groups, labels=labels)


def _each(option: str, values: list[str] | None, many: int) -> list[str | None]:
    """One value a source."""
    if not values:
        return [None] * many
    if len(values) not in (1, many):
        raise OssicleError(f"{option} is given {len(values)} times: give it once, or {many} times")
    given = [None if value.lower() == "auto" else value for value in values]
    return given if len(values) == many else given * many


def _told_apart_by(clips: Clips) -> str:
    """Whom a mixture holds, where the clips' classes may be meant instead of their groups."""
    names = list(dict.fromkeys(clips.groups()))
    return (
        f"note: a mixture's sources are of different groups ({len(names)}: {names[0]}, "
        f"{names[-1]}, ...); if the {len(clips.classes)} classes are the speakers "
        f"({clips.classes[0]}, {clips.classes[-1]}, ...), say --by label"
    )


def _line(part: str, info: dict[str, Any]) -> str:
    held = [
        f"{of['clips']} clips of {of['groups']} groups" + (f" of {name}" if name else "")
        for name, of in (
            (name if info["sources"] else "", of) for name, of in info["clips"][part].items()
        )
    ]
    many, hours = info["counts"][part], info["hours"][part]
    return f"{part}: {many} mixtures, {hours:.2f} h, from {' and '.join(held)}"


def _unseen(text: str | None) -> float | tuple[str, ...]:
    """ "0.2" is a share, anything but a number between 0 and 1 are names."""
    if text is None:
        return 0.0
    try:
        share = float(text)
    except ValueError:
        share = 1.0
    return share if 0 < share < 1 else tuple(_names(text))


def _numbers(option: str, text: str, many: int) -> Any:
    """ "-5,5" as numbers; of two, one number stands for both."""
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if many == 2 and len(numbers) == 1:
        numbers *= 2
    if len(numbers) != many:
        shown = "two numbers with a comma between, as in -5,5"
        if many == 3:
            shown = "three numbers with commas between, as in 3,1,1"
        raise OssicleError(f"{option} {text}: write {shown}")
    return numbers


def _names(text: str | None) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()] if text else []
