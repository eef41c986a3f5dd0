"""The error for invalid input, and warnings at the caller's line."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from difflib import get_close_matches
from types import FrameType

MODEL_FILE = "interpret_model_"
"""The start of the name under which a model's file is a module, by which tracebacks tell the user's code."""
DECORATORS = ("contextlib", "torch")
"""Packages of decorators, such as `torch.no_grad()`, whose wrappers come between a caller and this package."""


class InterpretError(ValueError):
    """Invalid input, with the remedy: one sentence that names the argument, its value and what to do.

    The command prints it without a traceback and exits with status 2.

    >>> raise InterpretError("k must be at least 1, not 0")
    Traceback (most recent call last):
        ...
    interpret.support.errors.InterpretError: k must be at least 1, not 0
    """


def unknown(kind: str, name: object, known: Iterable[str]) -> InterpretError:
    """Return the error for an unknown name, with the most similar known names.

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


def reason_of(error: BaseException) -> str:
    """Return the type and the first line of an exception in the user's code, whose own text may fail.

    >>> reason_of(ValueError("one\\ntwo")), reason_of(KeyError()), reason_of(SystemExit(0))
    ('ValueError: one', 'KeyError', 'SystemExit: 0, which would end the program')
    """
    try:
        text = str(error).strip().partition("\n")[0]
    except Exception:  # the user's code may raise anything
        text = ""
    if isinstance(error, SystemExit):
        text = f"{text}, which would end the program".removeprefix(", ")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def refuse_below_one(**counts: int | None) -> None:
    """Raise an error for the first count, by the name of its argument, that is below 1; None is not given.

    >>> refuse_below_one(k=9, batch_size=None)
    >>> refuse_below_one(k=0)
    Traceback (most recent call last):
        ...
    interpret.support.errors.InterpretError: k must be at least 1, not 0
    """
    for name, count in counts.items():
        if count is not None and count < 1:
            raise InterpretError(f"{name} must be at least 1, not {count}")


def warn(message: str | Warning, category: type[Warning] = UserWarning) -> None:
    """Warn at the line that called this package, from any depth of calls inside it.

    >>> with warnings.catch_warnings(record=True) as said:
    ...     warnings.simplefilter("always")
    ...     warn("3 files were left aside")
    >>> print(said[0].message)
    3 files were left aside
    """
    # Find the outermost frame of this package in the call stack. Frames of torch may lie between two of its frames, and
    # the wrapper of a decorator directly outside the outermost one.
    frame: FrameType | None = sys._getframe()
    level = depth = 1
    while frame is not None:
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if package == "interpret" or (package in DECORATORS and depth == level):
            level = depth + 1
        frame, depth = frame.f_back, depth + 1
    warnings.warn(message, category, stacklevel=level)
