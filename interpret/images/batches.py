"""Images in batches, read in the main process or ahead of time by worker processes."""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from interpret.images.sources import Images
from interpret.images.storage import UnreadableImage
from interpret.support.errors import InterpretError, refuse_below_one
from interpret.support.interrupts import interrupts_delayed, interrupts_ignored

logger = logging.getLogger(__name__)


class Batch(NamedTuple):
    """A batch: images [B, C, H, W], their items and their labels (both int64 [B])."""

    images: Tensor
    items: Tensor
    labels: Tensor


def first_images(images: Images) -> Tensor:
    """Return the first image or two that decode, [B, C, H, W].

    >>> from torch import nn
    >>> from interpret.images.opening import open_images
    >>> first_images(open_images(torch.zeros(5, 1, 4, 3), nn.Conv2d(1, 1, 3))).shape
    torch.Size([2, 1, 4, 3])
    """
    return next(batches(images, 2)).images


def batches(
    images: Images, batch_size: int = 32, workers: int = 0, *, spans: NDArray[np.int64] | None = None
) -> Iterator[Batch]:
    """Read all items in batches, in order; or with `spans` [n, 2], batches of the items from one number to another.

    >>> from torch import nn
    >>> from interpret.images.opening import open_images
    >>> images = open_images(torch.zeros(5, 1, 4, 4), nn.Conv2d(1, 1, 3))
    >>> [batch.items.tolist() for batch in batches(images, batch_size=2)]
    [[0, 1], [2, 3], [4]]

    Items that do not decode are left out and recorded in `images.skipped`, so a batch may be smaller. Workers are
    processes that read ahead; their number does not change the order. An interrupt stops them without a traceback.

    Raises:
        InterpretError: a batch size below 1; fewer than 0 workers; no item decodes.
    """
    refuse_below_one(batch_size=batch_size)
    if workers < 0:
        raise InterpretError(f"workers must be at least 0, not {workers}")
    workers = most_readers(images, workers)
    everything = spans is None
    if spans is None:
        edges = batch_edges(len(images), batch_size, images.starts)
        spans = np.stack([edges[:-1], edges[1:]], 1)
    read = 0
    with closing(read_ahead(_Reader(images), Spans(spans), workers, _collate)) as arriving:
        for batch, errors in arriving:
            _note(images, errors)
            if batch is not None:
                read += len(batch.items)
                _learn_labels(images, batch)
                yield batch
    if everything and len(images) and not read:
        raise none_left(images)


def batch_edges(count: int, batch_size: int, starts: Sequence[int] = (0,)) -> NDArray[np.int64]:
    """Return the items at which batches begin, and the number of items.

    >>> batch_edges(10, 4), batch_edges(10, 4, starts=[0, 5])
    (array([ 0,  4,  8, 10]), array([ 0,  4,  5,  9, 10]))
    """
    ends = [*starts[1:], count]
    begins = [np.arange(first, last, batch_size) for first, last in zip(starts, ends, strict=True)]
    return np.concatenate([*begins, [count]]).astype(np.int64)


def _learn_labels(images: Images, batch: Batch) -> None:
    """Take over labels that some data sets give only when they are read."""
    items, labels = batch.items.numpy(), batch.labels.numpy()
    if not np.array_equal(images.labels[items], labels):
        images.labels[items] = labels
        images.labels_learnt = True


def read_ahead(
    dataset: Dataset[Any], parts: Sampler[list[int]], workers: int, collate: Callable[[list[Any]], Any]
) -> Generator[Any, None, None]:
    """Yield parts of a data set in order; with workers, processes read them ahead.

    An interrupt stops the workers without a traceback. Close it, so that they end also after an error.

    Args:
        dataset: what is read, item by item.
        parts: the items of each part.
        workers: the number of processes; 0: this one reads.
        collate: makes one value of the items of a part.
    """
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_sampler=parts,
        num_workers=workers,
        collate_fn=collate,
        generator=torch.Generator(),  # draws the workers' seed, so that the global generator is unchanged
        worker_init_fn=_exit_at_once,
    )
    with interrupts_ignored() if workers else nullcontext():
        arriving = iter(loader)
    try:
        while True:
            # so that an interrupt does not cut off a part while a worker sends it
            with interrupts_delayed() if workers else nullcontext():
                part = next(arriving, None)
            if part is None:
                break
            yield part
    finally:
        del arriving  # ends the workers, even if a traceback still refers to this frame


