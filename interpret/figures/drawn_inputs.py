"""Inputs that are no images as pictures: signals as lines over time, volumes as three slices; without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpret.support.wording import MOST_LANES

PATCH_SIZE = (64, 128)
"""Height and width in pixels of a drawn part of a signal."""
WHOLE_SIZE = (96, 320)
"""Height and width in pixels of a drawn signal."""
LEAST_LANE = 12
"""Least height in pixels of a channel's lane."""
STROKE = 1.5
"""Width of a line in pixels."""
MARGIN = 0.06
"""The share of a lane's height that is left free above and below."""
INK, SIGNAL_INK = (0.10, 0.16, 0.30), (0.72, 0.24, 0.06)
"""The colours of an input's line and of a projection's."""
ZERO, PAPER = (0.78, 0.80, 0.84), (0.965, 0.968, 0.975)
GAP = 1
"""Pixels between the slices of a volume."""


def draw_lines(
    levels: NDArray[Any],
    zero: NDArray[Any] | float = -1.0,
    size: tuple[int, int] = PATCH_SIZE,
    colour: tuple[float, float, float] = INK,
) -> NDArray[np.float32]:
    """Draw signals [n, C, T] as lines over time, and return pictures [n, 3, h, w] in 0 … 1.

    >>> draw_lines(np.linspace(0, 1, 100).reshape(1, 1, 100)).shape
    (1, 3, 64, 128)

    Each channel has a lane of its own, the first at the top, at most 16 of them. A column of pixels that several
    samples share shows the range of their values; between samples further apart than a pixel, the line is straight.

    Args:
        levels: heights in the lane, from 0 at the bottom to 1 at the top; clipped.
        zero: the level of zero, one for all channels or one for each, where a pale line is drawn; none outside 0 … 1.
        size: height and width of a picture; it grows with the number of channels.
        colour: of the lines, red, green and blue in 0 … 1.
    """
    levels = np.clip(np.asarray(levels, np.float64), 0, 1)[:, :MOST_LANES]
    count, lanes, _ = levels.shape
    height, width = max(size[0] // lanes, LEAST_LANE), size[1]
    low, high = _columns(levels, width)
    room = height * (1 - 2 * MARGIN) - STROKE
    # rows count from the top
    top, bottom = ((1 - one) * room + height * MARGIN + STROKE / 2 for one in (high, low))
    ink = _covered(top - STROKE / 2, bottom + STROKE / 2, height)
    at = np.broadcast_to(np.asarray(zero, np.float64), (lanes,))
    rows = ((1 - at) * room + height * MARGIN + STROKE / 2)[:, None]
    pale = _covered(rows - 0.5, rows + 0.5, height) * ((at >= 0) & (at <= 1))[:, None, None]
    under = np.asarray(PAPER) + (np.asarray(ZERO) - PAPER) * pale[..., None]  # [lanes, height, 1, 3]
    picture = under + (np.asarray(colour) - under) * ink[..., None]  # [n, lanes, height, width, 3]
    return picture.reshape(count, lanes * height, width, 3).transpose(0, 3, 1, 2).astype(np.float32)


def _columns(levels: NDArray[Any], width: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the least and the greatest value of a line in each column of pixels, both [n, C, width]."""
    samples = levels.shape[-1]
    if samples == 1:
        flat = np.repeat(levels, width, -1)
        return flat, flat
    edges = np.linspace(0, samples - 1, width + 1)
    before = np.minimum(edges.astype(np.int64), samples - 2)
    share = edges - before
    at_edges = levels[..., before] * (1 - share) + levels[..., before + 1] * share
    low, high = np.minimum(at_edges[..., :-1], at_edges[..., 1:]), np.maximum(at_edges[..., :-1], at_edges[..., 1:])
    # and of the samples within a column
    column = np.clip(np.searchsorted(edges, np.arange(samples), "right") - 1, 0, width - 1)
    first = np.flatnonzero(np.diff(column, prepend=-1))
    for combine, found in ((np.minimum, low), (np.maximum, high)):
        found[..., column[first]] = combine(found[..., column[first]], combine.reduceat(levels, first, -1))
    return low, high


def _covered(top: NDArray[Any], bottom: NDArray[Any], height: int) -> NDArray[Any]:
    """Return the share of each pixel that lies between two heights [..., w], as [..., height, w]."""
    rows, top, bottom = np.arange(height)[:, None], top[..., None, :], bottom[..., None, :]
    return np.clip(np.minimum(bottom, rows + 1) - np.maximum(top, rows), 0, 1)


def planes(volumes: NDArray[Any], blank: Any = 0) -> NDArray[Any]:
    """Return three slices through the middle of volumes [..., D, H, W] in one map [..., H + 1 + D, W + 1 + D].

    At the top left the rows and columns of the middle slice, to its right how its middle column continues in depth,
    below it how its middle row does; `blank` fills the rest.

    >>> planes(np.arange(8.0).reshape(2, 2, 2), blank=-1).astype(int)
    array([[ 4,  5, -1,  1,  5],
           [ 6,  7, -1,  3,  7],
           [-1, -1, -1, -1, -1],
           [ 2,  3, -1, -1, -1],
           [ 6,  7, -1, -1, -1]])
    """
    *rest, depth, height, width = volumes.shape
    found = np.full((*rest, height + GAP + depth, width + GAP + depth), blank, volumes.dtype)
    found[..., :height, :width] = volumes[..., depth // 2, :, :]
    found[..., :height, width + GAP :] = volumes[..., width // 2].swapaxes(-1, -2)
    found[..., height + GAP :, :width] = volumes[..., height // 2, :]
    return found


def blank_of(depth: int, height: int, width: int) -> NDArray[np.bool_]:
    """Return where `planes` of a volume has no slice."""
    return planes(np.zeros((depth, height, width), bool), True)


def picture_size(sides: Sequence[int]) -> tuple[int, int]:
    """Return height and width of the picture of a part of an input with these sides.

    >>> picture_size([9]), picture_size([9, 7]), picture_size([5, 9, 7])
    ((64, 128), (9, 7), (15, 13))
    """
    if len(sides) == 1:
        return PATCH_SIZE
    *depth, height, width = sides
    more = depth[0] + GAP if depth else 0
    return height + more, width + more


def boxes_in_picture(boxes: NDArray[Any], sides: Sequence[int]) -> NDArray[np.float64]:
    """Return windows [n, 2 · axes] of inputs with these sides as boxes in their pictures, [n, 4] in fractions of them.

    Boxes are (top, left, bottom, right). A signal's reach over the whole height; a volume's are in its middle slice.

    >>> boxes_in_picture(np.array([[25, 50]]), [100]).tolist()
    [[0.0, 0.25, 1.0, 0.5]]
    >>> boxes_in_picture(np.array([[0, 5, 0, 2, 10, 5]]), [9, 10, 10]).tolist()
    [[0.25, 0.0, 0.5, 0.25]]
    """
    axes = len(sides)
    if axes == 1:
        start, end = boxes.T / sides[0]
        return np.stack([np.zeros_like(start), start, np.ones_like(end), end], 1)
    chosen = boxes[:, [axes - 2, axes - 1, 2 * axes - 2, 2 * axes - 1]]
    return np.asarray(chosen / np.array([*picture_size(sides)] * 2))
