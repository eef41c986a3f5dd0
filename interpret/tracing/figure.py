"""The figure of a trace: the cost and the receptive field of each layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from interpret.figures.lettering import fit
from interpret.figures.panels import Names, Panel, choose, lay_out
from interpret.figures.style import in_style, look, points
from interpret.support.wording import elements

if TYPE_CHECKING:
    from interpret.tracing.tracing import Trace

MAX_LAYERS = 80
"""The largest number of layers in a figure."""


@in_style
def plot_trace(
    result: Trace,
    panels: Names = None,
    *,
    width: float | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Any:
    """Draw each layer's multiply-accumulates, parameters and receptive field, in the order in which they run.

    Layers that contain others, and those without parameters or multiply-accumulates, are left out. If gates see more
    than the window to which the signal passes back, this local field is drawn over the pale receptive field.

    Args:
        result: the result of `interpret.trace`.
        panels: "operations", "parameters", "receptive field"; None: all.
        width: of the figure, in inches.
        figsize: width and height in inches instead.
        ax: axes to draw one of them into, the first unless another is named; None: a new figure.
    """
    costly = [layer for layer in result.values() if layer.leaf and (layer.macs or layer.params)] or [*result.values()]
    layers = costly[:MAX_LAYERS]
    side, word = min(result.input_shape[1:]), elements(len(result.input_shape) - 1)
    fields = [(layer.receptive_field, layer.local_field) for layer in layers]
    seen, local = ([side if one is None else min(*one.size, side) for one in of] for of in zip(*fields, strict=True))
    gated = seen != local
    drawn: dict[str, tuple[str, list[Any]]] = {
        "operations": ("multiply-accumulates (millions)", [layer.macs / 1e6 for layer in layers]),
        "parameters": ("parameters (thousands)", [layer.params / 1e3 for layer in layers]),
        "receptive field": (f"receptive field{', dark: local field' * gated} ({word} of {side})", local),
    }

    def panel(place: int, name: str) -> Panel:
        label, values = drawn[name]

        def draw(axes: Axes, wide: float, first: bool) -> None:
            if name == "receptive field" and gated:
                axes.barh(np.arange(len(layers)), seen, 0.72, color=look().categories[place], alpha=0.3)
            axes.barh(np.arange(len(layers)), values, 0.72, color=look().categories[place])
            axes.set_xlabel(fit(label, wide - 0.3, points("axes.label"), lines=4))
            axes.xaxis.set_major_locator(MaxNLocator(max(2, int(wide / 0.5 / look().scale))))
            axes.grid(axis="x")
            axes.tick_params(axis="y", length=0, labelleft=first)
            names = [fit(layer.name, 0.42 * wide if ax is not None else 1.3, look().small) for layer in layers]
            axes.set_yticks(range(len(layers)), names, fontsize=look().small)
            axes.set_ylim(len(layers) - 0.4, -0.6)

        def height(_: float) -> float:
            return (0.7 + 0.135 * len(layers)) * look().scale

        return Panel(name, draw, 0.95, height)

    chosen = choose(panels, list(drawn), ax=ax)
    shape = " × ".join(map(str, result.input_shape))
    left_out = len(costly) - len(layers)
    cut = f", the first {MAX_LAYERS} of {len(costly)}" if left_out > 0 else ""
    rows = [[panel(place, name) for place, name in enumerate(drawn) if name in chosen]]
    return lay_out(rows, width, figsize, ax, f"{result.title} on {shape} {word}{cut}")
