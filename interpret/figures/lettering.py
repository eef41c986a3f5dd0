"""Fit text into a width: measure it with the font, break it into lines, and shorten what is too long."""

from __future__ import annotations

import math
import re
import warnings
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from interpret.figures.style import look, points, printable, rcParams

LEADING = 1.25
"""Line spacing, relative to the font size."""
SLANT = 60
"""Rotation in degrees of tick labels that do not fit horizontally."""
SLACK = 1.05
"""A factor for rasterised text, which is a little wider than its outlines."""


def width_of(words: str, size: float | None = None, bold: bool = False) -> float:
    """Return the width of a line of text in inches, at a font size in points; None: that of captions.

    >>> width_of("nn", 10) == 2 * width_of("n", 10)
    True
    """
    size = look().small if size is None else size
    return (
        _width(printable(words), tuple(rcParams["font.family"]), tuple(rcParams["font.sans-serif"]), bold) * size / 720
    )


@lru_cache(4096)
def _width(words: str, family: tuple[str, ...], _: tuple[str, ...], bold: bool) -> float:
    """Return the width of a line at 10 points, in points."""
    with warnings.catch_warnings():
        # the warning comes when the text is drawn
        warnings.filterwarnings("ignore", r"(?s)Glyph .* missing from", UserWarning)
        font = FontProperties(family=list(family), size=10, weight="bold" if bold else "normal")
        width, _height, _descent = text_to_path.get_text_width_height_descent(words, font, ismath=False)
    return float(width) * SLACK


def fit(words: str, width: float, size: float | None = None, lines: int = 1) -> str:
    """Return text in at most so many lines of a width in inches, shortened in the middle where it is too long.

    >>> fit("giant panda", 0.5, 6, lines=2)
    'giant\\npanda'
    >>> fit("features.12.expand3x3.conv", 0.6, 6)
    'featur….conv'

    >>> fit("nearest of all the images, by distance", 1.4, 6, lines=2)
    'nearest of all the\\nimages, by distance'

    Lines are broken at spaces, otherwise after a dot, slash, hyphen or underscore, and have about equal lengths.
    """
    words = printable(words).strip()
    found, whole = _broken(words, width, size, lines)
    # the narrowest width that needs no more lines, so that no single word is left on the last line
    narrow, wide = 0.0, width
    for _ in range(8 if whole and len(found) > 1 else 0):
        tried, whole = _broken(words, (narrow + wide) / 2, size, len(found))
        if whole:
            found, wide = tried, (narrow + wide) / 2
        else:
            narrow = (narrow + wide) / 2
    return "\n".join(found)


def _broken(words: str, width: float, size: float | None, lines: int) -> tuple[list[str], bool]:
    """Break text greedily into at most so many lines, and return whether all of it fitted."""
    broken: list[str] = []
    while len(broken) < lines - 1 and width_of(words, size) > width:
        line = _first_line(words, width, size)
        if not line:
            break
        broken.append(line.strip())
        words = words[len(line) :].strip()
    return [*broken, shorten_to(words, width, size)], width_of(words, size) <= width


def wrap(words: str, width: float, size: float, bold: bool = False) -> list[str]:
    """Return text in as many lines of a width in inches as it needs, at a font size in points.

    >>> wrap("one two three", 0.6, 10)
    ['one two', 'three']
    >>> "".join(wrap("0123456789abcdef", 0.6, 10))  # a word that is longer than a line is broken anywhere
    '0123456789abcdef'
    """
    words, lines = printable(words).strip(), []
    while width_of(words, size, bold) > width:
        line = _first_line(words, width, size, bold) or _start(words, width, size, bold)
        lines.append(line.strip())
        words = words[len(line) :].strip()
    return [*lines, words]


def _first_line(words: str, width: float, size: float | None, bold: bool = False) -> str:
    """Return the longest start of a text that fits a line and ends where text may be broken; empty if there is none."""
    for places in (r"\s+", r"[./_\-]"):
        ends = [match.end() for match in re.finditer(places, words)]
        fitting = bisect_right(ends, width, key=lambda end: width_of(words[:end].strip(), size, bold))
        if fitting:
            return words[: ends[fitting - 1]]
    return ""


