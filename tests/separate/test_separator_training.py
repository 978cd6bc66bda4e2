"""Training keeps the weights that do best on mixtures that it does not learn from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from ossicle.audio import Audio, save
from ossicle.datasets.mixtures import Mixtures
from ossicle.metrics.separation import si_sdr
from ossicle.separate.training import (
    Schedule,
    SeparatorTraining,
    improvement,
    table_key,
    train_separator,
    training_folder,
)
from ossicle.separators.base import Separator
from ossicle.train import Batch

RATE = 4000


class _Gain(Separator):
    """Gives a share of the mixture to each source."""

    def __init__(self, sources: list[str] | None = None) -> None:
        super().__init__(RATE, sources or [])
        self.gain = nn.Parameter(torch.tensor(0.0))

    def separate(self, samples: Tensor, n_sources: int | None = None) -> Tensor:
        with torch.no_grad():
            return torch.stack([samples * self.gain, samples * (1 - self.gain)])


class _Towards(SeparatorTraining):
    """The loss is least where the gain is 1."""

    def loss(self, stems: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        gain = self.separator.gain
        assert isinstance(gain, Tensor)
        return (gain - 1).square(), {"gain": gain.detach().clone()}


class _Nothing:
    seconds_per_item = 1.0

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        return Batch(torch.zeros(1, 2, 8), ["nothing"], slice(0, 1), 1)


def _judge(separator: Separator) -> float:
    """Best in the middle of the way."""
    assert isinstance(separator, _Gain)
    return -abs(float(separator.gain) - 0.5)


def test_the_best_weights_are_taken_not_the_last() -> None:
    objective = _Towards(_Gain(), _judge)
    schedule = Schedule(40, 0.05, judge_every=1)
    found, history = train_separator(objective, _Nothing(), schedule, key=["x"])
    gains = [line["validation_si_sdr_improvement"] for line in history if "lr" not in line]
    assert len(gains) == 40
    assert -abs(float(found.gain) - 0.5) == max(gains)  # type: ignore[arg-type]
    assert history[-1]["validation_si_sdr_improvement"] < max(gains) - 0.1
    assert not any(parameter.requires_grad for parameter in found.parameters())


def test_without_a_judge_the_last_weights_are_taken() -> None:
    objective = _Towards(_Gain())
    found, _ = train_separator(objective, _Nothing(), Schedule(40, 0.05), key=["x"])
    assert float(found.gain) > 0.7  # type: ignore[arg-type]


def test_patience_ends_it() -> None:
    objective = _Towards(_Gain(), _judge, patience=3)
    _, history = train_separator(
        objective, _Nothing(), Schedule(1000, 0.05, judge_every=1), key=["x"]
    )
    assert history[-1]["step"] == int(objective.best_at) + 3 < 100


def test_the_rate_rises_and_falls_and_the_gradient_is_cut() -> None:
    steps: list[float] = []
    gain = _Gain()
    objective = _Towards(gain)

    def watch(done: int, total: int, seconds: float) -> None:
        steps.append(float(gain.gain.grad.norm()))  # type: ignore[union-attr]

    schedule = Schedule(20, 0.01, warm_up=5, clip_norm=0.25)
    train_separator(objective, _Nothing(), schedule, key=["x"], progress=watch)
    assert max(steps) == pytest.approx(0.25, rel=1e-4)  # 2 (gain - 1) is nearly 2


def _mixtures(folder: Path, sources: tuple[str, ...]) -> Mixtures:
    rng = np.random.default_rng(0)
    rows = []
    for i in range(3):
        stems = rng.standard_normal((2, RATE)).astype(np.float32) * 0.1
        stems[1] *= 0.5
        paths = []
        for name, wave in (("mixture", stems.sum(0)), ("a", stems[0]), ("b", stems[1])):
            paths.append(folder / f"{i}_{name}.wav")
            save(paths[-1], Audio(wave[None], RATE), "FLOAT")
        row = {"mixture": paths[0], "source1": paths[1], "source2": paths[2], "split": "valid"}
        rows.append({**row, "group1": "a", "group2": "b", "group": "a+b", "level_db2": -6.0})
    return Mixtures(pd.DataFrame(rows).astype({"mixture": str}), sources, 2, RATE, folder, [])


@pytest.mark.parametrize("sources", [(), ("a", "b")])
def test_improvement_is_the_mean_over_sources_and_mixtures(
    tmp_path: Path, sources: tuple[str, ...]
) -> None:
    mixtures = _mixtures(tmp_path, sources)
    separator = _Gain(list(sources))
    with torch.no_grad():
        separator.gain.fill_(0.7)
    # Shares of the mixture are no better than it, whatever their scale.
    assert improvement(separator, mixtures) == pytest.approx(0, abs=1e-4)

    class Oracle(_Gain):
        """The sources with some noise, in the wrong order where there is none."""

        def separate(self, samples: Tensor, n_sources: int | None = None) -> Tensor:
            for i in range(3):
                loaded = mixtures.load(i)
                if np.array_equal(loaded.mixture, samples[0].numpy()):
                    near = loaded.sources + 0.1 * loaded.mixture
                    return torch.from_numpy(near[:: 1 if sources else -1].copy())[:, None]
            raise AssertionError("a mixture that is not there")

    expected = []
    for i in range(3):
        loaded = mixtures.load(i)
        for source in loaded.sources:
            before = float(si_sdr(loaded.mixture, source))
            expected.append(float(si_sdr(source + 0.1 * loaded.mixture, source)) - before)
    oracle = Oracle(list(sources))
    assert improvement(oracle, mixtures) == pytest.approx(np.mean(expected), abs=1e-4)


def test_the_key_is_of_what_is_mixed_not_of_where_it_lies(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    here, there = (_mixtures(tmp_path / name, ()) for name in ("here", "there"))
    assert table_key(here) == table_key(there)
    there.table.loc[0, "level_db2"] = 1.0
    assert table_key(here) != table_key(there)


def test_checkpoints_lie_beside_the_bundle() -> None:
    assert training_folder(Path("a/two.ossicle")) == Path("a/two-training")
    assert training_folder(Path("two")) == Path("two-training")
