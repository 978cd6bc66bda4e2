"""Strategies on one set of clips: against the evaluation's own folds, scikit-learn, and by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, r2_score

from ossicle import bundle
from ossicle.datasets.clips import Clips, read_clips
from ossicle.errors import DataError, OssicleError
from ossicle.features import extract
from ossicle.finetune import trials as station
from ossicle.finetune.strategy import Strategy
from ossicle.finetune.trials import Trials, primary_score, score_interval
from ossicle.metrics import with_intervals
from ossicle.model import create_model
from ossicle.predict import class_columns, predict
from ossicle.transfer.evaluate import evaluate
from ossicle.transfer.probe import create_probe
from ossicle.transfer.protocol import choose_protocol

TINY = "set.excerpt_s=0.3 epochs=1 batch_size=16"


@pytest.fixture(scope="module")
def folds(clips):
    return choose_protocol(clips, n_folds=3, random_state=0).folds


@pytest.fixture
def extractions(monkeypatch):
    """How often features are made."""
    seen = []

    def counted(model, *arguments, **options):
        seen.append(model.info["name"])
        return extract(model, *arguments, **options)

    monkeypatch.setattr(station, "extract", counted)
    return seen


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("probe backbone=mfcc", {}),
        ("probe backbone=mfcc probe=svm", {"probe": "svm"}),
        (
            "probe backbone=choi_convnet random=yes set.excerpt_s=0.3 choose_layers=1",
            {"choose": True},
        ),
    ],
)
def test_a_probe_is_that_of_the_evaluation(clips, folds, extractions, text, options):
    """Every clip by the very model that `ossicle evaluate` tests it with."""
    trials, strategy = Trials(clips), Strategy.parse(text)
    rows, decisions, seconds = trials.cross_validate(strategy, folds)
    model = create_model(strategy.backbone, **strategy.config)
    table = extract(model, clips)
    result = evaluate(clips, table, model, n_folds=3, diagnostics=False, **options)
    assert rows.tolist() == list(range(len(clips)))
    assert [clips.classes[c] for c in decisions.argmax(1)] == [
        item["predicted"] for item in result["items"]
    ]
    assert decisions.max(1) == pytest.approx([i["probability"] for i in result["items"]])
    assert seconds > 0
    # One pass over the audio serves all folds.
    assert extractions == [strategy.backbone]
    if strategy.choose_layers:
        train, test = folds[0]
        chosen = trials.run(strategy, train, test).info["layers"]
        assert tuple(chosen) == tuple(result["chosen"]["layers_by_fold"][0])


def test_layers_and_poolings_are_columns(clips, folds, extractions):
    trials = Trials(clips)
    train, test = folds[0]
    whole = trials.run(Strategy.parse("probe backbone=mel"), train, test).decisions
    own = create_model("mel").backbone.poolings
    for pooling in (own[0], ",".join(own)):
        some = trials.run(Strategy.parse(f"probe backbone=mel pooling={pooling}"), train, test)
        assert np.array_equal(some.decisions, whole) == (pooling == ",".join(own))
    assert extractions == ["mel"]
    # A pooling of another kind is made, and does not get into what others read.
    other = "max" if "max" not in own else "band"
    added = trials.run(Strategy.parse(f"probe backbone=mel pooling={other}"), train, test)
    assert extractions == ["mel", "mel"]
    assert not np.array_equal(added.decisions, whole)
    again = trials.run(Strategy.parse("probe backbone=mel"), train, test).decisions
    assert np.array_equal(again, whole)
    assert extractions == ["mel", "mel"]


def test_only_some_tables_are_kept(clips, folds, extractions):
    trials = Trials(clips, keep=1)
    train, test = folds[0]
    for name in ("mel", "mfcc", "mfcc", "mel"):
        trials.run(Strategy("probe", name), train, test)
    assert extractions == ["mel", "mfcc", "mel"]


def test_a_network_is_trained_and_answers_in_order(clips, folds):
    trials = Trials(clips)
    train, test = folds[0]
    test = test[::-1]
    strategy = Strategy.parse(f"scratch backbone=choi_convnet {TINY}")
    told = []
    outcome = trials.run(strategy, train, test, seed=3, progress=told.append)
    frame, _ = predict(outcome.model, clips.subset(test))
    assert np.array_equal(outcome.decisions, frame[class_columns(outcome.model)])
    assert outcome.decisions.sum(1) == pytest.approx(1)
    assert outcome.info["epochs"] == [1]
    assert len(outcome.info["validation"]) == 1
    assert told[-1].startswith("step 2 of 2") or told[-1].startswith("step 1 of 1")
    assert outcome.model.info["finetune"]["seed"] == 3
    # The same seed is the same answer; the tested clips have no part in it.
    again = trials.run(strategy, train, test[:3], seed=3)
    assert np.array_equal(again.decisions, outcome.decisions[:3])
    other = trials.run(strategy, train, test[:3], seed=4)
    assert not np.array_equal(other.decisions, again.decisions)


def test_a_bundle_is_tuned_from_kept_features(clips, folds, network, tmp_path, extractions):
    path = bundle.save(network(), tmp_path / "mine.ossicle") or tmp_path / "mine.ossicle"
    trials = Trials(clips)
    strategy = Strategy.parse(f"finetune backbone={path} epochs=1 learning_rate=1e-4")
    rows, decisions, _ = trials.cross_validate(strategy, folds[:2])
    assert sorted(rows) == sorted(np.concatenate([test for _, test in folds[:2]]))
    right = decisions.argmax(1) == clips.y()[rows]
    assert right.mean() > 0.8
    assert len(extractions) == 1


def test_a_clip_that_cannot_be_read_is_named(frame, tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"RIFF, but no sound")
    extra = {"path": str(tmp_path / "broken.wav"), "label": "low", "group": "x"}
    clips = read_clips(pd.concat([frame, pd.DataFrame([extra])], ignore_index=True))
    last = len(clips) - 1
    for text in ("probe backbone=mel", f"scratch backbone=choi_convnet {TINY}"):
        trials, strategy = Trials(clips), Strategy.parse(text)
        with pytest.raises(DataError, match=r"broken\.wav: .*; leave it out of the clips"):
            trials.run(strategy, np.arange(0, last, 2), np.array([1, last]))
        # To learn from it is left out.
        outcome = trials.run(strategy, np.arange(0, last + 1, 2), np.array([1, 3]))
        assert outcome.decisions.shape == (2, 3)
    trials = Trials(clips)
    trials.table(Strategy("probe", "mel"))
    assert [row for row, _, _ in trials.skipped] == [last]


def test_what_cannot_be_run_is_told(clips, folds):
    trials = Trials(clips)
    train, test = folds[0]
    for text, message in (
        ("probe backbone=mel layers=9", "no layer '9'"),
        ("probe backbone=mel pooling=mode", "unknown pooling 'mode'"),
        ("probe backbone=mel probe=forest", "no probe 'forest'"),
    ):
        with pytest.raises(OssicleError, match=message):
            trials.run(Strategy.parse(text), train, test)


def test_numbers_and_labels(frame):
    value = {"hiss": 7.0, "high": 5.0, "low": -2.0}
    numbers = read_clips(frame.assign(label=frame["label"].map(value)), labels="regression")
    tags = read_clips(
        frame.assign(
            label=frame["label"].map({"hiss": "noisy", "high": "noisy;tone", "low": "tone"})
        ),
        labels="multilabel",
    )
    even = np.arange(0, 36, 2)
    for clips, shape in ((numbers, 1), (tags, 2)):
        for text in ("probe backbone=mfcc", f"scratch backbone=choi_convnet {TINY}"):
            outcome = Trials(clips).run(Strategy.parse(text), even, even + 1)
            assert outcome.decisions.shape == (18, shape)
            assert np.isfinite(outcome.decisions).all()
    found = Trials(numbers).run(Strategy("probe", "mfcc"), even, even + 1).decisions[:, 0]
    table = extract(create_model("mfcc"), numbers)
    X, y, groups = table.matrix(), numbers.y(), numbers.groups()
    ridge = create_probe("ridge", "regression", random_state=0)
    ridge.fit(X[even], y[even], groups=groups[even], block_sizes=table.sizes())
    assert found == pytest.approx(ridge.predict(X[even + 1]).ravel())
    assert r2_score(y[even + 1], found) > 0.5


# --- scores ----------------------------------------------------------------------------------


def test_scores_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    y, chances = rng.integers(0, 3, 40), rng.dirichlet(np.ones(3), 40)
    assert primary_score("classes", y, chances, "abc") == accuracy_score(y, chances.argmax(1))
    tags, likely = rng.integers(0, 2, (40, 3)), rng.random((40, 3))
    want = average_precision_score(tags, likely, average="macro")
    assert primary_score("multilabel", tags, likely, "abc") == pytest.approx(want)
    numbers = rng.normal(size=40)
    guessed = numbers + rng.normal(size=40)
    found = primary_score("regression", numbers, guessed[:, None])
    assert found == pytest.approx(r2_score(numbers, guessed))


def test_intervals_are_over_groups(clips):
    rng = np.random.default_rng(1)
    rows = np.arange(3, 33)
    chances = rng.dirichlet(np.ones(3), len(rows))
    found = score_interval(clips, rows, chances, seed=5)
    y, groups = clips.y()[rows], clips.groups()[rows]
    assert found["value"] == pytest.approx(accuracy_score(y, chances.argmax(1)))
    assert found["low"] <= found["value"] <= found["high"]
    want = with_intervals(
        "classes", y, chances.argmax(1), chances, clips.classes, groups=groups, random_state=5
    )["accuracy"]
    assert found == want
    # Whole recordings that are right or wrong together leave less to go by.
    number = {group: i for i, group in enumerate(np.unique(groups))}
    certain = np.stack(
        [np.roll(np.eye(3)[c], number[g] % 2) for c, g in zip(y, groups, strict=True)]
    )
    each = clips.table.assign(group=[str(i) for i in range(len(clips))])
    alone = Clips(each, clips.task, clips.classes, clips.root)
    together = score_interval(clips, rows, certain)
    apart = score_interval(alone, rows, certain)
    assert together["value"] == apart["value"]
    assert together["high"] - together["low"] > apart["high"] - apart["low"]
