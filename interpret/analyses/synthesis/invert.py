"""Inversion: make the image whose features in a layer are nearest to those of a given image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from interpret.analyses.synthesis.inversions import Inversions
from interpret.analyses.synthesis.optimisation import run_layers
from interpret.analyses.synthesis.parametrisation import colours_of, first_noise, parametrise
from interpret.analyses.synthesis.pixels import to_inputs
from interpret.execution.batch_size import batch_size_for
from interpret.execution.execution import Execution, prepared
from interpret.images.display import inputs_to_bytes
from interpret.images.inputs import Inputs, open_inputs
from interpret.network.forward import refuse_other_type
from interpret.network.layers import refuse_other_than_images
from interpret.network.model import Model, as_model
from interpret.network.pixel_scale import PixelScale
from interpret.support.errors import InterpretError, refuse_below_one
from interpret.support.progress import progress
from interpret.tracing.meta_trace import trace_on_meta
from interpret.tracing.tracing import select_traced

STEPS = 200
RATE = 0.05


@torch.inference_mode(False)  # the caller may be in inference mode
def invert(
    model: Model | nn.Module,
    images: Any,
    layers: str | Iterable[str] | None = None,
    *,
    items: Sequence[int] | None = None,
    variation: float = 1e-3,
    steps: int = STEPS,
    rate: float = RATE,
    seed: int = 0,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
) -> Inversions:
    """Find, for each layer, the images whose features are nearest to those of given images.

    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3, stride=4))
    >>> images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    >>> found = invert(network, images, ["0", "2"], steps=30)
    >>> found.pictures.shape, bool((found.errors < found.noise_errors).all())
    ((2, 2, 16, 16, 3), True)

    It minimises |Φ(x) − Φ(x₀)|² / |Φ(x₀)|² plus the total variation of the pixels, from noise, by Adam on the
    coefficients of waves. What the inverted image shares with the given one, the layer still knows.

    Args:
        model: the network; it runs in evaluation mode and is restored afterwards.
        images: B inputs [B, C, H, W], or anything else that `interpret.open_images` takes.
        layers: names or globs; None: every convolutional and linear layer.
        items: indices of the images, in this order; None: all.
        variation: weight of the total variation, the mean absolute difference of neighbouring pixels in 0 … 1; 0: none.
        steps: the number of steps of Adam.
        rate: the step of Adam.
        seed: seed of the noise.
        batch_size, device: see `interpret`.

    Returns:
        `Inversions` with the images [L, B, H, W, 3] for L layers, and their errors [L, B].

    Raises:
        InterpretError: an unknown layer; images that do not fit the network; no steps; features that are all zero; a
            network that cannot be differentiated up to a layer.

    Source: Mahendran & Vedaldi, "Understanding deep image representations by inverting them", 2015. The paper descends
    on pixels with an α-norm, which the bounded pixels here replace.
    """
    model = as_model(model)
    refuse_other_than_images(model.module, "invert", "it smooths neighbouring pixels in rows and columns")
    refuse_below_one(steps=steps)
    if not rate > 0 or variation < 0:
        raise InterpretError(f"rate must be above 0 and variation at least 0, not {rate} and {variation}")
    opened = open_inputs(images, model, items)
    refuse_other_type(model.module, opened.tensor)
    shape = tuple(opened.tensor.shape[1:])
    names = select_traced(model.module, trace_on_meta(model.module, shape), layers)
    settings = _Settings(opened.images.pixel_scale, variation, steps, rate, seed)
    with prepared(model, opened.tensor[:2], device, frozenset(names)) as run:
        found = _run(opened, names, settings, run, batch_size)
    pictures = [torch.cat([one.images for one in parts]) for parts in found]
    return Inversions(
        model=model.name,
        layers=names,
        pictures=np.stack([inputs_to_bytes(one, settings.scale) for one in pictures]),
        originals=inputs_to_bytes(opened.tensor, settings.scale),
        errors=np.stack([torch.cat([one.errors for one in parts]).numpy() for parts in found]),
        noise_errors=np.stack([torch.cat([one.first_errors for one in parts]).numpy() for parts in found]),
        settings={"steps": steps, "rate": rate, "variation": variation, "seed": seed},
        shown=settings.scale.said,
    )


@dataclass(frozen=True)
class _Settings:
    scale: PixelScale
    variation: float
    steps: int
    rate: float
    seed: int


@dataclass(frozen=True)
class _Inverted:
    """Some images, inverted from one layer."""

    images: Tensor
    """[n, C, H, W] inputs of the network, on the CPU."""
    errors: Tensor
    """[n]"""
    first_errors: Tensor
    """[n] of the noise."""


def _run(
    opened: Inputs, names: Sequence[str], settings: _Settings, run: Execution, batch_size: int | None
) -> list[list[_Inverted]]:
    """Invert all images from each layer, in batches."""
    at_once = batch_size_for(batch_size, math.prod(opened.tensor.shape[2:]), run.device)
    parts = torch.arange(len(opened.tensor)).split(at_once)
    jobs: Iterable[Callable[[nn.Module], _Inverted]] = (
        partial(_invert_part, images=opened.tensor[part], rows=part.tolist(), layer=name, settings=settings, run=run)
        for name in names
        for part in parts
    )
    found = []
    with progress(len(names) * len(opened.tensor), "inverting", "img") as bar:
        for one in run.side_by_side(jobs):
            found.append(one)
            bar.update(len(one.images))
    return [found[start : start + len(parts)] for start in range(0, len(found), len(parts))]


def _invert_part(
    module: nn.Module, images: Tensor, rows: Sequence[int], layer: str, settings: _Settings, run: Execution
) -> _Inverted:
    """Invert some images from their features in one layer."""
    given = run.place(images)
    layers = frozenset([layer])
    with torch.no_grad():
        wanted = run_layers(module, given, layers)[layer].float()
    size = wanted.square().flatten(1).sum(1)
    if not bool((size > 0).all()) or not bool(size.isfinite().all()):
        row = int((~((size > 0) & size.isfinite())).nonzero()[0])
        raise InterpretError(
            f"the features of image {rows[row]} in layer {layer!r} are all zero, NaN or infinite, and tell nothing of "
            "the image: choose another layer"
        )
    channels = images.shape[1]
    colours, _ = colours_of("imagenet", channels, settings.scale, None)
    noise = first_noise([settings.seed + row for row in rows], (channels, *images.shape[2:])).to(run.device)
    made = parametrise("fourier", colours, noise, None)
    optimiser = torch.optim.Adam(made.parameters, lr=settings.rate)
    first: Tensor | None = None

    def errors_of(pixels: Tensor) -> Tensor:
        inputs = to_inputs(pixels, settings.scale, images.dtype)
        return (run_layers(module, inputs, layers)[layer].float() - wanted).square().flatten(1).sum(1) / size

    for _ in range(settings.steps):
        with torch.enable_grad():
            pixels = made.images()
            errors = errors_of(pixels)
            if not errors.requires_grad:
                raise InterpretError(
                    f"layer {layer!r} cannot be differentiated: the network detaches or rounds something before it; "
                    "choose an earlier layer"
                )
            loss = errors.sum() + settings.variation * _total_variation(pixels).sum()
            gradients = torch.autograd.grad(loss, made.parameters)
        first = errors.detach() if first is None else first
        for parameter, gradient in zip(made.parameters, gradients, strict=True):
            parameter.grad = gradient
        optimiser.step()
    assert first is not None
    with torch.no_grad():
        pixels = made.images()
        errors = errors_of(pixels)
    return _Inverted(to_inputs(pixels, settings.scale).cpu(), errors.double().cpu(), first.double().cpu())


def _total_variation(pixels: Tensor) -> Tensor:
    """Return the mean absolute difference of neighbouring pixels, [n], in units of a whole image's contrast."""
    down, across = pixels.diff(dim=2).abs(), pixels.diff(dim=3).abs()
    return down.flatten(1).mean(1) + across.flatten(1).mean(1)
