"""`ossicle predict`: recordings in, a table of labels out; long ones window by window."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ossicle.cli_options import Json, Workers
from ossicle.console import answer, counts, progress_bar, say
from ossicle.errors import OssicleError


def predict(
    model: Annotated[Path, typer.Argument(help="A bundle that `ossicle train` wrote.")],
    recordings: Annotated[list[Path], typer.Argument(help="Audio files, folders, or a manifest.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help=".csv, .tsv, .parquet or .jsonl")
    ] = None,
    window: Annotated[
        float | None,
        typer.Option(help="Seconds: cut recordings into windows and label each; one row each."),
    ] = None,
    step: Annotated[
        float | None,
        typer.Option(help="Seconds from one window to the next; default: no overlap."),
    ] = None,
    unknown: Annotated[
        float | None,
        typer.Option(
            help="Label as unknown what is less familiar than this share of known sounds: .95."
        ),
    ] = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Label recordings with a trained model; each file, or each window of it, gets one row."""
    from ossicle import bundle
    from ossicle.datasets.unlabelled import unlabelled_clips
    from ossicle.datasets.windows import window_clips
    from ossicle.line import count_workers
    from ossicle.predict import check_unknown, check_window, table_kind, write_table
    from ossicle.predict import predict as label

    if out is not None:
        table_kind(out)
    check_window(window, step)
    network = bundle.load(model)
    if unknown is not None:
        check_unknown(network, unknown)
    items = unlabelled_clips(recordings)
    unit = "recordings"
    if window is not None:
        files = items.table["path"].nunique()
        unit = f"windows of {files} recordings" if files > 1 else "windows of 1 recording"
        with progress_bar("measuring") as tick:
            items = window_clips(items, window, step, progress=counts(tick))
    with progress_bar("labelling") as tick:
        frame, skipped = label(
            network, items, workers=count_workers(workers), unknown=unknown, progress=tick
        )
    if frame.empty:
        _, path, reason = skipped[0]
        what = "windows" if window is not None else "recordings"
        raise OssicleError(
            f"none of the {len(skipped)} {what} could be used; the first: {path}: {reason}"
        )
    lines = _together(skipped) if window is not None else _each(skipped)
    frame = frame.drop(columns="row")
    told: dict[str, Any] = {"n_clips": len(frame), "n_skipped": len(skipped)}
    if window is not None:
        told["n_recordings"] = int(frame["file"].nunique())
    if out is None:
        say(lines)
        typer.echo(frame.to_csv(index=False), nl=False)
        lines = []
    else:
        write_table(frame, out)
        lines.append(f"{len(frame)} {unit} labelled: {out}")
        told["out"] = str(out)
    told["skipped"] = [{"path": path, "reason": reason} for _, path, reason in skipped]
    answer(lines, told, as_json)


def _each(skipped: list[tuple[int, str, str]]) -> list[str]:
    return [f"skipped {path}: {reason}" for _, path, reason in skipped]


def _together(skipped: list[tuple[int, str, str]]) -> list[str]:
    """One line a recording: a silent night has thousands of silent windows."""
    by_path: dict[str, list[tuple[int, str, str]]] = {}
    for entry in skipped:
        by_path.setdefault(entry[1], []).append(entry)
    lines = []
    for path, entries in by_path.items():
        many = f"{len(entries)} windows of {path}, the first" if len(entries) > 1 else path
        lines.append(f"skipped {many}: {entries[0][2]}")
    return lines
