"""Folders of NumPy's `.npy` files: one signal, volume or image a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from interpret.images.listing import labels_of
from interpret.support.errors import InterpretError
from interpret.support.wording import AXES, readable

SUFFIX = ".npy"


class ArrayFiles:
    """A map-style data set of the `.npy` files under a folder, sorted by path; labels are those of subfolders.

    >>> import tempfile
    >>> root = Path(tempfile.mkdtemp())
    >>> for name in ("b", "a"):
    ...     np.save(root / name, np.full(5, ord(name), np.int16))
    >>> signals = ArrayFiles(root, axes=1, dtype=torch.float32)
    >>> len(signals), signals[0]
    (2, tensor([[97., 97., 97., 97., 97.]]))

    A file holds one input [C, T], [C, H, W] or [C, D, H, W], or one without channels, [T] for example, which gets one.
    Whole numbers become floating-point ones of the same value. Files are read as they are needed, without pickles.
    """

    def __init__(
        self, root: str | os.PathLike[str], axes: int, dtype: torch.dtype, known: Sequence[str] | None = None
    ) -> None:
        """List the files of a folder; `axes` and `dtype` are those of the network's inputs, `known` its classes."""
        self.root, self.axes, self.dtype = Path(root), axes, dtype
        names = [path.relative_to(root) for path in self.root.rglob(f"*{SUFFIX}") if path.is_file()]
        self.names = sorted(name.as_posix() for name in names if not any(part.startswith(".") for part in name.parts))
        folders = [name.partition("/")[0] if "/" in name else "" for name in self.names]
        runs = [(folder, len(list(group))) for folder, group in groupby(folders)]
        self.targets, self.classes = labels_of(runs, None if known is None else tuple(known))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, item: int) -> Tensor:
        name = self.names[item]
        try:
            array = np.load(self.root / name, allow_pickle=False)
        except ValueError as error:  # damaged, or a pickle
            raise OSError(f"{readable(name)} is no array of numbers") from error
        shape = list(array.shape)
        if array.ndim not in (self.axes, self.axes + 1) or array.dtype.kind not in "fiub":
            one = AXES[self.axes]
            raise InterpretError(
                f"{readable(name)!r} holds {array.dtype} {shape}, but the network takes [C, {one}]: save one input a "
                f"file, as numbers [C, {one}] or [{one}]"
            )
        tensor = torch.from_numpy(np.ascontiguousarray(array)).to(self.dtype)
        return tensor if array.ndim > self.axes else tensor[None]

    def source_name(self, source: int) -> str:
        """Return the path of a file, relative to the folder."""
        return readable(self.names[source])
