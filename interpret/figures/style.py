"""The style of all figures, as far as the user's matplotlib settings do not differ."""

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
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_hex, to_rgb, to_rgba
from matplotlib.figure import Figure as PlainFigure
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text

from interpret.support.wording import printable

# typed as Any: matplotlib types each setting by name
rcParams: Any = matplotlib.rcParams  # noqa: N816
DEFAULTS: dict[str, Any] = dict(cast(Any, matplotlib.rcParamsDefault))

INK, QUIET, HAIRLINE = "#1a1a1a", "#666666", "#b0b0b0"
ACCENT = "#c2410c"
CATEGORIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
"""Colours for categories, distinguishable with red–green colour blindness (Okabe & Ito)."""
WIDTH = 7.2
"""Width of two columns of a paper, in inches."""
FONT_SIZE = 8.0
"""Size of plain text, in points."""

SCREEN_DPI = 100
"""Pixels per inch in a notebook; pictures have twice as many, for high-resolution screens."""
LARGEST_SIDE = 2**15
"""The largest side of a picture that browsers show, in pixels."""

_PLAIN_TEXT: dict[str, Any] = {"text.parse_math": False, "text.usetex": False}
"""Names of layers, classes and files are no formulas: "$x^" is drawn as it is, whatever the user's settings."""

# groups of matplotlib's settings that affect how a figure looks, rather than how it is saved
_STYLE_GROUPS = ("axes", "errorbar", "font", "grid", "hatch", "image", "legend", "lines", "mathtext", "patch", "text",
          "xtick", "ytick")  # fmt: skip


def mix(color: Any, other: Any, share: float) -> str:
    """Return a mixture of two colours, with a share of the second.

    >>> mix("black", "white", 0.5)
    '#808080'
    """
    mixed: Any = (1 - share) * np.array(to_rgb(color)) + share * np.array(to_rgb(other))
    return to_hex(mixed)


@dataclass(frozen=True)
class Look:
    """The colours of the current figure, and its font sizes."""

    paper: str
    """The background."""
    ink: str
    quiet: str
    hairline: str
    accent: str
    categories: tuple[Any, ...]
    """At least seven, the user's own colours first."""
    small: float
    """Size of captions, in points."""
    scale: float
    """The user's font size relative to that of this style."""


def look() -> Look:
    """Return the colours and sizes that follow from matplotlib's current settings."""
    transparent = to_rgba(rcParams["figure.facecolor"])[3] == 0
    paper = "white" if transparent else to_hex(rcParams["figure.facecolor"])
    ink = to_hex(rcParams["text.color"])
    own = [color for color in rcParams["axes.prop_cycle"].by_key().get("color", []) if isinstance(color, str)]
    scale = rcParams["font.size"] / FONT_SIZE
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
    """Return a font size in points, such as that of "axes.title", "xtick.label" or "legend.font"."""
    return FontProperties(size=rcParams[f"{setting}size"]).get_size_in_points()


def _is_dark(color: Any) -> bool:
    return float(np.dot(to_rgb(color), (0.299, 0.587, 0.114))) < 0.5


def _style_settings() -> dict[str, Any]:
    """Return the settings of this style that the user has not changed from matplotlib's defaults."""
    paper = rcParams["figure.facecolor"]
    dark = to_rgba(paper)[3] > 0 and _is_dark(paper)
    ink = ("#f2f2f2" if dark else INK) if rcParams["text.color"] == DEFAULTS["text.color"] else rcParams["text.color"]
    ground = paper if to_rgba(paper)[3] > 0 else "white"
    letters = FONT_SIZE if rcParams["font.size"] == DEFAULTS["font.size"] else rcParams["font.size"]
    scale = letters / FONT_SIZE
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
    return {name: value for name, value in wanted.items() if rcParams[name] == DEFAULTS[name]} | _PLAIN_TEXT


@contextmanager
def plain_text(artist: Artist) -> Iterator[None]:
    """Draw the words that this block writes into an artist of the user, such as the title of axes, as they are.

    >>> axes = PlainFigure().subplots()
    >>> with plain_text(axes):
    ...     _ = axes.set_title("$x^")
    >>> axes.title.get_parse_math(), axes.xaxis.label.get_parse_math()
    (False, True)
    """
    before = {words: words.get_text() for words in artist.findobj(Text)}
    yield
    for words in artist.findobj(Text):
        if words.get_text() != before.get(words):
            words.set(parse_math=False, usetex=False)


# fonts are embedded as TrueType, as journals require and so that text can be searched; the same figure gives the same
# bytes
_SAVING: dict[str, Any] = {
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "savefig.dpi": 200,
    "svg.hashsalt": "interpret",
}


@contextmanager
def saving() -> Iterator[None]:
    """Set how figures are written to files, as far as the user has not set it."""
    untouched = {name: value for name, value in _SAVING.items() if rcParams[name] == DEFAULTS[name]}
    with matplotlib.rc_context(cast(Any, untouched)):
        yield


