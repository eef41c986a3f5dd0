"""The geometry of small drawings: receptive fields, kernels and curves.

Functions return numbers and SVG paths, which the templates put into inline SVG.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

FIELD_SIDE = 44.0
"""Side of the drawing of a receptive field, in CSS pixels."""


def short(number: float) -> float:
    """Return a length in pixels in four significant digits.

    >>> short(158.7654), short(4.0)
    (158.8, 4)
    """
    rounded = float(f"{number:.4g}")
    return int(rounded) if rounded.is_integer() else rounded


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


LEVELS = 9
"""The number of greys in the drawing of a kernel; the middle one is zero."""


def kernel_levels(kernel: np.ndarray) -> str:
    """Return a kernel [h, w], scaled by its largest absolute weight, as its width and a grey for each weight.

    >>> kernel_levels(np.array([[-1.0, 0.0], [0.5, 1.0]]))
    '2 0468'

    Greys reach from 0, most negative, to 8, most positive.
    """
    middle = LEVELS // 2
    largest = float(np.abs(kernel).max()) or 1.0
    levels = np.round(kernel / largest * middle).astype(int) + middle
    return f"{kernel.shape[1]} {''.join(map(str, levels.ravel().tolist()))}"


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
