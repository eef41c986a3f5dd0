"""Labels of points that do not cover each other: each is put at the nearest free place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

ANGLES = np.arange(0, 360, 15)
"""Degrees, counter-clockwise from the right: the right side is tried first."""
GAP = 1.0
"""Points of free space around a label."""


def label_points(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    texts: Sequence[str],
    fontsize: float = 6,
    colors: Sequence[Any] | None = None,
    farthest: float = 90,
) -> list[Annotation]:
    """Write a text beside each point so that no text covers another one, a point, a legend or the edge of the axes.

    >>> axes = Figure().subplots()
    >>> labels = label_points(axes, [(0.5, 0.5), (0.5, 0.5)], ["one", "two"])
    >>> labels[0].xyann == labels[1].xyann
    False

    The points that have the most neighbours choose first; each text goes to the free place nearest to its point, at
    most `farthest` points (1/72 inch) away, with a thin line to it where it is not next to it. The axes must have
    their final limits and size: call this last.

    Args:
        axes: where the points are.
        points: (x, y) of each in the units of the axes.
        texts: one for each point.
        fontsize: in points.
        colors: one for each point; None: ink.
        farthest: how far from its point a text may go, in points. One that finds no place there is written at the
            free place that is nearest of all, and one that finds none in the axes, at its point.

    Returns:
        The texts, in the order of `points`.
    """
    figure = axes.get_figure(root=True)
    assert isinstance(figure, Figure)
    if not hasattr(figure.canvas, "get_renderer"):
        FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    scale = figure.dpi / 72
    places = axes.transData.transform(np.asarray(points, np.float64))
    sizes = [_size(axes, text, fontsize) for text in texts]
    inside = axes.get_window_extent()
    legends = [child.get_window_extent() for child in axes.get_children() if isinstance(child, Legend)]
    dots = [Bbox.from_bounds(x - 1.5 * scale, y - 1.5 * scale, 3 * scale, 3 * scale) for x, y in places]
    taken: list[Bbox] = list(legends)
    centres: dict[int, tuple[float, float]] = {}
    for item in _by_crowding(places):
        box = _free_place(places[item], sizes[item], dots, taken, inside, scale, farthest)
        taken.append(box)
        centres[item] = ((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2)
    labels = []
    for item, text in enumerate(texts):
        offset = (np.array(centres[item]) - places[item]) / scale
        far = math.hypot(*(np.maximum(np.abs(offset) - np.array(sizes[item]) / scale / 2, 0))) > 4
        labels.append(
            axes.annotate(
                text,
                points[item],
                xytext=tuple(offset),
                textcoords="offset points",
                ha="center",
                va="center",
                fontsize=fontsize,
                color="#1a1a1a" if colors is None else colors[item],
                arrowprops={"arrowstyle": "-", "lw": 0.35, "color": "#999999", "shrinkA": 0, "shrinkB": 1}
                if far
                else None,
                zorder=5,
            )
        )
    return labels


def _size(axes: Axes, text: str, fontsize: float) -> tuple[float, float]:
    """Return the width and height of a text in pixels."""
    probe = axes.text(0, 0, text, fontsize=fontsize)
    box = probe.get_window_extent()
    probe.remove()
    return box.width, box.height


def _by_crowding(places: NDArray[np.float64]) -> list[int]:
    """Return the points' indices, those with the nearest neighbours first."""
    distances = np.hypot(*(places[:, None] - places).transpose(2, 0, 1))
    crowding = (1 / (distances + 10)).sum(1)
    return [int(item) for item in np.argsort(-crowding, kind="stable")]


def _free_place(
    point: NDArray[np.float64],
    size: tuple[float, float],
    dots: Sequence[Bbox],
    taken: Sequence[Bbox],
    inside: Bbox,
    scale: float,
    farthest: float,
) -> Bbox:
    """Return the box nearest to a point that covers nothing, in pixels."""
    width, height = size
    limit = max(farthest, float(np.hypot(inside.width, inside.height)) / scale)
    # rings of 3 points; beyond `farthest` coarser ones, over all the axes
    rings = [*np.arange(3, farthest, 3), *np.arange(farthest, limit, 12)]
    for radius in rings:
        for angle in np.deg2rad(ANGLES):
            # the text's edge, not its middle, is on the ring
            x = point[0] + math.cos(angle) * (radius * scale + width / 2)
            y = point[1] + math.sin(angle) * (radius * scale + height / 2)
            box = Bbox.from_bounds(x - width / 2, y - height / 2, width, height)
            padded = box.padded(GAP * scale)
            within = inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1
            if within and padded.count_overlaps(taken) == 0 and padded.count_overlaps(dots) == 0:
                return box
    return Bbox.from_bounds(point[0] - width / 2, point[1] - height / 2, width, height)
