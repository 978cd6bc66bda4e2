"""The one training loop: an objective, batches by step, Lightning Fabric beneath.

A step's random numbers come from the run's seed and the step's number alone, and so does its batch.
A run that was stopped and resumed is therefore the run that was not, bit for bit on a CPU, and
several processes that share a batch draw what one process would.

Files in the run's folder: ``checkpoint.pt`` (tensors and plain values only), ``log.jsonl`` (a JSON
object a line), ``tensorboard/`` where TensorBoard is installed.
"""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ossicle.errors import OssicleError
from ossicle.record import replaced
from ossicle.train_log import LOG, Log

CHECKPOINT = "checkpoint.pt"


class TrainingError(OssicleError):
    """A run that cannot go on: a loss that is no number, or a folder that holds another run."""


class Step(NamedTuple):
    """What an objective knows about where it is.

    Attributes:
        number: steps done before this one.
        total: steps of the run.
        generator: for what is drawn, seeded for this step, the same in every process.
        size: items of the joint batch of all processes.
        rows: which of them this process has.
        gather: (b, ...) of this process -> (size, ...) of all, in order, with gradients.
    """

    number: int
    total: int
    generator: torch.Generator
    size: int
    rows: slice
    gather: Callable[[Tensor], Tensor]


class Batch(NamedTuple):
    """This process's share of a step's items.

    Attributes:
        waveforms: (b, V, N) V views of each item.
        names: (b,) where each comes from, for messages.
        rows: which items of the joint batch these are.
        size: items of the joint batch.
        partners: (b, V, N) other recordings to mix with; None where none are asked for.
        targets: (b,) or (b, K); None without labels.
    """

    waveforms: Tensor
    names: Sequence[str]
    rows: slice
    size: int
    partners: Tensor | None = None
    targets: Tensor | None = None


class Batches(Protocol):
    """Batches by number."""

    seconds_per_item: float

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """The share of process ``rank`` among ``world`` in the batch of ``step``."""


