"""Numbers and sizes as text for pages and reports."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

THIN = "\u202f"  # narrow no-break space, between a number and its unit


def value(number: float) -> str:
    """Return an activation in three significant digits.

    >>> [value(number) for number in (1234.5, 87.25, 3.14159, 0.05, 0.0, -0.00001, float("nan"))]
    ['1,234', '87.2', '3.14', '0.050', '0', '−1.0e-05', '–']
    """
    if not math.isfinite(number):
        return "–"
    size = abs(number)
    if size == 0:
        text = "0"
    elif size >= 100:
        text = f"{size:,.0f}"
    elif size >= 10:
        text = f"{size:.1f}"
    elif size >= 1:
        text = f"{size:.2f}"
    else:
        text = f"{size:.3f}" if size >= 0.001 else f"{size:.1e}"
    return "−" + text if number < 0 else text


def signed(number: float) -> str:
    """Return a weight in three significant digits, with its sign.

    >>> signed(0.25), signed(-1.5)
    ('+0.250', '−1.50')
    """
    return value(number) if number < 0 else "+" + value(number)


def count(number: int) -> str:
    """Return a whole number with its thousands set apart.

    >>> count(1235496)
    '1,235,496'
    """
    return f"{number:,}"


def compact(number: int) -> str:
    """Return a large number in thousands, millions or billions.

    >>> [compact(number) for number in (640, 1000, 1235496, 349_150_000, 15_470_000_000)]
    ['640', '1.00\u202fk', '1.24\u202fM', '349\u202fM', '15.5\u202fG']
    """
    for scale, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= scale:
            short = number / scale
            digits = 2 if short < 10 else 1 if short < 100 else 0
            return f"{short:.{digits}f}{THIN}{letter}"
    return str(number)


def share(fraction: float) -> str:
    """Return a fraction in percent.

    >>> [share(fraction) for fraction in (0.0, 0.0004, 0.047, 0.5, 1.0)]
    ['0\u202f%', '<\u202f0.1\u202f%', '4.7\u202f%', '50\u202f%', '100\u202f%']
    """
    percent = 100 * fraction
    if not math.isfinite(percent):
        return "–"
    if 0 < percent < 0.1:
        return f"<{THIN}0.1{THIN}%"
    digits = 1 if 0 < percent < 10 else 0
    return f"{percent:.{digits}f}{THIN}%"


def duration(seconds: float) -> str:
    """Return a time in the one or two units that matter.

    >>> [duration(seconds) for seconds in (0.0042, 3.21, 36.4, 259, 7300, 200_000)]
    ['4\u202fms', '3.2\u202fs', '36\u202fs', '4\u202fmin 19\u202fs', '2\u202fh 1\u202fmin', '2\u202fd 7\u202fh']
    """
    if seconds < 0.1:
        return f"{1000 * seconds:.0f}{THIN}ms"
    if seconds < 10:
        return f"{seconds:.1f}{THIN}s"
    whole = round(seconds)
    for size, unit, smaller, name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size}{THIN}{unit}" + (f" {rest}{THIN}{name}" if rest else "")
    return f"{whole}{THIN}s"


def storage(size: float) -> str:
    """Return a number of bytes.

    >>> [storage(size) for size in (640, 24_000, 191_000_000)]
    ['640\u202fB', '24.0\u202fkB', '191\u202fMB']
    """
    for scale, unit in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= scale:
            short = size / scale
            return f"{short:.{2 if short < 10 else 1 if short < 100 else 0}f}{THIN}{unit}"
    return f"{size:.0f}{THIN}B"


def product(sides: Iterable[float]) -> str:
    """Return the sides of an array or a window.

    >>> product((64, 113, 113)), product((8 / 3, 2 / 3))
    ('64 × 113 × 113', '2.67 × 0.667')
    """
    return " × ".join(_side(side) for side in sides)


def _side(side: float) -> str:
    return f"{side:.3g}" if isinstance(side, float) else str(side)


def pixels(sides: Iterable[float]) -> str:
    """Return the extent of a window in pixels, short where it is square.

    >>> pixels((7, 7)), pixels((1, 5))
    ('7', '1 × 5')
    """
    sides = tuple(sides)
    return _side(sides[0]) if len(set(sides)) == 1 else product(sides)


def field(full: Mapping[str, Any] | None, local: Mapping[str, Any] | None) -> str:
    """Return the extent of a receptive field in pixels, with the local field where gates see further than that.

    >>> field({"size": [7, 7]}, {"size": [7, 7]}), field(None, {"size": [7, 7]}), field(None, None)
    ('7', 'whole image, local 7', 'whole image')
    >>> field({"size": [7, 9], "exact": False}, None)  # a bound
    '≤\u202f7 × 9'
    """
    seen = "whole image" if full is None else extent(full)
    return seen if local is None or local == full else f"{seen}, local {extent(local)}"


def extent(window: Mapping[str, Any]) -> str:
    """Return the size of a window in pixels; one that is a bound is marked."""
    return ("" if window.get("exact", True) else f"≤{THIN}") + pixels(window["size"])
