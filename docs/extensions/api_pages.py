"""The reference lists every public name, each on one page; docstrings may hold tables as Markdown writes them."""

from __future__ import annotations

import re
from itertools import groupby

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

import interpret


def check(app: Sphinx, docname: str, source: list[str]) -> None:
    """Refuse a reference that leaves a public name out, or lists one that does not exist."""
    if docname == "api/index":
        listed = re.findall(r"^   (\w+)$", source[0], re.MULTILINE)
        wrong = set(listed) ^ set(interpret.__all__)
        if wrong or len(listed) != len(set(listed)):
            raise ExtensionError(f"docs/api/index.md must list each name of interpret.__all__ once: {sorted(wrong)}")


def as_restructured(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Rewrite tables, bars and sources as reStructuredText."""
    new: list[str] = []
    for is_table, group in groupby(lines, lambda line: line.lstrip().startswith("|") and line.endswith("|")):
        if is_table:
            new += list_table(list(group))
        else:
            new += [re.sub(r"(?<!`)\|", r"\\|", _bold(line)) for line in group]
    lines[:] = whole_sentences(new)


def _bold(line: str) -> str:
    line = re.sub(r"^Source: ", "**Source:** ", line)
    return re.sub(r"\*\*`(\w+)`\*\*", r"**\1**", line)  # bold code, which reStructuredText does not have


def whole_sentences(lines: list[str]) -> list[str]:
    """Undo what napoleon takes for a type: what stands before a colon in the description of an attribute.

    >>> whole_sentences(["nothing is cut.", "", ":type: The box, in pixels; if None"])
    ['The box, in pixels; if None: nothing is cut.']
    """
    types = [number for number, line in enumerate(lines) if line.startswith(":type: ")]
    if not types:
        return lines
    before, after = lines[: types[0] - 1], lines[types[0] + 1 :]
    return [f"{lines[types[0]].removeprefix(':type: ')}: {before[0]}", *before[1:], *after]


def list_table(rows: list[str]) -> list[str]:
    """Return a table of Markdown as one of reStructuredText; a row without a first cell continues the one above.

    >>> list_table(["| a | b |", "|---|---|", "| 1 | two |", "|   | three |"])
    ['', '.. list-table::', '   :header-rows: 1', '', '   * - a', '     - b', '   * - 1', '     - two three', '']
    """
    cells = [
        [cell.strip() for cell in row.strip().strip("|").split("|")] for row in rows if not set(row) <= set("|- :")
    ]
    table: list[list[str]] = []
    for row in cells:
        if row[0]:
            table.append(row)
        else:
            table[-1] = [f"{above} {cell}".rstrip() for above, cell in zip(table[-1], row, strict=True)]
    listed = [f"   {'*' if not column else ' '} - {cell}" for row in table for column, cell in enumerate(row)]
    return ["", ".. list-table::", "   :header-rows: 1", "", *listed, ""]


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", check)
    app.connect("autodoc-process-docstring", as_restructured)
    return {"parallel_read_safe": True}
