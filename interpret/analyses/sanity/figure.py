"""Draw a sanity check: similarity curves of each method, and the maps of the first image."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from interpret.analyses.attribution.result import METHODS
from interpret.analyses.sanity.result import MEASURES, SanityCheck
from interpret.figures.lettering import fit, height_of, width_of
from interpret.figures.panels import WHOLE_LINE, Names, Panel, Size, choose, lay_out
from interpret.figures.sheet import Sheet
from interpret.figures.style import evenly, in_style, look, points

MOST_STEPS = 11
"""Number of steps whose maps are shown at most."""
CURVE_HEIGHT = 1.25
"""Inches: the height of the curves."""
LARGEST_MAP = 0.75
"""Inches: the greatest side of a map."""
COLOUR_MAP = "RdBu_r"
METHOD_LINES: dict[str, tuple[int, Any]] = {
    "gradient": (0, "-"),
    "gradient_x_input": (0, (0, (2, 1.2))),
    "integrated_gradients": (5, "-"),
    "smoothgrad": (5, (0, (2, 1.2))),
    "guided": (1, "-"),
    "deconvnet": (4, "-"),
    "gradcam": (2, "-"),
    "guided_gradcam": (2, (0, (2, 1.2))),
    "occlusion": (3, "-"),
    "kernel_shap": (6, "-"),
}
"""Colour, as a number of the style's palette, and dashes of each method; related methods share a colour."""


@in_style
def plot_sanity(
    result: SanityCheck,
    panels: Names = None,
    *,
    width: float | None = None,
    figsize: Size = None,
    ax: Axes | None = None,
) -> Figure | Axes:
    """Draw three panels of curves with one legend, and below them each method's maps of the first image.

    >>> curve = {name: np.array([[1.0, 0.9, 0.5]]) for name in ("gradient", "guided")}
    >>> maps = {name: np.zeros((3, 8, 8), np.float16) for name in curve}
    >>> figure = plot_sanity(SanityCheck("net", None, ["", "fc", "conv"], np.arange(3), 2, curve, curve, curve,
    ...     np.zeros((1, 8, 8, 3), np.uint8), maps, ["cat"], 0, np.zeros(3, int), {}))
    >>> [text.get_text() for axes in figure.axes if axes.get_legend() for text in axes.get_legend().get_texts()]
    ['Gradient', 'Guided backpropagation']

    Args:
        result: what `interpret.sanity_check` returned.
        panels: "rank", "rank_signed", "ssim" and "maps".
        width, figsize, ax: as in `interpret.plot`.
    """
    chosen = choose(panels, [*MEASURES, "maps"], ax=ax)
    measures = [name for name in MEASURES if name in chosen]
    means = [result.mean(measure, method) for measure in measures or MEASURES for method in result.rank]
    low = min(-0.05, float(np.nan_to_num(means).min()) - 0.05)

    def curves(measure: str) -> Panel:
        def draw(axes: Axes, wide: float, first: bool) -> None:
            _curves(axes, result, measure, low, wide)
            if first:
                axes.set_ylabel("similarity to the trained map")
            else:
                axes.tick_params(labelleft=False)

        def height(wide: float) -> float:
            lines = fit(MEASURES[measure], wide - 0.3, points("axes.title"), lines=3)
            below = fit(_x_label(result), wide - 0.25, points("axes.label"), lines=3)
            return CURVE_HEIGHT + height_of(lines, points("axes.title")) + height_of(below, points("axes.label")) + 0.3

        return Panel(measure, draw, 0.98, height)

    maps = Panel("maps", lambda axes, wide, _: _Maps(result, wide).draw(axes), WHOLE_LINE,
                 lambda wide: _Maps(result, wide).height)  # fmt: skip
    rows = [[curves(measure) for measure in measures], [maps] if "maps" in chosen else []]
    legend = [
        (Line2D([], [], color=_line_of(method)[0], linestyle=_line_of(method)[1]), METHODS.get(method, method))
        for method in result.rank
    ]
    return lay_out([row for row in rows if row], width, figsize, ax, "", legend if measures else (), legend_after=1)


