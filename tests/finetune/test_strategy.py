"""Strategies as text: there and back, as a command, and what is wrong with one in a line."""

from __future__ import annotations

import importlib.util
import shlex
from dataclasses import asdict, fields

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from ossicle import bundle
from ossicle.backbones import DEFAULT_BACKBONE
from ossicle.cli import app
from ossicle.errors import OssicleError
from ossicle.finetune.models import build, renewed
from ossicle.finetune.settings import FinetuneSettings
from ossicle.finetune.strategy import SCRATCH, Strategy
from ossicle.model import create_model

TEXTS = {
    "probe backbone=yamnet": Strategy("probe", "yamnet"),
    "probe": Strategy("probe", DEFAULT_BACKBONE),
    "probe backbone=mfcc layers=1-3,last pooling=mean,max probe=svm choose_layers=true": Strategy(
        "probe", "mfcc", layers="1-3,last", pooling="mean,max", probe="svm", choose_layers=True
    ),
    "probe backbone=crnn random=true set.channels=4": Strategy(
        "probe", "crnn", random=True, config={"channels": 4}
    ),
    "finetune unfreeze=4 epochs=20 learning-rate=1e-3": Strategy(
        "finetune",
        DEFAULT_BACKBONE,
        settings=FinetuneSettings(unfreeze=4, epochs=20, learning_rate=1e-3),
    ),
    "finetune backbone='my nets/a.ossicle' unfreeze=head frozen_norms=no crop_s=none": Strategy(
        "finetune",
        "my nets/a.ossicle",
        settings=FinetuneSettings(unfreeze="head", frozen_norms=False),
    ),
    "scratch backbone=slowfast_nfnet_f0 set.width=1/8 frontend.fmax=7000 epochs=3": Strategy(
        "scratch",
        "slowfast_nfnet_f0",
        config={"width": 0.125},
        frontend={"fmax": 7000.0},
        settings=FinetuneSettings(
            **{**asdict(SCRATCH), "epochs": 3},
        ),
    ),
}


def same(a: Strategy, b: Strategy) -> bool:
    """Equal but for settings that are the defaults, written out or not."""
    one, two = ({f.name: getattr(s, f.name) for f in fields(s)} for s in (a, b))
    one["settings"] = two["settings"] = None
    return one == two and (a.kind == "probe" or a.training == b.training)


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_this_strategy(text):
    assert same(Strategy.parse(text), TEXTS[text])


@pytest.mark.parametrize("strategy", TEXTS.values(), ids=TEXTS)
def test_there_and_back(strategy):
    assert same(Strategy.parse(strategy.text()), strategy)
    assert Strategy.parse(strategy.text()).text() == strategy.text()


def numbers(low: float, high: float):
    return st.floats(low, high, allow_nan=False, exclude_min=True)


training = st.builds(
    FinetuneSettings,
    unfreeze=st.sampled_from(["head", "all"]) | st.integers(1, 99),
    epochs=st.integers(1, 10**6),
    learning_rate=numbers(0, 10),
    layer_decay=numbers(0, 2),
    head_start=st.sampled_from(["probe", "new"]),
    frozen_norms=st.booleans(),
    augment=st.sampled_from(["none", "mask", "mix"]),
    patience=st.integers(0, 50),
    validation=st.floats(0, 0.9),
    crop_s=st.none() | numbers(0, 100),
    balance=st.booleans(),
    seed=st.integers(0, 2**31),
)
words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["finetune", "scratch"]),
    backbone=words.filter(lambda name: name == name.strip()),
    settings=training,
    pooling=st.none() | st.sampled_from(["mean", "mean,max"]),
)
def test_whatever_is_set_comes_back(kind, backbone, settings, pooling):
    strategy = Strategy(kind, backbone, pooling=pooling, settings=settings)
    assert same(Strategy.parse(strategy.text()), strategy)


