"""What teachers say: components against scikit-learn's, stops and damage, who may teach."""

from __future__ import annotations

import json
import shutil
from collections import OrderedDict
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from sklearn.decomposition import PCA
from torch import nn

from ossicle.audio import load, resample
from ossicle.backbones import BACKBONES, WEIGHTS, Backbone, LayerInfo
from ossicle.backbones.baselines import MelStatistics
from ossicle.download import cache_dir
from ossicle.errors import OssicleError
from ossicle.model import create_model
from ossicle.pretrain import teachers
from ossicle.pretrain.teachers import (
    Components,
    Targets,
    Teacher,
    check_teachers,
    keep_with_run,
    learn_components,
    learn_targets,
)
from ossicle.pretrain.waveforms import Waveforms
from ossicle.pretrain.windows import Windows, cut_windows, with_mixtures

RATE = 8000
# Two teachers that need no download: small, with weights drawn at random; and the log-mels.
TINY, OTHER, BARE = "tiny", "other", "mel"


class TwoLayers(Backbone):
    """(B, 1, 64, T) -> "wide" (B, 3, 16, T / 2), "deep" (B, 5, T / 2)."""

    frontend: ClassVar[dict] = MelStatistics.frontend
    clip: ClassVar[dict] = {"window_s": 10.0, "min_s": 0.3, "fill": "none"}
    source: ClassVar[str] = "made up"
    feature_info = (LayerInfo("wide", 3, 16, 2), LayerInfo("deep", 5, 0, 2))

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(1, 3, 3, (4, 2), padding=1)
        self.deep = nn.Conv1d(3 * 16, 5, 3, padding=1)

    def forward(self, x):
        wide = self.wide(x).relu()
        return OrderedDict(wide=wide, deep=self.deep(wide.flatten(1, 2)))


def source(licence: str = "MIT", state: dict | None = None) -> SimpleNamespace:
    weights = SimpleNamespace(state=state or {}, head=None, hidden=(), readout=None, classes=())
    return SimpleNamespace(
        load=lambda: weights, description="random", licence=licence, origin="drawn"
    )


@pytest.fixture(scope="module", autouse=True)
def staff():
    """The made-up teachers."""
    with pytest.MonkeyPatch.context() as patch:
        for seed, name in enumerate((TINY, OTHER)):
            patch.setitem(BACKBONES, name, TwoLayers)
            state = create_model(name, seed=seed).backbone.state_dict()
            patch.setitem(WEIGHTS, name, source(state=state))
        patch.setitem(WEIGHTS, BARE, source("Apache-2.0"))
        patch.setitem(teachers.TEACHERS, TINY, Teacher(7, ("wide",), ("wide", "deep")))
        patch.setattr(teachers, "CHUNK", 4)
        yield


@pytest.fixture(autouse=True)
def yamnets(tmp_path, monkeypatch) -> list[Path]:
    """A cache of the test's own; a real teacher's weights in the user's."""
    found = sorted(cache_dir().glob("yamnet-*.safetensors"))
    monkeypatch.setenv("OSSICLE_CACHE", str(tmp_path / "cache"))
    return found


