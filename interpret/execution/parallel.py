"""Running batches side by side: on processors, whole batches scale better than the operations inside them."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

import torch
from torch import nn

from interpret.network.weights import copied
from interpret.support.errors import InterpretError

Result = TypeVar("Result")

PIXELS_AT_ONCE = 8 * 224 * 224
"""How many pixels of input fit a processor's cache with what networks make of them, which is fastest."""
_M_ARENA_MAX = -8
"""The number of that option in <malloc.h>."""
TRIM_EVERY = 1.0
"""After how many seconds memory that is free goes back to the system."""
MOST_WORKERS = 8
"""More would wait for each other in the interpreter, and each holds a batch's activations."""


def run_side_by_side(networks: Sequence[nn.Module], jobs: Iterable[Callable[[nn.Module], Result]]) -> Iterator[Result]:
    """Run jobs, each on whichever of equal networks is idle, and yield their results in the jobs' order.

    >>> jobs = [lambda network, value=value: float(network(torch.tensor([value]))) for value in (1.0, 2.0, 3.0)]
    >>> list(run_side_by_side([nn.Identity(), nn.Identity()], jobs))
    [1.0, 2.0, 3.0]

    There is a worker for each network, and the cores are divided among the workers. On one network, the jobs run one
    after the other.
    """
    workers = len(networks)
    if workers < 2:
        yield from (job(networks[0]) for job in jobs)
        return
    threads = torch.get_num_threads()
    idle: SimpleQueue[nn.Module] = SimpleQueue()
    for one in networks:
        idle.put(one)

    def run(job: Callable[[nn.Module], Result]) -> Result:
        own = idle.get()
        try:
            return job(own)
        finally:
            idle.put(own)

    _share_one_heap()
    trimmed = time.monotonic()
    share = max(1, threads // workers)
    # This thread, too: operations that spread over busy cores wait long for the last of them.
    torch.set_num_threads(share)
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(share,))
    running: deque[Future[Result]] = deque()
    failure: BaseException | None = None
    coming = iter(jobs)
    try:
        while True:
            try:
                job = next(coming)
            except StopIteration:
                break
            except BaseException as error:  # an interrupt while data is read: what runs already is not lost
                failure = error
                break
            running.append(pool.submit(run, job))
            if time.monotonic() - trimmed > TRIM_EVERY:
                _call_allocator("malloc_trim", 0)
                trimmed = time.monotonic()
            if len(running) > 2 * workers:  # jobs differ in length: enough of them wait, so that no worker does
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
        if failure is not None:
            raise failure
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(threads)


def images_at_once(pixels: int) -> int:
    """Return how many images of so many pixels go through a network together.

    >>> images_at_once(224 * 224), images_at_once(4000 * 3000)
    (8, 1)
    """
    return max(1, PIXELS_AT_ONCE // pixels)


def most_workers() -> int:
    """Return how many jobs run at once on a processor."""
    return min(torch.get_num_threads(), MOST_WORKERS)


def _share_one_heap() -> None:
    """Let the threads allocate from one heap, unless the user has said how many there shall be.

    The GNU C library gives each thread a heap of its own, and batches that come and go in several of them leave ever
    more holes: the more images, the more memory. Those of the one heap are given back from time to time.
    """
    if "MALLOC_ARENA_MAX" not in os.environ:
        _call_allocator("mallopt", _M_ARENA_MAX, 1)


def _call_allocator(name: str, *arguments: int) -> None:
    """Call a function of the GNU C library's allocator, if that is what allocates."""
    function = getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
    if function is not None:
        function(*arguments)


def copies_of(module: nn.Module, count: int) -> list[nn.Module]:
    """Return copies of a module that share its parameters and buffers; none where it cannot be copied.

    >>> network = nn.Linear(2, 2)
    >>> [one.weight is network.weight for one in copies_of(network, 2)]
    [True, True]
    """
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    try:
        return [copied(module, shared) for _ in range(count)] if count > 1 else []
    except InterpretError:  # it refuses to be copied
        return []
