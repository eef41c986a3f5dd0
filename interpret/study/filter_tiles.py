"""Filter sheets: pictures of a layer's kernels that carry, as PNG text, where each unit's tile is."""

from __future__ import annotations

import json
from dataclasses import asdict
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from interpret.figures.tile_grid import TileGrid
from interpret.support.stamps import stamped

TEXT_KEY = "interpret-tiles"
"""The key of the PNG text that holds the grid."""


def write_filter_sheet(path: Path, picture: NDArray[np.uint8], grid: TileGrid | None) -> None:
    """Write a picture of kernels as PNG; `grid` says where each unit's tile is, None that units have no tile each."""
    text = PngInfo()
    text.add_text(TEXT_KEY, json.dumps(None if grid is None else asdict(grid)))
    content = BytesIO()
    Image.fromarray(picture).save(content, "PNG", pnginfo=text)
    path.write_bytes(stamped(content.getvalue(), "png"))


def knows_its_tiles(path: Path) -> bool:
    """Return whether a sheet says where its tiles are; sheets of studies that older versions began do not."""
    with Image.open(path) as picture:
        return TEXT_KEY in picture.info


def read_filter_grid(path: Path) -> TileGrid | None:
    """Return the grid of a sheet with one tile for each unit, in order; None for any other sheet.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "sheet.png"
    >>> grid = TileGrid(1, 2, 3, 3, gap=1)
    >>> write_filter_sheet(path, np.zeros((3, 7, 3), np.uint8), grid)
    >>> read_filter_grid(path) == grid
    True
    """
    with Image.open(path) as picture:
        found = json.loads(picture.info.get(TEXT_KEY, "null"))
    return None if found is None else TileGrid(**found)
