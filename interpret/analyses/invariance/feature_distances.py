"""Distances between features, and between features and shifted ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor

NUMBERS_AT_ONCE = 2**20
"""Number of activations to compare at once, so that their differences stay in the CPU's cache."""
NO_REDUCTION = 0
"""The code of the reduction "none" in torch's losses."""

Shift = tuple[float, float]


class DifferenceBuffer:
    """A buffer for differences, allocated once, since allocating it each time takes as long as the subtraction."""

    def __init__(self) -> None:
        self._memory = torch.empty(0)

    def squared_distances(self, far: Tensor, near: Tensor) -> Tensor:
        """Return squared distances [n, v, C] of far [n, v, C, …] to near [n, 1, C, …], summed over positions."""
        if far.dim() == 3:
            far, near = far[..., None], near[..., None]
        # units last, as in channels-last memory, so that sums over positions add whole rows
        far, near = far.movedim(2, -1), near.movedim(2, -1)
        return self._summed(far, near.expand_as(far))

    def _summed(self, far: Tensor, near: Tensor) -> Tensor:
        """Return the sums over … of (far − near)², both [n, v, …, C]; split large ones in halves."""
        splits = [axis for axis in (0, 1, 2) if far.shape[axis] > 1]
        if far.numel() <= NUMBERS_AT_ONCE or not splits:
            return self._squared_difference(far, near).sum(tuple(range(2, far.dim() - 1))).double()
        axis = splits[0]
        halves = zip(far.tensor_split(2, axis), near.tensor_split(2, axis), strict=True)
        first, second = (self._summed(*both) for both in halves)
        return torch.cat([first, second], axis) if axis < 2 else first + second

    def _squared_difference(self, left: Tensor, right: Tensor) -> Tensor:
        """Return (left − right)² in the memory layout of `left`; the next call overwrites it."""
        count = left.numel()
        if self._memory.numel() < count or self._memory.dtype != left.dtype:
            self._memory = left.new_empty(count)
        n, v, *positions, units = left.shape
        if left.stride(-1) > left.stride(-2):  # channels first
            memory = self._memory[:count].view(n, v, units, *positions).movedim(2, -1)
        else:
            memory = self._memory[:count].view(left.shape)
        # the difference and its square in one pass over both
        squared: Tensor = torch.ops.aten.mse_loss.out(left, right, NO_REDUCTION, out=memory)
        return squared


class ShiftedFeatures:
    """Shifts the features of untransformed images [n, C, h, w], and caches interpolated maps."""

    def __init__(self, maps: Tensor) -> None:
        self.maps = maps
        self._between = InterpolatedMaps((0.0, 0.0), maps)

    def squares(self, output: Tensor, shift: Shift, buffer: DifferenceBuffer) -> Tensor:
        """Return [2, n, 1, C]: squared distances of the output to the shifted maps, and the squared norms of these.

        Args:
            output: [n, 1, C, h, w]
            shift: number of positions to shift the maps down and to the right.
            buffer: memory for the differences.
        """
        known, norms, (rows, columns) = self.shifted(shift)
        if known.numel() == 0:
            return output.new_full((2, *output.shape[:3]), math.nan, dtype=torch.float64)
        far = buffer.squared_distances(output[..., rows, columns], known[:, None])
        return torch.stack([far, norms[:, None]])

    def shifted(self, shift: Shift) -> tuple[Tensor, Tensor, tuple[slice, slice]]:
        """Return the known part of the shifted maps, its squared norms [n, C], and its rows and columns.

        >>> features = ShiftedFeatures(torch.tensor([[[[1.0, 2.0, 4.0]]]]))
        >>> features.shifted((0, 1))
        (tensor([[[[1., 2.]]]]), tensor([[5.]], dtype=torch.float64), (slice(0, 1, None), slice(1, 3, None)))
        >>> features.shifted((0, -0.5))[0]
        tensor([[[[1.5000, 3.0000]]]])
        """
        whole = math.floor(shift[0]), math.floor(shift[1])
        part = shift[0] - whole[0], shift[1] - whole[1]
        if self._between.part != part:
            self._between = InterpolatedMaps(part, self.maps)
        there, known = [], []
        for axis, steps in zip((2, 3), whole, strict=True):
            length, count = self.maps.shape[axis], self._between.maps.shape[axis]
            first = steps + length - count  # interpolated values begin at the second position
            low = max(0, first)
            high = max(low, min(length, first + count))
            there.append(slice(low, high))
            known.append(slice(low - first, high - first))
        return *self._between.cut(known[0], known[1]), (there[0], there[1])


class InterpolatedMaps:
    """Maps [n, C, h, w] shifted down and to the right by less than one position, without unknown border values."""

    def __init__(self, part: Shift, maps: Tensor) -> None:
        self.part = part
        for axis, share in zip((2, 3), part, strict=True):
            if share > 0:
                # for example, a shift by half a position averages each value with the one before
                length = maps.shape[axis] - 1
                maps = torch.lerp(maps.narrow(axis, 1, length), maps.narrow(axis, 0, length), share)
        self.maps = maps
        squares = maps.square()
        self.row_norms, self.column_norms = squares.sum(3).double(), squares.sum(2).double()

    def cut(self, rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
        """Return some rows and columns, and their squared norms [n, C]."""
        maps = self.maps[:, :, rows, columns]
        if maps.shape[3] == self.maps.shape[3]:
            return maps, self.row_norms[:, :, rows].sum(2)
        if maps.shape[2] == self.maps.shape[2]:
            return maps, self.column_norms[:, :, columns].sum(2)
        return maps, maps.square().sum((2, 3)).double()
