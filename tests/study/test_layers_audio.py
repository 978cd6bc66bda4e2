"""The layers study of audio: against the product's own evaluation, and what it writes."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import typer
from scipy.stats import spearmanr
from typer.testing import CliRunner

from ossicle.cli_study_layers import study_layers
from ossicle.datasets.clips import read_clips
from ossicle.errors import DataError, OssicleError
from ossicle.features import extract
from ossicle.model import create_model
from ossicle.study import layers_readouts
from ossicle.study.layers_audio import layers_audio_study
from ossicle.study.layers_figures import sets_figure
from ossicle.study.layers_readouts import ALL, BEST, CHOSEN, LAST, MFCC, MFCC_ALL, UNTRAINED
from ossicle.study.layers_text import study_text
from ossicle.transfer.evaluate import evaluate
from ossicle.transfer.probe import create_probe
from ossicle.transfer.protocol import choose_protocol

METHODS = ("exhaustive", "group-sparse")


@pytest.fixture(scope="module")
def network():
    return create_model("choi_convnet", seed=0)


@pytest.fixture(scope="module")
def studied(clips, network, tmp_path_factory):
    """Two tasks: the classes of the folder, and two of them."""
    source = read_clips(clips)
    two = source.subset(np.flatnonzero(source.table["label"] != "kick"))
    folder = tmp_path_factory.mktemp("study")
    result = layers_audio_study(
        {"three": source, "two": two},
        network,
        create_model("choi_convnet", seed=1),
        folder,
        methods=METHODS,
        n_folds=3,
        name="layers_test",
        command="ossicle study layers three two",
    )
    return source, folder, result


def test_scores_are_those_of_an_evaluation(studied, network):
    source, _, result = studied
    three = result["tasks"]["three"]
    for readout, model, layers in (
        (ALL, network, "all"),
        (LAST, network, "last"),
        (UNTRAINED, create_model("choi_convnet", seed=1), "all"),
        (MFCC, create_model("mfcc"), "all"),
    ):
        table = extract(model, source, layers=layers)
        expected = evaluate(source, table, model, n_folds=3, diagnostics=False)
        found = three["scores"][readout]
        assert found == pytest.approx(expected["score"], abs=1e-9), readout
    for layer in (network.layers[0], network.layers[3]):
        table = extract(network, source, layers=[layer])
        expected = evaluate(source, table, network, n_folds=3, diagnostics=False)
        assert three["profile"][layer] == pytest.approx(expected["score"], abs=1e-9)
    assert three["profile"][network.layers[-1]] == three["scores"][LAST]
    assert three["n_clips"] == len(source)


def test_chosen_layers_are_read_out_on_clips_that_did_not_choose(studied, network):
    source, _, result = studied
    three = result["tasks"]["three"]
    table, y = extract(network, source), source.y()
    mfcc = extract(create_model("mfcc"), source)
    protocol = choose_protocol(source, n_folds=3)
    right = {CHOSEN: 0.0, MFCC_ALL: 0.0}
    for (train, test), layers in zip(protocol.folds, three["chosen_by_fold"], strict=True):
        names = table.names(layers)
        for key, X, sizes in (
            (CHOSEN, table.matrix(names), table.sizes(names)),
            (
                MFCC_ALL,
                np.concatenate([mfcc.matrix(), table.matrix()], axis=1),
                [*mfcc.sizes(), *table.sizes()],
            ),
        ):
            probe = create_probe("ridge", "classes", random_state=0)
            probe.fit(X[train], y[train], protocol.groups[train], sizes)
            right[key] += np.sum(probe.predict(X[test]) == y[test])
    for key, count in right.items():
        assert three["scores"][key]["value"] == pytest.approx(count / len(y))
    for fold in range(3):
        losses = {m: three["inner"]["inner_loss"][m][fold] for m in METHODS}
        assert losses[three["method_by_fold"][fold]] == min(losses.values())


def test_summaries_follow_from_the_parts(studied, network):
    _, _, result = studied
    tasks = result["tasks"]
    for readout, mean in result["means"].items():
        values = [t["scores"][readout]["value"] for t in tasks.values()]
        assert mean == pytest.approx(sum(values) / 2)
    pair = result["differences"][f"{CHOSEN} - {ALL}"]
    each = [t["scores"][CHOSEN]["value"] - t["scores"][ALL]["value"] for t in tasks.values()]
    assert pair["difference"] == pytest.approx(np.mean(each))
    assert pair["low"] <= pair["difference"] <= pair["high"]
    assert pair["tasks_better"] == sum(d > 1e-12 for d in each)
    for t, d in zip(tasks.values(), each, strict=True):
        assert t["differences"][f"{CHOSEN} - {ALL}"]["difference"] == pytest.approx(d)
        share = t["selection"][CHOSEN]
        counts = [sum(layer in c for c in t["chosen_by_fold"]) for layer in network.layers]
        assert list(share.values()) == pytest.approx([c / t["n_folds"] for c in counts])
        assert t["n_chosen"][CHOSEN] == pytest.approx(sum(counts) / t["n_folds"])
        assert sum(t["selection"][BEST].values()) == pytest.approx(1.0)
        assert len(t["sets"]) == 2 ** len(network.layers) - 1
    (agreement,) = result["agreement"]
    profiles = [[p["value"] for p in t["profile"].values()] for t in tasks.values()]
    assert agreement["rank_correlation"] == pytest.approx(spearmanr(*profiles).statistic)


def test_what_is_written(studied, network):
    _, folder, result = studied
    saved = json.loads((folder / "layers_test.json").read_text())
    assert saved["means"] == result["means"]
    assert saved["record"]["data"]["files"] == 24
    table = pd.read_csv(folder / "layers_test.csv", index_col="read-out")
    for task in ("three", "two"):
        for readout, score in result["tasks"][task]["scores"].items():
            assert table.loc[readout, task] == pytest.approx(score["value"])
    assert table.loc[ALL, "mean"] == pytest.approx(result["means"][ALL])
    page = (folder / "layers_test.md").read_text()
    assert "ossicle study layers three two" in page
    assert all(layer in page for layer in network.layers)
    assert str(folder) not in page
    for key in ("scores", "layer_profile", "layers_chosen", "sets_by_size"):
        assert (folder / f"layers_test-{key}.png").stat().st_size > 5_000
        assert (folder / f"layers_test-{key}.svg").is_file()


def test_a_stopped_study_goes_on(clips, network, tmp_path, monkeypatch):
    source = read_clips(clips)
    how = {"methods": ("forward",), "n_folds": 2}
    whole = layers_audio_study({"a": source}, network, None, **how)
    told = []

    def stop(text):
        told.append(text)
        if text == "a: fold 2 of 2, all":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        layers_audio_study({"a": source}, network, None, tmp_path, tell=stop, **how)
    again = []
    result = layers_audio_study({"a": source}, network, None, tmp_path, tell=again.append, **how)
    assert not any("fold 1" in text for text in again)
    assert any("fold 2 of 2, all" in text for text in again)
    assert result["tasks"] == whole["tasks"]
    monkeypatch.setattr("ossicle.study.layers_audio.extract", None)  # nothing is made again
    same = layers_audio_study({"a": source}, network, None, tmp_path, **how)
    assert same["tasks"] == whole["tasks"]
    with pytest.raises(DataError, match="other arguments"):
        layers_audio_study({"a": source}, network, None, tmp_path, methods=("backward",))


def test_other_labels_than_classes(clips, network, tmp_path, monkeypatch):
    monkeypatch.setattr(layers_readouts, "COSTLY_RESAMPLES", 10)
    source = read_clips(clips)
    generator = np.random.default_rng(0)
    rows = pd.DataFrame({"path": source.table["path"], "label": generator.normal(size=24)})
    rows["label"] += np.repeat([0.0, 3.0, 6.0], 8)
    number = read_clips(rows, labels="regression", groups="none")
    rows["label"] = [f"{a};loud" if i % 2 else a for i, a in enumerate(source.table["label"])]
    many = read_clips(rows, labels="multilabel", groups="none")
    result = layers_audio_study(
        {"number": number, "many": many}, network, None, tmp_path, methods=("forward",), n_folds=2
    )
    for task, clips_of in (("number", number), ("many", many)):
        entry = result["tasks"][task]
        table = extract(network, clips_of)
        expected = evaluate(clips_of, table, network, n_folds=2, diagnostics=False)
        assert entry["metric"] == expected["metric"]
        assert entry["scores"][ALL]["value"] == pytest.approx(expected["score"]["value"], abs=2e-3)
    assert result["means"] is None
    assert "different metrics" in "\n".join(result["text"])


def test_a_deep_network(clips):
    source = read_clips(clips)
    few = source.subset(np.r_[0:4, 8:12])
    deep = create_model("densenet121")
    result = layers_audio_study({"few": few}, deep, None, methods=("group-sparse",), n_folds=2)
    entry = result["tasks"]["few"]
    assert tuple(entry["profile"]) == deep.layers
    assert len(deep.layers) >= 58
    assert 1 <= entry["n_chosen"][CHOSEN] <= len(deep.layers)
    assert "sets" not in entry
    with pytest.raises(DataError, match=f"{len(deep.layers)} layers"):
        layers_audio_study({"few": few}, deep, methods=("exhaustive",))


def test_unreadable_clips_are_left_out_and_told(clips, network, tmp_path):
    rows = read_clips(clips).table[["path", "label"]].copy()
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF nothing")
    rows.loc[3, "path"] = str(broken)
    source = read_clips(rows, groups="none")
    result = layers_audio_study({"a": source}, network, methods=("forward",), n_folds=2)
    assert result["tasks"]["a"]["n_clips"] == 23
    assert any("broken.wav" in text for text in result["text"])


def _told(every, chosen):
    """The text for made-up differences: (difference, low, high) of all - last, chosen - all."""
    difference = {
        f"{ALL} - {LAST}": dict(zip(("difference", "low", "high"), every, strict=True)),
        f"{CHOSEN} - {ALL}": dict(zip(("difference", "low", "high"), chosen, strict=True)),
    }
    for d in difference.values():
        d |= {"tasks_better": int(d["difference"] > 0), "tasks_worse": int(d["difference"] < 0)}
    score = {"value": 0.5, "low": 0.4, "high": 0.6}
    return " ".join(
        study_text(
            {
                "layers": ["a"],
                "network": {"name": "net", "weights": "none"},
                "differences": difference,
                "agreement": [],
                "tasks": {
                    "t": {
                        "profile": {"a": score},
                        "scores": {LAST: score, ALL: score, CHOSEN: score},
                        "n_chosen": {CHOSEN: 1.0},
                        "n_clips": 2,
                        "n_groups": 2,
                        "protocol": "two folds",
                        "skipped": [],
                    }
                },
            }
        )
    )


def test_words_follow_the_numbers():
    good, bad, unclear = (0.1, 0.05, 0.15), (-0.1, -0.15, -0.05), (-0.01, -0.05, 0.03)
    assert "Yes: all layers beat the last one; choosing layers is worse" in _told(good, bad)
    assert "No: all layers are worse than the last one; choosing layers beats" in _told(bad, good)
    told = _told(unclear, unclear)
    assert "Not shown" in told
    assert "(its mean is lower)" in told
    assert "do not tell them apart" in told


def test_bad_arguments_are_one_line(clips, network):
    source = read_clips(clips)
    with pytest.raises(DataError, match="no task"):
        layers_audio_study({}, network)
    with pytest.raises(DataError, match="'genetic'"):
        layers_audio_study({"a": source}, network, methods=("genetic",))
    one = source.subset(np.arange(8))
    with pytest.raises(DataError, match="one class"):
        layers_audio_study({"a": one}, network)


def test_sets_are_drawn_by_size():
    sets = [(("1",), 0.5), (("2",), 0.7), (("1", "2"), 0.6)]
    figure = sets_figure({"task": sets, "other": sets}, chosen={"task": ("2",)})
    axis = figure.axes[0]
    best = next(line for line in axis.lines if line.get_label() == "best of the size")
    assert list(best.get_ydata()) == [0.7, 0.6]
    star = next(line for line in axis.lines if line.get_label() == "chosen")
    assert list(star.get_ydata()) == [0.7]
    assert {t.get_text() for t in axis.texts} == {"1", "2", "12"}


def _run(*arguments):
    app = typer.Typer()
    app.command()(study_layers)
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_command_line(clips, tmp_path):
    out = tmp_path / "out"
    done = _run(
        *(clips, "--backbone", "choi_convnet", "--methods", "forward,group-sparse"),
        *("--n-folds", 2, "--workers", 1, "-o", out, "--json"),
    )
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["methods"] == ["forward", "group-sparse"]
    assert set(told["tasks"]) == {"drums"}
    assert UNTRAINED not in told["means"]
    assert (out / "layers_choi_convnet.md").is_file()
    for arguments, message in (
        ((clips, clips), "called drums already"),
        ((clips, "--folds", "a", "--folds", "b"), "--folds is given 2 times for 1 tasks"),
        ((clips, "-o", tmp_path / "x.json"), "folder"),
        ((clips, tmp_path / "a.npz"), "by itself"),
    ):
        failed = _run(*arguments)
        assert isinstance(failed.exception, OssicleError)
        assert message in str(failed.exception)


def test_command_line_on_a_table(tmp_path):
    generator = np.random.default_rng(0)
    y = np.repeat([0, 1], 20)
    np.savez(
        tmp_path / "t.npz",
        label=y,
        layers=generator.normal(size=(40, 2, 3)) + y[:, None, None],
    )
    done = _run(tmp_path / "t.npz", "--no-grid", "-o", tmp_path / "t.json")
    assert done.exit_code == 0, done.output
    assert "# Layers of t.npz" in done.stdout
    saved = json.loads((tmp_path / "t.json").read_text())
    assert set(saved["search"]["scores"]) == {"1", "2", "12"}
    assert (tmp_path / "t-sets.png").is_file()
    assert (tmp_path / "t-sets.svg").is_file()
