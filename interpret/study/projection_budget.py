"""How many units of each layer a gallery projects by itself, where all would take hours: a rule that knows no clock."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from interpret.analyses.mining.result import MinedLayer
from interpret.analyses.projection.crop import Crop
from interpret.study.synthesis_budget import macs_below, units_within
from interpret.tracing.tracing import Trace

MOST = 1e14
"""Multiply–adds up to which all units are projected: at most an hour on two cores, which do 30e9 a second."""
BUDGET = 7.5e12
"""Multiply–adds that the others take, beside one unit of each layer: some five minutes on two cores."""
HIT = 3e6
"""The multiply–adds that take as long as what a hit costs beside the network."""


def liveliest_within(
    traced: Trace, mined: Mapping[str, MinedLayer], image: tuple[int, ...]
) -> dict[str, NDArray[np.int64]] | None:
    """Return as many of the liveliest units of each layer as `BUDGET` pays for, at least one; None: all, up to `MOST`.

    Args:
        traced: the network.
        mined: the layers.
        image: (H, W), or the length of each axis of another input.
    """
    costs = costs_of_units(traced, mined, image)
    counts = {name: len(layer.values) for name, layer in mined.items()}
    if sum(costs[name] * counts[name] for name in mined) <= MOST:
        return None
    counts = units_within(BUDGET, costs, counts)
    return {name: layer.most_active[: max(1, counts[name])] for name, layer in mined.items()}


def costs_of_units(traced: Trace, mined: Mapping[str, MinedLayer], image: tuple[int, ...]) -> dict[str, float]:
    """Return the multiply–adds of the signals of one unit's hits, layer by layer.

    A signal passes through the part of the layers below that lies in the neuron's window.
    """
    costs, below = {}, macs_below(traced)
    for name, layer in mined.items():
        crop = Crop.of(traced[name], image)
        share = min(crop.share, math.prod(crop.field) / math.prod(image))
        costs[name] = layer.values.shape[1] * (below[name] * share + HIT)
    return costs
