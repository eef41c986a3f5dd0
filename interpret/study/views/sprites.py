"""A layer's sprites: for each unit, one picture of its patches and one of its projections by each rule."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from interpret.figures.tile_grid import TileGrid
from interpret.study.reader import StudyReader
from interpret.study.views.pictures import Picture, size_of

PATCHES = "patches"
"""The kind of the sprites that hold patches; the others are called by their rule."""


class Sprites:
    """The sprites of one layer that a study holds."""

    def __init__(self, study: StudyReader, layer: str, rules: Sequence[str], patches: bool = True) -> None:
        """Find a layer's sprites.

        Args:
            study: where they are.
            layer: its name.
            rules: the rules by which it was projected; the first one stands in where there are no patches.
            patches: whether sprites of patches may be shown.
        """
        self._study, self._rules = study, rules
        folders = {PATCHES: study.patch_sprite(layer, 0).parent} if patches else {}
        folders |= {rule: study.projection_sprite(rule, layer, 0).parent for rule in rules}
        self._folders = {kind: folder.relative_to(study.path).as_posix() for kind, folder in folders.items()}
        self._names = {
            kind: {file.name for file in folder.iterdir()} if folder.is_dir() else set()
            for kind, folder in folders.items()
        }
        self._first: dict[int, Picture | None] = {}

    def __bool__(self) -> bool:
        """Return whether there is any."""
        return any(self._names.values())

    @cached_property
    def _size(self) -> tuple[int, int]:
        """Width and height of a sprite, which all of the layer's have."""
        for kind, names in self._names.items():
            if names:
                return size_of(self._study.path / self._folders[kind] / min(names))
        return 1, 1

    def grid(self, k: int) -> TileGrid:
        """Return where the tiles of k hits lie in each sprite."""
        grid = TileGrid.square(k, 1, 1)
        width, height = self._size
        return TileGrid(grid.rows, grid.columns, max(height // grid.rows, 1), max(width // grid.columns, 1))

    def picture(self, kind: str, unit: int) -> Picture | None:
        """Return a unit's patches, or its projections by a rule, or None where there is no such sprite."""
        name = f"{unit:04d}.webp"
        return Picture(f"{self._folders[kind]}/{name}", *self._size) if name in self._names.get(kind, ()) else None

    def first(self, unit: int) -> Picture | None:
        """Return a unit's patches, or its projections where there are no patches."""
        if unit not in self._first:
            found = self.picture(PATCHES, unit)
            if found is None and self._rules:
                found = self.picture(self._rules[0], unit)
            self._first[unit] = found
        return self._first[unit]

    def tiles(self, kind: str, unit: int, grid: TileGrid) -> Any:
        """Return the tiles of a sprite [rows · columns, h, w, 3], or None where there is no such sprite."""
        sprite = self.picture(kind, unit)
        if sprite is None:
            return None
        with Image.open(self._study.path / sprite.path) as picture:
            return grid.split(np.asarray(picture.convert("RGB")))
