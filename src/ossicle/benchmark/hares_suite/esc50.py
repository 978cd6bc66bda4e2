"""ESC-50: fifty environmental sounds, five folds.

Piczak, ACM Multimedia 2015; https://github.com/karolpiczak/ESC-50.
"""

from __future__ import annotations

from pathlib import Path

from ossicle.benchmark.hares_suite.tree import Tree, groups_in_both
from ossicle.benchmark.task import Task, TaskData, from_rows
from ossicle.errors import DataError

# In the order of their numbers (column target).
CLASSES = (
    *("dog", "rooster", "pig", "cow", "frog", "cat", "hen", "insects", "sheep", "crow"),
    *("rain", "sea_waves", "crackling_fire", "crickets", "chirping_birds", "water_drops", "wind"),
    *("pouring_water", "toilet_flush", "thunderstorm", "crying_baby", "sneezing", "clapping"),
    *("breathing", "coughing", "footsteps", "laughing", "brushing_teeth", "snoring"),
    *("drinking_sipping", "door_wood_knock", "mouse_click", "keyboard_typing"),
    *("door_wood_creaks", "can_opening", "washing_machine", "vacuum_cleaner", "clock_alarm"),
    *("clock_tick", "glass_breaking", "helicopter", "chainsaw", "siren", "car_horn", "engine"),
    *("train", "church_bells", "airplane", "fireworks", "hand_saw"),
)
_GET = "ESC-50: https://github.com/karolpiczak/ESC-50 (Download: ESC-50-master.zip)"


def read_esc50(folder: Path) -> TaskData:
    """ESC-50 from meta/esc50.csv and audio/.

    Args:
        folder: of the set.

    Returns:
        Five folds as published; groups: the Freesound recordings that clips were cut from.

    Raises:
        DataError: the table is not there or broken, has another fold or class, or no clip is there.
    """
    tree = Tree(folder)
    table = tree.read("esc50.csv", ("filename", "fold", "target", "category", "src_file"))
    path = tree.need("esc50.csv")
    for name, fold, target, category in zip(
        table["filename"], table["fold"], table["target"], table["category"], strict=True
    ):
        if fold not in ("1", "2", "3", "4", "5"):
            raise DataError(f"{path}: {name}: fold {fold!r} is none of 1 to 5; get the set anew")
        if category not in CLASSES:
            raise DataError(f"{path}: {name}: {category!r} is not among the 50 classes")
        if target != str(CLASSES.index(category)):
            raise DataError(f"{path}: {name}: {category} does not have the number {target!r}")
    rows = table[["fold"]].assign(
        path=tree.place(f"audio/{name}" for name in table["filename"]),
        label=table["category"],
        group=table["src_file"],
    )
    return from_rows(
        rows,
        tree.root,
        classes=CLASSES,
        group_source="the Freesound recording (src_file)",
        notes=groups_in_both(rows, "fold", "recordings"),
    )


TASK = Task(
    name="esc50",
    suite="hares",
    domain="environment",
    title="fifty environmental sounds",
    metric="accuracy",
    read=read_esc50,
    get=_GET,
    licence="CC BY-NC",
    caveat="recordings are in one fold each, but a Freesound user may have some in several",
    published={"clips": 2000, "classes": 50},
    source="Piczak, ACM Multimedia 2015; https://github.com/karolpiczak/ESC-50",
)
