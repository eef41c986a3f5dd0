"""What a renderer puts on paper, and whether any of it is cut or covers something else."""

from __future__ import annotations

from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

TOUCHING = 0.75
"""Pixels by which boxes may run into each other: letters' edges are blurred."""


class Word(NamedTuple):
    """A line of text as it was drawn."""

    text: str
    artist: int
    corners: NDArray[np.float64]
    """[4, 2] in pixels from the lower left."""


class Recorder(RendererAgg):
    """Draws, and remembers each line of text with the place that it took."""

    def __init__(self, width: float, height: float, dpi: float) -> None:
        super().__init__(width, height, dpi)
        self.words: list[Word] = []

    def draw_text(self, gc: Any, x: float, y: float, s: str, prop: Any, angle: float, ismath: Any = False,
                  mtext: Any = None) -> None:  # fmt: skip
        super().draw_text(gc, x, y, s, prop, angle, ismath, mtext)
        if s.strip():
            width, height, descent = self.get_text_width_height_descent(s, prop, ismath)
            turn = np.deg2rad(angle)
            along, up = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
            start = np.array([x, self.height - y]) - up * descent
            corners = np.array([start, start + along * width, start + along * width + up * height, start + up * height])
            self.words.append(Word(s, id(mtext), corners))


def drawn(figure: Figure) -> Recorder:
    """Draw a figure and return what recorded it."""
    renderer = Recorder(*(figure.get_size_inches() * figure.dpi), figure.dpi)
    figure.draw(renderer)
    return renderer


def overlap(first: NDArray[np.float64], second: NDArray[np.float64]) -> bool:
    """Whether two rectangles, of any direction, cover each other by more than a touch."""
    for corners in (first, second):
        for side in (corners[1] - corners[0], corners[3] - corners[0]):
            axis = side / (np.linalg.norm(side) or 1.0)
            one, other = first @ axis, second @ axis
            if min(one.max(), other.max()) - max(one.min(), other.min()) <= TOUCHING:
                return False
    return True


def box(extents: Any) -> NDArray[np.float64]:
    left, bottom, right, top = extents
    return np.array([[left, bottom], [right, bottom], [right, top], [left, top]])


def all_axes(figure: Figure) -> list[tuple[Axes, Axes | None]]:
    """Return the axes of a figure with those that stand within others, each with the one that it belongs to."""
    return [pair for axes in figure.axes for pair in [(axes, None), *((child, axes) for child in axes.child_axes)]]


def faults(figure: Figure) -> list[str]:
    """Return what is cut or covered in a figure, in words; nothing where all is well."""
    recorded = drawn(figure)
    width, height = figure.get_size_inches() * figure.dpi
    found = [
        f"{word.text!r} is cut"
        for word in recorded.words
        if word.corners.min() < -TOUCHING
        or word.corners[:, 0].max() > width + TOUCHING
        or word.corners[:, 1].max() > height + TOUCHING
    ]
    for one, other in combinations(recorded.words, 2):
        if one.artist != other.artist and overlap(one.corners, other.corners):
            found.append(f"{one.text!r} covers {other.text!r}")
    pictures = [
        (image, box(image.get_tightbbox(recorded).extents))
        for axes, _ in all_axes(figure)
        for image in axes.images
        if image.get_visible()
    ]
    for word in recorded.words:
        if any(overlap(word.corners, corners) for _, corners in pictures):
            found.append(f"{word.text!r} covers a picture")
    places = [(axes, parent, box(axes.get_window_extent(recorded).extents)) for axes, parent in all_axes(figure)]
    for (one, above, here), (other, over, there) in combinations(places, 2):
        if above is not other and over is not one and overlap(here, there):
            found.append(f"axes {one.get_title()!r} cover axes {other.get_title()!r}")
    return found
