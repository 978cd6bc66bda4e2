"""From tag tables to labels: which tags count, and the most frequent of them.

The taggers of the Million Song Dataset learn its 50 most frequent Last.fm tags (Choi et al. 2017,
arXiv 1703.09179, section 3); a tag counts where its score is above 50 of 100.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from ossicle.datasets.clips import Clips, read_clips
from ossicle.datasets.layouts import PATH_COLUMNS, absolute, audio_below, read_text_table
from ossicle.errors import DataError

MIN_SCORE = 50.0
TRACK_COLUMNS = ("track", "track_id", "tid", "trackid", *PATH_COLUMNS)
TAG_COLUMNS = ("tag", "tags", "label", "labels", "class")
SCORE_COLUMNS = ("score", "weight", "value", "val")


def top_tags(clips: Clips, n: int, *, keep_untagged: bool = False) -> Clips:
    """The same clips with the ``n`` most frequent tags alone, as labels of the task "multilabel".

    Args:
        clips: of the task "multilabel", or "classes", where each clip has one tag.
        n: how many; of tags as frequent as each other those first in the alphabet.
        keep_untagged: keep clips that none of the tags is left of: examples of none. Otherwise
            they are left out.

    Returns:
        Clips whose ``classes`` are the tags by name; a note tells what was left out.

    Raises:
        DataError: the labels are numbers, ``n`` is below 1, or there is no tag at all.
    """
    if clips.task == "regression":
        raise DataError("there are no tags: the labels are numbers")
    if n < 1:
        raise DataError(f"the {n} most frequent tags: choose 1 or more")
    labels = clips.table["label"]
    rows = [[row] if clips.task == "classes" else row for row in labels]
    counts = Counter(tag for row in rows for tag in set(row))
    if not counts:
        raise DataError("there are no tags: no clip has a label")
    chosen = {tag for tag, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:n]}
    kept = [[tag for tag in row if tag in chosen] for row in rows]
    table = clips.table.copy()
    table["label"] = pd.Series(kept, index=table.index, dtype=object)
    result = replace(
        clips,
        table=table,
        task="multilabel",
        classes=tuple(sorted(chosen)),
        notes=[*clips.notes, f"the {len(chosen)} most frequent of {len(counts)} tags"],
    )
    bare = sum(not row for row in kept)
    if bare:
        done = "kept" if keep_untagged else "left out"
        result.notes.append(f"{bare} of {len(kept)} clips without any of these tags {done}")
    return result if keep_untagged else result.subset([i for i, row in enumerate(kept) if row])


def read_tag_table(
    source: str | os.PathLike[str],
    folder: str | os.PathLike[str] | None = None,
    *,
    min_score: float = MIN_SCORE,
    groups: str | None = None,
) -> Clips:
    """Clips from a table with a line for each tag of each track: track, tag, score.

    Args:
        source: a .csv, .tsv, .jsonl or .parquet file with columns "track" (or "track_id", or a
            path), "tag" and "score"; without the last, every line counts.
        folder: where the recordings are, at any depth; None: the table's own. A track is the path
            of its file from there, with or without the ending, or the file's bare name without it.
        min_score: a tag counts where its score is above.
        groups: what must stay together, as for ``read_clips``.

    Returns:
        Multi-label clips in the order of the tracks; a track none of whose tags counts has none.
        Tracks without a file are left out, and told in the notes.

    Raises:
        DataError: no such table, column or file, a score that is no number, a track that two
            files could be, or no tag that counts.
    """
    path = absolute(Path(source).expanduser())
    root = path.parent if folder is None else absolute(Path(folder).expanduser())
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    table = read_text_table(path)
    by_lower = {str(name).lower(): name for name in reversed(list(table.columns))}

    def column(names: Sequence[str]) -> str | None:
        return next((by_lower[name] for name in names if name in by_lower), None)

    track, tag, score = column(TRACK_COLUMNS), column(TAG_COLUMNS), column(SCORE_COLUMNS)
    if track is None or tag is None:
        known = ", ".join(map(str, table.columns))
        raise DataError(f"{path}: a tag table has the columns track,tag,score; this has {known}")
    tags: dict[str, list[str]] = {}
    for number, name in enumerate(table[track]):
        own = tags.setdefault(name.strip(), [])
        text = table[tag][number].strip()
        if text and (score is None or _score(table[score][number], path, number) > min_score):
            own.append(text)
    if not any(tags.values()):
        raise DataError(f"{path}: no tag has a score above {min_score:g}; pass a lower min_score")
    files = _files(root)
    there = {name: _file(files, name, root) for name in tags}
    missing = [name for name, file in there.items() if file is None]
    if len(missing) == len(tags):
        raise DataError(
            f"{root}: has no recording of the {len(tags)} tracks in {path.name}, such as "
            f"{missing[0]}; pass the folder that holds them"
        )
    found = [(file, tags[name]) for name, file in there.items() if file is not None]
    frame = pd.DataFrame(found, columns=["path", "label"], dtype=object)
    clips = read_clips(frame, labels="multilabel", groups=groups)
    clips.root = root
    if missing:
        clips.notes.append(f"{len(missing)} tracks without a file left out, such as {missing[0]}")
    return clips


def _score(text: str, path: Path, number: int) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise DataError(f"{path}: row {number + 1}: the score {text!r} is not a number")
    return value


def _files(root: Path) -> dict[str, list[str]]:
    """Names by which a track may call a recording below ``root`` -> paths."""
    files: dict[str, list[str]] = {}
    for parts in audio_below(root)[0]:
        path = str(root.joinpath(*parts))
        whole = "/".join(parts)
        bare = whole.removesuffix(Path(whole).suffix)
        for name in dict.fromkeys((whole, bare, Path(whole).stem)):
            files.setdefault(name, []).append(path)
    return files


def _file(files: dict[str, list[str]], track: str, root: Path) -> str | None:
    """The recording of a track; None where there is none."""
    found = files.get(track.replace("\\", "/"), [])
    if len(found) > 1:
        shown = ", ".join(str(Path(path).relative_to(root)) for path in found[:2])
        raise DataError(f"{root}: track {track!r} could be {shown}; give its path in the table")
    return found[0] if found else None
