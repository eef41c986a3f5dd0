"""Draw a table of methods: a row for each, a column for each image, and beside them the two correlations."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from interpret.analyses.attribution.result import METHODS
from interpret.analyses.attribution.similarity import scaled
from interpret.analyses.methods.result import MethodComparison
from interpret.figures.lettering import fit, height_of, width_of
from interpret.figures.panels import WHOLE_LINE, Names, Panel, Size, choose, lay_out
from interpret.figures.sheet import Sheet
from interpret.figures.style import in_style, look, points

COLOUR_MAP = "RdBu_r"
MOST_IMAGES = 5
"""Images in a figure at most; the correlations are those of all images."""
LEAST_MAP_SIDE, MOST_MAPS_HEIGHT = 0.5, 8.8
"""Inches: the least side of a map, and the greatest height of all maps of an image."""
PANELS = ("maps", "other", "detail")


@in_style
def plot_methods(
    result: MethodComparison,
    panels: Names = None,
    *,
    width: float | None = None,
    figsize: Size = None,
    ax: Axes | None = None,
) -> Figure | Axes:
    """Draw a table of maps with one legend, and beside each row the correlations of its maps.

    >>> from interpret.analyses.methods.result import MethodComparison
    >>> one = np.ones(1)
    >>> maps = {name: np.eye(8, dtype=np.float32)[None] for name in ("guided", "gradcam")}
    >>> numbers = {name: one for name in maps}
    >>> figure = plot_methods(MethodComparison("net", None, np.zeros((1, 8, 8, 3), np.uint8), maps, one, one, ["cat"],
    ...     ["dog"], one, one, numbers, numbers, {}))
    >>> [text.get_text() for text in figure.axes[0].texts][:4]
    ['maps for', 'compared with', 'cat', 'dog']

    Args:
        result: what `interpret.compare_methods` returned.
        panels: columns of the table: "maps", at most of the first five images; "other", the rank correlation of a map
            with that for another class or unit; "detail", that with the image's fine detail.
        width, figsize, ax: as in `interpret.plot`.
    """
    # one panel, so that the whole table can be drawn into the user's axes
    chosen = choose(panels, PANELS)
    table = Panel("table", lambda axes, wide, _: _Table(result, chosen, wide).draw(axes), WHOLE_LINE,
                  lambda wide: _Table(result, chosen, wide).height)  # fmt: skip
    return lay_out([[table]], width, figsize, ax)


class _Table:
    """The positions of all parts of the table, in inches."""

    def __init__(self, result: MethodComparison, chosen: list[str], width: float) -> None:
        self.result, self.width = result, width
        self.look = look()
        self.size = points("axes.label")
        self.narrow = width < 5 * self.look.scale
        self.columns = [name for name in chosen if name != "maps"]
        names = [METHODS.get(method, method) for method in result.maps]
        widest = max(width_of(name, self.size) for name in (*names, "compared with"))
        self.left = min(widest, (0.75 if self.narrow else 1.05) * self.look.scale) + 0.06
        self.names = [fit(name, self.left - 0.06, self.size, lines=3) for name in names]
        rows = len(names)
        self.shown, self.side = 0, 0.0
        self.number = (0.6 if self.narrow else 0.85) * self.look.scale
        ratio = result.pictures.shape[1] / result.pictures.shape[2]
        if "maps" in chosen:
            room = width - self.left - len(self.columns) * (self.number + 0.1)
            least = max(LEAST_MAP_SIDE, 0.4 * self.look.scale)
            self.shown = max(1, min(len(result.pictures), MOST_IMAGES, int(room / least)))
            self.side = max(0.2, min(room / self.shown, max(least, MOST_MAPS_HEIGHT / (rows + 1) / ratio)))
        else:
            self.number = min(1.6, (width - self.left) / len(self.columns) - 0.1)
        lines = max(name.count("\n") + 1 for name in self.names)
        self.row = max(self.side * ratio, lines * self.size * 1.15 / 72 + 0.04, 0.22 * self.look.scale)
        self.picture = self.side * 0.96, self.side * 0.96 * ratio
        self.targets = [fit(name, 0.94 * self.side, lines=2) for name in result.target_names[: self.shown]]
        self.others = [fit(name, 0.94 * self.side, lines=2) for name in result.other_names[: self.shown]]
        # two lines of names above the images, two below
        two = height_of("two\nlines") + 0.04
        heads = {"other": "ρ with the map compared with", "detail": "ρ with the image’s detail"}
        self.heads = {name: fit(heads[name], self.number + 0.06, lines=5) for name in self.columns}
        above = max((height_of(head) for head in self.heads.values()), default=0.0)
        self.images = two if self.shown else 0.0
        self.start = max(self.images + (self.side * ratio + two if self.shown else 0.0), above) + 0.04
        self.end = self.start + rows * self.row
        self.foot = fit(_explained(result, self.columns), width, lines=12)
        below = 0.2 * self.look.scale if self.columns else 0.0
        self.bar = self.end + 0.05
        if self.shown:
            below = max(below, 0.42 * self.look.scale)
        self.notes = self.end + below
        self.height = self.notes + height_of(self.foot) + 0.04

    def draw(self, axes: Axes) -> None:
        sheet = Sheet(axes, self.width, self.height)
        if self.shown:
            self._images(sheet)
        for row, name in enumerate(self.names):
            middle = self.start + (row + 0.48) * self.row
            sheet.write(0, middle, name, self.size, va="center")
        for column, name in enumerate(self.columns):
            self._numbers(sheet, name, column)
        if self.shown:
            self._maps(sheet)
        sheet.write(0, self.notes, self.foot, color=self.look.quiet, linespacing=1.15)

    def _images(self, sheet: Sheet) -> None:
        high, two = self.picture[1], self.images - 0.04
        below = self.images + high + 0.04
        sheet.write(0, two, "maps for", va="bottom", color=self.look.quiet)
        sheet.write(0, below, fit("compared with", self.left - 0.06, lines=2), color=self.look.quiet)
        for column in range(self.shown):
            x = self.left + column * self.side
            middle = x + self.picture[0] / 2
            sheet.write(middle, two, self.targets[column], va="bottom", ha="center")
            sheet.write(middle, below, self.others[column], ha="center", color=self.look.quiet)
            sheet.picture(x, self.images, *self.picture, self.result.pictures[column])

    def _maps(self, sheet: Sheet) -> None:
        for row, maps in enumerate(self.result.maps.values()):
            for column in range(self.shown):
                place = self.left + column * self.side, self.start + row * self.row
                sheet.picture(*place, *self.picture, scaled(maps[column]), cmap=COLOUR_MAP, vmin=-1, vmax=1)
                sheet.frame(*place, *self.picture, self.look.hairline, 0.4)
        what = "class" if self.result.layer is None else "unit"
        wide = min(self.shown * self.side, 3.0) - 0.04 * self.side
        shades = matplotlib.colormaps[COLOUR_MAP](np.linspace(0, 1, 256))[None]
        high = 0.07 * self.look.scale
        sheet.picture(self.left, self.bar, wide, high, shades)
        ends = [(0.0, "left", f"against the {what}"), (1.0, "right", f"for the {what}")]
        if wide < 0.2 + sum(width_of(words) for _, _, words in ends):
            ends = [(0.0, "left", "against"), (1.0, "right", "for")]
        for share, ha, words in ends:
            sheet.write(self.left + share * wide, self.bar + high + 0.03, words, ha=ha, color=self.look.quiet)

    def _numbers(self, sheet: Sheet, name: str, column: int) -> None:
        """Draw a column of correlations: a dot for each image, and a bar for their mean."""
        result = self.result
        values = result.same_for_other if name == "other" else result.same_as_image
        low = min(-0.3, min(float(of.min()) for of in values.values()) - 0.06)
        left = self.left + self.shown * self.side + column * (self.number + 0.1) + 0.08
        color = self.look.categories[column if len(self.columns) == 2 else PANELS.index(name) - 1]

        def at(value: Any) -> Any:
            return left + (np.asarray(value) - low) / (1.06 - low) * self.number

        sheet.write(left + self.number / 2, self.start - 0.05, self.heads[name], va="bottom", ha="center")
        ticks = [-0.5, 0, 0.5, 1] if low < -0.5 else [0, 0.5, 1]
        if self.narrow:
            ticks = [0, 1]
        sheet.line([at(0), at(0)], [self.start, self.end])
        sheet.line([at(low), at(1.06)], [self.end, self.end])
        for tick in ticks:
            sheet.line([at(tick)] * 2, [self.end, self.end + 0.03])
            sheet.write(at(tick), self.end + 0.05, f"{tick:g}".replace("-", "−"), ha="center", color=self.look.quiet)
        for row, method in enumerate(result.maps):
            mean, middle = float(np.mean(values[method])), self.start + (row + 0.6) * self.row
            thick = min(0.34 * self.row, 0.16)
            sheet.box(at(0), middle - thick / 2, at(mean) - at(0), thick, facecolor=color, alpha=0.3)
            sheet.axes.plot(at(values[method]), np.full(len(values[method]), middle), "o", markersize=2.6, color=color,
                            markeredgewidth=0, alpha=0.8)  # fmt: skip
            words = f"{mean:.2f}".replace("-", "−")
            sheet.write(left + self.number, middle - thick / 2 - 0.01, words, va="bottom", ha="right")


def _explained(result: MethodComparison, columns: list[str]) -> str:
    """Return the explanation of ρ for the foot of the table."""
    if not columns:
        return ""
    target, other = ("class", "runner-up") if result.layer is None else ("unit", "next channel")
    parts = ["ρ: Spearman’s rank correlation of two maps, pixel by pixel; 1: the same order, 0: nothing in common."]
    if "other" in columns:
        parts.append(
            f"With the map compared with: that for the {other} named below each image, by magnitude; near 1, the map "
            f"does not tell one {target} from the other."
        )
    if "detail" in columns:
        parts.append("With the image’s detail: its fine structure, with sign; near 1, the map is the image.")
    parts.append("A dot an image, a bar their mean.")
    return " ".join(parts)
