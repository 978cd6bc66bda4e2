"""AudioClassifier is a scikit-learn classifier whose samples are sounds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import soundfile
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GroupKFold, StratifiedKFold, cross_val_predict, cross_val_score

import ossicle
from ossicle import AudioClassifier, create_model, load
from ossicle.classifier import from_model
from ossicle.errors import BundleError, DataError, OssicleError
from ossicle.features import extract
from ossicle.heads import Head
from ossicle.model import Model
from ossicle.transfer.probe import create_probe

CLASSES = ("ambience", "cymbal", "kick", "tabla")


def mel(**settings) -> AudioClassifier:
    return AudioClassifier("mel", pretrained=False, **settings)


@pytest.fixture(scope="module")
def some(carried_clips) -> tuple[list[str], list[str]]:
    """32 carried clips, 8 of each of four classes."""
    paths = [p for name in CLASSES for p in sorted((carried_clips / name).iterdir())[:8]]
    return [str(p) for p in paths], [p.parent.name for p in paths]


@pytest.fixture(scope="module")
def fitted(some) -> AudioClassifier:
    return mel().fit(*some)


def bundle_of(task: str, classes: tuple[str, ...], outputs: int) -> Model:
    base = create_model("mel", seed=0)
    blocks = ["mel/mean"]
    head = Head([sum(base.block_sizes(blocks).values()), outputs])
    return Model(
        base.frontend,
        base.backbone,
        clip=base.clip,
        readout=blocks,
        head=head,
        classes=classes,
        task=task,
        info=base.info,
    ).eval()


def test_learns_and_reports_probabilities(some, fitted):
    paths, labels = some
    scores = fitted.predict_proba(paths)
    assert scores.shape == (32, 4)
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-6)
    assert list(fitted.classes_) == sorted(CLASSES)
    assert fitted.predict(paths).tolist() == fitted.classes_[scores.argmax(axis=1)].tolist()
    assert fitted.score(paths, labels) == accuracy_score(labels, fitted.predict(paths))
    assert fitted.score(paths, labels) > 0.8


def test_clone_and_parameters():
    model = mel(probe="logistic", layers=["mel"], random_state=7)
    copy = clone(model)
    assert copy is not model
    assert copy.get_params() == model.get_params()
    assert copy.set_params(probe="svm", workers=2).get_params()["probe"] == "svm"
    assert model.probe == "logistic"
    assert "probe='logistic'" in repr(model)
    with pytest.raises(ValueError, match="Invalid parameter"):
        model.set_params(color="red")


def test_cross_validation_of_scikit_learn_takes_lists_of_paths(some):
    paths, labels = some
    scores = cross_val_score(mel(), paths, labels, cv=StratifiedKFold(2), error_score="raise")
    assert scores.shape == (2,)
    assert scores.mean() > 0.5
    groups = np.arange(len(paths)) % 8
    again = cross_val_score(
        mel(), np.array(paths), labels, groups=groups, cv=GroupKFold(2), error_score="raise"
    )
    assert again.mean() > 0.5


def test_shuffled_labels_score_at_chance(carried_clips):
    paths = [p for p in sorted(carried_clips.glob("*/*.flac")) if p.parent.name != "electronic"]
    generator = np.random.default_rng(3)
    truth = np.array([p.parent.name in ("kick", "snare", "tom") for p in paths])
    cv = StratifiedKFold(3, shuffle=True, random_state=0)
    right, accuracies = cross_val_predict(mel(), paths, truth, cv=cv), []
    for _ in range(2):
        dealt = generator.permutation(truth)
        accuracies.append(np.mean(cross_val_predict(mel(), paths, dealt, cv=cv) == dealt))
    chance = max(truth.mean(), 1 - truth.mean())
    # Four standard deviations of a fair coin over both shuffles.
    assert abs(np.mean(accuracies) - chance) < 4 * np.sqrt(0.25 / (2 * len(paths))) + 0.05
    assert np.mean(right == truth) > np.mean(accuracies) + 0.2


@pytest.mark.parametrize("probe", ["ridge", "logistic", "svm", "mlp"])
def test_every_probe_becomes_a_network(some, probe):
    paths, labels = some
    kept = [i for i, label in enumerate(labels) if label in ("ambience", "kick")]
    paths, labels = [paths[i] for i in kept], [labels[i] for i in kept]
    model = mel(probe=probe).fit(paths[::2], labels[::2])
    table = extract(create_model("mel"), paths)
    X = table.matrix()
    alone = create_probe(probe, random_state=0).fit(
        X[::2], np.array(labels[::2]), groups=np.arange(8), block_sizes=table.sizes()
    )
    np.testing.assert_allclose(model.predict_proba(paths), alone.predict_proba(X), atol=1e-4)


def test_a_probe_that_cannot_become_a_network_is_refused(some):
    with pytest.raises(DataError, match="knn"):
        mel(probe="knn").fit(*some)
    with pytest.raises(DataError, match="cannot become"):
        mel(probe="forest").fit(*some)


def tone(frequency: float, rate: int, seconds: float = 0.4, seed: int = 0) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    noise = 0.01 * np.random.default_rng(seed).standard_normal(len(t))
    return (0.3 * np.sin(2 * np.pi * frequency * t) + noise).astype(np.float32)


def test_arrays_at_different_rates_are_the_same_sound():
    rates = (8000, 22050, 44100, 48000)
    low = [(tone(300, rate, seed=i), rate) for i, rate in enumerate(rates)]
    high = [(tone(1700, rate, seed=9 + i), rate) for i, rate in enumerate(rates)]
    model = mel().fit(low[:3] + high[:3], ["low"] * 3 + ["high"] * 3)
    assert model.predict([low[3], high[3]]).tolist() == ["low", "high"]
    stereo = np.stack([low[3][0], low[3][0]])
    np.testing.assert_allclose(
        model.predict_proba([(stereo, 48000)]), model.predict_proba([low[3]]), atol=1e-6
    )


def test_files_and_arrays_agree(some, fitted):
    paths, _ = some
    pairs = [soundfile.read(path, dtype="float32", always_2d=True) for path in paths[:4]]
    arrays = [(samples.T, rate) for samples, rate in pairs]
    np.testing.assert_allclose(
        fitted.predict_proba(arrays), fitted.predict_proba(paths[:4]), atol=1e-6
    )


def test_data_frame_with_segments(tmp_path):
    rate = 16000
    path = tmp_path / "both.wav"
    soundfile.write(path, np.concatenate([tone(300, rate, 2.0), tone(1700, rate, 2.0)]), rate)
    onsets = np.arange(0, 4, 0.4)
    frame = pd.DataFrame({"path": str(path), "onset": onsets, "offset": onsets + 0.4})
    labels = np.where(onsets < 2, "low", "high")
    model = mel().fit(frame, labels)
    assert model.predict(frame).tolist() == labels.tolist()
    whole = model.predict_proba(pd.DataFrame({"path": [path], "offset": [2.0]}))
    samples = soundfile.read(path, dtype="float32")[0][: 2 * rate]
    np.testing.assert_allclose(whole, model.predict_proba([(samples, rate)]), atol=1e-6)
    with pytest.raises(DataError, match="no column path"):
        model.predict(pd.DataFrame({"file": [path]}))


def test_labels_keep_their_type_and_order(some, tmp_path):
    paths, names = some
    labels = [10 if name == "kick" else 2 for name in names]
    model = mel().fit(paths, labels)
    assert model.classes_.tolist() == [2, 10]
    assert model.classes_.dtype.kind == "i"
    assert np.mean(model.predict(paths) == labels) > 0.8
    saved = load(model.save(tmp_path / "ints"))
    assert saved.classes_.tolist() == ["2", "10"]
    assert saved.predict(paths).tolist() == [str(label) for label in model.predict(paths)]
    for y in (np.array(names), pd.Series(names, index=range(100, 132)), tuple(names)):
        assert mel().fit(paths, y).classes_.tolist() == sorted(CLASSES)
    assert mel().fit(paths, np.array(labels) == 2).classes_.tolist() == [False, True]


def test_paths_in_any_container(some, fitted):
    paths, _ = some
    expected = fitted.predict_proba(paths[:3])
    for X in (np.array(paths[:3]), pd.Series(paths[:3]), tuple(paths[:3])):
        assert np.array_equal(fitted.predict_proba(X), expected)


def test_workers_and_runs_do_not_change_the_numbers(some, fitted):
    paths, labels = some
    again = mel(workers=3).fit(paths, labels)
    assert np.array_equal(again.predict_proba(paths), fitted.predict_proba(paths))


def test_groups_reach_the_choice_of_the_penalty(some):
    paths, labels = some
    groups = np.array([f"{label}{i % 2}" for i, label in enumerate(labels)])
    penalties = [
        mel().fit(paths, labels, groups=g).model_.info["probe"] for g in (None, groups, groups)
    ]
    assert penalties[1] == penalties[2]
    assert mel().fit(paths, labels, groups=list(groups)).model_.info["probe"] == penalties[1]


@pytest.mark.parametrize(
    ("labels", "groups", "message"),
    [
        (["a"] * 3, None, "4 clips and 3 labels"),
        (["a", "b"] * 2, ["x"] * 3, "3 groups for 4 clips"),
        (["a"] * 4, None, "one class only \\(a\\)"),
        (["a", "b", None, "a"], None, "None or NaN"),
        ([1.0, 2.0, float("nan"), 1.0], None, "None or NaN"),
        ([["a", "b"]] * 4, None, "one label for each clip"),
        (np.ones((4, 2), int), None, "one label for each clip"),
    ],
)
def test_labels_that_cannot_be_learnt(some, labels, groups, message):
    with pytest.raises(DataError, match=message) as caught:
        mel().fit(some[0][:4], labels, groups=groups)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "X", ["one/path.wav", [1, 2], np.zeros((4, 3)), [("samples",)], pd.DataFrame({"a": [1]})]
)
def test_what_is_no_clips(fitted, X):
    with pytest.raises(DataError):
        fitted.predict(X)


def test_nothing_to_fit_on():
    with pytest.raises(DataError, match="no clips"):
        mel().fit([], [])


def test_asking_before_fitting(some, tmp_path):
    for ask in (mel().predict, mel().predict_proba):
        with pytest.raises(NotFittedError):
            ask(some[0][:1])
    with pytest.raises(NotFittedError):
        mel().save(tmp_path / "none")
    assert not any(tmp_path.iterdir())


def test_unusable_clips_are_told(some, tmp_path):
    paths, labels = some
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF but no more")
    model = mel().fit([str(broken), *paths], ["kick", *labels])
    assert [(row, path) for row, path, _ in model.skipped_] == [(0, str(broken))]
    expected = mel().fit(paths, labels)
    np.testing.assert_array_equal(model.predict_proba(paths), expected.predict_proba(paths))
    with pytest.raises(DataError, match=r"broken\.wav.*1 of the clips"):
        model.predict([*paths, str(broken)])
    # A class of which nothing can be heard is no class.
    assert "lost" not in mel().fit([str(broken), *paths], ["lost", *labels]).classes_
    with pytest.raises(DataError, match="one class is left"):
        mel().fit([str(broken), *paths[:8]], ["lost", *labels[:8]])
    with pytest.raises(DataError, match=r"none of the 2 clips.*broken\.wav"):
        mel().fit([str(broken), str(broken)], ["a", "b"])


def test_saved_and_loaded(some, fitted, tmp_path):
    paths, _ = some
    loaded = load(fitted.save(tmp_path / "drums"))
    assert isinstance(loaded, ossicle.AudioClassifier)
    np.testing.assert_allclose(
        loaded.predict_proba(paths), fitted.predict_proba(paths), rtol=0, atol=1e-6
    )
    assert loaded.predict(paths).tolist() == fitted.predict(paths).tolist()
    assert loaded.get_params()["backbone"] == "mel"
    # It can be fitted again, as any clone.
    again = clone(loaded).fit(*some)
    np.testing.assert_allclose(again.predict_proba(paths), fitted.predict_proba(paths), atol=1e-6)


def test_a_loaded_model_of_another_task(some, tmp_path):
    paths, _ = some
    several = from_model(bundle_of("multilabel", ("dog", "rain"), 2))
    scores = several.predict_proba(paths[:5])
    assert several.predict(paths[:5]).tolist() == (scores >= 0.5).astype(int).tolist()
    number = load(from_model(bundle_of("regression", (), 1)).save(tmp_path / "number"))
    assert number.predict(paths[:5]).shape == (5,)
    with pytest.raises(OssicleError, match="regression"):
        number.predict_proba(paths[:5])
    bare = tmp_path / "bare"
    ossicle.bundle.save(create_model("mel"), bare)
    with pytest.raises(BundleError, match="without a head"):
        load(bare)


def test_chosen_layers_are_those_of_the_head(some):
    paths, labels = some
    model = AudioClassifier(
        "choi_convnet", pretrained=False, choose_layers=True, layers="1-3", random_state=5
    ).fit(paths[::2], labels[::2])
    chosen = {name.rpartition("/")[0] for name in model.model_.readout}
    base = create_model("choi_convnet", seed=5)
    assert chosen <= set(base.layers[:3])
    blocks = extract(base, paths[:1], layers="1-3").blocks
    assert set(model.model_.readout) <= set(blocks)
