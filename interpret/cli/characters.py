"""Write to any terminal: on one that has ASCII alone, other characters become similar ones or escapes."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper

SIMILAR = {"×": "x", "…": "...", "–": "-", "−": "-", "·": "*", "’": "'", "π": "pi", "ρ": "rho", "Δ": "delta"}
SIMILAR |= dict.fromkeys("\u00a0\u2009\u202f", " ")
"""What is written for characters of this program that a terminal does not have."""


@contextmanager
def similar_characters() -> Iterator[None]:
    """Write characters that a stream cannot encode by similar ones, and leave the streams as they were at the end."""
    codecs.register_error("interpret", _similar)
    before = [(stream, stream.errors) for stream in (sys.stdout, sys.stderr) if isinstance(stream, TextIOWrapper)]
    try:
        for stream, _ in before:
            stream.reconfigure(errors="interpret")
        yield
    finally:
        for stream, errors in before:
            stream.reconfigure(errors=errors)


def _similar(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    return "".join(SIMILAR.get(letter, ascii(letter)[1:-1]) for letter in found), error.end
