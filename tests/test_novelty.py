"""The novelty score: its definition in slow numpy, its verdict, and bundles that carry it."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from scipy.special import expit, softmax
from scipy.stats import bernoulli
from scipy.stats import entropy as shannon

from ossicle import bundle
from ossicle.datasets.clips import read_clips
from ossicle.errors import BundleError, OssicleError
from ossicle.features import extract
from ossicle.model import create_model
from ossicle.novelty import MAX_RANK, Novelty, entropy, unknown_label, verdict
from ossicle.predict import predict
from ossicle.transfer.fit import fit_model


@pytest.fixture
def novelty() -> Novelty:
    """Random buffers; the basis is orthonormal, as in a fitted one."""
    made = Novelty(first=3, dims=9, rank=4, means=2, known=7)
    rng = np.random.default_rng(0)
    for name, buffer in made.named_buffers():
        buffer.copy_(torch.from_numpy(rng.normal(size=tuple(buffer.shape))))
        if name == "basis":
            buffer.copy_(torch.from_numpy(np.linalg.qr(rng.normal(size=(9, 4)))[0]))
    made.outside.fill_(0.3)
    made.known.copy_(torch.arange(-3.0, 4.0) * 20)
    return made


def slow(n: Novelty, vectors: np.ndarray) -> np.ndarray:
    """The distances clip by clip, in float64."""
    b = {name: value.double().numpy() for name, value in n.named_buffers()}
    out = []
    for vector in vectors.astype(np.float64):
        z = (vector[3:12] - b["mean"]) * b["scale"]
        u = z @ b["basis"]
        rest = z - b["basis"] @ u
        v = u @ b["whiten"]
        near = min(np.sum((v - centre) ** 2) for centre in b["centres"])
        out.append(near - np.sum((v @ b["total"]) ** 2) + b["outside"][0] * np.sum(rest**2))
    return np.array(out)


def test_the_distance_is_its_definition(novelty):
    vectors = np.random.default_rng(1).normal(size=(20, 15)).astype(np.float32)
    told = novelty.distance(torch.from_numpy(vectors)).numpy()
    np.testing.assert_allclose(told, slow(novelty, vectors), rtol=1e-4, atol=1e-3)
    # Columns that it does not look at do not matter.
    vectors[:, [0, 1, 2, 12, 13, 14]] += 5
    np.testing.assert_array_equal(novelty.distance(torch.from_numpy(vectors)).numpy(), told)


def test_the_entropy_of_answers():
    logits = np.random.default_rng(4).normal(size=(12, 5)) * 4
    told = entropy(torch.from_numpy(logits), "classes").numpy()
    np.testing.assert_allclose(told, shannon(softmax(logits, axis=1), axis=1), atol=1e-9)
    labels = entropy(torch.from_numpy(logits), "multilabel").numpy()
    np.testing.assert_allclose(labels, bernoulli(expit(logits)).entropy().sum(axis=1), atol=1e-9)
    assert entropy(torch.from_numpy(logits), "regression") is None
    sure = torch.tensor([[1e4, -1e4]])
    assert torch.isfinite(entropy(sure, "multilabel")).all()
    assert torch.isfinite(entropy(sure, "classes")).all()


def test_doubt_adds_to_the_distance_by_its_weight(novelty):
    vectors = torch.from_numpy(np.random.default_rng(5).normal(size=(6, 12)).astype(np.float32))
    doubt = torch.rand(6)
    novelty.unsure.fill_(2.5)
    gained = novelty.score(vectors, doubt) - novelty.score(vectors)
    torch.testing.assert_close(gained, 2.5 * doubt, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(novelty.score(vectors), novelty.distance(vectors))


def test_the_number_is_one_minus_the_conformal_p_value(novelty):
    vectors = np.random.default_rng(2).normal(size=(30, 12)).astype(np.float32)
    scores = novelty.distance(torch.from_numpy(vectors)).numpy()
    novelty.known[:3] = torch.from_numpy(scores[:3])  # ties are not less
    told = novelty(torch.from_numpy(vectors)).numpy()
    known = novelty.known.numpy()
    p_value = [(1 + sum(k >= score for k in known)) / (len(known) + 1) for score in scores]
    np.testing.assert_allclose(told, 1 - np.array(p_value), atol=1e-6)
    assert 0 <= told.min() < told.max() < 1


def test_known_sounds_exceed_a_threshold_as_seldom_as_promised():
    made = Novelty(first=0, dims=1, rank=1, means=1, known=999)
    made.mean.zero_(), made.scale.fill_(1), made.basis.fill_(1), made.whiten.fill_(1)
    rng = np.random.default_rng(3)
    # The distance is the square of a standard normal number, and so are the known scores.
    made.known.copy_(torch.from_numpy(rng.normal(size=999) ** 2))
    fresh = made(torch.from_numpy(rng.normal(size=(20_000, 1)).astype(np.float32))).numpy()
    assert np.mean(fresh > 0.95) == pytest.approx(0.05, abs=0.02)


def test_the_verdict():
    labels = ["a", "b", "a", "b"]
    told = verdict(labels, np.array([0.1, 0.951, np.nan, 0.95]), ("a", "b"))
    assert told == ["a", "unknown", "a", "b"]
    assert verdict(labels, np.full(4, 0.3), accept=0.2) == ["unknown"] * 4
    assert verdict([], np.empty(0)) == []
    assert unknown_label(("a",)) == "unknown"
    assert verdict(["unknown"], np.ones(1), ("unknown", "a")) == ["unknown (novel)"]
    for accept in (0.0, 1.0, -1, np.nan):
        with pytest.raises(OssicleError, match="share of known"):
            verdict(labels, np.zeros(4), accept=accept)
    with pytest.raises(OssicleError, match="4 labels"):
        verdict(labels, np.zeros(3))


def test_a_config_makes_the_same_shapes(novelty):
    config = json.loads(json.dumps(novelty.config()))
    with torch.device("meta"):
        again = Novelty.from_config(config, 12)
    assert {n: tuple(b.shape) for n, b in again.named_buffers()} == {
        n: tuple(b.shape) for n, b in novelty.named_buffers()
    }
    again.load_state_dict(novelty.state_dict(), assign=True)
    vectors = torch.randn(3, 12)
    torch.testing.assert_close(again(vectors), novelty(vectors))
    assert not list(novelty.parameters())
    with pytest.raises(OssicleError, match="beyond the 11 columns"):
        Novelty.from_config(config, 11)


@pytest.mark.parametrize(
    "change",
    [
        {"rank": MAX_RANK + 1, "dims": 100},
        {"rank": 0},
        {"rank": 10},
        {"dims": 0},
        {"dims": 10**9},
        {"first": -1},
        {"means": 0},
        {"means": 10**6},
        {"known": 10**6},
        {"known": True},
        {"dims": 9.0},
        {"dims": "9"},
        {"more": 1},
        {"first": None},
    ],
)
def test_sizes_that_none_can_have_are_refused(novelty, change):
    with pytest.raises(OssicleError, match="novelty"):
        Novelty.from_config({**novelty.config(), **change}, 10**9)


def test_what_is_no_config_is_refused():
    for value in (None, [], "x", {}, {"dims": 3}):
        with pytest.raises(OssicleError, match="needs"):
            Novelty.from_config(value, 10)


def test_it_stands_low_in_the_order_of_imports():
    code = "import ossicle.novelty, ossicle.calibrated, sys; print('sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


RATE = 16000


def sound(kind: str, rng: np.random.Generator) -> np.ndarray:
    """0.4 s: a low, a middle or a high tone in a little noise, or clicks."""
    t = np.arange(int(0.4 * RATE)) / RATE
    noise = 0.02 * rng.normal(size=len(t))
    if kind == "clicks":
        return noise + 0.9 * (np.arange(len(t)) % rng.integers(300, 700) == 0)
    hertz = {"low": 300, "middle": 1000, "high": 3000}[kind] * rng.uniform(0.9, 1.1)
    return noise + 0.4 * np.sin(2 * np.pi * hertz * t)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folders of three kinds of tones, one of clicks, and the models of the first three."""
    folder = tmp_path_factory.mktemp("tones")
    rng = np.random.default_rng(0)
    rows = []
    for kind in ("low", "middle", "high", "clicks"):
        for i in range(16):
            path = folder / f"{kind}{i:02d}.wav"
            soundfile.write(path, sound(kind, rng), RATE)
            rows.append({"path": str(path), "label": kind, "group": f"{kind}{i // 2}"})
    table = pd.DataFrame(rows)
    clips = read_clips(table[table["label"] != "clicks"])
    base = create_model("mel")
    features = extract(base, clips)
    made = {
        kind: fit_model(base, features, clips, calibration=kind)
        for kind in ("temperature", "isotonic")
    }
    return table, clips, features, base, made


