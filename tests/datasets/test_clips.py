from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ossicle.datasets.clips import COLUMNS, Clips, part_text, read_clips
from ossicle.errors import DataError

HARD = ["10", "2", "NA", "null", "None", "nan", "é à ü", "a, b", "x: y", 'say "hi"', "007", "1e3"]


def labels(clips: Clips) -> list[str]:
    return list(clips.table["label"])


# --- folders ---------------------------------------------------------------------------------


def test_folder_per_class(tree):
    root = tree(
        "dog/a.WAV", "dog/b.flac", "cat/c.Mp3", "cat/._c.mp3", "cat/.hidden.wav", "cat/x.txt"
    )
    clips = read_clips(root)
    assert clips.classes == ("cat", "dog")
    assert sorted(os.path.relpath(p, root) for p in clips.table["path"]) == [
        *("cat/c.Mp3", "dog/a.WAV", "dog/b.flac"),
    ]
    assert list(clips.table.columns) == list(COLUMNS)
    assert clips.y().tolist() == [0, 1, 1] and clips.y().dtype == np.int64
    assert any("1 file" in note and "not audio" in note for note in clips.notes)
    assert clips.task == "classes" and clips.root == root


def test_hard_class_names_survive(tree):
    names = [name for name in HARD if "/" not in name]
    clips = read_clips(tree(*(f"{name}/{i}.wav" for name in names for i in "ab")))
    assert set(clips.classes) == set(names)
    assert clips.task == "classes"


def test_semicolon_in_a_folder_name_is_no_multilabel(tree):
    assert read_clips(tree("a;b/1.wav", "c/2.wav")).classes == ("a;b", "c")


def test_deeper_folders_belong_to_the_class_at_the_top(tree):
    clips = read_clips(tree("dog/home/1.wav", "dog/2.wav", "cat/x/y/3.wav"))
    assert labels(clips) == ["cat", "dog", "dog"]
    assert list(clips.table["subfolder"]) == ["x/y", "", "home"]


def test_split_folders(tree):
    clips = read_clips(tree("Train/dog/1.wav", "Train/cat/2.wav", "validation/dog/3.wav"))
    assert clips.classes == ("cat", "dog")
    assert sorted(clips.table["split"]) == ["Train", "Train", "validation"]


def test_train_is_a_class_beside_others(tree):
    clips = read_clips(tree("train/1.wav", "car/2.wav"))
    assert clips.classes == ("car", "train") and clips.table["split"].isna().all()


def test_wrapping_folder_is_looked_into(tree):
    assert read_clips(tree("audio/dog/1.wav", "audio/cat/2.wav")).classes == ("cat", "dog")


def test_loop_of_links_ends(tree):
    root = tree("dog/1.wav", "cat/2.wav")
    (root / "dog" / "again").symlink_to(root)
    assert len(read_clips(root)) == 2


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("1.wav", "2.wav"), "folder of its own"),
        ((), "no audio files"),
        (("dog/x.txt",), "no audio files"),
        (("train/1.wav", "test/2.wav"), "look like a split"),
    ],
)
def test_folders_without_classes(tree, names, says):
    with pytest.raises(DataError, match=says) as caught:
        read_clips(tree(*names))
    assert "\n" not in str(caught.value)


def test_not_there_and_not_a_source(tree):
    root = tree("dog/1.wav", "dog/2.doc")
    for source, says in [
        (root / "none", "no such file"),
        (root / "dog/1.wav", "one audio file"),
        (root / "dog/2.doc", "not a known source"),
    ]:
        with pytest.raises(DataError, match=says):
            read_clips(source)


# --- audiofolder -----------------------------------------------------------------------------


def test_audiofolder(tree):
    root = tree(
        *("a/1.wav", "2.wav", "unlisted.wav"),
        metadata_csv="file_name,label,mood\na/1.wav,dog,glad\n2.wav,cat,sad\n",
    )
    clips = read_clips(root)
    assert labels(clips) == ["dog", "cat"] and list(clips.table["mood"]) == ["glad", "sad"]
    assert any("1 audio file not listed" in note for note in clips.notes)


def test_audiofolder_without_labels_takes_the_folders(tree):
    root = tree("dog/1.wav", "cat/2.wav", metadata_csv="file_name,mood\ndog/1.wav,x\ncat/2.wav,y\n")
    assert labels(read_clips(root)) == ["dog", "cat"]


