"""Pieces of work here and in Ray: the same numbers, in order; killed workers; mistakes."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from ossicle.benchmark import pieces as pieces_module
from ossicle.benchmark.executors import Here, Ray, open_executor
from ossicle.benchmark.pieces import (
    Piece,
    extract_piece,
    features_key,
    fill,
    missing_pieces,
    model_of,
)
from ossicle.datasets.clips import read_clips
from ossicle.errors import AudioError, DataError, OssicleError
from ossicle.features import FeatureTable, extract
from ossicle.model import create_model
from ossicle.store import FeatureStore

pytest.importorskip("lance", reason='needs Lance: pip install "ossicle[scale]"')

NO_RAY = 'needs Ray: pip install "ossicle[scale]"'
MFCC = ("probe backbone=mfcc", 0)


@pytest.fixture(scope="module")
def workers():
    """Two workers of a local Ray, gone in the end."""
    ray = pytest.importorskip("ray", reason=NO_RAY)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with open_executor("local", 2) as executor:
            yield executor
            _, (_, process) = next(executor.map(sleepy, [1]))
    assert not ray.is_initialized()
    for _ in range(200):
        if not Path(f"/proc/{process}").exists():
            return
        time.sleep(0.05)
    raise AssertionError("a worker outlives the executor")


@pytest.fixture
def each(request):
    """This process, or Ray."""
    if request.param == "here":
        return Here(1)
    return request.getfixturevalue("workers")


everywhere = pytest.mark.parametrize("each", ["here", "ray"], indirect=True)


def square(number: int) -> int:
    return number**2


def sleepy(number: int) -> tuple[int, int]:
    time.sleep(0.3 if number % 2 == 0 else 0)
    return number, os.getpid()


def refuse(number: int) -> int:
    if number == 3:
        raise DataError("clip 3 is no clip")
    if number == 5:
        raise AudioError("a.wav", "silent")
    return number


def product(seed: int) -> bytes:
    """Bits of sums that several threads would add up in another order."""
    random = np.random.default_rng(seed)
    a = random.normal(size=(300, 4001)).astype(np.float32)
    return (a @ a.T).tobytes()


def threads(_: int) -> tuple[int, list[int]]:
    return torch.get_num_threads(), [pool["num_threads"] for pool in threadpool_info()]


def dies_once(job: tuple[Path, int]) -> int:
    """Leaves a mark each time it is begun; the third item kills its own process the first time."""
    folder, number = job
    marks = len(list(folder.glob(f"{number}-*")))
    (folder / f"{number}-{marks}").touch()
    if number == 3 and marks == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return 10 * number


def marks_and_sleeps(job: tuple[Path, int]) -> None:
    folder, number = job
    (folder / str(number)).touch()
    time.sleep(0.1)


def dies(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_kinds_of_executors(workers):
    with open_executor(workers=3) as here:
        assert (here.name, here.n_workers, here.threads) == ("here", 3, 3)
    assert (workers.name, workers.n_workers, workers.threads) == ("ray local", 2, 1)


@everywhere
def test_results_come_in_the_order_of_the_items(each):
    assert list(each.map(square, iter(range(9)))) == [(i, i * i) for i in range(9)]
    assert [number for _, (number, _) in each.map(sleepy, range(4))] == list(range(4))
    assert list(each.map(square, [])) == []


@everywhere
def test_items_are_taken_as_they_are_needed(each):
    taken = []

    def items():
        for number in range(50):
            taken.append(number)
            yield number

    results = each.map(square, items())
    assert next(results) == (0, 0)
    assert len(taken) <= 2 * each.n_workers + 1
    results.close()


@everywhere
def test_a_mistake_is_told_as_itself(each):
    results = each.map(refuse, [0, 1, 3, 4])
    assert next(results) == (0, 0)
    assert next(results) == (1, 1)
    with pytest.raises(DataError) as caught:
        next(results)
    assert type(caught.value) is DataError
    assert str(caught.value) == "clip 3 is no clip"
    with pytest.raises(AudioError) as caught:
        list(each.map(refuse, [5]))
    assert (caught.value.path, caught.value.reason) == ("a.wav", "silent")
    assert list(each.map(square, [2])) == [(0, 4)]  # and goes on


@everywhere
def test_one_thread_an_item(each):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with threadpool_limits(2):
            for _, (torch_threads, pools) in each.map(threads, range(2)):
                assert torch_threads == 1
                assert set(pools) == {1}
            assert 2 in threads(0)[1]
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_ray_gives_the_bits_that_this_process_gives(workers):
    assert list(workers.map(product, range(4))) == list(Here().map(product, range(4)))


def test_results_of_ray_can_be_written_to(workers):
    (_, table), *_ = workers.map(np.zeros, [200_000])
    table[0] = 1
    assert table.sum() == 1


def test_two_workers_work_at_once(workers):
    processes = {pid for _, (_, pid) in workers.map(sleepy, [0, 2, 4, 6])}
    assert len(processes) == 2
    assert os.getpid() not in processes


def test_a_killed_worker_repeats_its_own_item_alone(workers, tmp_path):
    results = list(workers.map(dies_once, [(tmp_path, number) for number in range(8)]))
    assert results == [(number, 10 * number) for number in range(8)]
    begun = sorted(path.name for path in tmp_path.iterdir())
    assert begun == sorted([*(f"{number}-0" for number in range(8)), "3-1"])


def test_a_worker_that_dies_again_and_again_is_told(workers):
    with pytest.raises(OssicleError, match=r"the worker of item 0 died 1 times"):
        list(Ray("ray local", 2, retries=0).map(dies, range(1)))
    assert list(workers.map(square, [3])) == [(0, 9)]


def test_a_module_that_workers_lack_is_told(workers, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("def identity(x):\n    return x\n")
    monkeypatch.syspath_prepend(tmp_path)
    import only_here

    with pytest.raises(OssicleError, match="a worker has no module only_here"):
        list(workers.map(only_here.identity, [1]))


def test_no_ray_at_an_address_is_told_at_once():
    pytest.importorskip("ray", reason=NO_RAY)
    start = time.perf_counter()
    for address in ("127.0.0.1:9", "nowhere"):
        with pytest.raises(OssicleError, match=f"no Ray at {address}"), open_executor(address):
            pass
    assert time.perf_counter() - start < 10


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(OssicleError, match=r'pip install "ossicle\[scale\]"'),
        open_executor("local"),
    ):
        pass
    with pytest.raises(OssicleError, match="at least 1"), open_executor(None, 0):
        pass


def test_ctrl_c_stops_what_was_given_out(workers, tmp_path):
    def interrupt():
        while not any(tmp_path.iterdir()):  # until the workers are at it
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    jobs = ((tmp_path, number) for number in range(10, 400))
    # What a shell starts in the background is born deaf to Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=interrupt, daemon=True).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            for _ in workers.map(marks_and_sleeps, jobs):
                pass
    finally:
        signal.signal(signal.SIGINT, before)
    list(workers.map(square, range(4)))
    begun = 0
    while (now := len(list(tmp_path.iterdir()))) != begun:  # what was given out runs on
        begun = now
        time.sleep(1.0)
    assert 0 < begun < 100


# Pieces.


@pytest.fixture
def tones(tmp_path) -> Path:
    """A folder of 11 tones, the fourth of them silent."""
    folder = tmp_path / "tones"
    for number in range(11):
        (folder / f"class{number % 2}").mkdir(parents=True, exist_ok=True)
        time_s = np.arange(3000 + 100 * number) / 12000
        tone = 0.3 * np.sin(2 * np.pi * (200 + 50 * number) * time_s) * (number != 3)
        soundfile.write(folder / f"class{number % 2}" / f"{number:02d}.wav", tone, 12000)
    return folder


@everywhere
def test_filled_in_pieces_as_extracted_at_once(each, tones, tmp_path):
    clips = read_clips(tones)
    whole = extract(create_model("mfcc"), clips)
    store = FeatureStore(tmp_path / "store")
    told = []
    fill(store, clips, MFCC, each, size=3, progress=told.append)
    table = store.table()
    assert list(table.blocks) == list(whole.blocks)
    for name, block in whole.blocks.items():
        assert table.blocks[name].tobytes() == block.tobytes()
    assert table.index.tolist() == whole.index.tolist()
    assert table.skipped == whole.skipped
    assert len(table.skipped) == 1
    assert [p.done for p in told] == [3, 6, 9, 11]
    assert told[-1].total == 11
    assert told[-1].seconds_read == pytest.approx(whole.seconds_read)


class Counted(Here):
    """Remembers the pieces that were run."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[int]] = []

    def map(self, function, items):
        items = list(items)
        self.rows += [item.rows.tolist() for item in items]
        return super().map(function, items)


