"""Return the outputs of layers, and the feature maps of one image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from interpret.analyses.feature_maps.result import FeatureMaps
from interpret.execution.batch_size import LARGEST_BATCH
from interpret.execution.execution import on_device, prepared
from interpret.images.batches import batches
from interpret.images.display import inputs_to_bytes
from interpret.images.inputs import open_inputs
from interpret.images.several_inputs import by_key, image_among, is_several, open_together, taking_images
from interpret.network.forward import call_network, refuse_other_type
from interpret.network.layers import did_not_run, first_outputs, refuse_other_than_images, select_layers, split_patterns
from interpret.network.model import Model, as_model
from interpret.support.errors import InterpretError, refuse_below_one
from interpret.tracing.tracing import select_traced, trace


def layer_outputs(
    model: Model | nn.Module,
    images: Any,
    layers: str | Iterable[str] | None = None,
    *,
    batch_size: int | None = None,
    workers: int = 0,
    device: str | torch.device | None = None,
) -> dict[str, Tensor]:
    """Return what layers return for images: a dictionary of tensors, in the order in which the layers run.

    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(288, 10))
    >>> outputs = layer_outputs(network, torch.rand(5, 3, 8, 8))
    >>> {layer: tuple(output.shape) for layer, output in outputs.items()}
    {'0': (5, 8, 6, 6), '3': (5, 10)}
    >>> bool((outputs["0"] < 0).any())  # as the convolution returned it, before it was rectified in place
    True

    Equal to the bit to what a forward hook sees on the network in evaluation mode, without gradients. Of a layer that
    runs several times, the first output is returned. All outputs are held in memory: choose few layers for many
    images.

    Args:
        model: the network; it is left as it was.
        images: images [B, C, H, W], or anything else that `mine` takes; for a network of several inputs a tuple or a
            dict of tensors, each [B, …].
        layers: names or globs, as for `mine`; None: every convolutional and linear layer.
        batch_size: images in one forward pass; None: all if they are tensors, otherwise 32.
        workers: processes that decode images; 0: this process.
        device: where the network runs; None: where its parameters are.

    Returns:
        The outputs by layer, the images along their first dimension, on the images' device.

    Raises:
        InterpretError: an unknown layer, one that does not run or returns no tensor, an image that does not decode, or
            images that the network cannot take.
    """
    model = as_model(model)
    patterns = None if layers is None else split_patterns(layers, dict(model.module.named_modules()))
    names = select_layers(model.module, patterns)
    found: dict[str, list[Tensor]] = {}
    with on_device(model.module, device) as target, torch.no_grad():
        for module, part in _batches_and_networks(model, images, batch_size, workers, target):
            outputs: dict[str, Tensor] = {}

            def receive(name: str, output: Tensor, outputs: dict[str, Tensor] = outputs) -> None:
                outputs[name] = output.clone()  # a later operation may change it in place

            with first_outputs(module, names, receive, stop=True, raw=True):
                call_network(module, part.to(target).clone())  # the network may write into its input
            for name, output in outputs.items():
                found.setdefault(name, []).append(output.to(part.device))
    not_run = [name for name in names if name not in found and (not found or name in (patterns or ()))]
    if not_run:
        raise did_not_run(not_run[0])
    return {name: outputs[0] if len(outputs) == 1 else torch.cat(outputs) for name, outputs in found.items()}


def _batches_and_networks(
    model: Model, images: Any, batch_size: int | None, workers: int, device: torch.device
) -> Iterator[tuple[nn.Module, Tensor]]:
    """Yield the images of each forward pass, and a module that takes them as its only input."""
    refuse_below_one(batch_size=batch_size)
    if is_several(images):
        inputs = by_key(images)
        image = image_among(inputs)
        for rows in torch.arange(len(inputs[image])).split(batch_size or len(inputs[image])):
            part = {key: value[rows[0] : rows[-1] + 1] for key, value in inputs.items()}
            others = {key: value.to(device) for key, value in part.items() if key != image}
            yield taking_images(model.module, image, others), part[image]
        return
    model, data = open_together(model, images)
    if isinstance(images, Tensor) and images.dim() == 4 and images.is_floating_point():
        refuse_other_type(model.module, images)
        yield from ((model.module, part) for part in images.split(batch_size or len(images)))
        return
    for batch in batches(data, batch_size or LARGEST_BATCH, workers):
        if data.skipped:
            name, reason = next(iter(data.skipped.items()))
            raise InterpretError(f"image {name!r} cannot be read ({reason}): leave it out")
        refuse_other_type(model.module, batch.images)
        yield model.module, batch.images


def feature_maps(
    model: Model | nn.Module,
    image: Any,
    layers: str | Iterable[str] | None = None,
    *,
    device: str | torch.device | None = None,
) -> FeatureMaps:
    """Return the activations of every unit on one image, layer by layer.

    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 3))
    >>> found = feature_maps(network, torch.rand(1, 8, 8), "0,1,3")
    >>> {layer: maps.shape for layer, maps in found.maps.items()}
    {'0': (4, 6, 6), '1': (4, 6, 6), '3': (3,)}

    Args:
        model: the network; it runs in evaluation mode and is left as it was.
        image: a tensor [C, H, W] or [1, C, H, W] as the module takes it, or a picture, which passes through the model's
            preprocessing, or anything else that `interpret.open_images` takes and that is one image.
        layers: names or globs, such as those of the rectifiers or poolings; None: every convolutional and linear layer.
        device: where the network runs; see `interpret`.

    Returns:
        `FeatureMaps`, raw, in the order in which the layers run.

    Raises:
        InterpretError: an unknown layer, one whose output has no units, or an image that the network cannot take.

    Lectures show a network's layers in this way, after the demonstrations of LeNet.
    """
    model = as_model(model)
    refuse_other_than_images(model.module, "feature_maps", "it draws maps in rows and columns")
    opened = open_inputs(image, model)
    batch = opened.tensor
    if len(batch) != 1:
        raise InterpretError(f"image must be one image, not {len(batch)}: call feature_maps for each")
    refuse_other_type(model.module, batch)
    traced = trace(model, tuple(batch.shape[1:]))
    chosen = select_traced(model.module, traced, layers)
    maps: dict[str, NDArray[np.float32]] = {}

    def receive(name: str, output: Tensor) -> None:
        if output.dim() not in (2, 4):
            raise InterpretError(
                f"layer {name!r} returns {output.dim()} dimensions: feature maps need [B, C, H, W] or [B, C]"
            )
        # copied, since a later operation may change it in place
        maps[name] = output[0].float().cpu().contiguous().numpy().copy()

    passing = first_outputs(model.module, chosen, receive, stop=True, count=1)
    with prepared(model, batch, device, chosen) as run, torch.inference_mode(), passing:
        call_network(model.module, run.place(batch))
    return FeatureMaps(
        model=model.name,
        picture=inputs_to_bytes(batch, opened.images.pixel_scale)[0],
        shown=opened.images.pixel_scale.said,
        maps={name: maps[name] for name in traced if name in maps},
        kinds={name: traced[name].kind for name in traced if name in maps},
    )
