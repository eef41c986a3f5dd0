"""Format tables as text to print, and as HTML for notebooks."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

TILE = 40
"""The height of a picture in a row, in pixels on the screen."""
_CELL = "padding:.25em .8em;white-space:nowrap;text-align:{};vertical-align:middle;border:0"
_LINE = "border-top:1px solid rgba(128,128,128,.3)"


MOST_LINES = 60
"""The most rows that are printed; a notebook shows all."""


def as_text(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as text: the first column left-aligned, the others right; the middle of a long table left out.

    >>> print(as_text(["layer", "units"], [["conv1", "6"], ["conv2", "16"]]))
    layer  units
    conv1      6
    conv2     16
    """
    half = MOST_LINES // 2
    shown = rows if len(rows) <= MOST_LINES else [*rows[:half], ["…"] * len(headings), *rows[-half:]]
    lines = [headings, *shown]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    sides = ["<", *">" * (len(headings) - 1)]
    return "\n".join(
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(line, sides, widths, strict=True)).rstrip()
        for line in lines
    )


class Markup(str):
    """Text that is already HTML."""


def as_html(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], note: str = "", words: int = 1) -> str:
    """Return a table with a title as HTML: the first columns left-aligned, the others right.

    >>> "conv&lt;1&gt;</td>" in as_html("Layers", ["layer", "units"], [["conv<1>", "6"]])
    True
    """
    sides = ["left" if column < words else "right" for column in range(len(headings))]
    if rows:
        sides = ["left" if isinstance(cell, Markup) else side for cell, side in zip(rows[0], sides, strict=True)]
    head = "".join(
        f'<th style="{_CELL.format(side)};font-weight:600;position:sticky;top:0;'
        f'background:var(--jp-layout-color0,Canvas)">{escape(name)}</th>'
        for name, side in zip(headings, sides, strict=True)
    )
    body = "".join(
        f'<tr style="background:none;{_LINE}">'
        + "".join(
            f'<td style="{_CELL.format(side)}">{cell if isinstance(cell, Markup) else escape(cell)}</td>'
            for cell, side in zip(row, sides, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return (
        '<div style="font-variant-numeric:tabular-nums">'
        f'<div style="font-weight:600;margin:.3em 0">{escape(title)}</div>'
        # with a name, and reached by the keyboard, since it scrolls
        f'<div role="group" aria-label="{escape(title)}" tabindex="0" '
        f'style="max-height:36em;overflow:auto;width:fit-content;max-width:100%">'
        f'<table style="border-collapse:collapse;margin:0"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        f'</div><div style="opacity:.7;margin:.4em 0">{escape(note)}</div></div>'
    )


def pictures(tiles: Sequence[NDArray[np.uint8]]) -> Markup:
    """Return pictures [h, w, 3] side by side as HTML, each as high as a row.

    >>> pictures([np.zeros((2, 2, 3), np.uint8)]).count("<img")
    1
    """
    return Markup(
        '<span style="display:inline-flex;gap:3px;vertical-align:middle">'
        + "".join(
            f'<img alt="" src="data:image/png;base64,{_png(tile)}" style="height:{TILE}px;max-width:none;margin:0;'
            f'image-rendering:{"pixelated" if len(tile) < TILE else "auto"}">'
            for tile in tiles
        )
        + "</span>"
    )


def _png(picture: NDArray[np.uint8]) -> str:
    from PIL import Image

    file = BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return b64encode(file.getvalue()).decode()