def test_only_what_is_missing_is_extracted(tones, tmp_path):
    clips = read_clips(tones)
    store = FeatureStore(tmp_path / "store")
    first = Piece(MFCC, np.array([2, 8]), tuple(pieces_module.as_clips(clips.subset([2, 8]))))
    store.append(first.rows, extract_piece(first))
    executor, told = Counted(), []
    fill(store, clips, MFCC, executor, size=4, progress=told.append)
    assert [(p.done, p.total) for p in told] == [(6, 11), (10, 11), (11, 11)]
    assert executor.rows == [[0, 1, 3, 4], [5, 6, 7, 9], [10]]
    fill(store, clips, MFCC, executor, size=4)
    assert len(executor.rows) == 3
    whole = extract(create_model("mfcc"), clips)
    np.testing.assert_array_equal(store.matrix(), whole.matrix())
    assert missing_pieces(store, 11) == []
    assert [part.tolist() for part in missing_pieces(store, 14, 2)] == [[11, 12], [13]]


def test_layers_poolings_and_threads(tones, tmp_path):
    clips = read_clips(tones)
    store, model = FeatureStore(tmp_path / "store"), create_model("resnet18", seed=3)
    asked = {"layers": ["layer1", "layer2"], "poolings": ["std"]}
    asked["layers"] = list(model.layers[1:3])
    fill(
        store,
        clips.subset(np.arange(5)),
        ("probe backbone=resnet18 random=true", 3),
        Here(2),
        **asked,
    )
    whole = extract(model, clips.subset(np.arange(5)), **asked)
    assert store.names() == list(whole.blocks)
    np.testing.assert_array_equal(store.matrix(), whole.matrix())


