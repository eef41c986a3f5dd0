"""Optimised images on the page of their unit, with the numbers that tell whether they are true."""

from __future__ import annotations

import re
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import interpret
from interpret import Study, write_gallery
from interpret.gallery.mosaic import mosaic


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 5), nn.Flatten(), nn.Linear(300, 2))
    images = torch.rand(9, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    made = Study(tmp_path_factory.mktemp("optimised") / "study", network, images)
    made.mine(["0", "2", "4"], k=2)
    made.project()
    made.synthesise("2", [1], steps=40)
    made.synthesise("2", [2], steps=40)
    made.synthesise("4", [0], steps=5)
    return made


def words(page: Path) -> str:
    return " ".join(re.sub("<[^>]*>", " ", page.read_text()).split())


def test_a_unit_shows_its_optimised_image_and_the_numbers(study: Study, tmp_path: Path) -> None:
    write_gallery(study, tmp_path / "pages")
    layers = tmp_path / "pages" / "layers"
    found = study.synthesised("2")
    text = words(layers / "2" / "1.html")
    assert "Optimised image made from noise in 40 steps, beside the strongest patch" in text
    assert f"{found.shares[0]:.2g} × the strongest natural one" in text
    assert f"JPEG {100 * found.kept['jpeg'][0]:.0f} %" in text
    assert f"Distance to natural images {found.distances[0]:.2g} 1 is usual between them; in features of 0" in text
    picture = np.asarray(Image.open(layers.parent / "optimised" / "2" / "neuron-1.png"))
    assert picture.shape == (154, 312, 3)  # 7 × 7 pixels, 22 times magnified, and the patch
    assert np.array_equal(picture[::22, :154:22], found.pictures[0])
    assert np.array_equal(picture[::22, 158::22], found.natural_pictures[0])
    assert "Optimised image" not in words(layers / "2" / "0.html")
    assert "Borowski" in words(tmp_path / "pages" / "how-to-read.html")


def test_without_context_no_whole_image_is_shown(study: Study, tmp_path: Path) -> None:
    write_gallery(study, tmp_path / "pages", context=False)
    text = words(tmp_path / "pages" / "layers" / "4" / "0.html")
    assert "Optimised image made from noise in 5 steps" in text and "beside the strongest patch" not in text


def test_the_layer_sheet_shows_them_as_a_view_beside_patches(study: Study, tmp_path: Path, browser: Any) -> None:
    write_gallery(study, tmp_path / "pages")
    page = browser.new_page()
    page.goto((tmp_path / "pages" / "layers" / "2" / "index.html").as_uri())
    assert page.locator(".made").first.is_hidden() and page.locator(".unit").count() == 3
    page.get_by_text("Optimised", exact=True).click()
    assert page.locator(".unit:visible").count() == 2
    first = page.locator("#unit-1")
    assert first.locator("img:visible").count() == 2  # the image and the patches
    found = study.synthesised("2")
    assert f"optimised {found.values[0]:.3g}"[:12] in first.inner_text()
    assert f"{found.shares[0]:.2g} × natural" in first.inner_text()
    page.close()
    picture = np.asarray(Image.open(tmp_path / "pages" / "optimised" / "2" / "1.png"))
    assert np.array_equal(picture[::18, ::18], found.pictures[0])
    assert "Optimised" not in words(tmp_path / "pages" / "layers" / "0" / "index.html")


def test_a_class_shows_its_image_or_that_of_its_output(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 5, stride=5), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2))
    model = interpret.Model(network, "small", interpret.Preprocess((16, 16)), classes=("up", "down"))
    images = torch.rand(9, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    made = Study(tmp_path / "study", model, images)
    made.mine(k=2)
    made.predict()
    made.synthesise(units=[1], kind="class", steps=3)
    made.synthesise("3", [0, 1], steps=2)
    write_gallery(made, tmp_path / "pages")
    texts = {page.read_text().partition("<h1><bdi>")[2].partition("<")[0]: words(page)
             for page in (tmp_path / "pages" / "classes").glob("*.html")}  # fmt: skip
    of_class = made.synthesised(kind="class")
    assert "Optimised image of the class made from noise in 3 steps, beside the strongest image" in texts["down"]
    assert f"{of_class.shares[0]:.2g} × the strongest natural one" in texts["down"]
    assert "Optimised image made from noise in 2 steps" in texts["up"]


def test_similar_units_are_neighbours_in_the_mosaic() -> None:
    rng = np.random.default_rng(0)
    groups = rng.normal(size=(4, 50))
    kinds = rng.permutation(np.repeat(np.arange(4), 12))
    rows = mosaic(groups[kinds] + 0.1 * rng.normal(size=(48, 50)))
    assert [len(row) for row in rows] == [12, 12, 12, 12]
    assert sorted(chain.from_iterable(rows)) == list(range(48))
    beside = [kinds[left] == kinds[right] for row in rows for left, right in pairwise(row)]
    assert np.mean(beside) > 0.8


def test_the_network_page_shows_an_overview(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Conv2d(12, 2, 3))
    made = Study(tmp_path / "study", network, torch.rand(9, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    made.mine(k=2)
    made.synthesise(units=10, steps=1)
    write_gallery(made, tmp_path / "pages")
    page = (tmp_path / "pages" / "index.html").read_text()
    assert "of 12 units, placed so that" in words(tmp_path / "pages" / "index.html")
    shown = re.findall(r'<a href="(layers/\d/\d+\.html)" title', page)
    chosen = [f"layers/0/{unit}.html" for unit in made.synthesised("0").units.tolist()]
    assert sorted(shown) == sorted([*chosen, "layers/2/0.html", "layers/2/1.html"])
