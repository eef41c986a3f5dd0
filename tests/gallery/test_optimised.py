"""Optimised images on the page of their unit, with the numbers that tell whether they are true."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from interpret import Study, write_gallery


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
