"""Figures of results, in one style: any result that a study keeps can be drawn."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from interpret.errors import InterpretError, unknown
from interpret.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from interpret.results import Result

# kind of result: the function that draws it, imported at first use
DRAWN_BY: dict[str, str] = {
    "predictions": "interpret.plots.predictions:plot_predictions",
    "feature-maps": "interpret.plots.feature_maps:plot_feature_maps",
    "evolution": "interpret.plots.evolution:plot_evolution",
    "invariance": "interpret.plots.invariance:plot_invariance",
    "occlusion": "interpret.plots.occlusion:plot_occlusion",
    "neighbours": "interpret.plots.neighbours:plot_neighbours",
    "correspondence": "interpret.plots.correspondence:plot_correspondence",
    "methods": "interpret.plots.methods:plot_methods",
    "sanity": "interpret.plots.sanity:plot_sanity",
    "costs": "interpret.plots.costs:plot_costs",
    "trace": "interpret.plots.trace:plot_trace",
    "mined": "interpret.plots.mined:plot_mined",
    "mined-layer": "interpret.plots.mined:plot_mined_layer",
    "unit": "interpret.plots.mined:plot_unit",
    "projections": "interpret.plots.projections:plot_projections",
    "attribution": "interpret.plots.attribution:plot_attribution",
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


# formats that a figure is written in: what is left out of them, so that the same figure is the same bytes
FORMATS: dict[str, dict[str, Any]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


def check_figure_path(path: str | os.PathLike[str], argument: str = "path") -> str:
    """Return the format that a figure's file name asks for.

    >>> check_figure_path("figures/probe.PDF")
    'pdf'

    Raises:
        InterpretError: a name that ends in none of .png, .svg and .pdf.
    """
    kind = Path(path).suffix.removeprefix(".").lower()
    if kind not in FORMATS:
        raise InterpretError(f"{argument} must end in .png, .svg or .pdf, not {Path(path).name!r}")
    return kind


def write_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG, SVG or PDF, whole or not at all, and the same bytes every time.

    >>> import tempfile
    >>> from matplotlib.figure import Figure
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("a.svg", "b.svg"):
    ...     write_figure(Figure(figsize=(1, 1)), folder / name)
    >>> (folder / "a.svg").read_bytes() == (folder / "b.svg").read_bytes()
    True

    Raises:
        InterpretError: a name that ends in none of .png, .svg and .pdf.
    """
    import matplotlib

    from interpret.plots.style import RC

    kind = check_figure_path(path)
    with matplotlib.rc_context(cast(Any, RC)), replacing(path) as new:
        figure.savefig(new, format=kind, metadata=FORMATS[kind])
