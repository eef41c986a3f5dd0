"""The report as a PDF: A4 pages that matplotlib draws, with figures as vectors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox
from PIL import Image

from interpret.figures.lettering import shorten_to, width_of, wrap
from interpret.figures.style import ACCENT, HAIRLINE, INK, QUIET, ignoring_user_style
from interpret.report.contents import READ_FILTERS, READ_LAYERS, READ_UNITS, UNITS, Report
from interpret.results.result import Result
from interpret.support import numbers
from interpret.support.version import __version__
from interpret.support.wording import count, printable

PAGE = 8.27, 11.69
"""Width and height in inches: A4."""
MARGIN = 0.65
TEXT = PAGE[0] - 2 * MARGIN
FOOT = 0.42
"""Inches from the lower edge to the line with the page's number."""
LEADING = 1.42
"""Line spacing, relative to the font size."""
NAME = 5.0
"""The largest width of the network's name at the foot of a page, in inches."""


def write_pdf(report: Report, path: Path) -> None:
    """Write a report as a PDF; the same report gives the same bytes."""
    about = {"Title": f"{report.name}: report", "Creator": f"interpret {__version__}", "CreationDate": None}
    with ignoring_user_style(), PdfPages(path, metadata=about) as file:
        pages = _Pages(file, report.name)
        # the table of layers comes last, as it may take many pages
        _title(pages, report)
        _filters(pages, report)
        _units(pages, report)
        pages.end()

        def show(result: Result, figure: Figure) -> bool:
            figure.draw_without_rendering()  # an error leaves no half page
            _result(file, figure, result.title, result.reading, report.name)
            return True

        list(report.shown_results(show))
        _layers(pages, report)
        pages.end()


class _Pages:
    """Text and pictures below each other, in inches from the top, on as many pages as needed."""

    def __init__(self, file: PdfPages, name: str) -> None:
        self.file = file
        self.name = name
        self.page: Figure | None = None
        self.y = 0.0

    def end(self) -> None:
        """Finish the page."""
        if self.page is not None:
            self.y = PAGE[1] - FOOT
            self.write(shorten_to(self.name, NAME, 7), 7, color=QUIET)
            self.write(str(self.file.get_pagecount() + 1), 7, TEXT, color=QUIET, ha="right")
            self.file.savefig(self.page)
        self.page = None

    def need(self, height: float) -> Figure:
        """Return a page with room for a height in inches: the current one, or a new one."""
        if self.page is None or self.y + height > PAGE[1] - MARGIN:
            self.end()
            self.page = Figure(figsize=PAGE, facecolor="white")
            self.y = MARGIN
        return self.page

    def text(self, words: str, size: float, x: float = 0.0, width: float = TEXT, **look: Any) -> None:
        """Write a paragraph, broken into lines."""
        for line in wrap(words, width, size, bold=look.get("weight") == "bold"):
            self.need(size / 72 * LEADING)
            self.write(line, size, x, **look)
            self.y += size / 72 * LEADING

    def write(self, words: str, size: float, x: float = 0.0, **look: Any) -> None:
        """Write on the current line, without moving to the next."""
        assert self.page is not None
        self.page.text(
            (MARGIN + x) / PAGE[0],
            1 - self.y / PAGE[1],
            printable(words).replace("\n", " "),
            **cast(Any, {"fontsize": size, "va": "top", "color": INK} | look),
        )

    def heading(self, words: str, room: float = 1.5) -> None:
        """Begin a section, on a page with room for a height in inches."""
        self.y += 0.25 if self.page is not None else 0
        self.need(room)
        self.rule(INK, 1.2)
        self.y += 0.1
        self.text(words, 13, weight="bold")
        self.y += 0.06

    def rule(self, color: str, width: float) -> None:
        assert self.page is not None
        at = 1 - self.y / PAGE[1]
        ends = [MARGIN / PAGE[0], 1 - MARGIN / PAGE[0]]
        self.page.add_artist(Line2D(ends, [at, at], color=color, linewidth=width))

    def picture(self, picture: Any, x: float, width: float, height: float, columns: int = 1, rows: int = 1) -> None:
        """Draw a picture of tiles at the current height, without moving below it."""
        assert self.page is not None
        place = ((MARGIN + x) / PAGE[0], 1 - (self.y + height) / PAGE[1], width / PAGE[0], height / PAGE[1])
        axes = self.page.add_axes(place)
        # without resampling: the PDF viewer scales it
        axes.imshow(picture, interpolation="none", aspect="auto")
        for column in range(1, columns):
            axes.axvline(column * picture.shape[1] / columns - 0.5, color="white", linewidth=0.5)
        for row in range(1, rows):
            axes.axhline(row * picture.shape[0] / rows - 0.5, color="white", linewidth=0.5)
        axes.set_axis_off()


def _title(pages: _Pages, report: Report) -> None:
    pages.need(1)
    pages.y += 0.3
    pages.text("Network report", 10, color=ACCENT, weight="bold")
    pages.text(report.name, 26, weight="bold")
    if report.network.model["origin"]:
        pages.text(report.network.model["origin"], 10.5, color=QUIET)
    pages.y += 0.2
    for start in range(0, len(report.facts), 4):
        pages.need(0.5)
        for column, (term, value) in enumerate(report.facts[start : start + 4]):
            pages.write(term, 8, column * TEXT / 4, color=QUIET)
            pages.y += 0.17
            pages.write(value, 10.5, column * TEXT / 4)
            pages.y -= 0.17
        pages.y += 0.52
    pages.heading("Provenance")
    for term, value in report.provenance:
        lines = wrap(value, TEXT - 1.75, 8)
        pages.need(len(lines) * 8 / 72 * LEADING + 0.1)
        pages.write(term, 8, color=QUIET)
        pages.text(value, 8, 1.75, TEXT - 1.75)
        pages.rule(HAIRLINE, 0.4)
        pages.y += 0.06


