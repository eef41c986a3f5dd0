"""Numbers, nouns and names in sentences."""

from __future__ import annotations

import re


def count(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural if it is not one.

    >>> count(1, "image"), count(1234, "image")
    ('1 image', '1,234 images')
    """
    return f"{number:,} {noun}" + "s" * (number != 1)


AXES = {1: "T", 2: "H, W", 3: "D, H, W"}
"""What shapes of signals, images and volumes have after their channels, by the number of axes."""


PLACES = {1: ("position",), 2: ("row", "column"), 3: ("slice", "row", "column")}
"""What the numbers of a position are called, by the number of axes."""
EDGES = {
    1: ("start", "end"),
    2: ("top", "left", "bottom", "right"),
    3: ("front", "top", "left", "back", "bottom", "right"),
}
"""What the numbers of a window are called, by the number of axes."""

ZERO = {1: "with a pale line at zero", 2: "grey where it is zero", 3: "grey where it is zero"}
"""How pictures of projections show zero, by the number of axes."""


def shown_bands(colours: str) -> tuple[int, ...]:
    """Return which channels of inputs with more than three are shown as red, green and blue.

    >>> shown_bands("3,2,1"), shown_bands("RGB")
    ((3, 2, 1), (0, 1, 2))
    """
    return tuple(map(int, colours.split(","))) if "," in colours else (0, 1, 2)


def bands_in_words(colours: str, count: int) -> str:
    """Return a sentence that says which of many channels are shown; empty for up to three.

    >>> bands_in_words("RGB", 13), bands_in_words("RGB", 3)
    ('Of 13 channels, numbers 0, 1 and 2 are shown as red, green and blue.', '')
    """
    if count <= 3:
        return ""
    red, green, blue = shown_bands(colours)
    return f"Of {count} channels, numbers {red}, {green} and {blue} are shown as red, green and blue."


MOST_LANES = 16
"""The largest number of channels of a signal that are drawn."""


def place_in_words(axes: int) -> str:
    """Return how the position of a neuron is given, by the number of axes.

    >>> place_in_words(1), place_in_words(2), place_in_words(3)
    ('position', 'row and column', 'slice, row and column')
    """
    *others, last = PLACES[axes]
    return f"{', '.join(others)} and {last}" if others else last


def elements(axes: int) -> str:
    """Return what the elements of an input are called, by its number of axes beside the channels.

    >>> elements(1), elements(2), elements(3)
    ('samples', 'pixels', 'voxels')
    """
    return {1: "samples", 2: "pixels", 3: "voxels"}[axes]


def printable(words: str) -> str:
    r"""Return text whose characters can all be drawn: control characters as Python escapes, halves of pairs as "�".

    >>> printable("conv\x07 1")
    'conv\\x07 1'

    Neither may stand in an SVG, not even as a comment.
    """
    return _UNPRINTABLE.sub(lambda found: _escaped(found[0]), words)


_UNPRINTABLE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""All but the line break, at which a caption is broken."""


def _escaped(character: str) -> str:
    return "\ufffd" if "\ud800" <= character <= "\udfff" else ascii(character)[1:-1]


def readable(name: str) -> str:
    r"""Return a file's name as valid text: bytes that are not UTF-8 are written as escapes.

    >>> readable("Müller.jpg"), readable("M\udcfcller.jpg")
    ('Müller.jpg', 'M\\xfcller.jpg')
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
