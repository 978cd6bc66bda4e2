"""The training loop: resumed equals uninterrupted, interrupts, several processes, broken losses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ossicle.train import (
    CHECKPOINT,
    Batch,
    Objective,
    TrainingError,
    fit,
    step_seed,
)
from ossicle.train_log import LOG


class Noise:
    """Batches of noise, each from its number alone."""

    seconds_per_item = 0.5

    def __init__(self, size: int = 6, broken_at: int | None = None) -> None:
        self.size, self.broken_at = size, broken_at

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        rng = np.random.default_rng(step)
        x = torch.from_numpy(rng.normal(size=(self.size, 1, 8)).astype(np.float32))
        if step == self.broken_at:
            x[2, 0, 3] = float("nan")
        share = self.size // world
        rows = slice(rank * share, (rank + 1) * share)
        names = [f"clip{i}.wav" for i in range(self.size)][rows]
        return Batch(x[rows], names, rows, self.size)


class Regression(Objective):
    """Predicts the sum of the squares; with dropout, batch norm and drawn noise, all random."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.net = nn.Sequential(
            nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 1)
        )
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    def forward(self, batch, step):
        x = batch.waveforms[:, 0]
        y = x.square().sum(1, keepdim=True)
        noise = torch.randn(step.size, 8, generator=step.generator)[step.rows]
        loss = (self.net(x + 0.1 * noise) - y).square().mean()
        return loss, {"mean": y.mean()}

    def after_update(self, step):
        self.updates += 1


def run(folder: Path | None = None, steps: int = 12, batches: Noise | None = None, **more):
    objective = Regression()
    optimiser = torch.optim.AdamW(objective.parameters(), lr=0.01)
    more = {"log_every": 3, "seed": 3, **more}
    trained = fit(
        objective,
        batches or Noise(),
        optimiser,
        steps=steps,
        folder=folder,
        schedule=lambda step: 1 - step / 12,
        **more,
    )
    return objective, trained


def assert_same(a: nn.Module, b: nn.Module) -> None:
    other = b.state_dict()
    for name, tensor in a.state_dict().items():
        assert torch.equal(tensor, other[name]), name


class StopError(Exception):
    pass


def test_it_learns_and_counts(tmp_path):
    objective, trained = run(tmp_path, steps=12)
    assert int(objective.updates) == trained.steps == 12
    losses = [line["loss"] for line in trained.history]
    assert losses[-1] < losses[0]
    assert 0 <= trained.waiting <= 1


def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path):
    whole, _ = run()

    def stop(done, total, seconds):
        if done == 5:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, progress=stop)
    # What was asked for during step 5 is done after it.
    assert torch.load(tmp_path / CHECKPOINT, weights_only=True)["step"] == 5
    resumed, trained = run(tmp_path)
    assert trained.steps == 12
    assert_same(whole, resumed)


def test_a_crash_loses_only_what_came_after_the_checkpoint(tmp_path):
    whole, expected = run()

    def crash(done, total, seconds):
        if done == 8:
            raise StopError

    with pytest.raises(StopError):
        run(tmp_path, progress=crash, checkpoint_minutes=0)
    resumed, trained = run(tmp_path)
    assert_same(whole, resumed)
    # Lines written after the checkpoint are written anew, once.
    assert [line["step"] for line in trained.history] == [3, 6, 9, 12]
    logged = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert logged == trained.history
    assert [a["loss"] for a in logged] == [b["loss"] for b in expected.history]


def test_a_polite_kill_keeps_the_work(tmp_path):
    def kill(done, total, seconds):
        if done == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, progress=kill)
    assert torch.load(tmp_path / CHECKPOINT, weights_only=True)["step"] == 4
    assert signal.getsignal(signal.SIGTERM) is before


def test_it_runs_outside_the_main_thread():
    done = []
    thread = threading.Thread(target=lambda: done.append(run()))
    thread.start()
    thread.join()
    assert done[0][1].steps == 12


def test_the_number_of_loaders_changes_nothing():
    one, _ = run(loaders=1)
    three, _ = run(loaders=3)
    assert_same(one, three)


