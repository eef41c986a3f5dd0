"""Pages as files and in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """What a browser would make of a page: its tags, its text, its links and its anchors."""

    def __init__(self, page: Path | str) -> None:
        """Read a page from its file, or from its text."""
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page if isinstance(page, str) else page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def links(self) -> Iterator[str]:
        for _, attributes in self.tags:
            for name in ("href", "src"):
                if attributes.get(name):
                    yield str(attributes[name])

    @property
    def ids(self) -> list[str | None]:
        return [attributes["id"] for _, attributes in self.tags if "id" in attributes]


def pages(gallery: Path) -> list[Path]:
    return sorted(gallery.rglob("*.html"))


# in a browser

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
STORAGE_OFF = (
    "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError'); }})"
)


@contextmanager
def opened(browser: Any, gallery: Path, path: str, **options: Any) -> Iterator[Any]:
    """Open a page from disk; at the end, nothing may have been logged, nothing failed and nothing come from outside."""
    init = options.pop("init", None)
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
    if init:
        context.add_init_script(init)
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))

    def failed(request: Any) -> None:
        # a page that is left while its icon is on the way aborts that; what is missing or refused fails otherwise
        if request.failure != "net::ERR_ABORTED":
            wrong.append(f"{request.failure} {request.url}")

    page.on("requestfailed", failed)
    page.on(
        "request",
        lambda request: None if request.url.startswith(gallery.as_uri()) else wrong.append(f"foreign {request.url}"),
    )
    page.goto(gallery.as_uri() + "/" + path)
    yield page
    page.wait_for_load_state()
    context.close()
    assert wrong == []


def completed(browser: Any, gallery: Path, path: str) -> Page:
    """Return a page as its scripts have completed it."""
    with opened(browser, gallery, path) as page:
        return Page(page.content())


HOLLOW = """async () => {
    document.querySelectorAll('[loading=lazy]').forEach((image) => image.loading = 'eager');
    document.querySelectorAll('details').forEach((one) => one.open = true);
    const pictures = [...document.querySelectorAll('img, svg image')].filter((one) => one.checkVisibility());
    const found = [];
    for (const picture of pictures) {
        const name = picture.getAttribute('src') ?? picture.getAttribute('href');
        await picture.decode().catch(() => found.push(`broken ${name}`));
        if (picture.localName === 'img' && !picture.naturalWidth) found.push(`no width ${name}`);
    }
    // what holds neither a word nor a picture, or a heading alone
    const frames = 'main ul, main ol, main dl, main table, main figure, main section, main p, .pair, .block, .hero, '
        + '.ways, .way, .subject > div, .mat, .groups li, .hits li, .curves';
    for (const frame of document.querySelectorAll(frames)) {
        if (!frame.checkVisibility() || frame.closest('.scripted, #panes, #kept')) continue;
        const copy = frame.cloneNode(true);
        if (frame.localName === 'section') copy.querySelectorAll('h1, h2').forEach((one) => one.remove());
        const title = frame.localName === 'section' && frame.classList.contains('title');
        const filled = copy.textContent.trim() || copy.matches('img, svg') || copy.querySelector('img, svg, iframe');
        if (!filled && !title) found.push(`empty ${frame.localName}.${frame.className}`);
    }
    return found;
}"""


def crawl(browser: Any, gallery: Path) -> int:
    """Look at every page from disk: no dead link, no broken picture, no empty frame; return how many there are."""
    files = pages(gallery)
    anchors = {file.resolve(): Page(file).ids for file in files}
    for file in files:
        for link in Page(file).links:
            parts = urlsplit(link)
            assert not parts.scheme and not parts.netloc, f"{file}: {link}"
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file.resolve()
            assert target.is_file() and target.is_relative_to(gallery.resolve()), f"{file}: {link}"
            assert not parts.fragment or parts.fragment in anchors[target], f"{file}: {link}"
    with opened(browser, gallery, "index.html") as page:
        for file in files:
            page.goto(file.as_uri())
            assert page.evaluate(HOLLOW) == [], file
            # what a script has added, too, leads somewhere
            for link in page.evaluate("[...document.querySelectorAll('a[href]')].map((a) => a.href.baseVal ?? a.href)"):
                parts = urlsplit(link)
                target = Path(unquote(parts.path)) if parts.path else file
                assert target.is_file() and target.is_relative_to(gallery), f"{file}: {link}"
                added = target == file and parts.fragment and page.locator(f"[id='{parts.fragment}']").count()
                assert not parts.fragment or added or parts.fragment in anchors[target.resolve()], f"{file}: {link}"
    return len(files)
