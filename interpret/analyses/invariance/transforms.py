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
"""Steps down and to the right of one pixel of translation."""
MOST_PIXELS = 2**24
"""The largest number of pixels that a transform may read for one image."""
STEEPEST_VIEWPOINT = 60
"""Degrees from which on a viewpoint would read almost the whole plane."""
INTERPOLATION = (
    "translation by whole pixels copies them; everything else that moves pixels interpolates bilinearly, "
    "and where it shrinks, each pixel is the mean of as many samples as keep them at most one pixel apart"
)


@dataclass(frozen=True)
class Levels:
    """A network's inputs for black and for white pixels, which photometric transforms refer to."""

    black: Tensor
    """[C, 1, 1]"""
    white: Tensor | None
    """[C, 1, 1]; None where the model does not say what white is; then nothing is clipped."""

    @classmethod
    def of(cls, preprocess: Preprocess | None, channels: int) -> Levels:
        """Return the levels of a preprocessing; without one, black is 0 and a step of 1 is the full range.

        >>> Levels.of(Preprocess((8, 8), channels="L", mean=(0.5,), std=(0.5,)), 1).black.flatten()
        tensor([-1.])
        """
        if preprocess is None or len(preprocess.channels) != channels:
            return cls(torch.zeros(channels, 1, 1), None)
        both = preprocess.encode(np.array([[0, 255]], np.uint8))
        return cls(both[:, :, :1], both[:, :, 1:])

    def to(self, like: Tensor) -> Levels:
        white = None if self.white is None else self.white.to(like)
        return Levels(self.black.to(like), white)

    @property
    def span(self) -> Tensor:
        """[C, 1, 1] from black to white."""
        return torch.ones_like(self.black) if self.white is None else self.white - self.black

    def clip(self, images: Tensor) -> Tensor:
        return images if self.white is None else torch.minimum(torch.maximum(images, self.black), self.white)


@dataclass
class Scene:
    """Inputs of a network with what lies around them, as transforms take them."""

    canvas: Tensor
    """[n, C + 1, h, w]; the last channel is 1 where the source is, and 0 where the fill is."""
    corner: tuple[int, int]
    """Row and column of the inputs' top left pixel in the canvas."""
    size: Size
    levels: Levels
    items: tuple[int, ...] = ()
    """Which of the data these are: noise is drawn for each by its number."""
    seed: int = 0

    def window(self, down: int = 0, right: int = 0, margin: int = 0) -> Tensor:
        """Return the inputs' window of the canvas [n, C + 1, H, W], moved by whole pixels, with a margin."""
        top, left = self.corner[0] + down - margin, self.corner[1] + right - margin
        height, width = self.size[0] + 2 * margin, self.size[1] + 2 * margin
        return self.canvas[:, :, top : top + height, left : left + width]

    @cached_property
    def noise(self) -> Tensor:
        """Standard normal noise [n, C, H, W], one pattern an image, the same in whatever batch it comes."""
        shape = (self.canvas.shape[1] - 1, *self.size)
        drawn = [np.random.default_rng([self.seed, item]).standard_normal(shape, np.float32) for item in self.items]
        return torch.from_numpy(np.stack(drawn)).to(self.canvas)


