"""Activations: what each layer makes of one image."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from interpret.display import inputs_to_bytes
from interpret.errors import InterpretError
from interpret.execution import prepared
from interpret.forward import call_network
from interpret.layers import first_outputs
from interpret.mining import refuse_other_type
from interpret.model import Model, as_model
from interpret.results.feature_maps import FeatureMaps
from interpret.tracing import select_traced, trace


def feature_maps(
    model: Model | nn.Module,
    image: Tensor | Image.Image,
    layers: str | Iterable[str] | None = None,
    *,
    device: str | torch.device | None = None,
) -> FeatureMaps:
    """Return every unit's activations on one image, layer by layer, to be drawn as feature maps.

    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 3))
    >>> found = feature_maps(network, torch.rand(1, 8, 8), "0,1,3")
    >>> {layer: maps.shape for layer, maps in found.maps.items()}
    {'0': (4, 6, 6), '1': (4, 6, 6), '3': (3,)}

    Args:
        model: the network; it runs in evaluation mode and is left as it was.
        image: a tensor [C, H, W] or [1, C, H, W] as the module takes it, or a picture, which passes through the model's
            preprocessing.
        layers: names or globs, such as those of the rectifiers or poolings; None: every convolutional and linear layer.
        device: where the network runs; None: where its parameters are.

    Returns:
        `FeatureMaps`, raw, in the order in which the layers run.

    Raises:
        InterpretError: an unknown layer, one whose output has no units, or an image that the network cannot take.

    No paper's figure, but every lecture's: the states of a network's layers for one image, after the demonstrations of
    LeNet. How activations become grey levels is the figure's choice: see `interpret.plots.feature_maps`.
    """
    model = as_model(model)
    if isinstance(image, Image.Image):
        if model.preprocess is None:
            raise InterpretError(
                f"model {model.name!r} does not say how a picture becomes its input: load it with "
                "preprocess=Preprocess(...), or pass a tensor"
            )
        image = model.preprocess(image)
    if not isinstance(image, Tensor) or not image.is_floating_point() or image.dim() not in (3, 4):
        found = f"{image.dtype} of shape {list(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
        raise InterpretError(f"image must be a float tensor [C, H, W] or a picture, not {found}")
    if image.dim() == 4 and len(image) != 1:
        raise InterpretError(f"image must be one image, not {len(image)}: call it for each")
    batch = image if image.dim() == 4 else image[None]
    refuse_other_type(model.module, batch)
    traced = trace(model, tuple(batch.shape[1:]))
    chosen = select_traced(model.module, traced, layers)
    maps: dict[str, NDArray[np.float32]] = {}

    def receive(name: str, output: Tensor) -> None:
        if output.dim() not in (2, 4):
            raise InterpretError(
                f"layer {name!r} returns {output.dim()} dimensions: feature maps need [B, C, H, W] or [B, C]"
            )
        # a copy: what comes after may rectify it in place
        maps[name] = output[0].float().cpu().contiguous().numpy().copy()

    passing = first_outputs(model.module, chosen, receive, stop=True, count=1)
    with prepared(model, batch, device, chosen) as run, torch.inference_mode(), passing:
        call_network(model.module, run.place(batch))
    return FeatureMaps(
        model=model.name,
        picture=inputs_to_bytes(batch, model.preprocess)[0],
        maps={name: maps[name] for name in traced if name in maps},
        kinds={name: traced[name].kind for name in traced if name in maps},
    )
