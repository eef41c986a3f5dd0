"""The figure of neighbours: each query with its nearest images; with predictions, the whole of AlexNet's Fig. 4."""

from __future__ import annotations

from typing import Any

from matplotlib.patches import Rectangle

from interpret.plots.predictions import draw_predictions
from interpret.plots.style import ACCENT, QUIET, WIDTH, Figure, in_style, show
from interpret.results.neighbours import Neighbours
from interpret.results.predictions import Predictions

MOST = 16
"""Queries in one figure."""
LONGEST = 14


@in_style
def plot_neighbours(result: Neighbours) -> Figure:
    """Draw neighbours as in Krizhevsky et al. 2012, Fig. 4 (right): queries on the left, at most 16, nearest first."""
    rows, columns = min(len(result.items), MOST), result.items.shape[1] + 1
    width = min(WIDTH, 1.15 * columns)
    height, breadth = result.query_pictures.shape[1:3]
    figure = Figure(figsize=(width, 0.4 + rows * (width / columns * height / breadth + 0.25)), facecolor="white")
    figure.set_layout_engine("constrained", h_pad=0.02, w_pad=0.02)
    draw_neighbours(figure, result)
    figure.suptitle(f"{result.title}: {_measure(result)} below each", fontsize=9)
    return figure


def draw_neighbours(figure: Any, result: Neighbours) -> None:
    """Draw neighbours into a figure or a part of one."""
    rows, columns = min(len(result.items), MOST), result.items.shape[1] + 1
    axes = figure.subplots(rows, columns, squeeze=False)
    for row in range(rows):
        query = axes[row, 0]
        show(query, result.query_pictures[row])
        height, width = result.query_pictures.shape[1:3]
        frame = Rectangle((-0.5, -0.5), width, height, fill=False, edgecolor=ACCENT, linewidth=2, clip_on=False)
        query.add_patch(frame)
        query.set_xlabel(_cut(result.label_name(int(result.query_labels[row]))), fontsize=6, labelpad=3, color=ACCENT)
        if row == 0:
            query.set_title("query", fontsize=7, color=ACCENT)
            axes[0, 1].set_title("nearest", fontsize=7, color=QUIET)
        for column in range(columns - 1):
            near = axes[row, column + 1]
            show(near, result.pictures[row, column])
            label = _cut(result.label_name(int(result.labels[row, column])))
            distance = f"{result.distances[row, column]:.3g}"
            near.set_xlabel(f"{label}, {distance}" if label else distance, fontsize=6, labelpad=3, color=QUIET)


@in_style
def plot_krizhevsky_figure4(predictions: Predictions, neighbours: Neighbours, columns: int = 2) -> Figure:
    """Draw predictions on the left and neighbours on the right, the whole of Krizhevsky et al. 2012, Fig. 4."""
    count = min(len(predictions.names), 4 * columns)
    lines = -(-count // columns)
    rows, across = min(len(neighbours.items), MOST), neighbours.items.shape[1] + 1
    left, height = 1.4 * columns, 0.7 + lines * (1.5 + 0.13 * predictions.top.shape[1])
    # as large as the height allows
    tile = min(max((height - 0.7) / rows - 0.28, 0.6), 1.5)
    right, height = tile * across, max(height, 0.7 + rows * (tile + 0.28))
    figure = Figure(figsize=(left + right, height), facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.03, h_pad=0.03)
    parts: Any = figure.subfigures(1, 2, width_ratios=[left, right], wspace=0.03)
    draw_predictions(parts[0], predictions, count, columns)
    parts[0].suptitle(predictions.title, fontsize=8.5)
    draw_neighbours(parts[1], neighbours)
    parts[1].suptitle(f"{neighbours.title}:\n{_measure(neighbours)} below each", fontsize=8.5)
    return figure


def _measure(result: Neighbours) -> str:
    return "Euclidean distance" if result.metric == "euclidean" else "cosine distance"


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
