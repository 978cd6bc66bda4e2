"""No two parts share a file, its bytes or a group; shares are kept as well as may be."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from ossicle.datasets.mixtures.parts import deal, split_clips
from ossicle.datasets.mixtures.settings import PARTS, MixtureSettings
from ossicle.datasets.mixtures.sources import Clip
from ossicle.errors import DataError


def clip(name: str, group: str, **other) -> Clip:
    """A clip of a table, as if it had been read."""
    values = {
        **{"table": 0, "path": f"/d/{name}", "name": name, "onset": None, "offset": None},
        **{"identity": group, "group": group, "label": "word", "apart": (), "split": None},
        **{"fold": None, "sha256": f"sum of {name}", "size": 8000, "active": np.ones(20, bool)},
    }
    return Clip(**{**values, **other})


def apart(*groups: str) -> dict:
    return {"apart": tuple(f"group {group}" for group in groups)}


def shared(parts, key) -> set:
    """What two parts have in common."""
    held = {name: {key(c) for c in clips} for name, clips in parts.items()}
    return set().union(*(held[a] & held[b] for a, b in combinations(held, 2)))


@st.composite
def tables(draw):
    """Clips with any groups, files (that may hold several segments) and copies."""
    clips = []
    for number in range(draw(st.integers(1, 40))):
        group = draw(st.sampled_from("abcdefgh"))
        file = draw(st.integers(0, 30))
        clips.append(
            clip(
                f"{file}.wav",
                group,
                onset=float(number),
                offset=number + 1.0,
                sha256=str(file % draw(st.integers(10, 31))),
                label=draw(st.sampled_from("xyz")),
            )
        )
    return clips


@examples(deadline=None)
@given(tables(), st.sampled_from(["clips", "groups"]), st.integers(0, 5), st.booleans())
def test_parts_share_nothing(clips, disjoint, seed, with_unseen):
    if disjoint == "groups":
        clips = [c._replace(**apart(c.group)) for c in clips]
    settings = MixtureSettings(disjoint=disjoint, seed=seed, unseen=0.3 * with_unseen)
    parts, _ = split_clips(clips, ["clips"], settings)
    assert not shared(parts, lambda c: c.path)
    assert not shared(parts, lambda c: c.sha256)
    if disjoint == "groups":
        assert not shared(parts, lambda c: c.group)
    unseen = {c.group for c in parts["unseen"]}
    assert not unseen & {c.group for name in PARTS[:3] for c in parts[name]}
    assert bool(parts["unseen"]) == with_unseen


@examples(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.sampled_from("ab")), min_size=1, max_size=60),
    st.integers(0, 3),
)
def test_units_are_dealt_whole_whatever_the_order(rows, seed):
    units = [unit for unit, _ in rows]
    strata = [stratum for _, stratum in rows]
    part = deal(units, strata, (3, 1, 1), np.random.default_rng(seed))
    assert len(set(zip(units, part, strict=True))) == len(set(units))
    assert set(deal(units, strata, (1, 0, 2), np.random.default_rng(seed))) <= {0, 2}


def test_each_speaker_is_dealt_in_the_shares():
    clips = [clip(f"{speaker}{i}", speaker) for speaker in "abc" for i in range(50)]
    parts, notes = split_clips(clips, ["clips"], MixtureSettings(disjoint="clips"))
    counts = {
        (name, speaker): sum(c.group == speaker for c in parts[name])
        for name in PARTS[:3]
        for speaker in "abc"
    }
    assert counts == {
        (name, speaker): many
        for name, many in (("train", 30), ("valid", 10), ("test", 10))
        for speaker in "abc"
    }
    assert notes == []


def test_each_kind_of_noise_is_in_each_part():
    clips = [
        clip(f"{kind}{i}", f"{kind}{i}", label=kind, **apart(f"{kind}{i}"))
        for kind in ("rain", "siren", "engine")
        for i in range(10)
    ]
    parts, _ = split_clips(clips, ["clips"], MixtureSettings())
    for name, many in (("train", 6), ("valid", 2), ("test", 2)):
        for kind in ("rain", "siren", "engine"):
            assert sum(c.label == kind for c in parts[name]) == many


def test_another_seed_deals_otherwise_and_the_rows_order_does_not():
    clips = [clip(f"{i:02d}", f"g{i}", **apart(f"g{i}")) for i in range(30)]

    def test_part(clips, seed):
        return {c.name for c in split_clips(clips, [""], MixtureSettings(seed=seed))[0]["test"]}

    assert test_part(clips, 0) == test_part(clips[::-1], 0)
    assert test_part(clips, 0) != test_part(clips, 1)


def test_copies_are_in_one_part_and_told():
    clips = [clip(f"{i:02d}.wav", f"g{i}", sha256=str(i % 20), **apart(f"g{i}")) for i in range(40)]
    parts, notes = split_clips(clips, ["clips"], MixtureSettings())
    assert sum(map(len, parts.values())) == 20
    assert not shared(parts, lambda c: c.sha256)
    assert notes[0].startswith("left out 20 clips whose bytes are there twice: ")


def test_a_copy_in_another_fold_is_kept_for_the_test():
    # Other stretches of the same recording, under another name.
    clips = [
        clip(f"{i}.wav", f"g{i}", fold=str(i % 2), sha256=str(i // 2), onset=float(i))
        for i in range(12)
    ]
    settings = MixtureSettings(disjoint="clips", test_folds=("1",), shares=(1, 0, 1))
    parts, notes = split_clips(clips[:-1], ["clips"], settings)
    assert [c.name for c in parts["train"]] == ["10.wav"]
    assert len(parts["test"]) == 5
    assert notes[0].startswith("left out 5 clips whose bytes are there twice: 0.wav, 2.wav")


def test_groups_of_all_sizes_are_dealt_in_the_shares():
    clips = [
        clip(f"{size}-{i}", f"g{size}", **apart(f"g{size}"))
        for size in range(1, 21)
        for i in range(size)
    ]
    for seed in range(5):
        parts, _ = split_clips(clips, ["clips"], MixtureSettings(seed=seed))
        assert [len(parts[name]) for name in PARTS[:3]] == pytest.approx([126, 42, 42], abs=1)


def test_groups_by_name_are_unseen_with_all_that_shares_their_files():
    clips = [clip(f"{s}{i}", s) for s in "abcd" for i in range(10)]
    clips.append(clip("copy", "b", sha256="sum of a0"))
    settings = MixtureSettings(disjoint="clips", unseen=("a", "d"))
    parts, notes = split_clips(clips, ["clips"], settings)
    assert {c.name for c in parts["unseen"]} == {f"{s}{i}" for s in "ad" for i in range(10)}
    assert "copy" not in {c.name for name in PARTS for c in parts[name]}
    assert notes == ["left out 1 clips that share a file or a group with unseen ones"]


def test_a_role_without_unseen_groups_has_its_test_clips_there():
    clips = [clip(f"s{i}", f"s{i}", **apart(f"s{i}")) for i in range(10)]
    clips += [clip(f"n{i}", f"n{i}", table=1, **apart(f"n{i}")) for i in range(10)]
    parts, notes = split_clips(clips, ["speech", "noise"], MixtureSettings(unseen=("s3",)))
    noise = {name: {c.name for c in parts[name] if c.table == 1} for name in PARTS}
    assert noise["unseen"] == noise["test"] != set()
    assert {c.name for c in parts["unseen"] if c.table == 0} == {"s3"}
    assert notes == ["unseen has the test clips of noise, none of which is held out"]


def test_a_song_of_two_tables_is_in_one_part():
    clips = [
        clip(f"{table}-{i}", f"song {i}", table=table, path=f"/{table}/{i}", **apart(f"song {i}"))
        for table in (0, 1)
        for i in range(20)
    ]
    parts, _ = split_clips(clips, ["vocals", "drums"], MixtureSettings(unseen=0.2))
    assert not shared(parts, lambda c: c.group)
    assert len(parts["unseen"]) == 8


def test_folds_say_which_part_and_what_they_lack_is_drawn():
    clips = [
        clip(f"{fold}{i}", f"{fold}{i}", fold=fold, **apart(f"{fold}{i}"))
        for fold in "123"
        for i in range(8)
    ]
    settings = MixtureSettings(test_folds=("3",))
    parts, notes = split_clips(clips, ["clips"], settings)
    assert {c.fold for c in parts["test"]} == {"3"} == {c.fold for c in clips} - {"1", "2"}
    assert {c.fold for name in ("train", "valid") for c in parts[name]} == {"1", "2"}
    assert (len(parts["train"]), len(parts["valid"])) == (12, 4)
    assert notes == ["clips: valid drawn from the training part"]
    given = MixtureSettings(valid_folds=("1",), test_folds=("3",))
    parts, notes = split_clips(clips, ["clips"], given)
    assert [{c.fold for c in parts[name]} for name in PARTS[:3]] == [{"2"}, {"1"}, {"3"}]
    assert notes == []


def test_a_split_is_taken_as_it_is():
    clips = [
        clip(f"{split}{i}", f"{split}{i}", split=split)
        for split in ("training", "dev", "TEST")
        for i in range(3)
    ]
    parts, _ = split_clips(clips, ["clips"], MixtureSettings(use_split=True))
    assert {c.split for c in parts["valid"]} == {"dev"}
    assert {c.split for c in parts["test"]} == {"TEST"}


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({}, {"test_folds": ("1",)}, "have no folds"),
        ({}, {"use_split": True}, "have no splits"),
        ({"fold": "1"}, {"test_folds": ("9",)}, "there is no fold 9: the clips have 1"),
        ({}, {"unseen": ("zoe",)}, "unseen: there is no group zoe: a, b"),
        ({"split": "later"}, {"use_split": True}, "clips: 0.wav has the split later"),
    ],
)
def test_what_is_refused(changes, settings, message):
    clips = [clip(f"{i}.wav", "ab"[i % 2], **changes) for i in range(10)]
    with pytest.raises(DataError, match=message):
        split_clips(clips, ["clips"], MixtureSettings(**settings))


def test_folds_that_tear_a_group_are_refused():
    clips = [clip(f"{i}.wav", "a", fold=str(i % 2), **apart("a")) for i in range(4)]
    with pytest.raises(DataError, match="group a is in train and in test: choose folds"):
        split_clips(clips, ["clips"], MixtureSettings(test_folds=("1",)))
