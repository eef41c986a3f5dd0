"""Several data sets, one after the other, as one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from interpret.images.listing import LeftOut
from interpret.images.sources import Images
from interpret.images.storage import UnreadableImage
from interpret.network.pixel_scale import Normalisation
from interpret.support.errors import InterpretError


class JoinedImages(Images):
    """The items of several data sets, in their order.

    >>> import torch
    >>> from torch import nn
    >>> from interpret.images.opening import open_images
    >>> network = nn.Conv2d(1, 1, 3)
    >>> joined = JoinedImages([open_images(torch.full((2, 1, 4, 4), value), network) for value in (0.0, 1.0)])
    >>> len(joined), float(joined[2][0].mean()), joined.source_name(2)
    (4, 1.0, 'tensor 2/image 0')

    Batches do not reach from one data set into the next: so each gives what it gives alone. The names of sources begin
    with the name of their data set or, where several have one name, with what tells their folders apart.

    Raises:
        InterpretError: one data set twice; images with other channels; labels of other classes.
    """

    def __init__(self, parts: Sequence[Images]) -> None:
        self.parts = list(parts)
        self._refuse_unlike()
        self._prefixes = _prefixes(self.parts)
        items = np.cumsum([0, *map(len, self.parts)])
        sources = np.cumsum([0, *(int(part.sources.max(initial=-1)) + 1 for part in self.parts)])
        self.first_sources = sources[:-1].tolist()
        """The first source of each part."""
        super().__init__(
            ", ".join(self._prefixes),
            np.concatenate([part.sources + first for part, first in zip(self.parts, self.first_sources, strict=True)]),
            np.concatenate([part.labels for part in self.parts]),
            next((part.classes for part in self.parts if part.classes is not None), None),
        )
        self.starts = items[:-1].tolist()
        self.preprocess, self.channels, self.dtype = (
            self.parts[0].preprocess, self.parts[0].channels, self.parts[0].dtype
        )  # fmt: skip
        limits = [part.most_workers for part in self.parts if part.most_workers is not None]
        self.most_workers = min(limits, default=None)
        self.notes = [note for part in self.parts for note in part.notes]
        for number, part in enumerate(self.parts):
            self.skipped |= {self.name_in(number, name): reason for name, reason in part.skipped.items()}
            for kind, found in part.left_out.items():
                before = self.left_out.get(kind, LeftOut(0, self.name_in(number, found.first)))
                self.left_out[kind] = before._replace(number=before.number + found.number)

    def _refuse_unlike(self) -> None:
        fingerprints = [part.fingerprint for part in self.parts]
        first = self.parts[0]
        for part, fingerprint in zip(self.parts, fingerprints, strict=True):
            if fingerprints.count(fingerprint) > 1:
                raise InterpretError(f"data {part.name!r} is given twice: leave it out once")
            if part.channels != first.channels or part.preprocess != first.preprocess:
                raise InterpretError(f"data {first.name!r} and {part.name!r} are not of one kind: open each alone")
        named = [part for part in self.parts if part.classes is not None]
        for part in named:
            if part.classes != named[0].classes:
                raise InterpretError(
                    f"data {named[0].name!r} and {part.name!r} have labels of other classes: give both subfolders of "
                    "the same names"
                )

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        number, own = self._part_of(item)
        with self._renaming(number):
            return self.parts[number][own]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over those of the data sets."""
        return hashlib.sha256("".join(["joined ", *(part.fingerprint for part in self.parts)]).encode()).hexdigest()

    def window(self, item: int) -> tuple[float, float, float, float]:
        number, own = self._part_of(item)
        with self._renaming(number):
            return self.parts[number].window(own)

    def surroundings(self, item: int, box: tuple[int, int, int, int]) -> tuple[Tensor, tuple[int, int]]:
        number, own = self._part_of(item)
        with self._renaming(number):
            return self.parts[number].surroundings(own, box)

    def central(self) -> Images:
        centrals = [part.central() for part in self.parts]
        if all(central is part for central, part in zip(centrals, self.parts, strict=True)):
            return self
        whole = JoinedImages(centrals)
        whole.skipped, whole.skipped_at = self.skipped, self.skipped_at
        return whole

    def _normalisation(self) -> Normalisation | None:
        return self.parts[0]._normalisation()

    def source_name(self, source: int) -> str:
        number, own = self._part_with(source)
        return self.name_in(number, self.parts[number].source_name(own))

    def source_picture(self, source: int) -> Image.Image:
        number, own = self._part_with(source)
        with self._renaming(number):
            return self.parts[number].source_picture(own)

    def name_in(self, number: int, name: str) -> str:
        """Return the name that a source of a part has here."""
        return f"{self._prefixes[number]}/{name}"

    def _part_of(self, item: int) -> tuple[int, int]:
        """Return the number of the part that holds an item, and the item's number in it."""
        item = range(len(self))[item]
        number = int(np.searchsorted(self.starts, item, "right")) - 1
        return number, item - self.starts[number]

    def _part_with(self, source: int) -> tuple[int, int]:
        number = int(np.searchsorted(self.first_sources, source, "right")) - 1
        return number, source - self.first_sources[number]

    @contextmanager
    def _renaming(self, number: int) -> Iterator[None]:
        """Name what does not decode in a part as it is named here."""
        try:
            yield
        except UnreadableImage as error:
            raise UnreadableImage(self.name_in(number, error.name), error.reason) from None


def _prefixes(parts: Sequence[Images]) -> list[str]:
    """Return a name for each data set, all different."""
    names = [part.name for part in parts]
    paths = [str((part.opened_from or {}).get("data", "")) for part in parts]
    if len(set(names)) < len(names) and all(map(os.path.isabs, paths)):
        above = os.path.commonpath([Path(path).parent for path in paths])
        names = [Path(path).relative_to(above).as_posix() for path in paths]
    return [name if names.count(name) == 1 else f"{name} {number}" for number, name in enumerate(names, 1)]
