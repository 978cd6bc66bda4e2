"""Rows by tasks on small sounds: resumed, added to, missing sets told, Ray the same to the bit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ossicle.audio import Audio, save
from ossicle.benchmark import run as module
from ossicle.benchmark.entries import Entry, facts, identity
from ossicle.benchmark.executors import open_executor
from ossicle.benchmark.results import Results
from ossicle.benchmark.run import load_tasks, row_name, run
from ossicle.benchmark.suite_scores import collect
from ossicle.benchmark.task import Task, from_rows
from ossicle.errors import DataError, OssicleError
from ossicle.finetune.strategy import Strategy

MEL = Entry(Strategy.parse("probe backbone=mel"), "mel")
RANDOM = Entry(Strategy.parse("probe backbone=choi_convnet random=true"))


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Low and high tones in noise, six to a group, and one file that is no audio."""
    folder = tmp_path_factory.mktemp("sounds")
    generator = np.random.default_rng(0)
    time = np.arange(8000) / 16000
    rows = []
    for group in range(6):
        for number in range(6):
            high = (group + number) % 2
            tone = 0.2 * np.sin(2 * np.pi * (1800 if high else 300) * (1 + 0.02 * group) * time)
            name = f"{group}-{number}.wav"
            samples = (tone + generator.normal(0, 0.1, len(time))).astype(np.float32)
            save(folder / name, Audio(np.clip(samples, -1, 1)[None], 16000))
            rows.append((name, ("low", "high")[high], group, group % 3))
    (folder / "broken.wav").write_bytes(b"RIFF, but no more")
    rows.append(("broken.wav", "low", 0, 0))
    return folder, pd.DataFrame(rows, columns=["path", "label", "group", "fold"])


@pytest.fixture
def task(sounds):
    folder, rows = sounds
    return Task(
        "tones",
        "open",
        "music",
        "low and high",
        "accuracy",
        lambda where: from_rows(rows, where),
        "make it",
        "none",
        published={"clips": 40},
    ), folder


def _run(task, results, cache, entries=(MEL,), ray=None, **more):
    loaded, missing = load_tasks({"tones": task[0]}, {"tones": task[1]}, lambda text: None)
    assert not missing
    with open_executor(ray, 2) as executor:
        return run(entries, loaded, results, cache=cache, executor=executor, **more)


def test_scores_are_those_of_the_probe_by_hand(task, tmp_path):
    """Against extract and create_probe, without any of the benchmark's code."""
    from ossicle import create_model, extract
    from ossicle.transfer.probe import create_probe

    results = Results(tmp_path / "out", "open")
    ran = _run(task, results, tmp_path / "cache")
    assert ran.failures == []
    (line,) = ran.skipped
    assert line.startswith(f"tones: {task[1] / 'broken.wav'}: ")
    row = collect(results)["rows"][0]
    data = task[0].read(task[1])
    table = extract(create_model("mel"), data.clips)
    y, groups = data.clips.y()[table.index], data.clips.groups()[table.index]
    fold = np.array([int(g) % 3 for g in groups])
    right = np.zeros(len(y), bool)
    for f in range(3):
        probe = create_probe("ridge", "classes")
        train = fold != f
        sizes = table.sizes()
        probe.fit(table.matrix()[train], y[train], groups=groups[train], block_sizes=sizes)
        right[~train] = probe.predict(table.matrix()[~train]) == y[~train]
    assert row["scores"]["tones"]["value"] == pytest.approx(right.mean())
    assert row["scores"]["tones"]["skipped"] == 1
    assert collect(results)["tasks"][0]["n_tested"] == 36


def test_counts_that_differ_from_the_published_are_told(task):
    loaded, _ = load_tasks({"tones": task[0]}, {"tones": task[1]}, lambda text: None)
    assert "clips: 37, published 40" in loaded[0].data.notes


def test_a_second_run_does_nothing_and_a_stopped_one_goes_on(task, tmp_path, monkeypatch):
    results, calls = Results(tmp_path / "out", "open"), []
    real = module.run_probe

    def stopping(job):
        calls.append(job.fold.test[0])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(job)

    monkeypatch.setattr(module, "run_probe", stopping)
    loaded, _ = load_tasks({"tones": task[0]}, {"tones": task[1]}, lambda text: None)

    def once():
        with open_executor(None, 1) as executor:
            run([MEL], loaded, results, cache=tmp_path / "cache", executor=executor)

    with pytest.raises(KeyboardInterrupt):
        once()
    assert len(results.cells()) == 2
    once()
    assert len(calls) == 4  # the one that was stopped, alone, is done again
    assert len(results.cells()) == 3
    once()
    assert len(calls) == 4
    whole = Results(tmp_path / "whole", "open")
    monkeypatch.setattr(module, "run_probe", real)
    with open_executor(None, 1) as executor:
        run([MEL], loaded, whole, cache=tmp_path / "other", executor=executor)
    assert _decisions(results) == _decisions(whole)


