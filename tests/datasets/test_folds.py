from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ossicle.datasets.folds import (
    TooFewGroupsError,
    _repair,
    check_folds,
    make_folds,
    predefined_folds,
    predefined_split,
    random_folds,
    usable_folds,
)
from ossicle.errors import DataError


def fold_of(folds, n):
    result = np.full(n, -1)
    for k, (train, test) in enumerate(folds):
        assert (result[test] == -1).all()
        result[test] = k
        assert np.array_equal(np.sort(np.r_[train, test]), np.arange(n))
    return result


def groups_straddle(folds, groups):
    return any(set(groups[train]) & set(groups[test]) for train, test in folds)


@st.composite
def problems(draw):
    n_groups = draw(st.integers(6, 25))
    sizes = draw(st.lists(st.integers(1, 6), min_size=n_groups, max_size=n_groups))
    seed = draw(st.integers(0, 99))
    task = draw(st.sampled_from(["classes", "multilabel", "regression"]))
    rng = np.random.default_rng(seed)
    groups = np.repeat([f"g{i}" for i in range(n_groups)], sizes)
    n = len(groups)
    if task == "classes":
        y = rng.integers(0, draw(st.integers(1, 4)), n)
    elif task == "multilabel":
        y = (rng.random((n, 3)) < 0.4).astype(int)
    else:
        y = np.round(rng.normal(size=n), draw(st.integers(0, 3)))
    order = rng.permutation(n)
    return task, y[order], groups[order], draw(st.integers(2, 6)), seed


@settings(max_examples=60, deadline=None)
@given(problems())
def test_invariants(problem):
    task, y, groups, n_folds, seed = problem
    rare = "train"
    try:
        folds = make_folds(y, groups, n_folds, task=task, random_state=seed, rare=rare)
    except DataError as error:
        assert "folds" in str(error)
        return
    check_folds(folds, groups)
    assert not groups_straddle(folds, groups)
    assert len(folds) == usable_folds(y, groups, n_folds, task=task, rare=rare)[0] <= n_folds
    assert all(len(test) for _, test in folds)
    tested = np.zeros(len(groups), int)
    for train, test in folds:
        tested[test] += 1
        assert np.array_equal(np.sort(np.r_[train, test]), np.arange(len(groups)))
        if task == "classes":
            assert set(y[test]) <= set(y[train])
        if task == "multilabel":
            assert not (y[test].any(axis=0) & ~y[train].any(axis=0)).any()
    lonely = set()
    if task != "regression":
        columns = y if task == "multilabel" else (y[:, None] == np.unique(y)).astype(int)
        for column in columns.T:
            holders = set(groups[column > 0])
            lonely |= holders if len(holders) == 1 else set()
    assert np.array_equal(tested, (~np.isin(groups, list(lonely))).astype(int))


@settings(max_examples=25, deadline=None)
@given(problems(), st.integers(0, 9))
def test_the_order_of_rows_does_not_matter(problem, shuffle):
    task, y, groups, n_folds, seed = problem
    order = np.random.default_rng(shuffle).permutation(len(groups))
    try:
        plain = make_folds(y, groups, n_folds, task=task, random_state=seed, rare="train")
    except DataError:
        return
    mixed = make_folds(y[order], groups[order], n_folds, task=task, random_state=seed, rare="train")
    for (_, test), (_, test_mixed) in zip(plain, mixed, strict=True):
        assert set(test) == set(order[test_mixed])


@pytest.mark.parametrize("seed", range(3))
def test_balance_of_classes(seed):
    rng = np.random.default_rng(seed)
    y = rng.choice(4, 600, p=[0.5, 0.3, 0.15, 0.05])
    groups = np.array(
        [f"{label}-{i}" for label, i in zip(y, rng.integers(0, 40, 600), strict=True)]
    )
    folds = make_folds(y, groups, 5, task="classes", random_state=seed)
    whole = np.bincount(y, minlength=4) / len(y)
    for _, test in folds:
        assert abs(len(test) - 120) <= 12
        np.testing.assert_allclose(np.bincount(y[test], minlength=4) / len(test), whole, atol=0.04)


