"""Panels: the parts of a figure, chosen by name and laid out in lines that fit its width, or drawn into given axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as PlainFigure

from interpret.figures.lettering import columns_of, fit, height_of
from interpret.figures.style import DEFAULTS, WIDTH, Figure, look, plain_text, points, rcParams
from interpret.support.errors import InterpretError

NARROWEST = 2.0
"""The least width of a figure in inches, below which text does not fit."""
MOST_LISTED = 40
"""How many names of panels an error lists at most."""
PAD = 0.03
"""Space around each panel, in inches."""
WHOLE_LINE = math.inf
"""The least width of a panel that has a line to itself."""

Names = str | Sequence[str] | None
Size = tuple[float, float] | None
Key = tuple[Any, str]
"""A handle of a legend, and its label."""


@dataclass(frozen=True)
class Panel:
    """One part of a figure."""

    name: str
    draw: Callable[[Axes, float, bool], object]
    """Draws it. Called with the axes, their width in inches including labels, and whether they are the first in their
    line, which has the label of the vertical axis."""
    least: float
    """The least width in inches at which it is readable."""
    height: Callable[[float], float]
    """Returns its height in inches at a width in inches."""


def choose(panels: Names, names: Sequence[str], default: Sequence[str] | None = None, ax: Axes | None = None,
           main: str | None = None) -> list[str]:  # fmt: skip
    """Return the names of the chosen panels, in the figure's order.

    >>> choose(["maps", "input"], ["input", "maps", "curves"])
    ['input', 'maps']
    >>> choose("features", ["input", "maps"])
    Traceback (most recent call last):
    interpret.support.errors.InterpretError: unknown panel 'features': the figure has 'input', 'maps'

    Args:
        panels: names, or one name; None: the default panels.
        names: all panels of the figure.
        default: the default panels; None: all.
        ax: axes to draw into, which take one panel.
        main: the panel for `ax` if none is chosen; None: the first.
    """
    names = list(dict.fromkeys(names))
    if panels is None:
        return [main or names[0]] if ax is not None else [*(names if default is None else default)]
    asked = asked_for(panels, names)
    if ax is not None and len(set(asked)) > 1:
        raise InterpretError(f"panels has {len(set(asked))} panels, but ax takes one: draw each into its own axes")
    return [name for name in names if name in asked]


def asked_for(panels: str | Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the chosen names in the given order; refuse unknown ones."""
    asked = [panels] if isinstance(panels, str) else [str(name) for name in panels]
    known = ", ".join(map(repr, names[:MOST_LISTED])) + ", …" * (len(names) > MOST_LISTED)
    if not asked:
        raise InterpretError(f"panels is empty: the figure has {known}")
    for name in asked:
        if name not in names:
            raise InterpretError(f"unknown panel {name!r}: the figure has {known}")
    return asked


def width_in_inches(width: float | None, figsize: Size = None) -> float:
    """Return the width of a figure: as given, else from the user's matplotlib settings, else two columns of a paper."""
    if figsize is not None:
        if width is not None:
            raise InterpretError("width and figsize both set the width of the figure: give one of them")
        width = figsize[0]
    if width is None:
        own = rcParams["figure.figsize"]
        width = WIDTH if list(own) == list(DEFAULTS["figure.figsize"]) else max(own[0], NARROWEST)
    if not NARROWEST <= width < math.inf:
        raise InterpretError(f"width must be at least {NARROWEST:g} inches, not {width:g}")
    return float(width)


def lay_out(
    rows: Sequence[Sequence[Panel]],
    width: float | None = None,
    figsize: Size = None,
    ax: Axes | None = None,
    title: str = "",
    legend: Sequence[Key] = (),
    legend_title: str = "",
    legend_after: int | None = None,
) -> PlainFigure | Axes:
    """Draw panels as a figure, or a single panel into given axes.

    Args:
        rows: panels that belong side by side; a row that is too wide continues in the next line.
        width: in inches; None: as in `width_in_inches`. The height follows from it.
        figsize: width and height in inches instead.
        ax: where to draw.
        title: above all panels.
        legend: handles and labels, in a line of its own; or inside `ax`, if it takes less than two thirds of its
            height.
        legend_after: how many rows are above the legend; None: all.

    Returns:
        The figure, or `ax`.
    """
    if ax is not None:
        if width is not None or figsize is not None:
            raise InterpretError("ax already has a size: leave out width and figsize")
        with plain_text(ax):
            rows[0][0].draw(ax, inches_of(ax)[0], True)
            if legend:
                _legend_inside(ax, legend, legend_title)
        return ax
    across = width_in_inches(width, figsize)
    size = points("figure.title")
    heading = fit(title, across - 0.2, size, lines=4)
    rows = [row for row in rows if row]
    if legend:
        place = len(rows) if legend_after is None else min(legend_after, len(rows))
        rows = [*rows[:place], [_legend(legend, legend_title)], *rows[place:]]
    lines = broken_into_lines(rows, across)
    heights = heights_of(lines)
    high = figsize[1] if figsize else sum(heights) + height_of(heading, size) + 0.1 * bool(heading)
    figure = Figure(figsize=(across, high), layout="constrained")
    if heading:
        figure.suptitle(heading)
    draw_lines(figure, lines)
    return figure


