"""The study of transfer: that its arms are comparable, its numbers right, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import soundfile
import typer
from scipy import stats
from sklearn.metrics import accuracy_score, average_precision_score, r2_score
from typer.testing import CliRunner

from ossicle import bundle
from ossicle.cli_study_transfer import _by_set, _named_paths, study_transfer
from ossicle.datasets.clips import Clips, read_clips
from ossicle.errors import DataError, OssicleError
from ossicle.finetune.models import build
from ossicle.finetune.trials import Outcome
from ossicle.study import transfer_matrix, transfer_plan
from ossicle.study.transfer_curves import (
    Curves,
    Judge,
    Resampled,
    Target,
    Trial,
    matching_share,
    mean_of,
)
from ossicle.study.transfer_matrix import transfer_study
from ossicle.study.transfer_page import findings, transfer_figures
from ossicle.study.transfer_plan import TRAINING, TransferPlan

RATE = 16_000
QUICK = replace(TRAINING, epochs=1, batch_size=4)
PLAN = TransferPlan(config={"width": 1 / 16}, shares=(0.5,), seeds=1, n_folds=2, settings=QUICK)


def tones(root: Path, kinds: dict[str, float], n: int = 6, seed: int = 0) -> Path:
    """A folder with n half-second tones of each class, two from each recording."""
    rng = np.random.default_rng(seed)
    for name, pitch in kinds.items():
        (root / name).mkdir(parents=True)
        for i in range(n):
            t = np.arange(RATE // 2) / RATE
            sound = 0.3 * np.sin(2 * np.pi * pitch * rng.uniform(0.9, 1.1) * t)
            sound += 0.01 * rng.normal(size=len(t))
            soundfile.write(root / name / f"{name}-rec{i // 2}-{i % 2}.wav", sound, RATE)
    return root


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> dict[str, Clips]:
    root = tmp_path_factory.mktemp("transfer")
    noises = tones(root / "noises", {"hum": 200, "hiss": 4000}, seed=1)
    words = tones(root / "words", {"one": 300, "two": 900, "three": 2500}, seed=2)
    recording = r"/^(.*rec\d)/"
    return {p.name: read_clips(p, groups=recording) for p in (noises, words)}


class FakeTrials:
    """Remembers what it was asked; the answer depends on the arm alone."""

    asked: ClassVar[list] = []

    def __init__(self, clips: Clips, *, workers: int = 1) -> None:
        self.clips = clips

    def run(self, strategy, train, test, *, seed=0):
        FakeTrials.asked.append((self.clips.root.name, strategy, train, test, seed))
        answers = np.zeros((len(test), len(self.clips.classes)))
        right = strategy.kind != "scratch"
        answers[np.arange(len(test)), (self.clips.y()[test] + (not right)) % answers.shape[1]] = 1
        return Outcome(answers, 0.0, {})


@pytest.fixture
def fake(monkeypatch):
    FakeTrials.asked = []
    monkeypatch.setattr(transfer_matrix, "Trials", FakeTrials)
    monkeypatch.setattr(
        transfer_matrix._Run, "_train_source", lambda self, *_: {"seconds": 0.0, "epochs": 1}
    )
    monkeypatch.setattr(transfer_matrix._Run, "_source_network", lambda self, *key: Path(str(key)))
    monkeypatch.setattr(transfer_matrix, "transfer_figures", lambda curves: {})
    return FakeTrials


def test_all_arms_learn_from_the_same_nested_parts_and_answer_for_the_same_clips(
    sets, fake, tmp_path
):
    plan = replace(PLAN, shares=(0.4, 0.7), seeds=2)
    transfer_study(sets, tmp_path, plan=plan)
    parts: dict = {}
    for name, strategy, train, test, seed in fake.asked:
        clips = sets[name]
        groups = clips.groups()
        assert not set(groups[train]) & set(groups[test])
        # By the test clips, which tell the folds apart.
        parts.setdefault((name, seed, tuple(test)), {}).setdefault(tuple(train), []).append(
            (strategy.kind, strategy.random, strategy.backbone)
        )
    assert len(parts) == 2 * 2 * 2
    for (name, _, test), by_part in parts.items():
        small, middle, whole = sorted(by_part, key=len)
        assert set(small) < set(middle) < set(whole)
        assert set(whole) | set(test) == set(range(len(sets[name])))
        # Two networks, each scratch, untrained, transfer and probe.
        assert all(len(arms) == 8 and len(set(arms)) == 6 for arms in by_part.values())
        available = np.bincount(sets[name].y()[list(whole)])
        for share, part in ((0.4, small), (0.7, middle)):
            counts = np.bincount(sets[name].y()[list(part)])
            assert (counts == np.maximum(2, np.round(share * available))).all()
    seeds = {
        seed: {part for key, by in parts.items() if key[1] == seed for part in by}
        for seed in (0, 1)
    }
    assert seeds[0] != seeds[1]


def test_scratch_and_transfer_differ_in_their_weights_alone(sets, fake, tmp_path):
    transfer_study(sets, tmp_path, plan=PLAN)
    kinds = {s.kind: s for _, s, *_ in fake.asked if s.kind != "probe"}
    assert set(kinds) == {"scratch", "finetune"}
    scratch, transfer = kinds["scratch"], kinds["finetune"]
    for what in ("settings", "layers", "pooling", "probe", "frontend"):
        assert getattr(scratch, what) == getattr(transfer, what), what
    training = transfer.training
    assert (training.unfreeze, training.layer_decay, training.head_start) == ("all", 1.0, "new")
    assert not training.frozen_norms
    assert not training.validation  # which would end one arm before the other


def test_the_numbers_are_those_of_the_answers(sets, fake, tmp_path, monkeypatch):
    """Transfer is always right in the fake, scratch never."""
    monkeypatch.setattr(transfer_matrix, "transfer_figures", transfer_figures)
    result = transfer_study(sets, tmp_path, plan=replace(PLAN, seeds=2))
    assert result["pairs"] == [["noises", "words"], ["words", "noises"]]
    assert all(row["transfer"] == 1 and row["scratch"] == 0 for row in result["gains"])
    assert all(row["gain"] == 1 and row["low"] <= 1 <= row["high"] for row in result["gains"])
    assert all(row["interaction"] == 0 for row in result["interactions"])
    assert all(row["share"] == "50 %" for row in result["matches"])
    assert "noises" not in {r["target"] for r in result["gains"] if r["source"] == "noises"}
    assert "transfer is better, +100.0 points" in result["text"][0]
    names = {Path(p).name for p in result["files"]}
    for kind in ("png", "svg"):
        assert {f"transfer_matrix-matrix.{kind}", f"transfer_matrix-curves.{kind}"} <= names
    saved = json.loads((tmp_path / "transfer_matrix.json").read_text())
    assert saved["record"]["arguments"]["sets"].keys() == {"noises", "words"}


def test_a_finished_study_computes_nothing_and_more_seeds_only_what_is_new(sets, fake, tmp_path):
    first = transfer_study(sets, tmp_path, plan=PLAN)
    asked = len(fake.asked)
    assert transfer_study(sets, tmp_path, plan=PLAN)["scores"] == first["scores"]
    assert len(fake.asked) == asked
    transfer_study(sets, tmp_path, plan=replace(PLAN, seeds=2))
    assert len(fake.asked) == 2 * asked
    assert {seed for *_, seed in fake.asked[asked:]} == {1}
    with pytest.raises(DataError, match="another folder"):
        transfer_study(sets, tmp_path, plan=replace(PLAN, settings=replace(QUICK, epochs=2)))


def test_sources_targets_and_folds_can_be_named(sets, fake, tmp_path):
    plan = replace(PLAN, probes=False, multiscale=False, test_folds={"words": 1})
    result = transfer_study(sets, tmp_path, sources=["noises"], targets=["words"], plan=plan)
    assert result["pairs"] == [["noises", "words"]]
    assert {name for name, *_ in fake.asked} == {"words"}
    assert len(fake.asked) == 2 * 2  # two arms at two shares, one fold
    assert {row["arm"] for row in result["scores"]} == {"scratch", "transfer"}
    assert not result["interactions"]
    assert "words: only 1 of 2 folds are tested" in result["notes"]


def test_a_real_run_goes_on_from_the_sources_weights(sets, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer_matrix, "transfer_figures", lambda curves: {})
    plan = replace(PLAN, multiscale=False, shares=(1.0,), test_folds={"words": 1})
    arguments = {"sources": ["noises"], "targets": ["words"], "plan": plan}
    result = transfer_study(sets, tmp_path, **arguments)
    assert {row["arm"] for row in result["scores"]} == {"scratch", "transfer", "probe", "untrained"}
    (folder,) = (tmp_path / "sources").iterdir()
    source = bundle.load(folder)
    assert source.classes == sets["noises"].classes
    assert source.backbone.config()["width"] == 1 / 16
    run = transfer_matrix._Run(sets, tmp_path, ["noises"], ["words"], plan.checked(), 1)
    cell = next(c for c in run.todo() if c["arm"] == "transfer")
    start = build(run.strategy(cell), 0)
    assert start.head is None
    want = source.backbone.state_dict()
    assert all((value == want[key]).all() for key, value in start.backbone.state_dict().items())
    # It was trained: the weights are not those it began with, and batch norms have heard clips.
    new = build(run.strategy(next(c for c in run.todo() if c["arm"] == "scratch")), 0)
    fresh = new.backbone.state_dict()
    moved = [key for key, value in fresh.items() if not (value == want[key]).all()]
    assert len(moved) == len(fresh)
    # A network that is there is taken; one that was made otherwise is made anew.
    weights = (folder / bundle.WEIGHTS).stat().st_mtime_ns
    assert run._source_network("noises", "plain", 0) == folder
    assert (folder / bundle.WEIGHTS).stat().st_mtime_ns == weights
    source.info["made_from"] = "something else"
    bundle.save(source, folder)
    weights = (folder / bundle.WEIGHTS).stat().st_mtime_ns
    run._source_network("noises", "plain", 0)
    assert (folder / bundle.WEIGHTS).stat().st_mtime_ns != weights


def test_what_cannot_be_compared_is_refused(sets, tmp_path):
    noises, words = sets.values()
    with pytest.raises(DataError, match="a and b are the same recordings"):
        transfer_study({"a": noises, "b": noises.subset(np.arange(3))}, tmp_path, plan=PLAN)
    with pytest.raises(DataError, match="name two sets"):
        transfer_study({"a": noises}, tmp_path, plan=PLAN)
    with pytest.raises(DataError, match="no set 'c'"):
        transfer_study({"a": noises, "b": words}, tmp_path, sources=["c"], plan=PLAN)
    for wrong in (
        {"frozen_norms": True},
        {"unfreeze": "head"},
        {"layer_decay": 0.9},
        {"head_start": "probe"},
        {"unfreeze_every": 2},
        {"seeds": 2},
    ):
        with pytest.raises(OssicleError, match="compared with"):
            replace(PLAN, settings=replace(QUICK, **wrong)).checked()
        with pytest.raises(OssicleError, match="compared with"):
            replace(PLAN, source_settings=replace(QUICK, **wrong)).checked()
    for wrong, said in (
        ({"backbone": "resnet19"}, "unknown backbone"),
        ({"config": {"multiscale": True}}, "one of the arms"),
        ({"seeds": 0}, "seeds is 0"),
        ({"shares": (0.0, 1.0)}, "above 0"),
        ({"shares": (1.5,)}, "at most 1"),
    ):
        with pytest.raises(OssicleError, match=said):
            replace(PLAN, **wrong).checked()
    assert replace(PLAN, shares=(0.4, 0.1, 0.4)).checked().shares == (0.1, 0.4, 1.0)


def test_a_sound_in_both_sets_is_told(sets, tmp_path):
    root = tones(tmp_path / "more", {"buzz": 500, "beep": 1500}, n=4, seed=3)
    assert not transfer_plan.shared_sounds({**sets, "more": read_clips(root)})
    copied = Path(sets["words"].table["path"][0])
    (root / "beep" / "again.wav").write_bytes(copied.read_bytes())
    (said,) = transfer_plan.shared_sounds({**sets, "more": read_clips(root)})
    assert said.startswith("1 sounds are in both words and more")
    assert copied.name in said
    assert "again.wav" in said


@pytest.mark.parametrize("task", ["classes", "multilabel", "regression"])
def test_scores_and_resamples_are_those_of_sklearn_on_repeated_clips(task):
    rng = np.random.default_rng(0)
    n, groups = 40, np.repeat(np.arange(20), 2).astype(str)
    metric = {"classes": accuracy_score, "regression": r2_score}.get(
        task, lambda y, p: average_precision_score(y, p, average="macro")
    )
    shape = (n, 3) if task == "multilabel" else (n,)
    if task == "regression":
        y = rng.normal(size=n)
        decisions = y + rng.normal(size=(2, n))
    else:
        y = rng.integers(2 if task == "multilabel" else 3, size=shape)
        decisions = (
            rng.random((2, *shape)) if task == "multilabel" else rng.integers(3, size=(2, n))
        )
    judge = Judge(Target(task, "", y, groups), seed=3, n_resamples=30)
    score = judge.score(decisions)
    for s, r in product(range(2), range(30)):
        rows = np.repeat(np.arange(n), judge.weights[r].astype(int))
        assert score.samples[s, r] == pytest.approx(metric(y[rows], decisions[s][rows]))
    assert score.values == pytest.approx([metric(y, d) for d in decisions])
    # Clips of a group are drawn together, and as many groups as there are.
    pairs = judge.weights.reshape(30, 20, 2)
    assert (pairs[..., 0] == pairs[..., 1]).all()
    assert (pairs[..., 0].sum(axis=1) == 20).all()


def test_the_interval_of_one_seed_is_students_over_groups():
    hits = np.array([[0, 1, 1, 0, 1, 0, 1, 0]])
    tested = Target("classes", "accuracy", np.ones(8, int), np.arange(8).astype(str))
    found = Judge(tested, n_resamples=20_000).score(hits).interval()
    low, high = stats.t.interval(0.95, 7, loc=0.5, scale=stats.sem(hits[0]))
    assert found["value"] == 0.5
    # The deviation of 20,000 resamples is within 2 % by four of its standard errors.
    assert found["low"] == pytest.approx(low, abs=0.02 * (0.5 - low))
    assert found["high"] == pytest.approx(high, abs=0.02 * (high - 0.5))


def test_the_interval_of_clips_all_alike_is_students_over_seeds():
    """Each group has the same score, so that only seeds vary."""
    values = np.array([0.5, 0.6, 0.8])
    samples = np.repeat(values[:, None], 50, axis=1)
    found = Resampled(values, samples, 10, (0.0, 1.0)).interval()
    low, high = stats.t.interval(0.95, 2, loc=values.mean(), scale=stats.sem(values))
    assert found["low"] == pytest.approx(low)
    assert found["high"] == pytest.approx(min(high, 1.0))
    assert np.isnan(Resampled(values, samples, 1, (0.0, 1.0)).interval()["low"])


def test_the_interval_covers_what_other_seeds_and_clips_would_give():
    """Of 400 studies with three seeds and thirty groups, at least 93 % hold the truth."""
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(30, np.full(30, 1 / 30), size=(400, 200)) / 30
    held = []
    for counts in drawn:
        scores = 0.1 + rng.normal(0, 0.03, (3, 1)) + rng.normal(0, 0.2, 30)
        scores = scores + rng.normal(0, 0.1, (3, 30))
        samples = scores @ counts.T
        found = Resampled(scores.mean(axis=1), samples, 30, (-np.inf, np.inf)).interval()
        held.append(found["low"] <= 0.1 <= found["high"])
    assert 0.93 <= np.mean(held) <= 0.995


def constant(value: float, n_seeds: int = 2) -> Resampled:
    return Resampled(np.full(n_seeds, value), np.full((n_seeds, 20), value), 30, (0.0, 1.0))


def test_the_matching_share_is_the_first_from_which_on_none_falls_behind():
    rng = np.random.default_rng(0)
    shares = (0.1, 0.2, 0.4, 1.0)
    for _ in range(200):
        scores, whole = rng.choice([0.5, 0.6, 0.7], 4), rng.choice([0.5, 0.6, 0.7])
        want = None
        for i in range(4):
            if want is None and all(later >= whole for later in scores[i:]):
                want = shares[i]
        found = matching_share(shares, [constant(s) for s in scores], constant(whole))
        assert found == {"share": want, "low": want, "high": want}
    # Noise of the seeds alone, wide enough to turn everything round.
    noisy = [Resampled(np.array([0.1, 0.9]), np.tile([[0.1], [0.9]], 20), 30, (0, 1))] * 4
    found = matching_share(shares, noisy, constant(0.5))
    assert (found["share"], found["low"], found["high"]) == (0.1, 0.1, None)


def curves_of(scores: dict[tuple[str, str], list[float]]) -> Curves:
    """Of one pair, from (network, arm) -> score at 10 % and 100 %."""
    trials = {}
    for (network, arm), values in scores.items():
        source = "a" if arm in ("transfer", "probe") else None
        for share, value in zip((0.1, 1.0), values, strict=True):
            trials[Trial(source, "b", network, arm, share)] = constant(value)
    networks = tuple(dict.fromkeys(network for network, _ in scores))
    sizes = {("b", 0.1): 10.0, ("b", 1.0): 100.0}
    return Curves(trials, sizes, {"b": "accuracy"}, (0.1, 1.0), networks, (("a", "b"),))


def test_the_interaction_is_its_formula():
    curves = curves_of(
        {
            ("plain", "scratch"): [0.30, 0.60],
            ("plain", "transfer"): [0.50, 0.65],
            ("multiscale", "scratch"): [0.35, 0.62],
            ("multiscale", "transfer"): [0.61, 0.72],
        }
    )
    at_ten, at_all = (term.value for term in curves.interaction("a", "b"))
    assert at_ten == pytest.approx((0.61 - 0.50) - (0.35 - 0.30))
    assert at_all == pytest.approx((0.72 - 0.65) - (0.62 - 0.60))
    table = curves.interactions()
    assert list(table["share"]) == ["10 %", "100 %", "mean"]
    assert table["interaction"][2] == pytest.approx((at_ten + at_all) / 2)
    assert mean_of(curves.interaction("a", "b")).value == pytest.approx((at_ten + at_all) / 2)
    matches = curves.matches().set_index(["network", "scratch"])["share"]
    assert dict(matches) == {
        ("plain", "plain"): "100 %",
        ("multiscale", "multiscale"): "100 %",
        ("multiscale", "plain"): "10 %",
    }
    figures = transfer_figures(curves)
    shown = [text.get_text() for ax in figures["matrix"].axes for text in ax.texts]
    assert [text.split("\n")[0] for text in shown] == ["+20.0", "+5.0", "+26.0", "+10.0"]
    lines = figures["curves"].axes[0].get_lines()
    assert any(np.allclose(line.get_ydata(), [0.61, 0.72]) for line in lines)


def test_words_follow_the_numbers():
    def said(scratch: list[float], transfer: list[float]) -> str:
        curves = curves_of({("plain", "scratch"): scratch, ("plain", "transfer"): transfer})
        return findings(curves)[0]

    worse = said([0.5, 0.8], [0.4, 0.3])
    assert "transfer is worse, -50.0 points" in worse
    assert "At no share tried it matches scratch on everything" in worse
    better = said([0.2, 0.4], [0.6, 0.9])
    assert "transfer is better, +50.0 points" in better
    assert "From 10 % on it matches scratch on everything" in better
    same = said([0.2, 0.5], [0.2, 0.5])
    assert same.count("neither better nor worse beyond its interval") == 3


def test_sets_and_their_options_by_name(tmp_path):
    (tmp_path / "words").mkdir()
    paths = _named_paths([str(tmp_path / "words"), f"noise={tmp_path}/esc"])
    assert paths == {"words": tmp_path / "words", "noise": tmp_path / "esc"}
    assert _by_set(paths, ["speaker", "noise=/^(.)=/"], "--groups") == {
        "words": "speaker",
        "noise": "/^(.)=/",
    }
    assert _by_set(paths, ["/a=(.)/"], "--folds") == dict.fromkeys(paths, "/a=(.)/")
    assert _by_set(paths, None, "--folds") == {}
    for texts, wrong in ((["nose=x"], "no set 'nose'"), (["a", "b"], "given twice")):
        with pytest.raises(DataError, match=wrong):
            _by_set(paths, texts, "--folds")
    with pytest.raises(DataError, match="two sets are called 'words'"):
        _named_paths([str(tmp_path / "words"), f"words={tmp_path}"])
    with pytest.raises(DataError, match="NAME=PATH"):
        _named_paths(["words="])


def test_the_verb(sets, fake, tmp_path):
    app = typer.Typer()
    app.command()(study_transfer)
    paths = [f"{name}={clips.root}" for name, clips in sets.items()]
    out = tmp_path / "out"
    arguments = [*paths, "-o", out, "--groups", r"/^(.*rec\d)/", "--sizes", "50%,100%"]
    arguments += ["--set", "width=1/16", "--seeds", 1, "--n-folds", 2, "--test-folds", "words=1"]
    arguments += ["--target", "words", "--epochs", 7, "--crop", 0.4, "--option", "augment=mask"]
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["pairs"] == [["noises", "words"]]
    _, strategy, *_ = next(asked for asked in fake.asked if asked[1].kind == "finetune")
    training = strategy.settings
    assert (training.epochs, training.augment, training.crop_s) == (7, "mask", 0.4)
    page = (out / "transfer_matrix.md").read_text()
    command = page.split("```")[1].strip()
    assert command.startswith("ossicle study transfer noises=")
    for part in ("--set width=1/16", "--test-folds words=1", "--epochs 7", "--sizes 50%,100%"):
        assert part in command, part
