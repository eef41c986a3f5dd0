"""Draw predictions: each image with bars for its most probable classes, the right one marked."""

from __future__ import annotations

from collections.abc import Iterable

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from interpret.analyses.predictions.result import Predictions
from interpret.figures.lettering import LEADING, fit, height_of
from interpret.figures.panels import Key, Names, Panel, Size, choose, lay_out, width_in_inches
from interpret.figures.sheet import Sheet
from interpret.figures.style import WIDTH, in_style, look, mix, points

IMAGES_PER_ROW = 4
"""Images side by side in a figure of the default width."""
LEAST_WIDTH = 2.4
"""Inches: the least width of a figure whose user gives no size."""
MOST_IMAGES = 24
"""Images in a figure whose user chooses no panels."""


@in_style
def plot_predictions(
    result: Predictions,
    panels: Names = None,
    *,
    width: float | None = None,
    figsize: Size = None,
    ax: Axes | None = None,
) -> Figure | Axes:
    """Draw predictions as in Krizhevsky et al. 2012, Fig. 4 (left): images with bars for their classes.

    Args:
        result: what `interpret.predict` returned.
        panels: images, by number from "0"; None: the first 24.
        width, figsize, ax: as in `interpret.plot`.
    """
    names = [str(image) for image in range(len(result.pictures))]
    chosen = choose(panels, names, names[:MOST_IMAGES], ax)
    unasked = width is None and figsize is None and ax is None and width_in_inches(None) == WIDTH
    if unasked and len(chosen) < IMAGES_PER_ROW:
        width = max(WIDTH * len(chosen) / IMAGES_PER_ROW, LEAST_WIDTH)  # a single picture would fill a page otherwise
    title = f"{result.title}: the {result.top.shape[1]} most probable classes"
    return lay_out([prediction_panels(result, map(int, chosen))], width, figsize, ax, title, key_of(result))


def key_of(result: Predictions) -> list[Key]:
    """Return the legend of the bars' colours; empty if no image has a known class."""
    if not (result.truth >= 0).any():
        return []
    right, other = _colours()
    return [(Patch(color=right), "correct class"), (Patch(color=other), "other class")]


def prediction_panels(result: Predictions, images: Iterable[int], least: float = 1.6) -> list[Panel]:
    """Return a panel for each of the images."""
    height, breadth = result.pictures.shape[1:3]
    rows = result.top.shape[1]
    head = height_of("x", points("axes.title")) if (result.truth >= 0).any() else 0.0

    def high(wide: float) -> float:
        return head + 0.94 * wide * height / breadth + _bar() * rows + 2.2 * _bar()

    def panel(image: int) -> Panel:
        return Panel(str(image), lambda axes, wide, _: _draw(axes, result, image, wide, head), least, high)

    return [panel(image) for image in images]


def _bar() -> float:
    """Return the inches from one bar to the next: the height of a class's name."""
    return look().small * LEADING * 1.2 / 72


def _colours() -> tuple[str, str]:
    """Return the colours of the right class and of any other, light enough for a name to be read on them."""
    return mix(look().accent, look().paper, 0.45), mix(look().categories[0], look().paper, 0.66)


def _draw(axes: Axes, result: Predictions, image: int, wide: float, head: float) -> None:
    height, breadth = result.pictures.shape[1:3]
    labels, values = result.top[image].tolist(), result.probabilities[image].tolist()
    across, bar = 0.94 * wide, _bar()
    left, tall = (wide - across) / 2, across * height / breadth
    sheet = Sheet(axes, wide, head + tall + bar * len(labels) + 2.2 * bar)
    truth = int(result.truth[image])
    if truth >= 0:
        words = fit(result.class_name(truth), across, points("axes.title"))
        sheet.write(wide / 2, 0, words, points("axes.title"), ha="center")
    sheet.picture(left, head, across, tall, result.pictures[image])
    top = head + tall + 0.3 * bar
    right, other = _colours()
    for place, (label, value) in enumerate(zip(labels, values, strict=True)):
        at = top + place * bar
        sheet.box(left, at + 0.07 * bar, across * value, 0.86 * bar, facecolor=right if label == truth else other)
        name = fit(result.class_name(label), 0.96 * across)
        sheet.write(left + 0.02 * across, at + bar / 2, name, va="center_baseline")
    end = top + bar * len(labels)
    sheet.line([left, left + across], [end, end])
    for value, ha in ((0, "left"), (0.5, "center"), (1, "right")):
        sheet.line([left + value * across] * 2, [end, end + 0.15 * bar])
        sheet.write(left + value * across, end + 0.25 * bar, f"{value:g}", ha=ha, color=look().quiet)
