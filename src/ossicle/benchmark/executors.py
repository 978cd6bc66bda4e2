"""Where pieces of work run: in this process, on its cores by Ray, or on a Ray cluster.

Results come in the items' order, and are the same to the bit: each item is worked on by one thread,
wherever that is, and what is random in it is seeded by the item.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import logging
import os
import re
import socket
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, Protocol

import torch
from threadpoolctl import threadpool_limits

from ossicle import __version__
from ossicle.errors import OssicleError
from ossicle.features import one_thread

# Times that an item is begun anew after its worker died, before it is given up.
RETRIES = 3
# Items given out for each worker: one that it works on, one that waits.
AHEAD = 2
# Of the memory that results wait in, by worker.
STORE_BYTES = 2**28
_CONNECT_S = 5.0


class Executor(Protocol):
    """What runs a function on items."""

    @property
    def name(self) -> str:
        """ "here", "ray local" or "ray ADDRESS"."""

    @property
    def n_workers(self) -> int:
        """Cores in use."""

    @property
    def threads(self) -> int:
        """Threads that the work on one item may use inside ``ossicle.features.extract``."""

    def map(
        self, function: Callable[[Any], Any], items: Iterable[Any]
    ) -> Iterator[tuple[int, Any]]:
        """(number, result) of each item, in their order, as they come.

        Args:
            function: importable by name where the work is done.
            items: taken a few at a time.

        Raises:
            OssicleError: what the function raised on an item, or its worker died again and again.
        """


class Here:
    """This process: one item after another, threads inside an item.

    Args:
        workers: threads of an extraction.
    """

    name = "here"

    def __init__(self, workers: int = 1) -> None:
        self.n_workers = self.threads = _checked(workers)

    def map(
        self, function: Callable[[Any], Any], items: Iterable[Any]
    ) -> Iterator[tuple[int, Any]]:
        """See ``Executor.map``."""
        for number, item in enumerate(items):
            # A sum over several threads has other last bits.
            with one_thread(), threadpool_limits(1):
                result = function(item)
            yield number, result


class Ray:
    """Ray's workers, each with one core.

    Made by ``open_executor``; a running Ray is needed.

    Args:
        name: of the executor.
        n_workers: cores.
        retries: times that an item is begun anew after its worker died.
    """

    threads = 1

    def __init__(self, name: str, n_workers: int, retries: int = RETRIES) -> None:
        self.name, self.n_workers, self.retries = name, n_workers, retries
        self._ray = importlib.import_module("ray")
        self._task = self._ray.remote(num_cpus=1, max_retries=retries)(_work)

    def map(
        self, function: Callable[[Any], Any], items: Iterable[Any]
    ) -> Iterator[tuple[int, Any]]:
        """See ``Executor.map``."""
        sent = self._ray.put(function)  # once, not with every item
        rest = iter(items)
        # What is given out and no longer wanted runs to its end: Ray's `cancel` can bring down the
        # process that calls it where the task ends at that moment.
        waiting = deque(self._given(sent, islice(rest, AHEAD * self.n_workers)))
        number = 0
        while waiting:
            result = self._result(waiting.popleft(), number)
            waiting.extend(self._given(sent, islice(rest, 1)))
            yield number, result
            number += 1

    def _given(self, sent: Any, items: Iterable[Any]) -> list[Any]:
        return [self._task.remote(sent, item, __version__) for item in items]

    def _result(self, reference: Any, number: int) -> Any:
        errors = importlib.import_module("ray.exceptions")
        try:
            fine, result = self._ray.get(reference)
        except errors.RayTaskError as error:
            lacking = re.search(r"No module named '(\S+)'", str(error))
            if lacking is None:
                raise
            raise OssicleError(
                f"{self.name}: a worker has no module {lacking[1]}: install the same packages on "
                "every machine"
            ) from error
        except (errors.WorkerCrashedError, errors.OutOfMemoryError, errors.NodeDiedError) as error:
            raise OssicleError(
                f"{self.name}: the worker of item {number} died {self.retries + 1} times, as for "
                "want of memory: run fewer workers, or smaller pieces"
            ) from error
        if not fine:
            raise result
        # What Ray hands out is read-only, and holds on to memory that results wait in.
        return copy.deepcopy(result)


@contextmanager
def open_executor(ray: str | None = None, workers: int = 1) -> Iterator[Executor]:
    """What runs pieces, until the block is left.

    Args:
        ray: None: this process; "local": a Ray that is started on this machine, and ended; else the
            address of a running one, such as "10.0.0.1:6379". A Ray that this process has started
            itself is used, and left as it is.
        workers: threads, or processes of a local Ray; a cluster has as many as it has cores.

    Raises:
        OssicleError: Ray is not installed, or there is none at the address.
    """
    _checked(workers)
    if ray is None:
        yield Here(workers)
        return
    if importlib.util.find_spec("ray") is None:
        raise OssicleError('--ray needs Ray: pip install "ossicle[scale]"')
    # It would tell its makers of each start.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    module: Any = importlib.import_module("ray")
    name = "ray local" if ray == "local" else f"ray {ray}"
    if ray != "local":
        _reach(ray)
    if module.is_initialized():
        yield Ray(name, _cores(module))
        return
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False, "include_dashboard": False}
    try:
        if ray == "local":
            _start(module, workers, quiet)
        else:
            _connect(module, ray, quiet)
        yield Ray(name, _cores(module))
    finally:
        module.shutdown()


def _start(module: Any, workers: int, quiet: dict[str, Any]) -> None:
    # Workers see the modules that this process sees.
    path = os.pathsep.join(entry for entry in sys.path if entry)
    with warnings.catch_warnings():
        # Lance warns of forks; Ray's lead to other programs at once.
        warnings.filterwarnings("ignore", message="lance is not fork-safe")
        module.init(
            address="local",
            num_cpus=workers,
            object_store_memory=max(2, workers) * STORE_BYTES,
            runtime_env={"env_vars": {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}},
            **quiet,
        )


def _reach(address: str) -> None:
    """Ray itself would try for a minute, and then end the process."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    if address == "auto":
        return
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
    except (OSError, ValueError) as error:
        raise OssicleError(
            f"no Ray at {address} ({error}): pass HOST:PORT of `ray start --head`, or local"
        ) from error


def _connect(module: Any, address: str, quiet: dict[str, Any]) -> None:
    # Ray's client, ray://, takes fewer options.
    options = {"log_to_driver": False} if "://" in address else quiet
    environment = {"env_vars": {"OMP_NUM_THREADS": "1"}}
    try:
        module.init(address=address, runtime_env=environment, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        first = str(error).strip().partition("\n")[0]
        raise OssicleError(
            f"no Ray can be used at {address}: {first}; it takes the same version of Ray here, and "
            "its token where it has one (RAY_AUTH_MODE, RAY_AUTH_TOKEN)"
        ) from error


def _cores(module: Any) -> int:
    return max(1, int(module.cluster_resources().get("CPU", 1)))


def _work(function: Callable[[Any], Any], item: Any, version: str) -> tuple[bool, Any]:
    """(True, result) or (False, the user's mistake), in a worker."""
    if version != __version__:
        told = f"a Ray worker has ossicle {__version__}, this process {version}: install the same"
        return False, OssicleError(told)
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            return True, function(item)
    except OssicleError as error:
        # As a value: Ray would wrap it in its own traceback.
        return False, error


def _checked(workers: int) -> int:
    if workers < 1:
        raise OssicleError(f"workers must be at least 1, got {workers}")
    return workers
