"""Preprocessing: from a picture to a network's input, and back to a picture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from interpret.network.pixel_scale import PixelScale
from interpret.network.torch_transforms import read_transforms
from interpret.support.errors import InterpretError, unknown
from interpret.support.wording import bands_in_words

Channels = Literal["RGB", "BGR", "L"]
Rule = Literal["crop", "squash", "pad"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]


class Cut(NamedTuple):
    """A resized picture's size, and the position of the input's top left corner in it (negative: padding)."""

    height: int
    width: int
    top: int
    left: int

    @property
    def fits_in_memory(self) -> bool:
        """Whether the whole picture may be resized at once, and not only the part that is cut."""
        return self.height * self.width <= 2**24


@dataclass(frozen=True)
class Preprocess:
    """Turn a picture into a network's input: resize, crop, order the channels, scale, normalise.

    >>> preprocess = Preprocess((224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), resize=256)
    >>> preprocess(Image.new("RGB", (640, 480), "white")).shape
    torch.Size([3, 224, 224])
    >>> preprocess.display(preprocess(Image.new("RGB", (640, 480), "white"))).unique()
    tensor([1.])

    The value of a channel is `(pixel / 255 · range − mean) / std`. Pillow resizes, with antialiasing when it shrinks;
    the result is bit-identical to that of torchvision's transforms.

    Raises:
        InterpretError: a field is out of range; `mean` or `std` does not have one value per channel.
    """

    size: tuple[int, int]
    """Height and width of the input, in pixels."""
    channels: Channels = "RGB"
    """Order of the channels; "L" is a single grey channel."""
    range: float = 1.0
    """Value of white before `mean` and `std` are applied, usually 1 or 255."""
    mean: tuple[float, ...] = ()
    """Mean per channel, in the order of `channels` and on the scale of `range`; empty: zeros."""
    std: tuple[float, ...] = ()
    """Standard deviation per channel, in the same order and scale; empty: ones."""
    resize: int | None = None
    """Short side before the central crop, in pixels, with the rule "crop" only; None: as small as `size` allows."""
    rule: Rule = "crop"
    """For another aspect ratio: crop the long side, squash it, or pad the short side with the mean colour."""
    interpolation: Interpolation = "bilinear"
    bands: tuple[int, int, int] | None = None
    """Of inputs with more channels than a picture (multispectral images), those that are shown as red, green and blue,
    counted from 0. `mean` and `std` then have one value for each channel, and inputs are tensors. Without it, the first
    three of such channels are shown."""

    def __post_init__(self) -> None:
        for name, choices in (("channels", Channels), ("rule", Rule), ("interpolation", Interpolation)):
            if getattr(self, name) not in get_args(choices):
                raise unknown(f"Preprocess {name}", getattr(self, name), get_args(choices))
        count = len(self.channels) if self.bands is None else len(self.mean)
        self._check_bands(count)
        try:
            height, width = (int(side) for side in self.size)
            mean = tuple(float(value) for value in self.mean) or (0.0,) * count
            std = tuple(float(value) for value in self.std) or (1.0,) * count
        except (TypeError, ValueError):
            raise InterpretError(
                f"Preprocess needs size=(height, width) and numbers for mean and std, "
                f"not size={self.size!r}, mean={self.mean!r}, std={self.std!r}"
            ) from None
        if min(height, width) < 1:
            raise InterpretError(f"Preprocess size must be at least 1×1, not {height}×{width}")
        if not len(mean) == len(std) == count:
            raise InterpretError(
                f"Preprocess needs {count} means and deviations for channels={self.channels!r}, "
                f"not {len(mean)} and {len(std)}"
            )
        if min(std) <= 0 or self.range <= 0:
            raise InterpretError(f"Preprocess std and range must be above 0, not {std} and {self.range}")
        if self.resize is not None and (self.resize < 1 or self.rule != "crop"):
            raise InterpretError(
                f"Preprocess resize={self.resize!r} must be a short side in pixels, with rule='crop' only"
            )
        object.__setattr__(self, "size", (height, width))
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "std", std)

    def _check_bands(self, count: int) -> None:
        if self.bands is None:
            return
        if count < 4:
            raise InterpretError(
                f"Preprocess bands={self.bands!r} need one mean and deviation for each of at least four channels, such "
                f"as mean=(0,) * 13, not {self.mean!r}"
            )
        bands = tuple(self.bands)
        if len(bands) != 3 or not all(isinstance(band, int) and 0 <= band < count for band in bands):
            raise InterpretError(f"Preprocess bands must be three channels from 0 to {count - 1}, not {self.bands!r}")
        object.__setattr__(self, "bands", bands)

    @property
    def count(self) -> int:
        """The number of channels of an input."""
        return len(self.channels) if self.bands is None else len(self.mean)

    @property
    def colours(self) -> str:
        """The order of the channels: "RGB", "BGR" or "L", or the bands that are shown, such as "3,2,1"."""
        return self.channels if self.bands is None else ",".join(map(str, self.bands))

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of one input."""
        return (self.count, *self.size)

    def __call__(self, picture: Image.Image) -> Tensor:
        """Return the input for a Pillow image of any mode, float32 [C, H, W]: its centre, according to `rule`.

        >>> Preprocess((2, 2), channels="L")(Image.new("L", (9, 3), 255))
        tensor([[[1., 1.],
                 [1., 1.]]])
        """
        picture = upright(picture)
        return self.encode(self.cut(picture, self.central(picture.height, picture.width)))

    def central(self, height: int, width: int) -> Cut:
        """Return how a picture of this height and width is resized, and where the central input lies in it.

        >>> Preprocess((224, 224), resize=256).central(480, 640)
        Cut(height=256, width=341, top=16, left=58)
        >>> Preprocess((100, 100), rule="pad").central(50, 100)
        Cut(height=50, width=100, top=-25, left=0)
        """
        if self.rule == "squash":
            resized = self.size
        elif self.rule == "pad":
            scale = min(self.size[0] / height, self.size[1] / width)
            resized = (max(1, round(height * scale)), max(1, round(width * scale)))
        else:
            resized = self.resized(height, width, self.resize or 1)
        # Python's rounding, as in torchvision's central crop
        top, left = (round((have - want) / 2.0) for have, want in zip(resized, self.size, strict=True))
        return Cut(*resized, top, left)

    def resized(self, height: int, width: int, short_side: int) -> tuple[int, int]:
        """Return a picture's height and width at this short side, larger where the input needs it.

        >>> Preprocess((224, 224)).resized(480, 640, 256)
        (256, 341)
        >>> Preprocess((224, 224)).resized(480, 640, 10)
        (224, 298)
        """
        short = max(short_side, math.ceil(min(height, width) * max(self.size[0] / height, self.size[1] / width)))
        # the long side is rounded down to whole pixels, as in torchvision
        if height <= width:
            return short, max(int(short * width / height), self.size[1])
        return max(int(short * height / width), self.size[0]), short

    def cut(
        self, picture: Image.Image, cut: Cut, box: tuple[float, float, float, float] | None = None
    ) -> NDArray[np.uint8]:
        """Return the pixels of one input, uint8 [H, W, 3]: an RGB picture, resized and cut as `cut` says.

        >>> preprocess = Preprocess((2, 2))
        >>> preprocess.cut(Image.new("RGB", (4, 4)), Cut(height=4, width=4, top=2, left=2)).shape
        (2, 2, 3)

        Args:
            picture: the picture.
            cut: its size when it is resized, and the place of the input in it.
            box: (left, top, right, bottom) of the part of `picture` that is the whole picture; None: all.
        """
        if cut.fits_in_memory:
            return self.crop(self.resize_picture(picture, cut.height, cut.width, box), cut.top, cut.left)
        # A long strip may not fit in memory when enlarged. Pillow rounds a part's edges to float32, so that a pixel
        # may differ by a level or two from that of the whole picture.
        height, width = self.size
        first, above, last, below = box or (0, 0, picture.width, picture.height)
        scale = ((below - above) / cut.height, (last - first) / cut.width)
        top, left = max(cut.top, 0), max(cut.left, 0)
        bottom, right = min(cut.top + height, cut.height), min(cut.left + width, cut.width)
        part = picture.resize(
            (right - left, bottom - top),
            _RESAMPLING[self.interpolation],
            box=(
                first + left * scale[1],
                above + top * scale[0],
                min(first + right * scale[1], picture.width),
                min(above + bottom * scale[0], picture.height),
            ),
        )
        return self.crop(part, cut.top - top, cut.left - left)

    def resize_picture(
        self, picture: Image.Image, height: int, width: int, box: tuple[float, float, float, float] | None = None
    ) -> Image.Image:
        """Return the whole picture, or this part of it, in this height and width, antialiased where it shrinks."""
        if picture.size == (width, height) and box in (None, (0, 0, width, height)):
            return picture
        return picture.resize((width, height), _RESAMPLING[self.interpolation], box=box)

    def crop(self, picture: Image.Image, top: int, left: int) -> NDArray[np.uint8]:
        """Return the input's window of an RGB picture, uint8 [H, W, 3], with the mean colour outside the picture."""
        height, width = self.size
        if top >= 0 and left >= 0 and top + height <= picture.height and left + width <= picture.width:
            return np.array(picture.crop((left, top, left + width, top + height)))
        canvas = Image.new("RGB", (width, height), self.mean_colour)
        canvas.paste(picture, (-left, -top))
        return np.array(canvas)

    @property
    def mean_colour(self) -> tuple[int, int, int]:
        """The colour, as RGB from 0 to 255, that is nearest to an input of zeros."""
        red, green, blue = (self.display(torch.zeros(self.count, 1, 1)) * 255).round().int().flatten().tolist()
        return red, green, blue

    def encode(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Return pixels that are already cut to size as an input: float32 [C, H, W].

        >>> Preprocess((1, 1), channels="BGR", range=255)
        Preprocess(size=(1, 1), channels='BGR', range=255, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), ...)
        >>> Preprocess((1, 1), channels="BGR", range=255).encode(np.uint8([[[1, 2, 3]]])).flatten()
        tensor([3., 2., 1.])

        Args:
            pixels: uint8, RGB [H, W, 3] or grey [H, W]. Grey is repeated for a network that takes colour;
                colour becomes grey (ITU-R 601 luma) for a network that takes grey.

        Raises:
            InterpretError: pixels of another type or shape.
        """
        if self.bands is not None:
            raise InterpretError(
                f"inputs of {self.count} channels are not made from pictures: give tensors [N, {self.count}, H, W]"
            )
        if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
            raise InterpretError(f"pixels must be uint8 [H, W] or [H, W, 3], not {pixels.dtype} {list(pixels.shape)}")
        if self.channels == "L":
            if pixels.ndim == 3:
                pixels = np.array(Image.fromarray(pixels).convert("L"))
            pixels = pixels[..., None]
        elif pixels.ndim == 2:
            pixels = np.repeat(pixels[..., None], 3, axis=2)
        elif self.channels == "BGR":
            pixels = pixels[..., ::-1]
        # in NumPy: one image is too small for PyTorch's threads, which wait for each other on a busy machine
        values = np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32)
        values /= np.float32(255 / self.range)
        values -= np.array(self.mean, np.float32)[:, None, None]
        values /= np.array(self.std, np.float32)[:, None, None]
        return torch.from_numpy(values)

    def display(self, images: Tensor) -> Tensor:
        """Return inputs as pictures for display: the inverse of `encode`, in RGB from 0 to 1.

        >>> preprocess = Preprocess((1, 1), channels="BGR", range=255, mean=(104, 117, 124))
        >>> preprocess.display(preprocess.encode(np.uint8([[[255, 51, 0]]]))).flatten()
        tensor([1.0000, 0.2000, 0.0000])

        Args:
            images: [..., C, H, W], on any device.

        Returns:
            [..., 3, H, W], clipped to 0 to 1; grey is repeated.

        Raises:
            InterpretError: the images have another number of channels.
        """
        if images.ndim < 3 or images.shape[-3] != self.count:
            raise InterpretError(
                f"images must be [..., {self.count}, H, W] for channels={self.colours!r}, not {list(images.shape)}"
            )
        return self.pixel_scale.display(images)

    @property
    def pixel_scale(self) -> PixelScale:
        """How its inputs are shown as pictures."""
        said = "" if self.bands is None else bands_in_words(self.colours, self.count)
        return PixelScale(self.mean, self.std, self.range, self.colours, said)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON and TOML can hold them; `from_dict` is the inverse.

        >>> preprocess = Preprocess((28, 28), channels="L", mean=(0.1307,), std=(0.3081,))
        >>> Preprocess.from_dict(preprocess.to_dict()) == preprocess
        True
        """
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        # the fingerprints of earlier studies hold no bands
        return {name: value for name, value in values.items() if (name, value) != ("bands", None)}

    @classmethod
    def from_torchvision(
        cls, transforms: Any, size: tuple[int, int] | None = None, channels: Channels | None = None
    ) -> Preprocess:
        """Return the preprocessing that is equal to a transform of torchvision or timm.

        >>> from torchvision.models import ResNet18_Weights
        >>> Preprocess.from_torchvision(ResNet18_Weights.DEFAULT.transforms()).resize
        256

        The transform may be that of weights (`weights.transforms()`), or a `Compose` (version 1 or 2) of Resize,
        CenterCrop, Grayscale, ToTensor (or ToImage and ToDtype) and Normalize. On a picture, the result equals that of
        the transform bit for bit, with two exceptions. If the transform resizes numbers instead of the picture, or
        converts to grey before it resizes, rounding may differ by a level or two of 255. ToDtype multiplies by 1 / 255,
        this divides by 255, which may change the last bit.

        Args:
            transforms: the transform.
            size: (height, width), if the transform does not resize.
            channels: "L" or "RGB", if the transform takes both grey and colour.

        Raises:
            InterpretError: a step is random, or a preprocessing cannot express it; the step is named.
        """
        return cls(**read_transforms(transforms, size, channels))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocess:
        """Return the preprocessing with these fields, from `to_dict` or a recipe's table `[input]`.

        >>> Preprocess.from_dict({"size": [28, 28], "channels": "L"}).input_shape
        (1, 28, 28)

        Raises:
            InterpretError: an unknown field, or no size.
        """
        names = [field.name for field in fields(cls)]
        for name in values:
            if name not in names:
                raise unknown("Preprocess field", name, names)
        if "size" not in values:
            raise InterpretError("Preprocess needs size = [height, width]")
        as_fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        return cls(**as_fields)


