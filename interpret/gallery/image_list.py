"""The list of images: which it has, where each is found, and the one picture that a page of it shows tiles of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from interpret.gallery.pages import NetworkView, Picture, Source

TO_A_PAGE = 240
"""How many images a page of the list shows."""
COLUMNS = 16
"""Tiles in a row of its picture."""
TILE = 128
"""Largest side of a tile, in pixels."""
QUALITY = 50
"""That of its picture as WebP: tiles are small, and there are many."""


def list_href(page: int) -> str:
    """Return the address of a page of the list, counted from 1, relative to the gallery's root.

    >>> list_href(1), list_href(22)
    ('images/index.html', 'images/index-22.html')
    """
    return "images/index.html" if page == 1 else f"images/index-{page}.html"


def addresses(listed: Sequence[int], paged: set[int]) -> dict[int, str]:
    """Return where each listed image is found: on its own page, or else at its entry in the list.

    >>> addresses([3, 4], paged={3})
    {3: 'images/3.html', 4: 'images/index.html#image-4'}
    """
    return {
        number: f"images/{number}.html" if number in paged else f"{list_href(place // TO_A_PAGE + 1)}#image-{number}"
        for place, number in enumerate(listed)
    }


@dataclass(frozen=True)
class Entry:
    """An image in the list."""

    source: Source
    view: str
    """The part of the page's picture that is the image, as the viewBox of an SVG; empty where it has no picture."""
    hits: Sequence[Any]
    """The layers among whose units' hits it is, with these units, of an image that has no page of its own."""


@dataclass(frozen=True)
class ListPage:
    """A page of the list of images."""

    number: int
    last: int
    entries: list[Entry]
    picture: Picture | None
    """All images of the page, tile by tile; None where none has a picture."""
    content: bytes
    """What the file of that picture holds."""

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


def list_pages(network: NetworkView, hits: Mapping[int, Sequence[Any]]) -> Iterator[ListPage]:
    """Yield the pages of the list of images; `hits` says of which units' hits each is one."""
    numbers = list(network.addresses)
    starts = range(0, len(numbers), TO_A_PAGE)
    for place, start in enumerate(starts):
        sources = [network.source(number) for number in numbers[start : start + TO_A_PAGE]]
        files = [network.study.path / one.picture.path if one.picture else None for one in sources]
        side, sheet = _sheet(sources, files)
        entries = []
        for j, source in enumerate(sources):
            row, column = divmod(j, COLUMNS)
            view = f"{column * side} {row * side} {side} {side}" if source.picture else ""
            entries.append(Entry(source, view, () if source.number in network.paged else hits.get(source.number, ())))
        picture, content = None, BytesIO()
        if side:
            sheet.save(content, "WEBP", quality=QUALITY, method=6)
            picture = Picture(str(Path(list_href(place + 1)).with_suffix(".webp")), *sheet.size)
        yield ListPage(place + 1, len(starts), entries, picture, content.getvalue())


def _sheet(sources: Sequence[Source], files: Sequence[Path | None]) -> tuple[int, Image.Image]:
    """Return the side of a tile and the central squares of pictures in a grid; a side of 0 where there is none."""
    side = min(TILE, max((min(one.picture.width, one.picture.height) for one in sources if one.picture), default=0))
    sheet = Image.new("RGB", (min(COLUMNS, len(sources)) * side, -(-len(sources) // COLUMNS) * side), (128, 128, 128))
    for j, file in enumerate(files):
        if file is None:
            continue
        with Image.open(file) as picture:
            picture.draft("RGB", (2 * side, 2 * side))  # a large JPEG is not decoded in full
            tile = ImageOps.fit(picture.convert("RGB"), (side, side), Image.Resampling.LANCZOS)
        row, column = divmod(j, COLUMNS)
        sheet.paste(tile, (column * side, row * side))
    return side, sheet
