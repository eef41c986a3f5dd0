"""The figure of a correspondence: Δ of each part and of its random controls, per layer."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from interpret.analyses.correspondence.result import Correspondence
from interpret.figures.lettering import fit, label_ticks, tick_labels
from interpret.figures.panels import Names, Panel, Size, choose, lay_out
from interpret.figures.style import in_style, look, points
from interpret.support.wording import count

NAMES = ("this part", "random, a place of each image's own", "random, one place for all images")
MARKERS = ("o", "s", "^")


@in_style
def plot_correspondence(
    result: Correspondence,
    panels: Names = None,
    *,
    width: float | None = None,
    figsize: Size = None,
    ax: Axes | None = None,
) -> Figure | Axes:
    """Plot Δ ± standard error against the layers, one panel per part (Zeiler & Fergus 2014, Table 1).

    Args:
        result: the result of `interpret.correspond`.
        panels: names of parts; None: all.
        width, figsize, ax: as in `interpret.plot`.
    """
    chosen = choose(panels, result.parts, ax=ax)
    parts = [result.parts.index(name) for name in chosen]
    top = max(float((result.scores[layer] + result.errors[layer])[:, parts].max()) for layer in result.layers)

    def panel(part: int) -> Panel:
        def draw(axes: Axes, wide: float, first: bool) -> None:
            _draw(axes, result, part, wide)
            axes.set(ylim=(0, 1.06 * max(top, 1e-12)))
            if first:
                axes.set_ylabel("Δ, share of features whose\nsigns of change differ")

        def height(wide: float) -> float:
            names = tick_labels(result.layers, _room(wide), points("xtick.label"))
            return names.height + 1.75 + 0.3 * look().scale

        return Panel(result.parts[part], draw, 1.9 if len(result.layers) < 9 else 2.3, height)

    legend = [
        (Line2D([], [], color=colour, marker=marker, markersize=3.5, linewidth=0.9), name)
        for colour, marker, name in zip(_colours(), MARKERS, NAMES, strict=True)
    ]
    title = f"{result.title}: {count(result.images, 'image')}, ± standard error"
    return lay_out([[panel(part) for part in parts]], width, figsize, ax, title, legend)


def _colours() -> tuple[str, str, str]:
    return look().accent, look().quiet, look().categories[0]


def _room(wide: float) -> float:
    return wide - 0.55 * look().scale


def _draw(axes: Axes, result: Correspondence, part: int, wide: float) -> None:
    places = np.arange(len(result.layers))
    for row, (name, colour, marker) in enumerate(zip(NAMES, _colours(), MARKERS, strict=True)):
        scores, errors = (
            np.array([of[layer][row, part] for layer in result.layers]) for of in (result.scores, result.errors)
        )
        # shifted, so that no error bar hides another
        x = places + 0.14 * (row - 1)
        axes.plot(x, scores, color=colour, linewidth=0.6, alpha=0.6)
        axes.errorbar(
            x, scores, errors, color=colour, fmt=marker, markersize=3.5, elinewidth=0.9, capsize=1.5, label=name
        )
    axes.set_title(fit(result.parts[part], _room(wide), points("axes.title"), lines=2))
    label_ticks(axes, result.layers, _room(wide))
    axes.set(xlim=(-0.5, len(places) - 0.5))
    axes.grid(axis="y")
