"""Parametrisations: what is optimised, and how it becomes the pixels of an image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from interpret.analyses.synthesis.pixels import per_channel
from interpret.network.pixel_scale import PixelScale
from interpret.support.errors import InterpretError, unknown

Name = Literal["auto", "fourier", "components", "pixels", "maco"]
NAMES: tuple[Name, ...] = ("auto", "fourier", "components", "pixels", "maco")

# the square root of the covariance of ImageNet's red, green and blue, as lucid has it (Olah et al. 2017)
IMAGENET = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))

SPREAD = 0.01
"""The deviation of the first coefficients."""
FOURIER_SCALE = 0.25
"""Scale of a Fourier image, so that a step of Adam is as large as in pixels."""
LARGEST_DECAY = 4
TINY = 12
"""Images below this side show edges and colours alone, and have any contrast."""
LARGE = 96
SMALL_DECAY, LARGE_DECAY = 2.0, 1.8
"""The power of the wavelength for images below this side, and for larger ones: chosen by looking at sheets of
SqueezeNet, EfficientNet-Lite0, emoji_alexnet and LeNet. Lower powers fill images with checks, coloured pixels
and meshes, which JPEG compression, shifts and blur destroy."""
RATE, TINY_RATE = 0.2, 0.05
"""The step of Adam, and that for tiny images. As they have any contrast, larger steps turn pixels that hardly matter
black, white or coloured: in `_blocks.0._project_conv` of EfficientNet-Lite0, bars and spots disappear among them."""
CONTRAST = 1.4
"""The largest contrast of an image about mid-grey: below it, activations become lower, and above it, colours that add
nothing. Chosen by looking at sheets, as the decays."""
NEUTRAL = 0.05, 0.95
"""The darkest and the brightest neutral pixel."""
STRETCH = 1.02
"""The logistic function times this, from its middle, so that pixels reach black and white."""


@dataclass(frozen=True)
class Colours:
    """How coordinates [n, C, h, w] become pixels [n, C, h, w] in 0 … 1: a linear map, and from the neutral pixel on the
    logistic function.

    >>> colours = Colours(torch.tensor([[1.0, 0.5], [1.0, -0.5]]))
    >>> pixels = torch.rand(1, 2, 4, 4)
    >>> bool(torch.allclose(colours.pixels(colours.coordinates(pixels)), pixels, atol=1e-5))
    True
    """

    matrix: Tensor | None = None
    """[C, C] from independent coordinates to channels, in the network's order; None: the channels themselves."""
    neutral: tuple[float, ...] | None = None
    """[C] the pixel in 0 … 1 whose coordinates are zero; None: mid-grey."""

    def channels(self, coordinates: Tensor) -> Tensor:
        """Return how far the channels of coordinates are from neutral, before the logistic function."""
        if self.matrix is None:
            return coordinates
        return torch.einsum("ij,njhw->nihw", self.matrix.to(coordinates), coordinates)

    def pixels(self, coordinates: Tensor, contrast: float | None = None) -> Tensor:
        """Return the pixels of coordinates, with the contrast within a limit."""
        channels = limited(self.channels(coordinates), contrast)
        return stretched(channels + self.middle(channels))

    def coordinates(self, pixels: Tensor) -> Tensor:
        """Return the coordinates of pixels."""
        found = unstretched(pixels)
        found = found - self.middle(found)
        if self.matrix is None:
            return found
        return torch.einsum("ij,njhw->nihw", torch.linalg.inv(self.matrix.double()).to(found), found)

    def middle(self, like: Tensor) -> Tensor:
        """Return the neutral pixel before the logistic function, [C, 1, 1]."""
        return per_channel(_logits(self.neutral or (0.5,)), like.dtype, like.device)


