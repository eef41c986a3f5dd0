"""Small pictures side by side in one file."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from interpret.figures.tile_grid import TileGrid

STRIP_TILE = 64
"""Side in pixels of a tile in a strip, as in sprites."""
STRIP_GAP = 2


def side_by_side(tiles: NDArray[Any], side: int = STRIP_TILE, gap: int = STRIP_GAP) -> tuple[bytes, tuple[int, int]]:
    """Return tiles [rows, columns, h, w, 3] as one PNG, and its width and height.

    Small tiles are magnified by a whole factor.

    >>> side_by_side(np.zeros((1, 2, 32, 32, 3), np.uint8))[1]
    (130, 64)
    """
    rows, columns, height, width, _ = tiles.shape
    longer = max(height, width)
    scale = max(1, side // longer) * min(1.0, side / longer)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    method = Image.Resampling.NEAREST if longer <= side else Image.Resampling.BOX
    resized = [np.asarray(Image.fromarray(tile).resize(size, method)) for tile in tiles.reshape(-1, *tiles.shape[2:])]
    picture = Image.fromarray(TileGrid(rows, columns, size[1], size[0], gap).join(np.stack(resized)))
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue(), picture.size
