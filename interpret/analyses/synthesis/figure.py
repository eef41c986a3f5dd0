"""The figure of optimised images: each beside the natural image that is strongest, with its numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from interpret.analyses.synthesis.result import Synthesised
from interpret.figures.style import in_style
from interpret.figures.tiles import Cell, Names, Tiles, choose, in_rows

ACROSS = 4
MOST = 32


@in_style
def plot_synthesised(
    result: Synthesised,
    panels: Names = None,
    *,
    width: float | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Any:
    """Plot optimised images beside the strongest natural ones.

    Args:
        result: the result of `interpret.synthesise`.
        panels: numbers of images, "0" for the first; None: the first 32.
        width: width of the figure in inches.
        figsize: width and height in inches, instead of `width`.
        ax: axes to draw into; None: a new figure.
    """
    rows = choose(panels, [str(row) for row in range(len(result.names))], MOST)
    beside = result.natural_pictures
    cells = []
    for row in rows:
        shown = [result.pictures[row]] + ([] if beside is None else [beside[row]])
        cells.append(Cell(shown, "\n".join(_caption(result, row))))
    natural = "the natural images" if result.data in ("", "tensor") else result.data
    note = "" if beside is None else f"Left: optimised. Right: strongest in {natural}."
    if panels is None and len(result.names) > MOST:
        note = f"The first {MOST} of {len(result.names):,}. {note}".rstrip()
    across = min(ACROSS * (1 if beside is not None else 2), max(len(cells), 2))
    return Tiles(in_rows(cells, across), across, result.title, note, most=1 + (beside is not None)).draw(
        width, figsize, ax
    )


def _caption(result: Synthesised, row: int) -> list[str]:
    """Return the lines below an image."""
    unit = int(result.units[row])
    name = result.names[row] if unit < 0 or result.target == "class" else f"{result.target} {unit}"
    version = f" ({int(result.versions[row]) + 1})" if int(result.versions.max(initial=0)) > 0 else ""
    value = f"{result.values[row]:.3g}"
    shares, beats = result.shares, result.beats_natural
    if shares is not None and np.isfinite(shares[row]):
        value += f", {shares[row]:.2g}× natural"
    lines = [f"{name}{version}", value]
    if beats is not None and not beats[row]:
        lines.append("does not beat natural")
    if result.kept:
        lines.append(f"kept {' / '.join(f'{share[row]:.0%}' for share in result.kept.values())}")
    if result.distances is not None:
        lines.append(f"distance {result.distances[row]:.2g}")
    if own := result.own_settings_in_words(row):
        lines.append(own)
    if result.stopped[row] >= 0:
        lines.append(f"stopped at step {int(result.stopped[row])}")
    return lines
