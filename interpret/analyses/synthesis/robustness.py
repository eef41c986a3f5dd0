"""Transformation robustness: each step moves the image a little, so that no single pixel decides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from interpret.support.errors import InterpretError

FADING = 0.3
"""The share of the steps, at the end, in which movements become smaller."""
LARGEST_JITTER = 16
SMALLEST_TURNED = 12
"""Smaller images are not turned, which would blur them."""
SMALL = 24
"""Images below this side are turned and scaled less. Without it, they are full of checks."""
LARGE = 96
"""Images of at least this side are shifted by a smaller share of it."""
LEFT = 0.5
"""The share of the movements that is left in the end, so that no fine pattern comes up in the last steps."""
SMALL_LEFT = 0.25
"""The same for small images, which are not shifted in the end: they would keep more of the activation when shifted
(0.98 instead of 0.76 in `features.4.expand3x3` of SqueezeNet), but show a known detector less exactly
(a correlation of 0.7 instead of 0.95 with a ring)."""


@dataclass(frozen=True)
class Robustness:
    """By how much an image is moved at random in each step, before the network sees it.

    >>> Robustness.for_size(15)
    Robustness(jitter=1, scale=0.15, rotation=8.0, padding=2, left=0.25)
    >>> Robustness.for_size(224)
    Robustness(jitter=14, scale=0.25, rotation=12.0, padding=16, left=0.5)

    Source: Mordvintsev, Olah & Tyka, "Inceptionism", 2015 (jitter); Olah et al. 2017.
    """

    jitter: int = 0
    """Most pixels by which it is shifted, in each direction."""
    scale: float = 0.0
    """Most by which it is enlarged or shrunk, as a share: 0.1 is from 1/1.1 to 1.1."""
    rotation: float = 0.0
    """Most degrees by which it is turned, either way."""
    padding: int = 0
    """Pixels around the image that are optimised, too, and may move into it."""
    left: float = 0.0
    """The share of the movements that is left in the last steps; none makes the image sharp."""

    def __post_init__(self) -> None:
        numbers = asdict(self)
        for name, number in numbers.items():
            if not math.isfinite(number) or number < 0:
                raise InterpretError(f"robustness {name} must be at least 0, not {number}")
        if self.padding < self.jitter:
            raise InterpretError(
                f"robustness padding must be at least jitter, which moves it into the image: {self.padding} is below "
                f"{self.jitter}"
            )

    @classmethod
    def for_size(cls, side: int) -> Robustness:
        """Return what suits images of a shorter side in pixels."""
        if side < SMALLEST_TURNED:
            return cls()
        if side < SMALL:
            return cls(jitter=side // 12, scale=0.15, rotation=8.0, padding=side // 12 + 1, left=SMALL_LEFT)
        jitter = min(LARGEST_JITTER, side // (12 if side < LARGE else 16))
        return cls(jitter, scale=0.25, rotation=12.0, padding=jitter + max(1, side // 96), left=LEFT)

    @classmethod
    def for_components(cls, side: int) -> Robustness:
        """Return what suits sums of natural images' components, which hold no fine patterns: turned half as much."""
        plain = cls.for_size(side)
        return replace(plain, scale=plain.scale / 2, rotation=plain.rotation / 2, left=plain.left / 2)

    @property
    def settings(self) -> dict[str, Any]:
        """The numbers, by name."""
        return asdict(self)

    def strength(self, progress: float) -> float:
        """Return how strong movements are after this share of the steps: less towards the end, for a sharp image."""
        return max(min(self.left, 1.0), min(1.0, (1 - progress) / FADING))

    def move(self, canvases: Tensor, generators: Sequence[torch.Generator], strength: float = 1.0) -> Tensor:
        """Return each canvas [n, C, h + 2p, w + 2p] as the image [h, w] that the network sees in this step.

        Each image has its own random generator, so that what is in a batch does not matter. All movements are
        multiplied by `strength`.
        """
        height, width = (side - 2 * self.padding for side in canvases.shape[-2:])
        shifts = [_shift(int(self.jitter * strength + 0.5), generator) for generator in generators]
        if not self.scale and not self.rotation:
            corners = [(self.padding + y, self.padding + x) for y, x in shifts]
            return torch.stack(
                [one[:, y : y + height, x : x + width] for one, (y, x) in zip(canvases, corners, strict=True)]
            )
        turns = [self._turn(generator, strength) for generator in generators]
        matrices = torch.tensor(
            [
                _affine(shift, turn, (height, width), canvases.shape[-2:])
                for shift, turn in zip(shifts, turns, strict=True)
            ],
            dtype=canvases.dtype,
            device=canvases.device,
        )
        grid = F.affine_grid(matrices, [len(canvases), canvases.shape[1], height, width], align_corners=False)
        return F.grid_sample(canvases, grid, mode="bilinear", padding_mode="reflection", align_corners=False)

    def _turn(self, generator: torch.Generator, strength: float) -> tuple[float, float]:
        """Return a random factor and angle."""
        first, second = (strength * (2 * torch.rand(2, generator=generator) - 1)).tolist()
        return (1 + self.scale) ** first, math.radians(self.rotation * second)


def centre(canvases: Tensor, padding: int) -> Tensor:
    """Return the images in the middle of canvases."""
    height, width = canvases.shape[-2:]
    return canvases[..., padding : height - padding, padding : width - padding]


def _shift(most: int, generator: torch.Generator) -> tuple[int, int]:
    y, x = torch.randint(-most, most + 1, (2,), generator=generator).tolist()
    return y, x


def _affine(
    shift: tuple[int, int], turn: tuple[float, float], size: tuple[int, int], whole: Sequence[int]
) -> list[list[float]]:
    """Return the map from the image's coordinates to the canvas's, both from −1 to 1."""
    factor, angle = turn
    (height, width), (tall, wide) = size, whole
    cos, sin = math.cos(angle) / factor, math.sin(angle) / factor
    return [
        [cos * width / wide, -sin * height / wide, 2 * shift[1] / wide],
        [sin * width / tall, cos * height / tall, 2 * shift[0] / tall],
    ]
