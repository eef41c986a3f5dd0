"""Make torch compute the same bits every time, and restore its settings at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""The environment variable without which cuBLAS has no deterministic algorithms."""


@contextmanager
def seeded(seed: int, stage: int, device: torch.device) -> Iterator[None]:
    """Seed torch's random generators by a seed and a stage, and restore their states at the end.

    >>> with seeded(1998, 1, torch.device("cpu")):
    ...     first = torch.rand(3)
    >>> with seeded(1998, 1, torch.device("cpu")):
    ...     print(torch.equal(torch.rand(3), first))
    True
    """
    drawn = int(np.random.SeedSequence((seed, stage)).generate_state(1)[0])
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        # not torch.manual_seed, which seeds the generators of all devices for good
        torch.default_generator.manual_seed(drawn)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(drawn)
        elif device.type == "mps":
            torch.mps.manual_seed(drawn)
        yield


@contextmanager
def deterministic_algorithms() -> Iterator[None]:
    """Make torch use deterministic algorithms, and warn of operations that have none."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    is_set = CUBLAS_WORKSPACE in os.environ
    os.environ.setdefault(CUBLAS_WORKSPACE, ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        if not is_set:
            del os.environ[CUBLAS_WORKSPACE]
