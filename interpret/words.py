"""Words for numbers."""

from __future__ import annotations


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return how many of something there are.

    >>> counted(1, "layer"), counted(0, "layer"), counted(1234, "class", "classes")
    ('1 layer', '0 layers', '1,234 classes')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"
