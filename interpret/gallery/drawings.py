"""The geometry of small drawings: receptive fields, histograms, boxes on images, kernels and curves.

Functions return numbers and SVG paths, which the templates put into inline SVG.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from markupsafe import Markup

from interpret.study.views.pictures import Picture

FIELD_SIDE = 44.0
"""Side of the drawing of a receptive field, in CSS pixels."""
HISTOGRAM_WIDTH, HISTOGRAM_HEIGHT = 300, 96


@dataclass(frozen=True)
class Rect:
    """A rectangle in the units of its drawing."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class FieldDrawing:
    """The input, the receptive field of the neuron in its middle, and that of the neuron one row and column further."""

    image: Rect
    window: Rect
    neighbour: Rect | None
    whole: bool
    """Whether the window covers the whole input."""


def draw_field(field: dict[str, Any] | None, input_shape: Sequence[int]) -> FieldDrawing:
    """Return the drawing of a receptive field to scale in the input; None means the whole input.

    >>> drawing = draw_field({"size": [11, 11], "stride": [4, 4]}, (3, 44, 44))
    >>> drawing.window, drawing.neighbour, drawing.whole
    (Rect(x=16.5, y=16.5, width=11.0, height=11.0), Rect(x=20.5, y=20.5, width=11.0, height=11.0), False)
    >>> draw_field(None, (3, 44, 22)).window
    Rect(x=11.0, y=0.0, width=22.0, height=44.0)

    Of a signal, the input is a strip; of a volume, one slice.
    """
    if len(input_shape) == 2:  # a signal is a strip
        length = int(input_shape[1])
        high = max(1, length // 4)
        field = None if field is None else {"size": [high, *field["size"]], "stride": [0, *field["stride"]]}
        input_shape = (1, high, length)
    height, width = (int(side) for side in input_shape[-2:])
    scale = FIELD_SIDE / max(height, width)
    image = Rect((FIELD_SIDE - width * scale) / 2, (FIELD_SIDE - height * scale) / 2, width * scale, height * scale)
    if field is None:
        return FieldDrawing(image, image, None, True)
    (high, wide), (down, right) = field["size"][-2:], field["stride"][-2:]

    def clipped(shift_y: float, shift_x: float) -> Rect:
        top, left = (height - high) / 2 + shift_y, (width - wide) / 2 + shift_x
        bottom, far = min(top + high, height), min(left + wide, width)
        top, left = max(top, 0.0), max(left, 0.0)
        return Rect(
            round(image.x + left * scale, 2),
            round(image.y + top * scale, 2),
            round(max(far - left, 0.0) * scale, 2),
            round(max(bottom - top, 0.0) * scale, 2),
        )

    whole = high >= height and wide >= width
    return FieldDrawing(image, clipped(0, 0), None if whole else clipped(down, right), whole)


@dataclass(frozen=True)
class Histogram:
    """A histogram as SVG paths, with a tick for each hit."""

    bars: str
    """The outline of the bins, each of width 1, on a base line at the height of the drawing."""
    scale: float
    """Width of a bin in the drawing."""
    ticks: str
    """A tick below the base line for each hit."""
    low: float
    high: float
    zero: float | None
    """The position of zero on the axis; None where it is outside or too near an end for a label."""
    most: int
    """Images in the fullest bin."""
    total: int


def draw_histogram(counts: np.ndarray, start: float, width: float, values: Sequence[float]) -> Histogram | None:
    """Return the drawing of a histogram with bins of equal width, without the empty bins at both ends.

    >>> drawing = draw_histogram(np.array([0, 2, 0, 4, 0]), start=-2.0, width=1.0, values=[1.0])
    >>> drawing.bars, drawing.scale, drawing.ticks, (drawing.low, drawing.high)
    ('M0 96v-48h1v48h1v-96h1v96z', 100.0, 'M200 97v9', (-1.0, 2.0))

    None where nothing was counted.
    """
    filled = np.flatnonzero(counts)
    if not len(filled) or not np.isfinite([start, width]).all() or width <= 0:
        return None
    counts = counts[filled[0] : filled[-1] + 1]
    start += float(filled[0] * width)
    most = int(counts.max())
    # a bin that is not empty is visible, however small its count
    heights = np.where(counts > 0, np.maximum(np.round(counts / most * HISTOGRAM_HEIGHT), 1), 0).astype(int)
    bars, last = f"M0 {HISTOGRAM_HEIGHT}", 0
    for height in heights.tolist():
        bars += f"v{last - height}h1" if height != last else "h1"
        last = height
    bars += f"v{last}z" if last else "z"
    end = start + len(counts) * width

    def place(value: float) -> float:
        return round(min(max((value - start) / (end - start), 0.0), 1.0) * HISTOGRAM_WIDTH, 1)

    zero = place(0.0)
    return Histogram(
        bars=bars,
        scale=HISTOGRAM_WIDTH / len(counts),
        ticks="".join(f"M{place(value):g} {HISTOGRAM_HEIGHT + 1}v9" for value in values),
        low=start,
        high=end,
        zero=zero if 0.2 <= zero / HISTOGRAM_WIDTH <= 0.8 else None,
        most=most,
        total=int(counts.sum()),
    )


@dataclass(frozen=True)
class BoxDrawing:
    """A receptive field on an image, in pixels of the image."""

    frame: str
    """The box as an SVG path; a small one has a ring around it."""
    shaded: bool
    """Whether the image is darkened outside the box; not where the box is small."""
    whole: bool
    """Whether the box is the whole image."""


def draw_box(box: Sequence[float], width: int, height: int) -> BoxDrawing:
    """Return the drawing of a box (top, left, bottom, right), in fractions, on an image.

    >>> draw_box((0.25, 0.0, 0.75, 0.5), width=200, height=100)
    BoxDrawing(frame='M0 25h100v50h-100z', shaded=True, whole=False)
    >>> draw_box((0.5, 0.5, 0.51, 0.505), width=200, height=100).frame
    'M100 50h1v1h-1zM90.5 50.5a10 10 0 1 0 20 0a10 10 0 1 0 -20 0'
    """
    top, left, bottom, right = box
    x, y, wide, high = left * width, top * height, (right - left) * width, (bottom - top) * height
    extent, side = max(wide, high), max(width, height)
    frame = f"M{x:.4g} {y:.4g}h{wide:.4g}v{high:.4g}h-{wide:.4g}z"
    if extent < 0.05 * side:
        radius = 0.05 * side
        arc = f"a{radius:.4g} {radius:.4g} 0 1 0"
        frame += f"M{x + wide / 2 - radius:.4g} {y + high / 2:.4g}{arc} {2 * radius:.4g} 0{arc} -{2 * radius:.4g} 0"
    whole = wide >= 0.99 * width and high >= 0.99 * height
    return BoxDrawing(frame, shaded=extent >= 0.2 * side and not whole, whole=whole)


LEVELS = 9
"""The number of greys in the drawing of a kernel; the middle one is zero."""


@dataclass(frozen=True)
class KernelDrawing:
    """A small kernel as SVG paths, in which each weight is a stroke of width 1."""

    width: int
    height: int
    levels: list[tuple[int, str]]
    """Greys from 0, most negative, to 8, most positive, each with the path of its weights; 4, zero, is left out."""


def draw_kernel(kernel: np.ndarray) -> KernelDrawing:
    """Return the drawing of a kernel [h, w], scaled by its largest absolute weight.

    >>> draw_kernel(np.array([[-1.0, 0.0], [0.5, 1.0]])).levels
    [(0, 'M0 .5h1'), (6, 'M0 1.5h1'), (8, 'M1 1.5h1')]
    """
    middle = LEVELS // 2
    largest = float(np.abs(kernel).max()) or 1.0
    levels = np.round(kernel / largest * middle).astype(int) + middle
    paths: dict[int, str] = {}
    for (y, x), level in np.ndenumerate(levels):
        if level != middle:
            paths[int(level)] = paths.get(int(level), "") + f"M{x} {y or ''}.5h1"
    return KernelDrawing(kernel.shape[1], kernel.shape[0], sorted(paths.items()))


CURVE_WIDTH, CURVE_HEIGHT = 160, 72


@dataclass(frozen=True)
class CurveDrawing:
    """Curves over one horizontal axis as SVG paths."""

    layer: str
    unit: str
    """Empty where only the layer has a curve."""
    low: float
    high: float
    """The ends of the horizontal axis."""
    top: float
    """The upper end of the vertical axis."""


def draw_curves(values: np.ndarray, layer: np.ndarray, unit: np.ndarray | None) -> CurveDrawing:
    """Return the drawing of a layer's and a unit's curve; the vertical axis reaches from 0 to 1, or to their maximum.

    >>> draw_curves(np.array([-1.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.5]), None).layer
    'M0 0 80 72 160 36'
    """
    order = np.argsort(values, kind="stable")
    values = values[order]
    width = float(values[-1] - values[0]) or 1.0
    top = max(1.0, float(np.nanmax(layer)), 0.0 if unit is None else float(np.nanmax(unit)))

    def path(curve: np.ndarray) -> str:
        points = [
            f"{(value - values[0]) / width * CURVE_WIDTH:.0f} {CURVE_HEIGHT - height / top * CURVE_HEIGHT:.0f}"
            for value, height in zip(values.tolist(), curve[order].tolist(), strict=True)
            if np.isfinite(height)
        ]
        return "M" + " ".join(points) if points else ""

    return CurveDrawing(path(layer), "" if unit is None else path(unit), float(values[0]), float(values[-1]), top)


@cache
def svg_image(picture: Picture) -> Markup:
    """Return a picture as an element of an SVG on a page two folders down.

    >>> svg_image(Picture("samples/3.webp", 32, 24))
    Markup('<image href="../../samples/3.webp" width="32" height="24"/>')
    """
    return Markup(f'<image href="../../{picture.href}" width="{picture.width}" height="{picture.height}"/>')
