"""The five columns of an occlusion experiment."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, overload

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from interpret.errors import InterpretError
from interpret.plots.lettering import first_name, fit, height_of
from interpret.plots.panels import Names, Panel, Size, choose, lay_out, width_in_inches
from interpret.plots.style import bare, in_style, look, mix, points
from interpret.results.occlusion import Occlusion

NAMED_CLASSES = 5
"""How many classes of a map have a colour of their own; the others share a grey."""
TITLES = {
    "image": "image",
    "activation": "summed activation",
    "projections": "projections of the map",
    "probability": "probability of the class",
    "classes": "most probable",
}
LEAST = 1.04
"""Inches of width that a panel needs."""


@overload
def plot_occlusion(
    occlusion: Occlusion,
    panels: Names = None,
    images: int | Sequence[int] | None = None,
    *,
    width: float | None = None,
    figsize: Size = None,
    ax: None = None,
) -> Figure: ...


@overload
def plot_occlusion(
    occlusion: Occlusion, panels: Names = None, images: int | Sequence[int] | None = None, *, ax: Axes
) -> Axes: ...


@in_style
def plot_occlusion(
    occlusion: Occlusion,
    panels: Names = None,
    images: int | Sequence[int] | None = None,
    *,
    width: float | None = None,
    figsize: Size = None,
    ax: Axes | None = None,
) -> Figure | Axes:
    """Draw an occlusion experiment as Zeiler & Fergus 2014, Fig. 7: a row for each image, five columns.

    >>> plot_occlusion  # doctest: +ELLIPSIS
    <function plot_occlusion at ...>

    The maps show, at the place of the occluder's centre, what was measured with it there.

    Args:
        occlusion: what `interpret.occlude` returned.
        panels: "image", "activation", "projections", "probability", "classes"; "probability" in axes of one's own.
        images: which of the images, from 0; None: all, and the first in axes of one's own.
        width, figsize, ax: as in `interpret.plot`.
    """
    names = list(TITLES) if occlusion.layer is not None else ["image", "probability", "classes"]
    chosen = choose(panels, names, ax=ax, main="probability")
    count = len(occlusion.labels)
    asked = range(1 if ax is not None else count) if images is None else [images] if isinstance(images, int) else images
    for image in asked:
        if not 0 <= image < count:
            raise InterpretError(f"images must be from 0 to {count - 1}, the occluded images, not {image}")
    if ax is not None and len(asked) > 1:
        raise InterpretError(f"images names {len(asked)} images, and ax takes one: draw each into axes of its own")
    # a line of panels that is not broken is titled once, above all images
    broken = ax is None and len(chosen) * LEAST * look().scale > width_in_inches(width, figsize)
    rows = [
        [_panel(occlusion, name, chosen, row, broken or place == 0) for name in chosen]
        for place, row in enumerate(asked)
    ]
    return lay_out(rows, width, figsize, ax)


def _panel(occlusion: Occlusion, name: str, chosen: list[str], row: int, titled: bool) -> Panel:
    draws: dict[str, Callable[[Axes, Occlusion, int, float], None]] = {
        "image": _image, "activation": _activations, "projections": _projections, "probability": _probabilities,
        "classes": _classes,
    }  # fmt: skip
    letter = f"({'abcde'[chosen.index(name)]}) " if len(chosen) > 1 else ""
    height, breadth = occlusion.pictures.shape[1:3]

    def draw(axes: Axes, wide: float, _: bool) -> None:
        bare(axes)
        draws[name](axes, occlusion, row, wide)
        if titled:
            axes.set_title(fit(letter + TITLES[name], wide, points("axes.title"), lines=2), loc="left")

    def high(wide: float) -> float:
        below = height_of("\n" * NAMED_CLASSES) if "classes" in chosen else height_of("\n")
        above = height_of("\n", points("axes.title")) if titled else 0.0
        return above + 0.97 * wide * height / breadth + below + 0.12

    return Panel(name, draw, LEAST, high)


def _below(axes: Axes, words: str) -> None:
    axes.set_xlabel(words, fontsize=look().small, color=look().quiet, labelpad=3)


def _image(axes: Axes, occlusion: Occlusion, row: int, wide: float) -> None:
    axes.imshow(occlusion.pictures[row], interpolation="auto")
    height, width = occlusion.size
    axes.add_patch(Rectangle((-0.5, -0.5), width, height, facecolor="#808080", edgecolor="white", linewidth=0.8))
    _below(axes, f"{_class(occlusion, row, wide)}\np = {occlusion.clean_probabilities[row]:.2f}")


def _activations(axes: Axes, occlusion: Occlusion, row: int, wide: float) -> None:
    assert occlusion.activations is not None and occlusion.clean_activations is not None
    assert occlusion.layer is not None and occlusion.channels is not None
    _heat(axes, occlusion, occlusion.activations[row], float(occlusion.clean_activations[row]), None)
    _below(axes, f"map {int(occlusion.channels[row])} of\n{fit(occlusion.layer, wide)}")


def _probabilities(axes: Axes, occlusion: Occlusion, row: int, wide: float) -> None:
    _heat(axes, occlusion, occlusion.probabilities[row], float(occlusion.clean_probabilities[row]), 1.0)
    _below(axes, _class(occlusion, row, wide))


def _class(occlusion: Occlusion, row: int, wide: float) -> str:
    return fit(first_name(occlusion.class_name(int(occlusion.labels[row]))), 0.95 * wide)


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
    axes.patch.set_visible(True)
    axes.set_facecolor(mix(look().ink, look().paper, 0.92))
    for side in axes.spines.values():
        side.set(visible=True, color=look().hairline, linewidth=0.5)


def _heat(axes: Axes, occlusion: Occlusion, values: NDArray[Any], clean: float, top: float | None) -> None:
    highest = max(float(values.max()), clean) if top is None else top
    lowest = min(float(values.min()), 0.0)
    drawn = axes.imshow(values, extent=_extent(occlusion), vmin=lowest, vmax=max(highest, 1e-12))
    _framed(axes, occlusion)
    figure = axes.get_figure(root=True)
    assert figure is not None
    bar = figure.colorbar(drawn, cax=axes.inset_axes((1.04, 0, 0.06, 1)))
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=look().small, length=2, pad=2)
    bar.locator = MaxNLocator(5)
    bar.update_ticks()
    # where the value without the occluder lies
    bar.ax.axhline(clean, color="white", linewidth=2.2)
    bar.ax.axhline(clean, color="#1a1a1a", linewidth=1.0)


def _projections(axes: Axes, occlusion: Occlusion, row: int, wide: float) -> None:
    """Draw this image's projection in a frame, with those of other images beside it."""
    assert occlusion.projections is not None
    own = occlusion.projections[row]
    others = occlusion.others.get(str(row))
    tiles = [own, *([] if others is None else others)]
    side = math.ceil(math.sqrt(len(tiles)))
    for place, tile in enumerate(tiles):
        top, left = divmod(place, side)
        axes.imshow(tile, extent=(left, left + 0.97, top + 0.97, top), interpolation="auto", aspect="auto")
    axes.add_patch(
        Rectangle((0, 0), 0.97, 0.97, fill=False, edgecolor=look().ink, linewidth=1.2, clip_on=False, zorder=3)
    )
    rows = math.ceil(len(tiles) / side)
    axes.set(xlim=(0, side), ylim=(max(rows, side), 0), aspect="equal", xticks=[], yticks=[])
    _below(axes, fit("framed: this image" if others is not None else "in this image", wide, lines=2))


def _classes(axes: Axes, occlusion: Occlusion, row: int, wide: float) -> None:
    """Draw the most probable class at each place, and name the classes below."""
    found = occlusion.predictions[row]
    classes, counts = np.unique(found, return_counts=True)
    clean = int(occlusion.clean_predictions[row])
    order = sorted(zip(classes.tolist(), counts.tolist(), strict=True), key=lambda one: (one[0] != clean, -one[1]))
    named = [label for label, _ in order[:NAMED_CLASSES]]
    rest = len(order) - len(named)
    colours = [*look().categories[: len(named)], mix(look().ink, look().paper, 0.8)]
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
    room = 0.95 * wide - 2.2 * look().small / 72
    labels = [fit(first_name(occlusion.class_name(label)), room) for label in named]
    labels += [f"{rest} others"] if rest > 0 else []
    handles = [Rectangle((0, 0), 1, 1, color=colours[place]) for place in range(len(labels))]
    axes.legend(
        handles,
        labels,
        loc="upper left",
        bbox_to_anchor=(0, 0),
        fontsize=look().small,
        handlelength=0.9,
        handleheight=0.9,
        handletextpad=0.5,
        labelspacing=0.25,
        borderpad=0.4,
        borderaxespad=0,
    )
