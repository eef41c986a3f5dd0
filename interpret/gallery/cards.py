"""Model cards: a part of Markdown, parsed into data that the templates escape."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_SPAN = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*")


@dataclass(frozen=True)
class Span:
    """A run of text of one style: "text", "code" or "strong"."""

    kind: str
    text: str


@dataclass(frozen=True)
class Block:
    """A "heading", a "paragraph", a "list" or a "table": its rows, each a row of cells, each cell a row of spans."""

    kind: str
    rows: list[list[list[Span]]] = field(default_factory=list)


def spans(text: str) -> list[Span]:
    """Return a line split into plain, `code` and **strong** runs.

    >>> [(span.kind, span.text) for span in spans("a `b` and **c**")]
    [('text', 'a '), ('code', 'b'), ('text', ' and '), ('strong', 'c')]
    """
    found, end = [], 0
    for match in _SPAN.finditer(text):
        found.append(Span("text", text[end : match.start()]))
        code, strong = match.groups()
        found.append(Span("code", code) if code is not None else Span("strong", strong))
        end = match.end()
    found.append(Span("text", text[end:]))
    return [span for span in found if span.text]


def parse_card(markdown: str) -> list[Block]:
    """Return a card's blocks; what is not a heading, a list or a table is a paragraph, and comments are left out.

    >>> [block.kind for block in parse_card("# LeNet\\n\\nTrained on\\ndigits.\\n\\n- fast\\n- small\\n\\n| a | b |")]
    ['heading', 'paragraph', 'list', 'table']
    """
    blocks: list[Block] = []
    markdown = re.sub(r"<!--.*?-->", "", markdown, flags=re.DOTALL)
    for chunk in re.split(r"\n\s*\n", markdown.replace("\r\n", "\n")):
        open_block: Block | None = None
        for line in chunk.split("\n"):
            text = line.strip()
            if not text:
                continue
            if text.startswith("#"):
                blocks.append(Block("heading", [[spans(text.lstrip("#").strip())]]))
                open_block = None
            elif text.startswith(("- ", "* ")):
                open_block = _continue(blocks, open_block, "list")
                open_block.rows.append([spans(text[2:])])
            elif text.startswith("|"):
                open_block = _continue(blocks, open_block, "table")
                cells = [cell.strip() for cell in text.strip("|").split("|")]
                if not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
                    open_block.rows.append([spans(cell) for cell in cells])
            elif open_block is not None and open_block.kind in ("paragraph", "list"):
                open_block.rows[-1][0].extend(spans(" " + text))
            else:
                open_block = Block("paragraph", [[spans(text)]])
                blocks.append(open_block)
    return blocks


def _continue(blocks: list[Block], block: Block | None, kind: str) -> Block:
    if block is None or block.kind != kind:
        block = Block(kind)
        blocks.append(block)
    return block
