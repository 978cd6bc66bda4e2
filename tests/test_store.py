"""The feature store: what was put in comes out to the bit; stops, repeats and other keys."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from ossicle import store as module
from ossicle.errors import DataError, OssicleError
from ossicle.features import FeatureTable, extract
from ossicle.model import create_model

lance = pytest.importorskip("lance", reason='needs Lance: pip install "ossicle[scale]"')

from ossicle.store import FeatureStore, StoreMatrix

SIZES = {"conv.1/mean": 3, "conv.1/a`b": 1, "blocks.10.act/mean": 5, "x y/band": 17}


def numbers(row: int) -> dict[str, np.ndarray]:
    """What any row holds, from its number alone."""
    random = np.random.default_rng([7, row])
    return {name: random.normal(size=size).astype(np.float32) for name, size in SIZES.items()}


def piece(rows, bad=()) -> FeatureTable:
    """A piece of those rows; positions in ``bad`` cannot be read."""
    good = [i for i in range(len(rows)) if i not in bad]
    blocks = OrderedDict(
        (name, np.array([numbers(rows[i])[name] for i in good]).reshape(-1, size))
        for name, size in SIZES.items()
    )
    return FeatureTable(
        blocks if good else OrderedDict(),
        np.array(good, np.int64),
        [(i, f"clip{rows[i]}.wav", "silent") for i in bad],
        seconds_read=float(len(good)),
        seconds_used=0.5 * len(good),
        elapsed_s=0.25,
        sample_rate=16000,
    )


def expected(rows, names=tuple(SIZES)) -> np.ndarray:
    return np.array([np.concatenate([numbers(row)[name] for name in names]) for row in rows])


def filled(folder: Path, pieces) -> FeatureStore:
    store = FeatureStore(folder, {"model": "a"})
    for rows in pieces:
        store.append(np.array(rows), piece(rows))
    return store


def test_what_extract_gives_comes_back_to_the_bit(tmp_path, carried_clips):
    model = create_model("mfcc")
    paths = sorted(map(str, carried_clips.glob("*/*")))[:14]
    paths.insert(5, str(tmp_path / "gone.wav"))
    whole = extract(model, paths)
    store = FeatureStore(tmp_path / "store", {"model": "mfcc"})
    for rows in (np.arange(8, 15), np.arange(8)):  # pieces in any order
        store.append(rows, extract(model, [paths[row] for row in rows]))
    again = FeatureStore(tmp_path / "store").table()
    assert list(again.blocks) == list(whole.blocks)
    for name, block in whole.blocks.items():
        assert again.blocks[name].dtype == np.float32
        assert again.blocks[name].tobytes() == block.tobytes()
    assert again.index.tolist() == whole.index.tolist()
    assert again.skipped == whole.skipped
    assert again.sample_rate == whole.sample_rate
    assert again.seconds_read == pytest.approx(whole.seconds_read, rel=1e-12)
    assert store.done().tolist() == list(range(15))


def test_blocks_and_rows_are_picked_in_the_order_asked_for(tmp_path):
    store = filled(tmp_path, [[4, 2, 9], [0, 7], [11, 3]])
    assert store.names() == list(SIZES)
    assert store.sizes() == list(SIZES.values())
    assert store.rows().tolist() == [0, 2, 3, 4, 7, 9, 11]
    assert len(store) == 7
    names = ["x y/band", "conv.1/a`b"]
    assert store.sizes(names) == [17, 1]
    np.testing.assert_array_equal(store.matrix(), expected([0, 2, 3, 4, 7, 9, 11]))
    np.testing.assert_array_equal(store.matrix(names), expected(store.rows(), names))
    asked = [9, 0, 9, 3]
    np.testing.assert_array_equal(store.matrix(names, asked), expected(asked, names))
    assert store.matrix(names, []).shape == (0, 18)


def test_parts_of_a_matrix_read_at_a_time_do_not_show(tmp_path, monkeypatch):
    store = filled(tmp_path, [[5, 1], [0, 4, 3], [2]])
    monkeypatch.setattr(module, "BATCH_BYTES", 4 * sum(SIZES.values()) * 2)
    np.testing.assert_array_equal(store.matrix(), expected(range(6)))
    np.testing.assert_array_equal(store.matrix(None, [3, 0, 5, 1, 2]), expected([3, 0, 5, 1, 2]))


def test_a_matrix_on_disk_is_indexed_as_one_in_memory(tmp_path, monkeypatch):
    store = filled(tmp_path, [[5, 1], [0, 4, 3], [2]])
    names = ["x y/band", "conv.1/mean"]
    rows = np.array([4, 0, 5, 2])
    there, matrix = expected(rows, names), StoreMatrix(store, names, rows)
    assert matrix.shape == there.shape == (4, 20)
    assert len(matrix) == 4
    assert matrix.block_sizes == [17, 3]
    for at in ([3, 0, 0], slice(1, 3), there[:, 0] > 0, np.array([2]), 1, -1, slice(0, 0)):
        np.testing.assert_array_equal(matrix[at], there[at])
    assert isinstance(store.features(names), np.ndarray)
    np.testing.assert_array_equal(StoreMatrix(store)[:], store.features())
    monkeypatch.setattr(module, "MEMORY_BYTES", 100)
    large = store.features(names)
    assert isinstance(large, StoreMatrix)
    np.testing.assert_array_equal(large[:], expected(range(6), names))


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts bytes read as Linux does")
def test_only_the_columns_asked_for_are_read(tmp_path):
    wide, narrow = 20_000, 10
    store = FeatureStore(tmp_path)
    random = np.random.default_rng(0)
    blocks = {"wide/mean": (50, wide), "narrow/mean": (50, narrow)}
    table = {name: random.normal(size=shape).astype(np.float32) for name, shape in blocks.items()}
    store.append(np.arange(50), FeatureTable(OrderedDict(table), np.arange(50)))

    def read(names) -> int:
        def total() -> int:
            return int(Path("/proc/self/io").read_text().split()[1])

        again = FeatureStore(tmp_path)
        before = total()
        np.testing.assert_array_equal(again.matrix(names), table[names[0]])
        return total() - before

    assert read(["wide/mean"]) >= 4 * 50 * wide
    assert read(["narrow/mean"]) < 4 * 50 * wide / 20


def test_a_row_is_kept_once_and_clips_left_out_are_told_once(tmp_path):
    store = filled(tmp_path, [[0, 1, 2]])
    other = piece([2, 3, 4], bad=(2,))
    for block in other.blocks.values():
        block[0] += 1  # of row 2, which is there
    store.append(np.array([2, 3, 4]), other)
    store.append(np.array([4, 0]), piece([4, 0], bad=(0,)))
    for seen in (store, FeatureStore(tmp_path)):
        assert seen.rows().tolist() == [0, 1, 2, 3]
        assert seen.done().tolist() == [0, 1, 2, 3, 4]
        np.testing.assert_array_equal(seen.matrix(), expected(range(4)))
        assert seen.skipped == [(4, "clip4.wav", "silent")]
        assert seen.seconds_read == 3 + 2
        assert seen.elapsed_s == 0.5
    with pytest.raises(OssicleError, match="twice"):
        store.append(np.array([8, 8]), piece([8, 8]))
    with pytest.raises(OssicleError, match="negative"):
        store.append(np.array([-1]), piece([5]))
    assert store.rows().tolist() == [0, 1, 2, 3]


def test_two_that_write_at_once_see_each_other(tmp_path):
    one, two = FeatureStore(tmp_path, {"a": 1}), FeatureStore(tmp_path, {"a": 1})
    one.append(np.arange(3), piece(range(3)))
    two.append(np.arange(2, 5), piece(range(2, 5)))
    one.compact()
    one.append(np.array([9]), piece([9]))
    for store in (one, two):
        assert store.rows().tolist() == [0, 1, 2, 3, 4, 9]
        np.testing.assert_array_equal(store.matrix(), expected(store.rows()))


def test_where_no_clip_can_be_used(tmp_path):
    store = FeatureStore(tmp_path)
    with pytest.raises(OssicleError, match="none is named"):
        store.matrix()
    store.append(np.arange(2), piece([0, 1], bad=(0, 1)))
    assert store.done().tolist() == [0, 1]
    with pytest.raises(DataError, match=r"no clip has features; the first: clip0\.wav: silent"):
        FeatureStore(tmp_path).table()


def test_mistakes_are_told_in_one_line(tmp_path):
    store = filled(tmp_path / "s", [[0, 1]])
    with pytest.raises(OssicleError, match="no such block: conv"):
        store.matrix(["conv"])
    with pytest.raises(OssicleError, match="row 5 has no features"):
        store.matrix(None, [0, 5])
    with pytest.raises(OssicleError, match="row -1 has no features"):
        StoreMatrix(store, None, np.array([-1]))
    table = piece([7])
    table.blocks["more/mean"] = table.blocks["conv.1/mean"]
    with pytest.raises(OssicleError, match="other blocks"):
        store.append(np.array([7]), table)
    table = piece([7])
    table.blocks.move_to_end("conv.1/mean")
    with pytest.raises(OssicleError, match="other blocks"):
        store.append(np.array([7]), table)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="no feature store"):
        FeatureStore(tmp_path / "file")
    (tmp_path / "s" / module.KEY).write_text("{}")
    with pytest.raises(DataError, match="delete"):
        FeatureStore(tmp_path / "s")


def test_another_key_is_refused_or_has_its_own_folder(tmp_path):
    key = {"model": "a", "layers": ("x", "y"), "clips": 3}
    store = FeatureStore.of(tmp_path, key)
    store.append(np.array([0]), piece([0]))
    assert FeatureStore.of(tmp_path, copy.deepcopy(key)).folder == store.folder
    other = FeatureStore.of(tmp_path, {**key, "layers": ("x",)})
    assert other.folder != store.folder
    assert len(other) == 0
    with pytest.raises(DataError, match=r"something else \(other layers, clips\)"):
        FeatureStore(store.folder, {"model": "a", "layers": ["x"]})
    assert FeatureStore(store.folder).key["layers"] == ["x", "y"]


def test_without_lance_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lance", None)
    with pytest.raises(OssicleError, match=r'pip install "ossicle\[scale\]"'):
        FeatureStore(tmp_path / "s")


def test_hundreds_of_tiny_pieces_become_few_files(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LOOSE_PIECES", 32)
    store = FeatureStore(tmp_path)
    most = 0
    for row in range(150):
        store.append(np.array([row]), piece([row]))
        most = max(most, len(list((tmp_path / module.DATA / "data").iterdir())))
    assert most <= 34
    store.compact()
    assert len(list((tmp_path / module.DATA / "data").iterdir())) == 1
    assert len(list((tmp_path / module.DATA / "_versions").glob("*.manifest"))) == 1
    for seen in (store, FeatureStore(tmp_path)):
        np.testing.assert_array_equal(seen.matrix(), expected(range(150)))
        assert seen.seconds_read == 150


def check_whole_pieces(folder: Path, least: int) -> FeatureStore:
    store = FeatureStore(folder)
    done = store.done()
    assert len(done) >= least
    assert done.tolist() == list(range(len(done)))
    assert len(done) % 4 == 0
    assert store.rows().tolist() == [row for row in done if row % 4 != 1]
    assert [row for row, _, _ in store.skipped] == [row for row in done if row % 4 == 1]
    assert store.seconds_read == len(store)
    np.testing.assert_array_equal(store.matrix(), expected(store.rows()))
    return store


def write(folder: Path) -> None:
    """Pieces of four clips, the second of them silent."""
    store = FeatureStore(folder)
    for start in range(0, 4000, 4):
        rows = np.arange(start, start + 4)
        store.append(rows, piece(rows, bad=(1,)))
        sys.stdout.write(f"{start}\n")
        sys.stdout.flush()


def test_a_stop_between_note_and_data_leaves_neither(tmp_path, monkeypatch):
    store = FeatureStore(tmp_path)
    for start in (0, 4, 8):
        store.append(np.arange(start, start + 4), piece(range(start, start + 4), bad=(1,)))

    def stopped(arrow, data, mode):
        # As far as Lance gets before it commits.
        lance.fragment.write_fragments(arrow, data, mode=mode)
        raise KeyboardInterrupt

    monkeypatch.setattr(lance, "write_dataset", stopped)
    with pytest.raises(KeyboardInterrupt):
        store.append(np.arange(12, 16), piece(range(12, 16), bad=(1,)))
    monkeypatch.undo()
    data, notes = tmp_path / module.DATA / "data", tmp_path / module.NOTES
    assert len(list(data.iterdir())) == 4
    told = [json.loads(line) for line in notes.read_text().splitlines() if line]
    assert told[3]["skipped"] == [[13, "clip13.wav", "silent"]]
    assert len(check_whole_pieces(tmp_path, 12).done()) == 12
    with notes.open("a") as file:  # a line that was cut short
        file.write('{"piece": 5, "cli')
    # The same work again, cut otherwise.
    store = FeatureStore(tmp_path)
    store.append(np.arange(12, 14), piece([12, 13], bad=(1,)))
    store.append(np.arange(14, 16), piece([14, 15]))
    assert len(check_whole_pieces(tmp_path, 16).done()) == 16
    store.compact()
    assert len(list(data.iterdir())) == 1
    assert len(check_whole_pieces(tmp_path, 16).done()) == 16


def test_a_kill_at_any_time_leaves_whole_pieces(tmp_path):
    code = f"import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}]\n"
    code += f"import pathlib, test_store; test_store.write(pathlib.Path({str(tmp_path)!r}))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    told = [process.stdout.readline() for _ in range(9)]
    time.sleep(float(np.random.default_rng(0).uniform(0, 0.01)))
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=30)
    process.stdout.close()
    check_whole_pieces(tmp_path, int(told[-1]) + 4)
