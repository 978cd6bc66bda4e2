"""The page that a user reads and listens to: one HTML file that opens offline, and its numbers.

It answers four questions in this order: how good is it, can the number be trusted, what goes
wrong, what to do next. The parts:

* `words`, `checks`, `advice`: sentences from numbers.
* `clips`: which clips are listed and carried, as sound and picture.
* `tables`, `figures`: the rows and the drawings.
* `reliability`: whether probabilities can be taken at their word, and unheard classes.
* `page.html`, with `reliability.html`, `style.html` and `script.html`: the page.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from ossicle import record
from ossicle.errors import DataError, OssicleError
from ossicle.report import tables
from ossicle.report.advice import advice
from ossicle.report.checks import checks
from ossicle.report.clips import clip_lists, page_data, shown_path
from ossicle.report.reliability import reliability, unheard
from ossicle.report.words import metric_name, verdict

_TASKS = ("classes", "multilabel", "regression")


def write_report(
    evaluation: Mapping[str, Any],
    out_dir: str | Path,
    *,
    audio_root: str | Path | None = None,
    max_clips_per_cell: int = 4,
    max_audio_bytes: int = 12_000_000,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write `report.json` and `report.html`; each appears whole or not at all.

    Args:
        evaluation: what `ossicle.transfer.evaluate` returns; all but `task` may be missing or
            None, and what is missing is left out of the page. For "multilabel", an item's
            `probability` may be a dict by class, or a list beside `predicted`.
        out_dir: made where it is missing.
        audio_root: what the items' relative paths refer to; None is the working folder.
        max_clips_per_cell: clips to carry for a cell of the confusion matrix (for a class's
            misses, false alarms and hits with "multilabel"; ten times as many of the largest and
            of the smallest errors with "regression").
        max_audio_bytes: the most that sounds and pictures take in the page, as they stand in it
            (base64). Errors come first; clips left out are listed with their path.
        progress: called with (clips done, clips in all).

    Returns:
        The path of `report.html`.

    Raises:
        DataError: `task` is not one of the three.
        OssicleError: the files cannot be written.
    """
    task = evaluation.get("task")
    if task not in _TASKS:
        raise DataError(f"task {task!r}: a report needs one of {', '.join(_TASKS)}")
    root = None if audio_root is None else Path(audio_root)
    page = render(
        plain(evaluation, safe=False),
        audio_root=root,
        max_clips_per_cell=max_clips_per_cell,
        max_audio_bytes=max_audio_bytes,
        progress=progress,
    )
    out = Path(out_dir)
    try:
        out.mkdir(parents=True, exist_ok=True)
        record.write_json(out / "report.json", plain(evaluation))
        with record.replaced(out / "report.html") as part:
            # A file name that is not UTF-8 is shown with "?".
            part.write_bytes(page.encode("utf-8", "replace"))
    except OSError as error:
        raise OssicleError(f"{out}: the report cannot be written: {error.strerror}") from error
    return out / "report.html"


def plain(value: Any, safe: bool = True) -> Any:
    """JSON values of an evaluation: NaN and infinities become None, arrays lists.

    Args:
        value: of any kind; see `ossicle.record.json_safe`.
        safe: texts show the home folder as "~" and hold nothing that UTF-8 cannot; otherwise they
            stay as they are, so that paths can be opened.
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {plain(str(key), safe): plain(item, safe) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, safe) for item in value]
    if value is None or isinstance(value, bool | int) or (isinstance(value, str) and not safe):
        return value
    value = record.json_safe(value) if safe or not isinstance(value, Path) else str(value)
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value


def render(
    evaluation: Mapping[str, Any],
    *,
    audio_root: Path | None,
    max_clips_per_cell: int,
    max_audio_bytes: int,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """The page's HTML; arguments as in `write_report`, the evaluation made of JSON values."""
    task, metric = evaluation["task"], str(evaluation.get("metric") or "score")
    items = evaluation.get("items") or []
    classes, matrix = tables.confusion(evaluation, items)
    lists = clip_lists(task, classes, items)
    data = page_data(
        evaluation,
        lists,
        audio_root=audio_root,
        max_clips_per_cell=max_clips_per_cell,
        max_audio_bytes=max_audio_bytes,
        progress=progress,
    )

    skipped = [
        {"path": shown_path(str(x.get("path")), audio_root), "reason": str(x.get("reason") or "")}
        for x in evaluation.get("skipped") or []
    ]
    return _template().render(
        title=str(evaluation.get("title") or "Evaluation"),
        created=str(evaluation.get("created") or "")[:16].replace("T", " "),
        task=task,
        metric_name=metric_name(metric),
        verdict=verdict(evaluation),
        context=tables.context(evaluation, metric),
        scores=tables.scores(evaluation, metric),
        checks=checks(evaluation),
        steps=advice(evaluation, lists),
        matrix=None if matrix is None else tables.cells(classes, matrix, lists),
        per_class=list(tables.per_class(evaluation, classes, matrix, lists)),
        scatter=tables.scatter(items, lists) if task == "regression" else None,
        reliability=reliability(evaluation),
        unheard=unheard(evaluation),
        layers=tables.layers(evaluation, metric),
        chosen=evaluation.get("chosen"),
        subsets=tables.subsets(evaluation, metric),
        learning=tables.learning(evaluation, metric),
        facts=tables.facts(evaluation),
        skipped=skipped,
        command=_command(evaluation),
        has_clips=bool(data["clips"]),
        n_carried=len(data["media"]),
        data=data,
    )


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    # Keys keep their order; `tojson` itself makes the text safe inside a script element.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "allow_nan": False}
    return environment.get_template("page.html")


def _command(evaluation: Mapping[str, Any]) -> str:
    for place in (evaluation, evaluation.get("record") or {}, evaluation.get("arguments") or {}):
        if place.get("command"):
            given = place["command"]
            return given if isinstance(given, str) else " ".join(map(str, given))
    return ""
