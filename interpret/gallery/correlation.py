"""Which units correlate with each other on the sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAST = 0.3
"""The smallest correlation that is shown: smaller ones occur by chance among many units."""
ROWS_AT_ONCE = 256
GROUP = 64


@dataclass(frozen=True)
class Correlates:
    """For each of a layer's C units, the n units with the largest correlations; layer −1 where there are fewer."""

    layers: NDArray[np.int64]
    """[C, n] index among the given layers."""
    units: NDArray[np.int64]
    values: NDArray[np.float32]
    """[C, n] Pearson's correlation of the units' largest values on the images of the sample."""


def correlate(
    maxima: Mapping[str, NDArray[np.float32]], n: int = 4, step: Callable[[int], Any] = lambda _: None
) -> tuple[dict[str, Correlates], dict[str, Correlates]]:
    """Return the units that correlate most with each unit: in its own layer, and in all other layers.

    >>> rise, fall = np.array([0.0, 1, 2, 3]), np.array([3.0, 2, 1, 0])
    >>> within, across = correlate({"a": np.stack([rise, rise * 2, fall], 1), "b": np.stack([fall], 1)}, n=1)
    >>> within["a"].units[:, 0], within["a"].layers[2, 0]
    (array([ 1,  0, -1]), np.int64(-1))
    >>> across["a"].layers[:, 0], across["a"].units[2, 0]
    (array([-1, -1,  1]), np.int64(0))

    Args:
        maxima: the units' largest values [images, C] on the same images, layer by layer.
        n: how many units to return for each unit.
        step: called with the number of units done since the last call.
    """
    names = list(maxima)
    ends = np.cumsum([maxima[name].shape[1] for name in names])
    starts = ends - [maxima[name].shape[1] for name in names]
    layer_of = np.repeat(np.arange(len(names)), ends - starts)
    every = np.concatenate([_standardised(maxima[name]) for name in names])
    padded = np.zeros((-(-len(every) // GROUP) * GROUP, every.shape[1]), np.float32)
    padded[: len(every)] = every
    within, across = {}, {}
    for j, name in enumerate(names):
        own = slice(int(starts[j]), int(ends[j]))
        inside, outside = [], []
        for start in range(own.start, own.stop, ROWS_AT_ONCE):
            rows = np.arange(start, min(start + ROWS_AT_ONCE, own.stop))
            scores = every[rows] @ padded.T
            scores[:, len(every) :] = -2
            scores[np.arange(len(rows)), rows] = -2
            inside.append(_best(scores[:, own], n))
            scores[:, own] = -2
            outside.append(_best(scores, n))
            step(len(rows))
        within[name] = _correlates(inside, own.start, layer_of, starts)
        across[name] = _correlates(outside, 0, layer_of, starts)
    return within, across


def _standardised(maxima: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return [C, images] with mean 0 and norm 1, so that a product of two is their correlation; 0 where constant."""
    centred = maxima.T.astype(np.float64)
    centred -= centred.mean(1, keepdims=True)
    norm = np.sqrt(np.square(centred).sum(1, keepdims=True))
    return np.divide(centred, norm, out=np.zeros_like(centred), where=norm > 1e-12).astype(np.float32)


def _best(scores: NDArray[np.float32], n: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the columns and values of each row's n largest, the lowest column first where they tie."""
    columns = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    if scores.shape[1] % GROUP == 0 and scores.shape[1] > 4 * n * GROUP:
        # the n largest lie in the n groups with the largest maxima: sorting those is faster than sorting all
        groups = scores.reshape(len(scores), -1, GROUP)
        chosen = np.sort(np.argpartition(-groups.max(2), n - 1, axis=1)[:, :n], axis=1)
        columns = (chosen[:, :, None] * GROUP + np.arange(GROUP)).reshape(len(scores), -1)
        scores = np.take_along_axis(scores, columns, 1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :n]
    return np.take_along_axis(columns, order, 1), np.take_along_axis(scores, order, 1)


def _correlates(
    found: list[tuple[NDArray[np.int64], NDArray[np.float32]]],
    offset: int,
    layer_of: NDArray[np.int64],
    starts: NDArray[np.int64],
) -> Correlates:
    columns = np.concatenate([part for part, _ in found]) + offset
    values = np.concatenate([part for _, part in found])
    enough = values >= LEAST
    columns = np.where(enough, columns, 0)
    layers = layer_of[columns]
    return Correlates(np.where(enough, layers, -1), np.where(enough, columns - starts[layers], -1), values)
