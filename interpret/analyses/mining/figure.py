"""Figures of mining results: a network's layers, a layer's units, and one unit."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes

from interpret.analyses.mining.result import Mined, MinedLayer
from interpret.analyses.mining.unit import Unit
from interpret.backprop.composite import RuleName
from interpret.figures.pictures import signals_as_pictures
from interpret.figures.style import in_style
from interpret.figures.tiles import Cell, Names, Row, Tiles, choose, grid_of, in_rows
from interpret.support.errors import InterpretError

ACROSS = 6
"""Units per row in a layer's sheet."""
PAIRS_ACROSS = 3
"""Pairs of patch and projection per row."""


@in_style
def plot_mined(
    mined: Mined,
    panels: Names = None,
    *,
    most: int = 12,
    width: float | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Any:
    """Plot the most active units of each layer, each with its top-activating patch.

    Args:
        mined: the result of `interpret.mine`.
        panels: names of layers, in this order; None: all.
        most: largest number of units per layer.
        width: width of the figure in inches.
        figsize: width and height in inches, instead of `width`.
        ax: axes to draw into; None: a new figure.
    """
    from interpret.analyses.mining.patches import strongest_patches

    if most < 1:
        raise InterpretError(f"most must be at least 1 unit, not {most}")
    model, data = mined.subject.both()
    names = list(mined)
    chosen = {names[place]: mined[names[place]] for place in choose(panels, names, len(names))}
    pictures = strongest_patches(model, data, chosen, most)
    rows = []
    for name, layer in chosen.items():
        shown = zip(layer.most_active.tolist(), pictures[name], strict=False)
        rows.append(Row([Cell([picture], str(unit)) for unit, picture in shown], name))
    return Tiles(rows, most, mined.title).draw(width, figsize, ax)


@in_style
def plot_mined_layer(
    layer: MinedLayer,
    panels: Names = None,
    *,
    most: int = 18,
    width: float | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Any:
    """Plot a sheet of a layer's units, each with its top-activating patches.

    Args:
        layer: one layer of the result of `interpret.mine`.
        panels: numbers of units, in this order; None: the most active units.
        most: largest number of units.
        width: width of the figure in inches.
        figsize: width and height in inches, instead of `width`.
        ax: axes to draw into; None: a new figure.
    """
    from interpret.analyses.mining.patches import patches_of_units

    if most < 1:
        raise InterpretError(f"most must be at least 1 unit, not {most}")
    everything = [str(unit) for unit in range(len(layer.values))]
    units = layer.most_active[:most].tolist() if panels is None else choose(panels, everything, most)
    shown = [layer.unit(unit) for unit in units]
    pictures = patches_of_units(*layer.subject.both(), layer, [unit.unit for unit in shown])
    cells = []
    for unit, patches in zip(shown, pictures, strict=True):
        strongest = f"{unit.values[0]:.4g}" if len(patches) else "no hit"
        cells.append(Cell([grid_of(patches)] if len(patches) else [], f"{unit.unit}: {strongest}"))
    chosen = "" if panels is not None else f", the {len(cells)} most active of {len(layer.values):,}"
    note = f"Unit and its strongest activation{chosen}"
    return Tiles(in_rows(cells, ACROSS), min(ACROSS, max(len(cells), 3)), layer.title, note).draw(width, figsize, ax)


@in_style
def plot_unit(
    unit: Unit,
    panels: Names = None,
    *,
    rule: RuleName | None = None,
    width: float | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Any:
    """Plot a unit's patches beside their projections, with value and position below each.

    Args:
        unit: the result of `mined[layer].unit(number)`.
        panels: ranks of hits, "0" for the strongest; None: all.
        rule: the rule of the projections; None: "deconvnet", or for a unit from a file the rule stored with it.
        width: width of the figure in inches.
        figsize: width and height in inches, instead of `width`.
        ax: axes to draw into; None: a new figure.
    """
    known = unit.shows_projections
    chosen: Any = rule or (known[0] if known else None)
    pictures: list[list[Any]] = [[picture] for picture in unit.pictures]
    if chosen is not None:
        signals = unit.projections(chosen)
        projected = signals_as_pictures(signals.float().numpy(), unit.colours, signals.dim() - 2)
        pictures = [[*pair, picture] for pair, picture in zip(pictures, projected, strict=True)]
    cells = []
    for rank in choose(panels, [str(rank) for rank in range(len(pictures))], len(pictures)):
        place = ", ".join(map(str, unit.positions[rank].tolist()))
        name = f"image {unit.images[rank]}" if unit.names is None else unit.names[rank]
        cells.append(Cell(pictures[rank], f"{unit.values[rank]:.4g} at ({place})\n{name}"))
    by = "" if chosen is None else f": patches and their projections ({chosen})"
    most = 1 if chosen is None else 2
    across = min(PAIRS_ACROSS * (3 - most), max(len(cells), 2))
    return Tiles(in_rows(cells, across), across, f"{unit.title}{by}", most=most).draw(width, figsize, ax)
