"""Recordings of any length and number in, a folder of their sources out; a stopped run goes on.

`separated.csv` has a row for each file that was written, `errors.csv` one for each recording that
could not be used to its end, `run.json` the parameters, and `journal.jsonl` is what the next run in
the folder goes on from.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ossicle import record
from ossicle.datasets.clips import Clips
from ossicle.errors import DataError, OssicleError
from ossicle.separators.base import Separator
from ossicle.separators.in_order import in_order
from ossicle.separators.journal import Entry, Journal, checksum, stamp
from ossicle.separators.long_files import FileResult, separate_file, source_names
from ossicle.separators.output_names import check_free, output_paths, relative_names
from ossicle.separators.result_tables import readable, write_result_tables
from ossicle.writer import FORMATS

RUN = "run.json"
VERSION = 1
_WORK = ".in_work"
_DIGITS = 6


@dataclass(frozen=True)
class RunSettings:
    """How recordings are taken apart and written.

    Attributes:
        n_sources: where the separator's sources have no names; None: 2.
        keep: names of the sources to write; None: all.
        endings: of the written files' names, one for each kept source; None: the sources' names.
        kind: of the files, "wav" or "flac".
        subtype: soundfile's name of the coding; None: like each recording's.
        band: "all" or "model", as in `separate_file`.
    """

    n_sources: int | None = None
    keep: tuple[str, ...] | None = None
    endings: tuple[str, ...] | None = None
    kind: str = "wav"
    subtype: str | None = None
    band: str = "all"


class Tick(NamedTuple):
    """How far a run has come.

    Attributes:
        files: recordings done.
        seconds: of sound taken apart.
    """

    files: int
    seconds: float


class Taken(NamedTuple):
    """One recording that was taken apart.

    Attributes:
        name: as tables have it.
        before: the recording.
        after: source -> file.
        gain_db: of all its files.
        notes: for the user.
    """

    name: str
    before: Path
    after: dict[str, Path]
    gain_db: float
    notes: list[str]


@dataclass
class Separation:
    """What a run made.

    Attributes:
        folder: of the results.
        recordings: how many were given.
        done, resumed: those that this run took apart (or tried to), and that an earlier one had.
        seconds: of sound in all.
        files: written, in all.
        turned_down: recordings whose files were turned down so that none clips.
        problems: (file, status, reason) of what is not "ok".
        skipped: recordings that are results of an earlier run in the same folder.
        parameters: under which it was made.
    """

    folder: Path
    recordings: int
    done: int = 0
    resumed: int = 0
    seconds: float = 0.0
    files: int = 0
    turned_down: int = 0
    problems: list[tuple[str, str, str]] = field(default_factory=list)
    skipped: int = 0
    parameters: dict[str, Any] = field(default_factory=dict)
    _taken: Callable[[], Iterator[Taken]] = field(default=lambda: iter(()), repr=False)

    def taken(self) -> Iterator[Taken]:
        """Each recording that was taken apart, in the order given."""
        return self._taken()


class _StoppedError(Exception):
    """Nobody waits for this recording any more."""


def separate_files(
    separator: Separator,
    recordings: Clips,
    folder: str | Path,
    settings: RunSettings | None = None,
    *,
    workers: int = 1,
    arguments: Mapping[str, Any] | None = None,
    progress: Callable[[Tick], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Separation:
    """Take recordings apart, each in constant memory; one that cannot be read stops no other.

    Args:
        separator: see `ossicle.bundle.load_separator`.
        recordings: see `ossicle.datasets.unlabelled.unlabelled_clips`; whole files.
        folder: for the results; made where it is missing. One run at a time in each.
        settings: None: the defaults.
        workers: threads; no number changes the result.
        arguments: of the command, for the record.
        progress: called after every block, in any thread.
        tell: called with lines for the user.

    Raises:
        OssicleError: a setting makes no sense.
        DataError: the folder cannot be used, results would write over something, the disk is full,
            or a row names a part of a recording.
    """
    settings = settings or RunSettings()
    names = source_names(separator, settings.n_sources)
    keep = _kept(names, settings)
    if settings.kind not in FORMATS:
        raise OssicleError(f"no format {settings.kind!r}: choose from {', '.join(FORMATS)}")
    if workers < 1:
        raise OssicleError(f"workers must be at least 1, got {workers}")
    table = recordings.table
    if table["onset"].notna().any() or table["offset"].notna().any():
        raise DataError("whole recordings are taken apart: leave onset and offset out")
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error.strerror})") from error
    parameters = {
        "version": VERSION,
        "separator": separator_checksum(separator),
        "system": type(separator).__name__,
        **json.loads(json.dumps(asdict(settings))),
    }
    key = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()
    endings = settings.endings or [names[i] for i in keep]
    with Journal(folder) as journal:
        mine = {path.resolve() for path in journal.made}
        given = list(dict.fromkeys(table["path"]))
        paths = [path for path in given if Path(path).resolve() not in mine]
        if not paths:
            raise DataError(f"{folder}: all recordings are results of an earlier run there")
        shown = relative_names(paths, Path(recordings.root))
        planned = output_paths(shown, folder, endings, settings.kind)
        check_free(planned, paths, journal.made)
        journal.begin(key)
        result = Separation(folder, len(paths), parameters=parameters)
        result.skipped = len(given) - len(paths)
        wanted = [i for i, path in enumerate(paths) if journal.find(path, planned[i]) is None]
        result.resumed, result.done = len(paths) - len(wanted), len(wanted)
        if result.resumed and tell is not None:
            tell(f"{result.resumed} of {len(paths)} recordings are done already")
        _clear(folder / _WORK)
        _run(
            separator,
            [(paths[i], planned[i]) for i in wanted],
            journal,
            folder,
            settings,
            keep,
            workers,
            progress,
        )
        _clear(folder / _WORK)
        entries = [journal.entry(path) for path in paths]
    text = [readable(name.as_posix()) for name in shown]
    done = [(name, entry) for name, entry in zip(text, entries, strict=True) if entry is not None]
    _write(done, result, arguments or {})
    result._taken = lambda: _taken(folder, done)
    return result


def separator_checksum(separator: Separator) -> str:
    """SHA-256 of all that a separator's answers depend on: system, keywords, choices, weights."""
    # Choices made after the constructor, such as the kind of mask, are plain attributes.
    chosen = {
        name: value
        for name, value in vars(separator).items()
        if isinstance(value, int | float | str | tuple) and name != "training"
    }
    blocks = [separator.block_s, separator.overlap_s]
    about = [type(separator).__name__, separator.config(), chosen, blocks]
    total = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode())
    for name, tensor in sorted(separator.state_dict().items()):
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def _kept(names: Sequence[str], settings: RunSettings) -> list[int]:
    wanted = names if settings.keep is None else settings.keep
    foreign = [name for name in wanted if name not in names]
    if foreign or not wanted:
        raise OssicleError(
            f"no source {foreign[0] if foreign else ''!r}: this bundle gives {', '.join(names)}"
        )
    keep = list(dict.fromkeys(names.index(name) for name in wanted))
    if settings.endings is not None and len(settings.endings) != len(keep):
        raise OssicleError(f"{len(settings.endings)} endings for {len(keep)} sources")
    return keep