@lru_cache(maxsize=64)
def _logits(pixel: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(unstretched(torch.tensor(pixel, dtype=torch.float64)).tolist())


def stretched(channels: Tensor) -> Tensor:
    """Return pixels in 0 … 1: the logistic function, stretched so that they reach black and white."""
    found = (channels.sigmoid() - 0.5) * STRETCH + 0.5
    # with the gradient of what is not clamped, so that black and white pixels can change again
    return found + (found.clamp(0, 1) - found).detach()


def contrast_of(channels: Tensor) -> Tensor:
    """Return the contrast of images [n, C, h, w] before the logistic function: their root mean square, [n, 1, 1, 1].

    >>> contrast_of(torch.tensor([[[[3.0, -4.0]]]])).item()
    3.535533905029297

    The neutral pixel is zero, so that an even image of another brightness has contrast, too.
    """
    return (channels.square().mean((1, 2, 3), keepdim=True) + 1e-12).sqrt()


def limited(channels: Tensor, contrast: float | None) -> Tensor:
    """Return images [n, C, h, w] before the logistic function, made paler where their contrast is above a limit."""
    return channels if contrast is None else channels * (contrast / contrast_of(channels)).clamp(max=1)


def unstretched(pixels: Tensor) -> Tensor:
    """Return what the stretched logistic function turns into pixels in 0 … 1.

    >>> unstretched(torch.tensor([0.0, 0.5, 1.0])).round().int()
    tensor([-5,  0,  5], dtype=torch.int32)
    """
    return ((pixels - 0.5) / STRETCH + 0.5).logit()


def decorrelating(covariance: Tensor) -> Tensor:
    """Return the matrix [C, C] that gives independent coordinates the correlation of channels.

    >>> found = decorrelating(torch.tensor([[1.0, 0.8], [0.8, 1.0]]))
    >>> correlation = found @ found.T
    >>> round(float(correlation[0, 1] / correlation[0, 0]), 3)
    0.8

    It is a square root of the covariance, scaled so that the longest column has the length 1, as in lucid.
    """
    values, vectors = torch.linalg.eigh(covariance.double())
    if not bool(values.isfinite().all()) or float(values.max()) <= 0:
        raise InterpretError("the images for the colours are all of one colour: give images that differ")
    # a tiny share of the largest, so that channels that are equal can be told apart
    root = vectors * values.clamp(min=1e-4 * float(values.max())).sqrt()
    root = root.flip(1)  # the strongest first
    return (root / root.norm(dim=0).max()).float()


def colours_of(chosen: Any, channels: int, scale: PixelScale, natural: Tensor | None) -> tuple[Colours, str]:
    """Return the chosen colours, and what they are in a word: "imagenet", "data", "given" or "none".

    Args:
        chosen: "imagenet", "data" (the correlation of `natural`), a matrix [C, C], or None; of another number than
            three channels, "imagenet" is none.
        channels: the number of channels.
        scale: how inputs are displayed, with the order of the channels and the neutral pixel.
        natural: [n, C, h, w] pixels in 0 … 1 of natural images.
    """
    neutral = neutral_of(scale, channels)
    if chosen is None:
        return Colours(None, neutral), "none"
    if not isinstance(chosen, str):
        matrix = torch.as_tensor(chosen).float()
        if matrix.shape != (channels, channels) or float(torch.linalg.det(matrix.double())) == 0:
            raise InterpretError(f"colours must be an invertible matrix [{channels}, {channels}], not {chosen!r}")
        return Colours(matrix, neutral), "given"
    if chosen == "imagenet":
        if channels != 3:
            return Colours(None, neutral), "none"
        matrix = torch.tensor(IMAGENET)
        matrix = matrix / matrix.norm(dim=0).max()
        return Colours(matrix.flip(0) if scale.channels == "BGR" else matrix, neutral), "imagenet"
    if chosen != "data":
        raise unknown("colours", chosen, ("imagenet", "data"))
    if natural is None:
        raise InterpretError("colours='data' needs natural=…: give the images whose colours to take")
    if channels == 1:
        return Colours(None, neutral), "none"
    values = unstretched(natural).transpose(0, 1).flatten(1).double()
    return Colours(decorrelating(torch.cov(values)), neutral), "data"


def decay_for(side: int) -> float:
    """Return the power of the wavelength that suits images of a shorter side in pixels.

    >>> decay_for(15), decay_for(224)
    (2.0, 1.8)
    """
    return SMALL_DECAY if side < LARGE else LARGE_DECAY


def rate_for(side: int) -> float:
    """Return the step of Adam that suits images of a shorter side in pixels.

    >>> rate_for(7), rate_for(28)
    (0.05, 0.2)
    """
    return TINY_RATE if side < TINY else RATE


def neutral_of(scale: PixelScale, channels: int) -> tuple[float, ...] | None:
    """Return the pixel in 0 … 1 that a network's normalisation turns into zero; None where it subtracts nothing.

    >>> neutral_of(PixelScale((0.1307,), (0.3081,)), 1), neutral_of(PixelScale(), 3)
    ((0.1307,), None)

    It is the mean of the images that the network was trained on: black behind digits, nearly white behind drawings.
    Around it, an image shows only what a unit needs. From mid-grey, it would have to draw the background, too.
    """
    means = [mean / scale.range for mean in scale.mean]
    if not all(0 < mean < 1 for mean in means):
        return None
    found = tuple(min(max(mean, NEUTRAL[0]), NEUTRAL[1]) for mean in means)
    return found * channels if len(found) == 1 else found


def contrast_for(side: int, colours: Colours) -> float | None:
    """Return the largest contrast of images of a shorter side in pixels; None for any.

    >>> contrast_for(5, Colours()), contrast_for(28, Colours()), round(contrast_for(28, Colours(neutral=(0.13,))), 1)
    (None, 1.4, 2.3)

    From a dark or bright neutral pixel, it is farther to the other end.
    """
    if side < TINY:
        return None
    away = colours.middle(torch.zeros(1, dtype=torch.float64)).square().mean()
    return float((CONTRAST**2 + away).sqrt())


class Parametrisation(ABC):
    """n images of one size, as tensors that are optimised."""

    parameters: list[Tensor]
    """The tensors that are optimised, each [n, …], so that images do not depend on each other."""
    contrast: float | None = None
    """The largest contrast of an image; None: any."""

    @abstractmethod
    def images(self) -> Tensor:
        """Return the pixels [n, C, h, w] in 0 … 1."""


class Pixels(Parametrisation):
    """Each pixel is optimised by itself."""

    def __init__(self, colours: Colours, noise: Tensor, start: Tensor | None, contrast: float | None = None) -> None:
        self.colours, self.contrast = colours, contrast
        first = noise if start is None else colours.coordinates(start)
        self.parameters = [first.clone().requires_grad_()]

    def images(self) -> Tensor:
        return self.colours.pixels(self.parameters[0], self.contrast)


class Fourier(Parametrisation):
    """The coefficients of waves are optimised, each scaled by a power of its wavelength.

    Natural images have the power 1. A larger one holds fine detail back, and shows more of the shape.

    Source: Olah, Mordvintsev & Schubert, "Feature visualization", Distill, 2017.
    """

    def __init__(
        self,
        colours: Colours,
        noise: Tensor,
        start: Tensor | None,
        decay: float = 1.0,
        contrast: float | None = None,
    ) -> None:
        self.colours, self.contrast, self.shown = colours, contrast, tuple(noise.shape[-2:])
        self.size = [fast_length(side) for side in self.shown]
        middle = max(self.size) / 4  # the wavelength whose scale no power changes
        waves = wavelengths(*self.size).to(noise)
        self.scale = FOURIER_SCALE * middle * (waves / middle) ** decay
        if start is None:
            first = torch.fft.rfft2(noise, s=self.size, norm="ortho")
        else:
            more = [long - side for long, side in zip(self.size, self.shown, strict=True)]
            wide = F.pad(colours.coordinates(start), (0, more[1], 0, more[0]), mode="replicate")
            first = torch.fft.rfft2(wide, norm="ortho") / self.scale
        self.parameters = [torch.view_as_real(first).clone().requires_grad_()]

    def images(self) -> Tensor:
        spectrum = torch.view_as_complex(self.parameters[0]) * self.scale
        wide = torch.fft.irfft2(spectrum, s=self.size, norm="ortho")
        return self.colours.pixels(wide[..., : self.shown[0], : self.shown[1]], self.contrast)


class Maco(Parametrisation):
    """Only the phase is optimised; the magnitudes are those of natural images, or of the start image.

    Source: Fel et al., "Unlocking feature visualization for deeper networks with magnitude constrained optimization",
    2023.
    """

    def __init__(self, colours: Colours, noise: Tensor, start: Tensor | None, magnitudes: Tensor | None = None) -> None:
        self.colours, self.size, self.mean, self.deviation = colours, tuple(noise.shape[-2:]), None, None
        if start is not None:
            spectrum = torch.fft.rfft2(colours.coordinates(start), norm="ortho")
            self.magnitudes, phase = spectrum.abs(), spectrum.angle()
        else:
            waves = wavelengths(*self.size).to(noise)
            self.magnitudes = waves.expand(noise.shape[1], -1, -1) if magnitudes is None else magnitudes.to(noise)
            phase = torch.fft.rfft2(noise, norm="ortho").angle()
        self.standardised = start is None and magnitudes is None
        self.parameters = [phase.clone().requires_grad_()]

    def images(self) -> Tensor:
        spectrum = torch.polar(self.magnitudes.expand_as(self.parameters[0]), self.parameters[0])
        found = torch.fft.irfft2(spectrum, s=self.size, norm="ortho")
        if self.standardised:  # the law of wavelengths does not say how strong the contrast is
            found = found - found.mean((1, 2, 3), keepdim=True)
            found = found / (found.std((1, 2, 3), keepdim=True) + 1e-4)
        return self.colours.pixels(found)


def fast_length(side: int) -> int:
    """Return the smallest length of at least this whose Fourier transform is fast: even, of the primes 2, 3 and 5.

    >>> fast_length(7), fast_length(227), fast_length(255)
    (8, 240, 256)

    A transform of 255 × 255 takes two to five times as long as one of 256 × 256.
    """
    length = side + side % 2
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 2


def wavelengths(height: int, width: int) -> Tensor:
    """Return the wavelength in pixels of each coefficient of a real Fourier transform, [h, w // 2 + 1].

    >>> wavelengths(4, 4)[0]
    tensor([4., 4., 2.])

    The longest counts as the longer side, as does the constant.
    """
    frequencies = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None])
    return 1 / frequencies.clamp(min=1 / max(height, width))


