"""Hits and statistics on a GPU: batches are added there without waiting for it, and reach the host once a minute."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interpret.analyses.mining.batch_maxima import BatchMaxima, map_sizes, positions_of
from interpret.analyses.mining.histogram import DyadicHistogram
from interpret.analyses.mining.statistics import Statistics
from interpret.analyses.mining.top_k import UNFILLED, TopK
from interpret.execution.exact_sums import BITS, ExactSums
from interpret.execution.execution import send

LOWEST_KEY = torch.iinfo(torch.int64).min
NEVER = torch.iinfo(torch.int64).max
"""The item of the first value that is not finite, of units that have none."""
SUMS_SHARE = 8
"""Class sums may take one in this many bytes of the device."""
WAITING_SHARE = 16
"""Maxima that wait, and the work of adding them, may take one in this many bytes of the device."""
BYTES_EACH = 160
"""What a maximum takes while it is added, most of all to class sums: some twenty numbers of 8 bytes."""


def stays_on_device(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether maxima of this type are added up on their device, or else on the host.

    >>> stays_on_device(torch.device("cpu"), torch.float32)
    False
    """
    return device.type == "cuda" and dtype in (torch.float32, torch.bfloat16, torch.float16)


class OnDevice:
    """The hits and statistics of the batches since the last `collect`, on the device of their maxima.

    No operation here waits for the device: shapes depend on the number of units and images alone, so that the next
    batch can start. The result is that of `TopK` and `Statistics` for the same maxima, bit for bit.

    Args:
        shapes: the output shape of each layer.
        k: number of hits.
        sample: number of images in the sample.
        device: where.
        axes: the number of axes of the inputs.
    """

    def __init__(
        self, shapes: Mapping[str, torch.Size], k: int, sample: int, device: torch.device, axes: int = 2
    ) -> None:
        units = sum(shape[0] for shape in shapes.values())
        self.k, self.device = k, device
        self.values = torch.full((units, k), UNFILLED["values"], dtype=torch.float32, device=device)
        self.images = torch.full((units, k), UNFILLED["images"], dtype=torch.int64, device=device)
        self.sources = torch.full((units, k), UNFILLED["sources"], dtype=torch.int64, device=device)
        self.places = torch.zeros(units, k, dtype=torch.int64, device=device)
        self.histogram = DyadicHistogram(units, device)
        self.sample_maxima = torch.zeros(sample, units, dtype=torch.float32, device=device)
        self.sampled = torch.zeros(sample, dtype=torch.bool)
        self.sums = _SumsOnDevice(units, device)
        self.class_counts = torch.zeros(0, dtype=torch.int64)
        self.bad_items = torch.full((units,), NEVER, dtype=torch.int64, device=device)
        """[units] the first item whose maximum is not finite."""
        self.bad_values = torch.zeros(units, dtype=torch.float32, device=device)
        self._sizes = map_sizes(shapes, axes)

    def update(
        self, found: BatchMaxima, sources: NDArray[np.int64], sample_rows: Tensor, distinct: bool, classes: int
    ) -> None:
        """Add a batch; items ascend from batch to batch.

        Args:
            found: the maxima, on the device.
            sources: [B] the sources of the items.
            sample_rows: [B] the indices of the items in the sample, −1 if not in it.
            distinct: whether each source has one item in all of the data.
            classes: number of classes; labels from there on are not counted.
        """
        values, items = found.values.float(), send(found.items, self.device)
        self._note_not_finite(values, items)
        values = values.nan_to_num(0.0, 0.0, 0.0)  # the mining fails, once the host learns of it
        if distinct:
            self._add_hits(values, found.places, items, send(torch.from_numpy(sources), self.device))
        else:
            unique = np.unique(sources, return_inverse=True)
            groups, group_of = (send(torch.from_numpy(part), self.device) for part in unique)
            self._add_hits_of_sources(values, found.places, items, groups, group_of)
        self.histogram.update(values)
        chosen = sample_rows >= 0
        if bool(chosen.any()):
            rows = chosen.nonzero()[:, 0]
            self.sample_maxima.index_copy_(0, send(sample_rows[chosen], self.device), values[send(rows, self.device)])
            self.sampled[sample_rows[chosen]] = True
        known = (found.labels >= 0) & (found.labels < classes)
        if bool(known.any()):
            own = found.labels[known]
            counted = torch.bincount(own, minlength=max(classes, len(self.class_counts)))
            counted[: len(self.class_counts)] += self.class_counts
            self.class_counts = counted
            rows = known.nonzero()[:, 0]
            labelled = values if len(rows) == len(values) else values[send(rows, self.device)]
            self.sums.add(labelled, send(own, self.device), classes)

    def collect(self) -> tuple[TopK, Statistics]:
        """Return the hits and statistics on the host. This waits for the device."""
        units = len(self.values)
        top = TopK(units, self.k, self._sizes.shape[1])
        positions = positions_of(self.places.cpu(), self._sizes[:, None])
        hits = {"values": self.values.double().cpu(), "images": self.images.cpu(), "sources": self.sources.cpu()}
        no_boxes = torch.from_numpy(top.boxes)  # hits with boxes are collected on the host
        top.load_state_dict(hits | {"positions": positions, "boxes": no_boxes})
        statistics = Statistics(units, len(self.sampled))
        statistics.histogram.load_state_dict({name: value.cpu() for name, value in self.histogram.state_dict().items()})
        statistics.sample_maxima, statistics.sampled = self.sample_maxima.cpu(), self.sampled
        statistics.class_sums, statistics.class_counts = self.sums.collect(), self.class_counts
        return top, statistics

    def not_finite(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return each unit's first item whose maximum is not finite, or `NEVER`, and that maximum.

        This waits for the device.
        """
        return self.bad_items.cpu().numpy(), self.bad_values.cpu().numpy()

    def _note_not_finite(self, values: Tensor, items: Tensor) -> None:
        bad = torch.where(torch.isfinite(values), NEVER, items[:, None])
        first, row = bad.min(0)
        earlier = first < self.bad_items
        self.bad_items = torch.where(earlier, first, self.bad_items)
        self.bad_values = torch.where(earlier, values.gather(0, row[None])[0], self.bad_values)

    def _add_hits(self, values: Tensor, places: Tensor, items: Tensor, sources: Tensor) -> None:
        """Add hits of sources that have no other item."""
        k = self.k
        keys = torch.cat([_keys(self.values, 0), _keys(values.t(), k)], 1)
        best = keys.topk(k, 1).indices
        row = (best - k).clamp(min=0)
        new, old = best >= k, best.clamp(max=k - 1)
        self.values = torch.where(new, values.t().gather(1, row), self.values.gather(1, old))
        self.places = torch.where(new, places.t().gather(1, row), self.places.gather(1, old))
        self.images = torch.where(new, items[row], self.images.gather(1, old))
        self.sources = torch.where(new, sources[row], self.sources.gather(1, old))

    def _add_hits_of_sources(
        self, values: Tensor, places: Tensor, items: Tensor, groups: Tensor, group_of: Tensor
    ) -> None:
        """Add hits, of which each unit keeps the strongest of each source; `group_of` [B] indexes `groups` [S]."""
        k, units = self.k, len(self.values)
        keys = _keys(values.t(), k).contiguous()
        strongest = torch.full((units, len(groups)), LOWEST_KEY, dtype=torch.int64, device=self.device)
        strongest.scatter_reduce_(1, group_of.expand(units, -1), keys, "amax")
        best = strongest.topk(min(k, len(groups)), 1)
        row = _order_of(best.values) - k
        new = {
            "values": values.t().gather(1, row),
            "places": places.t().gather(1, row),
            "images": items[row],
            "sources": groups[best.indices],
        }
        # of a source that has a hit already, only the stronger of the two stays
        old_keys, new_keys = _keys(self.values, 0), best.values
        same = self.sources[:, :, None] == new["sources"][:, None, :]
        old_wins = old_keys[:, :, None] > new_keys[:, None, :]
        old_keys = old_keys.masked_fill((same & ~old_wins).any(2), LOWEST_KEY)
        new_keys = new_keys.masked_fill((same & old_wins).any(1), LOWEST_KEY)
        order = torch.cat([old_keys, new_keys], 1).topk(k, 1).indices
        for name, value in new.items():
            setattr(self, name, torch.cat([getattr(self, name), value], 1).gather(1, order))


def _keys(values: Tensor, first: int) -> Tensor:
    """Return whole numbers that sort like values [C, n], of equal ones the leftmost highest; all of them differ.

    The upper 32 bits are the value's, the lower ones count down from `first`.
    """
    bits = (values + 0.0).contiguous().view(torch.int32).long()  # −0 + 0 is 0
    ascending = torch.where(bits >= 0, bits, bits ^ 0x7FFFFFFF)
    order = torch.arange(first, first + values.shape[1], device=values.device)
    return ascending * 2**32 + (2**32 - 1 - order)


def _order_of(keys: Tensor) -> Tensor:
    """Return the place in the order that is in keys."""
    return 2**32 - 1 - (keys & (2**32 - 1))


class _SumsOnDevice:
    """Sums of float32 values for each class and unit without rounding, as `ExactSums` has them.

    A value is a whole number of 24 bits times a power of two, and so lies in two neighbouring digits of a sum.
    """

    DIGIT = 48
    """Bits of a digit: an int64 holds the sum of 2¹⁵ of them."""
    LOWEST = -5
    """The place of the lowest digit among those of `ExactSums`: 2^(−160) is below the smallest float32."""
    PLACES = 7
    """The highest digit reaches beyond the largest float32."""

    def __init__(self, units: int, device: torch.device) -> None:
        self.digits = torch.zeros(self.PLACES, 0, units, dtype=torch.int64, device=device)
        """[7, classes, units]"""
        self._room = 2**14
        """The number of images that can be added before digits overflow."""

    def add(self, values: Tensor, labels: Tensor, classes: int) -> None:
        """Add values [B, units] to the sums of their labels [B], which are below `classes`."""
        places, known, units = self.digits.shape
        if classes > known:
            new = self.digits.new_zeros(places, classes - known, units)
            self.digits = torch.cat([self.digits, new], 1)
        for some, own in zip(values.split(2**13), labels.split(2**13), strict=True):
            self._room -= len(some)
            if self._room < 0:
                self._carry()
                self._room = 2**14 - len(some)
            self._add(some, own)

    def _add(self, values: Tensor, labels: Tensor) -> None:
        mantissa, exponent = torch.frexp(values.double())
        whole = (mantissa * 2.0**24).long()
        above = exponent.long() - 24 - BITS * self.LOWEST
        whole >>= (-above).clamp_(min=0)  # of numbers so small that their last bits are zero
        above.clamp_(min=0)
        place, shift = above // self.DIGIT, above % self.DIGIT
        high = whole >> (self.DIGIT - shift)
        low = (whole - (high << (self.DIGIT - shift))) << shift
        _, classes, units = self.digits.shape
        index = (place * classes + labels[:, None]) * units + torch.arange(units, device=values.device)
        flat = self.digits.view(-1)
        flat.scatter_add_(0, index.flatten(), low.flatten())
        flat.scatter_add_(0, (index + classes * units).flatten(), high.flatten())

    def _carry(self) -> None:
        """Carry what exceeds a digit to the next one."""
        for place in range(self.PLACES - 1):
            carried = self.digits[place] >> self.DIGIT
            self.digits[place] -= carried << self.DIGIT
            self.digits[place + 1] += carried

    def collect(self) -> ExactSums:
        """Return the sums on the host. This waits for the device."""
        self._carry()
        used = [place for place, some in enumerate(self.digits.flatten(1).any(1).cpu().tolist()) if some]
        sums = ExactSums(*self.digits.shape[1:])
        for place in used:
            digit, offset = self.digits[place].cpu(), self.DIGIT * place
            whole, half = offset // BITS + self.LOWEST, offset % BITS
            part = ExactSums(*digit.shape)
            # digits of 48 bits start at every place of 32 bits, or in its middle
            lower = (digit & (2 ** (BITS - half) - 1)) << half
            part.digits, part.lowest = torch.stack([lower, digit >> (BITS - half)]), whole
            sums.merge(part)
        return sums


def takes_too_much(units: int, classes: int, device: torch.device) -> bool:
    """Return whether the class sums would take too much of a device's memory."""
    return 8 * _SumsOnDevice.PLACES * classes * units > _memory(device) // SUMS_SHARE


def images_that_wait(units: int, device: torch.device) -> int:
    """Return of how many images the maxima wait on a GPU until they are added.

    Most of the time of adding them does not depend on their number.
    """
    return _memory(device) // WAITING_SHARE // (BYTES_EACH * units)


def _memory(device: torch.device) -> int:
    """Return the bytes of a GPU's memory; of another device, more than anything takes."""
    return int(torch.cuda.get_device_properties(device).total_memory) if device.type == "cuda" else 2**62
