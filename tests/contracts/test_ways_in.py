"""One answer whichever way one comes in: Python, command line, reloaded bundle; and hard inputs."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import soundfile

from ossicle import AudioClassifier, bundle, create_model, extract, load, read_clips
from ossicle.datasets.unlabelled import unlabelled_clips
from ossicle.predict import predict
from ossicle.transfer.fit import fit_model

MEL = ("--backbone", "mel", "--workers", "2")
# Labels that something on the way might take for a number, a gap, a separator or a path. As class
# folders and, in a manifest, as text.
LABELS = ("10", "2", "Müller, Änne", "a: b", 'say "hi"', "two  spaces", "NA", "1e3", "snow 雪")


@pytest.fixture(scope="module")
def odd(carried_clips, tmp_path_factory) -> Path:
    """Classes and files with names that are hard on programs: two clips for each of LABELS."""
    root = tmp_path_factory.mktemp("odd names") / "data set, été"
    sources = sorted(carried_clips.glob("*/*.flac"))
    for i, label in enumerate(LABELS):
        (root / label).mkdir(parents=True)
        for j in range(2):
            source = sources[(2 * i + j) * 4]
            shutil.copy(source, root / label / f"{source.stem} n° {j}, “take”;'1'.flac")
    return root


def scores(table: pd.DataFrame, classes) -> np.ndarray:
    return table[list(classes)].to_numpy(float)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if not p.is_dir()}


# --- the same numbers -------------------------------------------------------------------------


def test_python_command_line_and_bundle_agree(ossicle, clips, tmp_path):
    data = read_clips(clips)
    files = sorted(data.table["path"])
    code, _, _ = ossicle("train", clips, *MEL, "--quick", "-o", tmp_path / "model")
    assert code == 0
    model = bundle.load(tmp_path / "model")

    # By hand: features, probe, head.
    base = create_model("mel")
    made = fit_model(base, extract(base, data), data)
    expected = scores(predict(made, files)[0], made.classes)
    assert made.classes == model.classes == ("ambience", "cymbal", "kick")
    np.testing.assert_allclose(scores(predict(model, files)[0], model.classes), expected, atol=1e-6)

    # The estimator, before and after it is saved.
    labels = [Path(name).parent.name for name in files]
    groups = dict(zip(data.table["path"], data.groups(), strict=True))
    estimator = AudioClassifier("mel", pretrained=False).fit(
        files, labels, groups=[groups[name] for name in files]
    )
    np.testing.assert_allclose(estimator.predict_proba(files), expected, atol=1e-6)
    saved = load(estimator.save(tmp_path / "estimator"))
    np.testing.assert_allclose(saved.predict_proba(files), expected, atol=1e-6)
    np.testing.assert_allclose(load(tmp_path / "model").predict_proba(files), expected, atol=1e-6)

    # The tables of the command line.
    for kind in ("csv", "tsv", "parquet", "jsonl"):
        path = tmp_path / f"t.{kind}"
        assert ossicle("predict", tmp_path / "model", clips, "-o", path)[0] == 0
        table = {
            "csv": lambda p: pd.read_csv(p),
            "tsv": lambda p: pd.read_csv(p, sep="\t"),
            "parquet": lambda p: pd.read_parquet(p),
            "jsonl": lambda p: pd.read_json(p, lines=True),
        }[kind](path)
        assert [str(clips / name) for name in table["file"]] == files
        np.testing.assert_allclose(scores(table, model.classes), expected, rtol=0, atol=1e-6)
        assert table["label"].tolist() == [model.classes[i] for i in expected.argmax(1)]


def test_features_agree_however_they_are_asked_for(ossicle, clips, tmp_path):
    path = tmp_path / "f.parquet"
    assert ossicle("embed", clips, *MEL, "-o", path)[0] == 0
    table = pq.read_table(path)
    names = [str(clips / name) for name in table["path"].to_pylist()]
    model = create_model("mel")
    for items in (read_clips(clips), names, [Path(name) for name in names]):
        blocks = extract(model, items).blocks
        for block, values in blocks.items():
            assert np.array_equal(np.array(table[block].to_pylist(), np.float32), values)


def test_folder_manifest_and_frame_are_the_same_clips(ossicle, clips, tmp_path):
    frame = pd.DataFrame({"path": sorted(map(str, clips.glob("*/*.flac")))})
    frame["label"] = [Path(name).parent.name for name in frame["path"]]
    frame.to_csv(tmp_path / "m.csv", index=False)
    frame.to_parquet(tmp_path / "m.parquet")
    answers = []
    for source in (clips, tmp_path / "m.csv", tmp_path / "m.parquet"):
        code, out, _ = ossicle("evaluate", source, *MEL, "--groups", "none", "--quick", "--json")
        assert code == 0
        answers.append(json.loads(out.splitlines()[-1])["scores"])
    assert answers[0] == answers[1] == answers[2]


# --- labels and names ---------------------------------------------------------------------------


def test_odd_labels_survive_from_folder_to_table(ossicle, odd, tmp_path):
    model = tmp_path / "mödel, 1"
    code, _, err = ossicle("train", odd, *MEL, "--groups", "none", "--quick", "-o", model)
    assert code == 0, err
    assert bundle.load(model).classes == tuple(sorted(LABELS))
    files = sorted(str(p) for p in odd.rglob("*.flac"))
    expected, _ = predict(bundle.load(model), files)
    for kind in ("csv", "tsv", "parquet", "jsonl"):
        path = tmp_path / f"table, {kind}.{kind}"
        code, _, err = ossicle("predict", model, odd, "-o", path)
        assert code == 0, err
        if kind == "parquet":
            rows = pq.read_table(path).to_pylist()
        elif kind == "jsonl":
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        else:
            with path.open(encoding="utf-8", newline="") as stream:
                rows = list(csv.DictReader(stream, delimiter="\t" if kind == "tsv" else ","))
        assert [str(odd / row["file"]) for row in rows] == files
        assert [row["label"] for row in rows] == expected["label"].tolist()
        assert set(LABELS) <= set(rows[0])
        values = np.array([[float(row[name]) for name in LABELS] for row in rows])
        np.testing.assert_allclose(values, scores(expected, LABELS), rtol=0, atol=1e-6)
    assert len(set(expected["label"])) > len(LABELS) // 2


def test_odd_labels_survive_a_manifest(ossicle, odd, tmp_path):
    files = sorted(odd.rglob("*.flac"))
    path = odd / "clips, all.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label"])
        writer.writerows([str(p.relative_to(odd)), p.parent.name] for p in files)
    try:
        code, _, err = ossicle(
            *("train", path, *MEL, "--labels", "classes", "--groups", "none"),
            *("--quick", "-o", tmp_path / "m"),
        )
        assert code == 0, err
        assert bundle.load(tmp_path / "m").classes == tuple(sorted(LABELS))
        code, out, err = ossicle("predict", tmp_path / "m", path)
        assert code == 0, err
        names = [row["file"] for row in csv.DictReader(out.splitlines())]
        assert names == [str(p.relative_to(odd)) for p in files]
    finally:
        path.unlink()


def test_odd_labels_survive_the_estimator(odd, tmp_path):
    files = sorted(map(str, odd.rglob("*.flac")))
    labels = [Path(name).parent.name for name in files]
    model = AudioClassifier("mel", pretrained=False).fit(files, labels)
    assert model.classes_.tolist() == sorted(LABELS)
    saved = load(model.save(tmp_path / "m"))
    assert saved.classes_.tolist() == sorted(LABELS)
    assert saved.predict(files).tolist() == model.predict(files).tolist()


def test_odd_labels_reach_the_report(ossicle, odd, tmp_path):
    code, _, err = ossicle(
        "evaluate", odd, *MEL, "--groups", "none", "--n-folds", 2, "-o", tmp_path / "r"
    )
    assert code == 0, err
    report = json.loads((tmp_path / "r" / "report.json").read_text(encoding="utf-8"))
    assert report["classes"] == sorted(LABELS)
    assert {item["label"] for item in report["items"]} == set(LABELS)
    paths = {str(odd / item["path"]) for item in report["items"]}
    assert paths == set(map(str, odd.rglob("*.flac")))


# --- hard inputs ---------------------------------------------------------------------------------


@pytest.fixture
def broken(clips, tmp_path) -> tuple[Path, dict[str, str]]:
    """The clips with one of each kind of bad file among them: name -> a word of the reason."""
    root = tmp_path / "data"
    shutil.copytree(clips, root)
    (root / "kick" / "corrupt.wav").write_bytes(b"this is not audio" * 9)
    (root / "kick" / "empty.flac").touch()
    soundfile.write(root / "kick" / "silent.wav", np.zeros(8000), 16000)
    soundfile.write(root / "cymbal" / "short.wav", 0.1 * np.ones(20), 16000)
    whole = sorted((root / "ambience").iterdir())[0].read_bytes()
    (root / "cymbal" / "header only.flac").write_bytes(whole[:200])
    (root / "kick" / "notes.txt").write_text("not audio, and not called so")
    return root, {
        "corrupt.wav": "not an audio file",
        "empty.flac": "empty",
        "silent.wav": "silent",
        "short.wav": "less than",
        "header only.flac": "",
    }


@pytest.mark.parametrize("verb", ["evaluate", "train", "embed", "predict", "audit"])
def test_bad_files_are_named_and_counted_and_the_rest_finish(ossicle, broken, tmp_path, verb):
    root, reasons = broken
    if verb == "predict":
        data = read_clips(root).subset(np.arange(16))
        base = create_model("mel")
        bundle.save(fit_model(base, extract(base, data), data), tmp_path / "m")
    arguments = {
        "evaluate": (root, *MEL, "--quick", "--json"),
        "train": (root, *MEL, "--quick", "--json", "-o", tmp_path / "m"),
        "embed": (root, *MEL, "--json", "-o", tmp_path / "f.parquet"),
        "predict": (tmp_path / "m", root, "-o", tmp_path / "t.csv", "--json"),
        "audit": (root, *MEL, "--json"),
    }[verb]
    code, out, err = ossicle(verb, *arguments)
    assert code == 0, err
    answer = json.loads(out.splitlines()[-1])
    if verb == "audit":
        # It reads all that is audio: a clip of a millisecond is one.
        flat = [Path(answer["paths"][str(row)]).name for row in answer["silent"]]
        assert set(flat) == {"silent.wav"}
        assert all(name in err for name in flat)
        reasons = {name: why for name, why in reasons.items() if name not in (*flat, "short.wav")}
    told = answer["unreadable"] if verb == "audit" else answer["skipped"]
    assert {Path(item["path"]).name for item in told} == set(reasons)
    for item in told:
        name = Path(item["path"]).name
        assert reasons[name] in item["reason"]
        assert name in err
    assert answer["n_clips"] == (29 if verb == "audit" else 24)
    if verb == "embed":
        assert pq.read_table(tmp_path / "f.parquet").num_rows == 24
    if verb == "predict":
        assert len(pd.read_csv(tmp_path / "t.csv")) == 24


@pytest.mark.parametrize("verb", ["evaluate", "train", "embed", "predict", "audit"])
def test_all_bad_is_one_line_and_nothing_is_written(ossicle, clips, tmp_path, verb):
    root = tmp_path / "data"
    for label in ("a", "b"):
        (root / label).mkdir(parents=True)
        for i in range(3):
            (root / label / f"{label}{i}.wav").write_bytes(b"no audio at all")
    data = read_clips(clips)
    base = create_model("mel")
    bundle.save(fit_model(base, extract(base, data), data), tmp_path / "m")
    before = tree(tmp_path)
    arguments = {
        "evaluate": (root, *MEL, "-o", tmp_path / "report"),
        "train": (root, *MEL, "-o", tmp_path / "new"),
        "embed": (root, *MEL, "-o", tmp_path / "f.parquet"),
        "predict": (tmp_path / "m", root, "-o", tmp_path / "t.csv"),
        "audit": (root, *MEL),
    }[verb]
    code, out, err = ossicle(verb, *arguments)
    assert code == 2
    assert not out
    assert len(err.splitlines()) == 1
    assert "none of the 6" in err
    assert "a0.wav" in err
    assert tree(tmp_path) == before


def test_a_class_of_one_clip_and_a_class_called_10(ossicle, clips, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(clips / "kick", root / "2")
    shutil.copytree(clips / "cymbal", root / "10")
    (root / "once").mkdir()
    shutil.copy(sorted((clips / "ambience").iterdir())[0], root / "once")
    code, out, err = ossicle(
        "train", root, *MEL, "--groups", "none", "-o", tmp_path / "m", "--json"
    )
    assert code == 0, err
    answer = json.loads(out.splitlines()[-1])
    assert answer["n_clips"] == 16
    assert answer["classes"] == ["10", "2", "once"]
    assert "only learnt from" in err
    assert bundle.load(tmp_path / "m").classes == ("10", "2", "once")
    table = tmp_path / "t.csv"
    assert ossicle("predict", tmp_path / "m", root, "-o", table)[0] == 0
    labels = pd.read_csv(table, dtype=str)["label"]
    assert set(labels) <= {"10", "2", "once"}
    truth = [Path(name).parent.name for name in pd.read_csv(table)["file"]]
    assert np.mean(labels == truth) > 0.8


def test_a_class_whose_files_are_all_bad(ossicle, clips, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(clips, root)
    (root / "lost").mkdir()
    for i in range(3):
        (root / "lost" / f"{i}.wav").touch()
    code, _, err = ossicle("train", root, *MEL, "-o", tmp_path / "m")
    assert code == 0, err
    assert "lost" not in bundle.load(tmp_path / "m").classes
    code, out, err = ossicle("predict", tmp_path / "m", root / "kick")
    assert code == 0, err
    assert "lost" not in out.splitlines()[0]


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_other_tasks_go_all_the_way(ossicle, clips, tmp_path, task):
    files = sorted(clips.glob("*/*.flac"))
    if task == "multilabel":
        names = {"ambience": "long;tonal", "cymbal": "long", "kick": "drum;short"}
        labels = [names[p.parent.name] for p in files]
    else:
        labels = [f"{soundfile.info(p).duration:.3f}" for p in files]
    manifest = tmp_path / "m.csv"
    rows = [f"{path},{label}" for path, label in zip(files, labels, strict=True)]
    manifest.write_text("\n".join(["path,label", *rows]))
    code, out, err = ossicle(
        "train", manifest, *MEL, "--groups", "none", "--json", "-o", tmp_path / "m"
    )
    assert code == 0, err
    answer = json.loads(out.splitlines()[-1])
    assert answer["task"] == task
    assert (tmp_path / "m-report" / "report.html").is_file()
    assert ossicle("predict", tmp_path / "m", clips, "-o", tmp_path / "t.parquet")[0] == 0
    table = pd.read_parquet(tmp_path / "t.parquet")
    loaded = load(tmp_path / "m")
    if task == "regression":
        assert list(table.columns) == ["file", "value"]
        np.testing.assert_allclose(table["value"], loaded.predict(files), atol=1e-6)
        assert np.corrcoef(table["value"], np.array(labels, float))[0, 1] > 0.7
    else:
        assert list(table.columns[3:]) == ["drum", "long", "short", "tonal"]
        np.testing.assert_allclose(table.iloc[:, 3:], loaded.predict_proba(files), atol=1e-6)
        assert np.mean(table["label"] == labels) > 0.7


def wrong(clips: Path, tmp_path: Path) -> dict[str, tuple[tuple, str]]:
    """Commands that cannot work, and what their one line must name."""
    out = ("-o", tmp_path / "out")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "flat").mkdir()
    shutil.copy(sorted((clips / "kick").iterdir())[0], tmp_path / "flat")
    (tmp_path / "one" / "a").mkdir(parents=True)
    for path in sorted((clips / "kick").iterdir())[:3]:
        shutil.copy(path, tmp_path / "one" / "a")
    (tmp_path / "text.csv").write_text("a,b\n1,2\n")
    (tmp_path / "file").touch()
    one = sorted((clips / "kick").iterdir())[0]
    return {
        "missing path": (("evaluate", tmp_path / "gone", *MEL, *out), "gone"),
        "empty folder": (("evaluate", tmp_path / "nothing", *MEL, *out), "no audio files"),
        "no classes": (("evaluate", tmp_path / "flat", *MEL, *out), "no classes"),
        "one class": (("evaluate", tmp_path / "one", *MEL, *out), "one class"),
        "one file": (("evaluate", one, *MEL, *out), "one audio file"),
        "no paths": (("evaluate", tmp_path / "text.csv", *MEL, *out), "text.csv"),
        "bad regex": (("evaluate", clips, *MEL, "--folds", "/([/", *out), "/([/"),
        "no match": (("evaluate", clips, *MEL, "--folds", "/zzz(.)/", *out), "zzz"),
        "no column": (("evaluate", clips, *MEL, "--groups", "speaker", *out), "speaker"),
        "backbone": (("evaluate", clips, "--backbone", "vggish", *out), "yamnet"),
        "probe": (("evaluate", clips, *MEL, "--probe", "forest", *out), "ridge"),
        "layers": (("evaluate", clips, *MEL, "--layers", "conv9", *out), "conv9"),
        "pooling": (("evaluate", clips, *MEL, "--pooling", "median", *out), "median"),
        "labels": (("evaluate", clips, *MEL, "--labels", "numbers", *out), "numbers"),
        "folds": (("evaluate", clips, *MEL, "--n-folds", "1", *out), "two folds"),
        "not a number": (("evaluate", clips, *MEL, "--n-folds", "many", *out), "--n-folds"),
        "seed": (("evaluate", clips, *MEL, "--seed", "-1", *out), "seed"),
        "workers": (("evaluate", clips, *MEL, "--workers", "0", *out), "workers"),
        "option": (("evaluate", clips, "--speed", *out), "--speed"),
        "verb": (("evaluat", clips, *out), "evaluat"),
        "no argument": (("evaluate",), "clips"),
        "report in a file": (("evaluate", clips, *MEL, "-o", tmp_path / "file" / "r"), "file"),
        "train knn": (("train", clips, *MEL, "--probe", "knn", *out), "knn"),
        "train without name": (("train", clips, *MEL), "--out"),
        "train onto data": (("train", clips, *MEL, "--quick", "-o", clips), "not a bundle"),
        "train into a file": (
            ("train", clips, *MEL, "--quick", "-o", tmp_path / "file" / "m"),
            "file",
        ),
        "embed csv": (("embed", clips, *MEL, "-o", tmp_path / "f.csv"), ".parquet"),
        "embed into a file": (
            ("embed", clips, *MEL, "-o", tmp_path / "file" / "f.parquet"),
            "cannot be written",
        ),
        "embed layers": (("embed", clips, *MEL, "--layers", "7", *out), "parquet"),
        "predict no bundle": (("predict", clips, clips), "not a bundle"),
        "predict gone": (("predict", tmp_path / "gone", clips), "gone"),
        "audit gone": (("audit", tmp_path / "gone"), "gone"),
        "compare": (("compare", tmp_path / "nothing", tmp_path / "gone"), "report.json"),
        "no such backbone": (("backbones", "zzz*"), "zzz"),
        "study": (("study", "layers", tmp_path / "gone.npz"), "gone.npz"),
    }


def test_every_mistake_is_one_line_and_leaves_nothing(ossicle, clips, tmp_path):
    cases = wrong(clips, tmp_path)
    before, faults = tree(tmp_path), []
    for name, (arguments, word) in cases.items():
        code, out, err = ossicle(*arguments)
        if code != 2 or out or len(err.splitlines()) != 1 or word not in err:
            faults.append(f"{name}: exit {code}, {err!r}, {out[:80]!r}")
        if tree(tmp_path) != before or (tmp_path / "out").exists():
            faults.append(f"{name}: left something behind")
            before = tree(tmp_path)
    assert not faults, "\n".join(faults)


def test_mistakes_in_predict_after_a_model_is_there(ossicle, clips, tmp_path):
    data = read_clips(clips)
    base = create_model("mel")
    bundle.save(fit_model(base, extract(base, data), data), tmp_path / "m")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "file").touch()
    before = tree(tmp_path)
    for arguments, word in (
        ((tmp_path / "gone.wav",), "gone.wav"),
        ((tmp_path / "nothing",), "no audio"),
        ((tmp_path / "file",), "file"),
        ((clips, "-o", tmp_path / "t.xlsx"), ".csv"),
        ((clips, "-o", tmp_path / "file" / "t.csv"), "cannot be written"),
        ((clips, "--workers", "x"), "--workers"),
    ):
        code, out, err = ossicle("predict", tmp_path / "m", *arguments)
        assert code == 2, (arguments, out)
        assert not out
        assert len(err.splitlines()) == 1, err
        assert word in err
        assert tree(tmp_path) == before


def test_a_wrong_ending_is_told_before_the_work(ossicle, clips, tmp_path, monkeypatch):
    data = read_clips(clips)
    base = create_model("mel")
    bundle.save(fit_model(base, extract(base, data), data), tmp_path / "m")

    def never(*arguments, **settings):
        raise AssertionError("worked for nothing")

    monkeypatch.setattr("ossicle.predict.embed_clip", never)
    code, _, err = ossicle("predict", tmp_path / "m", clips, "-o", tmp_path / "t.xlsx")
    assert code == 2
    assert "must end in" in err


@pytest.mark.skipif(os.name == "nt", reason="file names are bytes on POSIX systems alone")
def test_file_names_that_are_not_utf8(ossicle, clips, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(clips, root)
    source = sorted((root / "kick").iterdir())[0]
    source.rename(os.fsdecode(os.fsencode(root) + b"/kick/caf\xe9.flac"))
    code, out, err = ossicle("train", root, *MEL, "--quick", "-o", tmp_path / "m")
    assert code == 0, err
    assert "1 audio file with a name that is not UTF-8" in out
    for arguments in (("-o", tmp_path / "t.csv"), ("-o", tmp_path / "t.parquet"), ("--json",)):
        code, out, err = ossicle("predict", tmp_path / "m", root, *arguments)
        assert code == 0, err
        assert "24" in out
    (root / "kick" / "bad").mkdir()
    Path(os.fsdecode(os.fsencode(root) + b"/kick/bad/\xff.wav")).touch()
    code, out, err = ossicle("predict", tmp_path / "m", root, "-o", tmp_path / "t.csv")
    assert code == 0, err
    assert "\ufffd.wav: is empty" in out
    assert len(unlabelled_clips([root])) == 25
