"""VoxCeleb1: which of 1,251 people speaks, by the identification split.

``iden_split.txt`` has lines "1 id10001/VIDEO/00001.wav" (1 train, 2 validation, 3 test). The audio
lies anywhere below the folder as ``idXXXXX/VIDEO/NAME``: ``vox1_dev_wav/wav`` and
``vox1_test_wav/wav`` as unpacked, or both in one.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ossicle.benchmark.task import PARTS, Task, TaskData, from_rows
from ossicle.datasets.layouts import audio_below
from ossicle.errors import DataError

SPLIT = "iden_split.txt"
_PART = dict(zip("123", PARTS, strict=True))


def read_voxceleb1(folder: Path) -> TaskData:
    """The speakers that the list names as classes; clips of one video are a group.

    Raises:
        DataError: the list is not there or is broken, or no audio is.
    """
    root = Path(folder)
    levels = (sorted(root.glob(f"{level}{SPLIT}")) for level in ("", "*/", "*/*/"))
    found = next((hits for hits in levels if hits), [])
    if not found:
        raise DataError(f"{root}: {SPLIT} is not there: put it beside the folders of audio")
    there = {
        (*parts[-3:-1], parts[-1].rpartition(".")[0]): "/".join(parts)
        for parts in audio_below(root)[0]
        if len(parts) > 2
    }
    rows = []
    for number, line in enumerate(found[0].read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        part, _, path = line.strip().partition(" ")
        names = tuple(path.strip().split("/"))
        if part not in _PART or len(names) != 3:
            raise DataError(
                f"{found[0]}: line {number} is not '1 id10001/VIDEO/00001.wav': {line[:60]!r}"
            )
        speaker, video, name = names
        key = (speaker, video, name.rpartition(".")[0])
        rows.append((there.get(key, path), speaker, _PART[part], video))
    table = pd.DataFrame(rows, columns=["path", "label", "part", "group"])
    shared = int((table.groupby("group")["part"].nunique() > 1).sum())
    notes = [f"{shared} videos have clips in several parts, as the list has them"] if shared else []
    # From the whole list, so that a speaker whose files are gone is still a class.
    classes = sorted(set(table["label"]))
    return from_rows(table, root, classes=classes, group_source="the video", notes=notes)


TASK = Task(
    name="voxceleb1",
    suite="hares",
    domain="speech",
    title="speaker, 1,251 people",
    metric="accuracy",
    read=read_voxceleb1,
    get=(
        "ask for VoxCeleb1 at https://www.robots.ox.ac.uk/~vgg/data/voxceleb/, unpack vox1_dev_wav "
        f"and vox1_test_wav, and put its meta/{SPLIT} beside them"
    ),
    licence="CC BY 4.0; the videos' own rights stay with their owners",
    caveat="a speaker's videos may share programme, room and microphone",
    published={"train": 138_361, "valid": 6904, "test": 8251, "classes": 1251},
    source="Nagrani et al. 2017, arXiv 1706.08612; the identification split of its page",
)