def test_rows_are_added_and_random_weights_run_every_seed(task, tmp_path):
    results = Results(tmp_path / "out", "open")
    _run(task, results, tmp_path / "cache", seeds=(0, 1))
    _run(task, results, tmp_path / "cache", entries=(RANDOM,), seeds=(0, 1))
    rows = {row["name"]: row for row in collect(results)["rows"]}
    assert rows.keys() == {"mel", "choi_convnet layers=all random=true"}
    assert rows["mel"]["scores"]["tones"]["n_seeds"] == 1
    assert rows["choi_convnet layers=all random=true"]["scores"]["tones"]["n_seeds"] == 2


def test_layers_are_columns_of_features_that_are_made_once(task, tmp_path, monkeypatch):
    results, cache = Results(tmp_path / "out", "open"), tmp_path / "cache"
    _run(task, results, cache, entries=(RANDOM,))
    monkeypatch.setattr("ossicle.benchmark.pieces.extract", None)  # nothing is extracted again
    last = Entry(Strategy.parse("probe backbone=choi_convnet random=true layers=last"))
    _run(task, results, cache, entries=(last,))
    assert len(collect(results)["rows"]) == 2


def test_features_can_be_dropped(task, tmp_path):
    _run(task, Results(tmp_path / "out", "open"), tmp_path / "cache", keep_features=False)
    assert not list((tmp_path / "cache").rglob("*.lance"))


def test_ray_gives_the_same_bits(task, tmp_path):
    pytest.importorskip("ray")
    here, there = Results(tmp_path / "a", "open"), Results(tmp_path / "b", "open")
    _run(task, here, tmp_path / "ca", entries=(MEL, RANDOM))
    _run(task, there, tmp_path / "cb", entries=(MEL, RANDOM), ray="local")
    assert _decisions(here) == _decisions(there)
    assert len(_decisions(here)) == 6


def test_a_set_that_is_not_there_is_named_and_the_rest_runs(task, tmp_path):
    def nothing(folder):
        raise DataError(f"{folder}: is not there")

    gone = Task("gone", "open", "speech", "x", "accuracy", nothing, "fetch it from A", "none")
    folders = {"gone": tmp_path / "gone", "tones": task[1]}
    loaded, missing = load_tasks({"gone": gone, "tones": task[0]}, folders, lambda text: None)
    assert [each.task.name for each in loaded] == ["tones"]
    assert missing["gone"] == f"{tmp_path / 'gone'}: is not there; fetch it from A"


def test_a_task_that_cannot_be_fitted_is_told_and_the_rest_runs(sounds, task, tmp_path):
    folder, rows = sounds
    part = ["test" if group < 2 else "train" for group in rows["group"]]
    one_class = rows.assign(part=part).query("part == 'test' or label == 'low'")
    bad = Task(
        "bad", "open", "speech", "x", "accuracy", lambda f: from_rows(one_class, f), "", "none"
    )
    tasks, folders = {"bad": bad, "tones": task[0]}, {"bad": folder, "tones": folder}
    loaded, _ = load_tasks(tasks, folders, lambda text: None)
    results = Results(tmp_path / "out", "open")
    with open_executor() as executor:
        ran = run([MEL], loaded, results, cache=tmp_path / "cache", executor=executor)
    assert len(ran.failures) == 1
    assert ran.failures[0].startswith("mel, bad: ")
    assert [t["name"] for t in collect(results)["tasks"]] == ["tones"]


def test_changed_labels_are_another_task(sounds, task, tmp_path):
    folder, rows = sounds
    results = Results(tmp_path / "out", "open")
    _run(task, results, tmp_path / "cache")
    turned = rows.assign(label=[{"low": "high", "high": "low"}[x] for x in rows["label"]])
    other = Task("tones", "open", "music", "x", "accuracy", lambda f: from_rows(turned, f), "", "")
    _run((other, folder), results, tmp_path / "cache")
    assert len(results.cells()) == 6


