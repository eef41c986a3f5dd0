"""Figures of results, in one style: any result that a study keeps can be drawn."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from interpret.errors import InterpretError, unknown
from interpret.files import check_place, replacing
from interpret.stamps import is_stamped, stamped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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
    "comparison": "interpret.plots.comparison:plot_comparison",
}


@overload
def plot(
    result: Result,
    panels: str | Sequence[str] | None = None,
    *,
    width: float | None = None,
    figsize: tuple[float, float] | None = None,
    ax: None = None,
) -> Figure: ...


@overload
def plot(result: Result, panels: str | Sequence[str] | None = None, *, ax: Axes) -> Axes: ...


def plot(
    result: Result,
    panels: str | Sequence[str] | None = None,
    *,
    width: float | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Figure | Axes:
    """Draw a result as a matplotlib figure, whatever kind it is.

    >>> import numpy as np
    >>> from interpret.results.invariance import InvarianceCurves
    >>> curves = InvarianceCurves("scale", "scale (ratio)", 1.0, np.array([1.0, 1.5, 2.0]),
    ...     distances={"conv1": np.array([[0.0, 2.0, 3.0]])}, norms={"conv1": np.array([4.0])})
    >>> figure = plot(curves, panels="layers", width=3.3)       # a column of a paper
    >>> figure.get_size_inches().round(2).tolist()[0]
    3.3
    >>> plot(curves, panels="distances")
    Traceback (most recent call last):
    interpret.errors.InterpretError: unknown panel 'distances': the figure has 'first', 'layers'

    Save it with `plot(result).savefig("figure.pdf")`, which embeds real fonts; the sentence that tells how to read it
    is `result.reading`. The user's own settings of matplotlib (`plt.style.use`, `rcParams`) take effect in fonts, sizes
    and colours; what they leave at matplotlib's defaults is drawn in the style of this project.

    Args:
        result: what an analysis returned.
        panels: the parts of the figure to draw, one or several by name; None: those that it has by default.

            - predictions: images by number, "0", "1" …; neighbours: queries, likewise
            - feature-maps: "input", and layers by name
            - evolution: layers by name, and "movement"
            - invariance: "examples", "first", "last", "layers", "probability"
            - occlusion: "image", "activation", "projections", "probability", "classes"
            - correspondence: parts by name
            - methods: "maps", "other", "detail"
            - sanity: "rank", "rank_signed", "ssim", "maps"
            - costs: "operations", "accuracies"
            - trace: "operations", "parameters", "receptive field"
            - mined: layers by name; a mined layer: units by number; a unit: hits by rank, "0" the strongest
            - projections and attribution: by number, from "0"
            - comparison: "units", "patches"
        width: inches, at least 2; the height follows. None: the width of the user's `figure.figsize` where it is not
            matplotlib's default, and otherwise 7.2, two columns of a paper; one column is 3.3.
        figsize: width and height in inches instead.
        ax: axes of one's own, into which one panel is drawn, with its legend where that leaves half of their height.
            Their figure is saved as matplotlib is set: `plt.rcParams["pdf.fonttype"] = 42` embeds real fonts.

    Returns:
        The figure, or `ax` where that is given.

    Raises:
        InterpretError: an unknown panel, several of them for one `ax`, and a width that is too small.
    """
    if result.kind not in DRAWN_BY:
        raise unknown("kind of result", result.kind, DRAWN_BY)
    module, _, name = DRAWN_BY[result.kind].partition(":")
    asked = {"panels": panels, "width": width, "figsize": figsize, "ax": ax}
    # a figure of one's own kind need not know of them
    given = {argument: value for argument, value in asked.items() if value is not None}
    drawn: Figure | Axes = getattr(import_module(module), name)(result, **given)
    return drawn


# formats that a figure is written in: what is left out of them, so that the same figure is the same bytes
FORMATS: dict[str, dict[str, Any]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


def check_figure_path(path: str | os.PathLike[str], argument: str = "path") -> str:
    """Return the format that a figure's file name asks for.

    >>> check_figure_path("figures/probe.PDF")
    'pdf'

    Raises:
        InterpretError: a name that ends in none of .png, .svg and .pdf; a folder, or a file that is no figure of
            interpret's as it wrote it, stands there.
    """
    kind = Path(path).suffix.removeprefix(".").lower()
    if kind not in FORMATS:
        raise InterpretError(f"{argument} must end in .png, .svg or .pdf, not {Path(path).name!r}")
    check_place(path, is_stamped)
    return kind


def write_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG, SVG or PDF, whole or not at all, and the same bytes every time.

    An older figure that was written like this is replaced, and no other file.

    >>> import tempfile
    >>> from matplotlib.figure import Figure
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("a.svg", "b.svg"):
    ...     write_figure(Figure(figsize=(1, 1)), folder / name)
    >>> (folder / "a.svg").read_bytes() == (folder / "b.svg").read_bytes()
    True

    Raises:
        InterpretError: what `check_figure_path` refuses.
    """
    from interpret.plots.style import saving

    kind = check_figure_path(path)
    with saving(), replacing(path, is_stamped) as new:
        figure.savefig(new, format=kind, metadata=FORMATS[kind])
        new.write_bytes(stamped(new.read_bytes(), kind))
