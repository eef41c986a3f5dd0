"""The figure of predictions: images, each with bars for its most probable classes, the right one marked."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from interpret.plots.style import ACCENT, INK, QUIET, WIDTH, Figure, in_style, show
from interpret.results.predictions import Predictions

COLUMNS = 4
BAR = "#a9c7e0"
"""Light enough that a class's name can be read on it."""
LONGEST = 24


@in_style
def plot_predictions(result: Predictions, columns: int = COLUMNS) -> Figure:
    """Draw predictions as in Krizhevsky et al. 2012, Fig. 4 (left): at most 24 images, with their classes' bars."""
    count = min(len(result.names), 24)
    columns = min(columns, count)
    rows = -(-count // columns)
    width = WIDTH * columns / COLUMNS if columns < COLUMNS else WIDTH
    each = width / columns
    figure = Figure(figsize=(width, 0.75 + rows * (0.85 * each + 0.15 * result.top.shape[1] + 0.45)), facecolor="white")
    figure.set_layout_engine("constrained")
    draw_predictions(figure, result, count, columns)
    figure.suptitle(f"{result.title}: the {result.top.shape[1]} most probable classes", fontsize=9)
    return figure


def draw_predictions(figure: Any, result: Predictions, count: int, columns: int) -> None:
    """Draw the first images' predictions into a figure or a part of one."""
    rows = -(-count // columns)
    height, width = result.pictures.shape[1:3]
    bars = 0.17 * result.top.shape[1] * width / height
    grid = figure.add_gridspec(2 * rows, columns, height_ratios=[1, bars] * rows)
    for image in range(count):
        row, column = divmod(image, columns)
        picture = figure.add_subplot(grid[2 * row, column])
        truth = int(result.truth[image])
        show(picture, result.pictures[image], _cut(result.class_name(truth)) if truth >= 0 else "")
        _draw_bars(figure.add_subplot(grid[2 * row + 1, column]), result, image, last=image + columns >= count)
    if (result.truth >= 0).any():
        marks = [Patch(color=ACCENT, alpha=0.55, label="right class"), Patch(color=BAR, label="other class")]
        figure.legend(handles=marks, loc="outside lower center", ncols=2, labelcolor=QUIET)


def _draw_bars(axes: Axes, result: Predictions, image: int, last: bool) -> None:
    labels, values = result.top[image], result.probabilities[image]
    places = np.arange(len(labels))
    right = labels == result.truth[image]
    for place, value, is_right in zip(places.tolist(), values.tolist(), right.tolist(), strict=True):
        axes.barh(place, value, 0.86, color=ACCENT if is_right else BAR, alpha=0.55 if is_right else 1)
    for place, label in zip(places.tolist(), labels.tolist(), strict=True):
        axes.text(0.02, place, _cut(result.class_name(label)), va="center_baseline", fontsize=6, color=INK)
    axes.set(xlim=(0, 1), ylim=(len(labels) - 0.5, -0.5), yticks=[])
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"] if last else [])
    axes.tick_params(labelsize=6, length=2, pad=1)
    if last:
        axes.set_xlabel("probability", fontsize=6.5, labelpad=1)


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
