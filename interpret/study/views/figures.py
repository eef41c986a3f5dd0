"""The figures of a study's other results, as galleries and reports show them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from interpret.study.reader import StudyReader
from interpret.support.errors import warn

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from interpret.results.result import Result

Shown = TypeVar("Shown")


def show_result(study: StudyReader, kind: str, name: str, show: Callable[[Any, Figure], Shown]) -> Shown | None:
    """Return what `show` makes of a result and its figure; warn of one that cannot be read or drawn, and return None.

    One result, perhaps of a class of the user's own, does not keep a study from being shown.
    """
    from interpret.figures.style import ignoring_user_style, laid_out
    from interpret.results.plotting import plot

    result: Result | None = study.readable_result(kind, name)
    if result is None:
        return None
    try:
        with ignoring_user_style():
            return show(result, laid_out(plot(result)))
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:  # a full disk
            raise
        what = f"the result {kind} {name}".strip()
        warn(f"{what} of {study.path} cannot be drawn ({type(error).__name__}: {error}): it is left out")
        return None
