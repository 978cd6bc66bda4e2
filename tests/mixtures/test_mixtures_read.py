"""Mixtures that other tools wrote, and what is wrong with some."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ossicle.datasets.mixtures import read_mixtures
from ossicle.errors import AudioError, DataError

RATE = 8000


def write(path: Path, length: int = 800, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """A file of noise, and its samples as 16-bit steps."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(seed).integers(-9000, 9000, length).astype(np.int16)
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return samples


def stems(folder: Path, names: list[str], kinds: tuple[str, ...] = ("mix", "s1", "s2")) -> None:
    for name in names:
        for seed, kind in enumerate(kinds):
            write(folder / kind / f"{name}.wav", seed=seed)


def test_wsj0_2mix(tmp_path):
    for part in ("tr", "cv", "tt"):
        stems(tmp_path / part, ["011a0101_1.2345_22ga0106_-1.2345", "011o031b_0_050a050a_0"])
    found = read_mixtures(tmp_path)
    assert found.parts == ("train", "valid", "test")
    assert (found.sources, found.n_sources, found.sample_rate, len(found)) == ((), 2, RATE, 6)
    assert found.part("train").groups().tolist() == ["011+22g", "011+050"]
    assert found.table["name2"].tolist()[:2] == ["22g", "050"]
    one = found.load(3)
    assert one.mixture.shape == (800,)
    assert one.sources.shape == (2, 800)
    row = found.table.iloc[3]
    assert row["source2"] == str(tmp_path / "cv" / "s2" / "011o031b_0_050a050a_0.wav")
    wanted, _ = soundfile.read(row["source2"], dtype="float32")
    assert np.array_equal(one.sources[1], wanted)


def test_librimix_with_its_folders_of_several_mixtures(tmp_path):
    names = ["1034-121119-0049_1743-142912-0010"]
    kinds = ("mix_both", "mix_clean", "mix_single", "noise", "s1", "s2")
    for part in ("train-100", "train-360", "dev", "test"):
        stems(tmp_path / part, names, kinds)
    (tmp_path / "metadata").mkdir()
    found = read_mixtures(tmp_path)
    assert found.table["split"].tolist() == ["train", "train", "valid", "test"]
    assert found.groups()[0] == "1034+1743"
    assert Path(found.table["mixture"][0]).parent.name == "mix_clean"
    assert found.notes == ["mixtures are those of mix_clean/, not of mix_both, mix_single/"]
    noisy = read_mixtures(tmp_path, mixture="mix_both")
    assert noisy.sources == ()
    assert noisy.notes == ["the mixtures hold noise too, which is none of the sources"]
    single = read_mixtures(tmp_path, mixture="mix_single")
    assert single.sources == ("speech", "noise")
    assert single.table["group1"][0] == "1034"
    assert Path(single.table["source2"][0]).parent.name == "noise"
    with pytest.raises(DataError, match="no folder mix_all/"):
        read_mixtures(tmp_path, mixture="mix_all")


def test_three_sources_without_parts(tmp_path):
    stems(tmp_path / "all", ["b", "a"], ("mix", "s1", "s2", "s3"))
    found = read_mixtures(tmp_path / "all")
    assert found.n_sources == 3
    assert found.table["split"].tolist() == ["test", "test"]
    assert found.groups().tolist() == ["a", "b"]
    assert found.load(0).sources.shape == (3, 800)
    assert "all mixtures are taken for test" in found.notes[0]
    assert "file names tell no groups" in found.notes[1]


def test_one_part_alone_is_told_by_its_folder(tmp_path):
    stems(tmp_path / "cv", ["a"])
    found = read_mixtures(tmp_path / "cv")
    assert found.parts == ("valid",)


