"""Take the screenshots of the committed gallery that README shows; needs Playwright and Chromium.

python gallery/screenshots.py
"""

from __future__ import annotations

import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

GALLERY = Path(__file__).parent / "lenet"
PAGES = {
    "network": ("index.html", "light", ""),
    "layer": ("layers/conv2/index.html", "light", "Both"),
    "unit": ("layers/conv2/10.html", "light", ""),
    "compare": ("compare.html#conv2/10,fc1/68", "dark", ""),
}
"""Of each picture: the page, its colour scheme, and what to choose in it."""


def main() -> None:
    """Write each page as a PNG of 1280 × 900 pixels."""
    browser_path = next((path for name in ("chromium", "google-chrome") if (path := shutil.which(name))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"])
        for name, (address, scheme, choice) in PAGES.items():
            page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
            page.goto(f"{GALLERY.resolve().as_uri()}/{address}")
            page.wait_for_load_state("networkidle")
            if choice:
                page.get_by_text(choice, exact=True).first.click()
                page.mouse.move(0, 0)
            page.screenshot(path=GALLERY.parent / "screenshots" / f"{name}.png")
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
