"""The literal definition of what a neuron sees: the pixels on which its gradient is not zero.

Every network runs with random positive weights in float64 and without its nonlinearities, so that no path from a pixel
to a neuron cancels or is shut; the support of the gradient is then exactly what the neuron sees.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from interpret import trace
from interpret.tracing.receptive_field import ReceptiveField
from interpret.tracing.tracing import Layer


class Linearised(TorchFunctionMode):
    """Runs rectifiers and normalisations as the identity, and max-pooling as the average of the same windows."""

    IDENTITY = (
        "relu",
        "relu_",
        "relu6",
        "hardtanh",
        "hardtanh_",
        "local_response_norm",
        "batch_norm",
        "layer_norm",
        "gelu",
        "dropout",
    )

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.__name__ in self.IDENTITY:
            return args[0].clone()
        if func.__name__ == "max_pool2d":
            assert kwargs.get("dilation", 1) in (1, (1, 1))
            pooling = {name: kwargs[name] for name in ("stride", "padding", "ceil_mode") if name in kwargs}
            return F.avg_pool2d(args[0], args[1], **pooling)
        return func(*args, **kwargs)


def positive(module: nn.Module) -> nn.Module:
    """Make all weights positive, each unit's to a sum of one, so that activations keep their size at any depth."""
    torch.manual_seed(0)
    for parameter in module.double().eval().requires_grad_(False).parameters():
        parameter.uniform_(0.5, 1.5)
        if parameter.ndim > 1:
            parameter /= parameter.sum(dim=tuple(range(1, parameter.ndim)), keepdim=True)
    return module


def outputs_of(module: nn.Module, image: Tensor, names: list[str]) -> dict[str, Tensor]:
    """Return what the named layers return, before anything is written into it."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        return lambda module, inputs, output: outputs.update({name: output.clone()} if name not in outputs else {})

    hooks = [module.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    module(image)
    for hook in hooks:
        hook.remove()
    return outputs


def support(output: Tensor, image: Tensor, layer: Layer, position: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Return the smallest window that holds all pixels which the neurons at one position depend on."""
    y, x = layer.axes or (-2, -1)
    neurons = output.movedim((y, x), (-2, -1))[..., position[0], position[1]]
    (gradient,) = torch.autograd.grad(neurons.sum(), image, retain_graph=True)
    seen = gradient.abs().sum(dim=(0, 1)) > 0
    rows, columns = seen.any(1).nonzero().flatten().tolist(), seen.any(0).nonzero().flatten().tolist()
    return (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1) if rows else None


def check(
    seen: tuple[int, int, int, int] | None,
    window: tuple[int, int, int, int],
    side: tuple[int, int],
    square: bool = True,
) -> set[int]:
    """Compare a support with the window that should hold it; return the edges of the window that were met.

    Inside the image they are equal. Where the border cuts a window off, the support can end before the cut: in a gap of
    a dilated kernel, or in the last rows, which a stride leaves over. Unless the network is made of square kernels, it
    can then be narrower along the other axis too: a sum of a row and a column is a cross, and may lose one of its bars.
    """
    inside = {edge for edge in (0, 1) if window[edge] >= 0} | {
        edge for edge in (2, 3) if window[edge] <= side[edge - 2]
    }
    if seen is None:
        assert inside != {0, 1, 2, 3}
        return set()
    assert seen[0] >= window[0] and seen[1] >= window[1] and seen[2] <= window[2] and seen[3] <= window[3]
    certain = {edge for edge in inside if square or {(edge + 1) % 4, (edge + 3) % 4} <= inside}
    for edge in certain:
        assert seen[edge] == window[edge]
    return certain


def places(layer: Layer) -> list[tuple[int, int]]:
    """The middle, and the corners, whose windows reach over all four borders."""
    y, x = layer.axes or (-2, -1)
    height, width = layer.output_shape[y], layer.output_shape[x]
    return [(height // 2, width // 2), (0, 0), (height - 1, width - 1)]


class Calls(nn.Module):
    """A convolution, then a function, then an identity whose output is looked at."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.end = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.function(self.conv(x)))


def sees(function: Callable[[Tensor], Tensor], side: tuple[int, int] = (12, 16)) -> Layer:
    return trace(Calls(function), (3, *side))["end"]


CONVOLVED = ReceptiveField((3, 3), (1, 1), (-1, -1))
"""What `sees` gives for a function that looks at one position alone."""
