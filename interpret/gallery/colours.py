"""The name of the main colour in a unit's patches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

COLOURS = (
    "black",
    "grey",
    "white",
    "red",
    "orange",
    "brown",
    "yellow",
    "green",
    "turquoise",
    "blue",
    "violet",
    "pink",
)
LETTERS = "kawronygtbvp"
"""The letter of each colour in the search index, in the same order."""
GREYISH = 0.04
"""The chroma below which a colour is black, grey or white."""
HUE_COUNTS = 0.25
"""The least share with which a hue takes precedence over black, grey and white."""
BITS = 5
"""How many bits of each channel decide the name: colours that agree in them have the same one."""


@dataclass(frozen=True)
class Colour:
    """The colour that a reader would name in a unit's pictures."""

    place: int
    """Which of `COLOURS`."""
    share: float
    """Its share of what carried the excitation, 0 to 1; 0 where that is not known."""

    @property
    def name(self) -> str:
        """The colour's name."""
        return COLOURS[self.place]


def oklab(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return sRGB pixels [..., 3] as lightness 0 to 1, and how far they are red (not green) and yellow (not blue).

    >>> np.round(oklab(np.array([255, 0, 0], np.uint8)), 3)
    array([0.628, 0.225, 0.126])

    Source: Ottosson, "A perceptual color space for image processing", 2020.
    """
    values = pixels / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    cones = linear @ np.array(
        [
            [0.4122214708, 0.2119034982, 0.0883024619],
            [0.5363325363, 0.6806995451, 0.2817188376],
            [0.0514459929, 0.1073969566, 0.6299787005],
        ]
    )
    lab: NDArray[np.float64] = np.cbrt(cones) @ np.array(
        [
            [0.2104542553, 1.9779984951, 0.0259040371],
            [0.7936177850, -2.4285922050, 0.7827717662],
            [-0.0040720468, 0.4505937099, -0.8086757660],
        ]
    )
    return lab


def name_colours(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return which of `COLOURS` each sRGB pixel [..., 3] is.

    >>> [COLOURS[j] for j in name_colours(np.array([[200, 30, 30], [130, 80, 40], [250, 250, 250]], np.uint8))]
    ['red', 'brown', 'white']

    By lightness L, chroma C and hue h in OKLab: L below 0.2 is black, and so is L below 0.35 where C is below 0.04;
    of that chroma, L above 0.9 is white, the rest grey. The others go by hue, in degrees from red towards yellow:
    red from 8, orange from 42, yellow from 85, green from 115, turquoise from 175, blue from 215, violet from 285,
    pink from 335. What is orange and dark (L below 0.65) or pale (C below 0.09) is brown, and so is dark yellow (L
    below 0.6) up to 100 degrees, which is green from there on; pale red (L above 0.7) is pink, and dark pink (L below
    0.5) red.
    """
    lightness, a, b = np.moveaxis(oklab(pixels), -1, 0)
    chroma, hue = np.hypot(a, b), np.degrees(np.arctan2(b, a)) % 360
    number = {name: place for place, name in enumerate(COLOURS)}
    starts = [0, 8, 42, 85, 115, 175, 215, 285, 335]
    by_hue = ["pink", "red", "orange", "yellow", "green", "turquoise", "blue", "violet", "pink"]
    found = np.array([number[name] for name in by_hue])[np.searchsorted(starts, hue, side="right") - 1]

    def change(before: str, after: str, where: NDArray[np.bool_]) -> None:
        found[(found == number[before]) & where] = number[after]

    change("orange", "brown", (lightness < 0.65) | (chroma < 0.09))
    change("yellow", "brown", (lightness < 0.6) & (hue < 100))
    change("yellow", "green", lightness < 0.6)
    change("pink", "red", lightness < 0.5)
    change("red", "pink", lightness > 0.7)
    pale = chroma < GREYISH
    found[pale] = number["grey"]
    found[pale & (lightness > 0.9)] = number["white"]
    found[(pale & (lightness < 0.35)) | (lightness < 0.2)] = number["black"]
    return found.astype(np.uint8)


@cache
def _names_of_all() -> NDArray[np.uint8]:
    """Return the colour of every pixel, by its channels' highest bits."""
    levels = (np.arange(2**BITS) * 2 + 1) * 2 ** (7 - BITS)
    every = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).astype(np.uint8)
    return name_colours(every).ravel()


def colour_shares(patches: NDArray[np.uint8], projections: NDArray[np.uint8] | None = None) -> NDArray[np.float64]:
    """Return what share of some patches [n, h, w, 3] each of `COLOURS` has.

    >>> patches = np.full((2, 4, 4, 3), 255, np.uint8)
    >>> patches[:, :, :2] = [255, 0, 0]
    >>> shares = colour_shares(patches)
    >>> shares[COLOURS.index("red")], shares[COLOURS.index("white")]
    (np.float64(0.5), np.float64(0.5))

    All patches count alike. Within one, with its projection as a picture whose mid-grey is nothing, a pixel counts by
    how far the projection departs from grey there: what carried the excitation. Without, all pixels count alike.
    """
    high = patches.astype(np.uint16) >> (8 - BITS)
    names = _names_of_all()[(high[..., 0] << 2 * BITS) | (high[..., 1] << BITS) | high[..., 2]].reshape(
        len(patches), -1
    )
    weights = np.ones(names.shape)
    if projections is not None:
        apart = np.maximum(projections, 128) - np.minimum(projections, 128)
        # one channel after the other, which is much faster than along an axis of three
        signal = np.maximum(np.maximum(apart[..., 0], apart[..., 1]), apart[..., 2]).reshape(names.shape)
        signal = np.where(signal <= 1, 0, signal).astype(np.float64)  # 1 is rounding
        weights = np.where(signal.any(1, keepdims=True), signal, weights)
    weights /= weights.sum(1, keepdims=True) * max(len(patches), 1)
    counted = np.bincount(names.ravel(), weights.ravel(), minlength=len(COLOURS))
    return counted.astype(np.float64, copy=False)


def main_colour(shares: NDArray[np.float64]) -> int:
    """Return the place among `COLOURS` of the one that a reader would name.

    That is the one with the largest share; but one with a hue that has at least a quarter comes before black, grey and
    white, which shadows and backgrounds have everywhere.

    >>> shares = np.zeros(len(COLOURS))
    >>> shares[[COLOURS.index(name) for name in ("black", "red", "blue")]] = 0.5, 0.3, 0.2
    >>> COLOURS[main_colour(shares)]
    'red'
    """
    hues = np.where(np.isin(COLOURS, ("black", "grey", "white")), 0, shares)
    return int(hues.argmax() if hues.max() >= HUE_COUNTS else shares.argmax())


def colour_of(patches: NDArray[np.uint8], projections: NDArray[np.uint8] | None = None) -> Colour:
    """Return the colour of patches [n, h, w, 3], weighted by their projections as in `colour_shares`.

    >>> colour_of(np.full((1, 4, 4, 3), [255, 0, 0], np.uint8)).name
    'red'
    """
    shares = colour_shares(patches, projections)
    place = main_colour(shares)
    return Colour(place, float(shares[place]))
