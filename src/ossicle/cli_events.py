"""`ossicle events`: files of labels with times, from one format into another, and counted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ossicle.cli_options import Json
from ossicle.console import answer
from ossicle.errors import OssicleError

if TYPE_CHECKING:
    from ossicle.datasets.strong.rows import LabelFile

events_app = typer.Typer(no_args_is_help=True, help="Labels with times: convert, count, score.")

Files = Annotated[
    list[Path], typer.Argument(help="Audacity, Raven, DCASE, RTTM, CSV or Label Studio files.")
]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        help="audacity, raven, dcase, rttm, csv or label_studio; default: what each looks like.",
    ),
]
Label = Annotated[str | None, typer.Option(help="Of events that have none.")]
Column = Annotated[str | None, typer.Option("--label-column", help="Of labels in a table.")]
Recording = Annotated[
    str | None, typer.Option(help="The recording, where a file does not name it.")
]


@events_app.command("convert")
def convert(
    files: Files,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="A file, or a folder: one file a recording.")
    ],
    kind: Annotated[
        str | None,
        typer.Option(help="Of the result, as --from; default: by the ending of --out."),
    ] = None,
    from_kind: From = None,
    label: Label = None,
    label_column: Column = None,
    recording: Recording = None,
    as_json: Json = False,
) -> None:
    """Write label files in another format: all into one, or one for each recording."""
    from ossicle.datasets.strong import ENDINGS, KINDS, write_events

    found = _read(files, from_kind, label, label_column, recording)
    events, names = found.events(), found.files()
    weak = {row["file"] for row in found.rows if row["weak"]}
    lines = [f"note: {note}" for note in found.notes]
    if weak:
        names = [name for name in names if name not in weak]
        lines.append(f"note: {len(weak)} recordings with labels without times left out")
    into_folder = out.is_dir() or not out.suffix
    if into_folder and kind is None:
        raise OssicleError(f"{out}: is a folder; say the kind with --kind: {', '.join(KINDS)}")
    written = [out]
    if into_folder:
        if kind not in ENDINGS:
            raise OssicleError(f"--kind {kind}: there are {', '.join(KINDS)}")
        targets = _targets(names, out, ENDINGS[kind])
        for name, target in targets.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            write_events(events[events["file"] == name], target, kind=kind, files=[name])
        written = list(targets.values())
    else:
        _check_folder(out)
        write_events(events, out, kind=kind, files=names)
    lines.append(
        f"{len(events)} events of {len(names)} recordings: "
        + (f"{len(written)} files in {out}" if into_folder else str(out))
    )
    value = {"events": len(events), "recordings": len(names), "written": written}
    answer(lines, {**value, "notes": found.notes}, as_json)


@events_app.command("count")
def count(
    files: Files,
    from_kind: From = None,
    label: Label = None,
    label_column: Column = None,
    recording: Recording = None,
    as_json: Json = False,
) -> None:
    """Count events, seconds and recordings of each label."""
    found = _read(files, from_kind, label, label_column, recording)
    events = found.events()
    rows: dict[str, dict[str, Any]] = {}
    for name, mine in events.groupby("label", sort=True):
        seconds = float((mine["offset"] - mine["onset"]).sum())
        rows[str(name)] = {
            "events": len(mine),
            "seconds": seconds,
            "recordings": int(mine["file"].nunique()),
        }
    silent = len(set(found.files()) - set(events["file"]) - _weak(found))
    lines = [f"note: {note}" for note in found.notes]
    lines += [
        f"{name}: {row['events']} events, {row['seconds']:.1f} s, {row['recordings']} recordings"
        for name, row in rows.items()
    ]
    lines.append(f"{len(events)} events of {len(found.files())} recordings, {silent} without any")
    if _weak(found):
        lines[-1] += f", {len(_weak(found))} with labels without times"
    value = {"events": len(events), "recordings": len(found.files()), "without_events": silent}
    answer(lines, {**value, "weak": len(_weak(found)), "labels": rows}, as_json)


def _weak(found: LabelFile) -> set[str]:
    return {row["file"] for row in found.rows if row["weak"]}


def _read(
    files: list[Path],
    kind: str | None,
    label: str | None,
    label_column: str | None,
    recording: str | None,
) -> LabelFile:
    """The rows of all files as one.

    A file without rows, of a format that does not name its recording, stands for one of its name.
    """
    from ossicle.datasets.strong.formats import read_label_file, stem
    from ossicle.datasets.strong.rows import LabelFile

    if recording is not None and len(files) > 1:
        raise OssicleError("--recording names one recording; give one file with it")
    found = LabelFile([])
    for path in files:
        options: dict[str, Any] = {"kind": kind, "label": label, "label_column": label_column}
        one = read_label_file(path, file=recording, **options)
        if not one.rows and one.kind in ("audacity", "raven", "dcase"):
            one = read_label_file(path, file=recording or stem(path), **options)
        found.rows += one.rows
        found.notes += one.notes
    return found


def _targets(names: list[str], folder: Path, ending: str) -> dict[str, Path]:
    """A file for each recording, below `folder` as the recordings lie to each other."""
    parents = {os.path.dirname(name) for name in names}  # noqa: PTH120 (names, not files)
    common = os.path.commonpath(parents) if len(parents) > 1 and "" not in parents else ""
    if len(parents) == 1:
        common = next(iter(parents))
    targets: dict[str, Path] = {}
    for name in names:
        below = os.path.relpath(name, common) if common else name
        path = Path(os.path.normpath(below.lstrip("/"))).with_suffix("")
        target = folder / f"{path}{ending}"
        if ".." in path.parts or target in targets.values():
            raise OssicleError(f"{name}: another recording has the same name; write one table")
        targets[name] = target
    return targets


def _check_folder(out: Path) -> None:
    if not out.absolute().parent.is_dir():
        raise OssicleError(f"{out}: the folder {out.parent} does not exist")
