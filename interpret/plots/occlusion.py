"""The five columns of an occlusion experiment."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from interpret.plots.style import CATEGORIES, HAIRLINE, INK, QUIET, Figure, in_style, shorten, show
from interpret.results.occlusion import Occlusion

NAMED_CLASSES = 6
"""How many classes of a map have a colour of their own; the others share a grey."""
LONGEST_NAME = 22


@in_style
def plot_occlusion(occlusion: Occlusion) -> Figure:
    """Draw an occlusion experiment as Zeiler & Fergus 2014, Fig. 7: a row for each image, five columns.

    >>> plot_occlusion  # doctest: +ELLIPSIS
    <function plot_occlusion at ...>

    The maps show, at the place of the occluder's centre, what was measured with it there.
    """
    count = len(occlusion.labels)
    columns: list[tuple[str, Callable[[Axes, Occlusion, int], None]]] = [("image", _image)]
    if occlusion.layer is not None:
        columns += [("summed activation", _activations), ("projections of the map", _projections)]
    columns += [("probability of the class", _probabilities), ("most probable", _classes)]
    figure = Figure(figsize=(1.92 * len(columns), 0.35 + 1.78 * count), layout="constrained")
    axes = figure.subplots(count, len(columns), squeeze=False)
    for column, (title, draw) in enumerate(columns):
        for row in range(count):
            axes[row, column].set(xticks=[], yticks=[])
            draw(axes[row, column], occlusion, row)
        axes[0, column].set_title(f"({'abcde'[column]}) {title}", fontsize=8, color=INK, loc="left")
    return figure


def _image(axes: Axes, occlusion: Occlusion, row: int) -> None:
    show(axes, occlusion.pictures[row])
    height, width = occlusion.size
    axes.add_patch(Rectangle((-0.5, -0.5), width, height, facecolor="#808080", edgecolor="white", linewidth=0.8))
    axes.set_xlabel(
        f"{_short(occlusion.class_name(int(occlusion.labels[row])))}\np = {occlusion.clean_probabilities[row]:.2f}",
        fontsize=7,
        color=QUIET,
    )


def _activations(axes: Axes, occlusion: Occlusion, row: int) -> None:
    assert occlusion.activations is not None and occlusion.clean_activations is not None
    assert occlusion.layer is not None and occlusion.channels is not None
    _heat(axes, occlusion, occlusion.activations[row], float(occlusion.clean_activations[row]), None)
    axes.set_xlabel(f"map {int(occlusion.channels[row])}\nof {shorten([occlusion.layer])[0]}", fontsize=7, color=QUIET)


def _probabilities(axes: Axes, occlusion: Occlusion, row: int) -> None:
    _heat(axes, occlusion, occlusion.probabilities[row], float(occlusion.clean_probabilities[row]), 1.0)
    axes.set_xlabel(_short(occlusion.class_name(int(occlusion.labels[row]))), fontsize=7, color=QUIET)


def _extent(occlusion: Occlusion) -> tuple[float, float, float, float]:
    """Where the maps lie in the image: each place is a cell around the occluder's centre."""
    down, right = occlusion.settings["stride"]
    height, width = occlusion.size
    left, top = (width - right) / 2 - 0.5, (height - down) / 2 - 0.5
    return left, left + right * len(occlusion.lefts), top + down * len(occlusion.tops), top


def _framed(axes: Axes, occlusion: Occlusion) -> None:
    """Give a map the image's own frame, so that places compare across the row."""
    height, width = occlusion.pictures.shape[1:3]
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), aspect="equal", xticks=[], yticks=[])
    axes.set_facecolor("#efefef")
    for side in axes.spines.values():
        side.set(visible=True, color=HAIRLINE, linewidth=0.5)


def _heat(axes: Axes, occlusion: Occlusion, values: NDArray[Any], clean: float, top: float | None) -> None:
    highest = max(float(values.max()), clean) if top is None else top
    lowest = min(float(values.min()), 0.0)
    drawn = axes.imshow(values, extent=_extent(occlusion), cmap="viridis", vmin=lowest, vmax=max(highest, 1e-12))
    _framed(axes, occlusion)
    bar = axes.figure.colorbar(drawn, ax=axes, fraction=0.046, pad=0.03)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=6, length=2)
    # where the value without the occluder lies
    bar.ax.axhline(clean, color="white", linewidth=2.2)
    bar.ax.axhline(clean, color=INK, linewidth=1.0)


def _projections(axes: Axes, occlusion: Occlusion, row: int) -> None:
    """Draw this image's projection in a frame, with those of other images beside it."""
    assert occlusion.projections is not None
    own = occlusion.projections[row]
    others = occlusion.others.get(str(row))
    tiles = [own, *([] if others is None else others)]
    side = math.ceil(math.sqrt(len(tiles)))
    for place, tile in enumerate(tiles):
        top, left = divmod(place, side)
        axes.imshow(tile, extent=(left, left + 0.97, top + 0.97, top), interpolation="auto", aspect="auto")
    axes.add_patch(Rectangle((0, 0), 0.97, 0.97, fill=False, edgecolor=INK, linewidth=1.2, clip_on=False, zorder=3))
    rows = math.ceil(len(tiles) / side)
    axes.set(xlim=(0, side), ylim=(max(rows, side), 0), aspect="equal", xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel("framed: this image" if others is not None else "in this image", fontsize=7, color=QUIET)


def _classes(axes: Axes, occlusion: Occlusion, row: int) -> None:
    """Draw the most probable class at each place, and name the classes below."""
    found = occlusion.predictions[row]
    classes, counts = np.unique(found, return_counts=True)
    clean = int(occlusion.clean_predictions[row])
    order = sorted(zip(classes.tolist(), counts.tolist(), strict=True), key=lambda one: (one[0] != clean, -one[1]))
    named = [label for label, _ in order[:NAMED_CLASSES]]
    colours = [*CATEGORIES[: len(named)], "#d9d9d9"]
    index = np.full(found.shape, len(named))
    for place, label in enumerate(named):
        index[found == label] = place
    axes.imshow(
        index,
        extent=_extent(occlusion),
        cmap=ListedColormap(colours),
        vmin=-0.5,
        vmax=len(colours) - 0.5,
        interpolation="nearest",
    )
    _framed(axes, occlusion)
    rest = len(order) - len(named)
    labels = [_short(occlusion.class_name(label)) for label in named] + ([f"{rest} others"] if rest > 0 else [])
    handles = [Rectangle((0, 0), 1, 1, color=colours[place]) for place in range(len(labels))]
    axes.legend(
        handles,
        labels,
        loc="center left",
        bbox_to_anchor=(1.02, 0.5),
        fontsize=6,
        handlelength=0.9,
        handleheight=0.9,
        labelspacing=0.35,
        borderaxespad=0,
    )


def _short(name: str) -> str:
    """Return a class's first name, and no more of it than there is room for."""
    first = name.split(",")[0]
    return first if len(first) <= LONGEST_NAME else first[: LONGEST_NAME - 1] + "…"