def _legend_inside(ax: Axes, legend: Sequence[Key], title: str) -> None:
    """Add a legend with a background to axes, if it takes less than two thirds of their height."""
    figure = ax.get_figure(root=True)
    if figure is not None and figure.get_layout_engine() is not None:
        figure.draw_without_rendering()  # the layout sets the size of the axes when the figure is drawn
    across, high = inches_of(ax)
    size = points("legend.font")
    if (len(legend) + bool(title)) * 1.55 * size / 72 < 2 / 3 * high:
        handles, words = zip(*legend, strict=True)
        names = [fit(word, min(1.6, 0.5 * across), size) for word in words]
        ax.legend(handles, names, title=title or None, frameon=True, framealpha=0.85, edgecolor="none")


def _legend(legend: Sequence[Key], title: str) -> Panel:
    """Return a legend as a panel that has a line to itself."""
    size = points("legend.font")

    def words_in(width: float) -> list[str]:
        return [fit(label, width - 0.8, size) for _, label in legend]

    def columns_in(width: float) -> int:
        return columns_of(words_in(width), width - 0.2, size, mark=0.5 * look().scale)

    def draw(axes: Axes, width: float, _: bool) -> None:
        axes.set_axis_off()
        axes.legend([handle for handle, _ in legend], words_in(width), ncols=columns_in(width), title=title or None,
                    loc="center", labelcolor=look().quiet, borderaxespad=0, columnspacing=1.4)  # fmt: skip

    def height(width: float) -> float:
        return (-(-len(legend) // columns_in(width)) + bool(title)) * 1.55 * size / 72 + 0.1

    return Panel("", draw, WHOLE_LINE, height)


Line = list[tuple[Panel, float]]
"""Panels side by side, each with its width in inches."""


def broken_into_lines(rows: Sequence[Sequence[Panel]], width: float) -> list[Line]:
    """Break rows of panels into lines: as few as fit the width, of lengths as equal as possible.

    >>> panels = [Panel(name, print, 1.0, float) for name in "abcde"]
    >>> [[panel.name for panel, _ in line] for line in broken_into_lines([panels], 4.2)]
    [['a', 'b', 'c'], ['d', 'e']]
    """
    scale = look().scale
    lines: list[Line] = []
    for row in rows:
        least = [min(panel.least * scale, width) for panel in row]
        count = len(_broken(least, width))
        # the narrowest width that needs no more lines
        for measure in sorted({sum(least[a:b]) for a in range(len(row)) for b in range(a + 1, len(row) + 1)}):
            parts = _broken(least, min(measure, width)) if measure >= max(least) else []
            if parts and len(parts) == count:
                break
        alike = len(set(least)) == 1
        longest = max(map(len, parts))
        for part in parts:
            together = longest * least[0] if alike else sum(least[place] for place in part)
            lines.append([(row[place], width * least[place] / together) for place in part])
    return lines


def _broken(widths: Sequence[float], measure: float) -> list[list[int]]:
    lines: list[list[int]] = []
    filled = math.inf
    for place, width in enumerate(widths):
        if filled + width > measure + 1e-9:
            lines.append([])
            filled = 0.0
        lines[-1].append(place)
        filled += width
    return lines


def heights_of(lines: Sequence[Line]) -> list[float]:
    """Return the height of each line in inches."""
    return [max(panel.height(wide - 2 * PAD) for panel, wide in line) + 2 * PAD for line in lines]


def draw_lines(figure: Any, lines: Sequence[Line]) -> None:
    """Draw lines of panels into a figure or subfigure."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.set(w_pad=PAD, h_pad=PAD, wspace=0, hspace=0)
    # in one grid, the labels around some panels would reduce the height of all
    blocks = [list(block) for _, block in groupby(lines, _block)]
    heights = [sum(heights_of(block)) for block in blocks]
    parts = [figure]
    if len(blocks) > 1:
        parts = figure.subfigures(len(blocks), 1, squeeze=False, hspace=0, wspace=0, height_ratios=heights)[:, 0]
    for part, block in zip(parts, blocks, strict=True):
        longest = max(block, key=len)
        grid = part.add_gridspec(
            len(block), len(longest), height_ratios=heights_of(block), width_ratios=[wide for _, wide in longest]
        )
        for row, line in enumerate(block):
            for column, (panel, wide) in enumerate(line):
                panel.draw(part.add_subplot(grid[row, column]), wide - 2 * PAD, column == 0)


def _block(line: Line) -> Any:
    """Return a key that is equal for lines whose panels are aligned in columns; a panel of a whole line has its own."""
    return id(line) if line[0][0].least == WHOLE_LINE else round(line[0][1], 6)


def inches_of(ax: Axes) -> tuple[float, float]:
    """Return the width and height of axes in inches, at present."""
    box = ax.get_window_extent()
    dpi = ax.get_figure(root=True).dpi  # type: ignore[union-attr]
    return box.width / dpi, box.height / dpi
