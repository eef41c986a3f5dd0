"""Samples of items, chosen by hash."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def sample_by_hash(count: int, size: int, seed: int = 0) -> NDArray[np.int64]:
    """Return the `size` items of 0 … count − 1 with the lowest hashes, sorted by hash.

    >>> sample_by_hash(5, 3, seed=0)
    array([2, 4, 1])

    The hash is splitmix64 (Steele et al. 2014) of the item and the seed. A larger sample extends a smaller one.
    """
    with np.errstate(over="ignore"):
        z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed % 2**64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    # no two items have one hash, so that a partition need not be stable
    lowest = np.argpartition(z, size - 1)[:size] if 0 < size < count else np.arange(count)[: max(size, 0)]
    return lowest[np.argsort(z[lowest])].astype(np.int64)
