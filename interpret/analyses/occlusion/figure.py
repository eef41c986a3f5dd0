"""The figure of an occlusion experiment, with five columns."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from interpret.analyses.occlusion.result import Occlusion
from interpret.figures.lettering import first_name, fit, height_of
from interpret.figures.panels import Names, Panel, Size, choose, lay_out, width_in_inches
from interpret.figures.sheet import Sheet
from interpret.figures.style import in_style, look, mix, points
from interpret.support.errors import InterpretError

NAMED_CLASSES = 5
"""Number of classes of a map with their own colour; the others share a grey."""
TITLES = {
    "image": "image",
    "activation": "summed activation",
    "projections": "projections of the map",
    "probability": "probability of the class",
    "classes": "most probable",
}
LEAST = 1.04
"""Least width of a panel, in inches."""
BESIDE = 0.36
"""Width of the colour scale beside a map, in inches."""


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
    """Plot an occlusion experiment as in Zeiler & Fergus 2014, Fig. 7: one row per image, five columns.

    >>> import torch
    >>> from interpret import occlude
    >>> network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 5)).eval()
    >>> occlusion = occlude(network, torch.rand(2, 3, 8, 8), size=4, stride=2)
    >>> figure = plot_occlusion(occlusion, ["image", "probability"], width=3.3)
    >>> float(figure.get_size_inches()[0])
    3.3

    A map's value at a position was measured with the occluder centred there.

    Args:
        occlusion: the result of `interpret.occlude`.
        panels: "image", "activation", "projections", "probability" and "classes"; None: all, or "probability" if you
            pass `ax`.
        images: indices of the images; None: all, or the first if you pass `ax`.
        width, figsize, ax: as in `interpret.plot`.

    Returns:
        the figure; `ax`, if it is given.

    Raises:
        InterpretError: an unknown panel; an index out of range; several panels or images for one `ax`.
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
    # if the panels fit into one line, title them once, above the first image
    broken = ax is None and len(chosen) * LEAST * look().scale > width_in_inches(width, figsize)
    rows = [
        [_panel(occlusion, name, chosen, row, broken or place == 0) for name in chosen]
        for place, row in enumerate(asked)
    ]
    return lay_out(rows, width, figsize, ax)


def _panel(occlusion: Occlusion, name: str, chosen: list[str], row: int, titled: bool) -> Panel:
    draws: dict[str, Callable[[_Place, Occlusion, int], None]] = {
        "image": _image, "activation": _activations, "projections": _projections, "probability": _probabilities,
        "classes": _classes,
    }  # fmt: skip
    letter = f"({'abcde'[chosen.index(name)]}) " if len(chosen) > 1 else ""
    words = letter + TITLES[name]
    ratio = occlusion.pictures.shape[1] / occlusion.pictures.shape[2]
    found = len(np.unique(occlusion.predictions[row]))
    lines = max(2, min(found, NAMED_CLASSES + 1)) if name == "classes" else 2

    def measures(wide: float) -> tuple[float, float, float]:
        """Return in inches the top of the map, its width, and the height of the panel."""
        head = height_of("\n", points("axes.title")) + 0.05 if titled else 0.03
        side = wide - BESIDE * look().scale
        return head, side, head + side * ratio + height_of("\n" * (lines - 1)) + 0.16

    def draw(axes: Axes, wide: float, _: bool) -> None:
        head, side, all_of_it = measures(wide)
        sheet = Sheet(axes, wide, all_of_it)
        if titled:
            title = fit(words, wide, points("axes.title"), lines=2)
            sheet.write(0, head - 0.05, title, points("axes.title"), va="bottom")
        draws[name](_Place(sheet, head, side, side * ratio), occlusion, row)

    return Panel(name, draw, LEAST, lambda wide: measures(wide)[2])


@dataclass(frozen=True)
class _Place:
    """The position of a map on its sheet, in inches."""

    sheet: Sheet
    top: float
    width: float
    height: float

    def below(self, words: str) -> None:
        self.sheet.write(0, self.top + self.height + 0.04, words, color=self.sheet.look.quiet)

    @property
    def room(self) -> float:
        """The width in inches for text below the map."""
        return self.sheet.width - 0.03

    def show(self, pixels: Any, extent: tuple[float, float, float, float], size: tuple[int, int], **look: Any) -> Any:
        """Draw pixels at `extent` (left, right, bottom, top) in a picture of a size (height, width), in pixels."""
        across, down = self.width / size[1], self.height / size[0]
        left, right, bottom, top = extent
        drawn = self.sheet.axes.imshow(
            pixels,
            extent=((left + 0.5) * across, (right + 0.5) * across, self.top + (bottom + 0.5) * down,
                    self.top + (top + 0.5) * down),
            **look,
        )  # fmt: skip
        # a cell at the border extends beyond the picture, as the occluder does
        drawn.set_clip_path(Rectangle((0, self.top), self.width, self.height, transform=self.sheet.axes.transData))
        self.sheet.axes.set(xlim=(0, self.sheet.width), ylim=(self.sheet.height, 0))
        return drawn

    def ground(self) -> None:
        """Draw the frame of the whole picture, so that positions can be compared across the row."""
        grey = mix(look().ink, look().paper, 0.92)
        self.sheet.box(0, self.top, self.width, self.height, facecolor=grey, zorder=-1)
        self.sheet.frame(0, self.top, self.width, self.height, look().hairline)


def _size(occlusion: Occlusion) -> tuple[int, int]:
    return occlusion.size_of_images