def _run(
    separator: Separator,
    jobs: Sequence[tuple[str, list[Path]]],
    journal: Journal,
    folder: Path,
    settings: RunSettings,
    keep: Sequence[int],
    workers: int,
    progress: Callable[[Tick], None] | None,
) -> None:
    """Take the recordings apart, some at once; of few recordings, some blocks at once."""
    stopped, lock = threading.Event(), threading.Lock()
    troubles: list[BaseException] = []
    files, seconds = 0, 0.0
    inner = max(1, workers // max(1, len(jobs)))

    def told(done: int, more: float) -> None:
        nonlocal files, seconds
        with lock:
            files, seconds = files + done, seconds + more
            if progress is not None:
                progress(Tick(files, seconds))

    def one(job: tuple[str, list[Path]]) -> None:
        path, outputs = job
        before = stamp(path)
        heard = 0.0

        def tick(now: float) -> None:
            nonlocal heard
            if stopped.is_set():
                raise _StoppedError
            told(0, now - heard)
            heard = now

        if stopped.is_set():
            return
        journal.announce(outputs)
        try:
            found = separate_file(
                separator,
                path,
                outputs,
                n_sources=settings.n_sources,
                keep=keep,
                subtype=settings.subtype,
                band=settings.band,
                workers=inner,
                work=folder / _WORK,
                progress=tick,
            )
        except (DataError, _StoppedError):
            raise
        except OssicleError as error:
            reason = getattr(error, "reason", None) or str(error)
            journal.add(Entry(path, before, checksum(path), "failed", reason))
        else:
            journal.add(_entry(found, path, before, folder))
        told(1, 0.0)

    def watched(job: tuple[str, list[Path]]) -> None:
        try:
            one(job)
        except BaseException as error:
            if not isinstance(error, _StoppedError):
                troubles.append(error)
            stopped.set()
            raise

    try:
        for _ in in_order(watched, jobs, min(workers, max(1, len(jobs))), stopped):
            pass
    except _StoppedError:
        # Stopped by what happened to a recording after it.
        raise troubles[0] from None


def _entry(found: FileResult, path: str, before: list[int], folder: Path) -> Entry:
    outputs = [
        {
            "source": source,
            "path": output.relative_to(folder).as_posix(),
            "bytes": stamp(output)[0],
            "energy_share": None if share != share else round(share, _DIGITS),
        }
        for source, output, share in zip(
            found.sources, found.outputs, found.energy_shares, strict=True
        )
    ]
    return Entry(
        path,
        before,
        checksum(path),
        "damaged" if found.damage else "ok",
        found.damage,
        found.duration_s,
        round(found.gain_db, _DIGITS),
        found.notes,
        outputs,
    )


def _write(
    done: Sequence[tuple[str, Entry]], result: Separation, arguments: Mapping[str, Any]
) -> None:
    """All tables, and the record."""
    for name, entry in done:
        result.seconds += entry.seconds
        result.files += len(entry.outputs)
        result.turned_down += entry.gain_db < 0
        if entry.status != "ok":
            result.problems.append((name, entry.status, entry.reason))
    try:
        write_result_tables(result.folder, done)
        record.write_json(
            result.folder / RUN,
            {
                "parameters": result.parameters,
                "recordings": result.recordings,
                "seconds": result.seconds,
                "files": result.files,
                **record.record(arguments, seed=None),
            },
        )
    except OSError as error:
        raise DataError(f"{result.folder}: cannot be written ({error.strerror})") from error


def _taken(folder: Path, done: Sequence[tuple[str, Entry]]) -> Iterator[Taken]:
    for name, entry in done:
        if entry.outputs:
            after = {output["source"]: folder / output["path"] for output in entry.outputs}
            notes = [entry.reason] * bool(entry.reason) + entry.notes
            yield Taken(name, Path(entry.path), after, entry.gain_db, notes)


def _clear(work: Path) -> None:
    """Take away what a killed run has left."""
    for part in work.glob(".*.part"):
        with suppress(OSError):
            part.unlink()
    with suppress(OSError):
        work.rmdir()
