"""How inputs are displayed: the values of black and white, on one scale for all images of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interpret.support.wording import MOST_LANES, bands_in_words, shown_bands

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and deviation, one for all channels or one for each."""

CLIPPED_FRACTION = 0.001
"""The share of values at either end that may be clipped."""
MAX_VALUES_OF_IMAGE = 2**16
"""The most values of one image that are used to find the range of all."""
MAX_VALUES = 2**20
"""The most values of all images that are used for it."""


@dataclass(frozen=True)
class PixelScale:
    """How a network's inputs become pictures: red, green and blue of `(input · std + mean) / range`.

    >>> PixelScale(mean=(0.5,), std=(0.25,)).display(torch.tensor([-2.0, 0.0, 2.0]).reshape(1, 1, 3))[0]
    tensor([[0.0000, 0.5000, 1.0000]])
    """

    mean: tuple[float, ...] = (0.0,)
    """One for all channels or one for each."""
    std: tuple[float, ...] = (1.0,)
    range: float = 1.0
    channels: str = "RGB"
    """The order of three channels: "RGB" or "BGR". A single one is grey. Of more, "3,2,1" names those that are
    shown; else the first three are."""
    said: str = ""
    """The sentence on the origin of the colours for a reader; empty if they come from a preprocessing."""
    lines: bool = False
    """Whether inputs are signals [n, C, T], which are drawn as lines from 0 at the bottom to 1 at the top."""

    def display(self, images: Tensor) -> Tensor:
        """Return inputs [..., C, H, W] as pictures [..., 3, H, W], clipped to 0 to 1, on the same device."""
        return to_rgb(self.levels(images).clamp(0, 1), self.channels)

    def levels(self, inputs: Tensor) -> Tensor:
        """Return inputs [..., C, H, W], or signals [n, C, T], on the scale from 0 to 1, not clipped."""
        axes = 1 if inputs.dim() == 3 and self.lines else 2
        mean, std = (
            torch.tensor(values, dtype=inputs.dtype, device=inputs.device).view(-1, *[1] * axes)
            for values in (self.mean, self.std)
        )
        return (inputs * std + mean) / self.range


def to_rgb(pictures: Tensor, channels: str) -> Tensor:
    """Return pictures [..., C, h, w] with their channels as red, green and blue.

    >>> to_rgb(torch.tensor([3, 2, 1]).reshape(1, 3, 1, 1), "BGR").flatten()
    tensor([1, 2, 3])
    >>> to_rgb(torch.arange(5).reshape(1, 5, 1, 1), "4,2,1").flatten()  # bands of a multispectral image
    tensor([4, 2, 1])
    """
    if channels == "BGR":
        return pictures.flip(-3)
    if pictures.shape[-3] > 3:
        return pictures[..., list(shown_bands(channels)), :, :]
    if pictures.shape[-3] == 3:
        return pictures
    # two channels are no colours: show their mean
    return pictures.mean(-3, keepdim=True).expand(*pictures.shape[:-3], 3, -1, -1)


def find_pixel_scale(images: Sequence[Tensor], normalisation: Normalisation | None = None) -> PixelScale:
    """Return the scale of a data set, estimated from some of its inputs [C, H, W].

    >>> find_pixel_scale([torch.rand(3, 8, 8)]).said
    'Inputs are shown from 0 (black) to 1 (white).'
    >>> find_pixel_scale([torch.linspace(-3, 5, 999).reshape(1, 27, 37)]).said
    'Inputs are shown from −2.99 (black) to 4.99 (white), the range of the data set: their colours need not be ...'

    The data set's normalisation is undone if that gives values from 0 to 1 or to 255. Otherwise values from 0 to 1,
    from 0 to 255 and from −1 to 1 are displayed on that scale, and others from the least to the greatest value, with a
    thousandth clipped at either end.
    """
    if images and images[0].dim() == 2:
        return _scale_of_signals(images)
    scale = _scale_of_images(images, normalisation)
    bands = bands_in_words(scale.channels, len(images[0])) if images else ""
    return replace(scale, said=f"{scale.said} {bands}") if bands else scale


