"""TUT Urban Acoustic Scenes 2018, development set: ten scenes in six cities.

Mesaros, Heittola, Virtanen, DCASE Workshop 2018, arXiv 1807.09840;
https://zenodo.org/record/1228142.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pandas as pd

from ossicle.benchmark.hares_suite.tree import Tree, groups_in_both
from ossicle.benchmark.task import Task, TaskData, from_rows
from ossicle.errors import DataError

SCENES = (
    *("airport", "shopping_mall", "metro_station", "street_pedestrian", "public_square"),
    *("street_traffic", "tram", "bus", "metro", "park"),
)
_GET = (
    "TUT Urban Acoustic Scenes 2018, Development dataset: https://zenodo.org/record/1228142 "
    "(all audio parts, meta and evaluation_setup)"
)
_LISTS = {"train": "fold1_train.txt", "test": "fold1_evaluate.txt"}


def read_tut18(folder: Path) -> TaskData:
    """The scenes from evaluation_setup/fold1_train.txt, fold1_evaluate.txt and audio/.

    HARES has lists of its own (Tagliasacchi et al. 2020, linked from its page), which are not
    read; these are the lists of the set itself, whose test places are not learnt from.

    Args:
        folder: of the set.

    Returns:
        Groups: places, "CITY-NUMBER" of the file's name SCENE-CITY-NUMBER-SEGMENT-DEVICE.

    Raises:
        DataError: a list is not there or broken, has another scene, or no clip is there.
    """
    tree = Tree(folder)
    rows = []
    for part, name in _LISTS.items():
        path = tree.need(name)
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read as text; get the set anew") from error
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            fields = [field.strip() for field in line.split("\t")]
            words = PurePosixPath(fields[0]).stem.split("-")
            if len(fields) != 2 or len(words) != 5:
                raise DataError(
                    f"{path}: line {number} is not audio/SCENE-CITY-NUMBER-SEGMENT-DEVICE.wav, "
                    "a tab and the scene; get the set anew"
                )
            if fields[1] not in SCENES or fields[1] != words[0]:
                raise DataError(
                    f"{path}: line {number}: the scene {fields[1]!r} is "
                    + ("not that of the name" if fields[1] in SCENES else "none of the ten")
                )
            rows.append((fields[0], fields[1], f"{words[1]}-{words[2]}", part))
    table = pd.DataFrame(rows, columns=["path", "label", "group", "part"])
    if table["path"].duplicated().any():
        twice = table["path"][table["path"].duplicated()].iloc[0]
        raise DataError(f"{tree.root}: the lists of fold 1 name {twice} twice; get the set anew")
    table["path"] = tree.place(table["path"])
    return from_rows(
        table,
        tree.root,
        classes=SCENES,
        group_source="the place (city and number)",
        notes=groups_in_both(table, "part", "places"),
    )


TASK = Task(
    name="tut18",
    suite="hares",
    domain="environment",
    title="ten urban scenes",
    metric="accuracy",
    read=read_tut18,
    get=_GET,
    licence="its own: for experimental and non-commercial use",
    caveat="the tested places are new, their cities and the recorder are not; split: the set's own "
    "fold 1, not the lists of HARES",
    published={"clips": 8640, "classes": 10},
    source="Mesaros et al., DCASE 2018, arXiv 1807.09840; https://zenodo.org/record/1228142",
)