def test_audiofolder_with_metadata_in_each_split(tree):
    root = tree("train/1.wav", "test/2.wav")
    (root / "train/metadata.csv").write_text("file_name,label\n1.wav,dog\n")
    (root / "test/metadata.csv").write_text("file_name,label\n2.wav,cat\n")
    clips = read_clips(root)
    assert dict(zip(clips.table["split"], clips.table["label"], strict=True)) == {
        "train": "dog",
        "test": "cat",
    }


# --- manifests -------------------------------------------------------------------------------


def manifest(root, rows, name="m.csv", **kw):
    pd.DataFrame(rows).to_csv(root / name, index=False, **kw)
    return root / name


@pytest.mark.parametrize("kind", ["csv", "tsv", "semicolon", "parquet", "jsonl", "frame"])
def test_hard_labels_survive_every_kind_of_table(tree, kind):
    names = [f"{i}.wav" for i in range(len(HARD))]
    root = tree(*names)
    frame = pd.DataFrame({"path": names, "label": HARD})
    source = root / f"m.{kind}"
    if kind == "csv":
        frame.to_csv(source, index=False, encoding="utf-8-sig")
    elif kind == "tsv":
        frame.to_csv(source, index=False, sep="\t")
    elif kind == "semicolon":
        source = source.with_suffix(".csv")
        frame.to_csv(source, index=False, sep=";")
    elif kind == "parquet":
        frame.to_parquet(source)
    elif kind == "jsonl":
        frame.to_json(source, orient="records", lines=True)
    else:
        source = frame.assign(path=[str(root / n) for n in names])
    clips = read_clips(source)
    assert labels(clips) == HARD
    assert [clips.classes[i] for i in clips.y()] == HARD


def test_integers_are_classes_in_typed_tables(tree):
    root = tree("a.wav", "b.wav", "c.wav")
    pd.DataFrame({"path": ["a.wav", "b.wav", "c.wav"], "label": [10, 2, None]}).to_parquet(
        root / "m.parquet"
    )
    clips = read_clips(root / "m.parquet")
    assert labels(clips) == ["10", "2"] and any("without a label" in n for n in clips.notes)


@pytest.mark.parametrize(
    ("columns", "chosen", "told"),
    [
        ("filename,fold,target,category", "rain", "'category' (not 'target')"),
        ("slice_file_name,fold,classID,class", "rain", "'class'"),
        ("File,fold,x,Label", "rain", "'Label'"),
    ],
)
def test_synonyms_are_told(tree, columns, chosen, told):
    root = tree("1.wav", m_csv=f"{columns}\n1.wav,3,10,rain\n")
    clips = read_clips(root / "m.csv")
    assert labels(clips) == [chosen]
    assert list(clips.table["fold"]) == ["3"]
    assert any(told.replace("'", "") in note.replace("'", "") for note in clips.notes)
    assert columns.split(",")[0] in clips.table  # the source's own columns stay


def test_paths_are_relative_to_the_manifest_or_absolute(tree, tmp_path, monkeypatch):
    root = tree("sub/1.wav", "2.wav")
    outside = tmp_path / "3.wav"
    outside.write_bytes(b"")
    source = manifest(root, {"path": [r"sub\1.wav", "./2.wav", str(outside)], "label": list("abc")})
    monkeypatch.chdir(tmp_path)
    for given_as in (source, source.relative_to(tmp_path)):
        found = list(read_clips(given_as).table["path"])
        assert found == [str(root / "sub/1.wav"), str(root / "2.wav"), str(outside)]


def test_missing_files_are_left_out_and_told(tree):
    root = tree("1.wav")
    source = manifest(root, {"path": ["1.wav", "gone.wav"], "label": ["a", "b"]})
    clips = read_clips(source)
    assert len(clips) == 1 and any("gone.wav" in note and "1 files" in note for note in clips.notes)
    with pytest.raises(DataError, match=r"none of the 1 files named exists: gone.wav"):
        read_clips(manifest(root, {"path": ["gone.wav"], "label": ["a"]}))


