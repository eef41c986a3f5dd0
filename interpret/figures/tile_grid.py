"""Grids of equal tiles in one picture: where each tile lies, in pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TileGrid:
    """Rows and columns of tiles of one size, filled row by row, with a gap between tiles.

    >>> grid = TileGrid.square(5, height=4, width=6, gap=2)
    >>> grid.rows, grid.columns, grid.size
    (2, 3, (10, 22))
    >>> grid.corner(4)  # the second row's second tile
    (6, 8)
    """

    rows: int
    columns: int
    height: int
    """Of one tile, in pixels."""
    width: int
    gap: int = 0

    @classmethod
    def square(cls, count: int, height: int, width: int, gap: int = 0) -> TileGrid:
        """Return a grid for so many tiles that has as many columns as rows, or one more."""
        columns = math.isqrt(count - 1) + 1 if count else 1
        return cls(-(-count // columns), columns, height, width, gap)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the whole picture."""
        return (
            max(self.rows * (self.height + self.gap) - self.gap, 0),
            max(self.columns * (self.width + self.gap) - self.gap, 0),
        )

    def corner(self, place: int) -> tuple[int, int]:
        """Return top and left of a tile, which is counted from 0, row by row."""
        row, column = divmod(place, self.columns)
        return row * (self.height + self.gap), column * (self.width + self.gap)

    def join(self, tiles: NDArray[np.uint8], background: Any = 128) -> NDArray[np.uint8]:
        """Return tiles [n, h, w, channels] as one picture; `background` fills gaps and missing tiles.

        >>> TileGrid.square(3, 1, 1).join(np.array([1, 2, 3], np.uint8).reshape(3, 1, 1, 1), 9)[..., 0]
        array([[1, 2],
               [3, 9]], dtype=uint8)
        """
        picture = np.empty((*self.size, tiles.shape[-1]), np.uint8)
        picture[...] = background
        for place, tile in enumerate(tiles):
            top, left = self.corner(place)
            picture[top : top + self.height, left : left + self.width] = tile
        return picture

    def split(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the tiles [rows · columns, h, w, channels] of a picture.

        >>> grid = TileGrid.square(4, 1, 1, gap=1)
        >>> grid.split(grid.join(np.array([1, 2, 3, 4], np.uint8).reshape(4, 1, 1, 1))).ravel()
        array([1, 2, 3, 4], dtype=uint8)
        """
        corners = map(self.corner, range(self.rows * self.columns))
        return np.stack([picture[top : top + self.height, left : left + self.width] for top, left in corners])