def _exit_at_once(worker: int) -> None:
    """Let a worker that was spawned end before Python finalizes, as one that was forked does.

    Its thread that sends a part may still be in torch's code then: finalizing stops that thread there, and C++ aborts
    the worker.
    """
    atexit.register(os._exit, 0)


def most_readers(images: Images, workers: int) -> int:
    """Return the number of processes that can read images, at most `workers`."""
    return workers if images.most_workers is None else min(workers, images.most_workers)


def of_one_shape(batches: Iterable[Batch], shape: Sequence[int]) -> Iterator[Batch]:
    """Yield batches, and refuse images whose shape is not (C, H, W).

    Raises:
        InterpretError: an image of another shape.
    """
    for batch in batches:
        refuse_other_shape(batch.images.shape[1:], shape)
        yield batch


def refuse_other_shape(found: Sequence[int], expected: Sequence[int]) -> None:
    """Raise an error if an image has another shape than the others in its data."""
    if tuple(found) != tuple(expected):
        raise InterpretError(
            f"images of one data set must have one shape, not {list(expected)} and {list(found)}: resize them, or cut "
            "them to one size"
        )


def read_items(images: Images, items: Iterable[int]) -> Batch:
    """Read some items as one batch; those that do not decode are left out and recorded in `images.skipped`.

    >>> from torch import nn
    >>> from interpret.images.opening import open_images
    >>> images = open_images(torch.zeros(5, 1, 4, 4), nn.Conv2d(1, 1, 3))
    >>> read_items(images, [0, 3]).items
    tensor([0, 3])

    Raises:
        InterpretError: no item decodes; items have different shapes.
    """
    return next(read_parts(images, [items]))


def read_parts(images: Images, parts: Iterable[Iterable[int]]) -> Iterator[Batch]:
    """Read some items in batches of the given ones, as `read_items` does; a batch may be smaller, or left out.

    Raises:
        InterpretError: no item decodes; items of a batch have different shapes.
    """
    reader, empty = _Reader(images), True
    for items in parts:
        batch, errors = _collate([reader[int(item)] for item in items])
        _note(images, errors)
        if batch is not None:
            empty = False
            yield batch
    if empty:
        raise none_left(images)


def _note(images: Images, errors: Iterable[InterpretError]) -> None:
    """Record the items that do not decode, and raise any other error."""
    for error in errors:
        if not isinstance(error, UnreadableImage):
            raise error
        images.skipped[error.name] = error.reason
        images.skipped_at.setdefault(error.name, error.item)
        logger.info("skipped %r: %s", error.name, error.reason)


def none_left(images: Images) -> InterpretError:
    if not images.skipped:
        return InterpretError(f"data {images.name!r} holds no images: give at least one")
    file, reason = next(iter(images.skipped.items()))
    why = f"{file!r}, because {reason}"
    if len(images.skipped) == 1:
        return InterpretError(f"the only image of data {images.name!r} cannot be read: {why}")
    return InterpretError(
        f"none of the {len(images.skipped)} images of data {images.name!r} can be read: the first, {why}"
    )


class Spans(Sampler[list[int]]):
    """Batches of items from one number to another."""

    def __init__(self, spans: NDArray[np.int64]) -> None:
        self.spans = spans

    def __len__(self) -> int:
        return len(self.spans)

    def __iter__(self) -> Iterator[list[int]]:
        return (list(range(first, last)) for first, last in self.spans)


class _Reader(Dataset[Any]):
    """Reads items in a worker. Returns errors instead of raising them: an exception would reach the parent altered."""

    def __init__(self, images: Images) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, item: int) -> tuple[int, Tensor, int] | InterpretError:
        try:
            return (item, *self.images[item])
        except InterpretError as error:
            if isinstance(error, UnreadableImage):
                error.item = item
            return error.with_traceback(None)


def _collate(read: list[tuple[int, Tensor, int] | InterpretError]) -> tuple[Batch | None, list[InterpretError]]:
    errors = [entry for entry in read if isinstance(entry, InterpretError)]
    entries = [entry for entry in read if not isinstance(entry, InterpretError)]
    if not entries:
        return None, errors
    items, tensors, labels = zip(*entries, strict=True)
    for item, tensor in zip(items, tensors, strict=True):
        if tensor.shape != tensors[0].shape:
            mismatch = f"items {items[0]} and {item} are {list(tensors[0].shape)} and {list(tensor.shape)}"
            return None, [InterpretError(f"images of one data set must have one shape: {mismatch}")]
    return Batch(torch.stack(tensors), torch.tensor(items), torch.tensor(labels)), errors
