"""Batches side by side leave the user's process as it was."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from interpret.execution.parallel import run_side_by_side

NETWORKS = [nn.Identity(), nn.Identity()]


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def threads_in_a_new_thread() -> int:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


def threads_of_an_operation() -> int:
    torch.rand(2**16).exp()  # by then, the thread has its own number
    return torch.get_num_threads()


def jobs(read: list[int]) -> Iterator[Callable[[nn.Module], int]]:
    for _ in range(12):
        read.append(torch.get_num_threads())
        yield lambda _network: threads_of_an_operation()


@pytest.mark.usefixtures("four_threads")
def test_the_caller_has_its_threads_while_it_has_a_result_and_afterwards() -> None:
    read: list[int] = []
    results = run_side_by_side(NETWORKS, jobs(read))
    for found in results:
        assert found == 2  # a worker has its share of the cores
        assert torch.get_num_threads() == 4
    assert read == [2] * 12  # as has what reads the data
    assert torch.get_num_threads() == threads_in_a_new_thread() == 4


@pytest.mark.usefixtures("four_threads")
def test_the_caller_has_its_threads_where_it_stops_early_or_fails() -> None:
    results = run_side_by_side(NETWORKS, jobs([]))
    next(results)
    assert torch.get_num_threads() == 4
    results.close()  # type: ignore[attr-defined]
    assert torch.get_num_threads() == threads_in_a_new_thread() == 4
    with pytest.raises(ZeroDivisionError):
        for found in run_side_by_side(NETWORKS, jobs([])):
            _ = 1 / (found - 2)
    assert torch.get_num_threads() == 4


@pytest.mark.skipif(sys.platform != "linux", reason="asks the GNU C library how many heaps there are")
def test_threads_go_on_to_allocate_from_heaps_of_their_own() -> None:
    script = """
import ctypes, pathlib, sys, tempfile, threading
import torch
from torch import nn
from interpret.execution.parallel import run_side_by_side
libc = ctypes.CDLL(None)
if not hasattr(libc, "malloc_info"):
    sys.exit("no GNU C library")
libc.fopen.restype = libc.malloc.restype = ctypes.c_void_p
libc.malloc_info.argtypes, libc.fclose.argtypes = [ctypes.c_int, ctypes.c_void_p], [ctypes.c_void_p]

def heaps():
    file = tempfile.mktemp()
    stream = libc.fopen(file.encode(), b"w")
    libc.malloc_info(0, stream)
    libc.fclose(stream)
    return pathlib.Path(file).read_text().count("<heap ")

before = heaps()
list(run_side_by_side([nn.Identity(), nn.Identity()], [lambda network: 0] * 4))
waiting = threading.Barrier(3)

def allocate():
    libc.malloc(1000)
    waiting.wait()
    waiting.wait()

for _ in range(2):
    threading.Thread(target=allocate, daemon=True).start()
waiting.wait()
print(before, heaps())
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    if run.returncode and "no GNU C library" in run.stderr:
        pytest.skip("another C library")
    before, after = map(int, run.stdout.split())
    assert after >= before + 2