WRONG = {
    "": "begin with one of probe, finetune, scratch",
    "tune backbone=yamnet": "begin with one of probe",
    "finetune backbone='yamnet": "No closing quotation",
    "finetune epochs": "'epochs': write it as KEY=VALUE",
    "finetune epoch=3": "no keyword 'epoch'",
    "finetune epochs=many": "epochs is 'many': it must be int",
    "finetune epochs=0": "epochs is 0: it must be 1 or more",
    "finetune unfreeze=some": "unfreeze 'some'",
    "finetune augment=loud": "unknown augment 'loud'",
    "probe epochs=3": "a probe has no epochs",
    "probe set.wings=2": f"{DEFAULT_BACKBONE} has no keyword 'wings'",
    "probe backbone=mine.ossicle set.width=2": r"mine\.ossicle brings its own configuration",
    "scratch backbone=mine.ossicle frontend.fmax=2": "brings its own front end",
    "finetune frontend.scaling=linear": "keeps its front end",
    "scratch frontend.colour=red": "has no keyword 'colour'",
    "finetune random=true": "random is of probes",
    "scratch choose_layers=yes": "choose_layers is of probes",
    "finetune probe=svm": "probe is of probes",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_said_in_a_line(text):
    with pytest.raises(OssicleError, match=WRONG[text]) as told:
        Strategy.parse(text)
    assert "\n" not in str(told.value)


def test_the_kind_is_checked_without_a_text_too():
    with pytest.raises(OssicleError, match="strategy 'tune'"):
        Strategy("tune")


def parsed(line: str) -> dict:
    """What the command line itself makes of a command."""
    words = shlex.split(line)[1:]
    command = typer.main.get_command(app).commands[words[0]]
    return command.make_context(words[0], words[1:]).params


@pytest.mark.parametrize("strategy", TEXTS.values(), ids=TEXTS)
def test_its_command_is_one(strategy):
    found = parsed(strategy.command("my clips", "out.ossicle"))
    assert str(found["clips"]) == "my clips"
    assert str(found["out"]) == "out.ossicle"
    assert found["backbone"] == strategy.backbone
    assert found["layers"] == (strategy.layers or ("all" if strategy.kind == "probe" else None))
    assert found["pooling"] == strategy.pooling
    if strategy.kind == "probe":
        assert found["probe"] == strategy.probe
        assert found["choose_layers"] == strategy.choose_layers
        return
    assert found["scratch"] == (strategy.kind == "scratch")
    told = asdict(strategy.training)
    for name in ("epochs", "learning_rate", "patience"):
        usual = asdict(Strategy(strategy.kind).training)[name]
        assert (usual if found[name] is None else found[name]) == told[name]
    assert found["unfreeze"] == str(told["unfreeze"])
    for name in ("batch_size", "frozen_norms", "augment", "validation", "balance", "seeds"):
        assert found[name] == told[name]


# --- the network that it starts from ---------------------------------------------------------


def test_networks_without_weights_to_start_from_are_refused():
    for strategy, message in (
        (Strategy("finetune", "mfcc"), "mfcc has no weights to train"),
        (Strategy("scratch", "mel"), "mel has no weights to train"),
        (Strategy("finetune", "crnn"), "crnn has no published weights"),
        (Strategy("finetune", "yamnet", config={"width": 1}), "have no keywords"),
        (Strategy("finetune", "no_such_net"), "unknown backbone 'no_such_net'"),
        (Strategy("scratch", "crnn", config={"wings": 2}), "wings"),
    ):
        with pytest.raises(OssicleError, match=message):
            build(strategy, 0)


def test_random_weights_come_from_the_seed():
    strategy = Strategy("scratch", "choi_convnet", config={"excerpt_s": 0.3})
    states = [build(strategy, seed).backbone.state_dict() for seed in (0, 0, 1)]
    names = [name for name in states[0] if name.endswith("0.weight")]
    assert all(states[0][name].equal(states[1][name]) for name in names)
    assert not any(states[0][name].equal(states[2][name]) for name in names)
    assert build(strategy, 0).info["pretrained"] is False


def test_the_front_end_follows_the_strategy():
    plain = Strategy("scratch", "choi_convnet", config={"excerpt_s": 0.3})
    linear = Strategy.parse(plain.text() + " frontend.scaling=linear frontend.scale=10")
    before, after = build(plain, 0).frontend.config(), build(linear, 0).frontend.config()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"scaling", "scale"}
    assert (after["scaling"], after["scale"]) == ("linear", 10.0)
    with pytest.raises(OssicleError, match="reads 96 bands, not 64"):
        build(Strategy.parse(plain.text() + " frontend.n_mels=64"), 0)


def test_a_bundle_is_a_start_and_its_shape_one_from_scratch(network, tmp_path):
    model = network(seed=5)
    path = bundle.save(model, tmp_path / "mine.ossicle") or tmp_path / "mine.ossicle"
    begun = build(Strategy("finetune", str(path)), 0)
    for name, tensor in begun.backbone.state_dict().items():
        assert tensor.equal(model.backbone.state_dict()[name])
    new = build(Strategy("scratch", str(path)), 3)
    fresh = create_model("choi_convnet", excerpt_s=0.3, seed=3)
    for name, tensor in new.backbone.state_dict().items():
        assert tensor.equal(fresh.backbone.state_dict()[name])
    assert new.info["pretrained"] is False
    assert "random, seed 3" in new.info["weights"]
    assert renewed(model, 3).clip == model.clip


def test_without_lightning_one_line_says_so(monkeypatch):
    """Before anything is read, and only where something is to be trained."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for text in ("scratch backbone=resnet18", "finetune"):
        with pytest.raises(OssicleError, match=r"training needs Lightning: pip install"):
            build(Strategy.parse(text), 0)
    assert build(Strategy.parse("probe backbone=mfcc"), 0).info["name"] == "mfcc"


def test_commands_hold_only_what_the_verb_takes():
    text = "scratch backbone=resnet18 frozen_norms=false head_start=new layer_decay=0.5 epochs=3"
    assert Strategy.parse(text).command("c", "m.ossicle") == (
        "ossicle finetune c -o m.ossicle --backbone resnet18 --scratch --epochs 3"
    )
    with pytest.raises(OssicleError, match="no verb changes the front end"):
        Strategy.parse("probe backbone=choi_convnet random=true frontend.scale=10").command()
