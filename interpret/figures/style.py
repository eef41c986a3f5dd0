"""The look that all figures share, wherever the user has not chosen another: quiet lines, colours told apart by all."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from io import BytesIO
from typing import Any, TypeVar, cast

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_hex, to_rgb, to_rgba
from matplotlib.figure import Figure as PlainFigure
from matplotlib.font_manager import FontProperties

# which matplotlib types by name, one by one
rcParams: Any = matplotlib.rcParams  # noqa: N816
DEFAULTS: dict[str, Any] = dict(cast(Any, matplotlib.rcParamsDefault))

INK, QUIET, HAIRLINE = "#1a1a1a", "#666666", "#b0b0b0"
ACCENT = "#c2410c"
CATEGORIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
"""Colours of unordered things (Okabe & Ito), told apart without red and green."""
WIDTH = 7.2
"""Inches across two columns of a paper."""
LETTERS = 8.0
"""Points of plain text."""

SCREEN_DPI = 100
"""Pixels that a notebook shows for an inch of a figure; it gets twice as many, for screens that have them."""
LONGEST = 2**15
"""Pixels along a side that browsers show."""

# groups of matplotlib's settings that decide what a figure looks like, and not how it is saved
_LOOKS = ("axes", "errorbar", "font", "grid", "hatch", "image", "legend", "lines", "mathtext", "patch", "text",
          "xtick", "ytick")  # fmt: skip


def mix(color: Any, other: Any, share: float) -> str:
    """Return a colour with a share of another one in it.

    >>> mix("black", "white", 0.5)
    '#808080'
    """
    mixed: Any = (1 - share) * np.array(to_rgb(color)) + share * np.array(to_rgb(other))
    return to_hex(mixed)


@dataclass(frozen=True)
class Look:
    """The colours of the figure that is being drawn, and the size of its small letters."""

    paper: str
    """What lies behind all."""
    ink: str
    quiet: str
    hairline: str
    accent: str
    categories: tuple[Any, ...]
    """At least seven, the user's first."""
    small: float
    """Points of captions."""
    scale: float
    """How large letters are beside those of this style."""


def look() -> Look:
    """Return the look that matplotlib's settings ask for."""
    transparent = to_rgba(rcParams["figure.facecolor"])[3] == 0
    paper = "white" if transparent else to_hex(rcParams["figure.facecolor"])
    ink = to_hex(rcParams["text.color"])
    own = [color for color in rcParams["axes.prop_cycle"].by_key().get("color", []) if isinstance(color, str)]
    scale = rcParams["font.size"] / LETTERS
    return Look(
        paper=paper,
        ink=ink,
        quiet=mix(ink, paper, 0.33),
        hairline=mix(ink, paper, 0.655),
        accent=mix(ACCENT, "white", 0.35) if _is_dark(paper) else ACCENT,
        categories=(*own, *(color for color in CATEGORIES if color not in own)),
        small=6 * scale,
        scale=scale,
    )


def points(setting: str) -> float:
    """Return a size of letters in points, such as that of "axes.title", "xtick.label" or "legend.font"."""
    return FontProperties(size=rcParams[f"{setting}size"]).get_size_in_points()


def _is_dark(color: Any) -> bool:
    return float(np.dot(to_rgb(color), (0.299, 0.587, 0.114))) < 0.5


def _house() -> dict[str, Any]:
    """Return the settings of this style that the user has left as matplotlib has them."""
    paper = rcParams["figure.facecolor"]
    dark = to_rgba(paper)[3] > 0 and _is_dark(paper)
    ink = ("#f2f2f2" if dark else INK) if rcParams["text.color"] == DEFAULTS["text.color"] else rcParams["text.color"]
    ground = paper if to_rgba(paper)[3] > 0 else "white"
    letters = LETTERS if rcParams["font.size"] == DEFAULTS["font.size"] else rcParams["font.size"]
    scale = letters / LETTERS
    wanted = {
        "text.color": ink,
        "font.size": letters,
        "figure.titlesize": 9 * scale,
        "axes.titlesize": 8 * scale,
        "axes.labelsize": 7.5 * scale,
        "axes.facecolor": paper,
        "axes.edgecolor": mix(ink, ground, 0.655),
        "axes.labelcolor": ink,
        "axes.linewidth": 0.6,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlepad": 4.0,
        "axes.prop_cycle": cycler(color=CATEGORIES),
        "xtick.color": mix(ink, ground, 0.33),
        "ytick.color": mix(ink, ground, 0.33),
        "xtick.labelsize": 7 * scale,
        "ytick.labelsize": 7 * scale,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "grid.color": mix(ink, ground, 0.886),
        "grid.linewidth": 0.5,
        "legend.fontsize": 7 * scale,
        "legend.title_fontsize": 7 * scale,
        "legend.frameon": False,
        "lines.linewidth": 1.3,
    }
    return {name: value for name, value in wanted.items() if rcParams[name] == DEFAULTS[name]}


# how files are written: letters as real fonts, which journals ask for and programs can search; the same bytes each time
_SAVING: dict[str, Any] = {
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "savefig.dpi": 200,
    "svg.hashsalt": "interpret",
}


