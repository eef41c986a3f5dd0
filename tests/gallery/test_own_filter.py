"""The tile of a unit's own filter, on its page."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from interpret.analyses.filters.compute import filter_images
from interpret.gallery import write_gallery
from interpret.study.study import Study


def own_filters(gallery: Path, layer: str, units: int) -> list[np.ndarray]:
    """Return what the pages of a layer's units cut out of the picture of its filters."""
    found = []
    for unit in range(units):
        text = (gallery / "layers" / layer / f"{unit}.html").read_text("utf-8")
        for box, href in re.findall(r'class=own><svg[^>]* viewBox="([\d ]+)"[^>]*><image href="([^"]+)"', text):
            left, top, width, height = map(int, box.split())
            picture = Image.open(gallery / "layers" / layer / href).convert("RGB")
            found.append(np.asarray(picture.crop((left, top, left + width, top + height))))
    return found


@pytest.mark.parametrize("kernel", [(3, 3), (2, 7), (11, 11)])
def test_a_unit_shows_the_tile_of_its_own_kernel(tmp_path: Path, kernel: tuple[int, int]) -> None:
    torch.manual_seed(0)
    # dilated: the receptive field is larger than the kernel, so that no tile follows from it
    network = nn.Sequential(nn.Conv2d(3, 7, kernel, dilation=2), nn.ReLU(), nn.Conv2d(7, 2, 3))
    study = Study(tmp_path / "study", network, torch.rand(6, 3, 36, 36))
    study.mine(k=2)
    study.draw_filters(every=True)
    gallery = write_gallery(study, tmp_path / "gallery").parent
    tiles = np.round(filter_images(network) * 255).astype(np.uint8)
    shown = own_filters(gallery, "0", 7)
    assert len(shown) == 7
    for tile, cut in zip(tiles, shown, strict=True):
        zoom = cut.shape[0] // kernel[0]
        np.testing.assert_array_equal(cut, tile.repeat(zoom, 0).repeat(zoom, 1))
    # seven slices a unit: none of them is its filter
    assert not own_filters(gallery, "2", 2)


def test_filters_of_an_older_study_are_shown_without_the_tile_of_a_unit(tmp_path: Path) -> None:
    study = Study(tmp_path / "study", nn.Sequential(nn.Conv2d(3, 7, 5), nn.ReLU()), torch.rand(6, 3, 16, 16))
    study.mine(k=2)
    study.draw_filters()
    sheet = study.filter_sheet("0")
    with Image.open(sheet) as picture:
        picture.load()
    Image.fromarray(np.asarray(picture)).save(sheet)  # as older versions did: without the places of tiles
    gallery = write_gallery(study, tmp_path / "gallery").parent
    assert not own_filters(gallery, "0", 7)
    page = (gallery / "layers" / "0" / "index.html").read_text("utf-8")
    assert "filters/0.png" in page and "did not keep which tile belongs to which unit" in page