def natural_magnitudes(colours: Colours, natural: Tensor) -> Tensor:
    """Return the mean magnitude of each coefficient over natural images [n, C, h, w], [C, h, w // 2 + 1]."""
    return torch.fft.rfft2(colours.coordinates(natural), norm="ortho").abs().mean(0)


def first_noise(seeds: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """Return noise [n, *shape] for the first images, each of its own seed, whatever images are beside it."""
    return torch.stack([SPREAD * torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def parametrise(
    name: str,
    colours: Colours,
    noise: Tensor,
    start: Tensor | None,
    magnitudes: Tensor | None = None,
    decay: float = 1.0,
    contrast: float | None = None,
) -> Parametrisation:
    """Return n images as the parametrisation of this name has them.

    Args:
        name: "fourier", "pixels" or "maco".
        colours: how coordinates become pixels.
        noise: [n, C, h, w] the first coordinates.
        start: [n, C, h, w] pixels in 0 … 1 to start from instead; None: the noise.
        magnitudes: for "maco": [C, h, w // 2 + 1]; None: proportional to the wavelength.
        decay: for "fourier": the power of the wavelength by which coefficients are scaled.
        contrast: the largest contrast, but for "maco", whose magnitudes fix it, and for images that start from others,
            which would fade as a whole; None: any.
    """
    if start is not None:
        contrast = None
    if name == "fourier":
        return Fourier(colours, noise, start, decay, contrast)
    if name == "pixels":
        return Pixels(colours, noise, start, contrast)
    if name == "maco":
        return Maco(colours, noise, start, magnitudes)
    raise unknown("parametrisation", name, NAMES)
