"""The look that all figures share: ink, quiet lines, colours that a colour-blind reader tells apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from io import BytesIO
from typing import Any, TypeVar, cast

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as PlainFigure

INK, QUIET, HAIRLINE = "#1a1a1a", "#666666", "#b0b0b0"
ACCENT = "#c2410c"
CATEGORIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
"""Colours of unordered things (Okabe & Ito), told apart without red and green."""
WIDTH = 7.2
"""Inches across two columns of a paper."""

RC: dict[str, Any] = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.labelsize": 8,
    "axes.edgecolor": HAIRLINE,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "figure.facecolor": "white",
    "savefig.dpi": 200,
    "svg.hashsalt": "interpret",
    "pdf.fonttype": 42,
}


SCREEN_DPI = 100
"""Pixels that a notebook shows for an inch of a figure; it gets twice as many, for screens that have them."""
LONGEST = 2**15
"""Pixels along a side that browsers show."""


class Figure(PlainFigure):
    """A figure that a notebook shows as a picture, with no further import and no `%matplotlib`.

    >>> picture, size = Figure(figsize=(2, 1))._repr_png_()
    >>> picture[1:4], size
    (b'PNG', {'width': 200, 'height': 100})
    """

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """Return what Jupyter shows, and how large on the screen."""
        width, height = self.get_size_inches().tolist()
        file = BytesIO()
        with matplotlib.rc_context(cast(Any, RC)):
            self.savefig(file, format="png", dpi=min(2 * SCREEN_DPI, LONGEST / max(width, height)))
        return file.getvalue(), {"width": round(width * SCREEN_DPI), "height": round(height * SCREEN_DPI)}


Drawing = TypeVar("Drawing", bound=Callable[..., PlainFigure])


def in_style(draw: Drawing) -> Drawing:
    """Make a function that returns a figure draw it in the common style.

    >>> @in_style
    ... def plot_line() -> Figure:
    ...     figure, axes = figure_grid(1, 2, (4, 2))
    ...     axes[0, 1].plot([1, 2])
    ...     return figure
    >>> plot_line().axes[0].spines["top"].get_visible()
    False
    """

    @wraps(draw)
    def drawn(*args: Any, **kwargs: Any) -> PlainFigure:
        with matplotlib.rc_context(cast(Any, RC)):
            return draw(*args, **kwargs)

    return cast(Drawing, drawn)


def figure_grid(rows: int, columns: int, size: tuple[float, float], **kwargs: Any) -> tuple[Figure, Any]:
    """Return a figure of a size in inches with an array of rows × columns of axes."""
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    return figure, figure.subplots(rows, columns, squeeze=False, **kwargs)


def by_depth(count: int) -> list[Any]:
    """Return colours for things in an order, such as layers: dark for the first, light for the last.

    >>> len(by_depth(3))
    3
    """
    return [tuple(color) for color in matplotlib.colormaps["viridis"](np.linspace(0, 0.88, max(count, 1)))]


def show(axes: Axes, picture: Any, title: str = "", **kwargs: Any) -> None:
    """Draw a picture without ticks: small ones with sharp pixels, large ones averaged as they shrink."""
    axes.imshow(np.asarray(picture), **({"interpolation": "auto"} | kwargs))
    axes.set(xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set_visible(False)
    if title:
        axes.set_title(title, fontsize=7, color=INK)


def shorten(names: Sequence[str], most: int = 26) -> list[str]:
    """Return names that fit a legend: long ones lose their middle.

    >>> shorten(["conv1", "a-very-long-name-of-a-layer.conv"], 12)
    ['conv1', 'a-ver….conv']
    """
    half = (most - 1) // 2
    return [name if len(name) <= most else f"{name[:half]}…{name[-half:]}" for name in names]