class Objective(nn.Module):
    """What is minimised, with all networks that it needs; ``state_dict`` holds all of its state."""

    def forward(self, batch: Batch, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss (), and numbers to log."""
        raise NotImplementedError(f"{type(self).__name__} must define forward")

    def after_update(self, step: Step) -> None:
        """Called after each step of the optimiser: moving averages, queues."""


class Trained(NamedTuple):
    """How a run went.

    Attributes:
        steps: done in all.
        history: the lines of the log.
        seconds: wall-clock time of this call.
        waiting: share of it spent waiting for data.
    """

    steps: int
    history: list[dict[str, Any]]
    seconds: float
    waiting: float


def step_seed(seed: int, step: int, stream: int = 0) -> int:
    """A seed for one step, unrelated to those of its neighbours; streams are apart."""
    return int(np.random.SeedSequence([seed, step, stream]).generate_state(1, np.uint64)[0] >> 1)


def fit(
    objective: Objective,
    batches: Batches,
    optimiser: torch.optim.Optimizer,
    *,
    steps: int,
    schedule: Callable[[int], float] | None = None,
    before_update: Callable[[], None] | None = None,
    fabric: Any = None,
    folder: Path | None = None,
    fingerprint: str = "",
    seed: int = 0,
    checkpoint_minutes: float = 10.0,
    log_every: int = 20,
    monitor: Callable[[], dict[str, float]] | None = None,
    monitor_every: int = 0,
    finished: Callable[[], bool] | None = None,
    loaders: int = 1,
    progress: Callable[[int, int, float], None] | None = None,
) -> Trained:
    """Minimise ``objective`` over ``steps`` batches.

    Args:
        objective: its parameters that require gradients are what ``optimiser`` was built on.
        batches: give the batch of any step.
        optimiser: every group's ``lr`` is its peak.
        steps: of the whole run, those before a stop included.
        schedule: step -> factor on the peak learning rate; None is 1.
        before_update: called with gradients in place, before the optimiser's step.
        fabric: a launched ``lightning.fabric.Fabric``; None is one process on the CPU.
        folder: of checkpoint and log; None keeps neither. A checkpoint in it is gone on with.
        fingerprint: what makes a run the same run; a checkpoint with another one is refused.
        seed: of all that is drawn.
        checkpoint_minutes: between checkpoints; one is written at the end and on an interrupt too.
        log_every: steps between lines of the log.
        monitor: called every ``monitor_every`` steps and at the end; its numbers are logged.
        monitor_every: 0 is only at the end.
        finished: asked after each call of ``monitor``; True ends the run there (early stopping).
        loaders: threads that prepare batches, each one batch ahead.
        progress: called after each step with steps done, all steps, and seconds of audio heard.

    Raises:
        TrainingError: a loss is not finite (the files of the batch are named), or ``folder`` holds
            a run with another fingerprint.
        KeyboardInterrupt: the run was asked to stop; its checkpoint is written.
    """
    fabric = fabric if fabric is not None else _one_cpu_process()
    rank, world = fabric.global_rank, fabric.world_size
    path = None if folder is None else folder / CHECKPOINT
    peaks = [group["lr"] for group in optimiser.param_groups]
    first, history = _resumed(path, objective, optimiser, fingerprint, fabric.device)
    if first > steps:
        raise TrainingError(f"{path}: the run has {first} steps already, {steps} are asked for")
    if first and finished is not None and finished():
        steps = first
    objective.to(fabric.device)
    module, optimiser = fabric.setup(_AsHanded(objective), optimiser)
    writer = Log(folder if rank == 0 else None, history, first)
    start = saved = time.perf_counter()
    waited = 0.0
    done, items = first, 0

    def save() -> None:
        if path is not None:
            _save(path, done, objective, optimiser, fingerprint, rank, fabric)

    def note(numbers: dict[str, Any]) -> None:
        writer.line({"step": done, **numbers})

    with (
        closing(writer),
        _own_random_numbers(),
        _stop_asked() as stop,
        ThreadPoolExecutor(loaders) as pool,
    ):
        ahead: deque[Future[Batch]] = deque()
        for number in range(first, steps):
            while len(ahead) < loaders + 1 and number + len(ahead) < steps:
                ahead.append(pool.submit(batches.batch, number + len(ahead), rank, world))
            before = time.perf_counter()
            batch = ahead.popleft().result()
            waited += time.perf_counter() - before
            generator = torch.Generator().manual_seed(step_seed(seed, number))
            torch.manual_seed(step_seed(seed, number, 1 + rank))
            step = Step(number, steps, generator, batch.size, batch.rows, _gather(fabric))
            factor = 1.0 if schedule is None else schedule(number)
            for group, peak in zip(optimiser.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
            module.train()
            given = _on(batch, fabric.device)
            loss, numbers = module(lambda given=given: given, step)
            _check_finite(loss, batch, number, fabric)
            optimiser.zero_grad(set_to_none=True)
            fabric.backward(loss)
            if before_update is not None:
                before_update()
            optimiser.step()
            objective.after_update(step)
            done = number + 1
            # Batches may differ in size; an earlier run's are taken to have been like this one's.
            items = (items or first * batch.size) + batch.size
            now = time.perf_counter()
            if done % log_every == 0 or done == steps:
                speed = (done - first) / (now - start)
                told = {"loss": loss.detach(), **numbers, "lr": peaks[0] * factor}
                told |= {"steps_per_s": speed, "waiting": waited / (now - start)}
                note({name: float(value) for name, value in told.items()})
            ended = done == steps
            if monitor is not None and (ended or (monitor_every and done % monitor_every == 0)):
                if rank == 0:
                    note(monitor())
                fabric.barrier()
                ended |= finished is not None and _any(finished(), fabric)
            if progress is not None:
                progress(done, steps, items * batches.seconds_per_item)
            # Asked of all processes together, so that they save the same step.
            asked = _any(stop.is_set(), fabric)
            if asked or _any(now - saved > 60 * checkpoint_minutes, fabric) or ended:
                save()
                saved = time.perf_counter()
            if asked:
                for future in ahead:
                    future.cancel()
                raise KeyboardInterrupt
            if ended:
                break
    seconds = time.perf_counter() - start
    return Trained(done, writer.lines, seconds, waited / max(seconds, 1e-9))


class _AsHanded(nn.Module):
    """Fabric would round what it sees of a batch to 16 bits; a waveform's quiet parts need 32."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, given: Callable[[], Batch], step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective's own."""
        return self.objective(given(), step)


def _one_cpu_process() -> Any:
    try:
        from lightning.fabric import Fabric
    except ImportError as error:
        raise OssicleError('training needs Lightning: pip install "ossicle[train]"') from error
    return Fabric(accelerator="cpu", devices=1)


def _gather(fabric: Any) -> Callable[[Tensor], Tensor]:
    """(b, ...) -> (size, ...) over all processes: rows are dealt out in blocks, by rank."""
    if fabric.world_size == 1:
        return lambda x: x
    return lambda x: fabric.all_gather(x, sync_grads=True).flatten(0, 1)


def _any(flag: bool, fabric: Any) -> bool:
    if fabric.world_size == 1:
        return flag
    raised = torch.tensor(float(flag), device=fabric.device)
    return bool(fabric.all_reduce(raised, reduce_op="sum") > 0)


def _on(batch: Batch, device: torch.device) -> Batch:
    moved: dict[str, Any] = {
        name: value.to(device, non_blocking=True)
        for name, value in batch._asdict().items()
        if isinstance(value, Tensor)
    }
    return batch._replace(**moved)


def _check_finite(loss: Tensor, batch: Batch, number: int, fabric: Any) -> None:
    broken = not math.isfinite(float(loss.detach()))
    if not _any(broken, fabric):
        return
    whose = ", ".join(dict.fromkeys(batch.names)) if broken else "another process's batch"
    raise TrainingError(
        f"the loss of step {number + 1} is {float(loss.detach())}: lower the learning rate, or "
        f"look at the files of the batch: {whose}"
    )


@contextmanager
def _own_random_numbers() -> Iterator[None]:
    """The caller's random numbers go on afterwards as if nothing had been drawn."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=list(devices)):
        yield


@contextmanager
def _stop_asked() -> Iterator[threading.Event]:
    """An event that Ctrl-C or a polite kill sets, so that a step is finished first.

    A second Ctrl-C interrupts at once. Only a program's main thread may catch signals.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    previous: dict[Any, Any] = {}

    def ask(number: int, frame: Any) -> None:
        event.set()
        signal.signal(number, previous[number])

    for kind in (signal.SIGINT, signal.SIGTERM):
        previous[kind] = signal.getsignal(kind)
        signal.signal(kind, ask)
    try:
        yield event
    finally:
        for kind, handler in previous.items():
            signal.signal(kind, handler)


def _save(
    path: Path,
    step: int,
    objective: Objective,
    optimiser: Any,
    fingerprint: str,
    rank: int,
    fabric: Any,
) -> None:
    if rank == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "step": step,
            "fingerprint": fingerprint,
            "objective": objective.state_dict(),
            "optimiser": optimiser.state_dict(),
        }
        with replaced(path) as part:
            torch.save(state, part)
    fabric.barrier()


def _resumed(
    path: Path | None,
    objective: Objective,
    optimiser: torch.optim.Optimizer,
    fingerprint: str,
    device: torch.device,
) -> tuple[int, list[dict[str, Any]]]:
    """Put a checkpoint's state in place; steps done before, and their lines of the log."""
    if path is None or not path.is_file():
        return 0, []
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        same = state["fingerprint"] == fingerprint
    except Exception as error:  # torch raises several kinds for a broken file
        raise TrainingError(f"{path}: is no checkpoint; delete it to start anew") from error
    if not same:
        raise TrainingError(
            f"{path.parent}: holds a run with other arguments or clips; choose another name, or "
            "delete the folder to start anew"
        )
    objective.load_state_dict(state["objective"])
    objective.to(device)
    optimiser.load_state_dict(state["optimiser"])
    lines = []
    with suppress(OSError):
        for text in (path.parent / LOG).read_text(encoding="utf-8").splitlines():
            with suppress(json.JSONDecodeError):  # a line that a crash cut short
                lines.append(json.loads(text))
    return int(state["step"]), [line for line in lines if line["step"] <= state["step"]]
