"""Scores of many clips as a table, and the table as a file."""

from __future__ import annotations

import json
import os

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import soundfile

from ossicle.datasets.unlabelled import unlabelled_clips
from ossicle.errors import DataError, OssicleError
from ossicle.features import extract
from ossicle.heads import Head
from ossicle.model import Model, create_model
from ossicle.predict import predict, shown_paths, table_kind, write_table

RATE = 16000


def model_with(classes: tuple[str, ...], task: str = "classes", seed: int = 0) -> Model:
    """The mel baseline under a head of random weights."""
    base = create_model("mel")
    blocks = ["mel/mean", "mel/std"]
    head = Head([sum(base.block_sizes(blocks).values()), max(1, len(classes))])
    generator = np.random.default_rng(seed)
    for parameter in head.parameters():
        values = generator.normal(0, 0.02, tuple(parameter.shape))
        parameter.data = parameter.new_tensor(values)
    parts = {"clip": base.clip, "readout": blocks, "head": head, "info": base.info}
    return Model(base.frontend, base.backbone, classes=classes, task=task, **parts).eval()


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> list[str]:
    """Six noises of different colour, one a segment in a longer file."""
    folder = tmp_path_factory.mktemp("sounds")
    generator = np.random.default_rng(0)
    paths = []
    for i in range(6):
        noise = np.convolve(generator.normal(size=RATE // 2), np.ones(i + 1) / (i + 1), "same")
        paths.append(str(folder / f"noise {i}.wav"))
        soundfile.write(paths[-1], 0.1 * noise, RATE)
    return paths


def reference(model: Model, paths: list[str]) -> np.ndarray:
    """Logits from features and the head's weights, in float64."""
    X = extract(model, paths, poolings=("mean", "std")).matrix(list(model.readout))
    state = {name: value.numpy().astype(float) for name, value in model.head.state_dict().items()}
    weight, bias = state.values() if next(iter(state)).endswith("weight") else None
    return X.astype(float) @ weight.T + bias


def test_probabilities_are_the_softmax_of_the_head(sounds):
    model = model_with(("a", "b", "c"))
    frame, skipped = predict(model, sounds)
    logits = reference(model, sounds)
    expected = np.exp(logits - logits.max(1, keepdims=True))
    expected /= expected.sum(1, keepdims=True)
    assert skipped == []
    assert list(frame.columns) == ["row", "file", "label", "score", "a", "b", "c"]
    np.testing.assert_allclose(frame[["a", "b", "c"]], expected, atol=1e-5)
    np.testing.assert_allclose(frame["score"], expected.max(1), atol=1e-5)
    assert frame["label"].tolist() == [model.classes[i] for i in expected.argmax(1)]
    assert frame["file"].tolist() == sounds
    assert frame["row"].tolist() == list(range(6))


def test_several_labels_a_clip(sounds):
    model = model_with(("dog", "rain", "sea"), "multilabel")
    frame, _ = predict(model, sounds)
    expected = 1 / (1 + np.exp(-reference(model, sounds)))
    np.testing.assert_allclose(frame[["dog", "rain", "sea"]], expected, atol=1e-5)
    for label, row in zip(frame["label"], expected, strict=True):
        assert label == ";".join(np.array(model.classes)[row >= 0.5])
    assert len(set(frame["label"])) > 1


def test_regression_gives_the_value_alone(sounds):
    model = model_with((), "regression")
    frame, _ = predict(model, sounds)
    assert list(frame.columns) == ["row", "file", "value"]
    np.testing.assert_allclose(frame["value"], reference(model, sounds)[:, 0], atol=1e-4)


def test_workers_and_neighbours_do_not_change_the_numbers(sounds):
    model = model_with(("a", "b"))
    alone = pd.concat([predict(model, [path])[0] for path in sounds], ignore_index=True)
    for workers in (1, 3):
        frame, _ = predict(model, sounds, workers=workers)
        pd.testing.assert_frame_equal(frame.drop(columns="row"), alone.drop(columns="row"))


def test_unusable_clips_are_counted_and_the_rest_finish(sounds, tmp_path):
    (tmp_path / "empty.wav").touch()
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(tmp_path / "short.wav", 0.1 * np.ones(9), RATE)
    bad = [str(tmp_path / name) for name in ("empty.wav", "silent.wav", "short.wav", "gone.wav")]
    seen = []
    frame, skipped = predict(
        model_with(("a", "b")), [bad[0], sounds[0], *bad[1:], sounds[1]], progress=seen.append
    )
    assert frame["row"].tolist() == [1, 5]
    assert [(row, path) for row, path, _ in skipped] == list(zip((0, 2, 3, 4), bad, strict=True))
    reasons = [reason for _, _, reason in skipped]
    assert "empty" in reasons[0]
    assert "silent" in reasons[1]
    assert "less than" in reasons[2]
    assert "no such file" in reasons[3] or "does not exist" in reasons[3]
    assert [p.done for p in seen] == [1, 2, 3, 4, 5, 6]
    assert seen[-1].total == 6
    assert seen[-1].seconds_read == pytest.approx(1.0)


def test_nothing_usable_and_nothing_at_all(tmp_path):
    model = model_with(("a", "b"))
    frame, skipped = predict(model, [tmp_path / "gone.wav"])
    assert frame.empty
    assert len(skipped) == 1
    assert list(frame.columns) == ["row", "file", "label", "score", "a", "b"]
    assert predict(model, [])[0].empty
    with pytest.raises(OssicleError, match="no head"):
        predict(create_model("mel"), ["a.wav"])


def test_segments_are_told_apart(sounds, tmp_path):
    long = tmp_path / "long.wav"
    soundfile.write(long, np.concatenate([soundfile.read(path)[0] for path in sounds[:3]]), RATE)
    manifest = tmp_path / "list.csv"
    manifest.write_text("path,onset,offset\nlong.wav,0,0.5\nlong.wav,0.5,1.0\nlong.wav,1.0,1.5\n")
    model = model_with(("a", "b"))
    frame, _ = predict(model, unlabelled_clips([manifest]))
    assert list(frame.columns) == ["row", "file", "onset", "offset", "label", "score", "a", "b"]
    assert frame["onset"].tolist() == [0.0, 0.5, 1.0]
    whole, _ = predict(model, sounds[:3])
    np.testing.assert_allclose(frame[["a", "b"]], whole[["a", "b"]], atol=1e-6)


def test_classes_called_as_columns(sounds, tmp_path):
    classes = ("class file", "file", "label", "score", "value")
    frame, _ = predict(model_with(classes), sounds)
    assert frame.columns.is_unique
    assert list(frame.columns[4:]) == [
        "class file",
        "class class file",
        "class label",
        "class score",
        "class value",
    ]
    assert frame["file"].tolist() == sounds
    write_table(frame, tmp_path / "x.parquet")


NAMES = ("10", "2", "a,b", "été", "x: y", 'say "hi"', "two  spaces", "NA", "1e3", "True")


@pytest.mark.parametrize("kind", [".csv", ".tsv", ".parquet", ".jsonl"])
def test_tables_read_back(sounds, tmp_path, kind):
    frame, _ = predict(model_with(NAMES), sounds)
    path = write_table(frame, tmp_path / f"sub folder/table{kind}")
    if kind == ".parquet":
        rows = pq.read_table(path).to_pylist()
    elif kind == ".jsonl":
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    else:
        import csv

        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t" if kind == ".tsv" else ","))
    assert list(rows[0]) == list(frame.columns)
    assert [row["file"] for row in rows] == sounds
    assert [row["label"] for row in rows] == frame["label"].tolist()
    values = np.array([[float(row[name]) for name in NAMES] for row in rows])
    np.testing.assert_allclose(values, frame[list(NAMES)], rtol=0, atol=1e-6)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_table_appears_whole_or_not_at_all(sounds, tmp_path, monkeypatch):
    frame, _ = predict(model_with(("a", "b")), sounds)
    path = tmp_path / "table.csv"
    path.write_text("old")

    def fail(self, target, **settings):
        target.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
    with pytest.raises(DataError, match=r"table\.csv: cannot be written \(No space"):
        write_table(frame, path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["table.csv"]


def test_where_a_table_cannot_go(tmp_path):
    frame = pd.DataFrame({"a": [1]})
    for name in ("table", "table.xlsx", "table.csv.gz"):
        with pytest.raises(DataError, match="must end in"):
            write_table(frame, tmp_path / name)
        with pytest.raises(DataError, match="must end in"):
            table_kind(tmp_path / name)
    assert table_kind("A.CSV") == ".csv"
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        write_table(frame, tmp_path / "file" / "table.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match="cannot be written"):
        write_table(frame, tmp_path / "folder.csv")


@pytest.mark.skipif(os.name == "nt", reason="file names are bytes on POSIX systems alone")
def test_file_names_that_are_not_utf8(sounds, tmp_path):
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")
    os.link(sounds[0], name)
    frame, _ = predict(model_with(("a", "b")), [name])
    assert frame["file"].tolist() == [f"{tmp_path}/caf\ufffd.wav"]
    for kind in (".csv", ".tsv", ".parquet", ".jsonl"):
        write_table(frame, tmp_path / f"table{kind}")


def test_unlabelled_recordings(sounds, tmp_path):
    clips = unlabelled_clips([sounds[3], os.path.dirname(sounds[0])])  # noqa: PTH120
    assert clips.table["path"].tolist() == [sounds[3], *sounds]
    hidden = tmp_path / ".hidden"
    (hidden / "deep").mkdir(parents=True)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for folder in (hidden, tmp_path / "deep" / "er"):
        os.link(sounds[0], folder / "a.WAV")
    os.link(sounds[0], tmp_path / "._mac.wav")
    (tmp_path / "notes.txt").write_text("not audio")
    found = unlabelled_clips([tmp_path]).table["path"].tolist()
    assert found == [str(tmp_path / "deep" / "er" / "a.WAV")]


def test_files_are_called_as_their_source_calls_them(sounds, tmp_path, monkeypatch):
    """Folder, manifest, list: each joins with the user's own table of the same clips."""
    (tmp_path / "new" / "deep").mkdir(parents=True)
    os.link(sounds[0], tmp_path / "new" / "a.wav")
    os.link(sounds[1], tmp_path / "new" / "deep" / "b.wav")
    (tmp_path / "new" / "empty.wav").touch()
    monkeypatch.chdir(tmp_path)
    model = model_with(("a", "b"))
    for folder in ("new", "new/", tmp_path / "new", "./new/../new"):
        frame, skipped = predict(model, unlabelled_clips([folder]))
        assert frame["file"].tolist() == ["a.wav", "deep/b.wav"]
        assert [(row, name) for row, name, _ in skipped] == [(2, "empty.wav")]
    (tmp_path / "list.csv").write_text("path\nnew/deep/b.wav\nnew/a.wav\nnew/empty.wav\n")
    frame, skipped = predict(model, unlabelled_clips(["list.csv"]))
    assert frame["file"].tolist() == ["new/deep/b.wav", "new/a.wav"]
    assert skipped[0][1] == "new/empty.wav"
    given = ["new/a.wav", "./new/deep/../a.wav", str(tmp_path / "new" / "a.wav"), "new/empty.wav"]
    frame, skipped = predict(model, given)
    assert frame["file"].tolist() == given[:3]
    assert skipped[0][1] == given[3]


def test_files_of_several_folders_count_from_the_one_above(sounds, tmp_path):
    for name in ("one", "one two", "three"):
        (tmp_path / "in" / name).mkdir(parents=True)
        os.link(sounds[0], tmp_path / "in" / name / "a.wav")
    folders = [tmp_path / "in" / name for name in ("one", "one two")]
    assert shown_paths(unlabelled_clips(folders)) == ["one/a.wav", "one two/a.wav"]
    files = [folders[1] / "a.wav", tmp_path / "in" / "three" / "a.wav"]
    assert shown_paths(unlabelled_clips(files)) == ["one two/a.wav", "three/a.wav"]
    # Nothing but the root of the file system above both: the whole path, as the manifest has it.
    (tmp_path / "list.csv").write_text(f"path\n{files[0]}\n/elsewhere/b.wav\n")
    assert shown_paths(unlabelled_clips([tmp_path / "list.csv"])) == [
        str(files[0]),
        "/elsewhere/b.wav",
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "file,onset,note\nx y.wav,,a\nsub/é.wav,1.5,b\n"),
        ("a.tsv", "path\tonset\nx y.wav\t\nsub/é.wav\t1.5\n"),
        ("a.jsonl", '{"path": "x y.wav"}\n{"path": "sub/é.wav", "onset": 1.5}\n'),
    ],
)
def test_manifests(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    table = unlabelled_clips([tmp_path / name]).table
    assert table["path"].tolist() == [str(tmp_path / "x y.wav"), str(tmp_path / "sub" / "é.wav")]
    assert np.isnan(table["onset"][0])
    assert table["onset"][1] == 1.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "no column 'path'"),
        ("path,onset\nx.wav,soon\n", "'soon' is not a number of seconds"),
        ("path,onset\nx.wav,-1\n", "'-1' is not a number"),
        ("path\nx.wav\n\n ,\n", "fields|cannot be read"),
        ("path,onset\nx.wav,1\n ,2\n", "row 2 names no file"),
        ("", "empty"),
        ("path\n", "no audio"),
    ],
)
def test_manifests_that_cannot_be_used(tmp_path, text, message):
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        unlabelled_clips([path])
    assert "\n" not in str(caught.value)
    assert "list.csv" in str(caught.value)


def test_no_recordings(tmp_path):
    for paths in ([tmp_path], [tmp_path / "gone"], []):
        with pytest.raises(DataError):
            unlabelled_clips(paths)
