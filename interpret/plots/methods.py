"""The table of methods: a row for each, a column for each image, and beside them what the maps depend on."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from interpret.plots.style import CATEGORIES, HAIRLINE, INK, QUIET, WIDTH, Figure, in_style, show
from interpret.results.methods import METHODS, MethodComparison
from interpret.similarity import scaled

COLORS = "RdBu_r"
MOST = 5
"""Images in a figure; the numbers are of all."""
NAMES, NUMBERS, PICTURES = 1.15, 0.9, 8.8
"""Inches for the names of the methods, for each of the two columns of numbers, and for all rows of pictures."""


@in_style
def plot_methods(result: MethodComparison) -> Figure:
    """Draw a table of maps with one legend, and beside each row how alike they are to others.

    >>> from interpret.results.methods import MethodComparison
    >>> one = np.ones(1)
    >>> maps = {name: np.eye(8, dtype=np.float32)[None] for name in ("guided", "gradcam")}
    >>> numbers = {name: one for name in maps}
    >>> figure = plot_methods(MethodComparison("net", None, np.zeros((1, 8, 8, 3), np.uint8), maps, one, one, ["cat"],
    ...     ["dog"], one, one, numbers, numbers, {}))
    >>> figure.axes[0].get_title()
    'cat'
    """
    shown = min(len(result.pictures), MOST)
    rows = len(result.maps)
    side = min((WIDTH - NAMES - 2 * NUMBERS - 0.3) / shown, max(0.4, PICTURES / (rows + 1)))
    height = side * result.pictures.shape[1] / result.pictures.shape[2]
    top, bottom = 0.42, 0.62
    width = NAMES + shown * side + 2 * NUMBERS + 0.3
    total = top + (rows + 1) * height + 0.3 + bottom
    figure = Figure(figsize=(width, total), facecolor="white")

    def place(left: float, upper: float, wide: float, high: float) -> Axes:
        """Return axes, in inches from the figure's upper left corner."""
        return figure.add_axes((left / width, 1 - (upper + high) / total, wide / width, high / total))

    for column in range(shown):
        axes = place(NAMES + column * side, top, side * 0.96, height * 0.96)
        show(axes, result.pictures[column])
        axes.set_title(_wrapped(result.target_names[column], side), fontsize=7, color=INK, pad=3, parse_math=False)
        axes.set_xlabel(
            _wrapped(result.other_names[column], side), fontsize=6, color=QUIET, labelpad=2, parse_math=False
        )
    figure.text(0.05 / width, 1 - (top + height * 0.4) / total, "image", fontsize=8, color=INK, va="center")
    start = top + height + 0.3
    lowest = [
        min(float(values.min()) for values in numbers.values())
        for numbers in (result.same_for_other, result.same_as_image)
    ]
    for row, (method, maps) in enumerate(result.maps.items()):
        upper = start + row * height
        label = textwrap.fill(METHODS.get(method, method), 15)
        figure.text(0.05 / width, 1 - (upper + height * 0.48) / total, label, fontsize=8, color=INK, va="center")
        for column in range(shown):
            axes = place(NAMES + column * side, upper, side * 0.96, height * 0.96)
            show(axes, scaled(maps[column]), cmap=COLORS, vmin=-1, vmax=1)
            for spine in axes.spines.values():
                spine.set(visible=True, color=HAIRLINE, linewidth=0.4)
        for column, values in enumerate((result.same_for_other[method], result.same_as_image[method])):
            left = NAMES + shown * side + 0.12 + column * (NUMBERS + 0.05)
            axes = place(left, upper, NUMBERS - 0.08, height * 0.96)
            _numbers(axes, values, CATEGORIES[column], min(-0.3, lowest[column] - 0.06), last=row == rows - 1)
    for column, words in enumerate((_other(result), "ρ with the\nimage's detail")):
        left = NAMES + shown * side + 0.12 + column * (NUMBERS + 0.05)
        figure.text((left + (NUMBERS - 0.08) / 2) / width, 1 - (start - 0.06) / total, words, fontsize=7, color=INK,
                    ha="center", va="bottom")  # fmt: skip
    _legend(place(NAMES, total - 0.36, max(shown * side * 0.96, 1.0), 0.09), result.layer is None)
    return figure


def _numbers(axes: Axes, values: Any, color: str, low: float, last: bool) -> None:
    """Draw correlations on a line from the lowest to 1: a dot each, and a bar for their mean."""
    mean = float(np.mean(values))
    axes.barh([0], [mean], height=0.34, color=color, alpha=0.3, linewidth=0)
    axes.plot(values, np.zeros(len(values)), "o", markersize=2.6, color=color, markeredgewidth=0, alpha=0.8)
    axes.axvline(0, color=HAIRLINE, linewidth=0.6)
    axes.set(xlim=(low, 1.06), ylim=(-1, 1), yticks=[], xticks=[-0.5, 0, 0.5, 1] if low < -0.5 else [0, 0.5, 1])
    axes.tick_params(labelbottom=last, length=2 if last else 0)
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_visible(last)
    axes.text(0.98, 0.68, f"{mean:.2f}".replace("-", "−"), transform=axes.transAxes, fontsize=7, color=INK, ha="right")


def _legend(axes: Axes, output: bool) -> None:
    axes.figure.colorbar(ScalarMappable(Normalize(-1, 1), COLORS), cax=axes, orientation="horizontal")
    what = "class" if output else "unit"
    axes.set_xticks([-1, 0, 1], [f"against the {what}", "0", f"for the {what}"])
    axes.tick_params(length=2)


def _other(result: MethodComparison) -> str:
    return "ρ with the map\nof another " + ("class" if result.layer is None else "unit")


def _wrapped(name: str, side: float) -> str:
    return "\n".join(textwrap.wrap(name, max(8, int(side * 17)), max_lines=2, placeholder="…"))
