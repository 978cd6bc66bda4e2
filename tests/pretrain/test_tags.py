"""Tag tables: the most frequent tags, and long tables with scores."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ossicle.datasets.clips import Clips, read_clips
from ossicle.errors import DataError
from ossicle.pretrain.tags import read_tag_table, top_tags

TAGS = ["rock;pop", "pop;jazz", "", "rock", "folk", "pop;jazz;rock", "indie"]


@pytest.fixture
def manifest(tmp_path) -> Path:
    for number in range(len(TAGS)):
        (tmp_path / f"{number}.wav").touch()
    lines = [f"{number}.wav,{tags}" for number, tags in enumerate(TAGS)]
    (tmp_path / "tags.csv").write_text("path,tags\n" + "\n".join(lines) + "\n")
    return tmp_path / "tags.csv"


def names(clips: Clips) -> list[int]:
    return [int(Path(path).stem) for path in clips.table["path"]]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 99])
@pytest.mark.parametrize("keep", [False, True])
def test_the_most_frequent_tags_are_kept(manifest, n, keep):
    # rock and pop 3 each, jazz 2, folk and indie 1 each; ties by name.
    chosen = ["pop", "rock", "jazz", "folk", "indie"][:n]
    clips = top_tags(read_clips(manifest), n, keep_untagged=keep)
    assert clips.task == "multilabel"
    assert clips.classes == tuple(sorted(chosen))
    rows = [[tag for tag in tags.split(";") if tag in chosen] for tags in TAGS]
    kept = [i for i, row in enumerate(rows) if row or keep]
    assert names(clips) == kept
    want = [[int(tag in rows[i]) for tag in sorted(chosen)] for i in kept]
    assert np.array_equal(clips.y(), want)
    bare = sum(not row for row in rows)
    assert any(f"{bare} of {len(TAGS)} clips" in note for note in clips.notes)
    assert any(f"{len(chosen)} most frequent of 5 tags" in note for note in clips.notes)


def test_the_clips_themselves_stay_as_they_are(manifest):
    clips = read_clips(manifest)
    before = (clips.table.copy(deep=True), list(clips.notes), clips.classes)
    top_tags(clips, 1)
    pd.testing.assert_frame_equal(clips.table, before[0])
    assert (clips.notes, clips.classes) == before[1:]


def test_classes_become_tags(carried_clips):
    clips = read_clips(carried_clips)
    counts = Counter(clips.table["label"])
    chosen = sorted(sorted(counts), key=lambda name: -counts[name])[:2]
    result = top_tags(clips, 2)
    assert result.classes == tuple(sorted(chosen))
    assert len(result) == counts[chosen[0]] + counts[chosen[1]]
    assert (result.y().sum(1) == 1).all()
    assert list(result.table["path"]) == [
        path for path, label in clips.table[["path", "label"]].to_numpy() if label in chosen
    ]


def test_what_has_no_tags_is_refused(manifest):
    clips = read_clips(manifest)
    with pytest.raises(DataError, match="1 or more"):
        top_tags(clips, 0)
    with pytest.raises(DataError, match="no tags"):
        top_tags(clips.subset([2]), 3)
    numbers = clips.table.assign(label=0.5)
    with pytest.raises(DataError, match="numbers"):
        top_tags(Clips(numbers, "regression", (), clips.root), 3)


# --- long tables -----------------------------------------------------------------------------

LONG = """track,tag,score
TRA,rock,100
TRA,pop,50
TRA,jazz,50.5
TRB,rock,3
deep/TRC,folk,71
deep/TRC,folk,80
TRD.ogg, pop ,99
TRE,pop,100
"""


@pytest.fixture
def music(tmp_path) -> Path:
    for name in ("A/TRA.mp3", "A/TRB.mp3", "deep/TRC.wav", "TRD.ogg", "other.wav"):
        (tmp_path / "music" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "music" / name).touch()
    (tmp_path / "tags.csv").write_text(LONG)
    return tmp_path / "music"


def tags_of(clips: Clips) -> dict[str, list[str]]:
    return {Path(path).stem: label for path, label in clips.table[["path", "label"]].to_numpy()}


def test_only_scores_above_the_threshold_count(music):
    clips = read_tag_table(music.parent / "tags.csv", music)
    assert tags_of(clips) == {
        "TRA": ["rock", "jazz"],  # 50 is not above 50
        "TRB": [],
        "TRC": ["folk"],
        "TRD": ["pop"],
    }
    assert clips.task == "multilabel"
    assert clips.classes == ("folk", "jazz", "pop", "rock")
    assert clips.root == music
    assert any("1 tracks without a file" in note and "TRE" in note for note in clips.notes)
    every = tags_of(read_tag_table(music.parent / "tags.csv", music, min_score=0))
    assert every["TRA"] == ["rock", "pop", "jazz"]
    assert every["TRB"] == ["rock"]
    assert names_left(top_tags(clips, 2)) == {"TRC", "TRA"}  # four alike: folk and jazz


def names_left(clips: Clips) -> set[str]:
    return {Path(path).stem for path in clips.table["path"]}


def test_a_table_beside_the_music_and_without_scores(music):
    path = music / "tags.tsv"
    path.write_text("track_id\ttag\nTRA\trock\nTRA\tnice; slow\nTRB\tpop\n")
    assert tags_of(read_tag_table(path)) == {"TRA": ["rock", "nice; slow"], "TRB": ["pop"]}


def test_tables_that_cannot_be_used_are_named(music):
    table = music.parent / "tags.csv"
    with pytest.raises(DataError, match=r"above 100.*min_score"):
        read_tag_table(table, music, min_score=100)
    with pytest.raises(DataError, match="no such file"):
        read_tag_table(music / "nowhere.csv")
    with pytest.raises(DataError, match="5 tracks in tags.csv, such as TRA"):
        read_tag_table(table, music / "nowhere")
    table.write_text("track,score\nTRA,1\n")
    with pytest.raises(DataError, match="track,tag,score; this has track, score"):
        read_tag_table(table, music)
    table.write_text("track,tag,score\nTRA,rock,100\nTRB,rock,much\n")
    with pytest.raises(DataError, match="row 2: the score 'much'"):
        read_tag_table(table, music)
    (music / "deep" / "TRA.wav").touch()
    table.write_text("track,tag,score\nTRA,rock,100\n")
    with pytest.raises(DataError, match="'TRA' could be"):
        read_tag_table(table, music)
    table.write_text("track,tag,score\nA/TRA,rock,100\n")
    assert tags_of(read_tag_table(table, music)) == {"TRA": ["rock"]}
