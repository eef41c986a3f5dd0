"""Write figures to files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interpret.support.errors import InterpretError
from interpret.support.files import check_place, replacing
from interpret.support.stamps import is_stamped, stamped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# file formats, with the metadata that is left out so that the same figure gives the same bytes
FORMATS: dict[str, dict[str, Any]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


def check_figure_path(path: str | os.PathLike[str], argument: str = "path") -> str:
    """Return the format of a figure from the ending of its file name.

    >>> check_figure_path("figures/probe.PDF")
    'pdf'

    Raises:
        InterpretError: the name does not end in .png, .svg or .pdf; or the path is a folder, or a file that
            interpret did not write or that was changed since.
    """
    kind = Path(path).suffix.removeprefix(".").lower()
    if kind not in FORMATS:
        raise InterpretError(f"{argument} must end in .png, .svg or .pdf, not {Path(path).name!r}")
    check_place(path, is_stamped)
    return kind


def write_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG, SVG or PDF, atomically; the same figure gives the same bytes.

    An older figure that this function wrote is replaced; no other file is.

    >>> import tempfile
    >>> from matplotlib.figure import Figure
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("a.svg", "b.svg"):
    ...     write_figure(Figure(figsize=(1, 1)), folder / name)
    >>> (folder / "a.svg").read_bytes() == (folder / "b.svg").read_bytes()
    True

    Raises:
        InterpretError: as in `check_figure_path`.
    """
    from interpret.figures.style import saving

    kind = check_figure_path(path)
    with saving(), replacing(path, is_stamped) as new:
        figure.savefig(new, format=kind, metadata=FORMATS[kind])
        new.write_bytes(stamped(new.read_bytes(), kind))
