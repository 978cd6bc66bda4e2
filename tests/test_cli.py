"""Every verb of the command line, on the carried clips."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import soundfile

from ossicle import bundle, embed, read_clips
from ossicle.backbones import DEFAULT_BACKBONE, WEIGHTS
from ossicle.datasets.folds import make_folds
from ossicle.errors import DownloadError
from ossicle.leaks import audit
from ossicle.leaks_text import audit_lines

VERBS = ("evaluate", "train", "predict", "embed", "audit", "compare", "backbones", "study")
MEL = ("--backbone", "mel", "--workers", "2")


def last_json(out: str) -> dict:
    return json.loads(out.splitlines()[-1])


def test_help_names_every_verb(ossicle, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    code, out, err = ossicle("--help")
    assert code == 0
    assert not err
    assert all(f" {verb} " in out for verb in VERBS)
    for verb in VERBS:
        code, out, _ = ossicle(verb, "--help")
        assert code == 0
        assert f"ossicle {verb} " in out
    assert "evaluate" in ossicle()[1] + ossicle()[2]


def test_evaluate_writes_a_report(ossicle, clips, tmp_path):
    code, out, err = ossicle("evaluate", clips, *MEL, "-o", tmp_path / "report")
    assert code == 0
    assert not err
    assert out.startswith("accuracy 0.")
    assert "5-fold cross-validation" in out
    assert "shuffled labels score" in out
    assert f"report: {tmp_path / 'report'}" in out
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "ambience" in page
    numbers = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert len(numbers["items"]) == 24
    assert f"accuracy {numbers['accuracy']:.4f}" in out
    assert str(Path.home()) not in page.replace(str(tmp_path), "")


def test_evaluate_names_its_report_after_the_data(ossicle, clips, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = ossicle("evaluate", clips, *MEL)
    assert code == 0
    assert (tmp_path / "drums-report" / "report.html").is_file()
    assert "report: drums-report" in out


def test_json_is_the_last_line_and_the_rest_is_on_standard_error(ossicle, clips, tmp_path):
    arguments = ("evaluate", clips, *MEL, "--n-folds", 3, "--seed", 7, "--probe", "knn")
    code, out, err = ossicle(*arguments, "--quick", "--json")
    assert code == 0
    assert len(out.splitlines()) == 1
    answer = json.loads(out)
    assert answer["accuracy"] == answer["score"]["value"]
    assert answer["n_clips"] == 24
    assert answer["protocol"]["n_folds"] == 3
    assert answer["arguments"]["probe"] == "knn"
    assert answer["arguments"]["seed"] == 7
    assert answer["arguments"]["backbone"] == "mel"
    assert answer["arguments"]["clips"].endswith("drums")
    assert err.startswith(f"accuracy {answer['accuracy']:.4f}")
    plain, _, _ = ossicle(*arguments, "--quick")
    assert plain == 0


def test_a_terminal_gets_a_bar_and_standard_output_stays_clean(ossicle, clips, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    import ossicle.console as console

    class Terminal:
        def __init__(self, stream):
            self.stream, self.text = stream, ""

        def isatty(self):
            return True

        def write(self, text):
            self.text += text
            return len(text)

        def flush(self):
            pass

    terminal = Terminal(sys.stderr)
    monkeypatch.setattr(console.sys, "stderr", terminal)
    code, out, _ = ossicle("evaluate", clips, *MEL, "--quick", "--json")
    assert code == 0
    assert len(out.splitlines()) == 1
    assert json.loads(out)["n_clips"] == 24
    assert "24/24" in terminal.text


def test_quick_writes_nothing(ossicle, clips, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = ossicle("evaluate", clips, *MEL, "--quick")
    assert code == 0
    assert "report" not in out
    assert not any(tmp_path.iterdir())


def test_the_same_arguments_give_the_same_numbers(ossicle, clips):
    runs = [last_json(ossicle("evaluate", clips, *MEL, "--quick", "--json")[1]) for _ in range(2)]
    assert runs[0]["scores"] == runs[1]["scores"]
    other = ossicle("evaluate", clips, *MEL[:2], "--workers", 1, "--quick", "--json")[1]
    assert last_json(other)["scores"] == runs[0]["scores"]


def test_folds_of_file_names_and_balance(ossicle, clips):
    code, out, _ = ossicle(
        *("evaluate", clips, *MEL, "--folds", r"/^[a-z]+.[a-z]+_(.)/", "--groups", "none"),
        *("--quick", "--json", "--balance", "--choose-layers", "--layers", "last"),
        *("--pooling", "mean, max"),
    )
    assert code == 0
    answer = last_json(out)
    first = {p.name.split("_")[1][0] for p in clips.glob("*/*.flac")}
    assert answer["protocol"]["n_folds"] == len(first)
    assert answer["backbone"]["poolings"] == ["mean", "max"]
    assert answer["arguments"]["balance"] is True


@pytest.fixture(scope="module")
def trained(clips, tmp_path_factory) -> tuple[Path, dict]:
    """A bundle as the command writes it, in a process of its own, and its JSON answer."""
    path = tmp_path_factory.mktemp("trained") / "drums"
    done = subprocess.run(
        [sys.executable, "-m", "ossicle.cli", "train", clips, *MEL, "-o", path, "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(done.stdout.splitlines()) == 1
    return path, json.loads(done.stdout)


def test_train_writes_a_bundle_and_a_report(trained):
    path, answer = trained
    assert answer["model"] == str(path)
    assert sorted(p.name for p in path.parent.iterdir()) == ["drums", "drums-report"]
    model = bundle.load(path)
    assert model.classes == ("ambience", "cymbal", "kick")
    assert model.info["score"]["value"] == answer["accuracy"]
    assert model.info["probe"]["name"] == "ridge"
    assert "cross-validation" in model.info["protocol"]


def test_train_again_replaces_the_bundle_and_nothing_else(ossicle, clips, trained, tmp_path):
    path = tmp_path / "model"
    shutil.copytree(trained[0], path)
    code, _, _ = ossicle(
        *("train", clips, *MEL, "--probe", "logistic", "--quick", "--layers", "1", "-o", path)
    )
    assert code == 0
    assert bundle.load(path).info["probe"]["name"] == "logistic"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    code, _, err = ossicle("train", clips, *MEL, "--quick", "-o", tmp_path / "mine")
    assert code == 2
    assert "not a bundle" in err
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "jsonl"])
def test_predict_after_train(ossicle, clips, trained, tmp_path, kind):
    out_file = tmp_path / f"labels.{kind}"
    code, out, err = ossicle("predict", trained[0], clips, "-o", out_file)
    assert code == 0
    assert not err
    assert f"24 recordings labelled: {out_file}" in out
    readers = {
        "csv": pd.read_csv,
        "tsv": lambda path: pd.read_csv(path, sep="\t"),
        "parquet": pd.read_parquet,
        "jsonl": lambda path: pd.read_json(path, lines=True),
    }
    table = readers[kind](out_file)
    assert list(table.columns) == ["file", "label", "score", "ambience", "cymbal", "kick"]
    truth = [Path(name).parent.name for name in table["file"]]
    assert np.mean(table["label"] == truth) > 0.8
    assert [p.name for p in tmp_path.iterdir()] == [out_file.name]


def test_predict_on_standard_output(ossicle, clips, trained):
    files = sorted((clips / "kick").iterdir())[:2]
    code, out, err = ossicle("predict", trained[0], *files)
    assert code == 0
    assert not err
    lines = out.splitlines()
    assert lines[0] == "file,label,score,ambience,cymbal,kick"
    assert [line.split(",")[0] for line in lines[1:]] == [path.name for path in files]
    code, out, _ = ossicle("predict", trained[0], *files, "--json")
    assert last_json(out) == {"n_clips": 2, "n_skipped": 0, "skipped": []}


def test_embed_writes_a_table(ossicle, clips, tmp_path):
    path = tmp_path / "features.parquet"
    code, out, err = ossicle("embed", clips, *MEL, "--pooling", "mean", "-o", path, "--json")
    assert code == 0
    answer = last_json(out)
    assert answer["n_clips"] == 24
    assert answer["skipped"] == []
    assert str(path) in err
    table = pq.read_table(path)
    assert set(table["label"].to_pylist()) == {"ambience", "cymbal", "kick"}
    assert len(table["mel/mean"][0].as_py()) == 64


def test_embed_needs_no_labels(ossicle, clips, tmp_path):
    code, _, _ = ossicle("embed", clips / "kick", *MEL, "-o", tmp_path / "x.parquet")
    assert code == 0
    assert pq.read_table(tmp_path / "x.parquet")["label"].to_pylist() == [""] * 8


@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
def test_embed_interrupted_goes_on_where_it_stopped(ossicle, tmp_path, monkeypatch):
    """The process gets the signal of Ctrl-C once its first part is written."""
    folder = tmp_path / "many"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for i in range(24):
        soundfile.write(folder / f"n{i:02d}.wav", 0.1 * generator.normal(size=16000), 16000)
    # Parts of four clips, and a pause before each clip, so that there is a time to interrupt.
    code = (
        "import signal, time\n"
        # A shell may have started the tests with this signal ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from ossicle import cli, embed, features\n"
        "embed.CLIPS_A_PART = 4\n"
        "read = features.clip_parts\n"
        "def slow(*a):\n"
        "    time.sleep(0.2)\n"
        "    return read(*a)\n"
        "features.clip_parts = slow\n"
        "cli.main()\n"
    )
    arguments = ["embed", str(folder), "--backbone", "mel", "--workers", "1", "-o"]
    stopped, whole = tmp_path / "stopped.parquet", tmp_path / "whole.parquet"
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", code, *arguments, str(stopped)]
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
    parts = tmp_path / "stopped.parquet.parts"
    deadline = time.monotonic() + 60
    while not list(parts.glob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert (out, err) == ("", "interrupted\n")
    assert not stopped.exists()
    assert 1 <= len(list(parts.glob("*.json"))) < 6
    monkeypatch.setattr(embed, "CLIPS_A_PART", 4)
    for path in (stopped, whole):
        status, _, err = ossicle(*arguments, path)
        assert (status, err) == (0, "")
    assert pq.read_table(stopped).equals(pq.read_table(whole))
    assert stopped.read_bytes() == whole.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *("many", "stopped.parquet", "whole.parquet")
    ]


@pytest.fixture
def leaky(clips, tmp_path) -> Path:
    """A manifest with a copy of a clip in the other fold, under another label."""
    root = tmp_path / "leaky"
    for name in ("ambience", "kick"):  # among the cymbals are two that share a sound
        shutil.copytree(clips / name, root / name)
    twin = root / "ambience" / "twin.flac"
    original = sorted((root / "kick").iterdir())[0]
    shutil.copy(original, twin)
    files = sorted(root.glob("*/*.flac"))
    rows = [
        f"{p.relative_to(root)},{p.parent.name},{2 if p == twin else 1 + (i % 2) * (p != original)}"
        for i, p in enumerate(files)
    ]
    (root / "clips.csv").write_text("\n".join(["path,label,fold", *rows]))
    return root / "clips.csv"


@pytest.mark.parametrize("near", ["--near", "--no-near"])
def test_audit_finds_a_planted_duplicate_across_folds(ossicle, leaky, near):
    code, out, err = ossicle("audit", leaky, *MEL, near, "--json")
    assert code == 0
    report = last_json(out)
    assert len(report["bytes"]) == 1
    pair = {Path(report["paths"][str(row)]).name for row in report["bytes"][0]}
    original = sorted((leaky.parent / "kick").iterdir())[0].name
    assert pair == {"twin.flac", original}
    assert report["n_leaked"] == 2
    assert len(report["label_conflicts"]) == 1
    assert "LEAK: 2 clips are tested while a twin is learnt from" in err
    assert f"ambience/twin.flac is ambience but kick/{original} is kick" in err
    assert "what to do: " in err
    assert "equal files, folds 1, 2" in err


def test_audit_of_clean_clips(ossicle, clips, tmp_path):
    root = tmp_path / "clean"
    for name in ("ambience", "kick"):
        (root / name).mkdir(parents=True)
        for path in sorted((clips / name).iterdir())[:3]:
            shutil.copy(path, root / name)
    code, out, _ = ossicle("audit", root, "--no-near")
    assert code == 0
    assert "6 clips looked at (near-duplicates were not looked for): nothing found" in out


def test_audit_in_words_has_at_most_ten_examples_of_each_kind(tmp_path):
    generator = np.random.default_rng(0)
    sounds = [0.1 * generator.normal(size=16000) for _ in range(2)]
    for label, sound in zip("ab", sounds, strict=True):
        (tmp_path / label).mkdir()
        for i in range(7):
            soundfile.write(tmp_path / label / f"{i}.wav", sound, 16000)
    (tmp_path / "a" / "bro\nken.wav").write_bytes(b"no")
    soundfile.write(tmp_path / "a" / "silent.wav", np.zeros(16000), 16000)
    clips = read_clips(tmp_path, groups="none")
    folds = make_folds(clips.y(), clips.groups(), 2, task="classes")
    lines = audit_lines(audit(clips, folds=folds), tmp_path)
    text = "\n".join(lines)
    assert "42 pairs of equal files:" in text
    assert "  and 32 more" in lines
    assert max(sum(line.startswith("  ") for line in part) for part in _sections(lines)) == 11
    assert str(tmp_path) not in text
    assert "1 silent clip:" in lines
    assert "  a/silent.wav" in lines
    assert any(line.startswith("  a/bro?ken.wav: ") for line in lines)
    assert lines[1].startswith("LEAK: ")


def _sections(lines: list[str]) -> list[list[str]]:
    sections: list[list[str]] = []
    for line in lines:
        if not line.startswith("  "):
            sections.append([])
        sections[-1].append(line)
    return sections


def test_compare_two_runs(ossicle, clips, tmp_path):
    for seed, probe in ((0, "ridge"), (0, "knn")):
        code, _, _ = ossicle(
            *("evaluate", clips, *MEL, "--seed", seed, "--probe", probe, "--quick"),
            *("-o", tmp_path / probe),
        )
        assert code == 0
    code, out, _ = ossicle("compare", tmp_path / "ridge", tmp_path / "knn", "--json")
    assert code == 0
    answer = last_json(out)
    scores = [
        json.loads((tmp_path / probe / "report.json").read_text())["accuracy"]
        for probe in ("ridge", "knn")
    ]
    assert answer["difference"] == pytest.approx(scores[0] - scores[1])
    assert answer["low"] <= answer["difference"] <= answer["high"]
    code, out, _ = ossicle("compare", tmp_path / "ridge", tmp_path / "ridge")
    assert code == 0
    assert "difference +0.0000" in out


def test_backbones(ossicle):
    code, out, err = ossicle("backbones", "--json")
    assert code == 0
    rows = {row["name"]: row for row in last_json(out)["backbones"]}
    assert {"mel", "mfcc", "yamnet", "choi_convnet"} <= set(rows)
    assert rows["yamnet"]["sample_rate"] == 16000
    assert rows["yamnet"]["licence"] == "Apache-2.0"
    assert rows["yamnet"]["parameters"] > 3_000_000
    assert rows["mel"]["parameters"] == 0
    families = json.loads(out.splitlines()[-1])["families"]
    assert {family["family"] for family in families} == {"hear", "hf"}
    assert len(err.splitlines()) == len(rows) + len(families)
    code, out, _ = ossicle("backbones", "m[ef]*")
    assert [line.split()[0] for line in out.splitlines()] == ["mel", "mfcc"]


def test_study_of_layers(ossicle, tmp_path):
    generator = np.random.default_rng(0)
    label = np.repeat(["hum", "click"], 20)
    layers = generator.normal(size=(40, 2, 3)) + 3.0 * (label == "hum")[:, None, None]
    np.savez(tmp_path / "f.npz", layers=layers.astype(np.float32), label=label)
    code, out, err = ossicle(
        "study", "layers", tmp_path / "f.npz", "--no-grid", "-o", tmp_path / "s.json", "--json"
    )
    assert code == 0, err
    assert "search" in last_json(out)
    assert (tmp_path / "s.json").is_file()


def test_the_default_end_to_end(ossicle, carried_clips, tmp_path, monkeypatch):
    """The product as a user runs it first, with its default network."""
    monkeypatch.setenv("OSSICLE_OFFLINE", "1")
    try:
        WEIGHTS[DEFAULT_BACKBONE].load()
    except DownloadError as error:
        pytest.skip(f"the weights of {DEFAULT_BACKBONE} are not in the cache: {error}")
    code, out, _ = ossicle(
        "train", carried_clips, "--quick", "--json", "--workers", 2, "-o", tmp_path / "m"
    )
    assert code == 0
    answer = last_json(out)
    assert answer["n_clips"] == 86
    assert answer["arguments"]["backbone"] == DEFAULT_BACKBONE
    assert answer["accuracy"] > 0.75
    assert answer["score"]["low"] > 0.6
    code, out, _ = ossicle("predict", tmp_path / "m", carried_clips / "kick")
    assert code == 0
    labels = [line.split(",")[1] for line in out.splitlines()[1:]]
    assert labels.count("kick") >= 14


def test_a_fault_of_ours_keeps_its_traceback(ossicle, clips, monkeypatch):
    def fail(*arguments, **settings):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("ossicle.features.extract", fail)
    monkeypatch.setattr("ossicle.line.extract", fail)
    with pytest.raises(ZeroDivisionError):
        ossicle("evaluate", clips, *MEL)


def test_numbers_have_no_classes_to_balance(ossicle, clips, tmp_path):
    files = sorted(clips.rglob("*.flac"))
    rows = [f"{path},{i / 7:.3f}" for i, path in enumerate(files)]
    (tmp_path / "numbers.csv").write_text("path,label\n" + "\n".join(rows))
    code, _, err = ossicle("evaluate", tmp_path / "numbers.csv", *MEL, "--quick", "--balance")
    assert code == 2
    assert "leave it out" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("probe, status", [("svm", 2), ("knn", 2), ("ridge", 0)])
def test_a_probe_that_is_no_network_is_told_before_the_work(
    ossicle, clips, tmp_path, monkeypatch, probe, status
):
    """Support vector regression has a kernel: it can be evaluated, not taken away."""
    files = sorted(clips.rglob("*.flac"))
    rows = [f"{path},{i / 7:.3f}" for i, path in enumerate(files)]
    (tmp_path / "numbers.csv").write_text("path,label\n" + "\n".join(rows))
    if status:
        monkeypatch.setattr("ossicle.line.extract", lambda *a, **k: pytest.fail("it worked first"))
    out = tmp_path / "m.ossicle"
    arguments = ("train", tmp_path / "numbers.csv", *MEL, "--quick", "--probe", probe, "-o", out)
    code, _, err = ossicle(*arguments)
    assert code == status, err
    assert out.exists() == (status == 0)
    if status:
        assert "train with one of ridge, mlp" in err and len(err.splitlines()) == 1
