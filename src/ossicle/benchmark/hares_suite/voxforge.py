"""VoxForge: which of six languages is spoken, with other speakers in each part.

Archives as unpacked, ``.../LANG/.../USER-DATE-XXX/wav/*.wav``, a language's folder anywhere above
them. Where TensorFlow Datasets' list ``voxforge_urls.txt`` lies with them, its archives are the
set, in whatever folders; without it, those that are there. n users.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ossicle.benchmark.task import PARTS, Task, TaskData, from_rows
from ossicle.datasets.layouts import audio_below
from ossicle.errors import DataError

LANGUAGES = ("de", "en", "es", "fr", "it", "ru")
LIST = "voxforge_urls.txt"
# Older trees of the site, and their usual copies.
_NAMES = {
    **{code: code for code in LANGUAGES},
    **{"german": "de", "english": "en", "speechcorpus": "en", "spanish": "es", "french": "fr"},
    **{"italian": "it", "russian": "ru"},
}
_SHARES = (0.7, 0.1, 0.2)
_LAST_DATE = "20200101"
_DATE = re.compile(r"-(\d{8})(?:-|$)")


class _Found(NamedTuple):
    archive: str
    language: str | None
    name: str  # of the file, without suffix
    path: str


def split_users(users: Sequence[str]) -> dict[str, str]:
    """User -> "train", "valid" or "test": 70, 10 and 20 % of the users.

    Sorted, shuffled by numpy's ``RandomState(0)`` and cut, as TensorFlow Datasets does it
    (``tensorflow_datasets/audio/voxforge.py``): the same users give the same parts.

    Args:
        users: (n,) in any order; repeats count once.
    """
    names = sorted(set(users))
    np.random.RandomState(0).shuffle(names)
    part, before, total = {}, 0, 0.0
    for where, share in zip(PARTS, _SHARES, strict=True):
        total += share
        # What rounding leaves belongs to the last part.
        end = len(names) if where == PARTS[-1] else int(total * len(names))
        part.update(dict.fromkeys(names[before:end], where))
        before = end
    return part


def read_voxforge(folder: Path) -> TaskData:
    """Six languages; a user is a group, and all who are called "anonymous" are one user.

    The file list of HARES is not public. With TensorFlow Datasets' list of archives the parts are
    theirs; without it they come by the same rule from the users that are there, of archives
    recorded before 2020.

    Raises:
        DataError: there is no audio, or no folder of a language above it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; unpack the archives there, a folder a language")
    levels = (sorted(root.glob(f"{level}{LIST}")) for level in ("", "*/", "*/*/"))
    lists = next((hits for hits in levels if hits), [])
    notes: list[str] = []
    found = _files(root, notes)
    if lists:
        listed = _listed(lists[0])
        have = {each.archive for each in found}
        part = split_users([_user(archive) for archive in listed])
        if gone := [archive for archive in listed if archive not in have]:
            notes.append(f"{len(gone)} of {len(listed)} archives are not there, such as {gone[0]}")
        if extra := sorted(have - set(listed)):
            notes.append(f"{len(extra)} archives not in {LIST} left out, such as {extra[0]}")
        kept = [e._replace(language=listed[e.archive]) for e in found if e.archive in listed]
    else:
        kept = [e for e in found if e.language is not None]
        if found and not kept:
            raise DataError(
                f"{root}: no folder of a language ({', '.join(LANGUAGES)}) above the archives; "
                f"or put {LIST} there"
            )
        if len(kept) < len(found):
            notes.append(f"{len(found) - len(kept)} files not below a language's folder left out")
        late = {e.archive for e in kept if (d := _DATE.search(e.archive)) and d[1] >= _LAST_DATE}
        if late:
            notes.append(f"{len(late)} archives of 2020 and later left out")
        kept = [e for e in kept if e.archive not in late]
        part = split_users([_user(e.archive) for e in kept])
        notes.append(
            f"without {LIST} the parts are drawn from the {len(part)} users that are there: "
            "others than TensorFlow Datasets'"
        )
    if not kept:
        raise DataError(f"{root}: has no audio of VoxForge's archives")
    users = [_user(e.archive) for e in kept]
    rows = pd.DataFrame(
        {
            "path": [e.path for e in kept],
            "label": [e.language for e in kept],
            "part": [part[user] for user in users],
            "group": users,
        }
    )
    return from_rows(
        rows, root, classes=LANGUAGES, group_source="the user in the archive's name", notes=notes
    )


def _files(root: Path, notes: list[str]) -> list[_Found]:
    """Audio in archives' ``wav`` folders, or right in the archive, each once."""
    found: dict[tuple[str | None, str, str], _Found] = {}
    flac = 0
    for parts in audio_below(root)[0]:
        above = list(parts[:-1])
        inside = above.pop().lower() if above and above[-1].lower() in ("wav", "flac") else "wav"
        if not above:
            continue
        if inside == "flac":
            flac += 1
            continue
        archive = above[-1].removesuffix(".tgz")
        languages = [code for name in above[:-1] if (code := _language(name))]
        each = _Found(
            archive,
            languages[-1] if languages else None,
            parts[-1].rpartition(".")[0],
            "/".join(parts),
        )
        # The site has some archives at two sample rates.
        found.setdefault((each.language, each.archive, each.name), each)
    if flac:
        notes.append(f"{flac} files in folders called flac left out, as TensorFlow Datasets does")
    return list(found.values())


def _listed(file: Path) -> dict[str, str]:
    """Archive's name -> language, of lines HOST/downloads/LANG/.../USER-DATE-XXX.tgz."""
    listed = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        url = line.strip().strip("'\"")
        if not url:
            continue
        above, _, name = url.rpartition("/")
        codes = [code for part in above.split("/") if (code := _language(part))]
        if not codes:
            raise DataError(f"{file}: no language in {url[:100]!r}; get the list again")
        listed[name.removesuffix(".tgz")] = codes[-1]
    if not listed:
        raise DataError(f"{file}: is empty; get the list again")
    return listed


def _language(name: str) -> str | None:
    return _NAMES.get(name.lower().removeprefix("voxforge").strip("_-"))


def _user(archive: str) -> str:
    return archive.partition("-")[0]


TASK = Task(
    name="voxforge",
    suite="hares",
    domain="speech",
    title="language, six of Europe",
    metric="accuracy",
    read=read_voxforge,
    get=(
        f"wget -x -i {LIST}, the list that https://www.tensorflow.org/datasets/catalog/voxforge "
        "names (100 GB); unpack each archive where it lies, and leave the list beside"
    ),
    licence="GPL, as VoxForge publishes its audio",
    caveat=(
        "users record at home: languages may differ in microphones and years; people called "
        "anonymous are one group"
    ),
    published={"classes": 6},
    source=(
        "MacLean, voxforge.org; parts by TensorFlow Datasets' rule, which publishes no counts; "
        "Tagliasacchi et al. 2020 and HARES (145 k clips) name no file list"
    ),
)