def test_repeated_and_contradicting_rows(tree):
    root = tree("1.wav", "2.wav")
    source = manifest(
        root, {"path": ["1.wav", "1.wav", "2.wav", "2.wav"], "label": ["a", "a", "a", "b"]}
    )
    clips = read_clips(source)
    assert len(clips) == 3
    assert any("1 rows that repeat" in note for note in clips.notes)
    assert any("different labels" in note and "2.wav" in note for note in clips.notes)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("path,label\n", "no rows"),
        ("1.wav,dog\n", "first line must name the columns"),
        ("name,label\n1.wav,a\n", "no column of file paths"),
        ("path,mood\n1.wav,a\n", "no column of labels"),
        ("path,label\n1.wav,dog, big\n", "line 2 has 3 fields, the header 2"),
        ("path,label\n1.wav,\n", "no row has a label"),
        ("path,label,onset,offset\n1.wav,a,2,1\n", "onset < offset"),
        ("path,label,onset,offset\n1.wav,a,-1,1\n", "onset < offset"),
        ("path,label,onset\n1.wav,a,soon\n", "'soon' is not a number of seconds"),
        ("path,label,label\n1.wav,a,b\n", "more than once"),
    ],
)
def test_broken_manifests_are_named_in_one_line(tree, text, says):
    root = tree("1.wav", m_csv=text)
    with pytest.raises(DataError, match=says) as caught:
        read_clips(root / "m.csv")
    assert "m.csv" in str(caught.value) and "\n" not in str(caught.value)


def test_not_utf8(tree):
    root = tree("1.wav")
    (root / "m.csv").write_bytes("path,label\n1.wav,é\n".encode("latin-1"))
    with pytest.raises(DataError, match="UTF-8"):
        read_clips(root / "m.csv")


@pytest.mark.skipif(os.name == "nt", reason="file names are bytes on POSIX systems alone")
@pytest.mark.parametrize("split", ["", "train/"])
def test_class_folders_that_are_not_utf8(tree, split):
    root = tree(f"{split}dog/1.wav", f"{split}dog/2.wav")
    strange = os.fsdecode(os.fsencode(root) + f"/{split}caf".encode() + b"\xe9")
    try:
        os.mkdir(strange)  # noqa: PTH102 (bytes beyond UTF-8)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert read_clips(root).classes == ("dog",), "an empty folder is no class"
    Path(strange, "1.wav").touch()
    with pytest.raises(DataError, match="not UTF-8; rename it") as caught:
        read_clips(root)
    assert str(caught.value).isprintable() and "caf" in str(caught.value)
    for column in ("path", "label"):
        frame = pd.DataFrame({"path": [str(root / split / "dog/1.wav")], "label": ["a"]})
        frame[column] = pd.Series([strange], dtype=object)
        with pytest.raises(DataError, match="not UTF-8") as caught:
            read_clips(frame)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ((None, None), ""),
        ((float("nan"), float("nan")), ""),
        ((0.0, 2.5), " (0.0 to 2.5 s)"),
        ((None, 5), " (0.0 to 5.0 s)"),
        ((7200.125, 7201.0), " (7200.125 to 7201.0 s)"),
        ((2.5, None), " (from 2.5 s)"),
    ],
)
def test_parts_of_files_in_words(part, text):
    assert part_text(*part) == text


# --- what the labels ask for -----------------------------------------------------------------


def read_labelled(tree, values, **kw):
    names = [f"{i}.wav" for i in range(len(values))]
    return read_clips(manifest(tree(*names), {"path": names, "label": values}), **kw)


def test_multilabel(tree):
    clips = read_labelled(tree, ["rain; wind", "rain", "", "wind;wind"])
    assert clips.task == "multilabel" and clips.classes == ("rain", "wind")
    assert clips.y().tolist() == [[1, 1], [1, 0], [0, 0], [0, 1]]


def test_multilabel_from_lists(tree):
    root = tree("1.wav", "2.wav")
    frame = pd.DataFrame({"path": ["1.wav", "2.wav"], "label": [["b", "a"], []]})
    frame.to_parquet(root / "m.parquet")
    assert read_clips(root / "m.parquet").y().tolist() == [[1, 1], [0, 0]]


@pytest.mark.parametrize(
    ("values", "task"),
    [
        (["10", "2", "3"], "classes"),
        (["1.0", "2.0"], "classes"),
        (["1.5", "2", "-3e-1"], "regression"),
        (["1.5", "nan"], "classes"),
        (["1.5", "inf"], "classes"),
        (["1.5", "1e999"], "classes"),
        (["1_0.5", "1.5"], "classes"),
        (["1.5", "low"], "classes"),
    ],
)
def test_numbers(tree, values, task):
    clips = read_labelled(tree, values)
    assert clips.task == task
    if task == "regression":
        assert clips.classes == () and clips.y().dtype == np.float32
        np.testing.assert_allclose(clips.y(), [float(v) for v in values])
    else:
        assert labels(clips) == values


