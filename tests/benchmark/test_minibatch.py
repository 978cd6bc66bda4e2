"""Probes by minibatches, against scikit-learn, numpy, and slow references of each rule."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, log_loss
from sklearn.preprocessing import StandardScaler

from ossicle.benchmark import minibatch, rows
from ossicle.benchmark.minibatch import Settings, best, network, train
from ossicle.benchmark.validation import mean_average_precision, validation_score
from ossicle.errors import DataError

NONE = np.zeros(0, np.int64)
# Full batches and a rate that falls: Adam ends at the optimum that the solvers find.
TO_THE_END = Settings(0.05, batch_size=600, max_epochs=600, final_rate=0.001)


def blobs(n=600, d=6, k=3, spread=1.0, seed=0):
    """Clips around k centres, columns on very different scales."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, k, n)
    X = 1.5 * rng.normal(size=(k, d))[y] + spread * rng.normal(size=(n, d))
    return (X * np.logspace(-2, 2, d) + np.linspace(-50, 50, d)).astype(np.float32), y


class Disk:
    """A matrix on disk that can only be asked for rows, and counts them."""

    def __init__(self, path, X):
        np.save(path, X)
        self.X, self.shape, self.most, self.read = np.load(path, mmap_mode="r"), X.shape, 0, 0

    def __getitem__(self, index):
        assert index.ndim == 1
        self.most, self.read = max(self.most, len(index)), self.read + len(index)
        return np.asarray(self.X[index])


def fit(X, y, settings, rows_=None, valid=NONE, task="classes", k=None, **more):
    rows_ = np.arange(len(X)) if rows_ is None else rows_
    k = k or (y.max() + 1 if task == "classes" else y.shape[1])
    return train(X, y, rows_, valid, [settings], task=task, num_classes=k, **more)[0]


def test_linear_is_logistic_regression():
    X, y = blobs(spread=2.5)
    everyone = np.arange(len(X))
    got = fit(X, y, TO_THE_END).predict(X, everyone)
    Z = StandardScaler().fit_transform(X.astype(np.float64))
    want = LogisticRegression(C=np.inf, max_iter=5000, tol=1e-8).fit(Z, y).predict_proba(Z)
    assert (got.argmax(1) == want.argmax(1)).mean() > 0.995
    assert log_loss(y, got) == pytest.approx(log_loss(y, want), abs=2e-4)
    np.testing.assert_allclose(got, want, atol=0.01)


def test_linear_on_nearly_separable_clips_is_logistic_regression_on_others():
    X, y = blobs(1200, spread=0.8, seed=3)
    learnt, others = np.arange(600), np.arange(600, 1200)
    # A penalty keeps the weights of separable clips finite: decay / 2 |w|^2 beside the mean loss.
    got = fit(X, y, dataclasses.replace(TO_THE_END, weight_decay=1e-3), learnt).predict(X, others)
    scaler = StandardScaler().fit(X[learnt].astype(np.float64))
    model = LogisticRegression(C=1 / (600 * 1e-3), max_iter=5000, tol=1e-8)
    model.fit(scaler.transform(X[learnt]), y[learnt])
    want = model.predict_proba(scaler.transform(X[others]))
    assert (want.argmax(1) == y[others]).mean() > 0.9
    assert (got.argmax(1) == want.argmax(1)).mean() > 0.99
    assert log_loss(y[others], got) == pytest.approx(log_loss(y[others], want), abs=0.01)


def test_several_labels_are_a_logistic_regression_each():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(500, 4)).astype(np.float32)
    y = (X @ rng.normal(size=(4, 3)) + rng.normal(size=(500, 3)) > 0.3).astype(int)
    settings = dataclasses.replace(TO_THE_END, batch_size=500, learning_rate=0.2)
    got = fit(X, y, settings, task="multilabel").predict(X, np.arange(500))
    Z = StandardScaler().fit_transform(X.astype(np.float64))
    for label in range(3):
        want = LogisticRegression(C=np.inf, tol=1e-8).fit(Z, y[:, label]).predict_proba(Z)[:, 1]
        np.testing.assert_allclose(got[:, label], want, atol=0.01)


def test_moments_in_parts_are_numpys(monkeypatch):
    X, _ = blobs(997, 7)
    X[:, 3] = 1e4 / 3  # constant, though rounding may not say so
    chosen = np.random.default_rng(0).permutation(997)[:501]
    monkeypatch.setattr(rows, "CHUNK", 7 * 64)
    got = rows.moments(X, chosen)
    part = X[chosen].astype(np.float64)
    np.testing.assert_allclose(got.mean, part.mean(0), rtol=1e-6)
    want = np.where(np.arange(7) == 3, 0, 1 / np.maximum(part.std(0), 1e-9))
    np.testing.assert_allclose(got.inverse, want, rtol=1e-6)