class Figure(PlainFigure):
    """A figure that keeps the settings with which it was made, embeds its fonts, and shows itself in notebooks.

    >>> figure = Figure(figsize=(2, 1))
    >>> _ = figure.text(0.5, 0.5, "found by a search")
    >>> file = BytesIO()
    >>> figure.savefig(file, format="pdf")
    >>> b"/Type3" in file.getvalue()
    False

    matplotlib reads some settings only when it draws or saves, after the function that made the figure has returned.
    This class stores them with the figure and leaves the user's settings unchanged. A notebook shows the figure as a
    picture, without further imports and without `%matplotlib`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._look = {name: rcParams[name] for name in rcParams if name.partition(".")[0] in _STYLE_GROUPS}

    def draw(self, renderer: Any) -> None:
        with matplotlib.rc_context(cast(Any, self._look)):
            super().draw(renderer)

    def savefig(self, fname: Any, **kwargs: Any) -> None:
        with matplotlib.rc_context(cast(Any, self._look)), saving():
            super().savefig(fname, **kwargs)

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        return screen_picture(self)


def laid_out(figure: PlainFigure) -> PlainFigure:
    """Let a user's figure fit its axes and labels into its size, unless its own layout is set.

    >>> plain = PlainFigure(figsize=(4, 2))
    >>> laid_out(plain).get_layout_engine().__class__.__name__
    'ConstrainedLayoutEngine'
    """
    sides = ("left", "right", "bottom", "top", "wspace", "hspace")
    is_set = any(getattr(figure.subplotpars, side) != DEFAULTS[f"figure.subplot.{side}"] for side in sides)
    if not isinstance(figure, Figure) and figure.get_layout_engine() is None and not is_set:
        figure.set_layout_engine("constrained")
    return figure


def screen_picture(figure: PlainFigure) -> tuple[bytes, dict[str, int]]:
    """Return a figure as PNG for a notebook, with its width and height on the screen."""
    figure = laid_out(figure)
    width, height = figure.get_size_inches().tolist()
    file = BytesIO()
    figure.savefig(file, format="png", dpi=min(2 * SCREEN_DPI, LARGEST_SIDE / max(width, height)))
    return file.getvalue(), {"width": round(width * SCREEN_DPI), "height": round(height * SCREEN_DPI)}


Drawing = TypeVar("Drawing", bound=Callable[..., Any])


def in_style(draw: Drawing) -> Drawing:
    """Decorate a function that returns a figure: it draws in this style, except where the user's settings differ.

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
        with matplotlib.rc_context(cast(Any, _style_settings())):
            return draw(*args, **kwargs)

    return cast(Drawing, drawn)


@contextmanager
def ignoring_user_style() -> Iterator[None]:
    """Ignore the user's settings, so that pages and reports do not depend on them.

    A character that the font lacks is drawn as a box without a warning: whoever writes pages cannot choose the font.
    """
    kept = ("backend", "toolbar", "interactive", "webagg", "docstring", "savefig.directory")
    defaults = {name: value for name, value in DEFAULTS.items() if not name.startswith(kept)}
    with (
        matplotlib.rc_context(cast(Any, defaults)),
        matplotlib.rc_context(cast(Any, _style_settings())),
        saving(),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", r"(?s)Glyph .* missing from", UserWarning)
        yield


def figure_grid(rows: int, columns: int, size: tuple[float, float], **kwargs: Any) -> tuple[PlainFigure, Any]:
    """Return a figure of a size in inches, and its axes as an array [rows, columns]."""
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **kwargs)


def by_depth(count: int) -> list[Any]:
    """Return a sequence of colours for ordered things, such as layers: from dark to pale, or pale to dark on black.

    >>> len(by_depth(3))
    3
    """
    # neither end may be too close to the background
    ends = (0.2, 1.0) if _is_dark(look().paper) else (0.0, 0.88)
    return [tuple(color) for color in _sequence()(np.linspace(*ends, max(count, 1)))]


def evenly(count: int, most: int = 6) -> list[int]:
    """Return at most so many indices at equal steps, with the first and the last, for the entries of a legend.

    >>> evenly(26)
    [0, 5, 10, 15, 20, 25]
    """
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int)).tolist()


def _sequence() -> Any:
    name = rcParams["image.cmap"]
    return name if isinstance(name, ListedColormap) else matplotlib.colormaps[name]


def show(axes: Axes, picture: Any, title: str = "", **kwargs: Any) -> None:
    """Draw a picture without ticks: pixels stay sharp when magnified and are averaged when shrunk."""
    axes.imshow(np.asarray(picture), **({"interpolation": "auto"} | kwargs))
    bare(axes)
    if title:
        axes.set_title(printable(title), fontsize=7 * look().scale)


def bare(axes: Axes) -> None:
    """Remove ticks, spines and background from axes."""
    axes.set(xticks=[], yticks=[])
    axes.patch.set_visible(False)
    for side in axes.spines.values():
        side.set_visible(False)


def shorten(names: Sequence[str], most: int = 26) -> list[str]:
    """Return names that fit a legend: long ones are shortened in the middle.

    >>> shorten(["conv1", "a-very-long-name-of-a-layer.conv"], 12)
    ['conv1', 'a-ver….conv']
    """
    half = (most - 1) // 2
    names = [printable(name) for name in names]
    return [name if len(name) <= most else f"{name[:half]}…{name[-half:]}" for name in names]
