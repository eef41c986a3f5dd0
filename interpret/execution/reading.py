"""Which items of the data a rank reads, in which batches, and what it learns from reading them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interpret.execution.ranks import State, ranks
from interpret.execution.resume import pack, unpack
from interpret.images.batches import Batch, batch_edges, batches
from interpret.images.sources import Images
from interpret.support.errors import InterpretError, refuse_below_one
from interpret.support.progress import Progress, progress

Spans = NDArray[np.int64]
"""[n, 2] ranges of items, from the first to one past the last, disjoint and ascending."""
Found = TypeVar("Found")

NOTHING: Spans = np.zeros((0, 2), np.int64)


class Reading:
    """The items of some images that this rank reads, and what was learnt from those that it has read.

    >>> from torch import nn
    >>> from interpret.images.opening import open_images
    >>> images = open_images(torch.zeros(10, 1, 4, 4), nn.Conv2d(1, 1, 3))
    >>> reading = Reading(images, 4, done=np.array([[0, 4]]))
    >>> [batch.items.tolist() for batch in reading.batches()]
    [[4, 5, 6, 7], [8, 9]]
    >>> reading.reach(4)
    >>> reading.done
    array([[4, 8]])

    The batches are those of one process that reads everything: they begin at multiples of the batch size, in each part
    of joined data. So results do not depend on the number of ranks, nor on interrupts.

    Args:
        images: the images.
        batch_size: the number of items a batch.
        done: the items that need not be read again.
        within: the range of items to read; None: all.
        holding: read only the batches that hold some of these items; None: all.
    """

    def __init__(
        self,
        images: Images,
        batch_size: int,
        done: Spans = NOTHING,
        within: tuple[int, int] | None = None,
        holding: NDArray[np.int64] | None = None,
    ) -> None:
        refuse_below_one(batch_size=batch_size)
        self.images = images
        remaining = remaining_batches(len(images), batch_size, done, within, images.starts)
        if holding is not None:
            among = np.sort(holding)
            remaining = remaining[np.diff(np.searchsorted(among, remaining), axis=1)[:, 0] > 0]
        self.spans = remaining[ranks().share(len(remaining))]
        """[n, 2] this rank's batches."""
        self.done_before = _count(done)
        """The number of items that were done at the start."""
        self._batch_size = batch_size
        self._reached = 0

    def __len__(self) -> int:
        """Return the number of items that this rank reads."""
        return _count(self.spans)

    def progress(self, description: str, steps: int = 1) -> Progress:
        """Return the progress over this rank's items and those that were done at the start, in some steps each."""
        return progress(steps * (self.done_before + len(self)), description, "img", steps * self.done_before)

    def batches(self, workers: int = 0) -> Iterator[Batch]:
        """Read the items in batches; one without an item that decodes is left out."""
        return batches(self.images, workers=workers, spans=self.spans)

    def reach(self, item: int) -> None:
        """Note that all batches are done up to that of an item."""
        self._reached = int(np.searchsorted(self.spans[:, 0], item, "right"))

    def to_the_end(self, found: Iterable[Found]) -> Iterator[Found]:
        """Yield what is found in the batches, and note at the end that all batches are done."""
        yield from found
        self._reached = len(self.spans)

    @property
    def done(self) -> Spans:
        """The items that this rank has done."""
        return joined(self.spans[: self._reached])

    def state_dict(self) -> dict[str, Tensor]:
        """Return what is done, and what was learnt: labels that were not known before, and what does not decode."""
        labelled = self.done if self.images.labels_learnt else NOTHING
        return {
            "read/batch_sizes": torch.tensor([self._batch_size]),
            "read/done": torch.from_numpy(self.done),
            "read/labelled": torch.from_numpy(labelled),
            "read/labels": torch.from_numpy(_narrowed(_cut(self.images.labels, labelled))),
            "read/skipped": pack(_skipped(self.images)),
        }


def remaining_batches(
    count: int,
    batch_size: int,
    done: Spans = NOTHING,
    within: tuple[int, int] | None = None,
    starts: Sequence[int] = (0,),
) -> Spans:
    """Return the batches that remain, [n, 2], none of which reaches beyond a batch of one process.

    >>> remaining_batches(10, 4, done=np.array([[0, 2], [8, 9]])).tolist()
    [[2, 4], [4, 8], [9, 10]]
    """
    first, last = (0, count) if within is None else within
    cuts = np.unique(np.concatenate([batch_edges(count, batch_size, starts), np.ravel(done), [first, last]]))
    cuts = cuts[(cuts >= first) & (cuts <= last)].astype(np.int64)
    spans = np.stack([cuts[:-1], cuts[1:]], 1)
    # of the span before each batch, whether the batch is in it
    before = np.searchsorted(done[:, 0], spans[:, 0], "right") - 1
    inside = (before >= 0) & (spans[:, 0] < done[before, 1]) if len(done) else np.zeros(len(spans), bool)
    return spans[~inside]


