"""The kernels of a layer as pictures, as in figure 3 of the AlexNet paper."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from interpret.network.layers import refuse_other_than_images
from interpret.network.model import Model, as_model
from interpret.network.weights import kind_of, named_layers, weight_of
from interpret.network.wrappers import refuse_without_numbers
from interpret.support.errors import InterpretError, unknown

Scale = Literal["filter", "shared"]
Pictures = NDArray[np.float32]


def filter_images(
    model: Model | nn.Module, layer: str | None = None, scale: Scale = "filter", channel: int | None = None
) -> Pictures:
    """Return the kernels of a layer as pictures [n, h, w, 3] in 0 … 1, with a weight of zero as mid-grey.

    A kernel is drawn as the pattern that it answers to: positive weights light, negative ones dark. This one finds
    edges that are dark on the left and light on the right:

    >>> network = nn.Sequential(nn.Conv2d(1, 1, 3))
    >>> with torch.no_grad():
    ...     _ = network[0].weight.copy_(torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]))
    >>> filter_images(network)[0, :, :, 0]
    array([[0.25, 0.5 , 0.75],
           [0.  , 0.5 , 1.  ],
           [0.25, 0.5 , 0.75]], dtype=float32)

    Args:
        model: the network.
        layer: a convolution, or a linear layer on the pixels themselves; None: the first convolution.
        scale: "filter": each filter by its own largest weight, over all its input channels; "shared": all filters by
            the largest weight of the layer, so that strong and weak ones differ.
        channel: one input channel to show of every filter; None: all.

    Returns:
        One colour picture a filter where the layer has three input channels, which are taken to be the picture's red,
        green and blue, whatever order the model has them in. Otherwise grey slices: one a filter if it has one input
        channel or `channel` names one, and else, filter by filter, one for every input channel (of its group, in a
        grouped convolution). A slice all of whose weights are zero, in a filter that has others, is no connection,
        as in LeNet-5, whose table leaves some out, or in a pruned network: it is white all over, and not mid-grey.

    Raises:
        InterpretError: an unknown layer or scale, a layer without kernels, a channel out of range, weights that are
            not finite.

    Source: Krizhevsky, Sutskever & Hinton, "ImageNet classification with deep convolutional neural networks", 2012,
    figure 3. Like theirs, the pictures show the weights as they are, before any of the preprocessing's scales.
    """
    pictures = kernel_pictures(find_kernels(as_model(model), layer), scale, channel)
    return pictures.reshape(-1, *pictures.shape[2:])


@dataclass(frozen=True)
class Kernels:
    """The weights of a layer's units."""

    layer: str
    weights: Tensor
    """[units, input channels of one unit, height, width]"""
    colours: str
    """Order of the colours, "RGB" or "BGR"; "" if the input channels are not colours."""
    groups: int


def find_kernels(model: Model, layer: str | None) -> Kernels:
    """Return the kernels of a layer (None: the first convolution); raise an error if it has none."""
    refuse_without_numbers(model.module)
    refuse_other_than_images(model.module, "filter_images", "it draws kernels as pictures")
    modules = {name: module for name, module in named_layers(model.module) if name}
    # a network that is a single layer has no named modules
    modules = modules or {"": model.module}
    first = next((name for name, module in modules.items() if isinstance(module, nn.Conv2d)), None)
    if layer is None:
        if first is None:
            raise InterpretError(f"model {model.name!r} has no convolution: name a linear layer on the pixels")
        layer = first
    if layer not in modules:
        raise unknown("layer", layer, modules)
    module = modules[layer]
    weights = _weights_by_unit(module, model)
    if weights is None:
        raise InterpretError(
            f"layer {layer!r} ({kind_of(module)}) has no kernels to draw: choose a convolution"
            + (f", such as {first!r}" if first else "")
        )
    if not bool(weights.isfinite().all()):
        raise InterpretError(f"layer {layer!r} has weights that are not finite: they cannot be drawn")
    groups = module.groups if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) else 1
    order = model.colours
    colours = order if weights.shape[1] == 3 == len(order) and groups == 1 else ""
    return Kernels(layer, weights, colours, groups)


def _weights_by_unit(module: nn.Module, model: Model) -> Tensor | None:
    """Return weights [units, channels, height, width]; None for a layer without kernels."""
    weights = weight_of(module)
    if weights is None:
        return None
    weights = weights.to("cpu", torch.float32)
    if isinstance(module, nn.ConvTranspose2d):  # [input channels, units of a group, height, width]
        by_group = weights.unflatten(0, (module.groups, -1)).transpose(1, 2)
        return by_group.flatten(0, 1)
    if isinstance(module, nn.Linear) and model.preprocess and module.in_features == math.prod(model.input_shape):
        return weights.unflatten(1, model.input_shape)
    return weights if weights.ndim == 4 else None


def kernel_pictures(kernels: Kernels, scale: Scale, channel: int | None) -> Pictures:
    """Return pictures [units, slices, h, w, 3]: one colour picture per unit, or one grey slice per input channel."""
    if scale not in get_args(Scale):
        raise unknown("scale", scale, get_args(Scale))
    weights = kernels.weights
    count = weights.shape[1]
    if channel is not None and not 0 <= channel < count:
        raise InterpretError(
            f"channel must be from 0 to {count - 1}, the input channels of {kernels.layer!r}, not {channel}"
        )
    largest = weights.abs().amax(dim=(1, 2, 3), keepdim=True)
    if scale == "shared":
        largest = largest.amax(dim=0, keepdim=True)
    # a filter whose weights are all zero is mid-grey
    values = (0.5 + weights / (2 * torch.where(largest > 0, largest, 1))).numpy()
    if kernels.colours and channel is None:
        return values[:, [kernels.colours.index(colour) for colour in "RGB"]].transpose(0, 2, 3, 1)[:, None]
    if not kernels.colours:
        values[unconnected(kernels)] = 1.0
    if channel is not None:
        values = values[:, channel : channel + 1]
    return values[..., None].repeat(3, axis=-1)


def unconnected(kernels: Kernels) -> NDArray[np.bool_]:
    """Return [units, input channels], whether a unit has only zero weights for a channel, but not for all channels."""
    largest = kernels.weights.abs().amax(dim=(2, 3))
    found: NDArray[np.bool_] = ((largest == 0) & (largest.amax(1, keepdim=True) > 0)).numpy()
    return found
