"""Draw results of any kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from interpret.results.result import Result


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
    """Draw a result of any kind as a matplotlib figure.

    >>> import numpy as np
    >>> from interpret.analyses.invariance.result import InvarianceCurves
    >>> curves = InvarianceCurves("scale", "scale (ratio)", 1.0, np.array([1.0, 1.5, 2.0]),
    ...     distances={"conv1": np.array([[0.0, 2.0, 3.0]])}, norms={"conv1": np.array([4.0])})
    >>> figure = plot(curves, panels="layers", width=3.3)       # a column of a paper
    >>> figure.get_size_inches().round(2).tolist()[0]
    3.3
    >>> plot(curves, panels="distances")
    Traceback (most recent call last):
    interpret.support.errors.InterpretError: unknown panel 'distances': the figure has 'first', 'layers'

    Save it with `plot(result).savefig("figure.pdf")`, which embeds fonts; `result.reading` is a sentence on how to read
    it. Your settings of matplotlib (`plt.style.use`, `rcParams`) take effect on fonts, sizes and colours; settings at
    matplotlib's defaults are those of this project.

    Args:
        result: the result of an analysis.
        panels: the parts of the figure to draw, one or several by name; None: the default ones.

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
            - projections, synthesised, inversions, atlas (cells) and attribution: by number, from "0"
            - comparison: "units", "patches"
        width: inches, at least 2; the height follows. None: the width of the user's `figure.figsize` where it is not
            matplotlib's default, and otherwise 7.2, two columns of a paper; one column is 3.3.
        figsize: width and height in inches instead.
        ax: your own axes, into which one panel is drawn, with its legend if that leaves a third of their height. Their
            figure is saved by matplotlib's settings: `plt.rcParams["pdf.fonttype"] = 42` embeds fonts.

    Returns:
        The figure, or `ax` where that is given.

    Raises:
        InterpretError: an unknown panel, several of them for one `ax`, and a width that is too small.
    """
    asked = {"panels": panels, "width": width, "figsize": figsize, "ax": ax}
    # a user's class may define a plot without these arguments
    drawn: Figure | Axes = result.plot(**{argument: value for argument, value in asked.items() if value is not None})  # type: ignore[arg-type]
    return drawn
