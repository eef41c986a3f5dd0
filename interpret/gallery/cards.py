"""Model cards: Markdown as HTML for the network's page."""

from __future__ import annotations

import re

from markdown_it import MarkdownIt
from markupsafe import Markup

# without HTML, so that a card is text and not markup of the page; without images, which a gallery does not copy
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")


def render_card(markdown: str) -> Markup:
    """Return a card as HTML, with headings of the page's third level; comments are left out.

    >>> print(render_card("# LeNet\\n\\nTrained on **digits** <b>."), end="")
    <h3>LeNet</h3>
    <p>Trained on <strong>digits</strong> &lt;b&gt;.</p>
    """
    tokens = _MARKDOWN.parse(re.sub(r"<!--.*?-->", "", markdown, flags=re.DOTALL))
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = "h3"
        # the page's policy allows no inline style
        alignment = token.attrs.pop("style", None)
        if alignment:
            token.attrs["class"] = str(alignment).replace("text-align:", "align-")
    return Markup(_MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {}))