def test_a_folder_a_mixture(tmp_path):
    for part in ("train", "test"):
        for song in ("A - One", "B - Two"):
            for seed, stem in enumerate(("mixture", "vocals", "bass", "drums", "other")):
                write(tmp_path / part / song / f"{stem}.wav", seed=seed)
    found = read_mixtures(tmp_path)
    assert found.sources == ("bass", "drums", "other", "vocals")
    assert found.n_sources == 4
    assert found.groups().tolist() == ["A - One", "B - Two"] * 2
    assert found.table["name4"].tolist() == ["vocals"] * 4
    (tmp_path / "test" / "B - Two" / "bass.wav").unlink()
    with pytest.raises(
        DataError, match=r"B - Two: has the stems drums, other, vocals, and A - One"
    ):
        read_mixtures(tmp_path)


def test_ten_speakers_are_in_order(tmp_path):
    for i in range(1, 11):
        write(tmp_path / "a" / f"s{i}.wav", seed=i)
    write(tmp_path / "a" / "mixture.wav")
    found = read_mixtures(tmp_path)
    assert found.sources == ()
    assert [Path(found.table[f"source{i}"][0]).stem for i in (1, 2, 10)] == ["s1", "s2", "s10"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: write(d / "s2" / "b.wav", 799), "s2/b.wav: has 799 samples and its mixture"),
        (lambda d: write(d / "s1" / "b.wav", rate=16000), "s1/b.wav: has a rate of 16000 Hz"),
        (lambda d: (d / "s1" / "b.wav").unlink(), "mix/b.wav: has no stem s1/b.wav beside it"),
    ],
)
def test_stems_that_do_not_fit(tmp_path, spoil, message):
    stems(tmp_path / "tt", ["a", "b"])
    spoil(tmp_path / "tt")
    with pytest.raises(DataError, match=message):
        read_mixtures(tmp_path)


def test_a_stem_that_is_no_audio(tmp_path):
    stems(tmp_path / "tt", ["a"])
    (tmp_path / "tt" / "s2" / "a.wav").write_bytes(b"nothing")
    with pytest.raises(AudioError, match=r"s2/a\.wav"):
        read_mixtures(tmp_path)


def test_a_file_that_changed_after_reading(tmp_path):
    stems(tmp_path / "tt", ["a"])
    found = read_mixtures(tmp_path)
    write(tmp_path / "tt" / "s2" / "a.wav", 700)
    with pytest.raises(DataError, match=r"s2/a\.wav: has 700 samples"):
        found.load(0)
    write(tmp_path / "tt" / "s2" / "a.wav", rate=16000)
    with pytest.raises(DataError, match=r"s2/a\.wav: has a rate of 16000 Hz"):
        found.load(0)


def test_folders_without_mixtures(tmp_path):
    with pytest.raises(DataError, match="there is no such folder"):
        read_mixtures(tmp_path / "nowhere")
    with pytest.raises(DataError, match="has no mixtures: there is no mixtures.json"):
        read_mixtures(tmp_path)
    stems(tmp_path, ["a"], ("s1", "s2"))
    with pytest.raises(DataError, match="has stems and no folder mix/"):
        read_mixtures(tmp_path)


def test_a_part_that_is_not_there(tmp_path):
    stems(tmp_path / "tt", ["a"])
    with pytest.raises(DataError, match="has no mixtures for train; it has test"):
        read_mixtures(tmp_path).part("train", required=True)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"finished": true}', '{"finished": true, "sources": 3}']
)
def test_a_record_that_is_none(tmp_path, text):
    (tmp_path / "mixtures.json").write_text(text)
    (tmp_path / "mixtures.csv").write_text("mixture,split\n")
    with pytest.raises(DataError, match="mixtures.json"):
        read_mixtures(tmp_path)


def test_a_table_that_lacks_a_column(tmp_path):
    settings = {"n_sources": 2, "sample_rate": RATE}
    info = {"finished": True, "sources": [], "settings": settings}
    (tmp_path / "mixtures.json").write_text(json.dumps(info))
    (tmp_path / "mixtures.csv").write_text("mixture,split\na.wav,test\n")
    with pytest.raises(DataError, match=r"mixtures\.csv: has no column group"):
        read_mixtures(tmp_path)
