"""The network where none is named: one place says which, and every way in takes that one."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest
import typer

import ossicle
from ossicle import cli
from ossicle.advise.advice import advise
from ossicle.advise.measure import measure
from ossicle.backbones import BACKBONES, DEFAULT_BACKBONE, WEIGHTS
from ossicle.backbones.frame_crnn import BASES
from ossicle.classifier import AudioClassifier
from ossicle.detector import DEFAULT_BASE, create_detector
from ossicle.finetune.strategy import Strategy
from ossicle.hear_export import load_model
from ossicle.model import create_model
from ossicle.strong.settings import StrongSettings

PACKAGE = Path(ossicle.__file__).parent
# Where the constants get their values, by name of the constant.
PLACES = {"DEFAULT_BACKBONE": "__init__.py", "DEFAULT_BASE": "detector.py"}
# Verbs whose --backbone is another thing: a network to be trained from nothing, or a row to add.
OTHERS = {
    "pretrain": "slowfast_nfnet_f0",
    "study transfer": "resnet18",
    "bench": None,
    "train-detector": None,
}


def parameters(command, path=()):
    """(verb, parameter) of a command and all below it."""
    for name, below in getattr(command, "commands", {}).items():
        yield from parameters(below, (*path, name))
    for parameter in command.params:
        yield " ".join(path), parameter


def test_it_has_weights_and_a_name_in_the_table():
    assert DEFAULT_BACKBONE == ossicle.DEFAULT_BACKBONE
    assert DEFAULT_BACKBONE in BACKBONES
    assert DEFAULT_BACKBONE in WEIGHTS


@pytest.mark.parametrize("function", [AudioClassifier.__init__, advise, measure, Strategy.__init__])
def test_every_function_takes_it(function):
    assert inspect.signature(function).parameters["backbone"].default == DEFAULT_BACKBONE


def test_every_verb_takes_it():
    found = {}
    for verb, parameter in parameters(typer.main.get_command(cli.app)):
        if "--backbone" in parameter.opts:
            found[verb] = parameter.default
    named = {verb: found.pop(verb) for verb in OTHERS if verb in found}
    assert named == OTHERS
    assert {"evaluate", "train", "embed", "audit", "finetune", "advise", "study layers"} <= set(
        found
    )
    assert set(found.values()) == {DEFAULT_BACKBONE}


def test_hear_takes_it(monkeypatch):
    asked = []

    def made(name, **keywords):
        asked.append((name, keywords))
        return create_model("mel")

    monkeypatch.setattr("ossicle.hear_export.create_model", made)
    load_model()
    assert asked == [(DEFAULT_BACKBONE, {"pretrained": True})]


def test_no_other_place_names_a_default():
    """Neither a parameter, a field nor a constant has the name of a network with weights."""
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if not any(f'"{name}"' in text for name in WEIGHTS):
            continue
        for node in ast.walk(ast.parse(text)):
            values: list[ast.expr | None] = []
            if isinstance(node, ast.FunctionDef | ast.Lambda):
                values = [*node.args.defaults, *node.args.kw_defaults]
            elif isinstance(node, ast.AnnAssign):
                values = [node.value]
            elif isinstance(node, ast.Assign):
                if getattr(node.targets[0], "id", "") in PLACES:
                    place = PLACES[node.targets[0].id]
                    wanted = path.relative_to(PACKAGE).as_posix() == place
                    assert wanted == isinstance(node.value, ast.Constant), path
                    continue
                values = [node.value]
            for value in values:
                if isinstance(value, ast.Constant):
                    assert value.value not in (*WEIGHTS, "stapes"), f"{path}:{value.lineno}"


# --- detectors have a default of their own ---------------------------------------------------


def test_detectors_read_the_frames_of_a_base():
    assert DEFAULT_BASE in BASES and DEFAULT_BASE in WEIGHTS
    assert inspect.signature(create_detector).parameters["base"].default == DEFAULT_BASE
    assert StrongSettings().backbone == DEFAULT_BASE
    (option,) = (
        parameter
        for verb, parameter in parameters(typer.main.get_command(cli.app))
        if verb == "train-detector" and "--backbone" in parameter.opts
    )
    # No value on the command line: the settings have it; the help tells it in words.
    assert option.default is None
    assert f"default {DEFAULT_BASE}." in option.help


def test_train_strong_leaves_the_base_to_the_settings(ossicle, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr("ossicle.cli.train_strong", lambda *a, **k: given.append(a[2]))
    arguments = ("train", tmp_path, "-o", tmp_path / "x", "--strong", "--seed", 3)
    assert ossicle(*arguments)[0] == 0
    assert ossicle(*arguments, "--backbone", DEFAULT_BACKBONE)[0] == 0
    assert ossicle(*arguments, "--backbone", "resnet18")[0] == 0
    assert given == [
        {"seed": 3},
        {"seed": 3, "backbone": DEFAULT_BACKBONE},
        {"seed": 3, "backbone": "resnet18"},
    ]
