from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ossicle.datasets.clips import read_clips
from ossicle.errors import DataError


def frame_clips(tree, rows, **kw):
    root = tree(*set(rows["path"]))
    pd.DataFrame(rows).to_csv(root / "m.csv", index=False)
    return read_clips(root / "m.csv", **kw)


def groups_by_name(clips) -> dict[str, str]:
    return {
        p.rsplit("/", 1)[-1]: g
        for p, g in zip(clips.table["path"], clips.table["group"], strict=True)
    }


# --- said by the user ------------------------------------------------------------------------


ESC = [
    *("baby_cry/1-187207-A.ogg", "baby_cry/1-211527-A.ogg", "baby_cry/2-211527-B.ogg"),
    *("rain/1-17367-A.ogg", "rain/3-21189-A.ogg", "rain/5-21190-A.ogg"),
]


def test_patterns_on_file_names(tree):
    clips = read_clips(tree(*ESC), folds=r"/^(\d)-/", groups=r"/-(\d+)-/")
    assert sorted(clips.table["fold"]) == ["1", "1", "1", "2", "3", "5"]
    assert groups_by_name(clips)["1-211527-A.ogg"] == groups_by_name(clips)["2-211527-B.ogg"]
    assert set(clips.groups()) == {"187207", "211527", "17367", "21189", "21190"}


def test_patterns_on_paths(tree):
    root = tree("dog/anna/1.wav", "dog/bert/1.wav", "cat/anna/2.wav")
    assert sorted(read_clips(root, groups="/^[^/]+/([^/]+)//").groups()) == ["anna", "anna", "bert"]
    assert set(read_clips(root, groups="/an+a|bert/").groups()) == {"anna", "bert"}
    assert set(read_clips(root, groups=r"/(\w+)/(\d)/").groups()) == {"anna_1", "anna_2", "bert_1"}


@pytest.mark.parametrize(
    ("kw", "says"),
    [
        ({"groups": "/(/"}, "not a regular expression"),
        ({"groups": "/zebra/"}, "nothing for 6 of 6 clips: baby_cry/1-187207-A.ogg, "),
        ({"folds": "/^(1)-/"}, "nothing for 3 of 6 clips"),
        ({"folds": "speaker"}, "--folds speaker: is not a column .* '/speaker/'"),
        ({"groups": "runs:x"}, "--groups runs:x .* runs:10"),
        ({"groups": "runs:0"}, "runs:10"),
    ],
)
def test_rules_that_do_not_fit(tree, kw, says):
    with pytest.raises(DataError, match=says) as caught:
        read_clips(tree(*ESC), **kw)
    assert "\n" not in str(caught.value)


def test_columns_by_name(tree):
    rows = {"path": ["1.wav", "2.wav", "3.wav"], "label": ["a", "b", "a"], "Bird": ["x", "x", "y"]}
    assert list(frame_clips(tree, rows, groups="bird").groups()) == ["x", "x", "y"]
    assert list(frame_clips(tree, rows, folds="Bird").table["fold"]) == ["x", "x", "y"]
    rows["Bird"][1] = ""
    with pytest.raises(DataError, match=r"nothing for 1 of 3 clips: 2\.wav"):
        frame_clips(tree, rows, groups="Bird")


def test_none_overrules(tree):
    rows = {
        "path": ["1.wav", "2.wav"],
        "label": ["a", "b"],
        "group": ["x", "x"],
        "fold": ["1", "2"],
    }
    clips = frame_clips(tree, rows, groups="none", folds="none")
    assert clips.group_source.startswith("none")
    assert len(set(clips.groups())) == 2 and clips.table["fold"].isna().all()


def test_runs(tree):
    root = tree(*(f"{c}/{c[0]}_{i}.wav" for c in ("dog", "cat") for i in range(25)))
    clips = read_clips(root, groups="runs:10")
    found = groups_by_name(clips)
    assert found["d_0.wav"] == found["d_9.wav"] != found["d_10.wav"]
    assert found["d_0.wav"] != found["c_0.wav"]
    assert len(set(found.values())) == 6
    assert clips.group_source == "blocks of 10 consecutive numbers"


