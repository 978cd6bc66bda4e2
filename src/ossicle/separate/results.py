"""What a run over recordings made, told: lines for people, a summary, the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ossicle.report.separation import SeparationItem, write_separation_report
from ossicle.report.words import plural
from ossicle.separators.base import Separator
from ossicle.separators.many_files import Separation
from ossicle.separators.result_tables import ERRORS, TABLE

PAGE = "report.html"
# Problems that are told on the terminal; all are in errors.csv.
_TOLD = 20


def problem_lines(made: Separation) -> list[str]:
    """The recordings that could not be used to their end."""
    lines = [f"{status}: {file}: {reason}" for file, status, reason in made.problems[:_TOLD]]
    if len(made.problems) > _TOLD:
        lines.append(f"and {len(made.problems) - _TOLD} more, see {made.folder / ERRORS}")
    return lines


def failures(made: Separation) -> int:
    """How many recordings could not be used at all."""
    return sum(status == "failed" for _, status, _ in made.problems)


def result_lines(made: Separation) -> list[str]:
    """What a run did."""
    lines = problem_lines(made)
    if made.skipped:
        lines.append(f"{plural(made.skipped, 'result')} of an earlier run in the folder left out")
    if made.resumed:
        lines.append(f"{plural(made.resumed, 'recording')} done before, {made.done} now")
    if made.turned_down:
        lines.append(
            f"{plural(made.turned_down, 'recording')} turned down so that nothing clips (gain_db)"
        )
    lines.append(
        f"{plural(made.files, 'file')} of {plural(made.recordings - failures(made), 'recording')} "
        f"({_length(made.seconds)}): {made.folder / TABLE}"
    )
    return lines


def summary(made: Separation, page: Path | None) -> dict[str, Any]:
    """What a run did, ready for JSON."""
    failed = failures(made)
    return {
        "files": made.files,
        "recordings": made.recordings,
        "resumed": made.resumed,
        "failed": failed,
        "damaged": len(made.problems) - failed,
        "turned_down": made.turned_down,
        "seconds": made.seconds,
        "out": str(made.folder),
        "report": None if page is None else str(page),
    }


def write_page(made: Separation, separator: Separator, title: str, command: str) -> Path:
    """The page with the recordings before and after, in the folder of the results.

    Raises:
        OssicleError: it cannot be written.
    """
    facts = {
        "system": str(separator.info.get("system", made.parameters["system"])),
        "the model's sample rate": f"{separator.sample_rate} Hz",
        "separator": str(made.parameters["separator"])[:12],
        "band": str(made.parameters["band"]),
    }
    mask = getattr(separator, "mask", None)
    if isinstance(mask, str):
        facts["mask"] = mask
    return write_separation_report(
        made.folder / PAGE,
        [
            SeparationItem(one.name, one.before, one.after, one.notes, one.gain_db)
            for one in made.taken()
        ],
        title=title,
        facts=facts,
        command=command,
    )


def _length(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60:02d} min" if hours else f"{rest // 60} min {rest % 60:02d} s"