def part_of(count: int, batch_size: int, part: tuple[int, int], starts: Sequence[int] = (0,)) -> tuple[int, int]:
    """Return the range of items of one of several parts, (number from 1, of how many), in whole batches.

    >>> part_of(10, 4, (1, 2)), part_of(10, 4, (2, 2))
    ((0, 4), (4, 10))

    Raises:
        InterpretError: no such part, or fewer batches than parts.
    """
    number, parts = part
    edges = batch_edges(count, batch_size, starts).tolist()
    total = len(edges) - 1
    if not 1 <= number <= parts:
        raise InterpretError(f"part must be from 1/{parts} to {parts}/{parts}, not {number}/{parts}")
    if parts > total:
        raise InterpretError(f"{count} items are {total} batches of {batch_size}, not enough for {parts} parts")
    return edges[total * (number - 1) // parts], edges[total * number // parts]


def joined(*spans: Spans) -> Spans:
    """Return spans in ascending order, those that touch as one.

    >>> joined(np.array([[4, 6]]), np.array([[0, 2], [2, 4], [8, 9]])).tolist()
    [[0, 6], [8, 9]]
    """
    together = np.concatenate([NOTHING, *spans])
    together = together[np.argsort(together[:, 0], kind="stable")]
    if not len(together):
        return together
    begins = np.append(True, together[1:, 0] > together[:-1, 1])
    ends = np.append(begins[1:], True)
    return np.stack([together[begins, 0], together[ends, 1]], 1)


def overlap(first: Spans, second: Spans) -> tuple[int, int] | None:
    """Return the first range of items that both spans hold; None if there is none.

    >>> overlap(np.array([[0, 4], [8, 9]]), np.array([[6, 9]])), overlap(np.array([[0, 4]]), np.array([[4, 9]]))
    ((8, 9), None)
    """
    together = np.concatenate([first, second])
    together = together[np.argsort(together[:, 0], kind="stable")]
    crossing = np.flatnonzero(together[1:, 0] < together[:-1, 1])
    if not len(crossing):
        return None
    (_, end), (begin, other_end) = together[crossing[0] : crossing[0] + 2].tolist()
    return begin, min(end, other_end)


def merge_read(first: State, second: State) -> dict[str, Tensor]:
    """Merge what two ranks have read; neither has read an item of the other's."""
    labels: dict[int, NDArray[Any]] = {}
    for state in (first, second):
        spans = state["read/labelled"].numpy()
        ends = np.cumsum(spans[:, 1] - spans[:, 0])
        pieces = np.split(state["read/labels"].numpy(), ends[:-1])
        labels |= dict(zip(spans[:, 0].tolist(), pieces, strict=False))  # no span is one empty piece
    skipped = _in_order(unpack(first["read/skipped"]) + unpack(second["read/skipped"]))
    done, labelled = (
        joined(*(state[name].numpy() for state in (first, second))) for name in ("read/done", "read/labelled")
    )
    in_order = [labels[begin] for begin in sorted(labels)]
    return {
        "read/batch_sizes": torch.cat([first["read/batch_sizes"], second["read/batch_sizes"]]).unique(),
        "read/done": torch.from_numpy(done),
        "read/labelled": torch.from_numpy(labelled),
        "read/labels": torch.from_numpy(np.concatenate([np.zeros(0, np.int8), *in_order])),
        "read/skipped": pack(skipped),
    }


def read_in_whole(state: State, first_item: int, name: Callable[[str], str]) -> dict[str, Tensor]:
    """Return what was read of a part of joined data, with the items and the names of sources in the whole."""
    skipped = [
        [item + first_item if item >= 0 else item, name(own), why] for item, own, why in unpack(state["read/skipped"])
    ]
    return {
        "read/batch_sizes": state["read/batch_sizes"],
        "read/done": state["read/done"] + first_item,
        "read/labelled": state["read/labelled"] + first_item,
        "read/labels": state["read/labels"],
        "read/skipped": pack(skipped),
    }


def learn(images: Images, state: State) -> None:
    """Take over what others have learnt from reading images."""
    if not state:
        return
    skipped = _in_order(_skipped(images) + unpack(state["read/skipped"]))
    images.skipped.clear()
    images.skipped.update({name: reason for _, name, reason in skipped})
    images.skipped_at.update({name: item for item, name, _ in skipped})
    begin = 0
    for first, last in state["read/labelled"].tolist():
        images.labels[first:last] = state["read/labels"][begin : begin + last - first].numpy()
        images.labels_learnt = True
        begin += last - first


Skipped = list[list[Any]]
"""[first item, name, reason] of each source that does not decode, in the order of the items."""


def _skipped(images: Images) -> Skipped:
    return _in_order([[images.skipped_at.get(name, -1), name, reason] for name, reason in images.skipped.items()])


def _in_order(skipped: Skipped) -> Skipped:
    first: dict[str, list[Any]] = {}
    for one in sorted(skipped, key=lambda one: one[0]):
        first.setdefault(one[1], one)
    return list(first.values())


def done_in(state: State) -> Spans:
    """Return the items that are done in a state."""
    return state["read/done"].numpy() if state else NOTHING


def _count(spans: Spans) -> int:
    return int((spans[:, 1] - spans[:, 0]).sum())


def _cut(values: NDArray[np.int64], spans: Spans) -> NDArray[np.int64]:
    """Return the values in some ranges, one after the other."""
    return np.concatenate([np.zeros(0, np.int64), *(values[first:last] for first, last in spans.tolist())])


def _narrowed(labels: NDArray[np.int64]) -> NDArray[Any]:
    """Return labels in the smallest integer type that holds them: there may be a billion.

    >>> _narrowed(np.array([-1, 127])).dtype, _narrowed(np.array([-1, 999])).dtype
    (dtype('int8'), dtype('int16'))
    """
    largest = int(labels.max(initial=0))
    kinds = (np.int8, np.int16, np.int32, np.int64)
    return labels.astype(next(kind for kind in kinds if largest <= np.iinfo(kind).max))