def _start(words: str, width: float, size: float, bold: bool) -> str:
    """Return the longest start of a text that fits a line, but at least one character."""
    ends = range(1, len(words) + 1)
    return words[: max(1, bisect_right(ends, width, key=lambda end: width_of(words[:end], size, bold)))]


def shorten_to(words: str, width: float, size: float | None = None) -> str:
    """Return text in a line of a width in inches, shortened in the middle where it is too long.

    >>> shorten_to("features.12.expand3x3.conv", 0.6, 6)
    'featur….conv'
    """
    words = printable(words)
    if width_of(words, size) <= width:
        return words
    for kept in range(len(words) - 1, 1, -1):
        tail = kept // 2
        short = f"{words[: kept - tail].rstrip()}…{words[len(words) - tail :].lstrip()}"
        if width_of(short, size) <= width:
            return short
    return words[:1] + "…"


def height_of(words: str, size: float | None = None) -> float:
    """Return the height in inches of lines of text."""
    size = look().small if size is None else size
    return (words.count("\n") + 1) * size * LEADING / 72 if words else 0.0


def columns_of(labels: Sequence[str], width: float, size: float, mark: float = 0.45) -> int:
    """Return how many columns of a legend fit a width in inches; `mark` is the width of a handle in inches."""
    if not labels:
        return 1
    for columns in range(len(labels), 1, -1):
        lines = -(-len(labels) // columns)
        # a legend fills one column after the other
        parts = [labels[start : start + lines] for start in range(0, len(labels), lines)]
        if len(parts) == columns and sum(max(width_of(one, size) for one in part) + mark for part in parts) <= width:
            return columns
    return 1


def first_name(name: str) -> str:
    """Return the first of a class's names.

    >>> first_name("tench, Tinca tinca")
    'tench'
    """
    return name.partition(",")[0]


@dataclass(frozen=True)
class Names:
    """Tick labels at equal distances, such as the layers below an axis."""

    places: list[int]
    """The ticks that have a label."""
    words: list[str]
    slanted: bool
    height: float
    """Their height in inches."""


def tick_labels(names: Sequence[str], width: float, size: float) -> Names:
    """Return tick labels at equal distances over a width in inches: horizontal where they fit, otherwise slanted.

    >>> tick_labels(["conv1", "fc"], 2.0, 7).slanted
    False
    >>> tick_labels([f"features.{layer}.conv" for layer in range(40)], 2.0, 7).places[:3]
    [0, 3, 6]
    """
    pitch = width / max(len(names), 1)
    if all(width_of(name, size) < 0.95 * pitch for name in names):
        return Names(list(range(len(names))), [fit(name, pitch, size) for name in names], False, height_of("x", size))
    # slanted labels must be a line height apart
    step = max(1, math.ceil(LEADING * size / 72 / math.sin(math.radians(SLANT)) / pitch))
    places = list(range(0, len(names), step))
    words = [fit(names[place], 1.2, size) for place in places]
    longest = max(width_of(word, size) for word in words)
    return Names(places, words, True, longest * math.sin(math.radians(SLANT)) + size / 72)


def label_ticks(axes: Axes, names: Sequence[str], width: float) -> None:
    """Label the ticks 0, 1, 2 … of horizontal axes of a width in inches."""
    found = tick_labels(names, width, points("xtick.label"))
    slant: dict[str, Any] = {"rotation": SLANT, "ha": "right", "rotation_mode": "anchor"} if found.slanted else {}
    axes.set_xticks(found.places, found.words, **slant)


def without_overlaps(labels: Sequence[str], places: Sequence[float], width: float, size: float) -> list[str]:
    """Return labels at ascending positions over a width in inches; empty where one would overlap the label before.

    >>> without_overlaps(["0", "50", "51", "100"], [0, 50, 51, 100], 2.0, 7)
    ['0', '50', '', '100']
    """
    span = (places[-1] - places[0]) or 1.0
    found, end = [], -math.inf
    for label, place in zip(labels, places, strict=True):
        at, half = (place - places[0]) / span * width, width_of(label + " ", size) / 2
        has_room = at - half >= end
        found.append(label if has_room else "")
        end = at + half if has_room else end
    return found
