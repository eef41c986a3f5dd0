"""The error that a user can mend, and the sentence that tells how."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from difflib import get_close_matches
from types import FrameType

DECORATORS = ("contextlib", "torch")
"""Packages whose functions stand around decorated ones, such as those under `torch.no_grad()`."""


class InterpretError(ValueError):
    """A mistake that its user can mend: one sentence naming the argument, its value and the remedy.

    The command prints it without a traceback and exits with status 2.

    >>> raise InterpretError("k must be at least 1, not 0")
    Traceback (most recent call last):
        ...
    interpret.support.errors.InterpretError: k must be at least 1, not 0
    """


def unknown(kind: str, name: object, known: Iterable[str]) -> InterpretError:
    """Return the error for a name that is not among those known, with the nearest ones.

    >>> print(unknown("layer", "feature.3", ["features.0", "features.3"]))
    unknown layer 'feature.3': did you mean 'features.3' or 'features.0'?
    """
    known = list(known)
    near = get_close_matches(str(name), known, n=3)
    if near:
        remedy = "did you mean " + " or ".join(repr(match) for match in near) + "?"
    elif known:
        shown = ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
        remedy = f"choose from {shown}"
    else:
        remedy = "there is none to choose from"
    return InterpretError(f"unknown {kind} {str(name)!r}: {remedy}")


def warn(message: str | Warning, category: type[Warning] = UserWarning) -> None:
    """Warn at the line that called this package, however many of its functions lie between.

    >>> with warnings.catch_warnings(record=True) as said:
    ...     warnings.simplefilter("always")
    ...     warn("3 files were left aside")
    >>> print(said[0].message)
    3 files were left aside
    """
    # of the frames that call each other, the outermost of this package: between two of them may lie some of torch's;
    # about it may lie the wrapper of a decorator
    frame: FrameType | None = sys._getframe()
    level = depth = 1
    while frame is not None:
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if package == "interpret" or (package in DECORATORS and depth == level):
            level = depth + 1
        frame, depth = frame.f_back, depth + 1
    warnings.warn(message, category, stacklevel=level)
