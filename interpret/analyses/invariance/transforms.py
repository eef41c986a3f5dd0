"""Image transforms for the invariance probe: translation, scale, rotation, light, blur, noise and viewpoint."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from interpret.network.preprocess import Preprocess
from interpret.support.errors import InterpretError, unknown

Direction = Literal["vertical", "horizontal", "diagonal"]
Fill = Literal["context", "reflect", "edge", "mean", "black"]
Size = tuple[int, int]
Box = tuple[int, int, int, int]

FILLS = ("context", "reflect", "edge", "mean", "black")
DIRECTIONS: dict[str, tuple[int, int]] = {"vertical": (1, 0), "horizontal": (0, 1), "diagonal": (1, 1)}
"""Pixels down and to the right per pixel of translation."""
MOST_PIXELS = 2**24
"""The largest number of pixels that a transform may read for one image."""
STEEPEST_VIEWPOINT = 60
"""Limit of the viewpoint angle in degrees; beyond it, the transform would read almost the whole plane."""
INTERPOLATION = (
    "translation by whole pixels copies them; everything else that moves pixels interpolates bilinearly, "
    "and where it shrinks, each pixel is the mean of as many samples as keep them at most one pixel apart"
)


@dataclass(frozen=True)
class Levels:
    """A network's inputs for black and white pixels, used by photometric transforms."""

    black: Tensor
    """[C, 1, 1]"""
    white: Tensor | None
    """[C, 1, 1]; None if the model does not define white; then nothing is clipped."""

    @classmethod
    def of(cls, preprocess: Preprocess | None, channels: int) -> Levels:
        """Return the levels of a preprocessing; without one, black is 0 and the full range is 1.

        >>> Levels.of(Preprocess((8, 8), channels="L", mean=(0.5,), std=(0.5,)), 1).black.flatten()
        tensor([-1.])
        """
        if preprocess is None or preprocess.bands or preprocess.count != channels:
            return cls(torch.zeros(channels, 1, 1), None)
        both = preprocess.encode(np.array([[0, 255]], np.uint8))
        return cls(both[:, :, :1], both[:, :, 1:])

    def to(self, like: Tensor) -> Levels:
        white = None if self.white is None else self.white.to(like)
        return Levels(self.black.to(like), white)

    @property
    def span(self) -> Tensor:
        """[C, 1, 1] white minus black."""
        return torch.ones_like(self.black) if self.white is None else self.white - self.black

    def clip(self, images: Tensor) -> Tensor:
        return images if self.white is None else torch.minimum(torch.maximum(images, self.black), self.white)


@dataclass
class Scene:
    """Inputs of a network with their surroundings, for transforms."""

    canvas: Tensor
    """[n, C + 1, h, w]; the last channel is 1 for pixels of the source and 0 for fill."""
    corner: tuple[int, int]
    """Row and column of the inputs' top left pixel in the canvas."""
    size: Size
    levels: Levels
    items: tuple[int, ...] = ()
    """Items of the data; each item's noise is drawn from the seed and its index."""
    seed: int = 0

    def window(self, down: int = 0, right: int = 0, margin: int = 0) -> Tensor:
        """Return the inputs' window of the canvas [n, C + 1, H, W], shifted by whole pixels, plus a margin."""
        top, left = self.corner[0] + down - margin, self.corner[1] + right - margin
        height, width = self.size[0] + 2 * margin, self.size[1] + 2 * margin
        return self.canvas[:, :, top : top + height, left : left + width]

    @cached_property
    def noise(self) -> Tensor:
        """Standard normal noise [n, C, H, W], one pattern per image, independent of the batch."""
        shape = (self.canvas.shape[1] - 1, *self.size)
        drawn = [np.random.default_rng([self.seed, item]).standard_normal(shape, np.float32) for item in self.items]
        return torch.from_numpy(np.stack(drawn)).to(self.canvas)


