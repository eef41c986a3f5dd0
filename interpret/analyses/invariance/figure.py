"""Invariance curves in the layout of figure 5 of Zeiler & Fergus (2014)."""

from __future__ import annotations

from typing import Any, overload

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from interpret.analyses.invariance.result import InvarianceCurves
from interpret.figures.lettering import first_name, fit, width_of, without_overlaps
from interpret.figures.panels import Key, Names, Panel, Size, choose, lay_out
from interpret.figures.style import bare, evenly, in_style, look, mix, points

ROW = 1.75
"""Height of a panel, in inches."""
NAMES = ("examples", "first", "last", "layers", "probability")


@overload
def plot_invariance(
    curves: InvarianceCurves,
    *more: InvarianceCurves,
    panels: Names = None,
    width: float | None = None,
    figsize: Size = None,
    ax: None = None,
) -> Figure: ...


@overload
def plot_invariance(curves: InvarianceCurves, *more: InvarianceCurves, panels: Names = None, ax: Axes) -> Axes: ...


@in_style
def plot_invariance(
    curves: InvarianceCurves,
    *more: InvarianceCurves,
    panels: Names = None,
    width: float | None = None,
    figsize: Size = None,
    ax: Axes | None = None,
) -> Figure | Axes:
    """Plot invariance curves as in figure 5 of Zeiler & Fergus (2014): one row per transform.

    >>> curves = InvarianceCurves(
    ...     "scale", "scale (ratio)", 1.0, np.array([1.0, 1.5, 2.0]),
    ...     distances={"conv1": np.array([[0.0, 2.0, 3.0]]), "fc": np.array([[0.0, 1.0, 1.5]])},
    ...     norms={"conv1": np.array([4.0]), "fc": np.array([1.0])},
    ... )
    >>> [axes.get_title() for axes in plot_invariance(curves, panels=["first", "layers"]).axes]
    ['conv1', 'all layers, mean', '']

    The panels of a row, from left to right:

    - "examples": some images, transformed by a few values.
    - "first", "last": the relative distances in the first and in the last layer, one line per image, in the colour of
      the image's frame.
    - "layers": the mean curve of each layer, in greys from black for the first layer to the palest for the last.
    - "probability": the probability of each image's label.

    If there are more images than example pictures, a thick line in the layer's grey shows the mean over all images, and
    shading shows the middle half (25th to 75th percentile). In the "probability" panel, that line is dashed.

    Args:
        curves, more: results of `interpret.probe` for one network, one per row.
        panels: the panels to draw, by name; None: all that the results have data for, or "layers" if you pass `ax`.
        width, figsize, ax: as in `interpret.plot`.

    Returns:
        the figure; `ax`, if it is given.

    Raises:
        InterpretError: a panel that does not exist, or more than one with `ax`.
    """
    rows = [curves, *more]
    there = {
        "examples": any(one.examples is not None for one in rows),
        "last": any(len(one.layers) > 1 for one in rows),
        "probability": any(one.probabilities is not None for one in rows),
    }
    chosen = choose(panels, [name for name in NAMES if there.get(name, True)], ax=ax, main="layers")
    labelled = next((name for name in chosen if name in ("first", "last", "layers")), "")
    shown = [[_panel(one, name, name == labelled) for name in chosen if _has(one, name)] for one in rows]
    layers = curves.layers
    greys = _greys(len(layers))
    legend: list[Key] = []
    if {"first", "last", "layers"} & set(chosen):
        legend += [(Line2D([], [], color=greys[place]), layers[place]) for place in evenly(len(layers))]
    if "examples" not in chosen and {"first", "last", "probability"} & set(chosen):
        legend += [(Line2D([], [], color=colour), _name(curves, row)) for row, colour in _coloured(curves).items()]
    return lay_out(shown, width, figsize, ax, legend=legend)


def _has(curves: InvarianceCurves, name: str) -> bool:
    if name == "examples":
        return curves.examples is not None
    if name == "probability":
        return curves.probabilities is not None
    return name != "last" or len(curves.layers) > 1


def _panel(curves: InvarianceCurves, name: str, labelled: bool) -> Panel:
    def draw(axes: Axes, wide: float, _: bool) -> None:
        relative = curves.relative
        first, last = curves.layers[0], curves.layers[-1]
        greys = _greys(len(curves.layers))
        if name == "examples":
            _draw_examples(axes, curves, wide)
        elif name == "layers":
            _draw_layers(axes, curves, relative)
            axes.set_title(fit("all layers, mean", wide - 0.3, points("axes.title"), lines=2))
            _label(axes, curves, wide, max(_highest(_mean(curve)) for curve in relative.values()))
        elif name == "probability":
            assert curves.probabilities is not None
            _draw_images(axes, curves, curves.probabilities, look().ink, "--")
            words = "predicted class" if curves.predicted else "true label"
            axes.set_title(fit(words, wide - 0.3, points("axes.title"), lines=2))
            axes.set_ylabel("probability")
            _label(axes, curves, wide, 1)
        else:
            layer, grey = (first, greys[0]) if name == "first" else (last, greys[-1])
            _draw_images(axes, curves, relative[layer], grey, "-")
            axes.set_title(fit(layer, wide - 0.3, points("axes.title"), lines=2))
            _label(axes, curves, wide, max(_highest(relative[one]) for one in {first, last}))
        if labelled:
            axes.set_ylabel("distance / norm")

    def height(wide: float) -> float:
        if name != "examples" or curves.examples is None:
            return ROW * look().scale
        images, _, high, breadth, _ = curves.examples.shape
        return max(ROW * look().scale, _pitch(curves, wide) * images * high / breadth + 0.45 * look().scale)

    return Panel(name, draw, 2.15 if name == "examples" else 1.2, height)


