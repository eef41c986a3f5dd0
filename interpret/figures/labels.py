"""Labels for points that do not overlap: each is put at the nearest free place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.legend import Legend
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from interpret.figures.style import look

ANGLES = np.arange(0, 360, 15)
"""Directions from a point in the order in which they are tried, in degrees counter-clockwise from the right."""
GAP = 1.0
"""Free space around a label, in points (1/72 inch)."""


def label_points(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    texts: Sequence[str],
    fontsize: float = 6,
    colors: Sequence[Any] | None = None,
    farthest: float = 90,
    first: Sequence[int] = (),
) -> list[Annotation]:
    """Write a label beside each point so that none overlaps another label, a point, a legend or the edge of the axes.

    >>> from matplotlib.figure import Figure
    >>> figure = Figure()
    >>> labels = label_points(figure.subplots(), [(0.5, 0.5), (0.5, 0.5)], ["one", "two"])
    >>> figure.draw_without_rendering()
    >>> labels[0].xyann == labels[1].xyann
    False

    Points in the most crowded places are labelled first. Each label goes to the free place nearest to its point, within
    `farthest` points (1/72 inch), with a thin line to the point if it is not next to it. Labels are placed when the
    figure is drawn, for the size and limits that the axes have then.

    Args:
        axes: the axes of the points.
        points: their (x, y) in data coordinates.
        texts: a label for each point.
        fontsize: in points.
        colors: a colour for each label; None: the text colour.
        farthest: the distance in points within which all directions are searched closely. Further away, the nearest
            free place is used; a label without one in the axes is left out.
        first: points that are labelled before all others.

    Returns:
        The labels, in the order of `points`.
    """
    quiet = look().hairline
    labels = [
        axes.annotate(
            text,
            point,
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=fontsize,
            color=look().ink if colors is None else colors[item],
            arrowprops={"arrowstyle": "-", "lw": 0.35, "color": quiet, "shrinkA": 0, "shrinkB": 1},
            zorder=5,
            in_layout=False,
        )
        for item, (text, point) in enumerate(zip(texts, points, strict=True))
    ]
    axes.add_artist(_Placer(axes, labels, farthest, first))
    return labels


class _Placer(Artist):
    """Places the labels before they are drawn; draws nothing itself."""

    zorder = -1.0

    def __init__(self, axes: Axes, labels: Sequence[Annotation], farthest: float, first: Sequence[int]) -> None:
        super().__init__()
        self.labels, self.farthest, self.first = labels, farthest, first
        self.placed_for: Any = None
        self.set_in_layout(False)

    def draw(self, renderer: Any) -> None:
        axes = self.axes
        assert axes is not None
        places = axes.transData.transform([label.xy for label in self.labels])
        inside = axes.get_window_extent()
        legends = [child.get_window_extent() for child in axes.get_children() if isinstance(child, Legend)]
        now = (places.tobytes(), *inside.extents, *(tuple(box.extents) for box in legends))
        if now != self.placed_for:
            self._place(places, inside, legends, renderer)
            self.placed_for = now

    def _place(self, places: NDArray[np.float64], inside: Bbox, taken: list[Bbox], renderer: Any) -> None:
        scale = renderer.points_to_pixels(1.0)
        sizes = []
        for label in self.labels:
            box = Text.get_window_extent(label, renderer)
            sizes.append((box.width, box.height))
        dots = [Bbox.from_bounds(x - 1.5 * scale, y - 1.5 * scale, 3 * scale, 3 * scale) for x, y in places]
        order = [*self.first, *(item for item in _by_crowding(places) if item not in self.first)]
        for item in order:
            label, size = self.labels[item], sizes[item]
            found = _free_place(places[item], size, dots, taken, inside, scale, self.farthest)
            label.set_visible(found is not None)
            if found is None:
                continue
            taken.append(found)
            centre = np.array([(found.x0 + found.x1) / 2, (found.y0 + found.y1) / 2])
            offset = (centre - places[item]) / scale
            label.xyann = tuple(offset)
            far = math.hypot(*np.maximum(np.abs(offset) - np.array(size) / scale / 2, 0)) > 4
            assert label.arrow_patch is not None
            label.arrow_patch.set_visible(far)


def _by_crowding(places: NDArray[np.float64]) -> list[int]:
    """Return the indices of points, those with the nearest neighbours first."""
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
) -> Bbox | None:
    """Return the free box nearest to a point, in pixels, or None where there is none."""
    width, height = size
    limit = max(farthest, float(np.hypot(inside.width, inside.height)) / scale)
    # rings of 3 points; beyond `farthest` coarser ones, over all the axes
    rings = [*np.arange(3, farthest, 3), *np.arange(farthest, limit, 12)]
    for radius in rings:
        for angle in np.deg2rad(ANGLES):
            # the edge of the label, not its centre, lies on the ring
            x = point[0] + math.cos(angle) * (radius * scale + width / 2)
            y = point[1] + math.sin(angle) * (radius * scale + height / 2)
            box = Bbox.from_bounds(x - width / 2, y - height / 2, width, height)
            padded = box.padded(GAP * scale)
            within = inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1
            if within and padded.count_overlaps(taken) == 0 and padded.count_overlaps(dots) == 0:
                return box
    return None
