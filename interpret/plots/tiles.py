"""Rows of small pictures with captions, in inches: what figures of units and of single images consist of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from interpret.errors import InterpretError, unknown
from interpret.plots.style import INK, QUIET, WIDTH, Figure, shorten

MARGIN = 0.06
BETWEEN_CELLS, BETWEEN_PICTURES = 0.12, 0.03
CAPTION, TITLE = 6.5, 9.0
"""Points."""
LEADING = 1.3 / 72
"""Inches from one line of letters of a point's size to the next."""
BROAD = 0.56 / 72
"""Inches that such a letter takes, about."""


Names = str | Sequence[str] | None


def choose(panels: Names, names: Sequence[str], most: int) -> list[int]:
    """Return the places of the panels that are asked for, or of the first ones.

    >>> choose(["12", "3"], ["3", "5", "12"], most=2)
    [2, 0]
    """
    if panels is None:
        return list(range(min(most, len(names))))
    places = {name: place for place, name in enumerate(names)}
    asked = [panels] if isinstance(panels, str) else [str(one) for one in panels]
    for name in asked:
        if name not in places:
            raise unknown("panel", name, names)
    if not asked:
        raise InterpretError(f"panels is empty: the figure has {', '.join(names[:12])}")
    return [places[name] for name in asked]


@dataclass
class Cell:
    """Pictures [h, w, 3] side by side, and what stands below them."""

    pictures: Sequence[NDArray[np.uint8]]
    caption: str = ""


@dataclass
class Row:
    """Cells side by side, and what stands to their left."""

    cells: Sequence[Cell]
    label: str = ""


@dataclass
class Sheet:
    """Rows below each other, all cells of one width."""

    rows: Sequence[Row]
    columns: int
    """How many cells there is room for in a row."""
    title: str = ""
    note: str = ""
    """In small letters at the end."""
    most: int = field(default=1)
    """How many pictures a cell has room for."""

    def draw(
        self, width: float | None = None, figsize: tuple[float, float] | None = None, ax: Axes | None = None
    ) -> Any:
        """Draw it as a figure of a width in inches, or into one's own axes, and return the one or the other."""
        if ax is not None:
            wide = ax.get_window_extent().width / ax.get_figure(root=True).dpi  # type: ignore[union-attr]
            self._draw(ax, wide)
            return ax
        wide = figsize[0] if figsize else width or WIDTH
        figure = Figure(figsize=figsize or (wide, self._height(wide)), facecolor="white")
        self._draw(figure.add_axes((0, 0, 1, 1)), wide)
        return figure

    def _left(self, width: float) -> float:
        """Return how much room the labels take."""
        longest = max((len(line) for row in self.rows for line in row.label.split("\n")), default=0)
        return min(longest * CAPTION * BROAD + 0.1, 0.25 * width) if longest else 0.0

    def _cell(self, width: float) -> float:
        return (width - 2 * MARGIN - self._left(width) - (self.columns - 1) * BETWEEN_CELLS) / self.columns

    def _side(self, width: float) -> float:
        """Return how wide a picture is."""
        return (self._cell(width) - (self.most - 1) * BETWEEN_PICTURES) / self.most

    def _heights(self, width: float) -> list[tuple[float, float]]:
        """Return of each row how high its pictures are, and its captions."""
        side = self._side(width)
        heights = []
        for row in self.rows:
            ratios = [picture.shape[0] / picture.shape[1] for cell in row.cells for picture in cell.pictures]
            lines = max((cell.caption.count("\n") + 1 for cell in row.cells if cell.caption), default=0)
            heights.append((side * max(ratios, default=1.0), lines * CAPTION * LEADING + 0.03 * bool(lines)))
        return heights

    def _height(self, width: float) -> float:
        own = sum(pictures + captions + BETWEEN_CELLS for pictures, captions in self._heights(width))
        return own + MARGIN + bool(self.title) * (TITLE * LEADING + 0.06) + bool(self.note) * CAPTION * LEADING

    def _draw(self, axes: Axes, width: float) -> None:
        height, side, cell_width, left = self._height(width), self._side(width), self._cell(width), self._left(width)
        axes.set_axis_off()
        top = MARGIN
        if self.title:
            axes.text(MARGIN, top, self.title, fontsize=TITLE, color=INK, va="top", parse_math=False)
            top += TITLE * LEADING + 0.06
        for row, (high, caption) in zip(self.rows, self._heights(width), strict=True):
            if row.label:
                label = "\n".join(shorten(row.label.split("\n"), max(8, int((left - 0.1) / (CAPTION * BROAD)))))
                axes.text(MARGIN, top + high / 2, label, fontsize=CAPTION, color=INK, va="center", parse_math=False)
            for column, cell in enumerate(row.cells):
                x = MARGIN + left + column * (cell_width + BETWEEN_CELLS)
                for place, picture in enumerate(cell.pictures):
                    start = x + place * (side + BETWEEN_PICTURES)
                    tall = side * picture.shape[0] / picture.shape[1]
                    # small ones with sharp pixels, large ones averaged
                    axes.imshow(picture, extent=(start, start + side, top + tall, top), interpolation="auto")
                if cell.caption:
                    letters = max(6, int((cell_width + 0.06) / (CAPTION * BROAD)))
                    words = "\n".join(shorten(cell.caption.split("\n"), letters))
                    axes.text(x, top + high + 0.03, words, fontsize=CAPTION, color=QUIET, va="top", parse_math=False,
                              linespacing=1.15)  # fmt: skip
            top += high + caption + BETWEEN_CELLS
        if self.note:
            axes.text(MARGIN, top - 0.04, self.note, fontsize=CAPTION, color=QUIET, va="top", parse_math=False)
        axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal")


def in_rows(cells: Sequence[Cell], columns: int) -> list[Row]:
    """Return cells in rows of so many.

    >>> [len(row.cells) for row in in_rows([Cell([])] * 5, 3)]
    [3, 2]
    """
    return [Row(cells[start : start + columns]) for start in range(0, len(cells), columns)]


def grid_of(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return pictures [n, h, w, 3] as one, in as square a grid as there is with a white line between them.

    >>> grid_of(np.zeros((9, 24, 24, 3), np.uint8)).shape
    (76, 76, 3)
    """
    from interpret.plots.pictures import mosaic

    count = len(pictures)
    columns = int(np.ceil(np.sqrt(count))) or 1
    rows = -(-count // columns)
    full = np.full((rows * columns, *pictures.shape[1:]), 255, np.uint8)
    full[:count] = pictures
    return mosaic(full.reshape(rows, columns, *pictures.shape[1:]))[0]
