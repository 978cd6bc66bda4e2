"""Training deep clustering: it learns, goes on where it stopped, and keeps the best weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.signal import butter, sosfilt

from ossicle import bundle
from ossicle.audio import Audio, save
from ossicle.cli import main
from ossicle.datasets.clips import read_clips
from ossicle.datasets.mixtures import Mixtures, MixtureSettings, write_mixtures
from ossicle.errors import DataError, OssicleError
from ossicle.separate.fit_deep_clustering import DeepClusteringSettings, fit_deep_clustering
from ossicle.separate.systems import SYSTEMS, fit_system, settings_of
from ossicle.separate.training import improvement
from ossicle.separators.deep_clustering import DeepClustering
from ossicle.train import TrainingError

RATE = 4000
SETTINGS = DeepClusteringSettings(
    hidden=12, n_layers=1, embedding=5, frames=30, batch_size=8, steps=60, judge_every=30, n_valid=4
)


@pytest.fixture(scope="module")
def mixtures(tmp_path_factory: pytest.TempPathFactory) -> Mixtures:
    """Each group is noise in a band of its own, coming and going."""
    folder = tmp_path_factory.mktemp("bands")
    rng = np.random.default_rng(0)
    rows = []
    for group in range(4):
        band = butter(4, [200 + 430 * group, 400 + 430 * group], "band", fs=RATE, output="sos")
        for i in range(6):
            wave = sosfilt(band, rng.standard_normal(2 * RATE))
            wave *= 0.5 + 0.5 * np.sin(2 * np.pi * 3 * np.arange(2 * RATE) / RATE + i)
            path = folder / f"g{group}_{i}.wav"
            wave *= 0.5 / np.abs(wave).max()
            save(path, Audio(wave[None].astype(np.float32), RATE))
            rows.append({"path": str(path), "label": "noise", "group": f"g{group}"})
    settings = MixtureSettings(sample_rate=RATE, duration_s=1.0, disjoint="clips")
    counts = {"train": 20, "valid": 4, "test": 8}
    clips = read_clips(pd.DataFrame(rows))
    return write_mixtures([clips], folder / "mixtures", settings, counts=counts)


@pytest.fixture(scope="module")
def trained(mixtures: Mixtures) -> DeepClustering:
    network = fit_deep_clustering(mixtures, SETTINGS)
    assert isinstance(network, DeepClustering)
    return network


def test_it_learns_to_take_unheard_clips_apart(mixtures: Mixtures, trained: DeepClustering) -> None:
    torch.manual_seed(0)
    fresh = DeepClustering(RATE, 128, 32, 12, 1, 5)
    fresh.level_mean.copy_(trained.level_mean)
    fresh.level_std.copy_(trained.level_std)
    test = mixtures.part("test")
    assert improvement(fresh.eval(), test) < 5
    assert improvement(trained, test) > 10


def test_its_label_says_how_it_came_about(mixtures: Mixtures, trained: DeepClustering) -> None:
    info = trained.info
    assert info["system"] == "deep_clustering"
    assert info["trained_on"]["n_train"] == 20
    assert info["settings"]["steps"] == 60
    scores = info["chosen"]["validation_si_sdr_improvement"]
    assert info["chosen"]["mask"] == max(scores, key=scores.get)
    mask, sharpness = info["chosen"]["mask"].split()
    assert (trained.mask, trained.sharpness) == (mask, float(sharpness))
    valid = mixtures.part("valid")
    assert improvement(trained, valid, most=4) == pytest.approx(max(scores.values()))
    json.dumps(info)


def test_the_levels_of_each_bin_are_those_of_the_training_part(trained: DeepClustering) -> None:
    assert float(trained.level_std.min()) >= 1
    # Bands at 200 to 400 Hz and so on: what lies above them is softer.
    assert float(trained.level_mean[62:].mean()) < float(trained.level_mean[6:60].mean()) - 5


class _StopError(Exception):
    pass


def test_a_stopped_run_goes_on_as_if_it_had_not(mixtures: Mixtures, tmp_path: Path) -> None:
    short = replace(SETTINGS, steps=6, judge_every=3)
    whole = fit_deep_clustering(mixtures, short, folder=tmp_path / "whole")

    def stop(done: int, total: int, seconds: float) -> None:
        if done == 4:
            raise _StopError

    with pytest.raises(_StopError):
        fit_deep_clustering(mixtures, short, folder=tmp_path / "stopped", progress=stop)
    gone_on = fit_deep_clustering(mixtures, short, folder=tmp_path / "stopped")
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(gone_on.state_dict()[name], value, rtol=0, atol=0)
    with pytest.raises(TrainingError, match="other arguments or clips"):
        fit_deep_clustering(mixtures, replace(short, seed=5), folder=tmp_path / "whole")


def test_the_callers_random_numbers_stay(mixtures: Mixtures) -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    fit_deep_clustering(mixtures, replace(SETTINGS, steps=1))
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "mse"}, "choose one of affinity, whitened"),
        ({"weight": "all"}, "choose one of active, magnitude"),
        ({"steps": 0}, "steps must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0"),
        ({"warm_up": 2.0}, "between 0 and 1"),
        ({"precision": "8"}, "precision '8'"),
    ],
)
def test_bad_settings_are_told(change: dict[str, object], message: str, mixtures: Mixtures) -> None:
    with pytest.raises(OssicleError, match=message):
        fit_deep_clustering(mixtures, replace(SETTINGS, **change))  # type: ignore[arg-type]


def test_a_system_that_needs_names_says_so(mixtures: Mixtures) -> None:
    with pytest.raises(DataError, match="use deep_clustering"):
        fit_system("nmf", mixtures)
    with pytest.raises(DataError, match="no mixtures in a part 'train'"):
        fit_system("deep_clustering", mixtures.part("test"))
    short = replace(SETTINGS, steps=1)
    alone = fit_system("deep_clustering", mixtures.part("train"), short)
    assert alone.info["trained_on"]["n_valid"] == 0
    with pytest.raises(OssicleError, match="unknown system"):
        fit_system("magic", mixtures)


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_has_settings_with_a_seed(name: str) -> None:
    assert settings_of(name)().seed == 0


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    def run(*arguments: object) -> int:
        monkeypatch.setattr("sys.argv", ["ossicle", *map(str, arguments)])
        try:
            main()
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    yield run


def test_the_command_trains_a_bundle(
    mixtures: Mixtures, tmp_path: Path, command: object, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["hidden=8", "n_layers=1", "embedding=4", "frames=20", "batch_size=4", "n_valid=2"]
    options = [text for size in [*sizes, "steps=3", "judge_every=0"] for text in ("--set", size)]
    out = tmp_path / "two.ossicle"
    assert callable(command)
    assert command("separate", "train", mixtures.root, "-o", out, "--json", *options) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    loaded = bundle.load_separator(out)
    assert told["parameters"] == loaded.num_parameters
    assert loaded.info["steps"] == 3
    assert command("separate", "train", mixtures.root, "-o", out, "--settings") == 0
    assert "loss=affinity" in capsys.readouterr().out
    (tmp_path / "taken").mkdir()
    assert command("separate", "train", mixtures.root, "-o", tmp_path / "taken") == 2
    assert "is not a bundle" in capsys.readouterr().err
    assert command("separate", "train", mixtures.root, "-o", out, "--set", "stepz=3") == 2
    assert "no keyword 'stepz'" in capsys.readouterr().err
