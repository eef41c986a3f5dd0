"""Data sets that can only be iterated, read by number."""

from __future__ import annotations

import os
import pickle
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch.utils.data import Dataset

from interpret.support.errors import InterpretError
from interpret.support.progress import progress

MOST_ITEMS = 100_000_000
"""Items after which a stream is taken to be endless."""
CHECKED = 64
"""A stream's items are compared with those of its first iteration at this many places at least, if it has them."""
COMPARED_FIRST = 8
"""The items at the start that are compared before anything is computed."""
KEPT_AFTER_A_JUMP = 32
"""Items that are kept after one that was asked for out of order."""


def iterable_once(what: str) -> InterpretError:
    """Return the error for data that can be iterated only once; `what` follows "data"."""
    return InterpretError(
        f"data {what} can be iterated only once, and hits are read again: give a data set whose iteration starts "
        "again, or take some items, such as list(itertools.islice(data, 1000))"
    )


class Stream(Dataset[Any]):
    """The items of an iterable data set by number.

    The data set is iterated once to count its items. After that, items in ascending order are read in one iteration;
    one that comes earlier starts the next. Those asked for out of order, such as hits, are kept in a temporary file.

    >>> stream = Stream(range(10, 20), lambda value: str(value).encode(), "range")
    >>> len(stream), stream[3], stream[1]
    (10, 13, 11)

    Args:
        data: can be iterated several times, in one order.
        digest: returns bytes that tell an item from others.
        name: what it is called in messages.

    Raises:
        InterpretError: it is endless, it can be iterated only once, or its order changes.
    """

    def __init__(self, data: Iterable[Any], digest: Callable[[Any], bytes], name: str) -> None:
        self.dataset = data
        self.name = name
        self._digest = digest
        self.digests: dict[int, bytes] = {}
        """Digests of items that are spread over the data."""
        self._start_over()
        self._count = self._read_once()
        self._compare_first()

    def _start_over(self) -> None:
        self._process = os.getpid()
        self._arriving: Iterator[Any] | None = None
        self._next = 0
        self._since_jump = KEPT_AFTER_A_JUMP
        self._kept: dict[int, int] = {}
        self._file: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_process": None, "_arriving": None, "_file": None, "_kept": {}}

    def __len__(self) -> int:
        return self._count

    def _read_once(self) -> int:
        """Count the items, and keep the digests of some that are evenly spread."""
        stride = item = 1
        with progress(0, f"counting {self.name}", "item") as bar:
            count = 0
            for count, item in enumerate(self.dataset, 1):
                at = count - 1
                if at % stride == 0 or at < COMPARED_FIRST:
                    self.digests[at] = self._digest(item)
                if at % stride == 0 and at // stride >= 2 * CHECKED:
                    stride *= 2
                    self.digests = {
                        kept: found
                        for kept, found in self.digests.items()
                        if kept % stride == 0 or kept < COMPARED_FIRST
                    }
                if count > MOST_ITEMS:
                    raise InterpretError(
                        f"data {self.name!r} does not end after {MOST_ITEMS:,} items: take some, such as "
                        "list(itertools.islice(data, 1000))"
                    )
                bar.update()
        return count

    def _compare_first(self) -> None:
        """Refuse data that has no second iteration, or another one."""
        for item in range(min(self._count, COMPARED_FIRST)):
            self[item]
        self._arriving = None

    def __getitem__(self, item: int) -> Any:
        item = range(len(self))[item]
        if os.getpid() != self._process:  # a forked worker shares its parent's place in open files
            self._start_over()
        if item in self._kept:
            self._file.seek(self._kept[item])
            return pickle.load(self._file)  # which this process wrote, without a name on the disk
        if self._arriving is None or item < self._next:
            self._arriving, self._next = iter(self.dataset), 0
        if item > self._next:
            self._since_jump = 0
        value: Any = None
        while self._next <= item:
            value = self._advance()
        if self._since_jump < KEPT_AFTER_A_JUMP:
            self._since_jump += 1
            self._keep(item, value)
        return value

    def _advance(self) -> Any:
        """Return the next item of the current iteration, which must be that of the first."""
        assert self._arriving is not None
        item = self._next
        try:
            value = next(self._arriving)
        except StopIteration:
            if item == 0:
                raise iterable_once(repr(self.name)) from None
            raise InterpretError(
                f"data {self.name!r} had {self._count:,} items when it was first iterated, and now ends after {item:,}"
            ) from None
        if item in self.digests and self._digest(value) != self.digests[item]:
            raise InterpretError(
                f"item {item} of data {self.name!r} is another one than when it was first iterated: give it in a fixed "
                "order, without shuffling and augmentation"
            )
        self._next += 1
        return value

    def _keep(self, item: int, value: Any) -> None:
        try:
            content = pickle.dumps(value)
        except Exception:  # what cannot be kept is read again
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as this does
            weakref.finalize(self, self._file.close)
        self._file.seek(0, 2)
        place = self._file.tell()
        self._file.write(content)
        self._kept[item] = place