def test_the_callers_random_numbers_go_on():
    torch.manual_seed(5)
    Regression()
    expected = torch.rand(3)
    torch.manual_seed(5)
    run()
    assert torch.equal(torch.rand(3), expected)


def test_a_finished_run_is_not_run_again(tmp_path):
    first, _ = run(tmp_path)
    calls = []
    again, trained = run(tmp_path, progress=lambda *a: calls.append(a))
    assert not calls
    assert trained.steps == 12
    assert_same(first, again)
    with pytest.raises(TrainingError, match="has 12 steps already, 10 are asked for"):
        run(tmp_path, steps=10)


def test_a_loss_that_is_no_number_names_the_files(tmp_path):
    with pytest.raises(TrainingError, match=r"step 8 is nan.*clip0\.wav, clip1\.wav, clip2\.wav"):
        run(tmp_path, batches=Noise(broken_at=7), checkpoint_minutes=0)
    # The weights of the step before are safe.
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert state["step"] == 7
    assert all(t.isfinite().all() for t in state["objective"].values() if t.is_floating_point())


def test_another_runs_folder_is_refused(tmp_path):
    run(tmp_path, fingerprint="one")
    with pytest.raises(TrainingError, match="other arguments or clips"):
        run(tmp_path, fingerprint="two")


def test_a_broken_checkpoint_is_told(tmp_path):
    (tmp_path / CHECKPOINT).write_bytes(b"no checkpoint at all")
    with pytest.raises(TrainingError, match=r"checkpoint\.pt: is no checkpoint"):
        run(tmp_path)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"step": 1, "fingerprint": "", "objective": Evil()}, tmp_path / CHECKPOINT)
    with pytest.raises(TrainingError, match="is no checkpoint"):
        run(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_the_schedule_scales_the_peak():
    _, trained = run()
    assert [line["lr"] for line in trained.history] == pytest.approx(
        [0.01 * (1 - step / 12) for step in (2, 5, 8, 11)]
    )


def test_a_monitor_is_logged_and_disturbs_nothing(tmp_path):
    plain, _ = run()

    def look():
        torch.rand(100)
        return {"knn": 0.5}

    watched, trained = run(tmp_path, monitor=look, monitor_every=5)
    assert_same(plain, watched)
    assert [line["step"] for line in trained.history if "knn" in line] == [5, 10, 12]


def test_a_run_leaves_no_thread(tmp_path):
    """TensorBoard writes in one of its own."""
    before = set(threading.enumerate())
    run(tmp_path)
    assert list((tmp_path / "tensorboard").iterdir())
    assert set(threading.enumerate()) <= before
    with pytest.raises(TrainingError):
        run(tmp_path / "broken", batches=Noise(broken_at=3))
    assert set(threading.enumerate()) <= before


def after(calls: int):
    """A question that is answered yes from the given time of asking on, and how often it was."""
    asked = []

    def finished() -> bool:
        asked.append(True)
        return len(asked) >= calls

    return finished, asked


def test_a_run_that_has_finished_ends_early(tmp_path):
    finished, asked = after(2)
    calls = []
    short, trained = run(
        tmp_path,
        monitor=lambda: {"knn": 0.5},
        monitor_every=4,
        finished=finished,
        progress=lambda *numbers: calls.append(numbers[0]),
    )
    # Asked after each look, and not between.
    assert len(asked) == 2
    assert trained.steps == 8
    assert calls == list(range(1, 9))
    assert [line["step"] for line in trained.history if "knn" in line] == [4, 8]
    saved = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert saved["step"] == 8
    # Its steps are the first of the whole run.
    assert_same(short, run(steps=8)[0])


def test_a_run_that_ended_early_is_not_gone_on_with(tmp_path):
    first, _ = run(tmp_path, monitor=dict, monitor_every=4, finished=after(1)[0])
    calls = []
    more = {"monitor": dict, "monitor_every": 4, "progress": lambda *a: calls.append(a)}
    again, trained = run(tmp_path, finished=lambda: True, **more)
    assert not calls
    assert trained.steps == 4
    assert_same(first, again)
    # What has not finished after all, as with more patience, goes on.
    other, trained = run(tmp_path, finished=lambda: False, **more)
    assert len(calls) == 8
    assert trained.steps == 12
    assert_same(other, run()[0])


def test_a_stop_before_the_end_of_patience_changes_nothing(tmp_path):
    def stop(done, total, seconds):
        if done == 5:
            signal.raise_signal(signal.SIGINT)

    def looked(at: list[int]):
        return lambda: at.append(1) or {}

    def few(at: list[int]):
        return lambda: len(at) >= 2

    seen: list[int] = []
    whole, expected = run(monitor=looked(seen), monitor_every=4, finished=few(seen))
    seen = []
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, monitor=looked(seen), monitor_every=4, finished=few(seen), progress=stop)
    assert len(seen) == 1
    resumed, trained = run(tmp_path, monitor=looked(seen), monitor_every=4, finished=few(seen))
    assert trained.steps == expected.steps == 8
    assert_same(whole, resumed)