def _image(place: _Place, occlusion: Occlusion, row: int) -> None:
    height, width = _size(occlusion)
    place.show(occlusion.pictures[row], (-0.5, width - 0.5, height - 0.5, -0.5), (height, width), interpolation="auto")
    high, wide = occlusion.size[0] / height * place.height, occlusion.size[1] / width * place.width
    place.sheet.box(0, place.top, wide, high, facecolor="#808080", edgecolor="white", linewidth=0.8)
    place.below(f"{_class(place, occlusion, row)}\np = {occlusion.clean_probabilities[row]:.2f}")


def _activations(place: _Place, occlusion: Occlusion, row: int) -> None:
    assert occlusion.activations is not None and occlusion.clean_activations is not None
    assert occlusion.layer is not None and occlusion.channels is not None
    _heat(place, occlusion, occlusion.activations[row], float(occlusion.clean_activations[row]), None)
    place.below(f"map {int(occlusion.channels[row])} of\n{fit(occlusion.layer, place.room)}")


def _probabilities(place: _Place, occlusion: Occlusion, row: int) -> None:
    _heat(place, occlusion, occlusion.probabilities[row], float(occlusion.clean_probabilities[row]), 1.0)
    place.below(_class(place, occlusion, row))


def _class(place: _Place, occlusion: Occlusion, row: int) -> str:
    return fit(first_name(occlusion.class_name(int(occlusion.labels[row]))), place.room)


def _extent(occlusion: Occlusion) -> tuple[float, float, float, float]:
    """Return the extent of the maps in the image: each place is a cell around the occluder's centre."""
    down, right = occlusion.settings["stride"]
    height, width = occlusion.size
    left, top = (width - right) / 2 - 0.5, (height - down) / 2 - 0.5
    return left, left + right * len(occlusion.lefts), top + down * len(occlusion.tops), top


def _heat(place: _Place, occlusion: Occlusion, values: NDArray[Any], clean: float, top: float | None) -> None:
    highest = max(float(values.max()), clean) if top is None else top
    lowest = min(float(values.min()), 0.0)
    place.ground()
    drawn = place.show(values, _extent(occlusion), _size(occlusion), vmin=lowest, vmax=max(highest, 1e-12))
    axes = place.sheet.axes
    bar = axes.inset_axes((place.width + 0.05, place.top, 0.05, place.height), transform=axes.transData)
    figure = axes.get_figure(root=True)
    assert figure is not None
    scale = figure.colorbar(drawn, cax=bar, ticks=MaxNLocator(5), format=_short_number)
    scale.outline.set_visible(False)
    bar.tick_params(labelsize=look().small, length=2, pad=2)
    # mark the value without the occluder
    bar.axhline(clean, color="white", linewidth=2.2)
    bar.axhline(clean, color="#1a1a1a", linewidth=1.0)


def _short_number(value: float, _: Any) -> str:
    """Format a number in at most four characters.

    >>> _short_number(12000, None), _short_number(0.25, None), _short_number(-3, None)
    ('12k', '0.25', '−3')
    """
    words = f"{value / 1000:.3g}k" if abs(value) >= 1000 else f"{value:.2g}" if abs(value) < 1 else f"{value:.3g}"
    return words.replace("-", "−")


def _projections(place: _Place, occlusion: Occlusion, row: int) -> None:
    """Draw this image's projection in a frame, followed by those of other images."""
    assert occlusion.projections is not None
    own = occlusion.projections[row]
    others = occlusion.others.get(str(row))
    tiles = [own, *([] if others is None else others)]
    side = math.ceil(math.sqrt(len(tiles)))
    wide, high = place.width / side, place.height / side
    for number, tile in enumerate(tiles):
        down, right = divmod(number, side)
        place.sheet.picture(right * wide, place.top + down * high, 0.97 * wide, 0.97 * high, tile)
    place.sheet.frame(0, place.top, 0.97 * wide, 0.97 * high, look().ink, 1.2)
    place.below(fit("framed: this image" if others is not None else "in this image", place.room, lines=2))


def _classes(place: _Place, occlusion: Occlusion, row: int) -> None:
    """Draw the most probable class at each place, and name the classes below."""
    found = occlusion.predictions[row]
    classes, counts = np.unique(found, return_counts=True)
    clean = int(occlusion.clean_predictions[row])
    order = sorted(zip(classes.tolist(), counts.tolist(), strict=True), key=lambda one: (one[0] != clean, -one[1]))
    named = [label for label, _ in order[:NAMED_CLASSES]]
    rest = len(order) - len(named)
    colours = [*look().categories[: len(named)], mix(look().ink, look().paper, 0.8)]
    index = np.full(found.shape, len(named))
    for number, label in enumerate(named):
        index[found == label] = number
    place.ground()
    place.show(
        index,
        _extent(occlusion),
        _size(occlusion),
        cmap=ListedColormap(colours),
        vmin=-0.5,
        vmax=len(colours) - 0.5,
        interpolation="nearest",
    )
    line = height_of("x")
    key = 0.6 * line
    labels = [fit(first_name(occlusion.class_name(label)), place.room - 1.6 * key) for label in named]
    labels += [f"{rest} others"] if rest > 0 else []
    for number, label in enumerate(labels):
        top = place.top + place.height + 0.05 + number * line
        place.sheet.box(0, top + 0.15 * line, key, key, facecolor=colours[number])
        place.sheet.write(1.6 * key, top, label)
