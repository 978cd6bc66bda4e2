"""Who is learnt from and who is judged: no group on both sides, no weak label judged."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ossicle.datasets.strong import StrongClips
from ossicle.errors import DataError
from ossicle.strong.parts import choose_parts


def recordings(
    n: int = 60,
    *,
    split: list[str | None] | None = None,
    weak: tuple[int, ...] = (),
    per_group: int = 3,
    source: str = "column 'group'",
) -> StrongClips:
    rng = np.random.default_rng(0)
    labels = [sorted(set(rng.choice(["a", "b", "c"], rng.integers(0, 4)))) for _ in range(n)]
    files = pd.DataFrame(
        {
            "path": [f"r{i}" for i in range(n)],
            "group": [f"g{i // per_group}" for i in range(n)],
            "split": split or [None] * n,
            "kind": ["weak" if i in weak else "strong" for i in range(n)],
            "labels": labels,
        }
    )
    empty = pd.DataFrame(columns=["file", "onset", "offset", "label", "score"])
    return StrongClips(files, empty, ("a", "b", "c"), "root", [], source)


def groups_of(clips: StrongClips, rows: np.ndarray) -> set[str]:
    return set(clips.files["group"].iloc[rows])


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_in_two_parts_and_weak_labels_are_only_learnt_from(seed):
    clips = recordings(weak=(0, 1, 10, 11, 30, 31, 32))
    parts = choose_parts(clips, seed=seed)
    rows = [parts.train, parts.validation, parts.test]
    for i in range(3):
        for j in range(i):
            assert not groups_of(clips, rows[i]) & groups_of(clips, rows[j])
    kinds = clips.files["kind"].to_numpy()
    assert set(kinds[parts.validation]) == set(kinds[parts.test]) == {"strong"}
    assert len(parts.test) == pytest.approx(12, abs=5)
    assert len(parts.validation) == pytest.approx(9, abs=5)
    left_out = 60 - sum(map(len, rows))
    assert left_out == len(set(range(60)) - set(np.concatenate(rows)))
    assert set(kinds[sorted(set(range(60)) - set(np.concatenate(rows)))]) <= {"weak"}
    # A group of weak recordings alone is always learnt from.
    assert {30, 31, 32} <= set(parts.train)
    again = choose_parts(clips, seed=seed)
    same = zip(rows, [again.train, again.validation, again.test], strict=True)
    assert all(np.array_equal(a, b) for a, b in same)


def test_the_datas_own_split_is_taken():
    split = ["train"] * 30 + ["validation"] * 12 + ["test"] * 18
    parts = choose_parts(recordings(split=split, weak=(3, 31, 59)))
    assert parts.train.tolist() == list(range(30))
    assert parts.validation.tolist() == [30, *range(32, 42)]
    assert parts.test.tolist() == list(range(42, 59))
    assert any("2 recordings with weak labels" in note for note in parts.notes)


def test_a_missing_validation_part_is_taken_from_train():
    clips = recordings(split=["train"] * 45 + ["test"] * 15)
    parts = choose_parts(clips)
    assert parts.test.tolist() == list(range(45, 60))
    assert set(parts.train) | set(parts.validation) == set(range(45))
    assert len(parts.validation) > 2
    assert not groups_of(clips, parts.train) & groups_of(clips, parts.validation)


def test_groups_that_straddle_the_split_are_refused_unless_they_were_guessed():
    split = ["train"] * 29 + ["validation"] * 13 + ["test"] * 18
    with pytest.raises(DataError, match="a group is in two parts"):
        choose_parts(recordings(split=split))
    parts = choose_parts(recordings(split=split, source="inferred from the names"))
    assert any("are not used" in note for note in parts.notes)


def test_absent_classes_are_told():
    clips = recordings(split=["train"] * 30 + ["validation"] * 12 + ["test"] * 18)
    clips.files["labels"] = [["a", "b", "c"]] * 30 + [["a"]] * 12 + [["a", "b"]] * 18
    notes = choose_parts(clips).notes
    assert "not in the validation part: b, c" in notes
    assert "not in the test part: c" in notes


@pytest.mark.parametrize(
    ("clips", "said"),
    [
        (recordings(weak=tuple(range(60))), "no recording has strong labels"),
        (recordings(per_group=60), "of one group"),
        (recordings(split=["train"] * 60), "it has train"),
        (
            recordings(split=["train"] * 30 + ["test"] * 30, weak=tuple(range(30, 60))),
            "the test part has no recording with strong labels",
        ),
    ],
)
def test_what_cannot_be_split_is_refused(clips, said):
    with pytest.raises(DataError) as caught:
        choose_parts(clips)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
