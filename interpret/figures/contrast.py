"""The contrast of signals as pictures: zero is mid-grey, and the strongest one per cent is clipped."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpret.support.wording import shown_bands

CLIPPED_SHARE = 0.01
"""The share of pixels, those with the largest magnitudes, that may be clipped."""


def contrast_scale(magnitudes: NDArray[Any]) -> NDArray[Any]:
    """Return the magnitude [...] that is drawn as the strongest, for each of some maps [..., h, w].

    >>> contrast_scale(np.arange(200.0).reshape(1, 10, 20))
    array([197.])

    It is the 99th percentile, or the maximum where that is zero; never zero, so that maps can be divided by it.
    """
    flat = magnitudes.reshape(*magnitudes.shape[:-2], -1)
    rank = max(1, math.ceil((1 - CLIPPED_SHARE) * flat.shape[-1]))
    scale = np.partition(flat, rank - 1, -1)[..., rank - 1]
    # without the maximum, a map that is zero at almost all pixels would be divided by zero
    return np.maximum(np.where(scale > 0, scale, flat.max(-1)), np.finfo(flat.dtype).tiny)


def stretch_contrast(signals: NDArray[Any], channels: str) -> NDArray[Any]:
    """Return signals [..., C, h, w] as pictures [..., 3, h, w] in 0 … 1, with zero as mid-grey.

    >>> stretch_contrast(np.array([[[-2.0, 0.0, 1.0, 2.0]]]), "L")[0]
    array([[0.  , 0.5 , 0.75, 1.  ]])

    Each is scaled by the 99th percentile of its strongest colour's magnitude and clipped: scaled by the maximum, only
    projections of the first layers can be read. Zeiler & Fergus 2014 enhance contrast, too, and do not say how.

    Args:
        signals: raw projections.
        channels: the meaning of the C channels: "RGB", "BGR" or "L"; of more than three, "3,2,1" names those that are
            shown, else the first three are.
    """
    if signals.shape[-3] > 3:
        signals = signals[..., list(shown_bands(channels)), :, :]
    scale = contrast_scale(np.abs(signals).max(-3))
    pictures = np.clip(signals / (2 * scale[..., None, None, None]) + signals.dtype.type(0.5), 0, 1)
    if channels == "BGR":
        return pictures[..., ::-1, :, :]
    if pictures.shape[-3] == 3:
        return pictures
    # two channels are no colours: show their mean
    return np.broadcast_to(pictures.mean(-3, keepdims=True), (*pictures.shape[:-3], 3, *pictures.shape[-2:]))
