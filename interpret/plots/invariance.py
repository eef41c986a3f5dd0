"""Invariance curves in the layout of figure 5 of Zeiler & Fergus (2014)."""

from __future__ import annotations

from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from interpret.plots.style import CATEGORIES, HAIRLINE, INK, WIDTH, Figure, by_depth, in_style, shorten
from interpret.results.invariance import InvarianceCurves

ROW = 1.95
"""Inches that a transform takes in height."""
MOST_NAMED = 6
"""Layers that a legend names."""


@in_style
def plot_invariance(curves: InvarianceCurves, *more: InvarianceCurves) -> Figure:
    """Draw probes as in figure 5 of Zeiler & Fergus: a row for each transform.

    >>> curves = InvarianceCurves(
    ...     "scale", "scale (ratio)", 1.0, np.array([1.0, 1.5, 2.0]),
    ...     distances={"conv1": np.array([[0.0, 2.0, 3.0]]), "fc": np.array([[0.0, 1.0, 1.5]])},
    ...     norms={"conv1": np.array([4.0]), "fc": np.array([1.0])},
    ... )
    >>> [axes.get_title() for axes in plot_invariance(curves).axes]
    ['conv1', 'fc', 'all layers, mean']

    From left to right: some images at a few values; relative distances in the first layer and in the last one, a
    line an image, in the colour of its frame; the mean curve of every layer, dark for the first and light for the
    last; the probability of each image's label. With more images than there are pictures of, their mean is black, and
    what half of them lie within is grey.

    Args:
        curves, more: probes of one network, a row each.
    """
    rows = [curves, *more]
    figure = Figure(figsize=(WIDTH, ROW * len(rows) + 0.45), layout="constrained", facecolor="white")
    pictured = any(one.examples is not None for one in rows)
    judged = any(one.probabilities is not None for one in rows)
    widths = [1.8] * pictured + [1, 1, 1] + [1] * judged
    grid = figure.add_gridspec(len(rows), len(widths), width_ratios=widths)
    for row, one in enumerate(rows):
        places = iter(range(len(widths)))
        if pictured:
            place = grid[row, next(places)]
            if one.examples is not None:
                _draw_examples(figure.add_subplot(place), one)
        colours = _coloured(one)
        relative = one.relative
        first, last = one.layers[0], one.layers[-1]
        top = max(_highest(relative[layer]) for layer in {first, last})
        for layer in [first, last] if first != last else [first]:
            axes = figure.add_subplot(grid[row, next(places)])
            _draw_images(axes, one, relative[layer], colours)
            axes.set_title(shorten([layer], 22)[0], fontsize=7.5)
            _label(axes, one, "distance / norm" if layer == first else "", top)
        if first == last:
            next(places)
        axes = figure.add_subplot(grid[row, next(places)])
        _draw_layers(axes, one, relative)
        layers = axes.get_legend_handles_labels()
        _label(axes, one, "", max(_highest(_mean(curve)) for curve in relative.values()))
        if one.probabilities is not None:
            axes = figure.add_subplot(grid[row, next(places)])
            _draw_images(axes, one, one.probabilities, colours)
            axes.set_title("predicted class" if one.predicted else "true label", fontsize=7.5)
            _label(axes, one, "probability", 1)
    # the layers of one network have the same colours in every row
    figure.legend(*layers, title="layers", title_fontsize=6.5, fontsize=6.5, loc="outside lower center", ncols=3)
    return figure


def _coloured(curves: InvarianceCurves) -> dict[int, str]:
    """Return the rows of the images that are pictured, or, without pictures, of the first five, with their colours."""
    count = len(next(iter(curves.distances.values())))
    rows = range(min(count, 5)) if curves.example_rows is None else curves.example_rows.tolist()
    return dict(zip(rows, CATEGORIES, strict=False))