def test_a_board_of_other_labels_does_not_show_the_old_ones(sounds, task, tmp_path):
    folder, rows = sounds
    results = Results(tmp_path / "out", "open")
    _run(task, results, tmp_path / "cache")
    some = rows[rows["group"] > 0]
    other = Task("tones", "open", "music", "x", "accuracy", lambda f: from_rows(some, f), "", "")
    loaded, _ = load_tasks({"tones": other}, {"tones": folder}, lambda text: None)
    with open_executor() as executor:
        run([RANDOM], loaded, results, cache=tmp_path / "cache", executor=executor)
    board = collect(results, clips={"tones": loaded[0].checksum})
    assert board["tasks"][0]["n_tested"] == 30
    scored = {row["name"]: bool(row["scores"]) for row in board["rows"]}
    assert scored == {"mel": False, "choi_convnet layers=all random=true": True}


def test_a_bundle_trained_anew_is_not_mixed_with_what_it_was(task, tmp_path):
    from ossicle import bundle

    results, path = Results(tmp_path / "out", "open"), tmp_path / "net.ossicle"
    entry = Entry(Strategy.parse(f"probe backbone={path}"), "mine")
    both = []
    for seed in (0, 1):
        bundle.save(RANDOM.model(seed), path)
        _run(task, results, tmp_path / "cache", entries=(entry,))
        alone = Results(tmp_path / f"alone{seed}", "open")
        _run(task, alone, tmp_path / "cache", entries=(entry,))
        shown, fresh = (collect(r)["rows"][0]["scores"]["tones"] for r in (results, alone))
        both.append((shown["value"], shown["low"]))
        assert both[-1] == (fresh["value"], fresh["low"])
    assert len(results.cells()) == 6


def test_entries_say_what_they_are():
    model = MEL.model(0)
    told = facts(MEL, model)
    assert told["parameters"] == 0
    assert told["input"] == "spectrogram"
    assert told["times_real_time"] > 1
    assert identity(model) == identity(MEL.model(1))
    assert identity(RANDOM.model(0)) != identity(RANDOM.model(1))
    assert row_name(MEL, "hear") != row_name(MEL, "ossicle")
    assert MEL.with_layers("last").strategy.layers == "last"
    kept = Entry(Strategy.parse("probe backbone=mel layers=1")).with_layers("last")
    assert kept.strategy.layers == "1"


def test_waveform_networks_are_told_apart():
    entry = Entry(Strategy.parse("probe backbone=cldnn random=true"))
    assert facts(entry, entry.model(0))["input"] == "waveform"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("finetune backbone=yamnet", "begin with probe"),
        ("probe backbone=mel probe=svm", "the protocol's"),
        ("probe backbone=mel choose_layers=true", "the protocol's"),
    ],
)
def test_what_is_no_frozen_row_is_refused(text, message):
    with pytest.raises(OssicleError, match=message):
        Entry(Strategy.parse(text))


def test_unknown_protocol(task, tmp_path):
    with pytest.raises(OssicleError, match="no protocol 'x'"):
        _run(task, Results(tmp_path, "open"), tmp_path / "cache", protocol="x")


def _decisions(results):
    found = {}
    for cell, _, path in results.cells():
        with np.load(path) as arrays:
            key = (cell["row"], cell["seed"], cell["fold"])
            found[key] = (arrays["rows"].tobytes(), arrays["decisions"].tobytes())
    return found


def test_several_labels_are_scored_by_mean_average_precision(sounds, tmp_path):
    from sklearn.metrics import average_precision_score

    folder, rows = sounds
    labels = [
        [label, "early"] if number % 3 == 0 else [label] for number, label in enumerate(rows.label)
    ]
    some = rows.assign(label=labels)

    def read(where):
        return from_rows(some, where, task="multilabel")

    tags = Task("tags", "open", "music", "tags", "map", read, "make it", "none")
    loaded, _ = load_tasks({"tags": tags}, {"tags": folder}, lambda text: None)
    results = Results(tmp_path / "out", "open")
    with open_executor() as executor:
        for protocol in ("ossicle", "xares"):
            options = {"cache": tmp_path / "cache", "executor": executor, "protocol": protocol}
            assert run([MEL], loaded, results, **options).failures == []
    board = collect(results)
    y = loaded[0].data.clips.y()
    for row in board["rows"]:
        scores = np.full(y.shape, np.nan)
        for cell, _, path in results.cells():
            if cell["row"] == row["row"]:
                with np.load(path) as arrays:
                    scores[arrays["rows"]] = arrays["decisions"]
        heard = ~np.isnan(scores[:, 0])
        expected = average_precision_score(y[heard], scores[heard], average="macro")
        assert row["scores"]["tags"]["value"] == pytest.approx(expected)
    assert len(board["rows"]) == 2
    assert board["tasks"][0]["metric"] == "map"