def test_forced_tasks(tree):
    assert read_labelled(tree, ["1", "2"], labels="regression").y().tolist() == [1.0, 2.0]
    assert read_labelled(tree, ["a;b", "1.5"], labels="classes").classes == ("1.5", "a;b")
    assert read_labelled(tree, ["a", "b"], labels="multilabel").y().tolist() == [[1, 0], [0, 1]]
    with pytest.raises(DataError, match="'low' is not a finite number"):
        read_labelled(tree, ["1", "low"], labels="regression")
    with pytest.raises(DataError, match="--labels kinds is not known"):
        read_labelled(tree, ["1", "2"], labels="kinds")


def test_one_label_in_two_encodings_is_one_class(tree):
    clips = read_labelled(tree, ["caf\u00e9", "cafe\u0301", "tea"])
    assert clips.classes == ("caf\u00e9", "tea")


# --- the table -------------------------------------------------------------------------------


def test_subset_describe(tree):
    root = tree("1.wav", "2.wav")
    source = manifest(
        root,
        {
            "path": ["1.wav", "1.wav", "2.wav"],
            "label": ["a", "b", "a"],
            "onset": [0, 1800, 0],
            "offset": [1800, 3600, 3600],
            "split": ["train", "train", "test"],
        },
    )
    clips = read_clips(source)
    found = clips.describe()
    assert found["hours"] == 2.0 and found["n_files"] == 2 and found["n_groups"] == 2
    assert found["classes"] == {"a": {"clips": 2, "groups": 2}, "b": {"clips": 1, "groups": 1}}
    assert found["splits"] == {"test": 1, "train": 2}
    part = clips.subset([2])
    assert part.classes == ("a", "b") and part.y().tolist() == [0] and len(clips) == 3
    assert len(clips.subset(clips.y() == 1)) == 1
    with pytest.raises(DataError, match="mask"):
        clips.subset(np.array([True]))


def test_hours_are_unknown_without_segments(tree):
    assert read_clips(tree("a/1.wav", "b/2.wav")).describe()["hours"] is None


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.text(
            st.characters(
                exclude_categories=("Cs", "Cc", "Zl", "Zp", "Zs"), exclude_characters=";"
            ),
            min_size=1,
            max_size=8,
        ).filter(lambda s: s.strip() == s),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from(["csv", "parquet"]),
)
def test_written_tables_read_back_the_same(tmp_path_factory, names, kind):
    import unicodedata

    names = [unicodedata.normalize("NFC", name) for name in names]
    root = tmp_path_factory.mktemp("trip")
    for i in range(len(names)):
        (root / f"{i}.wav").write_bytes(b"")
    frame = pd.DataFrame({"path": [str(root / f"{i}.wav") for i in range(len(names))]})
    clips = read_clips(frame.assign(label=names), labels="classes", groups="none")
    target = root / f"out.{kind}"
    (clips.to_csv if kind == "csv" else clips.to_parquet)(target)
    again = read_clips(target, labels="classes")
    assert again.classes == clips.classes
    pd.testing.assert_frame_equal(again.table[list(COLUMNS)], clips.table[list(COLUMNS)])
    assert not [p for p in root.iterdir() if p.suffix == ".part"]


def test_written_paths_are_relative(tree):
    root = tree("a/1.wav", "b/2.wav")
    read_clips(root).to_csv(root / "m.csv")
    assert (root / "m.csv").read_text().splitlines()[0].startswith("path,label")
    assert "a/1.wav" in (root / "m.csv").read_text() and str(root) not in (
        root / "m.csv"
    ).read_text().replace(str(root) + "/m", "")


def test_content_follows_the_data_not_the_place(tree, tmp_path):
    import shutil

    root = tree("a/1.wav", "b/2.wav")
    first = read_clips(root)
    before = first.content()
    shutil.copytree(root, tmp_path / "copy")
    assert read_clips(tmp_path / "copy").content() == before
    assert first.subset([1, 0]).content() == before
    (root / "a/1.wav").write_bytes(b"x")
    assert read_clips(root).content() != before
    (root / "a/1.wav").unlink()
    with pytest.raises(DataError, match=r"1\.wav"):
        first.content()
