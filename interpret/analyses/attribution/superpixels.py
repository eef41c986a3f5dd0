"""Superpixels: a picture cut into connected regions of similar colour."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from interpret.analyses.attribution.opencv import cv2
from interpret.support.errors import InterpretError

COMPACTNESS = 10.0
"""How many levels of lightness (of 100) weigh as much as the distance between two seeds."""
ROUNDS = 10


def superpixels(picture: NDArray[np.uint8], count: int = 50) -> NDArray[np.int32]:
    """Return which region each pixel belongs to, [H, W]: about `count` regions, numbered from 0.

    >>> picture = np.zeros((4, 8, 3), np.uint8)
    >>> picture[:, 3:] = 255
    >>> superpixels(picture, 2)[0]
    array([0, 0, 0, 1, 1, 1, 1, 1], dtype=int32)

    As SLIC (Achanta et al. 2012, "SLIC superpixels compared to state-of-the-art superpixel methods", section 3):
    k-means over CIELAB colour and position, beginning with a grid of squares, and then whatever is not connected to the
    bulk of its region goes to the regions around it. All distances are computed, where SLIC looks no further than two
    seeds.

    Args:
        picture: RGB [H, W, 3].
        count: how many regions are wanted; there are at most as many as pixels.

    Raises:
        InterpretError: a picture of one pixel, or a count below 2.
    """
    height, width = picture.shape[:2]
    if count < 2:
        raise InterpretError(f"superpixels must be at least 2, not {count}")
    if height * width < 2:
        raise InterpretError("superpixels need an image of more than one pixel, not 1×1: choose another method")
    regions = _grid(height, width, count)
    spacing = np.sqrt(height * width / (regions.max() + 1))
    colour = cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    places = np.moveaxis(np.mgrid[:height, :width], 0, 2) * (COMPACTNESS / spacing)
    features = np.concatenate([colour, places], 2).reshape(-1, 5).astype(np.float32)
    stop = (cv2.TERM_CRITERIA_MAX_ITER, ROUNDS, 0.0)
    # an empty cluster draws from OpenCV's generator
    cv2.setRNGSeed(0)
    _, labels, _ = cv2.kmeans(
        features, int(regions.max()) + 1, regions.reshape(-1, 1), stop, 1, cv2.KMEANS_USE_INITIAL_LABELS
    )
    return _connected(labels.reshape(height, width))


def _grid(height: int, width: int, count: int) -> NDArray[np.int32]:
    """Return nearly square cells, row by row."""
    rows = min(height, max(1, round(np.sqrt(count * height / width))))
    columns = min(width, max(1, round(count / rows)))
    if rows * columns < 2:  # a strip
        rows, columns = min(height, 2), min(width, 2)
    ys, xs = np.arange(height) * rows // height, np.arange(width) * columns // width
    return (ys[:, None] * columns + xs).astype(np.int32)


def _connected(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Keep the largest connected part of each region; what is left joins the region that it touches first."""
    kept = np.full(labels.shape, -1, np.int32)
    for number, label in enumerate(np.unique(labels)):
        _, parts = cv2.connectedComponents((labels == label).astype(np.uint8), connectivity=4)
        sizes = np.bincount(parts.ravel())
        sizes[0] = 0
        kept[parts == sizes.argmax()] = number
    while (kept < 0).any():
        around = np.pad(kept, 1, constant_values=-1)
        for neighbour in (around[:-2, 1:-1], around[1:-1, :-2], around[2:, 1:-1], around[1:-1, 2:]):
            kept = np.where(kept < 0, neighbour, kept)
    return kept