def surround(part: Tensor, corner: tuple[int, int], box: Box, fill: Fill, black: Tensor) -> Tensor:
    """Return the pixels in `box`, [C + 1, bottom − top, right − left], filled where `part` does not reach.

    >>> row = torch.tensor([[[1.0, 2.0, 3.0]]])
    >>> for fill in ("reflect", "edge", "mean", "black"):
    ...     print(surround(row, (0, 0), (0, -2, 1, 4), fill, torch.zeros(1, 1, 1))[0].tolist())
    [[3.0, 2.0, 1.0, 2.0, 3.0, 2.0]]
    [[1.0, 1.0, 1.0, 2.0, 3.0, 3.0]]
    [[2.0, 2.0, 1.0, 2.0, 3.0, 2.0]]
    [[0.0, 0.0, 1.0, 2.0, 3.0, 0.0]]

    Args:
        part: [C, h, w] the available pixels.
        corner: row and column of the top left pixel of `part`.
        box: (top, left, bottom, right) of the pixels to return.
        fill: how to fill the rest. "context" reflects, like "reflect"; pass the whole source as `part` for it.
        black: [C, 1, 1] the input for a black pixel.

    Returns:
        The channels, and a last channel that is 1 for pixels of `part` and 0 for fill.
    """
    (top, left, bottom, right), (height, width) = box, part.shape[1:]
    rows, columns = torch.arange(top, bottom) - corner[0], torch.arange(left, right) - corner[1]
    there = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
    place = _reflected if fill in ("context", "reflect") else _clamped
    filled = part[:, place(rows, height)][:, :, place(columns, width)]
    if fill in ("mean", "black"):
        colour = part.mean((1, 2), keepdim=True) if fill == "mean" else black.to(part)
        filled = torch.where(there, filled, colour)
    return torch.cat([filled, there.to(part)[None]])


def _clamped(places: Tensor, length: int) -> Tensor:
    return places.clamp(0, length - 1)


def _reflected(places: Tensor, length: int) -> Tensor:
    """Reflect places at the first and last one, without repeating these, as often as needed."""
    around = places.remainder(max(2 * length - 2, 1))
    return torch.minimum(around, 2 * length - 2 - around) if length > 1 else torch.zeros_like(places)


class Transform(ABC):
    """A transform of inputs with one parameter, the value; at the value `identity` it changes nothing."""

    name: str
    """The name for `interpret.probe`."""
    axis: str
    """Name and unit of the values, for the axis of a figure."""
    identity: float
    low: float = -math.inf
    high: float = math.inf
    """The range of the values is `low` to `high`."""
    open: bool = False
    """Whether the range excludes `low` and `high`."""

    @abstractmethod
    def defaults(self, size: Size) -> NDArray[np.float64]:
        """Return the default values to probe."""

    @abstractmethod
    def reach(self, values: Iterable[float], size: Size) -> Box:
        """Return the region that the transform reads: (top, left, bottom, right) in pixels of the input."""

    @abstractmethod
    def apply(self, scene: Scene, value: float) -> Tensor:
        """Return transformed inputs [n, C + 1, H, W] for a value other than the identity."""

    def __call__(self, scene: Scene, value: float) -> Tensor:
        """Return inputs [n, C + 1, H, W] transformed by a value; the last channel is the share that is not fill."""
        return scene.window() if self.is_identity(value) else self.apply(scene, value)

    def is_identity(self, value: float) -> bool:
        return value == self.identity

    def checked(self, values: Iterable[float]) -> NDArray[np.float64]:
        """Return values as an array; refuse values out of range."""
        try:
            given = np.array([float(value) for value in values])
        except (TypeError, ValueError):
            raise InterpretError(f"values must be numbers, not {values!r}") from None
        if not len(given):
            raise InterpretError("values is empty: give at least one, or leave it out for the usual ones")
        for value in given.tolist():
            if not math.isfinite(value):
                raise InterpretError(f"values of {self.name} must be finite, not {value}")
            if not (self.low < value < self.high if self.open else self.low <= value <= self.high):
                raise InterpretError(f"values of {self.name} must be {self._range()}, not {value:g}")
        return given

    def _range(self) -> str:
        if math.isinf(self.high):
            return f"above {self.low:g}" if self.open else f"at least {self.low:g}"
        return f"{'between' if self.open else 'from'} {self.low:g} {'and' if self.open else 'to'} {self.high:g}"


