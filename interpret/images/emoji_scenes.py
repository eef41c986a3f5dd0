"""Scenes composed of emoji over textures, with the class of each pixel: data for segmentation and detection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 64
"""Height and width of a scene, in pixels."""
MOST_DRAWINGS = 4
SIZES = (20, 38)
"""The smallest and the largest side of a drawing in a scene, in pixels."""
LEAST_VISIBLE = 0.35
"""The share of a drawing that those in front of it leave visible, at least."""

SCENE_CLASSES = (
    "background", "face", "person", "hand", "animal", "plant", "vehicle", "building", "heart", "sign", "flag",
)  # fmt: skip
_PREFIXES = {
    "face": ("face-",),
    "person": ("person",),
    "hand": ("hand",),
    "animal": ("animal-", "cat-face", "monkey-face"),
    "plant": ("plant-", "food-fruit", "food-vegetable"),
    "vehicle": ("transport-ground", "transport-air", "transport-water"),
    "building": ("place-building", "place-religious", "hotel"),
    "heart": ("heart",),
    "sign": ("alphanum", "arrow", "av-symbol", "keycap", "religion", "transport-sign", "warning", "zodiac"),
    "flag": ("country-flag", "flag", "subdivision-flag"),
}
"""The subcategories of Unicode in each class, by the beginnings of their names."""


def scene_class(subcategory: str) -> str | None:
    """Return the class of a subcategory of Unicode's emoji; None for one that scenes do not show.

    >>> scene_class("animal-bird"), scene_class("hands"), scene_class("musical-instrument")
    ('animal', 'hand', None)
    """
    found = (name for name, prefixes in _PREFIXES.items() if subcategory.startswith(prefixes))
    return next(found, None)


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture, the class of each of its pixels, and a box for each drawing.

    >>> white = Image.new("RGBA", (64, 64), "white")
    >>> scene = compose([[white], [white]], np.random.RandomState(0))
    >>> scene.picture.shape, scene.classes.shape, set(np.unique(scene.classes)) <= {0, 1, 2}
    ((64, 64, 3), (64, 64), True)
    """

    picture: NDArray[np.uint8]
    """RGB [H, W, 3]."""
    classes: NDArray[np.uint8]
    """[H, W], indices into `SCENE_CLASSES`; 0 is the background."""
    boxes: NDArray[np.int64]
    """[N, 5]: class, top, left, bottom, right of each drawing's visible pixels, from back to front."""


def compose(drawings: Sequence[Sequence[Image.Image]], random: np.random.RandomState) -> Scene:
    """Return a random scene: a texture, and drawings of random classes in front of it.

    Args:
        drawings: for each class from 1, its transparent drawings (RGBA).
        random: what draws the scene; NumPy never changes the numbers of a `RandomState`.
    """
    picture = Image.fromarray(texture(random))
    owner = np.zeros((SIDE, SIDE), np.int64)
    painted: list[int] = []
    for _ in range(random.randint(1, MOST_DRAWINGS + 1)):
        label = random.randint(len(drawings)) + 1
        drawing = drawings[label - 1][random.randint(len(drawings[label - 1]))]
        side = random.randint(SIZES[0], SIZES[1] + 1)
        drawing = drawing.resize((side, side), Image.Resampling.BOX, reducing_gap=None)
        left, top = (int(random.randint(SIDE - side + 1)) for _ in "xy")
        layer = Image.new("RGBA", picture.size)
        layer.paste(drawing, (left, top))
        opaque = np.asarray(layer)[..., 3] >= 128
        if _hides_too_much(owner, opaque, len(painted)):
            continue
        picture = Image.alpha_composite(picture.convert("RGBA"), layer).convert("RGB")
        painted.append(label)
        owner[opaque] = len(painted)
    classes = np.array([0, *painted], np.uint8)[owner]
    boxes = [[label, *_box(owner == place)] for place, label in enumerate(painted, 1)]
    return Scene(np.asarray(picture).copy(), classes, np.array(boxes, np.int64).reshape(-1, 5))


def _hides_too_much(owner: NDArray[np.int64], opaque: NDArray[np.bool_], count: int) -> bool:
    """Return whether a drawing is empty, or would hide most of what an earlier one shows now."""
    visible = [(owner == place).sum() for place in range(1, count + 1)]
    left = [((owner == place) & ~opaque).sum() for place in range(1, count + 1)]
    return not opaque.any() or any(after < LEAST_VISIBLE * before for before, after in zip(visible, left, strict=True))


def _box(visible: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def texture(random: np.random.RandomState) -> NDArray[np.uint8]:
    """Return a random texture, RGB [H, W, 3]: clouds, stripes or a chequerboard, with some noise.

    >>> texture(np.random.RandomState(0)).shape
    (64, 64, 3)
    """
    y, x = np.mgrid[:SIDE, :SIDE]
    first, second = random.uniform(0, 255, (2, 3))
    kind, angle, period = random.randint(3), random.uniform(0, np.pi), random.uniform(4, 24)
    across, along = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    if kind == 0:
        coarse = random.uniform(0, 255, (random.randint(2, 9),) * 2).astype(np.uint8)
        mix = np.asarray(Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) / 255
    elif kind == 1:
        mix = (1 + np.sin(2 * np.pi * across / period)) / 2
    else:
        mix = ((across // period + along // period) % 2).astype(float)
    colours = first + mix[..., None] * (second - first)
    return np.clip(colours + random.normal(0, random.uniform(0, 12), (SIDE, SIDE, 1)), 0, 255).astype(np.uint8)
