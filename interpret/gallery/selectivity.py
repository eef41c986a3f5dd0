"""Class selectivity: how much a unit prefers one class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Selectivity:
    """For each of C units, its class selectivity, from 0 to 1, and its preferred class; −1 where it has none."""

    values: NDArray[np.float32]
    classes: NDArray[np.int64]


def measure_selectivity(class_means: NDArray[np.float32]) -> Selectivity:
    """Return the class selectivity of units, from the means [K, C] of their largest values over each class's images.

    >>> measure_selectivity(np.array([[3.0, 1.0, -1.0], [1.0, 1.0, -2.0]], np.float32))
    Selectivity(values=array([0.5, 0. , 0. ], dtype=float32), classes=array([ 0,  0, -1]))

    (m − r) / (m + r), with m the largest class's mean and r the mean of the others', both not below zero.

    Source: Morcos, Barrett, Rabinowitz & Botvinick, "On the importance of single directions for generalization", 2018,
    appendix A.3, which averages over positions where this takes the largest.
    """
    known = ~np.isnan(class_means).all(1)
    means = np.maximum(np.nan_to_num(class_means[known].astype(np.float64)), 0)
    units = class_means.shape[1]
    if len(means) < 2:
        return Selectivity(np.zeros(units, np.float32), np.full(units, -1))
    best = means.argmax(0)
    most = means[best, np.arange(units)]
    rest = (means.sum(0) - most) / (len(means) - 1)
    total = most + rest
    values = np.divide(most - rest, total, out=np.zeros(units), where=total > 0)
    return Selectivity(values.astype(np.float32), np.where(most > 0, np.flatnonzero(known)[best], -1))
