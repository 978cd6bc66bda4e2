"""Tasks from public sets that the user keeps in a folder, each below its own name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ossicle.benchmark.task import Fold, Task, TaskData
from ossicle.datasets.clips import read_clips
from ossicle.errors import DataError
from ossicle.transfer.protocol import choose_protocol


class _Layout(NamedTuple):
    """What tells the set's folder from others, how to get it, and what its names say."""

    mark: str
    get: str
    folds: str | None = None
    groups: str | None = None


def _reader(name: str, layout: _Layout) -> Callable[[Path], TaskData]:
    def read(folder: Path) -> TaskData:
        """The clips with their folds.

        Args:
            folder: of the set, or the one that holds it under the task's name.

        Raises:
            DataError: the set is not there, or cannot be read.
        """
        places = (Path(folder), Path(folder) / name)
        root = next((place for place in places if (place / layout.mark).exists()), None)
        if root is None:
            raise DataError(f"{folder}: {name} is not there (no {layout.mark}); {layout.get}")
        clips = read_clips(root, folds=layout.folds, groups=layout.groups)
        protocol = choose_protocol(clips)
        # Penalties are chosen inside the training part.
        none = np.zeros(0, np.int64)
        folds = tuple(Fold(np.sort(train), none, np.sort(test)) for train, test in protocol.folds)
        return TaskData(clips, folds, [*clips.notes, *protocol.notes, protocol.text])

    return read


_LAYOUTS = {
    "esc10": _Layout(
        "dog_bark",
        "put ESC-10 (https://github.com/karolpiczak/ESC-10) into esc10/CLASS/1-17092-A.ogg",
        folds=r"/^(\d)-/",
        groups=r"/^\d-(\d+)-/",
    ),
    "fsdd": _Layout(
        "9",
        "put the Free Spoken Digit Dataset (https://github.com/Jakobovski/"
        "free-spoken-digit-dataset) into fsdd/DIGIT/DIGIT_SPEAKER_INDEX.wav (or .flac)",
        folds=r"/_([a-z]+)_/",
        groups=r"/_([a-z]+)_/",
    ),
    "speech_commands_6": _Layout(
        "marvin",
        "put six words of Speech Commands v0.02 into speech_commands_6/WORD/ with a metadata.csv "
        "(file_name, label, speaker, split)",
        groups="speaker",
    ),
    "urbansound_2folds": _Layout(
        "air_conditioner",
        "put folds 1, 2 of UrbanSound8K (https://urbansounddataset.weebly.com/urbansound8k.html) "
        "into urbansound_2folds/CLASS/ with a metadata.csv (file_name, label, recording, fold)",
        groups="recording",
    ),
    "snoring": _Layout(
        "no_snoring",
        "put one-second clips into snoring/snoring/ and snoring/no_snoring/, numbered as recorded",
        groups="runs:20",
    ),
}

_TASKS = (
    Task(
        name="esc10",
        suite="open",
        domain="environment",
        title="ten environmental sounds",
        metric="accuracy",
        read=_reader("esc10", _LAYOUTS["esc10"]),
        get=_LAYOUTS["esc10"].get,
        licence="CC BY 3.0; credits in the set's README",
        caveat="",
        published={"clips": 400, "classes": 10},
        source="Piczak 2015, ESC: Dataset for Environmental Sound Classification; its five folds",
    ),
    Task(
        name="fsdd",
        suite="open",
        domain="speech",
        title="spoken English digit, unseen speaker",
        metric="accuracy",
        read=_reader("fsdd", _LAYOUTS["fsdd"]),
        get=_LAYOUTS["fsdd"].get,
        licence="CC BY-SA 4.0",
        caveat="a handful of speakers, one set-up each: the interval over them is wide",
        published={"classes": 10},
        source="Free Spoken Digit Dataset; leave one speaker out, not its own split",
    ),
    Task(
        name="speech_commands_6",
        suite="open",
        domain="speech",
        title="six spoken words, unseen speakers",
        metric="accuracy",
        read=_reader("speech_commands_6", _LAYOUTS["speech_commands_6"]),
        get=_LAYOUTS["speech_commands_6"].get,
        licence="CC BY 4.0",
        caveat="a part of the set: scores are not those of the whole",
        published={"classes": 6},
        source="Warden 2018, Speech Commands v0.02; its split by speaker",
    ),
    Task(
        name="urbansound_2folds",
        suite="open",
        domain="environment",
        title="ten urban sounds",
        metric="accuracy",
        read=_reader("urbansound_2folds", _LAYOUTS["urbansound_2folds"]),
        get=_LAYOUTS["urbansound_2folds"].get,
        licence="CC BY-NC 3.0",
        caveat="two of the set's ten folds: scores are not those of the whole",
        published={"classes": 10},
        source="Salamon, Jacoby and Bello 2014, UrbanSound8K; its folds",
    ),
    Task(
        name="snoring",
        suite="open",
        domain="environment",
        title="snoring or not",
        metric="accuracy",
        read=_reader("snoring", _LAYOUTS["snoring"]),
        get=_LAYOUTS["snoring"].get,
        licence="unclear (collected from sound libraries): for measuring only",
        caveat=(
            "which clips come from one recording is not said: blocks of 20 consecutive numbers "
            "stay together, and a recording that crosses a block's end leaks"
        ),
        published={"classes": 2},
        source="folder names; folds over blocks of numbers",
    ),
)

AT_HAND: dict[str, Task] = {task.name: task for task in _TASKS}
