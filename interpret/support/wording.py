"""Numbers and nouns in sentences."""

from __future__ import annotations


def count(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural if it is not one.

    >>> count(1, "image"), count(1234, "image")
    ('1 image', '1,234 images')
    """
    return f"{number:,} {noun}" + "s" * (number != 1)
