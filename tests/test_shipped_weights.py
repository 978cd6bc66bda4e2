"""What the package carries: its own weights, their card, and the command that makes both."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path, PurePosixPath

import pytest
import typer

import ossicle
from ossicle import bundle
from ossicle.backbones import BACKBONES, WEIGHTS
from ossicle.backbones.packaged import MAX_BYTES, packaged_source, read_packaged
from ossicle.cli import app
from ossicle.errors import BundleError
from ossicle.frontend import create_frontend
from ossicle.model import create_model

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(ossicle.__file__).parent
NAME = "stapes"
PACKAGED = [name for name, source in WEIGHTS.items() if "ossicle/weights/" in source.origin]


def test_a_source_says_where_it_lies():
    source = packaged_source("nowhere", "sounds", "MIT")
    assert (source.description, source.licence) == ("sounds", "MIT")
    assert "ossicle/weights/nowhere.safetensors" in source.origin
    with pytest.raises(BundleError) as caught:
        source.load()
    assert str(PACKAGE / "weights" / "nowhere.safetensors") in str(caught.value)


def test_wheels_carry_weights_and_cards():
    if not (ROOT / "pyproject.toml").is_file():
        pytest.skip("needs pyproject.toml of a checkout")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = settings["tool"]["setuptools"]["package-data"]["ossicle"]
    for name in (f"weights/{NAME}.safetensors", f"weights/{NAME}.md"):
        assert any(PurePosixPath(name).match(pattern) for pattern in patterns), name


def test_git_takes_them():
    files = [f"src/ossicle/weights/{NAME}{ending}" for ending in (".safetensors", ".md")]
    asked = subprocess.run(
        ["git", "check-ignore", "--no-index", *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode not in (0, 1):
        pytest.skip("needs git and a checkout")
    assert not asked.stdout


@pytest.mark.skipif(not PACKAGED, reason="the package carries no weights yet")
def test_the_packages_own_weights_load_without_a_network(tmp_path):
    code = (
        "import socket\n"
        "def never(*a, **k): raise AssertionError('asked the network')\n"
        "socket.socket.connect = socket.getaddrinfo = never\n"
        "import sys, numpy as np, ossicle\n"
        "for name in sys.argv[1:]:\n"
        "    model = ossicle.create_model(name, pretrained=True)\n"
        "    blocks = model.clip_features(np.zeros(16000, np.float32))\n"
        "    assert all(np.isfinite(b).all() for b in blocks.values())\n"
        "    print(name, model.num_parameters)\n"
    )
    environment = {**os.environ, "OSSICLE_CACHE": str(tmp_path / "none"), "OSSICLE_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *PACKAGED],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "none").exists()
    assert [line.split()[0] for line in done.stdout.splitlines()] == PACKAGED
    for line in done.stdout.splitlines():
        name, parameters = line.split()
        file = PACKAGE / "weights" / f"{name}.safetensors"
        assert 2 * int(parameters) <= file.stat().st_size <= MAX_BYTES
        assert int(parameters) <= 2_000_000
        assert name in BACKBONES
        text = file.with_suffix(".md").read_text(encoding="utf-8")
        assert text.startswith(f"# {name}\n")
        assert f"{int(parameters):,} parameters" in text


# --- the command that makes them -------------------------------------------------------------


@pytest.fixture(scope="module")
def weights():
    """bench/weights.py, which imports what lies beside it."""
    path = ROOT / "bench" / "weights.py"
    if not path.is_file():
        pytest.skip("needs bench/ of a checkout")
    before = set(sys.modules)
    sys.path.insert(0, str(path.parent))
    try:
        spec = importlib.util.spec_from_file_location("bench_weights", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(path.parent))
        for name in set(sys.modules) - before:
            if "own_network" in name:
                del sys.modules[name]


TRAINING = {
    "ossicle": "0.1.0",
    "commit": {"commit": "0123456789abcdef", "modified": False},
    "python": "CPython 3.11.7",
    "platform": {"cpu": "A Processor"},
    "versions": {"torch": "2.13.0"},
    "time": "2026-03-04T05:06:07+00:00",
    "seed": 17,
    "arguments": {"accelerator": "gpu", "precision": "bf16-mixed"},
}
CORPUS = {
    "hours": 12.34,
    "clips": 4321,
    "seed": 5,
    "by_kind": {"packages": 8.0, "notes": 4.34},
    "by_licence": {"CC0-1.0": 2.0, "CC-BY-3.0 | GPL-2+": 10.34},
    "by_package": {"zsounds-data": 8.0, "notes/flute": 4.34},
    "packages": [{"package": "zsounds-data", "version": "1.2-3", "licence": "CC0-1.0"}],
    "evaluation": {"esc10": 400, "fsdd": 3000},
    "near_copies": {"esc10": 2, "fsdd": 1},
}


def score(value: float, low: float | str, high: float | str) -> dict:
    return {"value": value, "low": low, "high": high}


SCORES = {
    "command": "python bench/own_network.py",
    "record": {"time": "2026-05-06T07:08:09+00:00"},
    "five": {
        "network": "stapes, all layers",
        "rows": {
            "stapes, all layers": {
                "sets": {"esc10": score(0.9, 0.85, 0.95), "fsdd": score(0.5, 0.4, 0.6)},
                "over_yamnet": {
                    "esc10": score(0.02, 0.01, 0.03),
                    "fsdd": score(-0.2, -0.3, -0.1),
                },
                "mean": score(0.7, "nan", "nan"),
                "mean_over_yamnet": score(-0.09, -0.2, 0.02),
            }
        },
    },
    "open": {
        "mean": score(0.6, 0.58, 0.62),
        "rank": 2,
        "of": 9,
        "differences": [
            {"to": "better net", **score(-0.04, -0.06, -0.02)},
            {"to": "worse net", **score(0.04, 0.02, 0.06)},
            {"to": "like net", **score(-0.01, -0.03, 0.01)},
        ],
    },
}


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> dict:
    model = create_model(NAME)
    model.info |= {"training": TRAINING, "weights": "distill by yamnet on 11.0 h", "teachers": {}}
    model.info["teachers"] = {"yamnet": "Apache-2.0"}
    folder = bundle.save(model, tmp_path_factory.mktemp("run") / "run")
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


def section(text: str, heading: str) -> str:
    (found,) = re.findall(rf"^## {heading}\n\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return found


def test_the_card_says_all_that_is_known(weights, config, monkeypatch, tmp_path):
    monkeypatch.setattr(weights, "ROOT", tmp_path)  # whose corpus, if any, is no part of this
    told = {"hours": 11.0, "seconds": 5400.0, "steps": 20_000}
    text = weights.card(config, 1_945_024, CORPUS, told, SCORES, ["ossicle a", "ossicle b"])
    model = create_model(NAME)
    parameters = sum(p.numel() for p in model.backbone.parameters())
    head = text.split("## ")[0]
    assert f"{parameters:,} parameters, 1.95 MB" in head and "16,000 Hz" in head
    made = section(text, "How it was made")
    assert "```\nossicle a\nossicle b\n```" in made
    for words in ("seed: 17", "1.5 h", "20,000 steps", "0123456789ab,", "torch 2.13.0"):
        assert words in made, words
    assert "accelerator: gpu; precision: bf16-mixed" in made and "2026-03-04" in made
    assert "| yamnet | AudioSet, 521 classes | Apache-2.0 |" in section(text, "Teachers")
    data = section(text, "Data")
    assert "12.3 h" in data and "4,321 clips of 2 packages" in data and "Trained on 11.0 h" in data
    assert "with 3 near copies: esc10, fsdd." in data
    assert data.index("| CC-BY-3.0 / GPL-2+ | 10.3 |") < data.index("| CC0-1.0 | 2.0 |")
    listed = section(text, "Packages of the data")
    assert "| zsounds-data | 1.2-3 | CC0-1.0 | 8.00 |" in listed
    assert "| notes/flute | - | - | 4.34 |" in listed
    scores = section(text, "Scores")
    assert "| esc10 | 0.900 (0.850 to 0.950) | +0.020 (+0.010 to +0.030) |" in scores
    assert "| mean | 0.700 | -0.090 (-0.200 to +0.020) |" in scores
    assert "2026-05-06" in scores and "place 2 of 9" in scores
    bad = section(text, "What it is bad at")
    assert "fsdd: below yamnet, all layers, by 0.200 (0.100 to 0.300)." in bad
    assert "below better net by 0.040 (0.020 to 0.060)." in bad
    assert not any(words in bad for words in ("esc10", "worse net", "like net", "not measured"))
    assert f"Above {create_frontend(**model.backbone.frontend).fmax:,.0f} Hz" in bad
    assert section(text, "Licence").startswith("MIT")
    assert not re.search(r"[ \t]$|nan", text, re.MULTILINE)


def test_the_card_tells_of_the_run_that_it_began_with(weights, config):
    before = {**TRAINING, "seed": 4, "time": "2026-02-03T04:05:06+00:00"}
    begun = {"bundle": "first.ossicle", "training": before}
    both = {**config, "info": {**config["info"], "begun_with": begun}}
    told = {"seconds": 5400.0, "steps": 20_000, "before": {"seconds": 1800.0, "steps": 700}}
    made = section(weights.card(both, 1, None, told, None, []), "How it was made")
    now, _, earlier = made.partition("- the run that it began with, first.ossicle:\n")
    assert "seed: 17" in now and "1.5 h" in now and "20,000 steps" in now
    assert all(line.startswith("  - ") for line in earlier.strip("\n").splitlines())
    for words in ("seed: 4", "0.5 h", "700 steps", "2026-02-03"):
        assert words in earlier and words not in now, words


def test_the_card_says_what_is_not_known(weights, config):
    text = weights.card(config, 1_945_024, None, {}, None, ["ossicle a"])
    assert "Not measured yet" in section(text, "Scores")
    assert "not measured yet" in section(text, "What it is bad at")
    assert "Not at hand" in section(text, "Data")
    assert "Packages of the data" not in text
    missing = {**config, "info": {**config["info"], "teachers": None}}
    assert section(weights.card(missing, 1, None, {}, None, []), "Teachers") == "None.\n\n"


def test_steps_go_on_where_they_stopped(weights, tmp_path, capsys, monkeypatch):
    """A step whose file is there is not done again; one that fails stops all with its command."""
    monkeypatch.setattr(weights, "ROOT", tmp_path)
    script = tmp_path / "step.py"
    script.write_text(
        "import sys, pathlib\n"
        "p = pathlib.Path('made') / 'config.json'\n"
        "p.parent.mkdir(); p.write_text('x')\n"
        "print('words'); print('{\"hours\": 2}')\n"
    )
    step = weights.Step(["python", "step.py", "--json"], tmp_path / "made" / "config.json")
    for said in ("python step.py --json\n", "done already: python step.py --json\n"):
        weights.run(step)
        assert capsys.readouterr().out == said
    assert json.loads((tmp_path / "made.json").read_text()) == {"hours": 2}
    # What is measured on is there, or the audio would not be kept clean of it.
    monkeypatch.setenv("OSSICLE_SHARED", str(tmp_path / "sets"))
    step = weights.Step(["python", "step.py", "../shared/data/esc10"], tmp_path / "x")
    with pytest.raises(SystemExit, match=r"sets/data/esc10: is not there; set OSSICLE_SHARED"):
        weights.run(step)
    script.write_text("import sys, pathlib; pathlib.Path('x').write_text(sys.argv[1])\n")
    (tmp_path / "sets" / "data" / "esc10").mkdir(parents=True)
    weights.run(step)
    assert (tmp_path / "x").read_text() == str(tmp_path / "sets" / "data" / "esc10")
    script.write_text("raise SystemExit(3)\n")
    with pytest.raises(SystemExit, match="stopped in: python step.py"):
        weights.run(weights.Step(["python", "step.py"], tmp_path / "gone"))


def test_all_of_it_is_written(weights, config, tmp_path, monkeypatch):
    """The last step's bundle becomes weights and card."""
    folder = bundle.save(create_model(NAME, seed=3), tmp_path / "final.ossicle")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    monkeypatch.setattr(weights, "RUN", [weights.Step(["ossicle", "x"], folder / "config.json")])
    monkeypatch.setattr(weights, "bundle_of", lambda name: folder)
    monkeypatch.setattr(weights, "ROOT", tmp_path)
    monkeypatch.setattr(weights, "SCORES", tmp_path / "none.json")
    monkeypatch.setattr(weights, "answer", lambda name: {})
    monkeypatch.setattr(sys, "argv", ["weights.py", "--out", str(tmp_path / "out")])
    weights.main()
    state = read_packaged(NAME, tmp_path / "out").state
    assert state.keys() == create_model(NAME).backbone.state_dict().keys()
    assert (tmp_path / "out" / f"{NAME}.md").read_text().startswith(f"# {NAME}\n")


def test_the_real_steps_end_in_the_network_that_ships(weights):
    known = typer.main.get_command(app)
    for step in weights.RUN:
        if step.words[0] == "ossicle":
            command, rest = known, list(step.words[1:])
            while hasattr(command, "commands"):
                command = command.commands[rest.pop(0)]
            command.make_context("ossicle", rest)  # which refuses what it does not know
        else:
            assert step.words[0] == "python" and (ROOT / step.words[1]).is_file()
    last = weights.RUN[-1]
    assert last.leaves == weights.bundle_of(weights.FINAL) / "config.json"
    assert last.words[1] == "pretrain" and NAME == weights.NAME
    options = dict(zip(last.words, last.words[1:], strict=False))
    assert options["--backbone"] == NAME
    assert options["--objective"] == "distill"
    # Whatever is there: "auto" is the default, and a GPU is used where there is one.
    assert options.get("--accelerator", "auto") == "auto"
    assert ROOT / options["-o"] == last.leaves.parent
    # What it begins with is made before it.
    assert ROOT / options["--begin"] / "config.json" in [step.leaves for step in weights.RUN[:-1]]
