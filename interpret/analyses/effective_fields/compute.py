"""Effective receptive fields: the window that holds most of the gradient's energy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from interpret.analyses.effective_fields.result import EffectiveFields
from interpret.analyses.projection.signals import SignalSettings, forward_under_rule
from interpret.execution.execution import prepared
from interpret.images.batches import first_images, read_parts
from interpret.images.sampling import sample_by_hash
from interpret.images.several_inputs import open_together
from interpret.network.model import Model, as_model
from interpret.support.errors import InterpretError, refuse_below_one
from interpret.support.progress import progress
from interpret.tracing.meta_trace import trace_on_meta
from interpret.tracing.tracing import Layer, layer_with_units, layouts_of, select_traced

Window = tuple[int, int, int, int]


@torch.inference_mode(False)
def effective_receptive_field(
    model: Model | nn.Module,
    data: Any,
    layers: str | Iterable[str] | None = None,
    *,
    share: float = 0.95,
    count: int = 32,
    seed: int = 0,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
) -> EffectiveFields:
    """Measure how much of its receptive field each layer uses: the window that holds most of the gradient's energy.

    >>> network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3))
    >>> found = effective_receptive_field(network, torch.rand(4, 1, 15, 15))
    >>> found.layers, found.theoretical.tolist()
    (['0', '1', '2'], [[3, 3], [5, 5], [7, 7]])
    >>> bool((found.sizes <= found.theoretical).all()), found.energy["2"].shape
    (True, (7, 7))

    The energy of a pixel is the sum of the squares of its gradients: those of all units at the middle position of the
    layer, with respect to all channels of the pixel, averaged over images. The window lies around what the neuron sees
    and grows by a pixel on each side until it holds the share. All units pass back at once, each with a random sign:
    the square of the sum has the sum of the squares as its mean, over images.

    Args:
        model: the network; it runs in evaluation mode and is restored afterwards.
        data: images, as for `interpret.mine`.
        layers: names or globs; None: every convolutional and linear layer that has positions.
        share: of the energy that the window holds, above 0 and at most 1.
        count: the number of images, a sample of the data.
        seed: of the sample and of the signs.
        batch_size, device: see `interpret`.

    Returns:
        `EffectiveFields`, in pixels of the network's input.

    Raises:
        InterpretError: an unknown layer, one without positions, a share outside 0 … 1, a network that takes no images,
            or a layer without gradient.

    Source: Luo, Li, Urtasun & Zemel, "Understanding the effective receptive field in deep convolutional neural
    networks", NeurIPS 2016, who average gradients of the central unit.
    """
    if not 0 < share <= 1:
        raise InterpretError(f"share must be above 0 and at most 1, not {share:g}")
    refuse_below_one(count=count, batch_size=batch_size)
    model, images = open_together(as_model(model), data)
    first = first_images(images)
    shape = tuple(first.shape[1:])
    if len(shape) != 3:
        raise InterpretError(f"effective receptive fields are those of images (C, H, W), not of inputs {shape}")
    traced = trace_on_meta(model.module, shape)
    chosen = _positioned(model.module, traced, layers)
    settings = SignalSettings("gradient", layouts=layouts_of(traced, chosen))
    energy, read = {name: np.zeros(shape[1:]) for name in chosen}, 0
    items = np.sort(sample_by_hash(len(images), count, seed))
    with (
        prepared(model, first, device, chosen) as run,
        progress(len(items), "measuring effective receptive fields", "img") as bar,
    ):
        for batch in read_parts(images, np.array_split(items, -(-len(items) // run.batch_size(batch_size)))):
            x, outputs = forward_under_rule(run.module, run.place(batch.images), chosen, settings)
            for place, (name, output) in enumerate(outputs.items()):
                energy[name] += _energy(x, output, batch.items.tolist(), seed, last=place == len(outputs) - 1)
            read += len(batch.items)
            bar.update(len(batch.items))
    windows = {name: _window(traced[name], shape[1:]) for name in chosen}
    cut = {name: energy[name][top:bottom, left:right] for name, (top, left, bottom, right) in windows.items()}
    return EffectiveFields(
        model=model.name,
        data=images.name,
        images=read,
        share=float(share),
        layers=chosen,
        boxes=np.array(
            [smallest(cut[name], _middle(traced[name], windows[name], shape[1:]), share) for name in chosen]
        ),
        theoretical=np.array([[bottom - top, right - left] for top, left, bottom, right in windows.values()]),
        energy={name: (one / max(one.sum(), 1e-300)).astype(np.float32) for name, one in cut.items()},
    )


def _positioned(module: nn.Module, traced: Mapping[str, Layer], layers: str | Iterable[str] | None) -> list[str]:
    """Return the chosen layers that have positions, in the order in which they run."""
    selected = select_traced(module, traced, layers)
    found = [name for name in traced if name in selected and layer_with_units(traced, name).grid is not None]
    named = [layers] if isinstance(layers, str) else list(layers or ())
    without = [name for name in selected if name not in found and (name in named or not found)]
    if without:
        raise InterpretError(f"layer {without[0]!r} has no positions, so each of its units sees the whole image")
    return found


def _energy(x: Tensor, output: Tensor, items: list[int], seed: int, last: bool) -> NDArray[np.float64]:
    """Return the energy of each pixel, summed over images."""
    y, x_at = (size // 2 for size in output.shape[2:])
    signs = torch.stack([signs_of(item, output.shape[1], seed) for item in items]).to(output)
    (gradient,) = torch.autograd.grad((output[:, :, y, x_at] * signs).sum(), x, retain_graph=not last)
    return gradient.double().square().sum((0, 1)).cpu().numpy()


def signs_of(item: int, units: int, seed: int) -> Tensor:
    """Return a random sign for each unit, the same for an item in any batch.

    >>> signs_of(3, 4, seed=0).abs()
    tensor([1, 1, 1, 1])
    """
    generator = torch.Generator().manual_seed((seed * 1_000_003 + item) % 2**63)
    return torch.randint(0, 2, (units,), generator=generator) * 2 - 1


def _window(layer: Layer, image: tuple[int, ...]) -> Window:
    """Return what the middle neuron sees of the image."""
    height, width = image
    if layer.receptive_field is None:
        return 0, 0, height, width
    top, left, bottom, right = layer.receptive_field.window(tuple(size // 2 for size in layer.grid or ()))
    return max(0, top), max(0, left), min(bottom, height), min(right, width)


def _middle(layer: Layer, window: Window, image: tuple[int, ...]) -> tuple[float, float]:
    """Return the centre of what the middle neuron sees, in the coordinates of the window."""
    assert layer.grid is not None
    at = [size // 2 for size in layer.grid]
    if layer.receptive_field is None:
        centre = [(place + 0.5) * side / size for place, side, size in zip(at, image, layer.grid, strict=True)]
    else:
        ends = layer.receptive_field.window(tuple(at))
        centre = [(ends[0] + ends[2]) / 2, (ends[1] + ends[3]) / 2]
    return centre[0] - window[0], centre[1] - window[1]


def smallest(energy: NDArray[np.float64], centre: tuple[float, float], share: float) -> Window:
    """Return top, left, bottom and right of the smallest window around a centre that holds a share of energy [h, w].

    >>> energy = np.array([[0, 1, 0], [1, 8, 1], [0, 1, 0]])
    >>> smallest(energy, (1.5, 1.5), 0.6), smallest(energy, (1.5, 1.5), 0.9), smallest(energy * 0, (1.5, 1.5), 0.9)
    ((1, 1, 2, 2), (0, 0, 3, 3), (0, 0, 0, 0))

    The window grows by a pixel on each side, and is cut off where the energy ends.
    """
    if not energy.sum() > 0:
        return 0, 0, 0, 0
    whole = np.pad(energy, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    reach = 0.0 if all(float(at).is_integer() for at in centre) else 0.5
    while True:
        top, left = (max(0, int(np.floor(at - reach))) for at in centre)
        bottom, right = (min(side, int(np.ceil(at + reach))) for at, side in zip(centre, energy.shape, strict=True))
        held = whole[bottom, right] - whole[top, right] - whole[bottom, left] + whole[top, left]
        # what rounding has taken from the sum is not waited for
        if held >= share * whole[-1, -1] * (1 - 1e-12) or (bottom - top, right - left) == energy.shape:
            return top, left, bottom, right
        reach += 1