@contextmanager
def saving() -> Iterator[None]:
    """Write files so, as far as the user has not said otherwise."""
    untouched = {name: value for name, value in _SAVING.items() if rcParams[name] == DEFAULTS[name]}
    with matplotlib.rc_context(cast(Any, untouched)):
        yield


class Figure(PlainFigure):
    """A figure that looks the same whenever it is drawn, is saved with real fonts, and shows itself in notebooks.

    >>> figure = Figure(figsize=(2, 1))
    >>> _ = figure.text(0.5, 0.5, "found by a search")
    >>> file = BytesIO()
    >>> figure.savefig(file, format="pdf")
    >>> b"/Type3" in file.getvalue()
    False

    matplotlib looks some of its settings up only as it draws or saves, long after the function that made the figure has
    returned. This one remembers them; the user's stay as they are. A notebook shows it as a picture, with no further
    import and no `%matplotlib`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._look = {name: rcParams[name] for name in rcParams if name.partition(".")[0] in _LOOKS}

    def draw(self, renderer: Any) -> None:
        with matplotlib.rc_context(cast(Any, self._look)):
            super().draw(renderer)

    def savefig(self, fname: Any, **kwargs: Any) -> None:
        with matplotlib.rc_context(cast(Any, self._look)), saving():
            super().savefig(fname, **kwargs)

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        return screen_picture(self)


def screen_picture(figure: Figure) -> tuple[bytes, dict[str, int]]:
    """Return a figure as PNG for a notebook, and its width and height on the screen."""
    width, height = figure.get_size_inches().tolist()
    file = BytesIO()
    figure.savefig(file, format="png", dpi=min(2 * SCREEN_DPI, LONGEST / max(width, height)))
    return file.getvalue(), {"width": round(width * SCREEN_DPI), "height": round(height * SCREEN_DPI)}


Drawing = TypeVar("Drawing", bound=Callable[..., Any])


def in_style(draw: Drawing) -> Drawing:
    """Make a function that returns a figure draw it in the common style, save where the user's settings differ.

    >>> @in_style
    ... def plot_line() -> Figure:
    ...     figure, axes = figure_grid(1, 2, (4, 2))
    ...     axes[0, 1].plot([1, 2])
    ...     return figure
    >>> plot_line().axes[0].spines["top"].get_visible()
    False
    """

    @wraps(draw)
    def drawn(*args: Any, **kwargs: Any) -> Any:
        with matplotlib.rc_context(cast(Any, _house())):
            return draw(*args, **kwargs)

    return cast(Drawing, drawn)


@contextmanager
def only_house_style() -> Iterator[None]:
    """Leave the user's settings aside, as for pages that are the same whoever writes them.

    A letter that the font lacks is a box there, without a word: those who write pages cannot choose another font.
    """
    kept = ("backend", "toolbar", "interactive", "webagg", "docstring", "savefig.directory")
    defaults = {name: value for name, value in DEFAULTS.items() if not name.startswith(kept)}
    with (
        matplotlib.rc_context(cast(Any, defaults)),
        matplotlib.rc_context(cast(Any, _house())),
        saving(),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)
        yield


def figure_grid(rows: int, columns: int, size: tuple[float, float], **kwargs: Any) -> tuple[PlainFigure, Any]:
    """Return a figure of a size in inches with an array of rows × columns of axes."""
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **kwargs)


def by_depth(count: int) -> list[Any]:
    """Return colours for things in an order, such as layers: from those nearest to the ink to the palest.

    >>> len(by_depth(3))
    3
    """
    # neither end may come too near to what lies behind
    ends = (0.2, 1.0) if _is_dark(look().paper) else (0.0, 0.88)
    return [tuple(color) for color in _sequence()(np.linspace(*ends, max(count, 1)))]


def evenly(count: int, most: int = 6) -> list[int]:
    """Return at most so many of things in an order, the first and the last among them, as a legend names them.

    >>> evenly(26)
    [0, 5, 10, 15, 20, 25]
    """
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int)).tolist()


def _sequence() -> Any:
    name = rcParams["image.cmap"]
    return name if isinstance(name, ListedColormap) else matplotlib.colormaps[name]


def show(axes: Axes, picture: Any, title: str = "", **kwargs: Any) -> None:
    """Draw a picture without ticks: small ones with sharp pixels, large ones averaged as they shrink."""
    axes.imshow(np.asarray(picture), **({"interpolation": "auto"} | kwargs))
    bare(axes)
    if title:
        axes.set_title(title, fontsize=7 * look().scale)


def bare(axes: Axes) -> None:
    """Leave nothing of axes but what is drawn into them."""
    axes.set(xticks=[], yticks=[])
    axes.patch.set_visible(False)
    for side in axes.spines.values():
        side.set_visible(False)


def shorten(names: Sequence[str], most: int = 26) -> list[str]:
    """Return names that fit a legend: long ones lose their middle.

    >>> shorten(["conv1", "a-very-long-name-of-a-layer.conv"], 12)
    ['conv1', 'a-ver….conv']
    """
    half = (most - 1) // 2
    return [name if len(name) <= most else f"{name[:half]}…{name[-half:]}" for name in names]
