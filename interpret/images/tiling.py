"""Tiles: windows of the input's size that cover a picture."""

from __future__ import annotations

from collections.abc import Iterable

from interpret.network.preprocess import Cut, Preprocess


def tiles(preprocess: Preprocess, height: int, width: int, scales: Iterable[int]) -> list[Cut]:
    """Return the windows of the input's size that cover a picture at each scale.

    Along each axis, they are about ¾ of the input apart and evenly spaced from edge to edge. If the picture is hardly
    longer than the input, there is one window in the middle.

    >>> [cut.left for cut in tiles(Preprocess((227, 227)), 512, 768, [512]) if cut.top == 0]
    [0, 180, 361, 541]
    >>> tiles(Preprocess((227, 227)), 256, 256, [256])
    [Cut(height=256, width=256, top=14, left=14)]

    Args:
        preprocess: the preprocessing, for the input's size.
        height, width: the picture's size.
        scales: lengths of the picture's short side in pixels, raised if the input needs it.
    """
    sizes = dict.fromkeys(preprocess.resized(height, width, scale) for scale in scales)
    return [
        Cut(*size, top, left)
        for size in sizes
        for top in _starts(size[0], preprocess.size[0])
        for left in _starts(size[1], preprocess.size[1])
    ]


def _starts(length: int, window: int) -> list[int]:
    """Return the starts of evenly spaced windows over a length."""
    slack = length - window
    gaps = min(round(slack / (0.75 * window)), slack)
    return [round(i * slack / gaps) for i in range(gaps + 1)] if gaps else [slack // 2]