# --- one file, one group ---------------------------------------------------------------------


def test_a_file_never_straddles(tree):
    rows = {
        "path": ["1.wav", "1.wav", "2.wav", "3.wav"],
        "label": list("abab"),
        "onset": [0, 1, 0, 0],
        "offset": [1, 2, 1, 1],
        "group": ["x", "y", "y", "z"],
    }
    clips = frame_clips(tree, rows)
    a, b, c, d = clips.groups()
    assert a == b == c != d
    assert any("joined" in note for note in clips.notes)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=30))
def test_groups_are_the_connected_parts(pairs):
    """Against the definition: keep merging sets that meet until none do."""
    from ossicle.datasets.groups import _join_files

    found = _join_files([str(f) for f, _ in pairs], [f"g{g}" for _, g in pairs], [])
    parts: list[set] = []
    for f, g in pairs:
        meeting = [p for p in parts if ("f", f) in p or ("g", g) in p]
        parts = [p for p in parts if p not in meeting]
        parts.append({("f", f), ("g", g)}.union(*meeting))
    for (f1, _), g1 in zip(pairs, found, strict=True):
        for (f2, _), g2 in zip(pairs, found, strict=True):
            together = any(("f", f1) in p and ("f", f2) in p for p in parts)
            assert (g1 == g2) == together


# --- inferred from columns -------------------------------------------------------------------


