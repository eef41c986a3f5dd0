"""Mend what Sphinx and its theme write and a screen reader cannot read; `docs/check.py` finds it with axe."""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx

SIGNATURE = re.compile(r"<dl>\n((?:<dd>.*?</dd>\n)+)</dl>")
TOGGLE = '<summary><span class="toctree-toggle"'


def mended(html: str) -> str:
    """Return a page whose lists have terms, and whose buttons have names.

    >>> mended("<dl>\\n<dd>a,</dd>\\n<dd>b</dd>\\n</dl>")
    '<span class="parameters">\\n<span class="parameter">a,</span>\\n<span class="parameter">b</span>\\n</span>'
    """
    html = html.replace(TOGGLE, TOGGLE.replace("<summary>", '<summary aria-label="Show or hide the pages below">'))
    return SIGNATURE.sub(_as_spans, html)


def _as_spans(found: re.Match[str]) -> str:
    lines = found[1].replace("<dd>", '<span class="parameter">').replace("</dd>", "</span>")
    return f'<span class="parameters">\n{lines}</span>'


def mend_pages(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        for path in Path(app.outdir).rglob("*.html"):
            html = path.read_text(encoding="utf-8")
            if (better := mended(html)) != html:
                path.write_text(better, encoding="utf-8")