def _greys(count: int) -> list[str]:
    """Return a grey per layer: from the ink to the palest that can be seen."""
    return [mix(look().ink, look().paper, share) for share in np.linspace(0, 0.72, max(count, 1)).tolist()]


def _coloured(curves: InvarianceCurves) -> dict[int, str]:
    """Return the rows and colours of the images with example pictures; without pictures, of the first five."""
    count = len(next(iter(curves.distances.values())))
    rows = range(min(count, 5)) if curves.example_rows is None else curves.example_rows.tolist()
    # no greys, which stand for layers
    colours = [colour for colour in look().categories if np.ptp(to_rgb(colour)) > 0.1]
    return dict(zip(rows, colours, strict=False))


def _name(curves: InvarianceCurves, row: int) -> str:
    rows = list(_coloured(curves))
    place = rows.index(row)
    return _short(curves.names[place]) if place < len(curves.names) else f"image {row}"


def _short(name: str) -> str:
    return first_name(name).rpartition("/")[2]


def _names_width() -> float:
    return 0.5 * look().scale


def _pitch(curves: InvarianceCurves, wide: float) -> float:
    """Return the inches from one of the pictures to the next."""
    assert curves.examples is not None
    return (wide - _names_width()) / curves.examples.shape[1]


def _draw_examples(axes: Axes, curves: InvarianceCurves, wide: float) -> None:
    """Draw the pictures, one image per row, framed in its colour."""
    assert curves.examples is not None and curves.example_values is not None
    images, values, height, width, _ = curves.examples.shape
    frame = max(1, round(max(height, width) / 32))
    down, right = height + 4 * frame, width + 4 * frame  # a frame around each, and as much paper between two
    sheet = np.zeros((images * down, values * right, 4), np.uint8)
    sheet[..., :3] = np.rint(np.array(to_rgb(look().paper)) * 255)
    colours = list(_coloured(curves).values())
    for image in range(images):
        for value in range(values):
            top, left = image * down + frame, value * right + frame
            inks = (*np.rint(np.array(to_rgb(colours[image % len(colours)])) * 255), 255)
            sheet[top : top + height + 2 * frame, left : left + width + 2 * frame] = inks
            top, left = top + frame, left + frame
            sheet[top : top + height, left : left + width, :3] = curves.examples[image, value]
    axes.imshow(sheet, interpolation="antialiased")
    bare(axes)
    axes.set_anchor("N")
    small = 5.5 * look().scale
    told = [f"{value:.3g}".replace("-", "−") for value in curves.example_values]
    places = ((np.arange(values) + 0.5) * right).tolist()
    axes.set_xticks(places, without_overlaps(told, places, wide - _names_width(), small), fontsize=small)
    names = [fit(_short(name), _names_width() - 0.06, small, lines=2) for name in curves.names]
    axes.set_yticks((np.arange(images) + 0.5) * down, names, fontsize=small)
    for label, colour in zip(axes.get_yticklabels(), colours, strict=False):
        label.set_color(mix(colour, look().ink, 0.25))
    axes.tick_params(length=0, pad=1)
    axes.set_xlabel(_axis(curves, wide))


def _axis(curves: InvarianceCurves, wide: float) -> str:
    """Return an axis label, with the unit on its own line."""
    size = points("axes.label")
    return "\n".join(fit(part, wide - 0.1, size, lines=2) for part in curves.axis.replace(" (", "\n(", 1).split("\n"))


def _draw_images(axes: Axes, curves: InvarianceCurves, lines: NDArray[Any], grey: str, dashes: str) -> None:
    """Draw one line per image; if there are more images than colours, also the mean and the middle half."""
    order = np.argsort(curves.values, kind="stable")
    values = curves.values[order]
    known = lines[np.isfinite(lines).any(1)][:, order]
    colours = _coloured(curves)
    many = len(lines) > len(colours)
    if many and len(known):
        low, high = np.percentile(known, [25, 75], axis=0)
        axes.fill_between(values, low, high, color=grey, alpha=0.25, linewidth=0)
        axes.plot(values, known.mean(0), color=grey, linestyle=dashes, linewidth=1.6, zorder=3)
    for row, colour in colours.items():
        axes.plot(values, lines[row, order], color=colour, linewidth=0.7 if many else 1.1)


def _draw_layers(axes: Axes, curves: InvarianceCurves, relative: dict[str, NDArray[Any]]) -> None:
    """Draw each layer's mean curve."""
    order = np.argsort(curves.values, kind="stable")
    for layer, grey in zip(curves.layers, _greys(len(curves.layers)), strict=True):
        axes.plot(curves.values[order], _mean(relative[layer])[order], color=grey, linewidth=0.9)


def _label(axes: Axes, curves: InvarianceCurves, wide: float, top: float) -> None:
    low, high = float(curves.values.min()), float(curves.values.max())
    axes.axvline(curves.identity, color=look().hairline, linewidth=0.6, linestyle=":", zorder=0)
    axes.set_xlabel(_axis(curves, wide))
    axes.set_ylim(0, 1.05 * top)
    if high > low:
        axes.set_xlim(low, high)
    size = points("xtick.label")
    axes.xaxis.set_major_locator(MaxNLocator(max(2, int((wide - 0.5) / (2.2 * width_of("−60", size))))))


def _mean(lines: NDArray[Any]) -> NDArray[Any]:
    """Return the mean line, without images whose features are all zero, which have no relative distance."""
    known = lines[np.isfinite(lines).all(1)]
    return known.mean(0) if len(known) else np.full(lines.shape[1], np.nan)


def _highest(lines: NDArray[Any]) -> float:
    """Return the top of an axis that shows all lines."""
    finite = lines[np.isfinite(lines)]
    return max(float(finite.max()), 1e-12) if finite.size else 1.0
