"""Contrast, shrinking and sheets against literal loops."""

from __future__ import annotations

import math
from io import BytesIO

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from helpers.tensors import normal
from interpret.figures.tile_grid import TileGrid
from interpret.images.display import contrast, sheet, shrink, to_bytes, webp
from interpret.network.pixel_scale import to_rgb


def decoded(file: bytes) -> NDArray[np.uint8]:
    with Image.open(BytesIO(file)) as picture:
        return np.asarray(picture.convert("RGB"))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 99))
def test_contrast_scales_by_the_99th_percentile_of_the_strongest_colour(height: int, width: int, seed: int) -> None:
    signals = normal(2, 3, height, width, seed=seed)
    for picture, signal in zip(contrast(signals), signals.tolist(), strict=True):
        strongest = sorted(max(abs(signal[c][y][x]) for c in range(3)) for y in range(height) for x in range(width))
        scale = strongest[math.ceil(0.99 * len(strongest)) - 1]
        for c in range(3):
            for y in range(height):
                for x in range(width):
                    expected = min(max(signal[c][y][x] / scale / 2 + 0.5, 0), 1)
                    assert math.isclose(float(picture[c, y, x]), expected, rel_tol=1e-12)


def test_contrast_of_a_signal_that_is_nearly_or_quite_zero() -> None:
    nothing, spark = torch.zeros(1, 3, 20, 20), torch.zeros(1, 3, 20, 20)
    spark[0, 1, 3, 4] = -1e-30
    assert (contrast(nothing) == 0.5).all()
    expected = torch.full_like(spark, 0.5)
    expected[0, 1, 3, 4] = 0
    assert torch.equal(contrast(spark), expected)


def test_contrast_neither_depends_on_the_scale_nor_on_the_others() -> None:
    signals = normal(4, 3, 7, 9)
    torch.testing.assert_close(contrast(signals * 1e-20), contrast(signals), rtol=1e-12, atol=0)
    assert torch.equal(contrast(signals[2:3]), contrast(signals)[2:3])
    torch.testing.assert_close(contrast(-signals), 1 - contrast(signals), rtol=1e-12, atol=1e-15)


def test_channels_become_colours() -> None:
    signals = normal(1, 3, 4, 4)
    assert torch.equal(contrast(signals, "BGR"), contrast(signals).flip(1))
    assert torch.equal(to_rgb(signals[:, :1], "L"), signals[:, :1].repeat(1, 3, 1, 1))
    two = normal(1, 2, 4, 4)
    torch.testing.assert_close(to_rgb(two, "RGB")[:, 2], (two[:, 0] + two[:, 1]) / 2)


@pytest.mark.parametrize(
    ("height", "width", "side", "shape"),
    [
        (3, 5, 8, (3, 5)),
        (8, 8, 8, (8, 8)),
        (16, 16, 8, (8, 8)),
        (100, 50, 64, (64, 32)),
        (1, 300, 64, (1, 64)),
        (227, 227, 64, (64, 64)),
    ],
)
def test_shrinking_averages_areas_and_keeps_the_shape(
    height: int, width: int, side: int, shape: tuple[int, int]
) -> None:
    pictures = normal(2, 3, height, width)
    small = shrink(pictures, side)
    assert small.shape == (2, 3, *shape)
    if shape == (height, width):
        assert torch.equal(small, pictures)
    for y in range(0, shape[0], 5):
        for x in range(0, shape[1], 7):
            top, bottom = y * height // shape[0], -(-(y + 1) * height // shape[0])
            left, right = x * width // shape[1], -(-(x + 1) * width // shape[1])
            area = pictures[:, :, top:bottom, left:right]
            torch.testing.assert_close(small[:, :, y, x], area.mean((2, 3)), rtol=1e-12, atol=1e-14)


def test_bytes_are_rounded() -> None:
    levels = torch.arange(256, dtype=torch.float64) / 255
    pictures = levels.reshape(1, 1, 1, 256).repeat(1, 3, 1, 1)
    for noise in (0, 0.49 / 255, -0.49 / 255):
        found = to_bytes((pictures + noise).clamp(0, 1))
        assert found.dtype == np.uint8 and found.shape == (1, 1, 256, 3)
        assert found[0, 0, :, 1].tolist() == list(range(256))


@pytest.mark.parametrize("count", range(1, 27))
def test_a_sheet_is_as_square_as_can_be_and_read_row_by_row(count: int) -> None:
    tiles = np.random.default_rng(count).integers(0, 100, (count, 3, 2, 3), np.uint8)
    grid = sheet(tiles)
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    assert (
        TileGrid.square(count, 3, 2).columns == columns and grid.shape == (rows * 3, columns * 2, 3) and rows <= columns
    )
    for place in range(rows * columns):
        y, x = place // columns * 3, place % columns * 2
        found = grid[y : y + 3, x : x + 2]
        assert np.array_equal(found, tiles[place]) if place < count else (found == 128).all()


@pytest.mark.parametrize("tile", [1, 3, 31])
def test_small_tiles_keep_every_pixel(tile: int) -> None:
    tiles = np.random.default_rng(tile).integers(0, 256, (9, tile, tile, 3), np.uint8)
    assert np.array_equal(decoded(webp(sheet(tiles), tile)), sheet(tiles))


def test_large_tiles_are_about_right_and_much_smaller() -> None:
    y, x = np.mgrid[:192, :192]
    grain = np.random.default_rng(0).integers(0, 9, (192, 192, 3))
    picture = (np.stack([y, x, (y + x) // 2], -1) + grain).astype(np.uint8)
    file = webp(picture, tile=64)
    assert np.abs(decoded(file).astype(int) - picture).mean() < 4
    assert 10 * len(file) < len(webp(picture, tile=31))


def test_a_sprite_says_nothing_of_where_it_was_made() -> None:
    for tile in (8, 64):
        file = webp(np.zeros((tile, tile, 3), np.uint8), tile)
        assert not any(chunk in file for chunk in (b"EXIF", b"XMP", b"ICCP"))
        assert file == webp(np.zeros((tile, tile, 3), np.uint8), tile)
