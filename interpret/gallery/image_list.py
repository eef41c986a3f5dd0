"""The list of images: its pages, and the one picture of tiles that each shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from interpret.figures.tile_grid import TileGrid
from interpret.gallery.network_page import NetworkPage
from interpret.gallery.sources import Source
from interpret.study.views.pictures import Picture

IMAGES_PER_PAGE = 240
"""The number of images on a page of the list."""
COLUMNS = 16
"""Tiles in a row of a page's picture."""
LARGEST_TILE = 128
"""Largest side of a tile, in pixels."""
WEBP_QUALITY = 50
"""Of its picture: tiles are small, and there are many."""


def list_href(page: int) -> str:
    """Return the address of a page of the list, counted from 1, relative to the gallery's root.

    >>> list_href(1), list_href(22)
    ('images/index.html', 'images/index-22.html')
    """
    return "images/index.html" if page == 1 else f"images/index-{page}.html"


@dataclass(frozen=True)
class Entry:
    """An image in the list."""

    source: Source
    view: str
    """The part of the page's picture that is the image, as the viewBox of an SVG; empty where it has no picture."""


@dataclass(frozen=True)
class ListPage:
    """A page of the list of images."""

    number: int
    last: int
    entries: list[Entry]
    picture: Picture | None
    """The tiles of all images of the page; None where none has a picture."""
    content: bytes
    """The file of that picture."""

    @property
    def href(self) -> str:
        """Its address, relative to the gallery's root."""
        return list_href(self.number)

    @property
    def before(self) -> str | None:
        return list_href(self.number - 1) if self.number > 1 else None

    @property
    def after(self) -> str | None:
        return list_href(self.number + 1) if self.number < self.last else None


def list_pages(network: NetworkPage) -> Iterator[ListPage]:
    """Yield the pages of the list of images."""
    numbers = network.sources.listed.tolist()
    starts = range(0, len(numbers), IMAGES_PER_PAGE)
    for place, start in enumerate(starts):
        sources = [network.source(number) for number in numbers[start : start + IMAGES_PER_PAGE]]
        files = [network.study.path / one.picture.path if one.picture else None for one in sources]
        grid = _grid(sources)
        side, entries = grid.width, []
        for j, source in enumerate(sources):
            top, left = grid.corner(j)
            view = f"{left} {top} {side} {side}" if source.picture else ""
            entries.append(Entry(source, view))
        picture, content = None, BytesIO()
        if side:
            sheet = Image.fromarray(grid.join(_tiles(files, side)))
            sheet.save(content, "WEBP", quality=WEBP_QUALITY, method=4)
            picture = Picture(str(Path(list_href(place + 1)).with_suffix(".webp")), *sheet.size)
        yield ListPage(place + 1, len(starts), entries, picture, content.getvalue())


def _grid(sources: Sequence[Source]) -> TileGrid:
    """Return where images lie in the picture of a page; tiles of side 0 where none has a picture."""
    side = max((min(one.picture.width, one.picture.height) for one in sources if one.picture), default=0)
    columns = min(COLUMNS, len(sources))
    return TileGrid(-(-len(sources) // columns), columns, min(LARGEST_TILE, side), min(LARGEST_TILE, side))


def _tiles(files: Sequence[Path | None], side: int) -> NDArray[np.uint8]:
    """Return the central squares of pictures [n, side, side, 3], grey where there is no file."""
    tiles = np.full((len(files), side, side, 3), 128, np.uint8)
    for tile, file in zip(tiles, files, strict=True):
        if file is None:
            continue
        with Image.open(file) as picture:
            picture.draft("RGB", (2 * side, 2 * side))  # a large JPEG is not decoded in full
            tile[...] = np.asarray(ImageOps.fit(picture.convert("RGB"), (side, side), Image.Resampling.HAMMING))
    return tiles
