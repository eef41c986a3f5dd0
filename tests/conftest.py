"""Settings of the whole test run, and a browser."""

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from helpers.pages import FLAGS

# Idle OpenMP threads sleep instead of spinning: pytest-xdist's processes share the cores, and the tests take a third
# of the time. OpenMP reads this once, when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome", "chrome")]
    executable = next((path for path in found if path), None)
    if executable is None:
        pytest.skip("needs Chromium: none of chromium, chromium-browser, google-chrome is on the path")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield opened
        opened.close()