def _layers(pages: _Pages, report: Report) -> None:
    pages.heading("Layers", 2.5)
    pages.text(READ_LAYERS, 8.5, color=QUIET)
    pages.y += 0.08
    columns = (0.0, 2.55, 3.75, 5.35, 6.05, TEXT)
    heads = ("Layer", "Kind", "Output", "Parameters", "MACs", "Receptive field")
    _row(pages, heads, columns, color=QUIET)
    for layer in report.layers:
        if pages.y + 0.18 > PAGE[1] - MARGIN:
            pages.need(PAGE[1])
            _row(pages, heads, columns, color=QUIET)
        name = shorten_to(layer.name, columns[1] - 0.1, 7)
        kind = shorten_to(layer.kind, columns[2] - columns[1] - 0.1, 7)
        cells = (name, kind, layer.output, layer.params, layer.macs, layer.field)
        _row(pages, cells, columns)


def _row(pages: _Pages, cells: Sequence[str], columns: Sequence[float], **look: Any) -> None:
    pages.need(0.18)
    for number, (cell, x) in enumerate(zip(cells, columns, strict=True)):
        pages.write(cell, 7, x, ha="right" if number > 2 else "left", **look)
    pages.y += 0.15
    pages.rule(HAIRLINE, 0.3)
    pages.y += 0.025


def _filters(pages: _Pages, report: Report) -> None:
    for number, layer in enumerate(report.network.filtered_layers):
        assert layer.filters is not None
        width = min(TEXT, layer.filters.width / 96)
        height = width * layer.filters.height / layer.filters.width
        if height > 8:
            width, height = width * 8 / height, 8
        if number == 0:
            pages.heading("Filters", height + 1.2)
        pages.need(height + 0.7)
        pages.picture(_open(report.read(layer.filters)), (TEXT - width) / 2, width, height)
        pages.y += height + 0.1
        pages.text(READ_FILTERS.format(layer=layer.name), 8.5)


def _units(pages: _Pages, report: Report) -> None:
    if not report.shown_layers:
        return
    pages.heading("Strongest units", 4)
    pages.text(READ_UNITS.format(count=UNITS), 8.5, color=QUIET)
    gap = 0.14
    wide = (TEXT - (UNITS - 1) * gap) / UNITS
    for layer in report.shown_layers:
        units = report.units(layer)
        patches = units[0].patches
        assert patches is not None
        both = any(unit.projections for unit in units)
        side = (wide - 0.04) / 2 if both else wide / 2
        height = side * patches.height / patches.width
        pages.y += 0.14
        pages.need(height + 0.62)
        rule = f"; projections by the rule {layer.rules[0]}" if layer.rules else ""
        pages.text(layer.name, 9, weight="bold")
        pages.text(f"{layer.kind}, {count(layer.unit_count, 'unit')}{rule}. Patches of {layer.picture_size}.", 7,
                   color=QUIET)  # fmt: skip
        pages.y += 0.03
        for column, unit in enumerate(units):
            x = column * (wide + gap)
            value = numbers.value(unit.value)
            label = f"{unit.index}  {unit.output_class}".rstrip()
            pages.write(shorten_to(label, wide - width_of(value, 7) - 0.08, 7), 7, x)
            pages.write(value, 7, x + wide, color=QUIET, ha="right")
            pages.y += 0.15
            for place, picture in enumerate(_present([unit.patches, unit.projections])):
                tiles = _open(report.read(picture))
                pages.picture(tiles, x + place * (side + 0.04), side, height, layer.grid.columns, layer.grid.rows)
            pages.y -= 0.15
        pages.y += height + 0.17


def _present(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if value is not None]


def _open(content: bytes) -> Any:
    return np.asarray(Image.open(BytesIO(content)).convert("RGB"))


def _result(file: PdfPages, figure: Figure, title: str, reading: str, name: str) -> None:
    """Write a figure on a page of its own: as it is, with its title above and how to read it below.

    The page is A4, or larger where the figure is.
    """
    width, height = figure.get_size_inches()
    page_width = max(PAGE[0], width + 0.8)
    text = page_width - 2 * MARGIN
    titles, lines = wrap(title, text, 13, bold=True), wrap(reading, text, 9)
    head = MARGIN + 0.12 + len(titles) * 13 / 72 * LEADING + 0.12
    foot = 0.15 + len(lines) * 9 / 72 * LEADING + MARGIN
    page_height = max(PAGE[1], head + height + foot)
    left = (width - page_width) / 2 + MARGIN

    def write(words: Sequence[str], y: float, size: float, **look: Any) -> None:
        # in shares of the figure, which savefig moves to its place on the page; inches it would not
        figure.text(left / width, y / height, "\n".join(words), fontsize=size, color=INK, va="top",
                    linespacing=LEADING / 1.18, **look)  # fmt: skip

    top = height + head - MARGIN
    figure.add_artist(Line2D([left / width, (left + text) / width], [top / height] * 2, color=INK, linewidth=1.2))
    write(titles, top - 0.1, 13, weight="bold")
    write(lines, -0.15, 9)
    foot_line = height + head - page_height + FOOT
    write([shorten_to(printable(name), NAME, 7)], foot_line, 7)
    number = str(file.get_pagecount() + 1)
    figure.text((left + text) / width, foot_line / height, number, fontsize=7, color=INK, va="top", ha="right")
    file.savefig(figure, bbox_inches=Bbox.from_bounds((width - page_width) / 2, height + head - page_height,
                                                      page_width, page_height), dpi=200)  # fmt: skip
