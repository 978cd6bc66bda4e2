"""Which case a task is, and what is recommended."""

from __future__ import annotations

import copy

import pytest

from ossicle.advise import cost
from ossicle.advise.alternatives import ALTERNATIVES, strategies
from ossicle.advise.cases import DO, further, place
from ossicle.advise.cost import costs
from ossicle.advise.expect import beyond, expect, recommended
from ossicle.finetune.strategy import Strategy


@pytest.fixture
def facts() -> dict:
    read_out = {"neighbours": 0.7, "centroid": 0.6, "explained": 0.4}
    return {
        "size": {
            **{"task": "classes", "n_classes": 5, "median_clips": 30.0, "median_groups": 20.0},
        },
        "sound": {"seconds": {"median": 2.0}},
        "sample": {"chance": 0.2},
        "network": {"name": "yamnet", "pretrained": True, "layers": 27, "min_s": 0.975},
        "read_outs": {name: read_out for name in ("last", "all", "random", "mfcc")},
        "last_to_best": 0.9,
        "distance": None,
        "seconds": {"own": 0.1, "random": 0.2, "mfcc": 0.01},
    }


@pytest.mark.parametrize(
    ("clips", "share", "case"),
    [
        (30, 0.9, "small, similar"),
        (99, 0.8, "small, similar"),
        (99, 0.79, "small, different"),
        (100, 0.79, "large, different"),
        (5000, 1.0, "large, similar"),
    ],
)
def test_the_four_cases(facts, clips, share, case):
    facts["size"]["median_clips"] = clips
    facts["last_to_best"] = share
    found = place(facts)
    assert found["case"] == case == f"{found['size']}, {found['similarity']}"
    assert set(found["names"]) <= set(ALTERNATIVES)
    assert len(found["why"]) == 2


def test_recordings_that_cannot_be_told_apart_settle_it(facts):
    facts["last_to_best"] = 0.3
    facts["distance"] = {"proxy_a": {"value": 0.4}}
    assert place(facts)["similarity"] == "similar"
    facts["distance"] = {"proxy_a": {"value": 1.9}}
    assert place(facts)["similarity"] == "different"
    # Told apart, which other microphones can do: the read-out decides.
    facts["last_to_best"] = 0.95
    assert place(facts)["similarity"] == "similar"


def test_a_network_that_learnt_from_nothing_has_no_source(facts):
    facts["network"]["pretrained"] = False
    assert place(facts)["case"] == "no source"


def test_few_groups_are_told(facts):
    facts["size"] |= {"median_clips": 500.0, "median_groups": 4.0}
    assert any("few groups" in text for text in place(facts)["why"])


def test_strategies_can_be_typed(facts):
    ways = strategies("yamnet", n_training=160, seconds=5.0, layers=27, min_s=0.975)
    assert set(ways) == set(ALTERNATIVES)
    for name, way in ways.items():
        assert Strategy.parse(way.text()).text() == way.text()
        assert (way.kind != "probe") == ALTERNATIVES[name].trained
    assert ways["last"].layers == "last"
    assert ways["finetune_last"].training.unfreeze == 6
    # More clips, fewer epochs, within limits.
    epochs = [
        strategies("yamnet", n_training=n, seconds=1.0)["finetune_all"].training.epochs
        for n in (10, 100, 10_000)
    ]
    assert epochs == [16, 10, 6]


def test_what_a_network_cannot_do_is_left_out():
    untrained = strategies("choi_convnet", n_training=50, seconds=5.0, pretrained=False, layers=5)
    assert set(untrained) == {"last", "all", "chosen", "mfcc", "scratch"}
    assert set(strategies("mfcc", n_training=50, seconds=1.0, pretrained=False, layers=1)) == {
        "all",
        "scratch",
    }


