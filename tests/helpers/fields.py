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
        if func.__name__ in ("max_pool1d", "max_pool2d", "max_pool3d"):
            assert kwargs.get("dilation", 1) in (1, (1, 1))
            pooling = {name: kwargs[name] for name in ("stride", "padding", "ceil_mode") if name in kwargs}
            return getattr(F, func.__name__.replace("max", "avg"))(args[0], args[1], **pooling)
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


def support(output: Tensor, image: Tensor, layer: Layer, position: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the smallest window that holds all pixels which the neurons at one position depend on."""
    axes = image.dim() - 2
    neurons = output.movedim(layer.axes or tuple(range(-axes, 0)), tuple(range(-axes, 0)))[(..., *position)]
    (gradient,) = torch.autograd.grad(neurons.sum(), image, retain_graph=True)
    seen = (gradient.abs().sum(dim=(0, 1)) > 0).nonzero()
    return (*seen.amin(0).tolist(), *(seen.amax(0) + 1).tolist()) if len(seen) else None


def check(
    seen: tuple[int, ...] | None,
    window: tuple[int, ...],
    side: tuple[int, ...],
    square: bool = True,
) -> set[int]:
    """Compare a support with the window that should hold it; return the edges of the window that were met.

    Inside the image they are equal. Where the border cuts a window off, the support can end before the cut: in a gap of
    a dilated kernel, or in the last rows, which a stride leaves over. Unless the network is made of square kernels, it
    can then be narrower along the other axes too: a sum of a row and a column is a cross, and may lose one of its bars.
    """
    axes = len(side)
    inside = {edge for edge in range(axes) if window[edge] >= 0} | {
        axes + edge for edge in range(axes) if window[axes + edge] <= side[edge]
    }
    every = set(range(2 * axes))
    if seen is None:
        assert inside != every
        return set()
    holds = all(seen[edge] >= window[edge] and seen[axes + edge] <= window[axes + edge] for edge in range(axes))
    assert holds, "smaller than what is seen"
    certain = {edge for edge in inside if square or every - {edge, (edge + axes) % (2 * axes)} <= inside}
    for edge in certain:
        assert seen[edge] == window[edge], "larger than what is seen"
    return certain


def places(layer: Layer) -> list[tuple[int, ...]]:
    """The middle, and the corners, whose windows reach over all four borders."""
    sides = [layer.output_shape[axis] for axis in layer.axes or (-2, -1)]
    return [tuple(side // 2 for side in sides), (0,) * len(sides), tuple(side - 1 for side in sides)]


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


class GatesHeld(Linearised):
    """Holds constant whatever a squashing function made, and the smaller factor or the divisor of two."""

    IDENTITY = (
        *Linearised.IDENTITY,
        *"silu silu_ hardswish hardswish_ leaky_relu leaky_relu_ elu elu_ prelu mish mish_ relu6_".split(),
        *"group_norm instance_norm rms_norm".split(),
    )

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.__name__.strip("_")
        if name in ("sigmoid", "hardsigmoid", "softmax", "tanh"):
            return func(*args, **(kwargs or {})).detach()
        if name in ("mul", "imul", "div", "truediv") and all(isinstance(value, Tensor) for value in args):
            x, y = args
            if name.endswith("div") or x.numel() > y.numel():
                y = y.detach()
            elif y.numel() > x.numel():
                x = x.detach()
            args = (x, y)
        return super().__torch_function__(func, types, args, kwargs)


def check_behind_gates(
    network: nn.Module, shape: tuple[int, int, int], most: int = 6, all_convolutions: bool = False
) -> int:
    """Compare local fields of convolutions behind gates, or of all, with the support of the gradient.

    Return of how many windows all four edges were met.
    """
    network, side = positive(network), shape[1:]
    layers = {
        name: layer
        for name, layer in trace(network, shape).items()
        if isinstance(network.get_submodule(name), nn.Conv2d)
        and layer.local_field is not None
        and (all_convolutions or layer.local_field != layer.receptive_field)
    }
    smaller = [name for name, layer in layers.items() if max(layer.local_field.size) < min(side)]  # type: ignore[union-attr]
    chosen = (smaller or list(layers))[:: max(1, len(smaller or layers) // most)][:most]
    image = torch.ones(1, *shape, dtype=torch.float64, requires_grad=True)
    with GatesHeld():
        outputs = outputs_of(network, image, chosen)
    for name, output in outputs.items():
        layer = layers[name]
        assert layer.local_field is not None
        met = set()
        for position in places(layer):
            seen, window = support(output, image, layer, position), layer.local_field.window(position)
            if layer.local_field.exact:
                met |= check(seen, window, side)
            elif seen is not None:  # a bound holds the support, and may be larger
                assert all(one >= other for one, other in zip(seen[:2], window[:2], strict=True))
                assert all(one <= other for one, other in zip(seen[2:], window[2:], strict=True))
        assert met == {0, 1, 2, 3} or name not in smaller or not layer.local_field.exact, f"{name}: {met}"
    return len(set(smaller) & set(chosen))
