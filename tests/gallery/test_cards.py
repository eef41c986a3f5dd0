"""Model cards as HTML."""

from __future__ import annotations

import pytest

from interpret.gallery.cards import render_card


@pytest.mark.parametrize(
    ("markdown", "html"),
    [
        ("# One\n\n### Two", "<h3>One</h3>\n<h3>Two</h3>\n"),
        ("a `b<c` and *d*", "<p>a <code>b&lt;c</code> and <em>d</em></p>\n"),
        ("<script>alert(1)</script>", "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>\n"),
        ("before <!-- a\n\ncomment --> after", "<p>before  after</p>\n"),
        ("[a](https://example.org/?a=1&b)", '<p><a href="https://example.org/?a=1&amp;b">a</a></p>\n'),
        ("[a](javascript:alert)", "<p>[a](javascript:alert)</p>\n"),
        ("- a\n  - b", "<ul>\n<li>a\n<ul>\n<li>b</li>\n</ul>\n</li>\n</ul>\n"),
        ("", ""),
    ],
)
def test_markdown_becomes_html_that_runs_nothing(markdown: str, html: str) -> None:
    assert render_card(markdown) == html


def test_columns_of_tables_are_aligned_without_inline_style() -> None:
    """The page's policy blocks inline style."""
    html = render_card("| a | b |\n|---|--:|\n| 1 | 2 |")
    assert '<th class="align-right">b</th>' in html and '<td class="align-right">2</td>' in html
    assert "style" not in html


def test_pictures_are_not_loaded() -> None:
    assert "<img" not in render_card("![a](https://example.org/a.png)")
