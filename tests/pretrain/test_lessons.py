"""What a student learns from: questions read from labels, variances, rows side by side."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from ossicle.datasets.clips import Clips, read_clips
from ossicle.errors import DataError, OssicleError
from ossicle.pretrain import lessons
from ossicle.pretrain.lessons import Lessons, prepare_lessons, read_facets
from ossicle.pretrain.settings import Settings
from ossicle.pretrain.teachers import Targets

RATE = 8000
K = 4
SETTINGS = Settings(
    objective="distill", teachers=("yamnet",), window_s=(0.25, 0.5), options={"labels": 0.3}
)


def clips_of(labels: list, task: str = "multilabel") -> Clips:
    """Names alone: labels are read before any sound."""
    table = pd.DataFrame({"path": [f"/s/{i}.wav" for i in range(len(labels))], "label": labels})
    table["onset"] = table["offset"] = np.nan
    table["group"] = "g"
    flat = [x for row in labels for x in row] if task == "multilabel" else labels
    classes = () if task == "regression" else tuple(sorted(set(flat)))
    return Clips(table, task, classes, Path("/s"))


# --- facets ----------------------------------------------------------------------------------


def test_every_name_is_a_question_of_its_own():
    labels = [
        *[["pitch:60", "instrument:guitar"], ["pitch:61", "instrument:oboe"]] * 2,
        ["pitch:60"],
        ["instrument:oboe", "loud"],  # what has no colon does not count
        [],
    ]
    facets = read_facets(clips_of(labels), fewest=1)
    assert facets.classes == {"instrument": ("guitar", "oboe"), "pitch": ("60", "61")}
    assert list(facets.classes) == ["instrument", "pitch"]
    assert facets.numbers.dtype == np.int64
    want = [[0, 0], [1, 1], [0, 0], [1, 1], [-1, 0], [1, -1], [-1, -1]]
    assert facets.numbers.tolist() == want


def test_values_may_have_colons_and_one_label_is_enough():
    facets = read_facets(clips_of(["at:12:30", "at:12:45"] * 4, "classes"))
    assert facets.classes == {"at": ("12:30", "12:45")}
    assert facets.numbers.tolist() == [[0], [1]] * 4


def test_rare_classes_are_not_known_by_name():
    """Three clips are too few; a question with one answer is none."""
    labels = [["word:house"]] * 4 + [["word:tree"]] * 5 + [["word:rare"]] * 3
    labels += [["voice:only"]] * 9 + [["key:c"]] * 4 + [["key:d"]] * 3
    facets = read_facets(clips_of(labels))
    assert facets.classes == {"word": ("house", "tree")}
    assert facets.numbers[:, 0].tolist() == [0] * 4 + [1] * 5 + [-1] * 19
    some = read_facets(clips_of(labels), fewest=3)
    assert some.classes == {"key": ("c", "d"), "word": ("house", "rare", "tree")}


def test_labels_of_another_form_are_no_facets():
    for labels, task in (([["a"], ["b"]], "multilabel"), (["a", "b"], "classes")):
        facets = read_facets(clips_of(labels, task))
        assert facets.classes == {}
        assert facets.numbers.shape == (2, 0)


def test_two_values_of_one_facet_name_the_file():
    labels = [["pitch:60"], ["pitch:60", "word:a", "pitch:61"]]
    with pytest.raises(DataError) as caught:
        read_facets(clips_of(labels))
    message = str(caught.value)
    assert message == "/s/1.wav: has two values of one facet among pitch:60, word:a, pitch:61"


def test_numbers_are_no_facets():
    with pytest.raises(DataError, match="NAME:VALUE; these are numbers"):
        read_facets(clips_of([0.5, 1.5], "regression"))


# --- lessons ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Clips:
    """Eleven sounds, the fourth broken; a manifest tells pitch, and a voice of some."""
    root = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(11):
        n = int(rng.integers(RATE // 5, RATE))
        soundfile.write(root / f"{i}.wav", 0.1 * rng.normal(size=n), RATE)
        label = f"pitch:{i % 2}" + (f";voice:{'ab'[i > 8]}" if i in (1, 2, 9, 10) else "")
        rows.append({"path": f"{i}.wav", "label": label, "group": "g"})
    (root / "3.wav").write_bytes(b"RIFF, but no sound")
    pd.DataFrame(rows).to_csv(root / "clips.csv", index=False)
    return read_clips(root / "clips.csv", labels="multilabel")


@pytest.fixture(autouse=True)
def taught(tmp_path, monkeypatch) -> list[tuple]:
    """Teachers who say what a seed says; what they were asked."""
    asked = []

    def learn_targets(waveforms, windows, names, key, *, made, workers, seed, progress):
        asked.append((names, key, workers, seed))
        rng = np.random.default_rng(len(windows))
        values = (rng.normal(size=(len(windows), K)) * [3, 1, 0.5, 0.01]).astype(np.float16)
        return Targets(values, {"yamnet": K}, {"yamnet": "Apache-2.0"}, {})

    monkeypatch.setattr(lessons, "learn_targets", learn_targets)
    monkeypatch.setenv("OSSICLE_CACHE", str(tmp_path / "cache"))
    return asked


def settings(**more) -> Settings:
    return Settings(**{**SETTINGS.__dict__, **more})


def number_of(done: Lessons, place: int) -> int:
    """Of the sound that a window is cut from."""
    return int(Path(done.waveforms.names[done.windows.items[place]]).stem)


def test_rows_are_components_then_class_numbers(clips):
    done = prepare_lessons(clips, RATE, SETTINGS)
    assert len(done.waveforms) == 10
    assert [row for row, _, _ in done.waveforms.skipped] == [3]
    assert done.facets.classes == {"pitch": ("0", "1")}  # two clips of a voice are too few
    n = len(done.windows)
    assert len(done.values) == n > 10
    rows = np.random.default_rng(1).permutation(n)[:7]
    got = done.values[rows]
    assert got.shape == (7, K + 1)
    assert got.dtype == np.float32
    assert np.array_equal(got[:, :K], done.targets.values[rows].astype(np.float32))
    assert got[:, K].tolist() == [number_of(done, row) % 2 for row in rows]


def test_questions_stand_in_order(clips, monkeypatch):
    monkeypatch.setattr(lessons, "read_facets", partial(read_facets, fewest=2))
    done = prepare_lessons(clips, RATE, SETTINGS)
    assert list(done.facets.classes) == ["pitch", "voice"]
    voices = {1: 0, 2: 0, 9: 1, 10: 1}
    for place, line in enumerate(done.values[np.arange(len(done.values))]):
        number = number_of(done, place)
        assert line[K:].tolist() == [number % 2, voices.get(number, -1)]


def test_without_their_weight_labels_are_not_read(clips):
    for options in ({}, {"labels": 0.0}):
        done = prepare_lessons(clips, RATE, settings(options=options))
        assert done.facets.classes == {}
        rows = np.arange(len(done.values))
        assert np.array_equal(done.values[rows], done.targets.values.astype(np.float32))


@pytest.mark.parametrize("at_once", [4096, 7, 1])
def test_variances_are_numpys(clips, monkeypatch, at_once):
    """However many rows are read at once; far from zero; of a component that never changes: 0."""
    values = np.random.default_rng(0).normal(5, 0.5, (500, 3)).astype(np.float16)
    values[:, 1] = 3.0

    def learn_targets(waveforms, windows, *rest, **more):
        return Targets(values[: len(windows)], {"yamnet": 3}, {}, {})

    monkeypatch.setattr(lessons, "learn_targets", learn_targets)
    monkeypatch.setattr(lessons, "_variances", partial(lessons._variances, at_once=at_once))
    done = prepare_lessons(clips, RATE, SETTINGS)
    want = values[: len(done.values)].astype(np.float64).var(0)
    assert done.variances.shape == (3,)
    assert np.allclose(done.variances.numpy(), want, rtol=1e-5, atol=1e-9)
    assert done.variances[1] == 0


def test_what_is_held_out_is_asked_about_and_not_learnt(clips, taught):
    """Numbers of a sound do not depend on whether it is held out, so one may change one's mind."""
    whole = prepare_lessons(clips, RATE, SETTINGS)
    splits = ["train", None, "Train", "train", "test", "dev", *["train"] * 4, "validation"]
    table = clips.table.assign(split=pd.Series(splits, dtype=object))
    parted = Clips(table, clips.task, clips.classes, clips.root)
    done = prepare_lessons(parted, RATE, SETTINGS)
    assert taught[0] == taught[1]
    kept = [i for i in range(len(whole.windows)) if number_of(whole, i) not in (4, 5, 10)]
    assert 0 < len(kept) < len(whole.windows)
    assert len(done.values) == len(done.windows) == len(kept)
    for got, all_of_them in zip(done.windows, whole.windows, strict=True):
        assert np.array_equal(got, all_of_them[kept])
    rows = np.arange(len(kept))
    assert np.array_equal(done.values[rows], whole.values[np.array(kept)])
    want = whole.targets.values[kept].astype(np.float64).var(0)
    assert np.allclose(done.variances.numpy(), want, rtol=1e-5)
    nothing = Clips(table.assign(split="test"), clips.task, clips.classes, clips.root)
    with pytest.raises(DataError, match="none of the clips is to be trained on"):
        prepare_lessons(nothing, RATE, SETTINGS)


