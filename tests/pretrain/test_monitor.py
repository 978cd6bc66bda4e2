"""Frozen scores while a network trains: the numbers of `evaluate`, and nothing disturbed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from ossicle.datasets.clips import Clips, read_clips
from ossicle.errors import DataError
from ossicle.features import extract
from ossicle.model import Model, create_model
from ossicle.pretrain.monitor import Monitor
from ossicle.pretrain.simclr import SimCLR
from ossicle.pretrain.views import Views
from ossicle.transfer.evaluate import evaluate

RATE = 16_000
SMALL = {"channels": 4, "hidden": 4, "dense": 4}


@pytest.fixture(scope="module")
def probe(tmp_path_factory) -> Clips:
    """Fourteen short clips of two classes that a random network tells apart, but not always."""
    root = tmp_path_factory.mktemp("probe")
    rng = np.random.default_rng(0)
    for name, hz in (("high", 900), ("low", 600)):
        (root / name).mkdir()
        for i in range(7):
            t = np.arange(round(RATE * rng.uniform(0.2, 0.4))) / RATE
            x = 0.2 * np.sin(2 * np.pi * hz * rng.uniform(0.7, 1.4) * t)
            x += 0.2 * rng.normal(size=len(t))
            soundfile.write(root / name / f"{i}.wav", x.clip(-1, 1), RATE)
    (root / "low" / "broken.wav").write_bytes(b"nothing")
    return read_clips(root)


@pytest.fixture
def job() -> tuple[Model, SimCLR]:
    model = create_model("crnn", seed=1, **SMALL)
    torch.manual_seed(0)
    objective = SimCLR(model.backbone, Views(model.frontend), (8, 4))
    # Its statistics are not those of a new network, its weights neither.
    objective.train()
    model.backbone(torch.randn(4, 1, 40, 30))
    return model, objective


def test_scores_are_those_of_evaluate(job, probe):
    model, objective = job
    scores = Monitor(probe, model, objective)()
    frozen = Model(model.frontend, objective.backbone, clip=model.clip, info=model.info)
    frozen.eval().requires_grad_(False)
    table = extract(frozen, probe)
    last = extract(frozen, probe, layers="last")
    want = {
        "knn": evaluate(probe, last, frozen, probe="knn", diagnostics=False)["score"]["value"],
        "ridge": evaluate(probe, table, frozen, probe="ridge", diagnostics=False)["score"]["value"],
    }
    assert scores == want
    assert min(scores.values()) > 0.4
    assert len(table) == 14


def test_it_looks_at_the_network_as_it_is_by_now(job, probe):
    model, objective = job
    monitor = Monitor(probe, model, objective)
    before = monitor()
    with torch.no_grad():  # what says nothing: every clip alike
        for p in objective.backbone.parameters():
            p.zero_()
    after = monitor()
    assert after != before
    assert max(after.values()) <= 0.6
    objective.keep_average(0.5)
    with torch.no_grad():
        for p in objective.backbone.parameters():
            p.normal_()
    assert monitor() == after  # the average has not moved yet


@pytest.mark.parametrize("average", [False, True])
def test_nothing_is_disturbed(job, probe, average):
    model, objective = job
    if average:
        objective.keep_average(0.9)
    monitor = Monitor(probe, model, objective)
    objective.train()
    objective.views.eval()
    modes = {name: m.training for name, m in objective.named_modules()}
    wanted = {name: p.requires_grad for name, p in objective.named_parameters()}
    for p in objective.parameters():
        p.grad = torch.full_like(p, 0.25) if p.requires_grad else None
    state = {name: t.clone() for name, t in objective.state_dict().items()}
    threads = torch.get_num_threads()
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    monitor()
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads
    assert {name: m.training for name, m in objective.named_modules()} == modes
    assert {name: p.requires_grad for name, p in objective.named_parameters()} == wanted
    assert all((p.grad == 0.25).all() for p in objective.parameters() if p.requires_grad)
    for name, t in objective.state_dict().items():
        assert torch.equal(t, state[name]), name
    memory = next(p for p in objective.backbone.parameters() if p.dim() == 4)
    assert memory.is_contiguous(memory_format=torch.channels_last)


def test_it_is_put_back_even_where_it_fails(job, probe, monkeypatch):
    model, objective = job
    monitor = Monitor(probe, model, objective)
    monkeypatch.setattr(
        "ossicle.pretrain.monitor.extract", lambda *a, **k: (_ for _ in ()).throw(DataError("no"))
    )
    objective.train()
    with pytest.raises(DataError):
        monitor()
    assert objective.backbone.training
    assert all(p.requires_grad for p in objective.backbone.parameters())


def test_it_is_the_same_each_time(job, probe):
    model, objective = job
    monitor = Monitor(probe, model, objective)
    assert monitor() == monitor()


def test_a_set_that_cannot_be_scored_is_told_before_the_training(job, probe):
    """Not at its end, after hours."""
    model, objective = job
    with pytest.raises(DataError, match="one class"):
        Monitor(only(probe, ["low"]), model, objective).check()
    single = probe.table.groupby("label").head(1).index.to_numpy()
    with pytest.raises(DataError, match="group|clips"):
        Monitor(probe.subset(single), model, objective).check()
    Monitor(probe, model, objective).check()


def only(clips: Clips, labels: list[str]) -> Clips:
    table = clips.table[clips.table["label"].isin(labels)].reset_index(drop=True)
    assert isinstance(table, pd.DataFrame)
    return Clips(table, "classes", tuple(labels), clips.root, [], clips.group_source)
