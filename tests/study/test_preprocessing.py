"""The preprocessing study, against a slow definition of each setting and known answers."""

from __future__ import annotations

import json
from dataclasses import replace

import librosa
import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import typer
from scipy import stats
from torch import nn
from typer.testing import CliRunner

from ossicle import cli_study_preprocessing
from ossicle.backbones.choi_convnet import ChoiConvNet
from ossicle.datasets.clips import Clips, read_clips
from ossicle.errors import DataError
from ossicle.finetune.models import build
from ossicle.finetune.trials import Outcome, Trials
from ossicle.pretrain.waveforms import Waveforms, decode_cached
from ossicle.study import preprocessing
from ossicle.study.preprocessing import preprocessing_study, usual_excerpt
from ossicle.study.preprocessing_inside import bias_ratio, first_layer, magnitudes
from ossicle.study.preprocessing_page import all_figures
from ossicle.study.preprocessing_plan import FACTORS, SCALINGS, SETTINGS, TRAINING, effects

RATE = 12_000


# --- The twelve settings ---------------------------------------------------------------------


def slow_magnitudes(samples: np.ndarray) -> np.ndarray:
    """(N,) -> (96, T) mel magnitudes in float64: windows cut one by one, librosa's filters."""
    padded = np.pad(samples.astype(np.float64), 256)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    frames = range(1 + len(samples) // 256)
    spectra = [np.abs(np.fft.rfft(window * padded[256 * t : 256 * t + 512])) for t in frames]
    filters = librosa.filters.mel(
        sr=RATE, n_fft=512, n_mels=96, fmin=0, fmax=6000, htk=False, norm="slaney", dtype=np.float64
    )
    return filters @ np.stack(spectra, 1)


def slow_setting(x: np.ndarray, scaling: str, weighting: str, factor: float) -> np.ndarray:
    """The thesis' definitions, step by step (5.2.3)."""
    centres = librosa.mel_frequencies(98, fmin=0, fmax=6000)[1:-1]
    curve_db = librosa.A_weighting(centres, min_db=-80.0)[:, None]
    if scaling == "log":
        x = np.log(x + 1e-7)
    if weighting == "A-weighting":
        # In decibels of a magnitude, 20 log10: ln is ln(10) / 20 of it.
        x = x + curve_db * np.log(10) / 20 if scaling == "log" else x * 10 ** (curve_db / 20)
    if weighting == "per-frequency":
        x = np.stack([(band - band.mean()) / band.std() for band in x])
    return factor * (x - x.mean()) / x.std()


@pytest.fixture(scope="module")
def excerpt() -> np.ndarray:
    """(6000,) noise whose level and colour change, so that no band is constant."""
    rng = np.random.default_rng(0)
    noise = np.convolve(rng.normal(size=6_100), [1, 0.7, 0.3])[:6_000]
    return (0.2 * noise * np.linspace(0.1, 1, 6_000)).astype(np.float32)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: s.name)
def test_a_setting_is_the_slow_definition(setting, excerpt):
    model = build(setting.strategy(0.5, TRAINING), 0)
    with torch.inference_mode():
        found = model.frontend(torch.from_numpy(excerpt)[None])[0, 0].numpy()
    want = slow_setting(slow_magnitudes(excerpt), *setting)
    assert found.shape == want.shape == (96, 24)
    assert np.abs(found - want).max() < 2e-3 * setting.factor
    # The excerpt as a whole is standardised, then scaled.
    assert found.mean() == pytest.approx(0, abs=1e-4 * setting.factor)
    assert found.std() == pytest.approx(setting.factor, rel=1e-4)


def test_the_twelve_are_all_there_and_differ(excerpt):
    assert len({s.name for s in SETTINGS}) == len(set(SETTINGS)) == 12
    pictures = [slow_setting(slow_magnitudes(excerpt), *s) for s in SETTINGS]
    for i, one in enumerate(pictures):
        assert all(np.abs(one - other).max() > 0.1 for other in pictures[:i])


