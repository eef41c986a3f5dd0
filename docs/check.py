"""Check the built site: no broken link, nothing fetched from elsewhere, nothing that axe objects to.

    python docs/check.py docs/_build/html [--all]

Links to other sites are not followed. A page of each kind is opened in a browser, in light and in dark, wide and as
narrow as a phone; with `--all`, every page. This needs playwright and Chromium, and axe-core from npm; without them it
is left out, and said to be.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from itertools import chain
from pathlib import Path
from urllib.parse import unquote, urlsplit

AXE = "axe-core@4.10.3"
PAGES = (
    "index.html",
    "start/index.html",
    "lecture/index.html",
    "lecture/pooling.html",
    "lecture/what-cnns-do.html",
    "howto/read-a-units-page.html",
    "how-it-works/deconvnet.html",
    "how-it-works/comparison.html",
    "examples/index.html",
    "examples/lecture/pooling.html",
    "api/index.html",
    "api/interpret.mine.html",
    "api/interpret.BackwardRule.html",
    "benchmarks.html",
    "es/index.html",
)
"""A page of each kind, for the browser."""
VIEWS = (("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390))
"""Colour scheme and width in pixels."""
FETCHED = {"link": "href", "use": "href"} | dict.fromkeys(("script", "img", "iframe", "source", "video"), "src")
"""What a browser fetches by itself."""


class Links(HTMLParser):
    """The links, the fetched addresses and the anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.anchors: set[str] = set()
        self.without_text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.anchors.update(filter(None, (given.get("id"), given.get("name"))))
        if tag == "a" and given.get("href"):
            self.links.append(given["href"] or "")
        address = given.get(FETCHED.get(tag, ""))
        if address and given.get("rel") not in ("canonical", "alternate"):
            self.fetched.append(address)
        if tag == "img" and "alt" not in given:  # "" is a picture beside its own title
            self.without_text.append(given.get("src") or "")


def broken_links(site: Path) -> list[str]:
    """Return what is wrong with the links, images and fetched files of all pages."""
    written = [path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts]
    pages = {path: Links(path.read_text(encoding="utf-8")) for path in written}
    wrong = []
    for page, found in pages.items():
        at = page.relative_to(site)
        wrong += [f"{at}: an image without a text: {address}" for address in found.without_text]
        for address in found.fetched:
            if urlsplit(address).netloc or address.startswith("//"):
                wrong.append(f"{at}: fetches {address}")
        for address in {*found.links, *found.fetched}:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            if not target.exists():
                wrong.append(f"{at}: no such file: {address}")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                wrong.append(f"{at}: no such place: {address}")
    for style in sorted(site.rglob("*.css")):
        if re.search(r"url\(['\"]?(https?:)?//|@import\s+['\"]?https?:", style.read_text(encoding="utf-8")):
            wrong.append(f"{style.relative_to(site)}: fetches from elsewhere")
    return wrong


def in_a_browser(site: Path, pages: Sequence[str]) -> Iterator[str]:
    """Yield what a browser fetches from elsewhere, fails to find, or says of its accessibility."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        chromium = None
    if not chromium or not shutil.which("npm"):
        print("no playwright, Chromium or npm: the pages were not opened")
        return
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", "--silent", AXE], cwd=folder, check=True, capture_output=True)
        subprocess.run(["tar", "xf", *(path.name for path in Path(folder).glob("*.tgz"))], cwd=folder, check=True)
        axe = (Path(folder) / "package" / "axe.min.js").read_text(encoding="utf-8")
    options = "--no-sandbox --disable-gpu --disable-background-networking --disable-sync --no-first-run".split()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        for scheme, width in VIEWS:
            context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900}, offline=True)
            for name in pages:
                found: set[str] = set()
                page = context.new_page()
                page.on(
                    "request",
                    lambda request, found=found: (
                        request.url.startswith(("file:", "data:", "blob:")) or found.add(f"fetches {request.url}")
                    ),
                )
                page.on("requestfailed", lambda request, found=found: found.add(f"misses {request.url}"))
                page.on("pageerror", lambda error, found=found: found.add(str(error)))
                page.goto((site / name).resolve().as_uri())
                page.wait_for_timeout(100)
                if (wide := page.evaluate("document.documentElement.scrollWidth")) > width:
                    found.add(f"{wide} pixels wide")
                page.evaluate(axe)
                for violation in page.evaluate("axe.run(document, {preload: false}).then((run) => run.violations)"):
                    places = ", ".join(" ".join(map(str, node["target"])) for node in violation["nodes"][:3])
                    found.add(f"{violation['id']}: {violation['help']}: {places}")
                page.close()
                yield from (f"{name}, {scheme}, {width} pixels: {said}" for said in sorted(found))
        browser.close()


def main() -> None:
    site = Path(sys.argv[1])
    pages = [str(path.relative_to(site)) for path in sorted(site.rglob("*.html")) if "_static" not in path.parts]
    wrong = 0
    for line in chain(broken_links(site), in_a_browser(site, pages if "--all" in sys.argv else PAGES)):
        print(line, flush=True)
        wrong += 1
    if not wrong:
        print(f"{len(list(site.rglob('*.html')))} pages, nothing wrong")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
