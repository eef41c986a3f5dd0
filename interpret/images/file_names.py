"""The names of many files in one array."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np
import torch
from torch import Tensor


class FileNames(Sequence[str]):
    """Names of files, one after the other in an array of bytes: about a third of the memory of a list of `str`.

    >>> names = FileNames(["a.jpg", "sub/b.jpg"])
    >>> len(names), names[-1], list(names[:1])
    (2, 'sub/b.jpg', ['a.jpg'])

    A worker process shares the array with its parent, whether it is forked or spawned. Bytes that are not UTF-8 become
    surrogates, as `os.fsdecode` makes them, so that each name opens its file.
    """

    def __init__(self, names: Iterable[str | bytes] = ()) -> None:
        self._bytes = torch.empty(0, dtype=torch.uint8)
        self._ends = torch.empty(0, dtype=torch.int64)
        self._join([(b"", [name if isinstance(name, bytes) else os.fsencode(name) for name in names])])

    @classmethod
    def of_folders(cls, folders: Iterable[tuple[bytes, Iterable[bytes]]]) -> FileNames:
        """Join the names of the files of each folder, given with the folder's path, which ends with a slash.

        >>> list(FileNames.of_folders([(b"", [b"a.jpg"]), (b"sub/", [b"b.jpg", b"c.jpg"])]))
        ['a.jpg', 'sub/b.jpg', 'sub/c.jpg']
        """
        names = cls()
        names._join((prefix, list(inside)) for prefix, inside in folders)
        return names

    @classmethod
    def of_arrays(cls, content: Tensor, ends: Tensor) -> FileNames:
        """Return the names of `arrays`."""
        names = cls()
        names._bytes, names._ends = content, ends
        return names

    def _join(self, folders: Iterable[tuple[bytes, list[bytes]]]) -> None:
        content, ends = bytearray(), [np.zeros(1, np.int64)]
        for prefix, inside in folders:
            if not inside:
                continue
            content += prefix + prefix.join(inside)
            lengths = np.fromiter(map(len, inside), np.int64, len(inside)) + len(prefix)
            ends.append(ends[-1][-1:] + np.cumsum(lengths))
        # tensors, as torch's processes share their memory, where they would copy an array
        self._bytes = torch.frombuffer(content, dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)
        self._ends = torch.from_numpy(np.concatenate(ends))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> FileNames: ...

    def __getitem__(self, index: int | slice) -> str | FileNames:
        if isinstance(index, slice):
            return FileNames(self[at] for at in range(len(self))[index])
        index = range(len(self))[index]
        start, end = self._ends.numpy()[index : index + 2].tolist()
        return os.fsdecode(self._bytes.numpy()[start:end].tobytes())

    def __iter__(self) -> Iterator[str]:
        content, start = self._bytes.numpy().data, 0
        for part in self._ends[1:].split(65536):  # a list of all would need more memory than the names
            for end in part.tolist():
                yield os.fsdecode(bytes(content[start:end]))
                start = end

    def arrays(self) -> tuple[Tensor, Tensor]:
        """Return all bytes, uint8, and where each name ends in them, int64 [N + 1], beginning with 0."""
        return self._bytes, self._ends