def column_rows(**columns):
    n = len(next(iter(columns.values())))
    return {"path": [f"{i}.wav" for i in range(n)], "label": ["a", "b"] * (n // 2), **columns}


def test_speaker_is_found_and_told(tree):
    clips = frame_clips(tree, column_rows(speaker_id=[str(i // 4) for i in range(24)]))
    assert len(set(clips.groups())) == 6 and "speaker_id" in clips.group_source
    assert clips.group_source == "inferred from column 'speaker_id'"
    (note,) = [note for note in clips.notes if "--groups none" in note]
    assert note.startswith("6 groups for 24 files; the largest, '0', has 4 clips, such as 0.wav;")


def test_the_coarser_of_two_is_taken_if_it_leaves_enough(tree):
    speaker = [str(i // 4) for i in range(24)]
    recording = [str(i // 2) for i in range(24)]
    clips = frame_clips(tree, column_rows(recording=recording, speaker=speaker))
    assert "speaker" in clips.group_source and any("recording" in n for n in clips.notes)
    few = [str(i // 12) for i in range(24)]
    clips = frame_clips(tree, column_rows(recording=recording, speaker=few))
    assert "recording" in clips.group_source


def test_columns_that_say_nothing_are_not_used(tree):
    n = 24
    clips = frame_clips(
        tree,
        column_rows(
            source=["web", "own"] * 12, speaker=["one"] * n, track=[str(i) for i in range(n)]
        ),
    )
    assert len(set(clips.groups())) == n
    assert any("'speaker' not used" in note for note in clips.notes)


def test_blank_cells_are_groups_of_their_own(tree):
    speaker = ["p", "p", "q", "q", "r", "r", "", ""]
    clips = frame_clips(tree, column_rows(speaker=speaker))
    assert len(set(clips.groups())) == 5


def test_named_group_is_taken_as_it_is(tree):
    clips = frame_clips(tree, column_rows(group=["g"] * 4))
    assert set(clips.groups()) == {"g"} and clips.group_source == "column 'group'"


def test_subfolders_of_classes(tree):
    names = [f"{c}/rec{r}/{i}.wav" for c in ("dog", "cat") for r in range(6) for i in range(2)]
    assert len(set(read_clips(tree(*names)).groups())) == 6


# --- inferred from names ---------------------------------------------------------------------


def test_stems_of_takes(tree):
    clips = read_clips(tree(*ESC[:2], "baby_cry/1-187207-B.ogg", *ESC[3:], "rain/1-17367-B.ogg"))
    found = groups_by_name(clips)
    assert found["1-187207-A.ogg"] == found["1-187207-B.ogg"] != found["1-211527-A.ogg"]
    assert found["3-21189-A.ogg"] != found["1-17367-A.ogg"] == found["1-17367-B.ogg"]


@pytest.mark.parametrize(
    ("pattern", "n_groups"),
    [
        ("recording{r}_{i:03d}.wav", 10),
        ("recording{r} ({i}).wav", 10),
        ("20000{r}-0-0-{i}.wav", 10),
        ("2020-01-{r:02d}_{i}.wav", 10),
        ("ab{r}f_nohash_{i}.wav", 10),
    ],
)
def test_stems_of_counters(tree, pattern, n_groups):
    names = [
        f"{'dog' if r < 5 else 'cat'}/" + pattern.format(r=r, i=i)
        for r in range(10)
        for i in range(4)
    ]
    clips = read_clips(tree(*names))
    assert len(set(clips.groups())) == n_groups
    assert clips.group_source == "inferred from shared beginnings of file names"


def test_dates_are_not_counters(tree):
    """Each class was recorded on four days of four years."""
    names = [
        f"{c}/202{day}-03-1{day}_{i}.wav"
        for c in ("dog", "cat")
        for day in range(4)
        for i in range(4)
    ]
    names += [name.replace("-03-", "-04-") for name in names]
    clips = read_clips(tree(*names))
    assert len(set(clips.groups())) == 8


@pytest.mark.parametrize(
    "pattern", ["{c}_{i:03d}.wav", "{c} ({i}).wav", "{c}-{i}.wav", "clip_{i}.wav", "{k}_{i}.wav"]
)
def test_counters_alone_do_not_group(tree, pattern):
    names = [
        f"{c}/" + pattern.format(c=c, i=i, k=k)
        for k, c in enumerate(("dog", "cat"))
        for i in range(20)
    ]
    clips = read_clips(tree(*names))
    assert len(set(clips.groups())) == 40
    assert any("runs:10" in note for note in clips.notes)


def test_a_speaker_in_the_names_is_proposed_and_the_proposal_works(tree):
    people = ["george", "jackson", "nicolas", "theo"]
    root = tree(*(f"{d}/{d}_{p}_{i}.wav" for d in range(5) for p in people for i in range(8)))
    clips = read_clips(root)
    assert len(set(clips.groups())) == len(clips)
    note = next(note for note in clips.notes if "george" in note)
    pattern = note.split("--groups '")[1].split("'")[0]
    assert set(read_clips(root, groups=pattern).groups()) == set(people)


def test_a_proposal_for_awkward_names(tree):
    people = ["s03", "x17", "q99"]
    root = tree(
        *(f"my class {d}/{i}-take.{p}-{i}.wav" for d in range(3) for p in people for i in range(9))
    )
    note = next(note for note in read_clips(root).notes if "s03" in note)
    pattern = note.split("--groups '")[1].split("'")[0]
    assert set(read_clips(root, groups=pattern).groups()) == set(people)


def test_real_layouts(shared_data):
    esc = read_clips(shared_data / "esc10")
    said = read_clips(shared_data / "esc10", groups=r"/-(\d+)-/")
    assert pd.Series(esc.groups()).groupby(said.groups()).nunique().max() == 1
    assert len(set(esc.groups())) == len(set(said.groups()))
    fsdd = read_clips(shared_data / "fsdd")
    assert any("/_([a-z]+)_/" in note for note in fsdd.notes)
    assert len(set(read_clips(shared_data / "urbansound_2folds").groups())) == 176
    assert len(set(read_clips(shared_data / "speech_commands_6").groups())) == 803
    assert any("runs:10" in note for note in read_clips(shared_data / "snoring").notes)