def surround(part: Tensor, corner: tuple[int, int], box: Box, fill: Fill, black: Tensor) -> Tensor:
    """Return what lies in `box`: [C + 1, bottom − top, right − left], with the fill where `part` does not reach.

    >>> row = torch.tensor([[[1.0, 2.0, 3.0]]])
    >>> for fill in ("reflect", "edge", "mean", "black"):
    ...     print(surround(row, (0, 0), (0, -2, 1, 4), fill, torch.zeros(1, 1, 1))[0].tolist())
    [[3.0, 2.0, 1.0, 2.0, 3.0, 2.0]]
    [[1.0, 1.0, 1.0, 2.0, 3.0, 3.0]]
    [[2.0, 2.0, 1.0, 2.0, 3.0, 2.0]]
    [[0.0, 0.0, 1.0, 2.0, 3.0, 0.0]]

    Args:
        part: [C, h, w] what there is.
        corner: row and column of its top left pixel.
        box: (top, left, bottom, right) of what is wanted.
        fill: "context" reflects, too: it is asked for with all of the source as `part`.
        black: [C, 1, 1] the input for a black pixel.

    Returns:
        The channels, and in the last one 1 where `part` is and 0 where it is not.
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
    """Mirror places beyond the first and last one, which are not repeated, as often as it takes."""
    around = places.remainder(max(2 * length - 2, 1))
    return torch.minimum(around, 2 * length - 2 - around) if length > 1 else torch.zeros_like(places)


class Transform(ABC):
    """A way to change inputs by a value, at one of which, the identity, it changes nothing."""

    name: str
    """What `interpret.probe` takes."""
    axis: str
    """Name and unit of the values, as an axis of a figure bears it."""
    identity: float
    low: float = -math.inf
    high: float = math.inf
    """The values lie from `low` to `high`."""
    open: bool = False
    """Whether `low` and `high` themselves are left out."""

    @abstractmethod
    def defaults(self, size: Size) -> NDArray[np.float64]:
        """Return the values that are probed unless others are asked for."""

    @abstractmethod
    def reach(self, values: Iterable[float], size: Size) -> Box:
        """Return the part of the plane that it reads: (top, left, bottom, right) in the input's pixels."""

    @abstractmethod
    def apply(self, scene: Scene, value: float) -> Tensor:
        """Return changed inputs [n, C + 1, H, W] for a value that is not the identity."""

    def __call__(self, scene: Scene, value: float) -> Tensor:
        """Return inputs [n, C + 1, H, W] changed by a value; the last channel is the share that is not fill."""
        return scene.window() if self.is_identity(value) else self.apply(scene, value)

    def is_identity(self, value: float) -> bool:
        return value == self.identity

    def checked(self, values: Iterable[float]) -> NDArray[np.float64]:
        """Return values as an array, if all are such that it can take."""
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
    """A transform that moves pixels: each is looked up elsewhere in the plane."""

    @abstractmethod
    def matrix(self, value: float, size: Size) -> NDArray[np.float64]:
        """Return the homography [3, 3] from a place (x, y, 1) of the result to where it is looked up.

        Places are counted in pixels from the middle of the input.
        """

    def sources(
        self, value: float, rows: NDArray[np.float64], columns: NDArray[np.float64], size: Size
    ) -> NDArray[np.float64]:
        """Return where the pixels at rows × columns of the result are looked up: [rows, columns, 2], (x, y).

        Both in pixels of the input, whose top left one is at (0, 0).
        """
        return _projected(self._in_pixels(value, size), rows, columns)

    def _in_pixels(self, value: float, size: Size) -> NDArray[np.float64]:
        """Return the homography of `matrix` between the input's own pixels."""
        return _shifted(size, 1) @ self.matrix(value, size) @ _shifted(size, -1)

    def reach(self, values: Iterable[float], size: Size) -> Box:
        # a homography takes straight edges to straight edges: the corners reach furthest
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
        # as grid_sample counts: from -1 at the first pixel of the canvas to 1 at the last
        scales = 2 / np.maximum(np.array(scene.canvas.shape[:1:-1]) - 1, 1)
        offsets = scales * scene.corner[::-1] - 1
        counted = np.array([[scales[0], 0, offsets[0]], [0, scales[1], offsets[1]], [0, 0, 1]])
        kind = np.float64 if scene.canvas.dtype == torch.float64 else np.float32
        places = _projected(counted @ self._in_pixels(value, scene.size), rows, columns, kind)
        grid = torch.from_numpy(places).to(scene.canvas).expand(len(scene.canvas), -1, -1, -1)
        sampled = F.grid_sample(scene.canvas, grid, "bilinear", "border", align_corners=True)
        return F.avg_pool2d(sampled, times) if times > 1 else sampled

    def _samples(self, value: float, size: Size) -> int:
        """Return how many samples a side each pixel needs for them to be at most one pixel apart."""
        # of a homography, the longest step is at a corner
        rows, columns = (np.array([0.0, 1.0, length - 2, length - 1]) for length in size)
        places = self.sources(value, rows, columns, size)
        steps = [np.linalg.norm(np.diff(places, axis=axis), axis=2) for axis in (0, 1)]
        return max(1, math.ceil(max(steps[0][[0, 2]].max(), steps[1][:, [0, 2]].max()) - 1e-6))