def test_tensorboard_is_written_where_it_is_installed(tmp_path):
    board = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run(tmp_path)
    events = board.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    logged = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    scalars = [(s.step, s.value) for s in events.Scalars("loss")]
    assert [step for step, _ in scalars] == [3, 6, 9, 12]
    assert [v for _, v in scalars] == pytest.approx([line["loss"] for line in logged], rel=1e-6)


def test_seeds_of_steps_are_apart():
    seeds = [step_seed(seed, step, s) for seed in (0, 1) for step in range(50) for s in (0, 1)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


TWO_PROCESSES = """
import json, sys
import torch
from lightning.fabric import Fabric
from ossicle.augment import Compose, LogMixup, TimeMask
from ossicle.model import create_model
from ossicle.pretrain.crops import CropBatches
from ossicle.pretrain.optimiser import clip_adaptively
from ossicle.pretrain.{module} import {kind}
from ossicle.pretrain.views import Views
from ossicle.pretrain.waveforms import Waveforms
from ossicle.train import fit
import numpy as np

def job(fabric):
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    samples = rng.integers(-9000, 9000, 12 * 8000).astype(np.int16)
    names = tuple(f"{{i}}.wav" for i in range(12))
    waveforms = Waveforms(
        samples, np.arange(12), 8000 * np.arange(12), np.full(12, 8000), names, [], 16_000
    )
    model = create_model("slowfast_nfnet_f0", width=0.125, drop_rate=0.0)
    torch.manual_seed(1)
    views = Views(model.frontend, None, Compose([LogMixup(0.4, unit=0.175), TimeMask(0.2, 1)]))
    objective = {kind}(model.backbone, views)
    optimiser = torch.optim.SGD([p for p in objective.parameters() if p.requires_grad], lr=0.1)
    batches = CropBatches(waveforms, batch_size=4, crop_s=0.4, partners=True)
    clipped = objective.clipped()
    trained = fit(
        objective, batches, optimiser, steps=3, fabric=fabric, log_every=1, seed=5,
        before_update=lambda: clip_adaptively(clipped, 0.05),
    )
    sums = [float(p.double().abs().sum()) for p in objective.parameters()]
    return [line["loss"] for line in trained.history], sums

if __name__ == "__main__":
    world = int(sys.argv[1])
    fabric = Fabric(accelerator="cpu", devices=world, strategy="ddp_spawn" if world > 1 else "auto")
    print(json.dumps(fabric.launch(job)))
"""


@pytest.mark.parametrize(("module", "kind"), [("simclr", "SimCLR"), ("byol", "BYOL")])
def test_two_processes_are_one_with_the_joint_batch(tmp_path, module, kind):
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES.format(module=module, kind=kind))
    answers = []
    for world in (1, 2):
        done = subprocess.run(
            [sys.executable, script, str(world)],
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        )
        assert done.returncode == 0, done.stderr[-2000:]
        answers.append(json.loads(done.stdout.splitlines()[-1]))
    (losses, sums), (losses_two, sums_two) = answers
    assert len(losses) == 3
    # The first is a sum in another order; later ones follow from weights that were.
    assert losses_two == pytest.approx(losses, rel=1e-4)
    assert sums_two == pytest.approx(sums, rel=1e-4, abs=1e-4)
    assert len(set(losses)) == 3
