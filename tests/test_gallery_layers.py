"""Galleries of whatever layers are chosen, projected or not: every page is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gallery_study
import numpy as np
import pytest
import torch
from gallery_study import Page, crawl, pages
from PIL import Image
from torch import nn

from interpret.cli import main
from interpret.gallery import write_gallery
from interpret.study import Study

browser = gallery_study.browser

NETWORK = """
from torch import nn
from interpret.model import Model
from interpret.preprocess import Preprocess

def build():
    features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3), nn.ReLU())
    network = nn.Sequential()
    network.features, network.pool, network.flat = features, nn.AdaptiveAvgPool2d(2), nn.Flatten()
    network.hidden, network.act, network.answers = nn.Linear(20, 6), nn.ReLU(), nn.Linear(6, 3)
    return Model(network, "small", Preprocess((24, 24)), classes=("red fox", "green apple", "blue jay"))

def build_without_filters():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 5), nn.ReLU(), nn.Linear(5, 3))
    return Model(network, "perceptron", Preprocess((24, 24)))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of networks, and pictures in subfolders."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "net.py").write_text(NETWORK)
    rng = np.random.default_rng(0)
    for number in range(9):
        kind = folder / "pictures" / ("blue jay", "green apple", "red fox")[number % 3]
        kind.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 36, 3), np.uint8)).save(kind / f"{number}.png")
    return folder


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr("sys.argv", ["interpret", *map(str, arguments)])
    main()  # which leaves with a status where it refuses


@pytest.mark.parametrize(
    ("network", "options"),
    [
        ("build", ""),
        ("build", "--layers features.3"),
        ("build", "--layers features.4 --no-context"),
        ("build", "--layers hidden,answers --crops tiles"),
        ("build", "--layers features.3,answers --no-context"),
        ("build_without_filters", ""),
        ("build_without_filters", "--layers 3 --no-context"),
    ],
)
def test_every_page_is_whole_whatever_layers_are_chosen(
    browser: Any, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: str, options: str
) -> None:
    out = tmp_path / "gallery"
    command(
        monkeypatch, "gallery", f"{made}/net.py:{network}", made / "pictures", "--out", out, "-k", 4, *options.split()
    )
    mined = Study.open(tmp_path / "gallery.study").mined_layers
    assert crawl(browser, out) > sum(len(Study.open(tmp_path / "gallery.study").mined(name).values) for name in mined)
    filters = "filters/features.0.png"
    assert (filters in set(Page(out / "index.html").links)) == (network == "build")
    assert (out / filters).exists() == (network == "build")


def test_pages_without_pictures_say_how_to_make_them(
    browser: Any, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, out = tmp_path / "study", tmp_path / "gallery"
    command(monkeypatch, "mine", f"{made}/net.py:build", made / "pictures", "--study", study, "-k", 4)
    command(monkeypatch, "gallery", study, "--out", out)
    crawl(browser, out)
    shown = [out / "index.html", *(out / "layers").rglob("*.html")]
    assert len(shown) == 1 + 4 + 4 + 5 + 6 + 3
    for file in shown:
        assert "interpret project STUDY" in Page(file).text, file
    command(monkeypatch, "project", study, "--layers", "features.3")
    command(monkeypatch, "gallery", study, "--out", out)
    crawl(browser, out)
    said = {file for file in pages(out) if "interpret project" in Page(file).text}
    assert said == {file for file in (out / "layers").rglob("*.html") if file.parent.name != "features.3"}


def test_a_layer_of_whole_images_keeps_its_projections_without_context(browser: Any, tmp_path: Path) -> None:
    """Its patches stay out: its projections show in any view, and fill its strip on the first page."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
    begun = Study(tmp_path / "study", network, torch.rand(6, 3, 8, 8))
    begun.mine("3", k=2)
    begun.project()
    out = write_gallery(begun, tmp_path / "gallery", context=False).parent
    crawl(browser, out)
    for path in ("index.html", "layers/3/index.html"):
        with gallery_study.opened(browser, out, path) as page:
            for view in ("Patches", "Projections", "Both"):
                page.get_by_text(view, exact=True).click()
                assert page.locator(".unit .projections").count() == 3
                assert all(one.is_visible() for one in page.locator(".unit .projections").all())