@pytest.fixture(scope="module")
def waveforms() -> Waveforms:
    """Tones in noise, of half a second to 1.5 s."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(RATE // 2, RATE * 3 // 2, 10)
    sounds = []
    for n in lengths:
        t = np.arange(n) / RATE
        swell = 1 + np.sin(2 * np.pi * rng.uniform(0.3, 2) * t + rng.uniform(0, 6))
        x = rng.uniform(0.05, 0.3) * swell * np.sin(2 * np.pi * rng.uniform(200, 3000) * t)
        sounds.append(x + rng.uniform(0, 0.05) * rng.normal(size=n))
    samples = (np.concatenate(sounds) * 32767).clip(-32767, 32767).astype(np.int16)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    names = tuple(f"{i}.wav" for i in range(10))
    return Waveforms(samples, np.arange(10), starts, lengths, names, [], RATE)


@pytest.fixture(scope="module")
def windows(waveforms) -> Windows:
    """The shorter ones are shorter than a teacher takes: it hears zeros behind."""
    windows = cut_windows(waveforms, (0.5, 0.25))
    assert len(set(windows.lengths)) == 2
    assert 20 < len(windows) < 40
    return windows


# --- components ------------------------------------------------------------------------------


def features(n: int, size: int, seed: int = 0) -> np.ndarray:
    """(n, size) of all scales, a few directions stronger than others; one value beyond eight."""
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(size, size)))
    X = (rng.normal(size=(n, size)) * 0.9 ** np.arange(size)) @ turn
    X = X * rng.uniform(0.1, 30, size) + 5 * rng.normal(size=size)
    X[3, 5] += 5000
    return X.astype(np.float32)


def by_sklearn(X: np.ndarray, Y: np.ndarray, k: int) -> np.ndarray:
    """(rows of Y, k): its components after X, each divided by the square root of its deviation."""
    X, Y = X.astype(np.float64), Y.astype(np.float64)
    mean, deviation = X.mean(0), X.std(0)
    deviation[np.ptp(X, axis=0) == 0] = 1.0
    Z, z = (np.clip((A - mean) / deviation, -8, 8) for A in (X, Y))
    found = PCA(k, svd_solver="full").fit(Z)
    return found.transform(z) / np.sqrt(found.transform(Z).std(0))


def close(got: np.ndarray, want: np.ndarray, tolerance: float) -> bool:
    """Up to the sign of each column."""
    signs = np.sign((got * want).sum(0))
    return got.shape == want.shape and np.abs(got * signs - want).max() < tolerance


@pytest.mark.parametrize(("n", "size"), [(300, 40), (90, 200), (50, 50)])
def test_components_are_scikit_learns(n, size):
    X, unheard = features(n, size), features(20, size, seed=1)
    learnt = learn_components(X, 20)
    assert learnt.directions.shape == (size, 20)
    assert all(part.dtype == np.float32 for part in learnt)
    assert close(learnt(X), by_sklearn(X, X, 20), 1e-4)
    assert close(learnt(unheard), by_sklearn(X, unheard, 20), 1e-3)


@pytest.mark.parametrize(("n", "size"), [(300, 40), (90, 200)])
def test_a_components_deviation_is_the_root_of_its_own(n, size):
    X = features(n, size)
    Y = learn_components(X, 20)(X)
    Z = np.clip((X - X.mean(0)) / X.std(0), -8, 8)
    spread = np.sqrt(PCA(20).fit(Z).explained_variance_ * (n - 1) / n)
    assert np.allclose(Y.std(0), np.sqrt(spread), rtol=1e-3)
    assert (np.diff(Y.std(0)) < 0).all()
    assert np.abs(Y.mean(0)).max() < 1e-4
    assert np.allclose(np.corrcoef(Y.T), np.eye(20), atol=1e-4)


def test_no_more_components_than_there_are():
    """Of n rows about their mean n - 1 directions are left; of columns that say the same, one."""
    assert learn_components(features(10, 60), 500).directions.shape == (60, 9)
    assert learn_components(features(100, 30), 500).directions.shape == (30, 30)
    twice = np.repeat(features(100, 30), 2, axis=1)
    assert learn_components(twice, 500).directions.shape == (60, 30)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e6])
@pytest.mark.parametrize(("n", "size"), [(100, 30), (40, 100)])
def test_features_that_never_change_say_nothing(n, size, value):
    X = features(n, size)
    with_idle = np.insert(X, [0, 7], np.float32(value), axis=1)
    learnt = learn_components(with_idle, 10)
    idle = [0, 8]
    assert (learnt.deviation[idle] == 1).all()
    assert np.abs(learnt.directions[idle]).max() < 1e-5
    assert close(learnt(with_idle), learn_components(X, 10)(X), 1e-3)


# --- what is read of a teacher ---------------------------------------------------------------


def slow_read_out(name: str, waveforms: Waveforms, windows: Windows) -> np.ndarray:
    """(windows, D), one window at a time, in the order in which the blocks are kept."""
    name, _, last = name.partition("/")
    model = create_model(name, pretrained=True)
    teacher = teachers.TEACHERS.get(name, Teacher())
    rows = []
    for item, start, n in zip(*windows[:3], strict=True):
        first = waveforms.starts[item] + start
        sound = waveforms.samples[first : first + n].astype(np.float32) / 32767
        sound = resample(sound, RATE, model.sample_rate)
        least = round(model.clip.min_s * model.sample_rate)
        sound = np.pad(sound, (0, max(0, least - len(sound))))
        with torch.inference_mode():
            maps = model.forward_layers(torch.from_numpy(sound)[None])
        maps = {layer: y[0].double().numpy() for layer, y in maps.items()}
        flat = {layer: y.reshape(len(y), -1) for layer, y in maps.items()}
        if last:
            y = list(flat.values())[-1]
            rows.append(np.concatenate([y.mean(1), y.max(1)]))
            continue
        parts = [y.mean(1) for y in flat.values()]
        for layer in teacher.banded:  # (C, F, T): eight groups of neighbouring bands
            profile = maps[layer].mean(-1)
            parts.append(profile.reshape(len(profile), 8, -1).mean(-1).ravel())
        for layer in teacher.ordered:  # (C, F, T) or (C, T): eight spans of the time
            y = maps[layer]
            y = y.mean(1) if y.ndim == 3 else y
            T = y.shape[1]
            spans = [y[:, i * T // 8 : -(-(i + 1) * T // 8)].mean(1) for i in range(8)]
            parts.append(np.stack(spans, 1).ravel())
        parts.append(list(flat.values())[-1].max(1))
        rows.append(np.concatenate(parts))
    return np.stack(rows)


def asked(waveforms, windows, names=(TINY,), **more) -> Targets:
    return learn_targets(waveforms, windows, names, "these", **more)


@pytest.mark.parametrize("name", [TINY, OTHER, BARE, f"{TINY}/last", f"{BARE}/last"])
def test_targets_are_components_of_what_the_teacher_says(waveforms, windows, name):
    targets = asked(waveforms, windows, [name])
    X = slow_read_out(name, waveforms, windows)
    k = targets.values.shape[1]
    assert k == {TINY: 7}.get(name, min(len(windows) - 1, X.shape[1]))
    assert targets.values.shape == (len(windows), k)
    assert targets.values.dtype == np.float16
    # The last of many are small, and float32 products know them less well.
    told = min(k, 7)
    got, want = targets.values[:, :told].astype(float), by_sklearn(X, X, told)
    assert close(got, want, 4e-3 * np.abs(want).max())


def test_components_are_learnt_from_a_sample_of_the_windows(waveforms, windows, monkeypatch):
    monkeypatch.setattr(teachers, "SAMPLE", 12)
    targets = asked(waveforms, windows, [BARE])
    X = slow_read_out(BARE, waveforms, windows).astype(np.float32)
    with safe_open(targets.folders[BARE] / "components.safetensors", framework="numpy") as file:
        learnt = Components(*(file.get_tensor(name) for name in Components._fields))
    assert targets.values.shape == (len(windows), 11)
    assert np.abs(learnt(X) - targets.values).max() < 0.01 * np.abs(learnt(X)).max()
    # Twelve of them, drawn by the seed: their mean is not that of all.
    rows = np.random.default_rng(0).choice(len(windows), 12, replace=False)
    assert np.allclose(learnt.mean, X[rows].mean(0), rtol=1e-3, atol=1e-3)
    other = asked(waveforms, windows, [BARE], seed=1)
    assert other.folders != targets.folders
    assert not np.array_equal(other.values, targets.values)


def test_teachers_stand_side_by_side(waveforms, windows):
    both = asked(waveforms, windows, [BARE, TINY])
    assert list(both.sizes) == list(both.folders) == [BARE, TINY]
    assert both.licences == {BARE: "Apache-2.0", TINY: "MIT"}
    alone = [asked(waveforms, windows, [name]) for name in (BARE, TINY)]
    assert np.array_equal(both.values, np.concatenate([a.values for a in alone], 1))
    assert list(both.sizes.values()) == [a.values.shape[1] for a in alone]
    assert len(set(both.folders.values())) == 2


def test_a_last_layer_is_a_teacher_of_its_own(waveforms, windows, tmp_path):
    both = asked(waveforms, windows, [TINY, f"{TINY}/last"])
    assert both.licences == {TINY: "MIT", f"{TINY}/last": "MIT"}
    assert len(set(both.folders.values())) == 2
    alone = [asked(waveforms, windows, [name]) for name in both.sizes]
    assert np.array_equal(both.values, np.concatenate([a.values for a in alone], 1))
    keep_with_run(both, tmp_path)
    kept = sorted(path.name for path in (tmp_path / "teachers").iterdir())
    assert kept == ["tiny-last.safetensors", "tiny.safetensors"]


def test_workers_change_nothing(waveforms, windows, tmp_path, monkeypatch):
    one = asked(waveforms, windows)
    monkeypatch.setenv("OSSICLE_CACHE", str(tmp_path / "second"))
    four = asked(waveforms, windows, workers=4)
    assert one.folders[TINY] != four.folders[TINY]
    assert np.array_equal(one.values, four.values)


def test_progress_counts_windows_over_all_teachers(waveforms, windows):
    told = []
    asked(waveforms, windows, [TINY, OTHER], progress=told.append)
    done = [p.done for p in told]
    assert done == sorted(done)
    assert done[-1] == 2 * len(windows)
    assert {p.total for p in told} == {2 * len(windows)}
    assert len(windows) in done
    assert told[-1].seconds_read == pytest.approx(windows.lengths.sum() / RATE)


# --- stopped, gone on with, damaged ----------------------------------------------------------


class StopError(Exception):
    pass


def counted(monkeypatch, stop_at: float = float("inf")) -> list[int]:
    """Windows that teachers hear from now on, one after another; at ``stop_at`` it stops."""
    heard: list[int] = []
    features = teachers._Lesson._features

    def counting(self, model, rows):
        heard.extend(rows.tolist())
        if len(heard) >= stop_at:
            raise StopError
        return features(self, model, rows)

    monkeypatch.setattr(teachers._Lesson, "_features", counting)
    return heard


@pytest.fixture(scope="module")
def whole(waveforms, windows, tmp_path_factory) -> np.ndarray:
    """The numbers of a run without a stop, made elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OSSICLE_CACHE", str(tmp_path_factory.mktemp("elsewhere")))
        return np.array(asked(waveforms, windows, [TINY, OTHER]).values)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_stopped_run_goes_on_and_ends_the_same_bit_for_bit(
    waveforms, windows, monkeypatch, whole, workers
):
    n = len(windows)
    for stop_at in (5, n + 9, 6):  # while components are learnt, then twice behind
        with monkeypatch.context() as patch:
            counted(patch, stop_at)
            with pytest.raises(StopError):
                asked(waveforms, windows, [TINY, OTHER], workers=workers)
    with monkeypatch.context() as patch:
        heard = counted(patch)
        targets = asked(waveforms, windows, [TINY, OTHER], workers=workers)
    assert np.array_equal(targets.values, whole)
    assert len(heard) <= 3 * n  # of four: the first one's components are there