class Warp(Transform):
    """A geometric transform: each pixel of the result is sampled at another place of the input."""

    @abstractmethod
    def matrix(self, value: float, size: Size) -> NDArray[np.float64]:
        """Return the homography [3, 3] from a place (x, y, 1) in the result to the place to sample.

        Coordinates are in pixels from the centre of the input.
        """

    def sources(
        self, value: float, rows: NDArray[np.float64], columns: NDArray[np.float64], size: Size
    ) -> NDArray[np.float64]:
        """Return the places to sample for the pixels at rows × columns of the result: [rows, columns, 2], (x, y).

        Coordinates are in pixels of the input, whose top left pixel is (0, 0).
        """
        return _projected(self._in_pixels(value, size), rows, columns)

    def _in_pixels(self, value: float, size: Size) -> NDArray[np.float64]:
        """Return the homography of `matrix` in pixels of the input, whose top left pixel is (0, 0)."""
        return _shifted(size, 1) @ self.matrix(value, size) @ _shifted(size, -1)

    def reach(self, values: Iterable[float], size: Size) -> Box:
        # a homography maps straight edges to straight edges: the corners reach furthest
        rows, columns = (np.array([-0.5, length - 0.5]) for length in size)
        with np.errstate(all="ignore"):
            found = np.concatenate([self.sources(value, rows, columns, size).reshape(-1, 2) for value in values])
        corners = np.clip(np.nan_to_num(found, nan=2**31), -(2**31), 2**31)
        left, top = np.minimum(np.floor(corners.min(0)), 0).astype(int).tolist()
        right, bottom = np.maximum(np.ceil(corners.max(0)) + 1, size[::-1]).astype(int).tolist()
        return top, left, bottom, right

    def apply(self, scene: Scene, value: float) -> Tensor:
        times = self._samples(value, scene.size)
        rows, columns = ((np.arange(length * times) + 0.5) / times - 0.5 for length in scene.size)
        # coordinates of grid_sample: -1 is the first pixel of the canvas and 1 the last
        scales = 2 / np.maximum(np.array(scene.canvas.shape[:1:-1]) - 1, 1)
        offsets = scales * scene.corner[::-1] - 1
        counted = np.array([[scales[0], 0, offsets[0]], [0, scales[1], offsets[1]], [0, 0, 1]])
        kind = np.float64 if scene.canvas.dtype == torch.float64 else np.float32
        places = _projected(counted @ self._in_pixels(value, scene.size), rows, columns, kind)
        grid = torch.from_numpy(places).to(scene.canvas).expand(len(scene.canvas), -1, -1, -1)
        sampled = F.grid_sample(scene.canvas, grid, "bilinear", "border", align_corners=True)
        return F.avg_pool2d(sampled, times) if times > 1 else sampled

    def _samples(self, value: float, size: Size) -> int:
        """Return the number of samples per pixel and axis so that samples are at most one pixel apart."""
        # the longest step of a homography is at a corner
        rows, columns = (np.array([0.0, 1.0, length - 2, length - 1]) for length in size)
        places = self.sources(value, rows, columns, size)
        steps = [np.linalg.norm(np.diff(places, axis=axis), axis=2) for axis in (0, 1)]
        return max(1, math.ceil(max(steps[0][[0, 2]].max(), steps[1][:, [0, 2]].max()) - 1e-6))


def _shifted(size: Size, sign: int) -> NDArray[np.float64]:
    """Return the homography from coordinates relative to an input's centre to its pixels (sign 1), or back (−1)."""
    return np.array([[1, 0, sign * (size[1] - 1) / 2], [0, 1, sign * (size[0] - 1) / 2], [0, 0, 1]])


def _projected(
    matrix: NDArray[np.float64], rows: NDArray[np.float64], columns: NDArray[np.float64], dtype: Any = np.float64
) -> NDArray[Any]:
    """Map the places at rows × columns by a homography: [rows, columns, 2], (x, y)."""
    across, down = matrix[:, :1] * columns, matrix[:, 1:2] * rows + matrix[:, 2:]
    places = np.empty((len(rows), len(columns), 2), dtype)
    if np.all(matrix[2] == [0, 0, 1]):  # an affine map needs no division
        for axis in (0, 1):
            np.add(down[axis, :, None], across[axis], out=places[:, :, axis], casting="same_kind")
        return places
    depth = down[2, :, None] + across[2]
    for axis in (0, 1):
        np.divide(down[axis, :, None] + across[axis], depth, out=places[:, :, axis], casting="same_kind")
    return places


