"""Measure the similarity of two maps: rank correlation and structural similarity, as in Adebayo et al. 2018."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpret.analyses.attribution.opencv import cv2
from interpret.figures.contrast import contrast_scale

SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
"""Side and standard deviation, in pixels, of the Gaussian window of structural similarity."""
DETAIL_SIGMA = 2.0
"""Standard deviation, in pixels, of the blur that `detail` subtracts."""
DETAIL_SIDE = 17
"""Side of that blur's window in pixels."""


def rank_correlation(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Return Spearman's rank correlation of two maps, −1 … 1; 0 if either is constant.

    >>> rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0, 90.0]))
    1.0
    >>> rank_correlation(np.array([1.0, 2.0, 3.0]), np.zeros(3))
    0.0

    Equal values share the mean of their ranks. The correlation with a constant map is undefined; 0 is returned, since
    such a map says nothing about the other.
    """
    ranks = _ranks(one), _ranks(other)
    size = np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum())
    return float(np.clip((ranks[0] * ranks[1]).sum() / size, -1, 1)) if size > 0 else 0.0


def _ranks(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the ranks of values minus their mean."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    return ranks[places.ravel()] - (values.size + 1) / 2


def structural_similarity(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Return the mean structural similarity of two pictures [H, W] of values in 0 … 1.

    >>> picture = np.random.default_rng(0).random((20, 20))
    >>> structural_similarity(picture, picture)
    1.0

    Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity", section III.B:
    Gaussian windows of 11×11 pixels with a deviation of 1.5 that lie wholly inside, K₁ = 0.01, K₂ = 0.03; in a
    smaller picture, the largest odd window that fits. Equal to scikit-image's to 1e-15 and twice as fast.
    """
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    side = min(SSIM_WINDOW, *(length - 1 + length % 2 for length in one.shape))
    margin = side // 2

    def local(values: NDArray[Any]) -> NDArray[Any]:
        blurred: NDArray[Any] = np.asarray(cv2.GaussianBlur(values, (side, side), SSIM_SIGMA)).reshape(values.shape)
        return blurred[margin : len(blurred) - margin, margin : blurred.shape[1] - margin]

    means = local(one), local(other)
    variances = local(one * one) - means[0] ** 2, local(other * other) - means[1] ** 2
    covariance = local(one * other) - means[0] * means[1]
    light, contrast = 0.01**2, 0.03**2
    index = ((2 * means[0] * means[1] + light) * (2 * covariance + contrast)) / (
        (means[0] ** 2 + means[1] ** 2 + light) * (variances[0] + variances[1] + contrast)
    )
    return float(index.mean())


def scaled(maps: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return maps [..., H, W], each divided by the 99th percentile of its magnitude and clipped to −1 … 1.

    >>> scaled(np.array([[-2.0, 1.0], [2.0, 0.0]]))
    array([[-1. ,  0.5],
           [ 1. ,  0. ]])
    """
    magnitude = np.abs(np.asarray(maps, np.float64))
    return np.clip(maps / contrast_scale(magnitude)[..., None, None], -1, 1)


def detail(picture: NDArray[Any]) -> NDArray[np.float64]:
    """Return the fine detail of a picture [H, W, 3] or [H, W]: its grey minus its blurred grey.

    >>> detail(np.eye(5)).round(2)[2]
    array([-0.2, -0.2,  0.8, -0.2, -0.2])
    """
    grey = np.asarray(picture, np.float64)
    grey = grey.mean(2) if grey.ndim == 3 else grey
    # the size is given, since OpenCV's default differs for bytes and floats
    blurred = cv2.GaussianBlur(grey, (DETAIL_SIDE, DETAIL_SIDE), DETAIL_SIGMA, borderType=cv2.BORDER_REFLECT)
    return grey - np.asarray(blurred, np.float64).reshape(grey.shape)