def test_further_ways_augment_and_average():
    ways = strategies("yamnet", n_training=160, seconds=5.0, layers=27)
    for case in DO:
        for way in further(case, ways):
            assert way.training.augment == "mix"
            assert Strategy.parse(way.text()).training == way.training
    assert [way.training.seeds for way in further("small, different", ways)] == [1, 3]
    assert further("small, different", {"all": ways["all"]}) == []


def test_the_cheapest_of_equals_is_recommended():
    def entry(name, expected, seconds):
        return {"name": name, "expected": expected, "seconds": seconds}

    some = [entry("a", 0.90, 500.0), entry("b", 0.895, 3.0), entry("c", 0.88, 1.0)]
    assert recommended(some) == "b"
    assert recommended([entry("a", 0.95, 500.0), *some[1:]]) == "a"


def test_costs_add_up(facts, monkeypatch):
    monkeypatch.setattr(cost, "step_seconds", lambda strategy, seconds: 0.5)
    ways = strategies("yamnet", n_training=100, seconds=2.0, layers=27, min_s=0.975)
    rows = [
        {"alternative": "all", "seconds": 4.0, "n_training": 100.0},
        {"alternative": "all", "seconds": 8.0, "n_training": 100.0},
        {"alternative": "all", "seconds": 80.0, "n_training": 100.0},
    ]
    found = costs(ways, facts, 100, rows)
    assert found["all"]["seconds"] == pytest.approx(100 * 0.1 + 8.0)
    assert found["mfcc"]["seconds"] == pytest.approx(100 * 0.01)
    assert found["random"]["features"] == pytest.approx(100 * 0.2)
    # 10 epochs; 85 clips learnt from at half a second, 15 listened to.
    tuned = 100 * 0.1 + 8.0 + 10 * (85 * 0.5 + 15 * 0.1)
    assert found["finetune_all"]["seconds"] == pytest.approx(tuned)
    assert found["scratch"]["seconds"] == pytest.approx(40 * (85 * 0.5 + 15 * 0.5 / 3))
    halved = costs(ways, facts, 100, rows, workers=2)["scratch"]["seconds"]
    assert halved == pytest.approx(found["scratch"]["seconds"] / 2)


def test_a_step_is_timed_of_the_layers_that_learn():
    way = Strategy.parse("scratch backbone=choi_convnet set.excerpt_s=1.0 crop_s=1")
    assert 0 < cost.step_seconds(way, 1.0) < 10


def test_expectations_follow_the_quick_scores(facts, monkeypatch):
    monkeypatch.setattr(cost, "step_seconds", lambda strategy, seconds: 0.5)
    ways = strategies("yamnet", n_training=100, seconds=2.0, layers=27, min_s=0.975)
    frozen = {name: ways[name] for name in ("last", "all", "random", "mfcc")}
    before = {e["name"]: e for e in expect(facts, frozen, 100)}
    better = copy.deepcopy(facts)
    better["read_outs"]["mfcc"] = {"neighbours": 0.95, "centroid": 0.95, "explained": 0.8}
    after = {e["name"]: e for e in expect(better, frozen, 100)}
    assert after["mfcc"]["expected"] > before["mfcc"]["expected"] + 0.05
    assert after["random"]["expected"] == before["random"]["expected"]
    ordered = [e["expected"] for e in expect(facts, frozen, 100)]
    assert ordered == sorted(ordered, reverse=True)
    for e in before.values():
        assert 0 <= e["low"] <= e["expected"] <= e["high"] <= 1


def test_what_lies_outside_the_table_is_told(facts):
    table = {
        "model": {"range": {"per_class": [5.0, 40.0], "classes": [2.0, 10.0]}},
        "rows": [{"backbone": "yamnet", "alternative": "finetune_all"}],
    }
    assert beyond(facts, 100, table) == []
    assert "400 clips a class" in beyond(facts, 2000, table)[0]
    facts["network"]["name"] = "musicnn"
    assert any("for musicnn it is a guess" in text for text in beyond(facts, 100, table))