def test_a_piece_of_clips_that_cannot_be_used(tones):
    paths = [str(tones / "class1" / "03.wav"), str(tones / "gone.wav")]
    table = extract_piece(Piece(MFCC, np.array([3, 11]), tuple(pieces_module.as_clips(paths))))
    assert isinstance(table, FeatureTable)
    assert len(table) == 0
    assert [(row, path) for row, path, _ in table.skipped] == list(enumerate(paths))
    assert "silent" in table.skipped[0][2]


def test_a_network_is_built_once(monkeypatch):
    pieces_module._HELD.clear()
    built = []
    build = pieces_module.build
    monkeypatch.setattr(pieces_module, "build", lambda *a: built.append(a) or build(*a))
    assert model_of(MFCC) is model_of(MFCC)
    model_of(("probe backbone=mel", 0))
    model_of(MFCC)
    assert len(built) == 3
    with pytest.raises(OssicleError, match="nothing_of_the_kind"):
        model_of(("probe backbone=nothing_of_the_kind", 0))


def test_the_key_of_features_changes_with_what_they_depend_on(tones):
    clips, model = read_clips(tones), create_model("resnet18", seed=0)

    def key(model=model, clips=clips, layers=("a",), poolings=("mean",)):
        return features_key(model, clips, layers, poolings)

    usual = key()
    assert key(create_model("resnet18", seed=0)) == usual
    other = key(create_model("resnet18", seed=1))
    assert {n for n in usual if usual[n] != other[n]} == {"weights", "model"}
    assert key(layers=("b",))["files"] == usual["files"]
    assert key(layers=("b",)) != usual
    assert key(poolings=("max",)) != usual
    assert key(clips=clips.subset(np.arange(10)[::-1]))["files"] != usual["files"]
    renamed = clips.subset(np.arange(len(clips)))
    renamed.table["label"] = "other"
    assert key(clips=renamed) == usual
    os.utime(clips.table["path"][4], ns=(1, 1))
    assert {n for n in usual if usual[n] != key()[n]} == {"files"}
