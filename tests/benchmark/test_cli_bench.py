"""`ossicle bench` as it is typed: a set in its official layout, others missing, rows added."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ossicle.audio import Audio, save
from ossicle.benchmark.hares_suite.tasks import FOLDERS, HARES
from ossicle.benchmark.open_suite.recipes import RECIPES
from ossicle.benchmark.suites import suite_tasks
from ossicle.benchmark.task import DOMAINS
from ossicle.errors import OssicleError


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """ESC-50 in its layout with two of its classes, low and high tones; none of the others."""
    root = tmp_path_factory.mktemp("sets")
    (root / "esc50" / "meta").mkdir(parents=True)
    (root / "esc50" / "audio").mkdir()
    time = np.arange(8000) / 16000
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    for number in range(40):
        fold, high = number % 5 + 1, number // 5 % 2
        name = f"{fold}-{number}-A-{high}.wav"
        noise = np.random.default_rng(number).normal(0, 0.05, len(time))
        tone = 0.3 * np.sin(2 * np.pi * (2500 if high else 200) * time) + noise
        save(root / "esc50" / "audio" / name, Audio(tone[None].astype(np.float32), 16000))
        lines.append(f"{name},{fold},{high},{('dog', 'rooster')[high]},True,{number},A")
    (root / "esc50" / "meta" / "esc50.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def bench(ossicle, sets, tmp_path):
    def run(*options):
        folder = tmp_path / "features"
        return ossicle(
            "bench", "--suite", "hares", "--data", sets, "--features", folder, "--workers", "1",
            "-o", tmp_path / "board", *options,
        )  # fmt: skip

    return run


def test_one_set_runs_and_the_missing_are_named_with_how_to_get_them(bench, tmp_path):
    code, out, err = bench("--backbone", "mel", "--protocol", "ossicle", "--json")
    assert code == 0
    told = json.loads(out.splitlines()[-1])
    row = told["scoreboard"]["rows"][0]
    assert row["scores"]["esc50"]["value"] == 1.0
    assert row["mean"]["n_tasks"] == 1
    assert set(told["missing"]) == set(HARES) - {"esc50"}
    for name in set(HARES) - {"esc50"}:
        assert f"missing {name}: " in err
        assert HARES[name].get in told["missing"][name]
    assert "clips: 40, published 2,000" in err
    for suffix in ("html", "md", "csv", "json"):
        assert (tmp_path / "board" / f"scoreboard.{suffix}").is_file()


def test_a_second_call_adds_a_row_and_does_not_repeat_the_first(bench, tmp_path):
    bench("--backbone", "mel")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "board" / "cells").iterdir()}
    code, out, _ = bench("--row", "the cepstrum:probe backbone=mfcc", "--json")
    assert code == 0
    rows = json.loads(out.splitlines()[-1])["scoreboard"]["rows"]
    assert {row["name"] for row in rows} == {"mel layers=last", "the cepstrum"}
    assert all(path.stat().st_mtime_ns == at for path, at in before.items())


def test_other_protocols_stand_beside_ours(bench):
    bench("--backbone", "mel")
    code, out, _ = bench("--backbone", "mel", "--protocol", "xares-knn", "--json")
    assert code == 0
    rows = json.loads(out.splitlines()[-1])["scoreboard"]["rows"]
    assert {row["protocol"] for row in rows} == {"hares", "xares-knn"}


def test_labels_and_networks_may_have_colons():
    from ossicle.cli_bench import _entries

    rows = ["tuned: twice:probe backbone=hf:NAME layers=last", "probe backbone=hf:NAME"]
    first, second = _entries([], rows, None, None, False, [], False, "")
    assert (first.name, first.strategy.backbone) == ("tuned: twice", "hf:NAME")
    assert (second.name, second.strategy.layers) == ("hf:NAME", None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "name a network"),
        (("--backbone", "mel", "--tasks", "esc51"), "no task 'esc51'"),
        (("--backbone", "mel", "--at", "esc50"), "write SET=DIR"),
        (("--backbone", "mel", "--at", "esc=x"), "no such set"),
        (("--backbone", "mel", "--protocol", "best"), "no protocol 'best'"),
        (("--row", "finetune backbone=mel"), "begin with probe"),
        (("--backbone", "nothing_net"), "nothing_net"),
        (("--backbone", "mel", "--tasks", "tut18"), "none of the 1 tasks"),
    ],
)
def test_mistakes_are_one_line(bench, options, message):
    code, _, err = bench(*options)
    assert code == 2
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err


def test_hares_has_its_twelve_tasks_in_three_domains():
    by_domain = {d: [t for t in HARES.values() if t.domain == d] for d in DOMAINS}
    assert {d: len(tasks) for d, tasks in by_domain.items()} == {
        "environment": 4,
        "speech": 5,
        "music": 3,
    }
    classes = {name: task.published["classes"] for name, task in HARES.items()}
    # Table of google-deepmind/slowfast_nfnets, README.
    assert classes == {
        "audioset": 527,
        "birdsong": 2,
        "tut18": 10,
        "esc50": 50,
        "speech_commands_v1": 12,
        "speech_commands_v2": 35,
        "fluent_speech_commands": 31,
        "voxforge": 6,
        "voxceleb1": 1251,
        "nsynth_instrument": 11,
        "nsynth_pitch": 128,
        "magnatagatune": 50,
    }
    assert [name for name, task in HARES.items() if task.probe == "mlp"] == ["audioset"]
    assert {name for name, task in HARES.items() if task.metric == "map"} == {
        "audioset",
        "magnatagatune",
    }
    assert FOLDERS["nsynth_pitch"] == FOLDERS["nsynth_instrument"] == "nsynth"


def test_the_open_suite_says_what_could_give_the_answer_away():
    assert len(RECIPES) >= 12
    assert {recipe.domain for recipe in RECIPES.values()} == set(DOMAINS)
    for recipe in RECIPES.values():
        assert recipe.licence
        assert len(recipe.caveat) > 20, recipe.name


def test_sets_at_hand_join_only_when_asked(tmp_path, monkeypatch):
    (tmp_path / "data" / "esc10").mkdir(parents=True)
    monkeypatch.setenv("OSSICLE_SHARED", str(tmp_path))
    assert "esc10" not in suite_tasks("open")[0]
    tasks, folders = suite_tasks("open", at_hand=True)
    assert "esc10" in tasks
    assert "fsdd" not in tasks
    assert folders["esc10"] == tmp_path / "data" / "esc10"
    with pytest.raises(OssicleError, match="no suite"):
        suite_tasks("closed")
