"""Running batches side by side: on processors, whole batches scale better than the operations inside them."""

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
"""Pixels of the inputs that run together on a processor: their activations fit its cache, which is fastest."""
TRIM_EVERY = 1.0
"""Seconds after which free memory is given back to the system again."""
MOST_WORKERS = 8
"""More workers would wait for each other in the interpreter, and each holds the activations of a batch."""


def run_side_by_side(networks: Sequence[nn.Module], jobs: Iterable[Callable[[nn.Module], Result]]) -> Iterator[Result]:
    """Run jobs, each on whichever of equal networks is idle, and yield their results in the jobs' order.

    >>> jobs = [lambda network, value=value: float(network(torch.tensor([value]))) for value in (1.0, 2.0, 3.0)]
    >>> list(run_side_by_side([nn.Identity(), nn.Identity()], jobs))
    [1.0, 2.0, 3.0]

    There is a worker for each network, and the cores are divided among the workers. On one network, the jobs run one
    after the other. While the caller has a result, torch has the number of threads that the caller set.
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
            except BaseException as error:  # an interrupt while data is read: jobs that already run are finished
                failure = error
                break
            running.append(pool.submit(run, job))
            if time.monotonic() - trimmed > TRIM_EVERY:
                _trim_heaps()
                trimmed = time.monotonic()
            if len(running) > 2 * workers:  # jobs differ in length: enough of them are queued for no worker to wait
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
        if failure is not None:
            raise failure
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(threads)  # a thread that starts later gets the number that was set last in any thread


def _use_threads(count: int) -> None:
    """Let torch use a number of threads in the calling thread, which is new."""
    # The first operation of a thread takes the number that was set last in any thread. Without it, the number set here
    # would be replaced by the main thread's, and results would depend on which of them comes first.
    torch.get_num_threads()
    torch.set_num_threads(count)


def threads_each(workers: int) -> int:
    """Return how many threads each of some workers has: its share of the cores."""
    return max(1, torch.get_num_threads() // workers)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use a number of threads in the calling thread, and as many as before at the end.

    Operations that spread over cores on which workers are busy wait long for the last of them.
    """
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)


def images_at_once(pixels: int) -> int:
    """Return how many images of so many pixels go through a network together.

    >>> images_at_once(224 * 224), images_at_once(4000 * 3000)
    (8, 1)
    """
    return max(1, PIXELS_AT_ONCE // pixels)


def most_workers() -> int:
    """Return how many jobs run at once on a processor."""
    return min(torch.get_num_threads(), MOST_WORKERS)


def _trim_heaps() -> None:
    """Give free memory back to the system, where the GNU C library allocates.

    It gives each thread a heap of its own. Batches that come and go in several heaps leave ever more holes in them:
    the more images, the more memory.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def copies_of(module: nn.Module, count: int) -> list[nn.Module]:
    """Return copies of a module that share its parameters and buffers; none where it cannot be copied.

    >>> network = nn.Linear(2, 2)
    >>> [one.weight is network.weight for one in copies_of(network, 2)]
    [True, True]
    """
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    try:
        return [copied(module, shared) for _ in range(count)] if count > 1 else []
    except InterpretError:  # it cannot be copied
        return []
