"""The figure of neighbours: each query with its nearest images; with predictions, AlexNet's whole Fig. 4."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as PlainFigure

from interpret.analyses.neighbours.result import Neighbours
from interpret.analyses.predictions.figure import key_of, prediction_panels
from interpret.analyses.predictions.result import Predictions
from interpret.figures.lettering import fit, height_of
from interpret.figures.panels import (
    WHOLE_LINE,
    Names,
    Panel,
    Size,
    broken_into_lines,
    choose,
    draw_lines,
    heights_of,
    lay_out,
    width_in_inches,
)
from interpret.figures.sheet import Sheet
from interpret.figures.style import Figure, in_style, look, points

MOST = 16
"""Default number of queries in a figure."""
LARGEST = 1.15
"""Largest distance from one image to the next, in inches."""


@in_style
def plot_neighbours(
    result: Neighbours,
    panels: Names = None,
    *,
    width: float | None = None,
    figsize: Size = None,
    ax: Axes | None = None,
) -> PlainFigure | Axes:
    """Plot neighbours as in Krizhevsky et al. 2012, Fig. 4 (right): one row per query, nearest image first.

    Args:
        result: the result of `interpret.find_neighbours`.
        panels: numbers of queries, "0" for the first; None: the first 16.
        width, figsize, ax: as in `interpret.plot`.
    """
    names = [str(query) for query in range(len(result.query_pictures))]
    chosen = choose(panels, names, names[:MOST], ax)
    if width is None and figsize is None and ax is None:
        width = min(width_in_inches(None), LARGEST * (result.items.shape[1] + 1))
    title = f"{result.title}: {_measure(result)} below each"
    rows = neighbour_panels(result, map(int, chosen))
    return lay_out([[row] for row in rows], width, figsize, ax, title)


def neighbour_panels(result: Neighbours, queries: Iterable[int]) -> list[Panel]:
    """Return one panel per query; the first has column titles."""
    return [_row(result, query, place == 0) for place, query in enumerate(queries)]


def _row(result: Neighbours, query: int, named: bool) -> Panel:
    height, breadth = result.query_pictures.shape[1:3]
    count = result.items.shape[1] + 1
    head = height_of("query", points("axes.title")) if named else 0.03
    label = height_of("two\nlines") + 0.06

    def draw(axes: Axes, wide: float, _: bool) -> None:
        pitch = wide / count
        side = 0.94 * pitch
        tall = side * height / breadth
        sheet = Sheet(axes, wide, head + tall + label)
        below = head + tall + 0.04
        accent, quiet = look().accent, look().quiet
        if named:
            sheet.write(0, 0, "query", points("axes.title"), color=accent)
            sheet.write(pitch, 0, "nearest", points("axes.title"), color=quiet)
        sheet.picture(0, head, side, tall, result.query_pictures[query])
        sheet.frame(0, head, side, tall, accent, 1.6)
        sheet.write(side / 2, below, fit(result.label_name(int(result.query_labels[query])), side, lines=2),
                    color=accent, ha="center")  # fmt: skip
        for place in range(count - 1):
            left = (place + 1) * pitch
            sheet.picture(left, head, side, tall, result.pictures[query, place])
            name = fit(result.label_name(int(result.labels[query, place])), side)
            words = f"{name}\n{_three_digits(result.distances[query, place])}".strip()
            sheet.write(left + side / 2, below, words, color=quiet, ha="center")

    return Panel(str(query), draw, WHOLE_LINE, lambda wide: head + 0.94 * wide / count * height / breadth + label)


@in_style
def plot_krizhevsky_figure4(
    predictions: Predictions, neighbours: Neighbours, columns: int = 2, *, width: float | None = None
) -> PlainFigure:
    """Plot predictions on the left and neighbours on the right: the whole Fig. 4 of Krizhevsky et al. 2012.

    If the figure is narrower than five inches, the neighbours are below the predictions.
    """
    wide = width_in_inches(width)
    beside = wide >= 5
    left = 0.4 * wide if beside else wide
    images = range(min(len(predictions.pictures), 4 * columns))
    rows = range(min(len(neighbours.query_pictures), MOST))
    shown = prediction_panels(predictions, images, left / columns / look().scale - 0.01)
    titles = predictions.title, f"{neighbours.title}: {_measure(neighbours)} below each"
    parts = [
        broken_into_lines([shown], left),
        broken_into_lines([[row] for row in neighbour_panels(neighbours, rows)], wide - left if beside else wide),
    ]
    size = points("figure.title")
    headings = [
        fit(title, part - 0.2, size, lines=3)
        for title, part in zip(titles, (left, wide - left if beside else wide), strict=True)
    ]
    highs = [
        sum(heights_of(part)) + height_of(heading, size) + 0.15 for part, heading in zip(parts, headings, strict=True)
    ]
    highs[0] += 0.25
    figure = Figure(figsize=(wide, max(highs) if beside else sum(highs)), layout="constrained")
    halves: Any = (
        figure.subfigures(1, 2, width_ratios=[left, wide - left]) if beside
        else figure.subfigures(2, 1, height_ratios=highs)
    )  # fmt: skip
    for half, part, heading in zip(halves, parts, headings, strict=True):
        draw_lines(half, part)
        half.suptitle(heading)
    key = key_of(predictions)
    if key:
        handles, words = zip(*key, strict=True)
        halves[0].legend(handles, words, loc="outside lower center", ncols=2, labelcolor=look().quiet)
    return figure


def _measure(result: Neighbours) -> str:
    return "Euclidean distance" if result.metric == "euclidean" else "cosine distance"


def _three_digits(distance: float) -> str:
    """Format a distance with three significant digits.

    >>> [_three_digits(distance) for distance in (0.0312, 9, 10.46, 834.2, 12345)]
    ['0.0312', '9.00', '10.5', '834', '12,345']
    """
    return f"{distance:,.0f}" if distance >= 999.5 else f"{distance:#.3g}".rstrip(".")