def test_balance_of_labels_and_targets():
    rng = np.random.default_rng(0)
    y = (rng.random((1000, 5)) < [0.5, 0.3, 0.1, 0.05, 0.02]).astype(int)
    groups = rng.integers(0, 250, 1000)
    for _, test in make_folds(y, groups, 5, task="multilabel"):
        assert abs(len(test) - 200) <= 30
        share = y[test].sum(axis=0) / y.sum(axis=0)
        assert (abs(share - 0.2) < 0.1).all()
    uneven = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        groups = rng.integers(0, 60, 600)
        y = (rng.random((600, 5)) < [0.4, 0.2, 0.1, 0.06, 0.03]).astype(int)
        for _, test in make_folds(y, groups, 5, task="multilabel", random_state=seed):
            uneven.append(abs(y[test].sum(axis=0) / y.sum(axis=0) - 0.2).mean())
    assert np.mean(uneven) < 0.02  # 0.029 when balancing clips alone
    # Big groups, each with one rare label: a fold each, whatever else they hold.
    y = np.zeros((100, 2), int)
    y[:, 0] = np.arange(100) < 50
    y[::10, 1] = 1
    groups = np.arange(100) // 10
    for seed in range(10):
        for _, test in make_folds(y, groups, 5, task="multilabel", random_state=seed):
            assert len(test) == 20 and y[test, 0].sum() in (10, 20, 0) and y[test, 1].sum() == 2
        sizes = np.repeat(np.arange(8), [20, 10, 10, 5, 5, 5, 3, 2])
        ones = np.ones((60, 1), int)
        folds = make_folds(ones, sizes, 3, task="multilabel", random_state=seed)
        assert [len(test) for _, test in folds] == [20, 20, 20]
    # The label, not the number of clips, decides: a third of the carriers in each fold.
    groups = np.arange(90)
    y = np.zeros((90, 2), int)
    y[:9, 0], y[9:, 1] = 1, 1
    for _, test in make_folds(y, groups, 3, task="multilabel"):
        assert y[test, 0].sum() == 3 and y[test, 1].sum() == 27
    groups, target = rng.integers(0, 250, 1000), rng.gamma(1.0, size=1000)
    for _, test in make_folds(target, groups, 5, task="regression"):
        assert abs(np.median(target[test]) - np.median(target)) < 0.15
        assert abs(target[test].mean() - target.mean()) < 0.15


def test_seed_decides():
    y, groups = np.repeat([0, 1], 50), np.arange(100)
    a, b, c = (make_folds(y, groups, task="classes", random_state=s) for s in (1, 1, 2))
    assert all(np.array_equal(p[1], q[1]) for p, q in zip(a, b, strict=True))
    assert not all(np.array_equal(p[1], q[1]) for p, q in zip(a, c, strict=True))


def test_two_groups_of_a_class_go_to_two_folds():
    y = np.array([0, 0, 1, 1, 2, 2] + [3] * 60)
    groups = np.array(list("abcdef") + [f"x{i}" for i in range(60)])
    for seed in range(20):
        for train, test in make_folds(y, groups, 5, task="classes", random_state=seed):
            assert set(y[test]) <= set(y[train])


def test_repair_moves_what_must_be_moved():
    """Class 0 is in groups 0 and 1, both in fold 0; fold 2 is empty."""
    present = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [0, 1]], bool)
    fold = np.array([0, 0, 1, 1, -1])
    _repair(fold, present, 3)
    assert fold[0] != fold[1] and set(fold[:4]) == {0, 1, 2} and fold[4] == -1
    with pytest.raises(DataError, match="fewer folds"):
        _repair(np.array([0, 1]), np.array([[1, 0], [0, 1]], bool), 2)


def test_no_class_is_tested_untrained():
    """Few groups of uneven size, where balance alone puts all of a class into one fold."""
    for seed in range(300, 400):
        for task in ("classes", "multilabel"):
            rng = np.random.default_rng(seed)
            n_groups = rng.integers(4, 12)
            groups = np.repeat(np.arange(n_groups), rng.integers(1, 8, n_groups))
            y = rng.integers(0, 4, len(groups))
            if task == "multilabel":
                y = (rng.random((len(groups), 4)) < 0.25).astype(int)
            try:
                folds = make_folds(
                    y, groups, rng.integers(2, 6), task=task, random_state=seed, rare="train"
                )
            except DataError:
                continue
            columns = y if task == "multilabel" else y[:, None] == np.arange(4)
            for train, test in folds:
                assert not (columns[test].any(axis=0) & ~columns[train].any(axis=0)).any()


def test_rare_classes():
    y = np.array([0] * 10 + [1] * 10 + [2, 2])
    groups = np.array([f"g{i}" for i in range(20)] + ["h", "h"])
    with pytest.raises(DataError, match=r"1 of the classes .* zebra \(group 'h'\).*rare='train'"):
        make_folds(y, groups, task="classes", classes=("a", "b", "zebra"))
    folds = make_folds(y, groups, task="classes", rare="train")
    assert all({20, 21} <= set(train) and not {20, 21} & set(test) for train, test in folds)


def test_fewer_groups_than_folds():
    y, groups = np.tile([0, 1], 9), np.repeat(list("abc"), 6)
    assert len(make_folds(y, groups, 5, task="classes")) == 3
    assert usable_folds(y, groups, 5, task="classes") == (
        3,
        "3 folds instead of 5, as there are only 3 groups",
    )
    assert usable_folds(y, groups, 3, task="classes") == (3, None)
    for bad in (np.repeat("a", 18), None):
        with pytest.raises(DataError, match="folds"):
            make_folds(y, bad, 5 if bad is not None else 1, task="classes")


