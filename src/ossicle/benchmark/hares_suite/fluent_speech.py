"""Fluent Speech Commands: what a spoken command wants, as action, object and location.

The archive as it is: ``data/{train,valid,test}_data.csv`` beside ``wavs/speakers/SPEAKER/*.wav``.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ossicle.benchmark.task import PARTS, Task, TaskData, from_rows
from ossicle.datasets.layouts import audio_below
from ossicle.errors import DataError

_ROOMS = ("bedroom", "kitchen", "washroom")
# action|object|location; "none" where a command does not say.
INTENTS = tuple(
    sorted(
        [
            *(f"{action}|lamp|none" for action in ("activate", "deactivate")),
            *(
                f"{action}|lights|{room}"
                for action in ("activate", "deactivate")
                for room in ("none", *_ROOMS)
            ),
            *(f"{action}|music|none" for action in ("activate", "deactivate")),
            *(f"bring|{thing}|none" for thing in ("juice", "newspaper", "shoes", "socks")),
            *(
                f"change language|{language}|none"
                for language in ("none", "Chinese", "English", "German", "Korean")
            ),
            *(
                f"{action}|heat|{room}"
                for action in ("increase", "decrease")
                for room in ("none", *_ROOMS)
            ),
            *(f"{action}|volume|none" for action in ("increase", "decrease")),
        ]
    )
)
_COLUMNS = ("path", "speakerId", "action", "object", "location")


def read_fluent_speech(folder: Path) -> TaskData:
    """31 intents; the speakers of the three parts are others.

    Raises:
        DataError: one of the three tables is not there or lacks a column, or no audio is.
    """
    root = Path(folder)
    levels = (sorted(root.glob(f"{level}data/train_data.csv")) for level in ("", "*/", "*/*/"))
    found = next((hits for hits in levels if hits), [])
    if not found:
        raise DataError(f"{root}: data/train_data.csv is not there: unpack the whole archive")
    base = found[0].parent.parent
    # By speaker and name alone, so that copies in another format or folder are found too.
    there = {
        (parts[-2], parts[-1].rpartition(".")[0]): str(base.joinpath(*parts).relative_to(root))
        for parts in audio_below(base)[0]
        if len(parts) > 1
    }
    rows = pd.concat([_part(base, part) for part in PARTS], ignore_index=True)
    keys = [(Path(path).parent.name, Path(path).stem) for path in rows["path"]]
    rows["path"] = [there.get(key, path) for key, path in zip(keys, rows["path"], strict=True)]
    return from_rows(rows, root, classes=INTENTS, group_source="the set's speakerId")


def _part(base: Path, part: str) -> pd.DataFrame:
    file = base / "data" / f"{part}_data.csv"
    if not file.is_file():
        raise DataError(f"{file}: is not there: unpack the whole archive")
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise DataError(f"{file}: cannot be read as a table ({error})") from error
    if lacking := [name for name in _COLUMNS if name not in table]:
        raise DataError(f"{file}: has no column {lacking[0]}; get it from the archive again")
    intent = table["action"] + "|" + table["object"] + "|" + table["location"]
    return pd.DataFrame(
        {"path": table["path"], "label": intent, "part": part, "group": table["speakerId"]}
    )


TASK = Task(
    name="fluent_speech_commands",
    suite="hares",
    domain="speech",
    title="31 intents of spoken commands",
    metric="accuracy",
    read=read_fluent_speech,
    get=(
        "ask for it at https://fluent.ai/fluent-speech-commands-a-dataset-for-spoken-language-"
        "understanding-research/ and unpack fluent_speech_commands_dataset"
    ),
    licence="Fluent Speech Commands Public License (a PDF in the archive)",
    caveat="the 248 wordings recur across the parts; only the speakers are new",
    published={"train": 23_132, "valid": 3118, "test": 3793, "classes": 31},
    source="Lugosch et al. 2019, arXiv 1904.03670; parts by the archive's own tables",
)