def _shifted(size: Size, sign: int) -> NDArray[np.float64]:
    """Return the homography from pixels counted from the middle of an input to the input's own, or back."""
    return np.array([[1, 0, sign * (size[1] - 1) / 2], [0, 1, sign * (size[0] - 1) / 2], [0, 0, 1]])


def _projected(
    matrix: NDArray[np.float64], rows: NDArray[np.float64], columns: NDArray[np.float64], dtype: Any = np.float64
) -> NDArray[Any]:
    """Return where a homography takes the places at rows × columns: [rows, columns, 2], (x, y)."""
    across, down = matrix[:, :1] * columns, matrix[:, 1:2] * rows + matrix[:, 2:]
    places = np.empty((len(rows), len(columns), 2), dtype)
    if np.all(matrix[2] == [0, 0, 1]):  # lines stay parallel: no two numbers need more than to be added
        for axis in (0, 1):
            np.add(down[axis, :, None], across[axis], out=places[:, :, axis], casting="same_kind")
        return places
    depth = down[2, :, None] + across[2]
    for axis in (0, 1):
        np.divide(down[axis, :, None] + across[axis], depth, out=places[:, :, axis], casting="same_kind")
    return places


class Translation(Warp):
    """Move down, right, or both, by pixels.

    >>> column = surround(torch.tensor([[[1.0], [2.0], [3.0]]]), (-1, 0), (-1, 0, 2, 1), "edge", torch.zeros(1))
    >>> scene = Scene(column[None], corner=(1, 0), size=(1, 1), levels=Levels.of(None, 1))
    >>> Translation()(scene, 1)[0, 0], Translation()(scene, -0.5)[0, 0]
    (tensor([[1.]]), tensor([[2.5000]]))

    Content moves down and to the right for values above 0; "diagonal" does both, by as many pixels each.
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
        # the paper's 60 pixels are of 224
        most = min(60, max(1, round(min(size) * 60 / 224)))
        step = max(1, most // 30)
        return np.arange(-most, most + 1, step, dtype=float)

    def shift(self, value: float) -> tuple[float, float]:
        """Return by how many pixels content moves down, and to the right."""
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
    """Enlarge about the middle by a factor, or shrink by one below 1."""

    name, axis, identity = "scale", "scale (ratio)", 1.0
    low, open = 0.0, True

    def defaults(self, size: Size) -> NDArray[np.float64]:
        return np.arange(20, 37) / 20

    def matrix(self, value: float, size: Size) -> NDArray[np.float64]:
        return np.diag([1 / value, 1 / value, 1])


class Rotation(Warp):
    """Turn counter-clockwise about the middle, by degrees."""

    name, axis, identity = "rotation", "rotation (degrees)", 0.0

    def defaults(self, size: Size) -> NDArray[np.float64]:
        return np.arange(0, 360, 10, dtype=float)

    def is_identity(self, value: float) -> bool:
        return value % 360 == 0

    def matrix(self, value: float, size: Size) -> NDArray[np.float64]:
        cosine, sine = math.cos(math.radians(value)), math.sin(math.radians(value))
        # y points down: what turns counter-clockwise to the eye is looked up clockwise from where it is
        return np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])


class Viewpoint(Warp):
    """Walk round the picture, as if it hung on a wall, by degrees: a homography.

    The picture turns about its vertical middle line; its right side moves away for values above 0. It is seen from as
    far as its longer side is long (a view of 53 degrees), so that without a turn it is itself.
    """

    name, axis, identity = "viewpoint", "viewpoint (degrees)", 0.0
    low, high, open = -STEEPEST_VIEWPOINT, STEEPEST_VIEWPOINT, True

    def defaults(self, size: Size) -> NDArray[np.float64]:
        return np.arange(-45, 46, 5, dtype=float)

    def matrix(self, value: float, size: Size) -> NDArray[np.float64]:
        away, cosine, sine = max(size), math.cos(math.radians(value)), math.sin(math.radians(value))
        seen = np.array([[cosine, 0, 0], [0, 1, 0], [sine / away, 0, 1]])  # the wall's (x, y) to the picture's
        return np.linalg.inv(seen)


class Photometric(Transform):
    """A transform that changes values and leaves pixels where they are."""

    low = 0.0

    def reach(self, values: Iterable[float], size: Size) -> Box:
        return (0, 0, *size)

    def apply(self, scene: Scene, value: float) -> Tensor:
        window = scene.window()
        changed = scene.levels.clip(self.change(window[:, :-1], scene, value))
        return torch.cat([changed, window[:, -1:]], 1)

    @abstractmethod
    def change(self, images: Tensor, scene: Scene, value: float) -> Tensor:
        """Return changed inputs [n, C, H, W], not yet clipped to black and white."""


class Illumination(Photometric):
    """Multiply all pixels' values with a factor, and clip at white."""

    name, axis, identity = "illumination", "illumination (ratio)", 1.0

    def defaults(self, size: Size) -> NDArray[np.float64]:
        return np.arange(2, 21) / 10

    def change(self, images: Tensor, scene: Scene, value: float) -> Tensor:
        return scene.levels.black + value * (images - scene.levels.black)