def _x_label(result: SanityCheck) -> str:
    return f"top layers randomised (of {result.layers})"


def _line_of(method: str) -> tuple[Any, Any]:
    number, dashes = METHOD_LINES.get(method, (6, "-"))
    return look().categories[number], dashes


def _curves(axes: Axes, result: SanityCheck, measure: str, low: float, wide: float) -> None:
    """Draw each method's mean over the images, step by step."""
    for method in result.rank:
        color, dashes = _line_of(method)
        axes.plot(result.depths, result.mean(measure, method), color=color, linestyle=dashes)
    axes.axhline(0, color=look().hairline, linewidth=0.6, zorder=0)
    ticks = [tick for tick in np.linspace(-1, 1, 9) if tick >= low]
    axes.set(xlim=(0, max(result.depths[-1], 1)), ylim=(low, 1.04), yticks=ticks)
    # a narrow panel has room for two numbers
    axes.xaxis.set_major_locator(MaxNLocator(2 if wide < 1.3 * look().scale else 5, integer=True))
    axes.set_title(fit(MEASURES[measure], wide - 0.3, points("axes.title"), lines=3))
    axes.set_xlabel(fit(_x_label(result), wide - 0.25, points("axes.label"), lines=3))


class _Maps:
    """The maps of the first image by method and step; lengths are in inches."""

    def __init__(self, result: SanityCheck, width: float) -> None:
        self.result, self.width, self.look = result, width, look()
        self.size = points("axes.label")
        methods = [METHODS.get(method, method) for method in result.rank]
        narrow = width < 5 * self.look.scale
        widest = max(width_of(name, self.size) for name in methods)
        self.left = min(widest, (0.8 if narrow else 1.05) * self.look.scale) + 0.06
        self.names = [fit(name, self.left - 0.06, self.size, lines=3) for name in methods]
        # a column is at least as wide as its name, which is written upwards, is high
        room = max(0.27, 1.6 * self.size / 72)
        self.shown = evenly(len(result.steps), max(1, min(MOST_STEPS, int((width - self.left) / room))))
        self.cell = min((width - self.left) / len(self.shown), LARGEST_MAP)
        ratio = result.pictures.shape[1] / result.pictures.shape[2]
        lines = max(name.count("\n") + 1 for name in self.names)
        self.row = max(self.cell * ratio, lines * self.size * 1.15 / 72 + 0.04)
        self.picture = 0.95 * self.cell, 0.95 * self.cell * ratio
        self.steps = [fit(result.steps[step], 1.1) or "trained" for step in self.shown]
        self.number = height_of("0", self.size)
        self.head = max(width_of(step) for step in self.steps) + self.number + 0.16
        side = self.left - 0.12
        self.head = max(self.head, side * ratio + 0.06)
        self.height = self.head + len(methods) * self.row

    def draw(self, axes: Axes) -> None:
        result = self.result
        sheet = Sheet(axes, self.width, self.height)
        side = self.left - 0.12
        high = side * result.pictures.shape[1] / result.pictures.shape[2]
        sheet.picture(0, self.head - 0.06 - high, side, high, result.pictures[0])
        for column, step in enumerate(self.shown):
            middle = self.left + (column + 0.475) * self.cell
            sheet.write(middle, self.head - 0.03, str(int(result.depths[step])), self.size, ha="center", va="bottom")
            sheet.write(middle, self.head - 0.05 - self.number, self.steps[column], rotation=90, ha="center",
                        va="bottom", color=self.look.quiet)  # fmt: skip
        for row, (method, name) in enumerate(zip(result.rank, self.names, strict=True)):
            top = self.head + row * self.row
            sheet.write(0, top + 0.48 * self.row, name, self.size, va="center")
            for column, step in enumerate(self.shown):
                place = self.left + column * self.cell, top
                sheet.picture(*place, *self.picture, result.maps[method][step].astype(np.float32), cmap=COLOUR_MAP,
                              vmin=-1, vmax=1)  # fmt: skip
                sheet.frame(*place, *self.picture, self.look.hairline, 0.4)