@pytest.mark.parametrize(
    ("patience", "later", "every", "seed"),
    [(3, False, 1, 4), (3, True, 1, 4), (4, True, 1, 5), (2, False, 3, 3)],
)
def test_stops_and_restores_as_a_slow_reference_does(patience, later, every, seed):
    # Scores that rise after waiting, and equal ones, before the stop.
    X, y = blobs(240, spread=3.0, seed=seed)
    learnt, valid = np.arange(160), np.arange(160, 240)
    base = Settings(0.003, 32, 20, check_every=every, later_ties=later)
    # The score after each epoch, from runs that end there.
    scores = {}
    for epoch in range(1, 21):
        if epoch % every == 0 or epoch == 20:
            run = fit(X, y, base, learnt, epochs=epoch)
            scores[epoch] = (run.predict(X, valid).argmax(1) == y[valid]).mean()
    kept, top, waited = 0, -1.0, 0
    for epoch, score in scores.items():
        if score > top or (later and score == top):
            kept, top, waited = epoch, score, 0
        else:
            waited += 1
            if waited == patience:
                break
    got = fit(X, y, dataclasses.replace(base, patience=patience), learnt, valid)
    assert (got.epoch, got.epochs, got.score) == (kept, epoch, top)
    again = fit(X, y, base, learnt, epochs=kept)
    np.testing.assert_array_equal(got.predict(X, valid), again.predict(X, valid))


def test_a_score_without_a_mistake_ends_the_search_and_changes_nothing():
    X, y = blobs(300, spread=0.2)
    learnt, valid = np.arange(200), np.arange(200, 300)
    stopped = fit(X, y, Settings(0.005, 64, 40, patience=40), learnt, valid)
    whole = fit(X, y, Settings(0.005, 64, 40), learnt, valid)
    assert any(0.9 < score < 1 for _, score, _ in whole.history)
    assert stopped.score == whole.score == 1.0
    assert stopped.epochs < whole.epochs == 40
    assert stopped.epoch == whole.epoch
    np.testing.assert_array_equal(stopped.predict(X, valid), whole.predict(X, valid))


MLP = Settings(1e-3, 64, 6, hidden=(32,), batch_norm=True, dropout=0.3, standardise=False)


@pytest.mark.parametrize(
    "settings",
    [Settings(0.01, 50, 5), MLP, Settings(1e-3, 32, 4, standardise=False, layer_norm=True)],
)
def test_from_disk_it_is_the_same_and_no_more_than_a_batch_is_read(tmp_path, monkeypatch, settings):
    X, y = blobs(300, d=8)
    learnt, valid, test = np.split(np.random.default_rng(0).permutation(300), [180, 240])
    want = fit(X, y, settings, learnt, valid)
    monkeypatch.setattr(rows, "CHUNK", 8 * 40)
    disk = Disk(tmp_path / "x.npy", X)
    got = fit(disk, y, settings, learnt, valid, memory=0)
    assert disk.most <= max(40, settings.batch_size)
    assert disk.read == 180 + settings.max_epochs * 240  # moments, then each epoch once
    assert got.history == want.history
    np.testing.assert_array_equal(got.predict(disk, test), want.predict(X, test))
    held = Disk(tmp_path / "y.npy", X)
    fit(held, y, settings, learnt, valid)
    assert held.read == 240


def test_a_grid_is_its_settings_alone_however_many_workers():
    X, y = blobs(200, spread=2.0)
    learnt, valid = np.arange(150), np.arange(150, 200)
    grid = [
        dataclasses.replace(MLP, learning_rate=rate, start=start, patience=2)
        for rate, start in [(1e-2, "uniform"), (1e-3, "xavier_uniform"), (1e-4, "xavier_normal")]
    ]
    options = {"task": "classes", "num_classes": 3, "seed": 7}
    alone = [train(X, y, learnt, valid, [s], **options)[0] for s in grid]
    for workers in (1, 2, 5):
        torch.rand(workers)  # other people's random numbers are not ours
        together = train(X, y, learnt, valid, grid, workers=workers, **options)
        for one, other in zip(alone, together, strict=True):
            assert one.history == other.history
            np.testing.assert_array_equal(one.predict(X, valid), other.predict(X, valid))
    assert best(alone) is max(alone, key=lambda t: (t.score, -t.loss))
    reseeded = train(X, y, learnt, valid, grid, **{**options, "seed": 8})
    assert [t.history for t in reseeded] != [t.history for t in alone]


def test_network_of_hidden_layers_by_hand():
    X, y = blobs(200, d=5)
    settings = dataclasses.replace(MLP, hidden=(16, 8))
    fitted = fit(X, y, settings)
    state = {name: value.numpy() for name, value in fitted.network.state_dict().items()}
    assert [type(layer).__name__ for layer in fitted.network] == [
        *["Linear", "BatchNorm1d", "_Dropout", "ReLU"] * 2,
        "Linear",
    ]
    out = X
    for first in ("0", "4"):
        norm = str(int(first) + 1)
        out = out @ state[f"{first}.weight"].T + state[f"{first}.bias"]
        deviation = np.sqrt(state[f"{norm}.running_var"] + 1e-5)
        out = (out - state[f"{norm}.running_mean"]) / deviation
        out = np.maximum(out * state[f"{norm}.weight"] + state[f"{norm}.bias"], 0)
    out = np.exp(out @ state["8.weight"].T + state["8.bias"])
    want = out / out.sum(1, keepdims=True)
    np.testing.assert_allclose(fitted.predict(X, np.arange(200)), want, rtol=1e-3, atol=1e-5)


