"""Rows of small pictures with captions: figures of units and of single images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from interpret.figures.lettering import fit, height_of, width_of
from interpret.figures.panels import WHOLE_LINE, Names, Panel, asked_for, lay_out
from interpret.figures.pictures import mosaic
from interpret.figures.sheet import Sheet
from interpret.figures.style import look
from interpret.figures.tile_grid import TileGrid

BETWEEN_CELLS, BETWEEN_PICTURES = 0.12, 0.03
"""Space in inches between cells, and between the pictures of a cell."""
LONGEST_CAPTION = 1.6
"""The largest width of a caption in inches; longer ones are shortened."""


def choose(panels: Names, names: Sequence[str], most: int) -> list[int]:
    """Return the indices of the chosen panels, or of the first ones.

    >>> choose(["12", "3"], ["3", "5", "12"], most=2)
    [2, 0]
    """
    if panels is None:
        return list(range(min(most, len(names))))
    places = {name: place for place, name in enumerate(names)}
    return [places[name] for name in asked_for(panels, names)]


@dataclass
class Cell:
    """Pictures [h, w, 3] side by side, with a caption below."""

    pictures: Sequence[NDArray[np.uint8]]
    caption: str = ""


@dataclass
class Row:
    """Cells side by side, with a label to their left."""

    cells: Sequence[Cell]
    label: str = ""


@dataclass
class Tiles:
    """Rows of cells of equal width; rows that are too wide continue in the next line."""

    rows: Sequence[Row]
    columns: int
    """The largest number of cells in a row; fewer where captions need more room."""
    title: str = ""
    note: str = ""
    """Small text at the end."""
    most: int = field(default=1)
    """The largest number of pictures in a cell."""

    def draw(
        self, width: float | None = None, figsize: tuple[float, float] | None = None, ax: Axes | None = None
    ) -> Any:
        """Draw a figure of a width in inches, or draw into given axes; return the figure or the axes."""
        return lay_out([[self.panel()]], width, figsize, ax, self.title)

    def panel(self, name: str = "") -> Panel:
        """Return a panel for a figure, without the title."""
        return Panel(name, lambda axes, wide, _: self._draw(axes, wide), WHOLE_LINE, self._height)

    def _left(self, width: float) -> float:
        """Return the width of the labels."""
        longest = max((width_of(line) for row in self.rows for line in row.label.split("\n")), default=0.0)
        return min(longest + 0.1, 0.25 * width) if longest else 0.0

    def _columns(self, width: float) -> int:
        """Return how many cells fit in a row, given their captions."""
        least = max(
            (width_of(line) for row in self.rows for cell in row.cells for line in cell.caption.split("\n")),
            default=0.0,
        )
        least = max(min(least, LONGEST_CAPTION * look().scale), 0.22 * self.most)
        room = width - self._left(width) + BETWEEN_CELLS
        return max(1, min(self.columns, int(room / (least + BETWEEN_CELLS))))

    def _lines(self, width: float) -> list[Row]:
        """Return the rows, broken into lines that fit the width."""
        columns = self._columns(width)
        lines: list[Row] = []
        for label, rows in groupby(self.rows, lambda row: row.label):
            cells = [cell for row in rows for cell in row.cells]
            first, *more = in_rows(cells, columns) or [Row([])]
            lines += [Row(first.cells, label), *more]
        return lines

    def _cell(self, width: float) -> float:
        columns = self._columns(width)
        return (width - self._left(width) - (columns - 1) * BETWEEN_CELLS) / columns

    def _side(self, width: float) -> float:
        """Return the width of a picture."""
        return (self._cell(width) - (self.most - 1) * BETWEEN_PICTURES) / self.most

    def _heights(self, width: float) -> list[tuple[float, float]]:
        """Return for each line the height of its pictures and of its captions."""
        side = self._side(width)
        heights = []
        for row in self._lines(width):
            ratios = [picture.shape[0] / picture.shape[1] for cell in row.cells for picture in cell.pictures]
            captions = max((height_of(cell.caption) for cell in row.cells), default=0.0)
            label = height_of(_label(row.label, self._left(width)))
            high = max(side * max(ratios, default=1.0), label)
            heights.append((high, captions + 0.03 * bool(captions)))
        return heights

    def _height(self, width: float) -> float:
        own = sum(pictures + captions + BETWEEN_CELLS for pictures, captions in self._heights(width))
        return own + height_of(fit(self.note, width, lines=4))

    def _draw(self, axes: Axes, width: float) -> None:
        side, cell_width, left = self._side(width), self._cell(width), self._left(width)
        sheet = Sheet(axes, width, self._height(width))
        quiet = look().quiet
        top = 0.03
        for row, (high, caption) in zip(self._lines(width), self._heights(width), strict=True):
            if row.label:
                sheet.write(0, top + high / 2, _label(row.label, left), va="center")
            for column, cell in enumerate(row.cells):
                x = left + column * (cell_width + BETWEEN_CELLS)
                for place, picture in enumerate(cell.pictures):
                    start = x + place * (side + BETWEEN_PICTURES)
                    # pixels stay sharp when magnified and are averaged when shrunk
                    sheet.picture(start, top, side, side * picture.shape[0] / picture.shape[1], picture)
                words = "\n".join(fit(line, cell_width + 0.06) for line in cell.caption.split("\n"))
                sheet.write(x, top + high + 0.03, words, color=quiet)
            top += high + caption + BETWEEN_CELLS
        sheet.write(0, top - 0.04, fit(self.note, width, lines=4), color=quiet)


def _label(label: str, left: float) -> str:
    """Return the label of a row, fitted to its width."""
    return "\n".join(fit(line, left - 0.08, lines=2) for line in label.split("\n"))


def in_rows(cells: Sequence[Cell], columns: int) -> list[Row]:
    """Return cells in rows of so many.

    >>> [len(row.cells) for row in in_rows([Cell([])] * 5, 3)]
    [3, 2]
    """
    return [Row(cells[start : start + columns]) for start in range(0, len(cells), columns)]


def grid_of(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return pictures [n, h, w, 3] as one, in as square a grid as possible with a space between them.

    >>> grid_of(np.zeros((9, 24, 24, 3), np.uint8)).shape
    (76, 76, 4)
    """
    return mosaic(pictures, TileGrid.square(len(pictures), 1, 1).columns)[0]