def test_what_teachers_are_asked_tells_these_windows_from_others(clips, taught):
    for more in ({}, {}, {"window_s": (0.5, 0.25)}, {"seed": 1}, {"window_s": (0.25,)}):
        prepare_lessons(clips, RATE, settings(**more))
    prepare_lessons(clips, 2 * RATE, SETTINGS)
    prepare_lessons(clips.subset(np.arange(9)), RATE, SETTINGS, workers=2)
    first, again, turned, *others = [key for _, key, _, _ in taught]
    assert first == again == turned
    assert len({first, *others}) == 1 + len(others)
    assert [workers for _, _, workers, _ in taught] == [1] * 6 + [2]
    assert [seed for _, _, _, seed in taught] == [0, 0, 0, 1, 0, 0, 0]


def test_one_window_is_too_little(clips, taught):
    one = clips.subset(np.array([0]))
    with pytest.raises(DataError, match="the recordings are one window"):
        prepare_lessons(one, RATE, settings(window_s=(2.0,)))
    assert not taught


def test_who_cannot_be_used_is_told(clips):
    with pytest.raises(DataError, match="none of the 1 clips could be used"):
        prepare_lessons(clips.subset(np.array([3])), RATE, SETTINGS)
    with pytest.raises(OssicleError, match="give one length of windows or more"):
        prepare_lessons(clips, RATE, settings(window_s=()))


def test_made_windows_have_no_labels_and_nothing_held_out(clips, taught):
    parts = np.array(["train", "test"] * len(clips), object)[: len(clips)]
    split = replace(clips, table=clips.table.assign(split=parts))
    done = prepare_lessons(split, RATE, settings(mixtures=3.0, options={"labels": 1.0}))
    heard = done.waveforms.rows
    held_out = set(np.flatnonzero(parts == "test"))
    windows = done.windows
    assert windows.changed.sum() > 10 and (~windows.changed).sum() > 0
    # Made once: teachers and student read the same samples.
    assert done.waveforms.made is not None
    assert ((windows.kept >= 0) == windows.changed).all()
    assert not held_out & set(heard[windows.items])
    mixed = windows.other_items[windows.other_items >= 0]
    assert len(mixed) > 5 and not held_out & set(heard[mixed])
    numbers = done.values[np.arange(len(windows))][:, K:]
    assert numbers.shape[1] > 0
    assert (numbers[windows.changed] == -1).all()
    assert (numbers[~windows.changed] != -1).any()