class Translation(Warp):
    """Translate down, right, or both, by pixels.

    >>> column = surround(torch.tensor([[[1.0], [2.0], [3.0]]]), (-1, 0), (-1, 0, 2, 1), "edge", torch.zeros(1))
    >>> scene = Scene(column[None], corner=(1, 0), size=(1, 1), levels=Levels.of(None, 1))
    >>> Translation()(scene, 1)[0, 0], Translation()(scene, -0.5)[0, 0]
    (tensor([[1.]]), tensor([[2.5000]]))

    Values above 0 move the content down or to the right; "diagonal" does both, each by that number of pixels.
    """

    name = "translation"
    identity = 0.0

    def __init__(self, direction: Direction = "vertical") -> None:
        if direction not in DIRECTIONS:
            raise unknown("direction", direction, DIRECTIONS)
        self.direction = direction
        self.axis = f"{direction} translation (pixels)"
        self.step = DIRECTIONS[direction]

    def defaults(self, size: Size) -> NDArray[np.float64]:
        # the paper translates images of 224 pixels by up to 60
        most = min(60, max(1, round(min(side for side in size if side > 1 or max(size) == 1) * 60 / 224)))
        step = max(1, most // 30)
        return np.arange(-most, most + 1, step, dtype=float)

    def shift(self, value: float) -> tuple[float, float]:
        """Return the number of pixels that the content moves down and to the right."""
        return self.step[0] * value, self.step[1] * value

    def matrix(self, value: float, size: Size) -> NDArray[np.float64]:
        down, right = self.shift(value)
        return np.array([[1, 0, -right], [0, 1, -down], [0, 0, 1.0]])

    def apply(self, scene: Scene, value: float) -> Tensor:
        down, right = self.shift(value)
        if down % 1 == 0 and right % 1 == 0:
            return scene.window(-int(down), -int(right))
        return super().apply(scene, value)


class Scale(Warp):
    """Scale about the centre by a factor; below 1, shrink."""

    name, axis, identity = "scale", "scale (ratio)", 1.0
    low, open = 0.0, True

    def defaults(self, size: Size) -> NDArray[np.float64]:
        return np.arange(20, 37) / 20

    def matrix(self, value: float, size: Size) -> NDArray[np.float64]:
        return np.diag([1 / value, 1 / value, 1])


class Rotation(Warp):
    """Rotate counter-clockwise about the centre, by degrees."""

    name, axis, identity = "rotation", "rotation (degrees)", 0.0

    def defaults(self, size: Size) -> NDArray[np.float64]:
        return np.arange(0, 360, 10, dtype=float)

    def is_identity(self, value: float) -> bool:
        return value % 360 == 0

    def matrix(self, value: float, size: Size) -> NDArray[np.float64]:
        cosine, sine = math.cos(math.radians(value)), math.sin(math.radians(value))
        # to rotate the content counter-clockwise, sample clockwise; y points down
        return np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])


class Viewpoint(Warp):
    """View the picture obliquely, as if it hung on a wall, by degrees: a homography.

    The picture rotates about its vertical centre line; for values above 0, its right side recedes. The camera is as far
    away as the longer side is long (a field of view of 53 degrees); at 0 degrees, the picture is unchanged.
    """

    name, axis, identity = "viewpoint", "viewpoint (degrees)", 0.0
    low, high, open = -STEEPEST_VIEWPOINT, STEEPEST_VIEWPOINT, True

    def defaults(self, size: Size) -> NDArray[np.float64]:
        return np.arange(-45, 46, 5, dtype=float)

    def matrix(self, value: float, size: Size) -> NDArray[np.float64]:
        away, cosine, sine = max(size), math.cos(math.radians(value)), math.sin(math.radians(value))
        seen = np.array([[cosine, 0, 0], [0, 1, 0], [sine / away, 0, 1]])  # from (x, y) on the wall to the view
        return np.linalg.inv(seen)


class Photometric(Transform):
    """A transform that changes the values of pixels and does not move them."""

    low = 0.0

    def reach(self, values: Iterable[float], size: Size) -> Box:
        return (0, 0, *size)

    def apply(self, scene: Scene, value: float) -> Tensor:
        window = scene.window()
        changed = scene.levels.clip(self.change(window[:, :-1], scene, value))
        return torch.cat([changed, window[:, -1:]], 1)

    @abstractmethod
    def change(self, images: Tensor, scene: Scene, value: float) -> Tensor:
        """Return transformed inputs [n, C, H, W], before clipping to black and white."""