class Contrast(Photometric):
    """Multiply each pixel's difference from the image's mean grey with a factor, and clip at black and white."""

    name, axis, identity = "contrast", "contrast (ratio)", 1.0

    def defaults(self, size: Size) -> NDArray[np.float64]:
        return np.arange(21) / 10

    def change(self, images: Tensor, scene: Scene, value: float) -> Tensor:
        black, span = scene.levels.black, scene.levels.span
        pixels = (images - black) / span
        grey = pixels.mean((1, 2, 3), keepdim=True)
        return black + span * (grey + value * (pixels - grey))


class Noise(Photometric):
    """Add normal noise to each value, its deviation a share of the range from black to white, and clip at both.

    An image's noise is one pattern, drawn by the seed and the image's number, and grows with the value.
    """

    name, axis, identity = "noise", "noise (deviation / full range)", 0.0

    def defaults(self, size: Size) -> NDArray[np.float64]:
        return np.arange(16) / 50

    def change(self, images: Tensor, scene: Scene, value: float) -> Tensor:
        return images + value * scene.levels.span * scene.noise


class Blur(Transform):
    """Blur with a Gaussian of a deviation in pixels, cut off at three deviations."""

    name, axis, identity = "blur", "blur (deviation in pixels)", 0.0
    low = 0.0

    def defaults(self, size: Size) -> NDArray[np.float64]:
        return np.arange(17) / 4 * min(1, min(size) / 112)

    def reach(self, values: Iterable[float], size: Size) -> Box:
        margin = max(self._radius(value) for value in values)
        return -margin, -margin, size[0] + margin, size[1] + margin

    def apply(self, scene: Scene, value: float) -> Tensor:
        radius = self._radius(value)
        # torchvision reflects at the border of what it gets; with what lies around in it, that part is cut off
        blurred = TF.gaussian_blur(scene.window(margin=radius), [2 * radius + 1] * 2, [value] * 2)
        return blurred[:, :, radius:-radius, radius:-radius]

    @staticmethod
    def _radius(value: float) -> int:
        return math.ceil(3 * value)


TRANSFORMS: dict[str, type[Transform]] = {
    made.name: made for made in (Translation, Scale, Rotation, Illumination, Contrast, Blur, Noise, Viewpoint)
}


def named_transform(transform: str | Transform, direction: Direction | None = None) -> Transform:
    """Return a transform by its name.

    >>> named_transform("translation", "diagonal").axis
    'diagonal translation (pixels)'

    Raises:
        InterpretError: an unknown name or direction, or a direction for what has none.
    """
    if direction is not None and transform != Translation.name:
        raise InterpretError(f"direction={direction!r} applies to translation only, not to {transform!r}: leave it out")
    if isinstance(transform, Transform):
        return transform
    if transform not in TRANSFORMS:
        raise unknown("transform", transform, TRANSFORMS)
    return Translation(direction or "vertical") if transform == Translation.name else TRANSFORMS[transform]()


def checked_reach(transform: Transform, values: Iterable[float], size: Size) -> Box:
    """Return the part of the plane that a transform reads, if that fits in memory."""
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