def _draw_examples(axes: Axes, curves: InvarianceCurves) -> None:
    """Draw the pictures, an image a row, framed in its colour."""
    assert curves.examples is not None and curves.example_values is not None
    images, values, height, width, _ = curves.examples.shape
    frame = max(1, round(max(height, width) / 32))
    down, right = height + 4 * frame, width + 4 * frame  # a frame around each, and as much white between two
    sheet = np.full((images * down, values * right, 3), 255, np.uint8)
    colours = list(_coloured(curves).values())
    for image in range(images):
        for value in range(values):
            top, left = image * down + frame, value * right + frame
            sheet[top : top + height + 2 * frame, left : left + width + 2 * frame] = (
                np.array(to_rgb(colours[image])) * 255
            )
            top, left = top + frame, left + frame
            sheet[top : top + height, left : left + width] = curves.examples[image, value]
    axes.imshow(sheet, interpolation="antialiased")
    axes.set_anchor("N")
    axes.set_xticks(
        (np.arange(values) + 0.5) * right, [f"{value:.3g}" for value in curves.example_values], fontsize=5.5
    )
    axes.set_yticks((np.arange(images) + 0.5) * down, [_wrapped(name) for name in curves.names], fontsize=5.5)
    axes.tick_params(length=0, pad=1)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_xlabel(_two_lines(curves.axis), fontsize=7)


def _wrapped(name: str) -> str:
    """Return a name in two short lines at most."""
    lines = wrap(name.partition(",")[0].rpartition("/")[2], 11)
    return "\n".join(lines if len(lines) < 3 else [lines[0], shorten([lines[1]], 9)[0] + "…"])


def _two_lines(axis: str) -> str:
    return axis.replace(" (", "\n(", 1)


def _draw_images(axes: Axes, curves: InvarianceCurves, lines: NDArray[Any], colours: dict[int, str]) -> None:
    """Draw a line an image; of more images than have a colour, the mean and the middle half."""
    order = np.argsort(curves.values, kind="stable")
    values = curves.values[order]
    known = lines[np.isfinite(lines).any(1)][:, order]
    if len(lines) > len(colours) and len(known):
        low, high = np.percentile(known, [25, 75], axis=0)
        axes.fill_between(values, low, high, color=HAIRLINE, alpha=0.45, linewidth=0)
        axes.plot(values, known.mean(0), color=INK, linewidth=1.6, zorder=3)
    for row, colour in colours.items():
        axes.plot(values, lines[row, order], color=colour, linewidth=0.6 if len(lines) > len(colours) else 1.1)


def _draw_layers(axes: Axes, curves: InvarianceCurves, relative: dict[str, NDArray[Any]]) -> None:
    """Draw each layer's mean curve, and name some of them."""
    order = np.argsort(curves.values, kind="stable")
    layers = curves.layers
    named = {
        layers[place] for place in np.linspace(0, len(layers) - 1, min(MOST_NAMED, len(layers))).round().astype(int)
    }
    for layer, colour in zip(layers, by_depth(len(layers)), strict=True):
        label = shorten([layer], 34)[0] if layer in named else None
        axes.plot(curves.values[order], _mean(relative[layer])[order], color=colour, linewidth=0.9, label=label)
    axes.set_title("all layers, mean", fontsize=7.5)


def _label(axes: Axes, curves: InvarianceCurves, name: str, top: float) -> None:
    low, high = float(curves.values.min()), float(curves.values.max())
    axes.axvline(curves.identity, color=HAIRLINE, linewidth=0.6, zorder=0)
    axes.set_xlabel(_two_lines(curves.axis), fontsize=7)
    axes.set_ylabel(name, fontsize=7)
    axes.set_ylim(0, 1.05 * top)
    if high > low:
        axes.set_xlim(low, high)


def _mean(lines: NDArray[Any]) -> NDArray[Any]:
    """Return the mean line of the images that have one: features that are all zero have none."""
    known = lines[np.isfinite(lines).all(1)]
    return known.mean(0) if len(known) else np.full(lines.shape[1], np.nan)


def _highest(lines: NDArray[Any]) -> float:
    """Return the top of an axis that shows all lines."""
    finite = lines[np.isfinite(lines)]
    return max(float(finite.max()), 1e-12) if finite.size else 1.0
