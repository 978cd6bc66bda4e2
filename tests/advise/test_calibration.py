"""Predictions from a table of measured tasks, against scikit-learn and against what must hold."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr, weightedtau
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from ossicle.advise import calibration
from ossicle.advise.alternatives import ALTERNATIVES

FAMILIES = ("birds", "cars", "words", "rooms", "drums")


def made_up(noise: float = 0.3, seed: int = 0, families=FAMILIES) -> list[dict]:
    """Tasks whose scores follow the quantities, up to noise on the logit."""
    generator = np.random.default_rng(seed)
    rows = []
    for family in families:
        for size in (8, 40):
            gap, ease = generator.uniform(0, 2), generator.uniform(-1.5, 1.5)
            for i, name in enumerate(ALTERNATIVES):
                quick = 1 / (1 + np.exp(-(ease + generator.normal(0, 0.7))))
                z = 1.2 * np.log(quick / (1 - quick)) + 0.2 * np.log2(size) - 0.2 * i
                above = 1 / (1 + np.exp(-(z + noise * generator.normal())))
                rows.append(
                    {
                        **{"task": f"{family}_{size}", "family": family, "alternative": name},
                        **{"backbone": "yamnet", "chance": 0.1, "score": 0.1 + 0.9 * above},
                        **{"per_class": float(size), "classes": 10.0, "quick": quick},
                        **{"explained": 0.8 * quick, "gap": gap},
                    }
                )
    return rows


def test_the_table_of_the_package_gives_its_own_coefficients():
    table = calibration.load()
    again = calibration.fit(table["rows"])
    stored = table["model"]
    for key in ("mean", "scale", "weights", "intercept"):
        assert np.allclose(again[key], stored[key], rtol=1e-6, atol=1e-9), key
    assert again["columns"] == stored["columns"]
    assert again["widths"].keys() == stored["widths"].keys()
    for key, ends in again["widths"].items():
        assert ends == pytest.approx(stored["widths"][key], abs=1e-6)
        assert ends[0] < 0 < ends[1]


def test_the_table_holds_six_data_sets_and_every_alternative():
    rows = calibration.load()["rows"]
    assert len({row["family"] for row in rows}) >= 6
    assert {row["alternative"] for row in rows} == set(ALTERNATIVES)
    for row in rows:
        assert 0 <= row["low"] <= row["score"] <= row["high"] <= 1
        assert 0 < row["chance"] < 1


def design(rows: list[dict]) -> np.ndarray:
    """The columns, written out one row after the other."""

    def logit(p: float) -> float:
        p = min(max(p, 0.02), 0.98)
        return float(np.log(p / (1 - p)))

    table = []
    for row in rows:
        name = row["alternative"]
        trained = name in ("finetune_last", "finetune_all", "scratch")
        size = np.log2(row["per_class"])
        table.append(
            [
                *(float(name == other) for other in ALTERNATIVES),
                logit(row["quick"]),
                logit(row["explained"]),
                size,
                np.log2(row["classes"]),
                trained * logit(row["quick"]),
                trained * size,
                row["gap"] * name.startswith("finetune"),
            ]
        )
    return np.array(table)


def test_coefficients_are_those_of_scikit_learns_ridge():
    rows = made_up()
    model = calibration.fit(rows)
    scaler = StandardScaler().fit(design(rows))
    above = (np.array([row["score"] for row in rows]) - 0.1) / 0.9
    above = above.clip(0.02, 0.98)
    z = np.log(above / (1 - above))
    ridge = Ridge(alpha=calibration.PENALTY).fit(scaler.transform(design(rows)), z)
    assert np.allclose(model["weights"], ridge.coef_, atol=1e-8)
    assert model["intercept"] == pytest.approx(ridge.intercept_)
    expected = 0.1 + 0.9 / (1 + np.exp(-ridge.predict(scaler.transform(design(rows)))))
    found = calibration.predict(model, rows)
    assert np.allclose(found[:, 0], expected, atol=1e-8)
    assert (found[:, 1] <= found[:, 0]).all()
    assert (found[:, 0] <= found[:, 2]).all()


def test_a_data_set_is_predicted_from_the_others_alone():
    rows = made_up()
    before = {
        (p["task"], p["alternative"]): p["expected"]
        for p in calibration.check(rows)["predictions"]
        if p["family"] == "words"
    }
    # Whatever the scores of the data set itself, also of its other subsample.
    changed = [{**r, "score": 0.5} if r["family"] == "words" else r for r in rows]
    after = calibration.check(changed)["predictions"]
    for p in after:
        if p["family"] == "words":
            assert p["expected"] == before[p["task"], p["alternative"]]
    others = [r for r in rows if r["family"] != "words"]
    own = [r for r in rows if r["family"] == "words"]
    expected = calibration.predict(calibration.fit(others), own)[:, 0]
    assert list(before.values()) == pytest.approx(expected.tolist())


def test_scores_that_follow_the_quantities_are_found_again():
    found = calibration.check(made_up(noise=0.05))
    assert found["mean_spearman"] > 0.9
    assert found["mean_tau_w"] > 0.85
    assert found["error"] < 0.04
    assert found["mean_regret"] < 0.02


def test_scores_that_follow_nothing_are_not():
    generator = np.random.default_rng(3)
    rows = [{**r, "score": float(generator.uniform(0.15, 0.95))} for r in made_up()]
    found = calibration.check(rows)
    assert abs(found["mean_spearman"]) < 0.35
    assert found["mean_regret"] > 0.1


def test_intervals_hold_what_they_promise():
    """Of data sets left out, about nine in ten scores lie inside their 90 % interval."""
    held = [calibration.check(made_up(noise=0.5, seed=s))["covered"] for s in range(6)]
    assert 0.82 < np.mean(held) < 0.97


def test_the_widths_are_quantiles_of_residuals_left_out():
    rows = made_up(noise=0.4)
    widths = calibration.fit(rows)["widths"]
    predictions = {(p["task"], p["alternative"]): p for p in calibration.check(rows)["predictions"]}
    residuals = []
    for row in rows:
        if row["alternative"] in ("finetune_last", "finetune_all", "scratch"):
            continue
        pair = row["score"], predictions[row["task"], row["alternative"]]["expected"]
        a, b = (np.log(p / (1 - p)) for p in ((np.array(pair) - 0.1) / 0.9).clip(0.02, 0.98))
        residuals.append(a - b)
    n = len(residuals)
    inside = [widths["frozen"][0] - 1e-9 <= r <= widths["frozen"][1] + 1e-9 for r in residuals]
    assert 0.9 <= sum(inside) / n <= 0.9 + 4 / n


def test_rank_agreement_is_scipys():
    truth, predicted = [0.9, 0.7, 0.8, 0.2], [0.8, 0.75, 0.6, 0.3]
    found = calibration.rank_agreement(truth, predicted)
    assert found["spearman"] == pytest.approx(spearmanr(truth, predicted).statistic)
    assert found["tau_w"] == pytest.approx(weightedtau(truth, predicted).statistic)
    assert found["tau_w"] != pytest.approx(kendalltau(truth, predicted).statistic)
    # A mistake at the top counts more than one at the bottom.
    top = calibration.rank_agreement([4, 3, 2, 1], [3, 4, 2, 1])["tau_w"]
    assert top < calibration.rank_agreement([4, 3, 2, 1], [4, 3, 1, 2])["tau_w"]
    assert calibration.rank_agreement([1, 1, 1], [1, 2, 3]) == {"tau_w": None, "spearman": None}
    assert calibration.rank_agreement([1, 2], [1, 2]) == {"tau_w": None, "spearman": None}


def test_quantities_are_read_off_the_facts():
    facts = {
        "size": {"n_classes": 4, "task": "classes"},
        "sample": {"chance": 0.25},
        "read_outs": {
            "all": {"neighbours": 0.7, "centroid": 0.625, "explained": 0.4},
            "last": {"neighbours": 0.4, "centroid": 0.25, "explained": 0.2},
            "mfcc": {"neighbours": 0.25, "centroid": 0.55, "explained": 0.1},
        },
    }
    q = calibration.quantities(facts, "scratch", 80)
    assert (q["chance"], q["classes"], q["per_class"]) == (0.25, 4.0, 20.0)
    assert q["quick"] == pytest.approx(0.4)
    assert q["explained"] == 0.1
    # Of all layers 0.6 of the way from chance, of the last 0.2: log odds 1.5 and 0.25.
    assert q["gap"] == pytest.approx(np.log(1.5 / 0.25))
    assert calibration.quantities(facts, "random", 80)["quick"] == pytest.approx(0.6)
