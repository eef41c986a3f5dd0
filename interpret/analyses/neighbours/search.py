"""Exact nearest-neighbour search in features, in memory or memory-mapped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Metric = Literal["euclidean", "cosine"]

BLOCK_BYTES = 2**26
"""Number of bytes of features to compare at once."""
DISTANCES_AT_ONCE = 2**26
"""Number of distances to hold at once."""


def nearest(
    features: NDArray[Any],
    queries: NDArray[Any],
    k: int,
    metric: Metric = "euclidean",
    sources: NDArray[np.int64] | None = None,
    excluded: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the rows of the k nearest features of each query, and their distances, both [Q, k], nearest first.

    >>> nearest(np.array([[0.0, 0.0], [3.0, 4.0], [1.0, 0.0]]), np.array([[0.0, 0.0]]), k=2)
    (array([[0, 2]]), array([[0., 1.]]))

    A matrix product gives all distances up to rounding. For all rows that may be among the nearest given the rounding
    error, the distance is then computed from the differences. The result therefore equals that of a brute-force search.

    Args:
        features: [M, D], read in blocks, so that it may be a memory map.
        queries: [Q, D].
        k: number of rows per query, at most the number of sources.
        metric: "euclidean" or "cosine".
        sources: [M] the source of each row; a query gets at most one row per source. None: all rows have distinct
            sources.
        excluded: [Q] the source to exclude for each query; None: exclude none.
    """
    sources = np.arange(len(features)) if sources is None else sources
    at_once = max(1, DISTANCES_AT_ONCE // len(features))
    rows, distances = [], []
    for start in range(0, len(queries), at_once):
        some = queries[start : start + at_once].astype(np.float64)
        approximate, rounding = _approximate(features, some, metric)
        for number, (query, far) in enumerate(zip(some, approximate, strict=True)):
            if excluded is not None:
                far[sources == excluded[start + number]] = np.inf
            found = _best(features, query, far, rounding[number], k, metric, sources)
            rows.append(found[0])
            distances.append(found[1])
    return np.stack(rows), np.stack(distances)


def _approximate(
    features: NDArray[Any], queries: NDArray[np.float64], metric: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return squared Euclidean or cosine distances [Q, M], and a bound on their rounding error [Q]."""
    approximate = np.empty((len(queries), len(features)))
    if metric == "cosine":
        queries = _unit(queries)
    squares, largest = (queries**2).sum(1), 0.0
    for rows in blocks(features):
        block = features[rows].astype(np.float64)
        if metric == "cosine":
            approximate[:, rows] = 1 - queries @ _unit(block).T
        else:
            lengths = (block**2).sum(1)
            approximate[:, rows] = squares[:, None] + lengths - 2 * (queries @ block.T)
            largest = max(largest, float(lengths.max()))
    size = np.ones(len(queries)) if metric == "cosine" else squares + largest
    return approximate, 4 * (features.shape[1] + 4) * np.finfo(np.float64).eps * size


def _best(
    features: NDArray[Any],
    query: NDArray[np.float64],
    approximate: NDArray[np.float64],
    rounding: float,
    k: int,
    metric: str,
    sources: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the k nearest rows of distinct sources, and their distances."""
    order = np.argsort(approximate, kind="stable")
    firsts = np.sort(np.unique(sources[order], return_index=True)[1])
    limit = approximate[order[firsts[k - 1]]] + 2 * rounding
    rows = np.flatnonzero(approximate <= limit)
    exact = np.concatenate(
        [_distances(features[rows[part]].astype(np.float64), query, metric) for part in blocks(features, len(rows))]
    )
    order = np.lexsort((rows, exact))
    firsts = np.sort(np.unique(sources[rows[order]], return_index=True)[1])[:k]
    return rows[order[firsts]].astype(np.int64), exact[order[firsts]]


def _distances(features: NDArray[np.float64], query: NDArray[np.float64], metric: str) -> NDArray[np.float64]:
    """Return the distances of features [n, D] to a query [D], computed from their differences."""
    if metric == "euclidean":
        distances: NDArray[np.float64] = np.sqrt(((features - query) ** 2).sum(1))
        return distances
    # 1 − cos is half the squared distance of the unit vectors; this form is precise near 0
    far = ((_unit(features) - _unit(query[None])) ** 2).sum(1) / 2
    return np.where(features.any(1) & query.any(), far, 1.0)


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return vectors [n, D] scaled to length 1; zero vectors are unchanged."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def blocks(features: NDArray[Any], count: int | None = None) -> Iterator[slice]:
    """Yield slices of `count` rows (None: all), each small enough to convert to double precision at once."""
    size = max(1, BLOCK_BYTES // (8 * features.shape[1]))
    count = len(features) if count is None else count
    return (slice(start, min(start + size, count)) for start in range(0, count, size))
