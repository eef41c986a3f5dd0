"""The sanity check: curves of each method, and the maps that they were measured on."""

from __future__ import annotations

import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from interpret.plots.style import CATEGORIES, HAIRLINE, INK, QUIET, WIDTH, Figure, in_style, show
from interpret.results.methods import METHODS
from interpret.results.sanity import MEASURES, SanityCheck

COLUMNS = 11
"""Steps whose maps are shown at most."""
NAMES, TOP, HEADER, PANEL = 1.15, 0.3, 1.35, 1.75
"""Inches: the methods' names, above the curves, between the curves and the maps, and the curves."""
_BLUE, _VERMILION, _GREEN, _PINK, _ORANGE, _SKY, _GREY = CATEGORIES
LINES = {
    "gradient": (_BLUE, "-"),
    "gradient_x_input": (_BLUE, (0, (2, 1.2))),
    "integrated_gradients": (_SKY, "-"),
    "smoothgrad": (_SKY, (0, (2, 1.2))),
    "guided": (_VERMILION, "-"),
    "deconvnet": (_ORANGE, "-"),
    "gradcam": (_GREEN, "-"),
    "guided_gradcam": (_GREEN, (0, (2, 1.2))),
    "occlusion": (_PINK, "-"),
    "kernel_shap": (_GREY, "-"),
}
"""Colour and dashes of each method: one colour for each kin."""


@in_style
def plot_sanity(result: SanityCheck) -> Figure:
    """Draw three panels of curves with one legend, and below them each method's maps of the first image.

    >>> curve = {name: np.array([[1.0, 0.9, 0.5]]) for name in ("gradient", "guided")}
    >>> maps = {name: np.zeros((3, 8, 8), np.float16) for name in curve}
    >>> figure = plot_sanity(SanityCheck("net", None, ["", "fc", "conv"], np.arange(3), 2, curve, curve, curve,
    ...     np.zeros((1, 8, 8, 3), np.uint8), maps, ["cat"], 0, np.zeros(3, int), {}))
    >>> [text.get_text() for text in figure.legends[0].get_texts()]
    ['Gradient', 'Guided backpropagation']
    """
    shown = np.unique(np.linspace(0, len(result.steps) - 1, min(COLUMNS, len(result.steps))).round().astype(int))
    methods = list(result.rank)
    cell = min((WIDTH - NAMES) / len(shown), 0.75)
    high = cell * result.pictures.shape[1] / result.pictures.shape[2]
    legend = 0.2 * -(-len(methods) // 5) + 0.1
    table = TOP + PANEL + 0.42 + legend + HEADER
    total = table + len(methods) * high + 0.08
    figure = Figure(figsize=(WIDTH, total), facecolor="white")

    def place(left: float, upper: float, wide: float, tall: float) -> Axes:
        """Return axes, in inches from the figure's upper left corner."""
        return figure.add_axes((left / WIDTH, 1 - (upper + tall) / total, wide / WIDTH, tall / total))

    left, gap = 0.62, 0.22
    wide = (WIDTH - left - 0.05 - 2 * gap) / 3
    means = [result.mean(measure, method) for measure in MEASURES for method in methods]
    low = min(-0.05, float(np.nan_to_num(means).min()) - 0.05)
    for column, (measure, title) in enumerate(MEASURES.items()):
        axes = place(left + column * (wide + gap), TOP, wide, PANEL)
        _curves(axes, result, measure, title, low)
        if column == 0:
            axes.set_ylabel("similarity to the trained map")
        else:
            axes.set_yticklabels([])
    figure.text(
        (left + WIDTH - 0.05) / 2 / WIDTH,
        1 - (TOP + PANEL + 0.38) / total,
        f"layers randomised, from the top (of {result.layers} with weights)",
        fontsize=8,
        color=INK,
        ha="center",
    )
    figure.legend(
        handles=figure.axes[0].lines[: len(methods)],
        labels=[METHODS.get(method, method) for method in methods],
        loc="upper center",
        bbox_to_anchor=(0.5, 1 - (TOP + PANEL + 0.42) / total),
        ncols=min(5, len(methods)),
        handlelength=2.2,
        columnspacing=1.4,
    )
    picture = NAMES - 0.25
    show(place(0.05, table - picture - 0.06, picture, picture), result.pictures[0])
    for column, step in enumerate(shown):
        name = result.steps[step]
        name = name if len(name) <= 24 else f"…{name[-23:]}"
        x = (NAMES + (column + 0.475) * cell) / WIDTH
        figure.text(x, 1 - (table - 0.05) / total, result.depths[step], fontsize=7, color=INK, ha="center")
        figure.text(x, 1 - (table - 0.2) / total, name or "trained", fontsize=6, rotation=90, parse_math=False,
                    color=QUIET, ha="center", va="bottom")  # fmt: skip
    for row, method in enumerate(methods):
        upper = table + row * high
        label = textwrap.fill(METHODS.get(method, method), 15)
        figure.text(0.05 / WIDTH, 1 - (upper + high * 0.48) / total, label, fontsize=7.5, color=INK, va="center")
        for column, step in enumerate(shown):
            axes = place(NAMES + column * cell, upper, cell * 0.95, high * 0.95)
            show(axes, result.maps[method][step].astype(np.float32), cmap="RdBu_r", vmin=-1, vmax=1)
            for spine in axes.spines.values():
                spine.set(visible=True, color=HAIRLINE, linewidth=0.4)
    return figure


def _curves(axes: Axes, result: SanityCheck, measure: str, title: str, low: float) -> None:
    for method in result.rank:
        color, dashes = LINES.get(method, (_GREY, ":"))
        axes.plot(result.depths, result.mean(measure, method), color=color, linestyle=dashes, linewidth=1.3)
    axes.axhline(0, color=HAIRLINE, linewidth=0.6, zorder=0)
    axes.set(
        xlim=(0, result.depths[-1]), ylim=(low, 1.04), yticks=[tick for tick in np.linspace(-1, 1, 9) if tick >= low]
    )
    axes.set_title(title[0].upper() + title[1:], color=INK, fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
