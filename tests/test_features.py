"""Features of many clips: what may be asked for, what comes back, order and workers."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ossicle.audio import Audio, load, resample, save
from ossicle.datasets.clips import Clips
from ossicle.errors import AudioError, DataError, OssicleError
from ossicle.features import (
    Clip,
    FeatureTable,
    Progress,
    as_clips,
    clip_parts,
    embed_clip,
    extract,
    one_thread,
    read_clip,
    run_in_order,
)
from ossicle.model import ClipPolicy, Model, create_model


@pytest.fixture(scope="module")
def model() -> Model:
    return create_model("mel")


def noise(seconds: float, rate: int = 16_000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.3, 0.3, round(seconds * rate)).astype(np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("clips")
    paths = [str(folder / f"{i}.wav") for i in range(6)]
    for i, path in enumerate(paths):
        soundfile.write(path, noise(0.5 + 0.1 * i, 22_050, i), 22_050)
    return paths


def table_of(rows: list[dict]) -> Clips:
    empty = {"onset": np.nan, "offset": np.nan, "group": None, "split": None, "fold": None}
    table = pd.DataFrame([{**empty, "label": "a", **row} for row in rows])
    return Clips(table, "classes", ("a",), Path(), [], "each clip")


# --- what may be asked for -------------------------------------------------------------------


def test_paths_arrays_and_tables_become_clips(files):
    samples = noise(0.1)
    clips = as_clips(
        [files[0], Path(files[1]), (samples, 16_000), (np.stack([samples] * 2), 8_000)]
    )
    assert [clip.name for clip in clips] == [files[0], files[1], "array", "array"]
    assert clips[2].source.samples.shape == (1, 1600)
    assert clips[3].source.samples.shape == (2, 1600)
    assert clips[3].source.sample_rate == 8_000
    assert as_clips([Audio(samples[None], np.int64(16_000))])[0].source.sample_rate == 16_000
    assert as_clips(iter(files)) == [Clip(path) for path in files]
    rows = [{"path": files[0]}, {"path": files[1], "onset": 0.1, "offset": 0.3}]
    assert as_clips(table_of(rows)) == [Clip(files[0]), Clip(files[1], 0.1, 0.3)]


@pytest.mark.parametrize(
    "wrong, words",
    [
        ("one/path.wav", "one path"),
        (Path("one/path.wav"), "one path"),
        (pd.DataFrame({"path": ["a.wav"]}), "read_clips"),
        ([3], "int"),
        ([None], "NoneType"),
        ([np.zeros(100)], "ndarray"),
        ([("a.wav", "dog")], "tuple"),
        ([(np.zeros((2, 3, 4)), 16_000)], "tuple"),
        ([(np.zeros(4, np.int16), 16_000)], "int16.*32768"),
        ([(np.zeros(4, np.uint8), 16_000)], "uint8"),
        ([(np.zeros(4, complex), 16_000)], "complex"),
        ([(["a", "b"], 16_000)], "floating point"),
        ([(np.zeros(4), "fast")], "rate"),
        ([(np.zeros(4), 0)], "rate"),
        ([(np.zeros(4), -16_000)], "rate"),
        ([(np.zeros(4), 44_100.5)], "rate"),
        ([(np.zeros(4), None)], "rate"),
    ],
)
def test_anything_else_is_refused_in_words(wrong, words):
    with pytest.raises(DataError, match=words) as caught:
        as_clips(wrong)
    assert "\n" not in str(caught.value)


def test_samples_in_memory_are_downmixed_by_the_mean_then_resampled():
    left, right = noise(0.5, 22_050, 0), noise(0.5, 22_050, 1)
    got = read_clip(Clip(Audio(np.stack([left, right]), 22_050)), 16_000)
    expected = resample(((left + right) / 2)[None], 22_050, 16_000)[0]
    assert got.dtype == np.float32
    assert np.allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize(
    "samples, words",
    [
        (np.zeros((1, 16_000)), "silent"),
        (np.full((1, 16_000), 0.25), "silent"),
        (np.stack([noise(1), -noise(1)]), "silent"),
        (np.where(np.arange(16_000) == 7, np.nan, 0.1)[None], "NaN"),
        (np.where(np.arange(16_000) == 7, np.inf, 0.1)[None], "infinite"),
        (noise(0.019)[None], "shorter than 0.02 s"),
        (np.zeros((1, 0)), "shorter"),
        (noise(1)[:, None], r"time is the last axis, \(C, N\)"),
    ],
)
def test_samples_that_cannot_be_used(samples, words):
    with pytest.raises(AudioError, match=words):
        read_clip(Clip(Audio(samples.astype(np.float32), 16_000)), 16_000)


def test_segments_of_a_file_are_cut_before_anything_else(model, files):
    rows = [{"path": files[0], "onset": 0.1, "offset": 0.4}, {"path": files[0], "onset": 0.4}]
    table = extract(model, table_of(rows))
    whole = load(files[0]).samples[0]
    parts = [(whole[2205:8820], 22_050), (whole[8820:], 22_050)]
    expected = extract(model, parts)
    assert np.allclose(table.matrix(), expected.matrix(), atol=1e-5)
    assert table.seconds_read == pytest.approx(0.4, abs=2e-4)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    n_samples=st.integers(500, 4_000) | st.sampled_from([1000, 1001, 1999, 2000, 2001, 3000, 3001]),
    rate=st.sampled_from([16_000, 22_050, 8_000]),
)
def test_a_streamed_file_has_the_parts_of_the_whole_one(tmp_path, n_samples, rate):
    """Windows of 1,000 samples, so that every way to end is met."""
    path = tmp_path / "clip.wav"
    soundfile.write(path, noise(n_samples / rate, rate), rate)
    policy = ClipPolicy(1000 / 16_000, 0.0)
    clip = Clip(str(path))
    whole = read_clip(clip, 16_000)
    parts = list(clip_parts(clip, policy, 16_000))
    expected = [whole[a:b] for a, b in policy.segments(len(whole), 16_000)]
    assert [len(part) for part in parts] == [len(part) for part in expected]
    assert np.allclose(np.concatenate(parts), whole, atol=1e-6)


def test_a_long_file_is_the_same_streamed_or_whole(model, tmp_path):
    samples = noise(2.3 * model.clip.window_s)
    path = tmp_path / "long.wav"
    soundfile.write(path, samples, 16_000, subtype="FLOAT")
    table = extract(model, [path, (samples, 16_000)], poolings=["mean", "std", "max", "band"])
    assert np.array_equal(table.matrix()[0], table.matrix()[1])
    assert table.seconds_used == pytest.approx(2 * 2.3 * model.clip.window_s, abs=1e-3)


# --- the table -------------------------------------------------------------------------------


@pytest.fixture
def table() -> FeatureTable:
    blocks = OrderedDict(
        (name, np.full((3, dims), i, np.float32))
        for i, (name, dims) in enumerate([("a/mean", 2), ("a/max", 1), ("b/c/mean", 3)])
    )
    return FeatureTable(blocks, np.array([0, 2, 3]))


def test_blocks_are_picked_by_layer_and_name(table):
    assert len(table) == 3
    assert table.layers == ("a", "b/c")
    assert table.names() == ["a/mean", "a/max", "b/c/mean"]
    assert table.names(["b/c"]) == ["b/c/mean"]
    assert table.matrix().tolist() == [[0, 0, 1, 2, 2, 2]] * 3
    assert table.matrix(["b/c/mean", "a/mean"]).tolist() == [[2, 2, 2, 0, 0]] * 3
    assert {k: v.shape for k, v in table.by_layer().items()} == {"a": (3, 3), "b/c": (3, 3)}


def test_no_block_is_not_every_block(table):
    with pytest.raises(OssicleError, match="no such block"):
        table.matrix([])
    with pytest.raises(OssicleError, match="c/mean"):
        table.matrix(["a/mean", "c/mean"])


def test_layers_and_poolings_are_those_asked_for(files):
    network = create_model("yamnet", seed=0)
    table = extract(network, files[:2], layers="last,conv1", poolings=["max", "mean"])
    assert list(table.blocks) == [
        "conv1/max",
        "conv1/mean",
        "pointwise14/max",
        "pointwise14/mean",
    ]
    assert table.blocks["pointwise14/max"].shape == (2, 1024)
    assert table.blocks["conv1/mean"].dtype == np.float32
    assert table.sample_rate == 16_000
    with pytest.raises(OssicleError, match="layer"):
        extract(network, files[:1], layers=[])
    with pytest.raises(OssicleError, match="workers"):
        extract(network, files[:1], workers=0)


def test_progress_is_told_after_every_clip(model, files, tmp_path):
    told: list[Progress] = []
    extract(model, [files[0], str(tmp_path / "none.wav"), files[1]], progress=told.append)
    assert [(p.done, p.total) for p in told] == [(1, 3), (2, 3), (3, 3)]
    assert [p.seconds_read for p in told] == pytest.approx([0.5, 0.5, 1.1], abs=1e-3)


def test_skipped_rows_leave_no_gap(model, files, tmp_path):
    missing = str(tmp_path / "none.wav")
    table = extract(model, [missing, files[0], missing, files[1]], workers=3)
    assert table.index.tolist() == [1, 3]
    assert [(row, path) for row, path, _ in table.skipped] == [(0, missing), (2, missing)]
    assert np.array_equal(table.matrix(), extract(model, files[:2]).matrix())


def test_skipped_segments_are_told_with_their_part(model, files):
    parts = [(0.0, 0.25), (0.25, 0.255), (7.0, 9.5), (float("nan"), 0.001)]
    table = extract(
        model, table_of([{"path": files[0], "onset": a, "offset": b} for a, b in parts])
    )
    assert table.index.tolist() == [0]
    assert {path for _, path, _ in table.skipped} == {files[0]}
    ends = ("(0.25 to 0.255 s)", "(7.0 to 9.5 s)", "(0.0 to 0.001 s)")
    for (_, _, reason), end in zip(table.skipped, ends, strict=True):
        assert reason.endswith(f" {end}") and not reason.startswith(end)


# --- running ---------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [1, 2])
def test_one_thread_gives_the_threads_back(before):
    torch.set_num_threads(before)
    try:
        with pytest.raises(KeyError), one_thread():
            assert torch.get_num_threads() == 1
            raise KeyError
        assert torch.get_num_threads() == before
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_the_order_of_the_rows(workers):
    clips = [Clip(str(i)) for i in range(20)]

    def slow_at_first(clip: Clip) -> int:
        time.sleep(0.01 if int(clip.name) % 5 == 0 else 0)
        if clip.name == "7":
            raise AudioError(clip.name, "broken")
        return int(clip.name) ** 2

    results = list(run_in_order(slow_at_first, clips, workers))
    assert [row for row, _ in results] == list(range(20))
    assert isinstance(results[7][1], AudioError)
    assert [r for _, r in results if not isinstance(r, AudioError)] == [
        i**2 for i in range(20) if i != 7
    ]


def test_workers_run_a_few_clips_ahead_and_no_more():
    """So that memory does not grow with the number of clips."""
    before = set(threading.enumerate())
    started: list[str] = []
    results = run_in_order(lambda clip: started.append(clip.name), [Clip("x")] * 1000, 2)
    for _ in range(10):
        next(results)
    time.sleep(0.05)
    assert 10 <= len(started) <= 10 + 4 * 2
    results.close()
    assert set(threading.enumerate()) <= before


def test_other_errors_are_not_swallowed():
    def fail(clip: Clip) -> None:
        if clip.name == "3":
            raise RuntimeError("out of memory")

    for workers in (1, 3):
        with pytest.raises(RuntimeError, match="out of memory"):
            list(run_in_order(fail, [Clip(str(i)) for i in range(50)], workers))


def test_an_interrupt_ends_the_workers(model, files):
    def interrupt(progress: Progress) -> None:
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        extract(model, files * 20, workers=3, progress=interrupt)
    assert threading.active_count() == before
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("seconds", [0.5, 10.0, 10.1, 20.0, 23.7, 41.0])
def test_a_streamed_file_is_cut_as_the_policy_says(tmp_path, seconds):
    """Parts read on the way are those of the whole file in memory, and so are the features."""
    rng = np.random.default_rng(1)
    samples = (0.1 * rng.standard_normal((2, round(seconds * 22_050)))).astype(np.float32)
    path = tmp_path / "long.wav"
    save(path, Audio(samples, 22_050))
    model = create_model("mel")
    policy = ClipPolicy(10.0, 0.0)
    whole = load(path, sample_rate=16_000).samples[0]
    spans = policy.segments(len(whole), 16_000)
    parts = list(clip_parts(Clip(str(path)), policy, 16_000))
    assert [len(part) for part in parts] == [b - a for a, b in spans]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-6)
    vectors, duration_s = embed_clip(model, Clip(str(path)))
    assert duration_s == pytest.approx(seconds, abs=1e-3)
    for name, vector in model.clip_features(whole).items():
        np.testing.assert_allclose(vectors[name], vector, rtol=1e-4, atol=1e-4)