def test_only_the_front_end_differs():
    strategies = [s.strategy(0.5, TRAINING) for s in SETTINGS]
    assert {(s.kind, s.backbone, s.layers, s.settings) for s in strategies} == {
        ("scratch", "choi_convnet", "last", TRAINING)
    }
    one, other = (build(s, 3).backbone.state_dict() for s in (strategies[0], strategies[-1]))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_effects_are_differences_of_means():
    # The thesis' AUC (figure 5.7's order: per-frequency, A-weighting, none).
    published = {
        "log": (0.847, 0.845, 0.844),
        "log x10": (0.846, 0.843, 0.846),
        "linear": (0.833, 0.832, 0.834),
        "linear x10": (0.830, 0.833, 0.832),
    }
    scores = np.array([published[s.group][_place(s.weighting)] for s in SETTINGS])
    found = {name: float(weights @ scores) for name, weights in effects().items()}
    rows = np.array(list(published.values()))
    assert found["log - linear"] == pytest.approx(rows[:2].mean() - rows[2:].mean())
    assert found["log - linear"] == pytest.approx(0.0128, abs=5e-5)
    assert found["x10 - x1"] == pytest.approx(rows[[1, 3]].mean() - rows[[0, 2]].mean())
    columns = rows.mean(axis=0)
    assert found["per-frequency - none"] == pytest.approx(columns[0] - columns[2])
    assert found["A-weighting - none"] == pytest.approx(columns[1] - columns[2])
    assert found["per-frequency - A-weighting"] == pytest.approx(columns[0] - columns[1])
    for w, name in enumerate(("per-frequency", "A-weighting", "none")):
        want = rows[:2, w].mean() - rows[2:, w].mean()
        assert found[f"log - linear, {name}"] == pytest.approx(want)
    assert len(found) == 8


def _place(weighting: str) -> int:
    return ("per-frequency", "A-weighting", "none").index(weighting)


# --- The first layer -------------------------------------------------------------------------


def test_the_first_layer_as_it_acts_is_what_it_answers():
    generator = torch.Generator().manual_seed(0)
    conv, norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4, eps=1e-3)
    for tensor in (conv.bias.data, norm.bias.data, norm.running_mean):
        tensor.normal_(generator=generator)
    for tensor in (norm.weight.data, norm.running_var):
        tensor.uniform_(0.5, 2, generator=generator)
    network = nn.Sequential(conv, norm).eval()
    found = first_layer(network)
    impulse = torch.zeros(1, 1, 9, 9)
    with torch.no_grad():
        silence = network(impulse)[0, :, 4, 4]
        impulse[0, 0, 4, 4] = 1
        answer = network(impulse)[0, :, 3:6, 3:6] - silence[:, None, None]
    assert found["shift"] == pytest.approx(float(silence.abs().mean()), rel=1e-5)
    assert found["gain"] == pytest.approx(float(answer.abs().mean()), rel=1e-5)
    assert found["bias"] == pytest.approx(float(conv.bias.detach().abs().mean()))
    assert found["weight"] == pytest.approx(float(conv.weight.detach().abs().mean()))


def test_bias_ratio_is_recovered_with_its_interval():
    rng = np.random.default_rng(0)
    ratios = [2.0, 3.0, 6.0]
    rows = []
    for seed, ratio in enumerate(ratios):
        level = rng.uniform(0.1, 1, 6)
        of_factor = {f: iter(level * (ratio if f == 10 else 1)) for f in FACTORS}
        for s in SETTINGS:
            value = float(next(of_factor[s.factor]))
            keys = ("bias", "weight", "shift", "gain")
            rows.append({"setting": s.name, "seed": seed, **dict.fromkeys(keys, value)})
    found = bias_ratio(rows)["bias"]
    assert found["by_seed"] == pytest.approx(ratios)
    interval = stats.ttest_1samp(np.log(ratios), 0).confidence_interval(0.95)
    assert found["value"] == pytest.approx(36 ** (1 / 3))
    assert [found["low"], found["high"]] == pytest.approx(np.exp(list(interval)))
    alone = bias_ratio([row for row in rows if row["seed"] == 1])["bias"]
    assert alone["value"] == pytest.approx(3.0)
    assert np.isnan([alone["low"], alone["high"]]).all()
    # Biases that never moved have no ratio.
    still = [{**row, "bias": 0.0} for row in rows]
    assert np.isnan(bias_ratio(still)["bias"]["value"])
    assert bias_ratio([{"setting": "log, none", "seed": 0}]) is None


# --- The whole study, with answers that are known --------------------------------------------


