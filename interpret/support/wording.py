"""Numbers, nouns and names in sentences."""

from __future__ import annotations

import re


def count(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural if it is not one.

    >>> count(1, "image"), count(1234, "image")
    ('1 image', '1,234 images')
    """
    return f"{number:,} {noun}" + "s" * (number != 1)


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