_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def upright(picture: Image.Image) -> Image.Image:
    """Return a picture of any kind as RGB, oriented by its EXIF data.

    >>> upright(Image.new("RGBA", (2, 1), (255, 0, 0, 128))).getpixel((0, 0))
    (255, 127, 127)

    Transparent pixels are put on white. Grey of more than 8 bits is scaled so that full white stays full white:
    integers from 0..65535; floating point from 0..1, 0..255 or 0..65535, the first that holds all values; any
    other range from its least to its greatest value. NaN and infinity are black. Of an animation, the current frame is
    used, which is the first one in a freshly opened file.

    Raises:
        OSError, SyntaxError, ValueError: Pillow cannot decode the file.
    """
    picture.load()
    with suppress(Exception):  # a damaged EXIF block does not rotate the picture
        picture = ImageOps.exif_transpose(picture)
    if picture.mode == "F" or picture.mode.startswith("I"):
        return Image.fromarray(_to_8_bit(np.asarray(picture))).convert("RGB")
    if picture.has_transparency_data:
        return _on_white(picture)
    return picture if picture.mode == "RGB" else picture.convert("RGB")


BAND = 2**22
"""Pixels that are converted at once, so that a large picture does not need many times its own memory."""


def _bands(height: int, width: int) -> Iterator[slice]:
    """Yield slices of rows that make up a picture."""
    rows = max(1, BAND // max(width, 1))
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))


def _on_white(picture: Image.Image) -> Image.Image:
    found = Image.new("RGB", picture.size)
    for rows in _bands(picture.height, picture.width):
        band = picture.crop((0, rows.start, picture.width, rows.stop)).convert("RGBA")
        white = Image.new("RGBA", band.size, "white")
        found.paste(Image.alpha_composite(white, band).convert("RGB"), (0, rows.start))
    return found


def _to_8_bit(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale a grey picture of more than 8 bits to 8 bits."""
    bands = [values[rows] for rows in _bands(*values.shape)]
    low, high = min(_finite(band).min() for band in bands), max(_finite(band).max() for band in bands)
    ceilings = (1.0, 255.0, 65535.0) if values.dtype.kind == "f" else (65535.0,)
    low, high = next(((0.0, ceiling) for ceiling in ceilings if low >= 0 and high <= ceiling), (low, high))
    return np.concatenate([np.rint((_finite(band) - low) * (255 / (high - low))).astype(np.uint8) for band in bands])


def _finite(values: NDArray[Any]) -> NDArray[np.float64]:
    return np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