def test_dropout_leaves_out_its_share_and_keeps_the_mean():
    layer = minibatch._Dropout(0.25, torch.Generator().manual_seed(0))
    x = torch.ones(100_000)
    out = layer.train()(x)
    assert sorted(set(out.tolist())) == pytest.approx([0.0, 4 / 3])
    assert (out == 0).float().mean() == pytest.approx(0.25, abs=0.01)
    assert torch.equal(layer.eval()(x), x)


@pytest.mark.parametrize("start", ["uniform", "xavier_uniform", "xavier_normal"])
def test_initial_weights_are_drawn_as_named(start):
    settings = dataclasses.replace(MLP, hidden=(400,), start=start, batch_norm=False)
    layers = network(settings, 300, 50, torch.Generator().manual_seed(0))
    first, second = layers[0].weight.detach().numpy(), layers[-1].weight.detach().numpy()
    # Glorot and Bengio 2010; twice the variance behind a ReLU (He et al. 2015).
    var = [2 / (300 + 400), 2 * 2 / (400 + 50)]
    if start == "uniform":
        var = [1 / (3 * 300), 1 / (3 * 400)]
    for weight, want in zip((first, second), var, strict=True):
        assert weight.mean() == pytest.approx(0, abs=4 * np.sqrt(want / weight.size))
        assert weight.var() == pytest.approx(want, rel=0.05)
        if start == "xavier_normal":
            assert np.abs(weight).max() > np.sqrt(3 * want) * 1.5
        else:
            assert np.abs(weight).max() == pytest.approx(np.sqrt(3 * want), rel=1e-2)
    assert np.abs(layers[0].bias.detach().numpy()).max() <= 300**-0.5


def test_rate_falls_along_half_a_cosine():
    settings = Settings(1e-3, 32, 10, final_rate=0.1)
    rates = [settings.rate(epoch) for epoch in range(1, 11)]
    assert rates[0] == pytest.approx(1e-3)
    assert rates[5] == pytest.approx(5.5e-4)  # halfway
    assert settings.rate(11) == pytest.approx(1e-4)
    assert np.all(np.diff(rates) < 0)
    assert Settings(3e-4, 32, 10).rate(7) == pytest.approx(3e-4)


def test_scores_are_scikit_learns():
    rng = np.random.default_rng(0)
    logits, y = rng.normal(size=(40, 4)), rng.integers(0, 4, 40)
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    score, loss = validation_score(logits, y, "classes")
    assert score == (chances.argmax(1) == y).mean()
    assert loss == pytest.approx(log_loss(y, chances))
    labels = (rng.random((40, 4)) < 0.3).astype(int)
    score, loss = validation_score(logits, labels, "multilabel")
    assert score == pytest.approx(average_precision_score(labels, logits, average="macro"))
    sigmoid = 1 / (1 + np.exp(-logits))
    want = [log_loss(labels[:, c], sigmoid[:, c]) for c in range(4)]
    assert loss == pytest.approx(np.sum(want))
    tied = np.round(logits)  # equals are one threshold
    want = average_precision_score(labels, tied, average="macro")
    assert mean_average_precision(labels, tied) == pytest.approx(want)
    labels[:, 1] = 0  # nothing to rank
    want = average_precision_score(labels[:, [0, 2, 3]], logits[:, [0, 2, 3]], average="macro")
    assert mean_average_precision(labels, logits) == pytest.approx(want)
    assert np.isnan(mean_average_precision(np.zeros((3, 2)), np.ones((3, 2))))


def test_a_last_batch_of_one_clip_does_not_break_batch_norm():
    X, y = blobs(65)
    assert np.isfinite(fit(X, y, MLP).predict(X, np.arange(65))).all()


def test_errors_name_what_is_wrong():
    X, y = blobs(50)
    settings = Settings(1e-3, 32, 2)
    with pytest.raises(DataError, match="the same for every training clip"):
        fit(np.full_like(X, 0.1), y, settings)
    with pytest.raises(DataError, match="one class"):
        fit(X, np.zeros(50, int), settings, k=3)
    X[17, 2] = np.nan
    with pytest.raises(DataError, match="row 17 "):
        fit(X, y, settings, np.arange(10, 40))
    fit(X, y, settings, np.arange(20, 40))  # what is not used may be anything
    with pytest.raises(DataError, match="at least two"):
        fit(X, y, settings, np.arange(1), k=3)
