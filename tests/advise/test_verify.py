"""Verification against `evaluate`, its verdicts, and the verb as a user types it."""

from __future__ import annotations

import json
import shlex

import pytest
import typer
from typer.testing import CliRunner

from ossicle.advise.advice import advise
from ossicle.advise.alternatives import strategies
from ossicle.advise.cases import further
from ossicle.advise.verify import judge, verification_sample, verify
from ossicle.advise.words import advice_lines, command, duration, table
from ossicle.cli import app
from ossicle.cli_advise import advise as verb
from ossicle.errors import OssicleError
from ossicle.features import extract
from ossicle.finetune.strategy import Strategy
from ossicle.model import create_model
from ossicle.transfer.evaluate import evaluate

FROZEN = {"all": Strategy("probe", "mel"), "mfcc": Strategy("probe", "mfcc")}


def test_verified_scores_are_those_of_evaluate(tones):
    found = verify(tones, FROZEN, n_folds=3, seed=1)
    for name, way in FROZEN.items():
        model = create_model(way.backbone)
        result = evaluate(tones, extract(model, tones), model, n_folds=3, seed=1, diagnostics=False)
        assert found["scores"][name]["value"] == result["score"]["value"]
        assert found["scores"][name]["low"] == pytest.approx(result["score"]["low"])
    assert found["n_clips"] == 36
    assert found["n_groups"] == 18
    worse = next(name for name in FROZEN if name != found["best"])
    gap = found["scores"][found["best"]]["value"] - found["scores"][worse]["value"]
    assert found["to_best"][worse]["value"] == pytest.approx(gap)


def test_many_clips_are_sampled_and_that_is_said(tones):
    some, words = verification_sample(tones, 18)
    assert len(some) == 18
    assert words.startswith("18 of 36 clips")
    assert some.table["label"].value_counts().to_dict() == {"high": 6, "low": 6, "noise": 6}
    assert len(set(some.groups())) == 18
    whole, words = verification_sample(tones, 36)
    assert whole is tones
    assert words == "all 36 clips"


def verdict(values, to_best, recommended):
    entries = [
        {"name": name, "expected": 0.9 - 0.1 * i, "low": 0.5, "high": 0.8}
        for i, name in enumerate(values)
    ]
    best = max(values, key=values.get)
    scores = {name: {"value": value} for name, value in values.items()}
    return judge(entries, {"scores": scores, "best": best, "to_best": to_best}, recommended)


def test_verdicts():
    values = {"a": 0.9, "b": 0.85, "c": 0.6}
    apart, alike = {"low": 0.01}, {"low": -0.02}
    found = verdict(values, {"b": alike, "c": apart}, "a")
    assert (found["verdict"], found["regret"], found["best"]) == ("best", 0.0, "a")
    assert found["spearman"] == pytest.approx(1.0)
    assert found["tau_w"] == pytest.approx(1.0)
    assert (found["covered"], found["n"]) == (1, 3)
    found = verdict(values, {"b": alike, "c": apart}, "b")
    assert (found["verdict"], found["regret"]) == ("within", pytest.approx(0.05))
    assert verdict(values, {"b": alike, "c": apart}, "c")["verdict"] == "worse"
    backwards = dict(reversed(values.items()))
    assert verdict(backwards, {"b": alike, "c": apart}, "a")["spearman"] == pytest.approx(-1.0)


def test_advice_from_end_to_end(tones):
    result = advise(
        tones, "mel", only=["all", "mfcc", "scratch"], n_folds=3, workers=1, seed=2, sample=30
    )
    assert {entry["name"] for entry in result["expected"]} <= {"all", "mfcc", "scratch"}
    assert result["case"]["case"] == "no source"
    assert result["recommended"] in {entry["name"] for entry in result["expected"]}
    assert result["n_training"] == pytest.approx(24)
    assert result["verified"] is None
    lines = advice_lines(result, "tones")
    assert any(line.startswith("recommended: ") for line in lines)
    assert any("mel it is a guess" in line for line in lines)
    assert len(table(result)) == len(result["expected"])


def test_an_alternative_that_is_none_is_refused(tones):
    with pytest.raises(OssicleError, match="choose among last, all"):
        advise(tones, "mel", only=["best"])
    with pytest.raises(OssicleError, match="allows none of these"):
        advise(tones, "mel", only=["finetune_all"])


def test_the_verb_writes_a_page_and_verifies(tones_folder, tmp_path):
    alone = typer.Typer()
    alone.command()(verb)
    out = tmp_path / "out"
    arguments = [tones_folder, "--backbone", "mel", "--only", "all,mfcc", "--verify", "--groups"]
    arguments += [r"/([a-z]+_r\d+)_/", "--n-folds", "3", "--workers", "1", "-o", out, "--json"]
    done = CliRunner().invoke(alone, [str(a) for a in arguments])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout.splitlines()[-1])
    assert set(told["verified"]["scores"]) == {"all", "mfcc"}
    assert told["judged"]["verdict"] in ("best", "within", "worse")
    assert told["record"]["seed"] == 0
    names = {path.name for path in out.iterdir()}
    assert {"advice.json", "advice.md", "advice.csv", "advice-expected.png"} <= names
    page = (out / "advice.md").read_text("utf-8")
    assert "verified on all 36 clips" in page
    assert json.loads((out / "advice.json").read_text("utf-8"))["recommended"]
    assert any(line.startswith("verified on all 36 clips") for line in done.stderr.splitlines())


def test_every_command_is_one_that_can_be_typed():
    verbs = typer.main.get_command(app).commands
    ways = strategies("yamnet", n_training=80, seconds=3.0, layers=27, min_s=0.975)
    every = [*ways.values(), *further("small, different", ways)]
    for way in every:
        words = shlex.split(command(way.text(), "my clips", ["--groups", "runs:20"]))
        context = verbs[words[1]].make_context(words[1], words[2:])
        told = context.params
        assert str(told["clips"]) == "my clips"
        assert told["groups"] == "runs:20"
        assert told["backbone"] == way.backbone
        if way.kind != "probe":
            assert told["scratch"] == (way.kind == "scratch")
            assert told["epochs"] == way.training.epochs
            assert told["batch_size"] == way.training.batch_size
            assert told["unfreeze"] == str(way.training.unfreeze)
            assert told["crop"] == way.training.crop_s
            assert (told["augment"], told["seeds"]) == (way.training.augment, way.training.seeds)


def test_commands_of_probes():
    text = "probe backbone=yamnet layers=last pooling=mean"
    assert command(text, "my clips") == (
        "ossicle train 'my clips' -o model.ossicle --backbone yamnet --layers last --pooling mean"
    )
    chosen = command("probe backbone=yamnet choose_layers=true random=true", "clips")
    assert "--choose-layers" in chosen
    assert "--random" in chosen


def test_durations_are_said_as_people_say_them():
    told = [duration(s) for s in (0.42, 12.3, 89, 91, 5399, 9000)]
    assert told == ["0.4 s", "12 s", "89 s", "2 min", "90 min", "2.5 h"]
