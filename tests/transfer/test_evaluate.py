"""The evaluation on features whose answers are known: honest splits, complete and JSON-safe."""

from __future__ import annotations

import json
from collections import OrderedDict, defaultdict

import numpy as np
import pandas as pd
import pytest
import soundfile
from sklearn.dummy import DummyClassifier
from sklearn.metrics import accuracy_score, average_precision_score, confusion_matrix, r2_score

from ossicle.datasets.clips import read_clips
from ossicle.errors import DataError
from ossicle.features import FeatureTable
from ossicle.model import create_model
from ossicle.record import json_safe
from ossicle.transfer import evaluate as station
from ossicle.transfer.evaluate import evaluate
from ossicle.transfer.summary import summary

N, PER_GROUP = 96, 4
GROUP = np.repeat(np.arange(N // PER_GROUP), PER_GROUP)


@pytest.fixture(scope="module")
def model():
    return create_model("mel")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Names of N short noises; the features in these tests are not theirs."""
    folder = tmp_path_factory.mktemp("noises")
    generator = np.random.default_rng(0)
    paths = [folder / f"n{i:03d}.wav" for i in range(N)]
    for path in paths:
        soundfile.write(path, 0.1 * generator.normal(size=1600), 16000)
    return [str(path) for path in paths]


def clips_of(files, labels, **columns):
    columns = {"group": [f"g{g}" for g in GROUP], **columns}
    frame = pd.DataFrame({"path": files, "label": labels, **columns})
    return read_clips(frame[[c for c in frame if columns.get(c, 0) is not None]])


def table_of(layers, index=None, skipped=()) -> FeatureTable:
    n = len(next(iter(layers.values())))
    blocks = OrderedDict((f"{k}/mean", np.asarray(X, np.float32)) for k, X in layers.items())
    index = np.arange(n) if index is None else np.asarray(index)
    return FeatureTable(blocks, index, list(skipped), 9.6, 9.6, 0.5, 16000)


def informative(y: np.ndarray, width: int = 10, strength: float = 3.0, seed: int = 0):
    generator = np.random.default_rng(seed)
    means = generator.normal(size=(int(y.max()) + 1, width))
    return strength * means[y] + generator.normal(size=(len(y), width))


@pytest.fixture(scope="module")
def three(files, model):
    """Three classes by group, layers "noise" and "good", and the whole result."""
    y = GROUP % 3
    generator = np.random.default_rng(5)
    layers = {"noise": generator.normal(size=(N, 12)), "good": informative(y, strength=1.2)}
    clips = clips_of(files, np.array(["10", "2", "été"])[y])
    return clips, layers, evaluate(clips, table_of(layers), model, arguments={"seed": 0})


def dumped(result) -> dict:
    return json.loads(json.dumps(json_safe(result), allow_nan=False))


def test_the_score_is_that_of_the_items(three):
    clips, _, result = three
    items = result["items"]
    assert sorted(item["path"] for item in items) == sorted(clips.table["path"])
    right = accuracy_score([i["label"] for i in items], [i["predicted"] for i in items])
    assert result["metric"] == "accuracy"
    assert result["accuracy"] == result["score"]["value"] == pytest.approx(right)
    assert result["score"]["low"] <= right <= result["score"]["high"]
    assert right > 0.7
    expected = confusion_matrix(
        [i["label"] for i in items], [i["predicted"] for i in items], labels=list(clips.classes)
    )
    assert result["confusion"] == {"classes": list(clips.classes), "matrix": expected.tolist()}
    for row in result["per_class"]:
        mine = [i for i in items if i["label"] == row["class"]]
        assert row["support"] == len(mine)
        assert row["recall"] == pytest.approx(np.mean([i["predicted"] == i["label"] for i in mine]))
        assert row["recall_low"] <= row["recall"] <= row["recall_high"]
    dummy = DummyClassifier().fit(np.zeros((N, 1)), clips.y())
    assert result["chance"] == pytest.approx(dummy.score(np.zeros((N, 1)), clips.y()))
    assert result["classes"] == ["10", "2", "été"]
    assert all(0 < item["probability"] <= 1 for item in items)


def test_no_group_is_learnt_from_and_reported_on(files, model, monkeypatch):
    """A probe that remembers what it was shown, by a feature that is the clip's number."""
    generator = np.random.default_rng(1)
    labels = generator.choice(["a", "b", "c"], N)
    create, seen = station.create_probe, defaultdict(list)

    def spy(*arguments, **settings):
        probe = create(*arguments, **settings)
        fit, ask = probe.fit, probe.predict_proba

        def remember(X, y, **others):
            seen["fitted"].append(X[:, 0].astype(int))
            return fit(X, y, **others)

        def check(X):
            tested = X[:, 0].astype(int)
            assert not set(GROUP[seen["fitted"][-1]]) & set(GROUP[tested])
            seen["tested"].append(tested)
            return ask(X)

        probe.fit, probe.predict_proba = remember, check
        return probe

    monkeypatch.setattr(station, "create_probe", spy)
    layers = {"number": np.arange(N)[:, None] + 0.25, "x": generator.normal(size=(N, 3))}
    result = evaluate(clips_of(files, labels), table_of(layers), model, diagnostics=False)
    assert sorted(np.concatenate(seen["tested"])) == list(range(N))
    fold_of = defaultdict(set)
    for item in result["items"]:
        fold_of[item["group"]].add(item["fold"])
    assert all(len(folds) == 1 for folds in fold_of.values())
    assert result["protocol"]["n_groups"] == len(fold_of) == N // PER_GROUP
    assert result["protocol"]["n_folds"] == len(seen["fitted"]) == 5


def test_a_planted_leak_shows_in_the_random_split(files, model):
    generator = np.random.default_rng(2)
    signature = generator.normal(0, 3, (N // PER_GROUP, 40))
    X = signature[GROUP] + 0.3 * generator.normal(size=(N, 40))
    labels = np.array(["a", "b"])[generator.permutation(N // PER_GROUP) % 2][GROUP]
    result = evaluate(clips_of(files, labels), table_of({"x": X}), model)
    assert result["accuracy"] < 0.72
    assert result["random_split"]["value"] > 0.9
    assert "a random split would have claimed" in "\n".join(summary(result))


def test_diagnostics_know_their_answers(three):
    _, _, result = three
    shuffled = result["shuffled_labels"]["value"]
    assert abs(shuffled - 1 / 3) < 4 * np.sqrt(2 / 9 / (3 * N)) + 0.03
    scores = {row["layer"]: row["score"] for row in result["by_layer"]}
    assert scores["good"] > 0.7
    assert scores["noise"] < 0.6
    assert result["subsets"][0]["layers"] != ["noise"]
    sizes = [point["n_train"] for point in result["learning_curve"]["points"]]
    assert sizes == sorted(set(sizes))
    assert len(sizes) >= 2
    assert result["learning_curve"]["advice"]
    assert result["audit"]["n_clips"] == N
    assert result["random_split"]["value"] >= result["accuracy"] - 0.15


def test_layers_are_chosen_inside_the_training_part(files, model, three):
    clips, layers, _ = three
    result = evaluate(clips, table_of(layers), model, choose=True, diagnostics=False)
    chosen = result["chosen"]["layers_by_fold"]
    assert len(chosen) == 5
    assert all("good" in names for names in chosen)
    assert result["accuracy"] > 0.7


def test_random_labels_with_chosen_layers_score_at_chance(files, model):
    """Were layers or penalties chosen on tested clips, so many layers would beat guessing."""
    generator = np.random.default_rng(4)
    layers = {f"l{i}": generator.normal(size=(N, 8)) for i in range(8)}
    labels = np.array(["a", "b"])[generator.permutation(N) % 2]
    clips = clips_of(files, labels, group=[str(i) for i in range(N)])
    result = evaluate(clips, table_of(layers), model, choose=True, diagnostics=False)
    assert abs(result["accuracy"] - 0.5) < 3.5 * np.sqrt(0.25 / N)


@pytest.mark.parametrize("probe", ["ridge", "knn", "logistic"])
def test_a_class_that_a_training_part_lacks(files, model, probe):
    y = GROUP % 3
    y[GROUP == 0] = 3
    fold = np.where(GROUP == 0, "1", np.where(GROUP % 2, "1", "2"))
    clips = clips_of(files, np.array(list("abcd"))[y], fold=fold)
    result = evaluate(clips, table_of({"x": informative(y)}), model, probe=probe)
    lost = [item for item in result["items"] if item["label"] == "d"]
    assert len(lost) == PER_GROUP
    assert all(item["predicted"] != "d" for item in lost)
    assert result["accuracy"] > 0.8
    assert np.isfinite(result["score"]["low"])
    dumped(result)


@pytest.mark.parametrize("probe", ["ridge", "knn"])
def test_a_regression_is_complete(files, model, probe):
    value = GROUP + np.random.default_rng(0).normal(size=N)
    X = np.column_stack([value, np.random.default_rng(1).normal(size=(N, 5))])
    clips = clips_of(files, [f"{v:.4f}" for v in value])
    result = evaluate(
        clips, table_of({"x": X, "noise": X[:, 1:]}), model, probe=probe, arguments={"a": None}
    )
    items = result["items"]
    expected = r2_score([i["label"] for i in items], [i["predicted"] for i in items])
    assert result["task"] == "regression"
    assert result["score"]["value"] == pytest.approx(expected)
    assert expected > 0.5
    assert result["confusion"] is None
    assert result["per_class"] == []
    assert abs(result["shuffled_labels"]["value"]) < 0.6
    dumped(result)
    assert summary(result)


@pytest.mark.parametrize("probe", ["ridge", "logistic"])
def test_several_labels_are_complete(files, model, probe):
    generator = np.random.default_rng(7)
    y = generator.integers(0, 2, (N // PER_GROUP, 3))[GROUP]
    X = 2 * y @ generator.normal(size=(3, 10)) + generator.normal(size=(N, 10))
    names = np.array(["dog", "rain", "sea"])
    labels = [";".join(names[row == 1]) for row in y]
    clips = clips_of(files, labels)
    keep = np.flatnonzero([len(label) > 0 for label in clips.table["label"]])
    result = evaluate(
        clips.subset(keep), table_of({"x": X[keep], "y": X[keep, :4]}), model, probe=probe
    )
    items = result["items"]
    scores = np.array([[item["probability"][name] for name in names] for item in items])
    truth = np.array([[name in item["label"] for name in names] for item in items])
    expected = average_precision_score(truth, scores, average="macro")
    assert result["metric"] == "map"
    assert result["map"] == pytest.approx(expected)
    assert expected > 0.8
    assert result["score"]["low"] <= result["map"] <= result["score"]["high"]
    for item, row in zip(items, scores, strict=True):
        assert item["predicted"] == list(names[row >= 0.5])
    assert [row["class"] for row in result["per_class"]] == list(names)
    assert result["confusion"] is None
    assert dumped(result)["task"] == "multilabel"
    assert summary(result)


def test_folds_of_the_data_are_used(files, model):
    y = GROUP % 2
    fold = np.array(["b", "10", "2"])[GROUP % 3]
    clips = clips_of(files, np.array(["x", "y"])[y], fold=fold)
    result = evaluate(clips, table_of({"x": informative(y)}), model, diagnostics=False)
    assert result["protocol"]["n_folds"] == 3
    order = {"2": 1, "10": 2, "b": 3}
    by_path = dict(zip(clips.table["path"], fold, strict=True))
    assert all(item["fold"] == order[by_path[item["path"]]] for item in result["items"])
    assert "folds of the data" in result["protocol"]["text"]


@pytest.mark.parametrize("diagnostics", [True, False])
def test_a_split_of_the_data_is_used(files, model, diagnostics):
    y = GROUP % 2
    split = np.array(["train", "test", "validation"])[(GROUP // 2) % 3]
    clips = clips_of(files, np.array(["x", "y"])[y], split=split)
    result = evaluate(clips, table_of({"x": informative(y)}), model, diagnostics=diagnostics)
    tested = {item["path"] for item in result["items"]}
    assert tested == {p for p, s in zip(clips.table["path"], split, strict=True) if s == "test"}
    assert result["n_clips"] == len(tested)
    assert "reported on test" in result["protocol"]["text"]
    dumped(result)


def test_named_groups_that_straddle_the_folds_are_refused(files, model):
    y = GROUP % 2
    clips = clips_of(files, np.array(["x", "y"])[y], fold=np.arange(N) % 2 + 1)
    with pytest.raises(DataError, match="both trained on and tested"):
        evaluate(clips, table_of({"x": informative(y)}), model)


def test_what_could_not_be_read_is_told_and_left_out(files, model, tmp_path):
    y = GROUP % 2
    clips = clips_of(files, np.array(["x", "y"])[y])
    index = np.delete(np.arange(N), [3, 50])
    skipped = [(3, files[3], "is empty"), (50, files[50], "is silent")]
    result = evaluate(
        clips, table_of({"x": informative(y)[index]}, index, skipped), model, diagnostics=False
    )
    assert result["n_clips"] == N - 2
    assert [item["reason"] for item in result["skipped"]] == ["is empty", "is silent"]
    assert [files[3].endswith(result["skipped"][0]["path"])] == [True]
    assert not {files[3], files[50]} & {item["path"] for item in result["items"]}
    assert result["accuracy"] > 0.9
    assert sum("skipped" in line for line in summary(result)) == 2


def test_a_class_none_of_whose_clips_can_be_read(files, model):
    y = GROUP % 3
    clips = clips_of(files, np.array(["x", "y", "lost"])[y])
    index = np.flatnonzero(y != 2)
    result = evaluate(clips, table_of({"x": informative(y)[index]}, index), model)
    assert result["accuracy"] > 0.9
    lost = next(row for row in result["per_class"] if row["class"] == "lost")
    assert lost["support"] == 0
    dumped(result)


def test_classes_of_one_clip_are_learnt_from_only(files, model):
    y = GROUP % 2
    labels = np.array(["x", "y"], object)[y]
    labels[0] = "once"
    clips = clips_of(files, labels, group=None)
    result = evaluate(clips, table_of({"x": informative(y)}), model)
    assert result["n_clips"] == N - 1
    assert any("only learnt from" in note for note in result["protocol"]["notes"])
    dumped(result)


def test_the_same_seed_gives_the_same_result(files, model, three):
    clips, layers, result = three
    again = evaluate(clips, table_of(layers), model, arguments={"seed": 0})
    for run in (again, dict(result)):
        for name in ("created", "timing", "record"):
            run.pop(name)
    result = {k: v for k, v in result.items() if k in again}
    assert dumped(again) == dumped(result)


def test_the_order_of_the_clips_does_not_matter(files, model, three):
    clips, layers, result = three
    order = np.random.default_rng(0).permutation(N)
    table = table_of({name: X[order] for name, X in layers.items()})
    mixed = evaluate(clips.subset(order), table, model, diagnostics=False)
    folds = {item["path"]: item["fold"] for item in result["items"]}
    assert {item["path"]: item["fold"] for item in mixed["items"]} == folds


def test_quick_leaves_the_diagnostics_out(files, model, three):
    clips, layers, whole = three
    told = []
    result = evaluate(clips, table_of(layers), model, diagnostics=False, progress=told.append)
    assert result["score"] == whole["score"]
    assert not {"audit", "by_layer", "learning_curve", "random_split"} & set(result)
    assert "fold 1 of 5" in told
    assert summary(result)


def test_what_a_run_used_is_recorded(three):
    _, _, result = three
    record = result["record"]
    assert record["seed"] == 0
    assert record["arguments"] == result["arguments"] == {"seed": 0}
    assert record["data"]["files"] == N
    assert {"torch", "numpy", "scikit-learn"} <= set(record["versions"])
    assert result["audio"]["n_files"] == N
    assert result["audio"]["seconds_read"] == 9.6
    dumped(result)


def test_what_cannot_be_evaluated(files, model):
    X = informative(GROUP % 2)
    alike = clips_of(files, ["x"] * N)
    for diagnostics in (True, False):
        with pytest.raises(DataError, match=r"one class only \(x\)"):
            evaluate(alike, table_of({"x": X}), model, diagnostics=diagnostics)
    one_group = clips_of(files, np.array(["x", "y"])[GROUP % 2], group=["g"] * N)
    with pytest.raises(DataError, match="two groups or more"):
        evaluate(one_group, table_of({"x": X}), model)
    clips = clips_of(files, np.array(["x", "y"])[GROUP % 2])
    with pytest.raises(DataError, match="no probe 'forest'"):
        evaluate(clips, table_of({"x": X}), model, probe="forest")
    fold = np.where(GROUP % 2, "1", "2")
    apart = clips_of(files, np.array(["x", "y"])[GROUP % 2], fold=fold)
    with pytest.raises(DataError, match=r"fold 1: .*one class"):
        evaluate(apart, table_of({"x": X}), model)


def test_too_few_groups_tells_what_was_left_out(files, model):
    """One group a class is left to test on; why the others went is in the same line."""
    X = np.random.default_rng(0).normal(size=(N, 4))
    y = np.where(GROUP == 0, "x", "y")
    skipped = [(row, files[row], "is silent") for row in range(2 * PER_GROUP, N)]
    table = table_of({"x": X[: 2 * PER_GROUP]}, range(2 * PER_GROUP), skipped)
    told = f"{N - 2 * PER_GROUP} clips were left out, the first: {files[8]}: is silent"
    with pytest.raises(DataError) as caught:
        evaluate(clips_of(files, y), table, model)
    assert told in str(caught.value)


def test_one_class_left_to_test_is_no_evaluation(files, model):
    """The other class has one group, which is only learnt from: 100 % would mean nothing."""
    X = np.random.default_rng(0).normal(size=(N, 4))
    clips = clips_of(files, np.where(GROUP == 0, "x", "y"))
    with pytest.raises(DataError, match="only 'y' could be tested"):
        evaluate(clips, table_of({"x": X}), model)
