"""How many units' images a budget of multiply–adds pays for, layer by layer: a rule that knows no clock."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from interpret.analyses.projection.crop import Crop
from interpret.analyses.synthesis.compute import STEPS
from interpret.tracing.tracing import Trace

MOST_UNITS = 16
"""The largest number of units of a layer that a budget is spent on."""
BUDGET = 5e11
"""Multiply–adds that take less than a minute on a core, with the measures beside the images: see docs/gallery.md."""
PASSES = 2
"""A step runs the network forwards, and the signal back to the image."""
ELEMENT = 16
"""The multiply–adds that take as long as to write and read one number of a layer's output."""
STEP = 1e7
"""The multiply–adds that take as long as what a step costs beside the network."""


def units_within(budget: float, costs: Mapping[str, float], available: Mapping[str, int]) -> dict[str, int]:
    """Return how many units of each layer a budget pays for.

    >>> units_within(10, {"conv1": 1, "conv2": 4, "conv3": 4}, {"conv1": 2, "conv2": 9, "conv3": 9})
    {'conv1': 2, 'conv2': 1, 'conv3': 1}

    Each layer has an equal share. What is left goes to the layers with the fewest units, the first ones first.
    """
    chosen = {name: min(available[name], int(budget / len(costs) // cost)) for name, cost in costs.items()}
    budget -= sum(chosen[name] * cost for name, cost in costs.items())
    while open_layers := [name for name in costs if chosen[name] < available[name] and costs[name] <= budget]:
        name = min(open_layers, key=chosen.__getitem__)
        chosen[name] += 1
        budget -= costs[name]
    return chosen


def costs_of(traced: Trace, names: Sequence[str], image: tuple[int, ...]) -> dict[str, float]:
    """Return the multiply–adds of one neuron's image for each layer: of the part of an image (H, W) that it sees."""
    below = macs_below(traced)
    shares = {name: Crop.of(traced[name], image, rule="gradient").share for name in traced if name in names}
    return {name: STEPS * (PASSES * below[name] * share + STEP) for name, share in shares.items()}


def macs_below(traced: Trace) -> dict[str, float]:
    """Return the multiply–adds from the image to each layer, with those that reading and writing takes as long as."""
    found, below, own = {}, 0.0, _own_macs(traced)
    for name, layer in traced.items():
        below += own[name] + ELEMENT * math.prod(layer.output_shape) * layer.leaf
        found[name] = below
    return found


def _own_macs(traced: Trace) -> dict[str, int]:
    """Return the multiply–adds of each layer without those of the layers inside it."""
    own = {name: layer.macs for name, layer in traced.items()}
    for name, layer in traced.items():
        outer = name
        while "." in outer:
            outer = outer.rpartition(".")[0]
            if outer in own:
                own[outer] -= layer.macs
                break
    return own
