"""Some threads over a sequence, results in its order, a few items ahead."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    stopped: threading.Event | None = None,
) -> Iterator[Result]:
    """``function`` of each item, in order, each with one torch thread.

    Threads serve because resampling and tensors run outside Python's lock; one torch thread each,
    because sums of several threads depend on how many there are.

    Args:
        function: pure.
        items: taken one by one as threads become free, in the calling thread.
        workers: threads.
        stopped: set once no more results are wanted, so that what is in work can end early.
    """

    def alone(item: Item) -> Result:
        # The number of threads is a property of each thread in some OpenMP builds.
        if torch.get_num_threads() != 1:
            torch.set_num_threads(1)
        return function(item)

    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[Result]] = deque()
    source = iter(items)
    try:
        for item in islice(source, workers + 1):
            waiting.append(pool.submit(alone, item))
        while waiting:
            result = waiting.popleft().result()
            for item in islice(source, 1):
                waiting.append(pool.submit(alone, item))
            yield result
    finally:
        if stopped is not None:
            stopped.set()
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(before)