def _scale_of_images(images: Sequence[Tensor], normalisation: Normalisation | None) -> PixelScale:
    each = min(MAX_VALUES_OF_IMAGE, MAX_VALUES // max(1, len(images)))
    values = [_values(image, each) for image in images]
    sample = np.concatenate(values) if values else np.zeros(0)
    if normalisation is not None:
        mean, std = normalisation
        undone = [_values(image * _column(std, image) + _column(mean, image), each) for image in images]
        low, high = _ends(np.concatenate(undone)) if undone else (0.0, 1.0)
        scale = next((scale for scale in (1.0, 255.0) if low >= -0.01 * scale and high <= 1.01 * scale), None)
        if scale is not None:
            return PixelScale(
                mean, std, scale, said="Inputs are shown with the data set's own normalisation undone, "
                f"mean {_numbers(mean)} and deviation {_numbers(std)}.",
            )  # fmt: skip
    if not len(sample):
        return PixelScale(said=_said(0, 1))
    low, high = float(sample.min()), float(sample.max())
    if low >= 0 and high <= 1:
        return PixelScale(said=_said(0, 1))
    if low >= 0 and high <= 255 and (high > 127 or (high > 31 and bool((sample % 1 == 0).all()))):
        return PixelScale(range=255.0, said=_said(0, 255))
    if -1 <= low < 0 and high <= 1 and max(-low, high) > 0.9:
        return PixelScale((1.0,), range=2.0, said=_said(-1, 1))
    low, high = _ends(sample)
    if low == high:
        low, high = float(sample.min()), float(sample.max())
    return PixelScale(
        (-low,), range=(high - low) or 1.0, said=f"{_said(low, high)[:-1]}, the range of the data set: "
        "their colours need not be those of the pictures that they were made of.",
    )  # fmt: skip


def _scale_of_signals(signals: Sequence[Tensor]) -> PixelScale:
    """Return the scale on which signals [C, T] are drawn: each channel from its least to its greatest value.

    >>> _scale_of_signals([torch.tensor([[-1.0, 0.0, 3.0]])]).said
    'Signals are drawn over time, from −1 (bottom) to 3 (top); a pale line is zero.'
    """
    ends = []
    for channel in zip(*signals, strict=True):
        values = np.concatenate([_values(one, MAX_VALUES_OF_IMAGE) for one in channel])
        ends.append((float(values.min()), float(values.max())) if len(values) else (0.0, 1.0))
    std = tuple(1 / ((high - low) or 1.0) for low, high in ends)
    mean = tuple(-low * scale for (low, _), scale in zip(ends, std, strict=True))
    if len(ends) == 1:
        drawn = f"from {_number(ends[0][0])} (bottom) to {_number(ends[0][1])} (top)"
    else:
        shown = "channels" if len(ends) <= MOST_LANES else f"first {MOST_LANES} of {len(ends)} channels"
        drawn = f"their {shown} from top to bottom, each from its least to its greatest value in the data"
    return PixelScale(mean, std, lines=True, said=f"Signals are drawn over time, {drawn}; a pale line is zero.")


def _values(image: Tensor, most: int) -> NDArray[Any]:
    """Return the finite values of an image, or about `most` of them, evenly spread."""
    flat = image.detach().reshape(-1)
    flat = flat[:: max(1, len(flat) // most)].float().cpu()
    return flat[flat.isfinite()].numpy()


def _ends(values: NDArray[Any]) -> tuple[float, float]:
    low, high = np.quantile(values, (CLIPPED_FRACTION, 1 - CLIPPED_FRACTION)).tolist() if len(values) else (0.0, 1.0)
    return low, high


def _column(values: tuple[float, ...], image: Tensor) -> Tensor:
    return torch.tensor(values).view(-1, *[1] * (image.dim() - 1))


def _said(black: float, white: float) -> str:
    return f"Inputs are shown from {_number(black)} (black) to {_number(white)} (white)."


def _numbers(values: tuple[float, ...]) -> str:
    return _number(values[0]) if len(values) == 1 else f"({', '.join(map(_number, values))})"


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", "\N{MINUS SIGN}")
