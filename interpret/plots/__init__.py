"""Figures of results, in one style: any result that a study keeps can be drawn."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from interpret.errors import unknown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from interpret.results import Result

# kind of result: the function that draws it, imported at first use
DRAWN_BY: dict[str, str] = {
    "methods": "interpret.plots.methods:plot_methods",
    "sanity": "interpret.plots.sanity:plot_sanity",
}


def plot(result: Result) -> Figure:
    """Draw a result as a matplotlib figure, whatever kind it is.

    Save it with `plot(result).savefig("figure.pdf")`; the sentence that tells how to read it is `result.reading`.
    """
    if result.kind not in DRAWN_BY:
        raise unknown("kind of result", result.kind, DRAWN_BY)
    module, _, name = DRAWN_BY[result.kind].partition(":")
    figure: Figure = getattr(import_module(module), name)(result)
    return figure