class Illumination(Photometric):
    """Multiply all pixel values by a factor, and clip at white."""

    name, axis, identity = "illumination", "illumination (ratio)", 1.0

    def defaults(self, size: Size) -> NDArray[np.float64]:
        return np.arange(2, 21) / 10

    def change(self, images: Tensor, scene: Scene, value: float) -> Tensor:
        return scene.levels.black + value * (images - scene.levels.black)


class Contrast(Photometric):
    """Multiply each pixel's difference from the image's mean grey by a factor, and clip at black and white."""

    name, axis, identity = "contrast", "contrast (ratio)", 1.0

    def defaults(self, size: Size) -> NDArray[np.float64]:
        return np.arange(21) / 10

    def change(self, images: Tensor, scene: Scene, value: float) -> Tensor:
        black, span = scene.levels.black, scene.levels.span
        pixels = (images - black) / span
        grey = pixels.mean((1, 2, 3), keepdim=True)
        return black + span * (grey + value * (pixels - grey))


class Noise(Photometric):
    """Add Gaussian noise to each value, and clip at black and white.

    The standard deviation is given as a fraction of the range from black to white. Each image has one noise pattern,
    drawn from the seed and the image's index and scaled by the value.
    """

    name, axis, identity = "noise", "noise (deviation / full range)", 0.0

    def defaults(self, size: Size) -> NDArray[np.float64]:
        return np.arange(16) / 50

    def change(self, images: Tensor, scene: Scene, value: float) -> Tensor:
        return images + value * scene.levels.span * scene.noise


class Blur(Transform):
    """Blur with a Gaussian whose standard deviation is in pixels, truncated at three standard deviations."""

    name, axis, identity = "blur", "blur (deviation in pixels)", 0.0
    low = 0.0

    def defaults(self, size: Size) -> NDArray[np.float64]:
        return np.arange(17) / 4 * min(1, min(size) / 112)

    def reach(self, values: Iterable[float], size: Size) -> Box:
        margin = max(self._radius(value) for value in values)
        return -margin, -margin, size[0] + margin, size[1] + margin

    def apply(self, scene: Scene, value: float) -> Tensor:
        radius = self._radius(value)
        # torchvision reflects at the border of its input: pass a margin of real pixels, and cut it off afterwards
        blurred = TF.gaussian_blur(scene.window(margin=radius), [2 * radius + 1] * 2, [value] * 2)
        return blurred[:, :, radius:-radius, radius:-radius]

    @staticmethod
    def _radius(value: float) -> int:
        return math.ceil(3 * value)


TRANSFORMS: dict[str, type[Transform]] = {
    made.name: made for made in (Translation, Scale, Rotation, Illumination, Contrast, Blur, Noise, Viewpoint)
}


def named_transform(transform: str | Transform, direction: Direction | None = None) -> Transform:
    """Return a transform by name.

    >>> named_transform("translation", "diagonal").axis
    'diagonal translation (pixels)'

    Raises:
        InterpretError: an unknown name or direction; a direction for another transform than translation.
    """
    if direction is not None and transform != Translation.name:
        raise InterpretError(f"direction={direction!r} applies to translation only, not to {transform!r}: leave it out")
    if isinstance(transform, Transform):
        return transform
    if transform not in TRANSFORMS:
        raise unknown("transform", transform, TRANSFORMS)
    return Translation(direction or "vertical") if transform == Translation.name else TRANSFORMS[transform]()


def checked_reach(transform: Transform, values: Iterable[float], size: Size) -> Box:
    """Return the region that a transform reads; refuse one that is too large for memory."""
    values = list(values)
    box = transform.reach(values, size)
    height, width = box[2] - box[0], box[3] - box[1]
    if height * width > max(MOST_PIXELS, 4 * size[0] * size[1]):
        furthest = max(values, key=lambda value: _area(transform.reach([value], size)))
        raise InterpretError(
            f"{transform.name} by {furthest:g} reads {height} × {width} pixels around each image: "
            f"choose values nearer to {transform.identity:g}"
        )
    return box


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])