def test_what_was_done_is_not_done_again(waveforms, windows, monkeypatch, whole):
    """Stopped after three chunks of values: they are not heard again, nor is the sample."""
    told = []

    def stop(progress) -> None:
        told.append(progress.done)
        if len(told) == 3:
            raise StopError

    with pytest.raises(StopError):
        asked(waveforms, windows, [TINY, OTHER], progress=stop)
    assert told == [4, 8, 12]
    heard = counted(monkeypatch)
    targets = asked(waveforms, windows, [TINY])
    assert len(heard) == len(windows) - 12
    assert np.array_equal(targets.values, whole[:, :7])


def test_what_is_whole_needs_no_teacher(waveforms, windows, monkeypatch):
    first = asked(waveforms, windows, [TINY, BARE])
    monkeypatch.setattr(teachers, "create_model", lambda *a, **k: pytest.fail("asked again"))
    again = asked(waveforms, windows, [TINY, BARE])
    assert np.array_equal(first.values, again.values)
    assert first[1:] == again[1:]


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def no_longer_components(path: Path) -> None:
    path.write_bytes(b"\0" * path.stat().st_size)


DAMAGE = {
    "components cut short": ("components.safetensors", cut_short),
    "components overwritten": ("components.safetensors", no_longer_components),
    "components lost": ("components.safetensors", Path.unlink),
    "values cut short": ("values.f16", cut_short),
    "values lost": ("values.f16", Path.unlink),
    "count lost": ("done.json", Path.unlink),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_files_are_made_anew(waveforms, windows, whole, what):
    folder = asked(waveforms, windows).folders[TINY]
    name, damage = DAMAGE[what]
    damage(folder / name)
    targets = asked(waveforms, windows)
    assert targets.folders[TINY] == folder
    assert np.array_equal(targets.values, whole[:, :7])


def test_other_windows_and_sizes_are_kept_apart(waveforms, windows, monkeypatch):
    first = asked(waveforms, windows)
    other = learn_targets(waveforms, windows, [TINY], "those")
    monkeypatch.setitem(teachers.TEACHERS, TINY, Teacher(4))
    fewer = asked(waveforms, windows)
    folders = {targets.folders[TINY] for targets in (first, other, fewer)}
    assert len(folders) == 3
    assert all(folder.parent == cache_dir() / "teachers" for folder in folders)
    assert fewer.values.shape[1] == 4


# --- what is kept ----------------------------------------------------------------------------


def test_components_go_with_the_run(waveforms, windows, tmp_path):
    targets = asked(waveforms, windows, [BARE, TINY])
    for _ in range(2):  # a run that goes on writes them again
        keep_with_run(targets, tmp_path / "run")
    kept = sorted((tmp_path / "run" / "teachers").iterdir())
    assert [path.name for path in kept] == ["mel.safetensors", "tiny.safetensors"]
    for path in kept:
        folder = targets.folders[path.stem]
        assert path.read_bytes() == (folder / "components.safetensors").read_bytes()
    with safe_open(kept[1], framework="numpy") as file:
        learnt = Components(*(file.get_tensor(name) for name in Components._fields))
        about = json.loads(file.metadata()["about"])
    X = slow_read_out(TINY, waveforms, windows)
    got = targets.values[:, targets.sizes[BARE] :]
    assert np.abs(learnt(X) - got).max() < 4e-3 * np.abs(learnt(X)).max()
    assert about["teacher"] == TINY
    assert about["licence"] == "MIT"
    assert about["origin"] == "drawn"
    assert about["windows"] == len(windows)
    assert about["blocks"] == [
        *("wide/mean", "deep/mean"),
        *("wide/band", "wide/spans", "deep/spans", "deep/max"),
    ]


@pytest.mark.parametrize("wide", [True, False])
def test_components_are_kept_as_they_are_used(waveforms, windows, monkeypatch, wide):
    """What goes on, or hears mixtures, reads them: of more features than windows, and of fewer."""
    name = TINY if wide else f"{TINY}/last"
    targets = asked(waveforms, windows, [name])
    X = slow_read_out(name, waveforms, windows).astype(np.float32)
    assert (X.shape[1] > len(windows)) == wide
    with safe_open(targets.folders[name] / "components.safetensors", framework="numpy") as file:
        learnt = Components(*(file.get_tensor(part) for part in Components._fields))
    assert np.abs(learnt(X) - targets.values).max() < 4e-3 * np.abs(learnt(X)).max()


@pytest.mark.parametrize("of", ["real", "made"])
def test_numbers_of_other_components_are_made_anew(waveforms, windows, of):
    """Components that were lost and learnt again, or that are not those of the real windows."""
    all_of_them = with_mixtures(windows, 1.0)

    def ask() -> Targets:
        return learn_targets(waveforms, all_of_them, [TINY], "these", made="so")

    before = ask()
    (real,) = before.folders.values()
    (made,) = [folder for folder in (cache_dir() / "teachers").iterdir() if folder != real]
    folder = real if of == "real" else made
    kept = np.array(before.values)
    damaged = np.memmap(folder / "values.f16", np.float16, "r+")
    damaged[:] = 7  # as if it had been said through other components
    damaged.flush()
    if of == "real":
        (folder / "components.safetensors").unlink()
    else:
        tensors = dict.fromkeys(Components._fields, np.zeros(3, np.float32))
        save_file(tensors, folder / "components.safetensors")
    assert np.array_equal(ask().values, kept)
    assert len(list((cache_dir() / "teachers").iterdir())) == 2


# --- who may teach ---------------------------------------------------------------------------


def test_who_cannot_teach_is_refused(waveforms, windows, monkeypatch):
    monkeypatch.setitem(WEIGHTS, OTHER, source("CC-BY-NC-4.0"))
    cases = [
        ((), "distillation needs teachers: --teachers "),
        (("nobody",), "'nobody' cannot teach: choose networks with weights: .*yamnet"),
        (("nobody/last",), "'nobody/last' cannot teach"),
        ((f"{TINY}/last/last",), "cannot teach"),
        ((f"{OTHER}/last",), r"licence \(CC-BY-NC-4.0\)"),
        (("crnn",), "'crnn' cannot teach"),  # a network, but without published weights
        ((TINY, OTHER), r"other cannot teach: its licence \(CC-BY-NC-4.0\)"),
        ((TINY, BARE, TINY), "a teacher is named twice"),
    ]
    for names, words in cases:
        for refuse in (check_teachers, partial(asked, waveforms, windows)):
            with pytest.raises(OssicleError, match=words) as caught:
                refuse(names)
            assert "\n" not in str(caught.value)
    assert not (cache_dir() / "teachers").exists()
    check_teachers([TINY, BARE])


def test_weights_that_are_published_as_free_may_teach():
    for name in ("yamnet", "efficientat_mn04", "musicnn", "speech_embedding", "speaker_encoder"):
        check_teachers([name])
    for name, teacher in teachers.TEACHERS.items():
        layers = create_model(name).layers
        assert {*teacher.banded, *teacher.ordered} <= set(layers), name


# --- a real one ------------------------------------------------------------------------------


def test_yamnet_teaches(yamnets, carried_clips, monkeypatch):
    if not yamnets:
        pytest.skip("needs YAMNet's weights in the cache (any command with yamnet fetches them)")
    cache_dir().mkdir(parents=True)
    for path in yamnets:
        shutil.copyfile(path, cache_dir() / path.name)
    rate = 16_000
    paths = sorted(carried_clips.glob("*/*.flac"))[::12]
    sounds = [load(path, sample_rate=rate).samples[0] for path in paths]
    sounds = [np.resize(sound, rate) for sound in sounds]  # a second of each
    samples = np.concatenate([(x * 32767).round().clip(-32767, 32767) for x in sounds])
    samples = samples.astype(np.int16)
    n = len(sounds)
    lengths = np.full(n, rate)
    names = tuple(map(str, paths))
    waveforms = Waveforms(samples, np.arange(n), rate * np.arange(n), lengths, names, [], rate)
    windows = cut_windows(waveforms, [1.0])
    targets = learn_targets(waveforms, windows, ["yamnet"], "a few")
    assert targets.sizes == {"yamnet": n - 1}
    assert targets.licences == {"yamnet": "Apache-2.0"}
    # What `ossicle embed` would give of the same seconds.
    model = create_model("yamnet", pretrained=True)
    rows = []
    for x in samples.reshape(n, rate).astype(np.float32) / 32767:
        blocks = model.clip_features(x, poolings=("mean", "max", "band"))
        banded = [blocks[f"pointwise{i}/band"] for i in (4, 6, 8)]
        means = [blocks[f"{layer}/mean"] for layer in model.layers]
        rows.append(np.concatenate([*means, *banded, blocks[f"{model.layers[-1]}/max"]]))
    want = by_sklearn(np.stack(rows), np.stack(rows), n - 1)
    got = np.array(targets.values, float)
    assert close(got[:, :6], want[:, :6], 0.01 * np.abs(want).max())
    assert np.allclose(got.std(0), want.std(0), rtol=0.01)
