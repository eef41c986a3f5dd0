"""Figures as files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interpret.support.errors import InterpretError
from interpret.support.files import check_place, replacing
from interpret.support.stamps import is_stamped, stamped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# formats that a figure is written in: what is left out of them, so that the same figure is the same bytes
FORMATS: dict[str, dict[str, Any]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


def check_figure_path(path: str | os.PathLike[str], argument: str = "path") -> str:
    """Return the format that a figure's file name asks for.

    >>> check_figure_path("figures/probe.PDF")
    'pdf'

    Raises:
        InterpretError: a name that ends in none of .png, .svg and .pdf; a folder, or a file that is no figure of
            interpret's as it wrote it, stands there.
    """
    kind = Path(path).suffix.removeprefix(".").lower()
    if kind not in FORMATS:
        raise InterpretError(f"{argument} must end in .png, .svg or .pdf, not {Path(path).name!r}")
    check_place(path, is_stamped)
    return kind


def write_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG, SVG or PDF, whole or not at all, and the same bytes every time.

    An older figure that was written like this is replaced, and no other file.

    >>> import tempfile
    >>> from matplotlib.figure import Figure
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("a.svg", "b.svg"):
    ...     write_figure(Figure(figsize=(1, 1)), folder / name)
    >>> (folder / "a.svg").read_bytes() == (folder / "b.svg").read_bytes()
    True

    Raises:
        InterpretError: what `check_figure_path` refuses.
    """
    from interpret.figures.style import saving

    kind = check_figure_path(path)
    with saving(), replacing(path, is_stamped) as new:
        figure.savefig(new, format=kind, metadata=FORMATS[kind])
        new.write_bytes(stamped(new.read_bytes(), kind))
