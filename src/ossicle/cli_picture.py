"""`ossicle picture`: what was detected, to look at (PNG) and to listen to (HTML)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ossicle.cli_options import Json
from ossicle.cli_report import command_line
from ossicle.console import answer, counts, progress_bar
from ossicle.errors import AudioError, DataError, OssicleError

if TYPE_CHECKING:
    import pandas as pd

    from ossicle.events import FrameScores

ENDINGS = (".png", ".html")


def picture(
    recording: Annotated[
        Path, typer.Argument(help="A recording; for .html also the folder of many.")
    ],
    events: Annotated[
        Path, typer.Argument(help="Its events: CSV, Parquet, Audacity, Raven, DCASE, RTTM, ...")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="A .png, or a page: .html.")],
    reference: Annotated[
        Path | None, typer.Option(help="The true events, in any of these formats.")
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(help="Frame scores of `ossicle detect --scores`: the file, or their folder."),
    ] = None,
    onset: Annotated[float | None, typer.Option(help="PNG: seconds to begin at.")] = None,
    offset: Annotated[float | None, typer.Option(help="PNG: seconds to end at.")] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Line over scores; default: as the events have it.")
    ] = None,
    width: Annotated[int, typer.Option(help="PNG: pixels.")] = 1400,
    sample_rate: Annotated[
        int | None, typer.Option(help="Show frequencies up to half of this rate, in Hz.")
    ] = None,
    megabytes: Annotated[
        float, typer.Option(min=0, help="HTML: the most that its sounds and pictures take.")
    ] = 12.0,
    as_json: Json = False,
) -> None:
    """Draw a recording with its events over it; as a page, with the sounds of many recordings."""
    if out.suffix.lower() not in ENDINGS:
        raise OssicleError(f"{out}: a picture is written as .png, a page as .html")
    is_page = out.suffix.lower() == ".html"
    if is_page and (onset is not None or offset is not None):
        raise OssicleError(f"{out}: a page shows whole recordings; --onset and --offset are of PNG")
    if not recording.exists():
        raise OssicleError(f"{recording}: there is no such recording")
    if recording.is_dir() and not is_page:
        raise OssicleError(f"{recording}: is a folder; a .png shows one recording, .html many")
    found = _Labels(events, recording)
    true = None if reference is None else _Labels(reference, recording)
    limits: Any = found.thresholds() if threshold is None else threshold
    if is_page:
        told = _page(recording, out, found, true, scores, limits, sample_rate, megabytes)
    else:
        from ossicle.report.detection_picture import draw_detections

        table = found.of_one()
        truth = None if true is None else true.of_one()
        tables = [table] if truth is None else [table, truth]
        frames, classes = None, sorted({x for t in tables for x in t["label"]})
        if scores is not None:
            frames, classes = _read_scores(_scores_of(scores, recording.name))
        draw_detections(
            recording,
            table,
            classes=classes,
            out=out,
            onset_s=onset,
            offset_s=offset,
            frames=frames,
            thresholds=limits,
            reference=truth,
            width_px=width,
            sample_rate=sample_rate,
        )
        told = {"events": len(table), "recordings": 1}
    lines = [f"note: {note}" for note in found.notes]
    lines.append(f"{told['events']} events of {told['recordings']} recordings: {out}")
    answer(lines, {**told, "out": str(out), "notes": found.notes}, as_json)


def _page(
    recording: Path,
    out: Path,
    found: _Labels,
    true: _Labels | None,
    scores: Path | None,
    limits: Any,
    sample_rate: int | None,
    megabytes: float,
) -> dict[str, Any]:
    from ossicle import audio
    from ossicle.metrics.events.collar import event_based
    from ossicle.report.detections import write_detection_report

    is_one = recording.is_file()
    root = recording.parent if is_one else recording
    table = found.of_one() if is_one else found.table
    truth = None if true is None else true.of_one() if is_one else true.table
    files = [recording.name] if is_one else list(found.files)
    if truth is not None:
        files = list(dict.fromkeys([*files, *([] if true is None or is_one else true.files)]))
    lengths, skipped = ({}, []) if is_one else found.heard()
    for name in files:
        if name in lengths:
            continue
        try:
            lengths[name] = audio.info(root / name).duration_s
        except AudioError as error:
            skipped.append((name, error.reason))
    frames, classes = (
        None,
        sorted(set(table["label"]) | (set() if truth is None else set(truth["label"]))),
    )
    if scores is not None:
        frames = _Scores(scores, files)
        first = next((some for some in map(frames.classes_of, files) if some), None)
        if first is None:
            raise DataError(f"{scores}: has frame scores of none of the recordings")
        classes = first
        frames.classes = first
    every = sorted({*classes, *table["label"], *([] if truth is None else truth["label"])})
    measured = None if truth is None else event_based(truth, table, classes=every, files=files)
    parameters: dict[str, Any] = {"events": found.path.name}
    if true is not None:
        parameters.update(reference=true.path.name, **{"collar s": 0.2, "share of length": 0.2})
    with progress_bar("gathering sounds") as tick:
        write_detection_report(
            out.parent,
            name=out.name,
            files=files,
            events=table,
            classes=classes,
            durations=lengths,
            parameters={**parameters, **found.constants()},
            audio_root=root,
            frames=frames,
            thresholds=limits,
            reference=truth,
            skipped=skipped,
            scores=None if measured is None else {k: measured[k] for k in ("micro", "macro")},
            max_audio_bytes=round(megabytes * 1e6),
            sample_rate=sample_rate,
            title=recording.resolve().name,
            command=command_line(),
            table=found.path.name,
            progress=counts(tick),
        )
    return {"events": len(table), "recordings": len(files)}


class _Labels:
    """A label file, and what lies beside it where `ossicle detect` wrote it."""

    def __init__(self, path: Path, recording: Path) -> None:
        from ossicle.datasets.strong import read_label_file

        self.path, self.recording = path, recording
        read = read_label_file(path, file=recording.name if recording.is_file() else None)
        self.table = read.events(path)
        weak = sum(bool(row["weak"]) for row in read.rows)
        self.notes = list(read.notes)
        if weak:
            self.notes.append(f"{path}: {weak} labels without times left out")
        self._beside = path.with_name("files.csv")
        self._status = self._statuses()
        self.files = list(dict.fromkeys([*self._status, *read.files()]))
        self.files = [n for n in self.files if self._status.get(n, {}).get("status") != "failed"]
        if recording.is_dir():
            self._below(recording)

    def _below(self, folder: Path) -> None:
        """Name the recordings in a folder as they lie in it; leave out those that lie elsewhere.

        A name that is that of no file stays: events can be shown without their sound.
        """
        from ossicle.datasets.layouts import absolute
        from ossicle.datasets.strong.names import Names

        root = absolute(folder)
        names, new = Names(root, self.notes), {}
        for name in dict.fromkeys([*self.files, *self.table["file"], *self._status]):
            path = names.find(name, absolute(self.path.parent))
            inside = path is None or Path(path).is_relative_to(root)
            new[name] = (
                name if path is None else str(Path(path).relative_to(root)) if inside else None
            )
        kept = self.table["file"].map(new).notna()
        self.table = self.table[kept].assign(file=self.table["file"][kept].map(new))
        self.table = self.table.reset_index(drop=True)
        self.files = [to for name in self.files if (to := new[name]) is not None]
        self._status = {to: r for name, r in self._status.items() if (to := new[name]) is not None}

    def of_one(self) -> pd.DataFrame:
        """The events of the recording.

        Raises:
            DataError: the file names other recordings only, or several that could be meant.
        """
        name = self._named()
        some = self.table[self.table["file"] == name] if name else self.table.iloc[:0]
        return some.assign(file=self.recording.name).reset_index(drop=True)

    def _named(self) -> str | None:
        whole = self.recording.resolve().as_posix()
        given = self.recording.as_posix()
        ways = (
            lambda file: file in (given, whole),
            lambda file: "/" in file and whole.endswith("/" + file.lstrip("./")),
            lambda file: Path(file).name == self.recording.name,
            lambda file: Path(file).name == self.recording.stem,
        )
        names = list(dict.fromkeys([*self.files, *self.table["file"]]))
        for way in ways:
            some = [name for name in names if way(name)]
            if len(some) > 1:
                raise DataError(
                    f"{self.path}: names several recordings like {self.recording.name}: "
                    f"{', '.join(some[:3])}; give the recording's path as it has it"
                )
            if some:
                return some[0]
        if names:
            raise DataError(
                f"{self.path}: names other recordings ({', '.join(names[:3])}), not "
                f"{self.recording.name}"
            )
        return None

    def thresholds(self) -> dict[str, float] | None:
        """By class, where the table has them."""
        if "threshold" not in self.table:
            return None
        known = self.table.dropna(subset=["threshold"]).drop_duplicates("label")
        return {str(k): float(v) for k, v in zip(known["label"], known["threshold"], strict=True)}

    def constants(self) -> dict[str, Any]:
        """Columns that have one value throughout: what the events were found with."""
        own = ("file", "onset", "offset", "label", "score", "threshold", "low")
        return {
            name: self.table[name].iloc[0]
            for name in self.table
            if name not in own and len(self.table) and self.table[name].nunique(dropna=False) == 1
        }

    def heard(self) -> tuple[dict[str, float], list[tuple[str, str]]]:
        """Seconds of each recording, and (recording, reason) of those that could not be heard."""
        rows = self._status.items()
        lengths = {n: float(r["seconds"]) for n, r in rows if r["status"] != "failed"}
        return lengths, [(n, str(r["reason"])) for n, r in rows if r["status"] != "ok"]

    def _statuses(self) -> dict[str, dict[str, Any]]:
        import pandas as pd

        if self.path.stem != "events" or not self._beside.is_file():
            return {}
        try:
            frame = pd.read_csv(self._beside, dtype={"file": str, "reason": str, "status": str})
            frame["reason"] = frame["reason"].fillna("")
            rows = frame[["file", "status", "seconds", "reason"]].to_dict("records")
        except (ValueError, KeyError) as error:
            raise DataError(f"{self._beside}: is no table of `ossicle detect`") from error
        return {str(row["file"]): {str(k): v for k, v in row.items()} for row in rows}


class _Scores(Mapping[str, Any]):
    """Frame scores by recording, read when they are asked for."""

    def __init__(self, path: Path, files: Sequence[str]) -> None:
        self._path, self._files = path, files
        self.classes: list[str] = []

    def classes_of(self, name: str) -> list[str] | None:
        """The classes of a recording's scores, or None where it has none."""
        try:
            return _read_scores(_scores_of(self._path, name))[1]
        except DataError:
            return None

    def __getitem__(self, name: str) -> FrameScores:
        try:
            frames, classes = _read_scores(_scores_of(self._path, name))
        except DataError as error:
            raise KeyError(name) from error
        if classes != self.classes:
            raise DataError(f"{self._path}: the scores of {name} are of other classes")
        return frames

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _scores_of(path: Path, name: str) -> Path:
    if not path.is_dir():
        return path
    for below in (Path(name).with_suffix(""), Path(name)):
        for part in (below, Path(below.name)):
            if (path / f"{part}.parquet").is_file():
                return path / f"{part}.parquet"
    raise DataError(f"{path}: has no scores of {name}")


def _read_scores(path: Path) -> tuple[FrameScores, list[str]]:
    from ossicle.detect.tables import read_scores
    from ossicle.predict import COLUMNS

    frames, columns = read_scores(path)
    # A class that is called like a column of times stands behind a word.
    bare = [name.removeprefix("class ") for name in columns]
    return frames, [b if b in COLUMNS else c for b, c in zip(bare, columns, strict=True)]