@pytest.fixture
def tones(tmp_path, monkeypatch) -> Clips:
    """18 clips of .3 s, two classes, two clips a group, and a broken one."""
    monkeypatch.setenv("OSSICLE_CACHE", str(tmp_path / "cache"))
    root, rng = tmp_path / "tones", np.random.default_rng(0)
    root.mkdir()
    t = np.arange(3_600) / RATE
    rows = []
    for i in range(18):
        label = ("low", "high")[i // 2 % 2]
        tone = np.sin(2 * np.pi * (400 if label == "low" else 1_500) * t)
        samples = 0.3 * tone + 0.02 * rng.normal(size=len(t))
        soundfile.write(root / f"{i}.wav", samples, RATE)
        rows.append({"file_name": f"{i}.wav", "label": label, "group": f"g{i // 2}"})
    (root / "broken.wav").write_bytes(b"no audio")
    rows.insert(7, {"file_name": "broken.wav", "label": "low", "group": "g99"})
    pd.DataFrame(rows).to_csv(root / "metadata.csv", index=False)
    return read_clips(root, groups="group")


class Known:
    """Answers rightly under log, and as an unlucky coin would under linear."""

    def __init__(self, clips: Clips, stop_after: int = 10**6) -> None:
        self.clips, self.stop_after, self.calls = clips, stop_after, []

    def run(self, strategy, train, test, *, seed=0) -> Outcome:
        if len(self.calls) == self.stop_after:
            raise KeyboardInterrupt
        assert not set(self.clips.groups()[train]) & set(self.clips.groups()[test])
        self.calls.append((strategy, seed))
        y = self.clips.y()[test]
        rng = np.random.default_rng(len(y) + seed)
        certain = np.eye(2)[y] * 0.8 + 0.1
        coin = rng.random(len(y))
        log = strategy.frontend["scaling"] == "log"
        decisions = certain if log else np.stack([coin, 1 - coin], 1)
        model = build(strategy, seed)
        with torch.no_grad():
            first = model.backbone.blocks["block1"][0]
            first.bias.fill_(0.34 if strategy.frontend["scale"] == 10 else 0.1)
        return Outcome(decisions, 0.5, {"epochs": [1]}, model)


@pytest.fixture
def known(tones, monkeypatch) -> list[Known]:
    """The study's own Trials replaced, and its figures left out; those made, last one last."""
    made: list[Known] = []
    monkeypatch.setattr(preprocessing, "all_figures", lambda result: {})

    def make(clips, *, workers=1):
        made.append(Known(clips))
        return made[-1]

    monkeypatch.setattr(preprocessing, "Trials", make)
    return made


def test_study_finds_what_was_put_in(tones, known, tmp_path):
    out = tmp_path / "out"
    ticks = []
    result = preprocessing_study(
        tones, out, seeds=2, n_folds=3, progress=lambda *tick: ticks.append(tick)
    )
    calls = known[0].calls
    assert len(calls) == 12 * 2 * 3 == ticks[-1][0] == ticks[-1][1]
    assert {(s.frontend["scaling"], s.frontend["scale"], seed) for s, seed in calls} == {
        (scaling, factor, seed) for scaling in SCALINGS for factor in FACTORS for seed in (0, 1)
    }
    assert {s.config["excerpt_s"] for s, _ in calls} == {0.3} == {result["excerpt_s"]}
    rows = {row["setting"]: row for row in result["settings"]}
    assert rows["log, none"]["auc"] == rows["log x10, A-weighting"]["accuracy"] == 1.0
    linear = rows["linear, none"]
    assert linear["auc"] < 0.9
    effect = {row["effect"]: row for row in result["effects"]}
    assert effect["log - linear"]["auc"] == pytest.approx(1 - linear["auc"])
    assert effect["log - linear"]["auc low"] > 0
    for name in ("x10 - x1", "A-weighting - none"):
        assert effect[name]["auc"] == pytest.approx(0, abs=1e-12)
        assert effect[name]["auc low"] <= 0 <= effect[name]["auc high"]
    assert result["bias"]["bias"]["value"] == pytest.approx(3.4)
    assert [path for path, _ in result["skipped"]] == ["broken.wav"]
    assert result["seeds"] == [0, 1]
    assert result["protocol"]["n_tested"] == 18
    assert result["protocol"]["n_groups"] == 9


def test_study_writes_what_it_returns(tones, known, tmp_path, monkeypatch):
    monkeypatch.setattr(preprocessing, "all_figures", all_figures)
    out = tmp_path / "out"
    result = preprocessing_study(tones, out, name="x", seeds=1, n_folds=3, command="do it again")
    written = json.loads((out / "x.json").read_text())
    assert written["settings"][0]["auc"] == result["settings"][0]["auc"]
    assert written["command"] == "do it again"
    assert written["record"]["data"]["files"] == 18
    table = pd.read_csv(out / "x.csv")
    assert list(table["setting"]) == [s.name for s in SETTINGS]
    assert len(pd.read_csv(out / "x-effects.csv")) == 8
    page = (out / "x.md").read_text()
    for figure in ("scores", "magnitudes_by_band", "histograms", "first_layer"):
        assert f"x-{figure}.png" in page
        for kind in ("png", "svg"):
            assert (out / f"x-{figure}.{kind}").stat().st_size > 3_000
    assert "log - linear: auc" in page
    assert str(tmp_path) not in page


def test_a_stopped_study_goes_on(tones, known, tmp_path):
    whole = preprocessing_study(tones, tmp_path / "whole", seeds=1, n_folds=3, max_folds=1)
    readable = known[0].clips
    first, second = Known(readable, stop_after=5), Known(readable)
    options = {"seeds": 1, "n_folds": 3, "max_folds": 1}
    with pytest.raises(KeyboardInterrupt):
        preprocessing_study(tones, tmp_path / "out", runner=first, **options)
    assert not (tmp_path / "out" / "preprocessing.json").exists()
    result = preprocessing_study(tones, tmp_path / "out", runner=second, **options)
    assert (len(first.calls), len(second.calls)) == (5, 7)
    for key in ("settings", "effects"):
        pd.testing.assert_frame_equal(pd.DataFrame(result[key]), pd.DataFrame(whole[key]))
    # More seeds go on from there too; another training is another study.
    third = Known(readable)
    preprocessing_study(tones, tmp_path / "out", runner=third, **{**options, "seeds": 2})
    assert [seed for _, seed in third.calls] == [1] * 12
    with pytest.raises(DataError, match="other arguments"):
        preprocessing_study(tones, tmp_path / "out", training=replace(TRAINING, epochs=1))
    for wrong in ({"seeds": 0}, {"max_folds": 0}):
        with pytest.raises(DataError, match="1 or more"):
            preprocessing_study(tones, tmp_path / "other", **wrong)


def test_magnitudes_are_those_of_the_slow_definition(tones):
    waveforms = decode_cached(tones, RATE)
    bands, histograms = magnitudes(waveforms, np.array([0, 5]), 0.3)
    heard = [slow_magnitudes(waveforms.read(i, 0, 3_600)) for i in (0, 5)]
    for weighting in ("per-frequency", "A-weighting", "none"):
        want = np.mean([slow_setting(x, "log", weighting, 1.0).mean(1) for x in heard], 0)
        assert np.abs(np.array(bands[weighting]) - want).max() < 2e-3
    assert bands["frequencies"] == pytest.approx(librosa.mel_frequencies(98, fmax=6000)[1:-1])
    for scaling, found in histograms.items():
        values = np.stack([slow_setting(x, scaling, "none", 1.0) for x in heard])
        assert found["skewness"] == pytest.approx(stats.skew(values, axis=None), rel=1e-2)
        assert sum(found["share"]) == pytest.approx(0.995, abs=2 / values.size)
        assert len(found["share"]) == len(found["edges"]) - 1 == 100


def test_the_usual_excerpt_is_the_median_clip(tones):
    waveforms = decode_cached(tones, RATE)
    assert usual_excerpt(waveforms) == 0.3
    lengths = np.array([1.0, 4.98, 7.0]) * RATE
    for factor, want in ((1, 5.0), (100, 29.0), (0.01, 0.1)):
        parts = {**waveforms._asdict(), "lengths": factor * lengths}
        assert usual_excerpt(Waveforms(**parts)) == want


def test_a_network_is_trained_under_a_setting(tones):
    readable = tones.subset(decode_cached(tones, RATE).rows)
    setting = next(s for s in SETTINGS if s.name == "log x10, A-weighting")
    training = replace(TRAINING, epochs=2, batch_size=8)
    rows = np.arange(len(readable))
    outcome = Trials(readable).run(setting.strategy(0.3, training), rows[:12], rows[12:], seed=1)
    assert outcome.decisions.shape == (6, 2)
    assert outcome.decisions.sum(1) == pytest.approx(1)
    made = outcome.model.frontend.config()
    assert {key: made[key] for key in setting.frontend()} == setting.frontend()
    assert outcome.model.clip.window_s == 0.3
    before = ChoiConvNet.frontend["power"], build(setting.strategy(0.3, training), 1)
    assert before[0] == 2.0
    old, new = first_layer(before[1].backbone), first_layer(outcome.model.backbone)
    # It learnt: He's draw has no bias, and its weights moved.
    assert old["bias"] == 0.0 < new["bias"]
    assert old["weight"] != new["weight"]


# --- The verb --------------------------------------------------------------------------------


def test_the_verb_answers_in_json(tones, known, tmp_path):
    app = typer.Typer()
    app.command()(cli_study_preprocessing.study_preprocessing)
    out = tmp_path / "from verb"
    words = [str(tones.root), "-o", str(out), "--groups", "group", "--seeds", "2", "--epochs", "3"]
    words += ["--n-folds", "3", "--max-folds", "2", "--workers", "1", "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout.splitlines()[-1])
    assert {len(told["settings"]), len(known[0].calls) // 4} == {12}
    assert told["training"]["epochs"] == 3
    assert known[0].calls[0][0].settings == replace(TRAINING, epochs=3)
    assert "log - linear" in done.stderr
    command = json.loads((out / "preprocessing.json").read_text())["command"]
    assert command.startswith("ossicle study preprocessing")
    for part in ("--epochs 3", "--max-folds 2", "--seeds 2", "--groups group", "from verb'"):
        assert part in command
