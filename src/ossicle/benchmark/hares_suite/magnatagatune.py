"""MagnaTagATune: the fifty most frequent tags of music clips, several a clip.

Law, West, Mandel, Bay, Downie, ISMIR 2009; https://mirg.city.ac.uk/codeapps/the-magnatagatune-dataset.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from ossicle.benchmark.hares_suite.tree import Tree, groups_in_both
from ossicle.benchmark.task import Task, TaskData, from_rows
from ossicle.errors import DataError

# By falling count over all clips.
TAGS = (
    *("guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast"),
    *("piano", "ambient", "beat", "violin", "vocal", "synth", "female", "indian", "opera", "male"),
    *("singing", "vocals", "no vocals", "harpsichord", "loud", "quiet", "flute", "woman"),
    *("male vocal", "no vocal", "pop", "soft", "sitar", "solo", "man", "classic", "choir", "voice"),
    *("new age", "dance", "male voice", "female vocal", "beats", "harp", "cello", "no voice"),
    *("weird", "country", "metal", "female voice", "choral"),
)
# As published they are empty or cannot be decoded.
BROKEN = (
    "6/norine_braun-now_and_zen-08-gently-117-146.mp3",
    "8/jacob_heringman-josquin_des_prez_lute_settings-19-gintzler__pater_noster-204-233.mp3",
    "9/american_baroque-dances_and_suites_of_rameau_and_couperin-25-"
    "le_petit_rien_xiveme_ordre_couperin-88-117.mp3",
)
_PART = {
    **{folder: "train" for folder in "0123456789ab"},
    "c": "valid",
    **{folder: "test" for folder in "def"},
}
_GET = (
    "MagnaTagATune, mp3.zip.001 to .003 and annotations_final.csv: "
    "https://mirg.city.ac.uk/codeapps/the-magnatagatune-dataset"
)


def read_magnatagatune(folder: Path) -> TaskData:
    """The clips from annotations_final.csv and the folders 0 to f of mp3 files.

    Folders 0 to b are learnt from, c is chosen on, d to f are tested. A clip without any of the
    fifty tags stays, with none. The three files that are broken as published are left out.

    Args:
        folder: of the set.

    Returns:
        Groups: artist and album, as the file's name ARTIST-ALBUM-TRACK-TITLE-START-END has them;
        the folder of a clip was drawn by its album.

    Raises:
        DataError: the table is not there or broken, lacks a tag, or no clip is there.
    """
    tree = Tree(folder)
    name = "annotations_final.csv"
    table = tree.read(name, ("clip_id", *TAGS, "mp3_path"))
    path = tree.need(name)
    table = table[~table["mp3_path"].isin(BROKEN)].reset_index(drop=True)
    given = table[list(TAGS)].to_numpy(object)
    wrong = (given != "0") & (given != "1")
    if wrong.any():
        row, column = next(zip(*wrong.nonzero(), strict=True))
        raise DataError(
            f"{path}: {table['mp3_path'][row]}: the tag {TAGS[column]!r} is "
            f"{given[row, column]!r}, not 0 or 1; get the table anew"
        )
    rows = table[["mp3_path"]].rename(columns={"mp3_path": "path"})
    parents = [PurePosixPath(mp3).parent.name for mp3 in rows["path"]]
    stems = [PurePosixPath(mp3).stem for mp3 in rows["path"]]
    for mp3, parent, stem in zip(rows["path"], parents, stems, strict=True):
        if parent not in _PART or stem.count("-") < 5:
            raise DataError(
                f"{path}: {mp3!r} is not FOLDER/ARTIST-ALBUM-TRACK-TITLE-START-END.mp3 with a "
                "folder 0 to f; get the table anew"
            )
    rows["part"] = [_PART[parent] for parent in parents]
    rows["group"] = [stem.rsplit("-", 4)[0] for stem in stems]
    rows["label"] = [
        [tag for tag, value in zip(TAGS, values, strict=True) if value == "1"] for values in given
    ]
    notes = groups_in_both(rows, "part", "albums")
    rows["path"] = tree.place(rows["path"])
    artists = rows.assign(group=[stem.split("-")[0] for stem in stems])
    notes += groups_in_both(artists, "part", "artists")
    return from_rows(
        rows,
        tree.root,
        classes=TAGS,
        task="multilabel",
        group_source="the album (of the file's name)",
        notes=notes,
    )


TASK = Task(
    name="magnatagatune",
    suite="hares",
    domain="music",
    title="fifty tags of music, several a clip",
    metric="map",
    read=read_magnatagatune,
    get=_GET,
    licence="annotations CC BY-NC-SA 3.0; clips CC BY-NC-SA 1.0",
    caveat="albums are in one part each, but an artist may be in several; tags that mean the same "
    "are told apart, and a tag not given may still be true",
    # 18,709 / 1,825 / 5,329 with the three broken files, which are in the training folders.
    published={"train": 18_706, "valid": 1_825, "test": 5_329, "classes": 50},
    source="Law et al., ISMIR 2009; https://mirg.city.ac.uk/codeapps/the-magnatagatune-dataset "
    "(counts without the three broken files)",
)
