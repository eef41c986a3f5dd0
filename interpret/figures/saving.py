"""Write figures to files."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interpret.support.errors import InterpretError
from interpret.support.files import check_place, replacing
from interpret.support.stamps import is_stamped, stamped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CLIP_PATH = re.compile(rb'(\s*)<clipPath id="(p[0-9a-f]{10})">(.*?)</clipPath>', re.DOTALL)
_CLIPPED = re.compile(rb"url\(#(p[0-9a-f]{10})\)")

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
        content = new.read_bytes()
        new.write_bytes(stamped(name_clip_paths(content) if kind == "svg" else content, kind))


def name_clip_paths(svg: bytes) -> bytes:
    """Return an SVG of matplotlib's with clip paths that are named after what is written of them.

    Matplotlib names them after the coordinates before these are rounded, whose last bit differs from run to run: the
    solver of layouts orders its variables by their addresses in memory.

    >>> svg = '<path clip-path="url(#p{0})"/><clipPath id="p{0}"><rect x="1"/></clipPath>'
    >>> name_clip_paths(svg.format("0123456789").encode()) == name_clip_paths(svg.format("abcdef0123").encode())
    True
    """
    names: dict[bytes, bytes] = {}

    def named(found: re.Match[bytes]) -> bytes:
        name = b"p" + hashlib.sha256(found[3]).hexdigest()[:10].encode()
        written = name in names.values()
        names[found[2]] = name
        return b"" if written else found[1] + b'<clipPath id="' + name + b'">' + found[3] + b"</clipPath>"

    svg = _CLIP_PATH.sub(named, svg)
    return _CLIPPED.sub(lambda found: b"url(#" + names.get(found[1], found[1]) + b")", svg)
