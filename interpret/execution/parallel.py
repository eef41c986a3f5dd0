"""Run batches in parallel: on CPUs, parallel batches scale better than parallel operations within a batch."""

from __future__ import annotations

import ctypes
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TypeVar

import torch
from torch import nn

from interpret.network.weights import copied
from interpret.support.errors import InterpretError

Result = TypeVar("Result")

PIXELS_AT_ONCE = 8 * 224 * 224
"""Input pixels per batch on a CPU: fastest, since their activations fit its cache."""
TRIM_EVERY = 5.0
"""Seconds between two returns of free memory to the system. Returned each second, it is asked for again all the time,
which takes 5 % of projecting."""
MOST_WORKERS = 8
"""Largest number of workers. More would wait for Python's global lock, and each holds the activations of a batch."""


def run_side_by_side(networks: Sequence[nn.Module], jobs: Iterable[Callable[[nn.Module], Result]]) -> Iterator[Result]:
    """Run jobs, each on an idle one of several identical networks, and yield their results in the jobs' order.

    >>> jobs = [lambda network, value=value: float(network(torch.tensor([value]))) for value in (1.0, 2.0, 3.0)]
    >>> list(run_side_by_side([nn.Identity(), nn.Identity()], jobs))
    [1.0, 2.0, 3.0]

    There is one worker per network, and the cores are divided among the workers. On one network, the jobs run one after
    the other. Whenever a result is yielded, torch has the number of threads that the caller set.
    """
    workers = len(networks)
    if workers < 2:
        yield from (job(networks[0]) for job in jobs)
        return
    threads, share = torch.get_num_threads(), threads_each(workers)
    idle: SimpleQueue[nn.Module] = SimpleQueue()
    for one in networks:
        idle.put(one)

    def run(job: Callable[[nn.Module], Result]) -> Result:
        own = idle.get()
        try:
            return job(own)
        finally:
            idle.put(own)

    trimmed = time.monotonic()
    pool = ThreadPoolExecutor(workers, initializer=_use_threads, initargs=(share,))
    running: deque[Future[Result]] = deque()
    failure: BaseException | None = None
    coming = iter(jobs)
    try:
        while True:
            try:
                with torch_threads(share):
                    job = next(coming)
            except StopIteration:
                break
            except BaseException as error:  # an interrupt while data is read: first finish the jobs that run
                failure = error
                break
            running.append(pool.submit(run, job))
            if time.monotonic() - trimmed > TRIM_EVERY:
                _trim_heaps()
                trimmed = time.monotonic()
            if len(running) > 2 * workers:  # jobs differ in length: queue enough that no worker waits
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
        if failure is not None:
            raise failure
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(threads)  # new threads take the number that any thread set last


def _use_threads(count: int) -> None:
    """Set torch's number of threads in the calling thread, which is new."""
    # A thread's first torch call takes the number that any thread set last. Make that call now: later, it would replace
    # the number set here by the main thread's, and results would depend on timing.
    torch.get_num_threads()
    torch.set_num_threads(count)


def threads_each(workers: int) -> int:
    """Return the number of threads per worker: its share of the cores."""
    return max(1, torch.get_num_threads() // workers)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Set torch's number of threads in the calling thread, and restore it at the end.

    An operation on as many threads as there are cores waits for those cores on which workers are busy.
    """
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)


def images_at_once(pixels: int) -> int:
    """Return the number of images per batch on a CPU for a number of pixels per image.

    >>> images_at_once(224 * 224), images_at_once(4000 * 3000)
    (8, 1)
    """
    return max(1, PIXELS_AT_ONCE // pixels)


def most_workers() -> int:
    """Return the number of jobs that run at once on a CPU."""
    return min(torch.get_num_threads(), MOST_WORKERS)


def _trim_heaps() -> None:
    """Return free memory to the system, under the GNU C library.

    It has one heap per thread. Batches that are allocated and freed in several heaps fragment them, so that memory use
    would grow with the number of images.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def copies_of(module: nn.Module, count: int) -> list[nn.Module]:
    """Return copies of a module that share its parameters and buffers; an empty list if it cannot be copied.

    >>> network = nn.Linear(2, 2)
    >>> [one.weight is network.weight for one in copies_of(network, 2)]
    [True, True]
    """
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    try:
        return [copied(module, shared) for _ in range(count)] if count > 1 else []
    except InterpretError:  # it cannot be copied
        return []
