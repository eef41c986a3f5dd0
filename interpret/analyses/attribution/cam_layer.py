"""Find the layer whose feature maps Grad-CAM weighs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from interpret.analyses.attribution.target import Target, TruncatedModel
from interpret.support.errors import InterpretError, unknown


def find_cam_layer(truncated: TruncatedModel, image: Tensor, target: Target, wanted: str | None = None) -> str:
    """Return the layer that returns the last feature maps below a target, or the one `wanted` if it has feature maps.

    >>> from interpret.analyses.attribution.target import find_target
    >>> from interpret.network.model import as_model
    >>> network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3), nn.Flatten(), nn.Linear(32, 2))
    >>> image = torch.rand(1, 1, 8, 8)
    >>> truncated = TruncatedModel(network, None)
    >>> find_cam_layer(truncated, image, find_target(as_model(network), truncated, image, 0, None))
    '1'

    The paper takes the last convolutional layer. This is the last convolution that the target depends on and whose
    output has more than one position, or, where one of the blocks around it ends in maps of the same size, the
    outermost of these: "layer4" of a ResNet, "features" of a DenseNet, whose last convolution computes only a part of
    the maps that the classifier reads.

    Raises:
        InterpretError: there is none, or the one wanted has no feature maps or is not below the target.
    """
    parts = dict(truncated.network.named_modules())
    if wanted is not None and wanted not in parts:
        raise unknown("cam_layer", wanted, [name for name in parts if name])
    sizes = _map_sizes(truncated, image, target)
    if wanted is not None:
        if wanted not in sizes:
            raise InterpretError(
                f"cam_layer {wanted!r} has no feature maps that {truncated.name} depends on: "
                "choose a convolution below it"
            )
        return wanted
    last = [name for name, size in sizes.items() if isinstance(parts[name], nn.Conv2d) and size != (1, 1)]
    if not last:
        raise InterpretError(
            f"Grad-CAM needs a convolution below {truncated.name} whose output has more than one position, and there "
            "is none: choose another method"
        )
    steps = last[-1].split(".")
    blocks = [".".join(steps[:depth]) for depth in range(1, len(steps) + 1)]
    return next(block for block in blocks if sizes.get(block) == sizes[last[-1]])


def _map_sizes(truncated: TruncatedModel, image: Tensor, target: Target) -> dict[str, tuple[int, int]]:
    """Return height and width of each layer's feature maps that the target depends on, in order."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_layer: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.dim() == 4 and output.requires_grad:
                outputs.setdefault(name, output)

        return hook

    parts = {name: part for name, part in truncated.network.named_modules() if name and name != truncated.layer}
    handles = [part.register_forward_hook(keep(name)) for name, part in parts.items()]
    try:
        with torch.enable_grad():
            score = target.of(truncated(image.detach().clone().requires_grad_())).sum()
    finally:
        for handle in handles:
            handle.remove()
    if not outputs or not score.requires_grad:
        return {}
    gradients = torch.autograd.grad(score, list(outputs.values()), allow_unused=True)
    reached = zip(outputs.items(), gradients, strict=True)
    return {name: (output.shape[2], output.shape[3]) for (name, output), gradient in reached if gradient is not None}