def test_a_trained_model_calls_clicks_unknown(trained):
    table, _, _, _, made = trained
    model = made["temperature"]
    frame, skipped = predict(model, list(table["path"]), unknown=0.95)
    assert not skipped
    assert list(frame)[:5] == ["row", "file", "label", "score", "novelty"]
    clicks = (table["label"] == "clicks").to_numpy()
    assert (frame["label"][clicks] == "unknown").all()
    assert (frame["label"][~clicks] == table["label"][~clicks]).mean() > 0.9
    plain, _ = predict(model, list(table["path"]))
    assert "novelty" not in plain
    assert set(plain["label"]) == {"low", "middle", "high"}
    pd.testing.assert_frame_equal(
        frame[["score", *model.classes]], plain[["score", *model.classes]]
    )
    # As samples, and with several workers, the same.
    samples = [(sound("clicks", np.random.default_rng(1)).astype(np.float32), RATE)]
    assert predict(model, samples, unknown=0.95)[0]["label"].tolist() == ["unknown"]
    again, _ = predict(model, list(table["path"]), unknown=0.95, workers=3)
    pd.testing.assert_frame_equal(again, frame)


def test_a_bundle_carries_novelty_and_calibration(trained, tmp_path):
    _, _, features, _, made = trained
    for kind, model in made.items():
        back = bundle.load(bundle.save(model, tmp_path / kind))
        vectors = torch.from_numpy(features.matrix(model.readout))
        np.testing.assert_array_equal(
            back.novelty_from_vectors(vectors), model.novelty_from_vectors(vectors)
        )
        np.testing.assert_array_equal(
            back.scores_from_vectors(vectors), model.scores_from_vectors(vectors)
        )
        doubt = shannon(softmax(model.head(vectors).detach().double().numpy(), axis=1), axis=1)
        scores = model.novelty.distance(vectors).numpy() + model.novelty.unsure.numpy() * doubt
        known = model.novelty.known.numpy()
        told = [(known < score).mean() * len(known) / (len(known) + 1) for score in scores]
        np.testing.assert_allclose(model.novelty_from_vectors(vectors), told, atol=2 / len(known))
        assert model.novelty.unsure > 0
        assert back.info["calibration"] == kind
        assert (back.calibration is None) == (kind == "temperature")
    hard = made["temperature"].scores_from_vectors(vectors)
    soft = made["isotonic"].scores_from_vectors(vectors)
    np.testing.assert_allclose(soft, made["isotonic"].calibration(hard), atol=1e-6)
    assert not np.allclose(hard, soft, atol=1e-4)
    np.testing.assert_array_equal(hard.argmax(axis=1), soft.argmax(axis=1))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("novelty", {"first": 0, "dims": 64, "rank": 1, "means": 3, "known": 48}),
        ("novelty", {"first": 10**6, "dims": 64, "rank": 8, "means": 3, "known": 48}),
        ("novelty", "x"),
        ("calibration", {"kind": "isotonic", "maps": [{"x": [0, 1], "y": [1, 0]}]}),
        ("calibration", {"kind": "isotonic", "maps": []}),
        ("calibration", 7),
    ],
)
def test_bundles_that_were_meddled_with_are_refused(trained, tmp_path, key, value):
    path = bundle.save(trained[-1]["isotonic"], tmp_path / "model")
    config = json.loads((path / "config.json").read_text())
    assert config[key]
    config[key] = value
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BundleError):
        bundle.load(path)


def test_bundles_without_either_still_load(trained, tmp_path):
    _, clips, features, base, _ = trained
    plain = fit_model(base, features, clips, novelty=False)
    path = bundle.save(plain, tmp_path / "model")
    config = json.loads((path / "config.json").read_text())
    assert not config.get("novelty")
    assert not config.get("calibration")
    back = bundle.load(path)
    with pytest.raises(OssicleError, match="never heard"):
        predict(back, [], unknown=0.95)
    with pytest.raises(OssicleError, match="never heard"):
        back.novelty_from_vectors(torch.zeros(1, 4))
    with pytest.raises(OssicleError, match="share of known"):
        predict(trained[-1]["isotonic"], [], unknown=1.5)
