"""Axes with coordinates in inches, for pictures and text at exact positions."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from interpret.figures.style import bare, look
from interpret.support.wording import printable


class Sheet:
    """Axes with coordinates in inches: x to the right and y down from the upper left corner.

    In given axes of another size, the sheet is scaled to fit; text keeps its size.
    """

    def __init__(self, axes: Axes, width: float, height: float) -> None:
        self.axes = axes
        self.width, self.height = width, height
        self.look = look()
        bare(axes)
        axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal", anchor="N")

    def picture(self, x: float, y: float, width: float, height: float, pixels: Any, **settings: Any) -> None:
        """Draw a picture with its upper left corner at (x, y)."""
        extent = (x, x + width, y + height, y)
        settings = {"interpolation": "auto"} | settings
        self.axes.imshow(np.asarray(pixels), extent=extent, aspect="equal", **settings)
        # imshow has set the limits to the picture
        self.axes.set(xlim=(0, self.width), ylim=(self.height, 0))

    def box(self, x: float, y: float, width: float, height: float, **settings: Any) -> None:
        """Draw a rectangle."""
        self.axes.add_patch(Rectangle((x, y), width, height, **({"linewidth": 0.0, "clip_on": False} | settings)))

    def frame(self, x: float, y: float, width: float, height: float, color: Any, linewidth: float = 0.5) -> None:
        """Draw the outline of a rectangle."""
        self.box(x, y, width, height, fill=False, edgecolor=color, linewidth=linewidth)

    def line(self, xs: Any, ys: Any, **settings: Any) -> None:
        """Draw a line through points."""
        given: dict[str, Any] = {"color": self.look.hairline, "linewidth": 0.6, "clip_on": False} | settings
        self.axes.plot(xs, ys, **given)

    def write(self, x: float, y: float, words: str, size: float | None = None, **settings: Any) -> Text:
        """Write text with its upper left corner at (x, y), or aligned by `ha` and `va`."""
        given: dict[str, Any] = {"va": "top", "ha": "left", "color": self.look.ink, "linespacing": 1.1} | settings
        size = self.look.small if size is None else size
        # text inside the sheet does not affect the layout of the figure
        return self.axes.text(x, y, printable(words), fontsize=size, in_layout=False, **given)