@pytest.mark.parametrize(
    ("y", "groups", "says"),
    [
        ([0, 0, 1, 1], "aabb", r"class 'dog' has clips of one group only, and so has 'rain': noth"),
        ([0, 0, 1, 2], "abbc", r"class 'rain' .* one group only, and so has 'wind': one group is"),
        ([0, 1, 2], "abc", r"class 'dog' has one clip only, and so have 'rain', 'wind': nothing"),
        ([0, 1, 1], "aaa", r"all 3 clips are of one group: nothing to test on"),
        ([0], "a", r"there is only one clip: nothing to test on"),
    ],
)
def test_classes_in_one_group_only_are_named(y, groups, says):
    classes = ("dog", "rain", "wind")
    for make in (usable_folds, make_folds):
        with pytest.raises(TooFewGroupsError, match=says) as caught:
            make(np.array(y), list(groups), task="classes", rare="train", classes=classes)
        assert "two groups or more" in str(caught.value)


def test_too_few_groups_of_several_labels_and_of_numbers():
    tags = np.array([[1, 0], [1, 0], [1, 1]])
    with pytest.raises(TooFewGroupsError, match="class 'wind' .* one group is left"):
        usable_folds(tags, list("aab"), task="multilabel", rare="train", classes=("rain", "wind"))
    with pytest.raises(TooFewGroupsError, match="all 3 clips are of one group"):
        usable_folds(np.array([0.1, 0.2, 0.3]), list("aaa"), task="regression", rare="train")


@pytest.mark.parametrize(
    ("y", "task"),
    [
        (np.zeros((4, 2)), "classes"),
        (np.zeros(4), "multilabel"),
        (np.array([0, np.nan, 1, 2]), "regression"),
        (np.zeros(4), "other"),
    ],
)
def test_bad_targets(y, task):
    with pytest.raises(DataError):
        make_folds(y, list("abcd"), 2, task=task)


def test_random_folds_disregard_groups():
    y, groups = np.tile([0, 1], 50), np.repeat(np.arange(10).astype(str), 10)
    folds = random_folds(y, 5, task="classes")
    assert (fold_of(folds, 100) >= 0).all()
    with pytest.raises(DataError, match="both trained on and tested"):
        check_folds(folds, groups)


def test_predefined_folds():
    folds = predefined_folds(["10", "2", "2", "10", "1"])
    assert [test.tolist() for _, test in folds] == [[4], [1, 2], [0, 3]]
    assert fold_of(folds, 5).min() == 0
    assert [t.tolist() for _, t in predefined_folds([2.0, 1.0])] == [[1], [0]]
    for bad in (["1", None], ["1", float("nan")], ["1", "1"], []):
        with pytest.raises(DataError):
            predefined_folds(bad)


@pytest.mark.parametrize(
    ("values", "train", "validation", "test", "note"),
    [
        (["Training", "validation"], [0], [], [1], "reported on validation"),
        (["test", "train"], [1], [], [0], "reported on test"),
        (["dev", "testing", "train"], [2], [0], [1], "chosen on validation"),
    ],
)
def test_predefined_split(values, train, validation, test, note):
    split = predefined_split(values)
    assert (split.train.tolist(), split.validation.tolist(), split.test.tolist()) == (
        *(train, validation, test),
    )
    assert note in split.note


@pytest.mark.parametrize(
    ("values", "says"),
    [(["train", "extra"], "extra"), (["train", None], "nothing"), (["train"], "it has train")],
)
def test_bad_splits(values, says):
    with pytest.raises(DataError, match=says):
        predefined_split(values)


def test_check_folds_names_what_is_wrong():
    def index(*items):
        return np.array(items)

    groups = list("aabbcc")
    check_folds([(index(0, 1), index(2, 3))], groups)
    for folds, says in [
        ([], "no folds"),
        ([(index(0, 2), index(1, 3))], "fold 1: 2 groups .*: a, b"),
        ([(index(0, 1), index(1, 2))], "tests clips that it trains on"),
        ([(index(0), index(9))], "outside"),
        ([(index(0), np.zeros(0, int))], "no clips to test on"),
    ]:
        with pytest.raises(DataError, match=says):
            check_folds(folds, groups)


def test_official_folds_of_real_data(shared_data):
    from ossicle.datasets.clips import read_clips

    clips = read_clips(shared_data / "esc10", folds=r"/^(\d)-/", groups=r"/-(\d+)-/")
    folds = predefined_folds(clips.table["fold"])
    check_folds(folds, clips.groups())
    assert [len(test) for _, test in folds] == [80] * 5
    split = predefined_split(read_clips(shared_data / "speech_commands_6").table["split"])
    assert (len(split.train), len(split.test)) == (960, 240)
