"""Embedding to Parquet: what it holds, and that a stopped run goes on to the same file."""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from ossicle import embed as embedding
from ossicle.datasets.clips import read_clips
from ossicle.datasets.unlabelled import unlabelled_clips
from ossicle.embed import embed
from ossicle.errors import DataError, OssicleError
from ossicle.features import extract
from ossicle.model import create_model

RATE = 16000


@pytest.fixture
def small_parts(monkeypatch):
    """Four clips a part instead of 256."""
    monkeypatch.setattr(embedding, "CLIPS_A_PART", 4)


@pytest.fixture
def folder(tmp_path):
    """Two classes of five noises."""
    generator = np.random.default_rng(0)
    for label in ("low pass", "été"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for i in range(5):
            noise = 0.1 * generator.normal(size=RATE // 4)
            soundfile.write(tmp_path / "data" / label / f"{label} {i}.wav", noise, RATE)
    return tmp_path / "data"


@pytest.fixture(scope="module")
def model():
    return create_model("mel")


def test_table_holds_what_extract_gives(folder, model, tmp_path):
    clips = read_clips(folder)
    done = embed(clips, model, tmp_path / "new" / "f.parquet", poolings=("mean", "std"))
    table = pq.read_table(done.path)
    expected = extract(model, clips, poolings=("mean", "std"))
    assert table.column_names == [
        *("path", "label", "onset", "offset", "group"),
        *("mel/mean", "mel/std"),
    ]
    for name, block in expected.blocks.items():
        assert table.schema.field(name).type == pa.list_(pa.float32(), 64)
        assert np.array_equal(np.array(table[name].to_pylist(), np.float32), block)
    files = [str(folder / name) for name in table["path"].to_pylist()]
    assert files == clips.table["path"].tolist()
    assert table["label"].to_pylist() == clips.table["label"].tolist()
    assert table["group"].to_pylist() == clips.table["group"].tolist()
    assert table["onset"].null_count == table["offset"].null_count == 10
    assert done.n_clips == 10
    assert done.skipped == []
    assert done.seconds_read == pytest.approx(2.5)
    assert [p.name for p in done.path.parent.iterdir()] == ["f.parquet"]


def test_parts_and_workers_do_not_change_the_table(folder, model, tmp_path, monkeypatch):
    clips = read_clips(folder)
    embed(clips, model, tmp_path / "a.parquet")
    monkeypatch.setattr(embedding, "CLIPS_A_PART", 3)
    embed(clips, model, tmp_path / "b.parquet", workers=3)
    assert pq.read_table(tmp_path / "a.parquet").equals(pq.read_table(tmp_path / "b.parquet"))


@pytest.mark.parametrize("stop", [1, 5, 9])
def test_a_stopped_run_goes_on(folder, model, tmp_path, small_parts, monkeypatch, stop):
    clips = read_clips(folder)
    embed(clips, model, tmp_path / "whole.parquet")
    calls = []

    def interrupt(progress):
        calls.append(progress.done)
        if progress.done > stop:
            raise KeyboardInterrupt

    path = tmp_path / "stopped.parquet"
    with pytest.raises(KeyboardInterrupt):
        embed(clips, model, path, progress=interrupt)
    assert not path.exists()
    asked = []
    true_extract = embedding.extract

    def count(model, items, **settings):
        asked.append(len(items))
        return true_extract(model, items, **settings)

    monkeypatch.setattr(embedding, "extract", count)
    seen = []
    done = embed(clips, model, path, progress=seen.append)
    assert sum(asked) == 10 - 4 * (stop // 4)
    assert done.n_clips == 10
    assert done.seconds_read == pytest.approx(2.5)
    assert seen[-1].done == seen[-1].total == 10
    assert seen[-1].seconds_read == pytest.approx(2.5)
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert pq.read_table(path).equals(pq.read_table(tmp_path / "whole.parquet"))
    assert path.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *("data", "stopped.parquet", "whole.parquet")
    ]


def test_parts_of_other_work_are_not_taken(folder, model, tmp_path, small_parts):
    clips = read_clips(folder)

    def interrupt(progress):
        if progress.done > 5:
            raise KeyboardInterrupt

    path = tmp_path / "x.parquet"
    changes = [
        {"poolings": ("mean",)},
        {"model": create_model("mfcc")},
        {"clips": read_clips(folder, groups="none").subset(range(9))},
    ]
    for change in changes:
        arguments = {"clips": clips, "model": model, "path": path, **change}
        with pytest.raises(KeyboardInterrupt):
            embed(clips, model, path, progress=interrupt)
        embed(**arguments)
        fresh = embed(**{**arguments, "path": tmp_path / "fresh.parquet"})
        assert pq.read_table(path).equals(pq.read_table(fresh.path))
        assert not path.with_name("x.parquet.parts").exists()
    with pytest.raises(KeyboardInterrupt):
        embed(clips, model, path, progress=interrupt)
    first = clips.table["path"][0]
    soundfile.write(first, 0.1 * np.random.default_rng(9).normal(size=RATE), RATE)
    embed(clips, model, path)
    expected = extract(model, [first]).blocks["mel/mean"][0]
    assert np.array_equal(pq.read_table(path)["mel/mean"][0].as_py(), expected)


def test_labels_given_later_are_those_written(folder, model, tmp_path, small_parts):
    def interrupt(progress):
        if progress.done > 5:
            raise KeyboardInterrupt

    clips, path = read_clips(folder), tmp_path / "x.parquet"
    with pytest.raises(KeyboardInterrupt):
        embed(clips, model, path, progress=interrupt)
    clips.table.loc[0, "label"] = "été"
    embed(clips, model, path)
    assert pq.read_table(path)["label"].to_pylist() == clips.table["label"].tolist()


def test_unusable_clips_are_told(folder, model, tmp_path, small_parts):
    # All clips of the second part, and one of the first.
    names = sorted(str(p) for p in folder.rglob("*.wav"))
    for i in (1, 4, 5, 6, 7):
        with open(names[i], "wb") as stream:  # noqa: PTH123
            stream.write(b"not audio")
    clips = read_clips(folder)
    done = embed(clips, model, tmp_path / "x.parquet")
    assert done.n_clips == 5
    assert [str(folder / item["path"]) for item in done.skipped] == [
        names[i] for i in (1, 4, 5, 6, 7)
    ]
    assert len({item["reason"] for item in done.skipped}) == 1
    assert "not an audio file" in done.skipped[0]["reason"]
    rows = pq.read_table(done.path)["path"].to_pylist()
    assert [str(folder / row) for row in rows] == [names[i] for i in (0, 2, 3, 8, 9)]


@pytest.mark.parametrize("part", [4, 256])
def test_nothing_usable_leaves_nothing(folder, model, tmp_path, monkeypatch, part):
    monkeypatch.setattr(embedding, "CLIPS_A_PART", part)
    for path in folder.rglob("*.wav"):
        path.write_bytes(b"")
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match=r"none of the 10 clips.*\.wav: ") as caught:
        embed(read_clips(folder), model, tmp_path / "out" / "x.parquet")
    assert "\n" not in str(caught.value)
    assert not any((tmp_path / "out").iterdir())


def test_arguments_are_checked_before_anything_is_written(folder, model, tmp_path):
    clips, out = read_clips(folder), tmp_path / "out"
    out.mkdir()
    for name, settings, message in (
        ("x.csv", {}, r"must end in \.parquet"),
        ("x.parquet", {"layers": "conv9"}, "no layer"),
        ("x.parquet", {"poolings": ("median",)}, "unknown pooling"),
    ):
        with pytest.raises(OssicleError, match=message):
            embed(clips, model, out / name, **settings)
    assert not any(out.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        embed(clips, model, tmp_path / "file" / "x.parquet")


def test_several_labels_numbers_and_files_that_are_gone(folder, model, tmp_path, small_parts):
    names = sorted(str(p) for p in folder.rglob("*.wav"))
    manifest = tmp_path / "m.csv"
    # No clip of the first part has a label.
    labels = [""] * 4 + ["a;b", "b", "a", "", "a", "b"]
    rows = [f"{name},{label}" for name, label in zip(names, labels, strict=True)]
    manifest.write_text("\n".join(["path,label", *rows]), encoding="utf-8")
    clips = read_clips(manifest, labels="multilabel")
    os.remove(names[9])  # noqa: PTH107
    done = embed(clips, model, tmp_path / "several.parquet")
    assert len(done.skipped) == 1
    table = pq.read_table(done.path)
    assert table["label"].to_pylist() == [[], [], [], [], ["a", "b"], ["b"], ["a"], [], ["a"]]
    numbers = [f"{name},{i + 0.5}" for i, name in enumerate(names[:9])]
    manifest.write_text("\n".join(["path,label", *numbers]), encoding="utf-8")
    done = embed(read_clips(manifest), model, tmp_path / "numbers.parquet")
    assert pq.read_table(done.path)["label"].to_pylist() == [i + 0.5 for i in range(9)]
    done = embed(unlabelled_clips([folder]), model, tmp_path / "unlabelled.parquet")
    assert set(pq.read_table(done.path)["label"].to_pylist()) == {""}


@pytest.mark.skipif(os.name == "nt", reason="file names are bytes on POSIX systems alone")
def test_file_names_that_are_not_utf8(folder, model, tmp_path):
    source = next(folder.rglob("*.wav"))
    name = os.fsdecode(os.fsencode(folder) + b"/caf\xe9.wav")
    source.rename(name)
    table = pq.read_table(embed(unlabelled_clips([folder]), model, tmp_path / "x.parquet").path)
    assert "caf\ufffd.wav" in table["path"].to_pylist()
    assert "caf\ufffd.wav" in table["group"].to_pylist()


def test_no_place_of_this_machine_in_the_table(folder, model, tmp_path):
    labelled = embed(read_clips(folder), model, tmp_path / "a.parquet").path
    bare = embed(unlabelled_clips([folder]), model, tmp_path / "b.parquet").path
    expected = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.wav"))
    for path in (labelled, bare):
        assert pq.read_table(path)["path"].to_pylist() == expected
    assert pq.read_table(bare)["group"].to_pylist() == expected
    for path in (labelled, bare):
        assert str(tmp_path) not in str(pq.read_table(path).select(["path", "label", "group"]))


def test_the_file_is_smaller_than_its_numbers(folder, model, tmp_path):
    clips = read_clips(folder)
    # Many rows, so that the numbers outweigh the names of columns.
    many = clips.subset(np.arange(400) % len(clips))
    path = embed(many, model, tmp_path / "x.parquet", poolings=("mean", "std", "band")).path
    table = pq.read_table(path)
    numbers = sum(table[name].nbytes for name in table.column_names if "/" in name)
    assert path.stat().st_size < numbers
    column = pq.ParquetFile(path).metadata.row_group(0).column(5)
    assert column.path_in_schema == "mel/mean.list.element"
    assert "BYTE_STREAM_SPLIT" in column.encodings
    assert column.compression == "ZSTD"
