"""Draw effective receptive fields: the energy in what the middle neuron of each layer sees."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from interpret.analyses.effective_fields.result import EffectiveFields
from interpret.figures.lettering import fit, height_of
from interpret.figures.panels import Names, Panel, Size, choose, lay_out
from interpret.figures.sheet import Sheet
from interpret.figures.style import evenly, in_style, look
from interpret.support.numbers import pixels

MOST_LAYERS = 48
"""The largest number of layers in a figure; of more, some are left out evenly."""


@in_style
def plot_effective_fields(
    result: EffectiveFields,
    panels: Names = None,
    *,
    width: float | None = None,
    figsize: Size = None,
    ax: Axes | None = None,
) -> Figure | Axes:
    """Draw what the middle neuron of each layer sees, darker where a pixel changes its units more.

    The shade is the square root of the energy, relative to the layer's largest. The frame is the effective window.

    Args:
        result: what `interpret.effective_receptive_field` returned.
        panels: layers, by name; None: at most 48, evenly over the network.
        width, figsize, ax: as in `interpret.plot`.
    """
    some = [result.layers[place] for place in evenly(len(result.layers), MOST_LAYERS)]
    chosen = choose(panels, result.layers, some, ax, main=result.layers[-1])
    left_out = (
        f", {len(chosen)} of {len(result.layers)} layers" if panels is None and len(some) < len(result.layers) else ""
    )

    @cache
    def breaks(wide: float) -> int:
        """Return how many line breaks the longest name has: as many stand above each picture, so that rows align."""
        return max(fit(name, wide, look().small, lines=2).count("\n") for name in chosen)

    return lay_out([[_layer(result, name, breaks) for name in chosen]], width, figsize, ax, result.title + left_out)


def _layer(result: EffectiveFields, name: str, breaks: Callable[[float], int]) -> Panel:
    energy, place = result.energy[name], result.layers.index(name)
    (tall, broad), whole = result.sizes[place].tolist(), result.theoretical[place].tolist()

    def words(wide: float) -> str:
        named = fit(name, wide, look().small, lines=2)
        named = "\n" * (breaks(wide) - named.count("\n")) + named
        return f"{named}\n{fit(f'{pixels((tall, broad))} of {pixels(whole)} px', wide, look().small)}"

    def height(wide: float) -> float:
        return wide * energy.shape[0] / energy.shape[1] + height_of(words(wide), look().small) + 0.04

    def draw(axes: Axes, wide: float, _: bool) -> None:
        head, scale = height_of(words(wide), look().small) + 0.02, wide / energy.shape[1]
        sheet = Sheet(axes, wide, head + scale * energy.shape[0])
        sheet.write(0, 0, words(wide), look().small)
        shade = np.sqrt(energy / max(float(energy.max()), 1e-30))
        sheet.picture(0, head, wide, scale * energy.shape[0], shade, cmap="Greys", vmin=0, vmax=1,
                      interpolation="nearest")  # fmt: skip
        sheet.frame(0, head, wide, scale * energy.shape[0], look().hairline)
        top, left = result.boxes[place, :2].tolist()
        sheet.frame(left * scale, head + top * scale, broad * scale, tall * scale, look().categories[1], 1.0)

    return Panel(name, draw, 0.9, height)
