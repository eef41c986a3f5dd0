"""Streaming histograms of values whose range is not known in advance."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BINS = 64
"""The number of bins of each histogram."""
MOST_STEPS = 4
"""After so many steps from just below the answer, 64 bins cover the range: each step halves their number."""


class DyadicHistogram:
    """Streaming histograms of values whose range is not known in advance, one per unit.

    >>> histogram = DyadicHistogram(1)
    >>> for batch in ([[10.0], [11.0]], [[300.0]]):
    ...     histogram.update(torch.tensor(batch))
    >>> counts, start, width = histogram.of(slice(0, 1))
    >>> counts[0].nonzero()[0], int(counts[0].sum()), start, width
    (array([ 0, 36]), 3, array([8.]), array([8.]))

    The width of a bin is a power of two, at least the float32 resolution of the largest value; bins begin at multiples
    of their width. When the values need more than 64 bins, neighbouring bins are merged in pairs, which is exact. The
    result therefore depends only on the values, not on their order or the batches.
    """

    STATE = ("counts", "exponent", "first", "low", "high")

    def __init__(self, units: int, device: torch.device | None = None) -> None:
        self.counts = torch.zeros(units, BINS, dtype=torch.int64, device=device)
        """[units, 64] number of values in each bin."""
        self.exponent = torch.full((units,), -60, dtype=torch.int64, device=device)
        """[units] base-2 logarithm of the bin width."""
        self.first = torch.zeros(units, dtype=torch.int64, device=device)
        """[units] start of bin 0, in bin widths."""
        self.low = torch.full((units,), torch.inf, dtype=torch.float64, device=device)
        """[units] the lowest value."""
        self.high = torch.full((units,), -torch.inf, dtype=torch.float64, device=device)
        """[units] the highest value."""
        self._waits = device is None
        """Whether the range is widened only when it has grown, which a GPU would have to be asked."""

    def update(self, values: Tensor, present: Tensor | None = None) -> None:
        """Count values [B, units]; with `present` [B, units], only some of them."""
        if present is None:
            low, high = (bound.double() for bound in torch.aminmax(values, dim=0))
        else:
            low = values.double().masked_fill(~present, torch.inf).amin(0)
            high = values.double().masked_fill(~present, -torch.inf).amax(0)
            values = values.masked_fill(~present, 0)
        if not self._waits:
            self._widen(slice(None), low, high)
        elif bool((grown := (low < self.low) | (high > self.high)).any()):
            self._widen(grown.nonzero()[:, 0], low, high)
        bins = (values.double() / _power(self.exponent)).floor_().long().sub_(self.first)
        if present is None:
            self.counts.scatter_add_(1, bins.t(), torch.ones_like(bins).t())
        else:
            self.counts.scatter_add_(1, bins.masked_fill(~present, 0).t(), present.long().t())

    def merge(self, other: DyadicHistogram) -> None:
        """Add the counts of other values."""
        grown = (other.low < self.low) | (other.high > self.high)
        if bool(grown.any()):
            self._widen(grown.nonzero()[:, 0], other.low, other.high)
        # these bins are at least as wide, as they cover at least the same values
        old = other.first[:, None] + torch.arange(BINS)
        moved = (old >> (self.exponent - other.exponent)[:, None]) - self.first[:, None]
        self.counts.scatter_add_(1, moved.clamp(0, BINS - 1), other.counts)

    @classmethod
    def of_state(cls, state: Mapping[str, Tensor]) -> DyadicHistogram:
        """Return the histograms of a `state_dict`."""
        new = cls(len(state["counts"]))
        new.load_state_dict(state)
        return new

    def _widen(self, units: Tensor | slice, low: Tensor, high: Tensor) -> None:
        """Widen the bins of some units, whose values may have a larger range now, so that 64 of them cover it."""
        low = torch.minimum(self.low, low)[units]
        high = torch.maximum(self.high, high)[units]
        # a narrower bin is below float32 resolution, and its index would not fit into an integer
        largest = torch.maximum(-low, high).clamp(min=torch.finfo(torch.float32).tiny)
        resolution = torch.frexp(largest).exponent.long() - 24
        exponent = torch.maximum(self.exponent[units], resolution)
        span = torch.floor(high / _power(exponent)) - torch.floor(low / _power(exponent))
        # a span of n bins shrinks to between n/2^s and n/2^s + 1: start just below the answer and step up to it
        exponent += (torch.log2(span.clamp(min=1) / BINS).floor().long() - 1).clamp(min=0)
        for _ in range(MOST_STEPS):
            width = _power(exponent)
            too_many = torch.floor(high / width) - torch.floor(low / width) >= BINS
            if self._waits and not bool(too_many.any()):
                break
            exponent += too_many
        first = torch.floor(low / _power(exponent)).long()
        old = self.first[units][:, None] + torch.arange(BINS, device=first.device)
        moved = (old >> (exponent - self.exponent[units])[:, None]) - first[:, None]
        counts = torch.zeros_like(moved)
        # only empty old bins may fall outside
        counts.scatter_add_(1, moved.clamp(0, BINS - 1), self.counts[units])
        self.counts[units], self.exponent[units], self.first[units] = counts, exponent, first
        self.low[units], self.high[units] = low, high

    def state_dict(self) -> dict[str, Tensor]:
        """Return copies of all tensors, for `load_state_dict`."""
        return {name: getattr(self, name).clone() for name in self.STATE}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load tensors from `state_dict`."""
        for name in self.STATE:
            setattr(self, name, state[name].clone())

    def of(self, columns: slice) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Return the counts [C, 64] of some units, the starts of their bins 0 [C] and the widths of their bins [C]."""
        width = _power(self.exponent[columns])
        return self.counts[columns].numpy().copy(), (self.first[columns] * width).numpy(), width.numpy()


def _power(exponent: Tensor) -> Tensor:
    """Return 2^exponent as float64, made of its bits: exact on every device, for exponents from −1022.

    >>> _power(torch.tensor([-60, 0, 3])) == torch.tensor([2.0**-60, 1.0, 8.0])
    tensor([True, True, True])
    """
    return ((exponent + 1023) << 52).view(torch.float64)
