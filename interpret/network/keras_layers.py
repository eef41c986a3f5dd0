"""Keras's layers as modules of torch: maps [B, C, H, W], the layers' own weights, and modules that toolkits know.

A layer with an activation becomes two modules: `conv1` before the activation, as in PyTorch, and `conv1_relu` after it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interpret.network.keras_internals import layers_in, learnt_by, takes_training

Part = tuple[str, nn.Module]
"""The name of a module, and the module."""


def parts_of(operation: Any, name: str, last: bool) -> list[Part]:
    """Return the modules that do together, one after the other, what a layer or an operation of Keras does.

    Args:
        operation: a `keras.Layer` or another `keras.Operation`.
        name: what the module with the layer's units is called.
        last: whether the network's maps are channels-last.
    """
    translate = _TRANSLATIONS.get(_kind(operation))
    if translate is None or not _is_plain(operation, last):
        return [(name, keras_operation(operation, last))]
    parts = translate(operation, name, last)
    activation = getattr(operation, "activation", None)
    called = getattr(activation, "__name__", "") or getattr(activation, "name", "activation")
    if activation is not None and called != "linear":
        parts.append((f"{name}_{called.strip('<>_')}", keras_operation(activation, last, called)))
    return parts


def _kind(operation: Any) -> str:
    """Return the name of a class of Keras; "" for a class of the user's own, which may do something else."""
    kind = type(operation)
    return kind.__name__ if kind.__module__.startswith("keras.src.layers.") else ""


def _is_plain(layer: Any, last: bool) -> bool:
    """Return whether a layer has the network's layout, and weights in the type in which it computes."""
    layout = getattr(layer, "data_format", None)
    return (
        layout in (None, "channels_last" if last else "channels_first")
        and layer.compute_dtype == layer.variable_dtype
        and getattr(layer, "quantization_mode", None) is None
    )


def channels_first(tensor: Tensor) -> Tensor:
    """Return maps [B, H, W, C] as [B, C, H, W]; any other tensor as it is."""
    return tensor.permute(0, 3, 1, 2) if tensor.dim() == 4 else tensor


def channels_last(tensor: Tensor) -> Tensor:
    """Return maps [B, C, H, W] as [B, H, W, C]; any other tensor as it is."""
    return tensor.permute(0, 2, 3, 1) if tensor.dim() == 4 else tensor


def mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    """Return nested lists, tuples and dicts with a function applied to everything in them.

    >>> mapped(lambda one: 2 * one, {"a": [1, (2, 3)]})
    {'a': [2, (4, 6)]}
    """
    if isinstance(tree, Mapping):
        return {name: mapped(function, branch) for name, branch in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)([mapped(function, branch) for branch in tree])
    return function(tree)


def _map_tensors(function: Callable[[Tensor], Tensor], tree: Any) -> Any:
    return mapped(lambda one: function(one) if isinstance(one, Tensor) else one, tree)


# ---- any operation, as Keras runs it ---------------------------------------------------------------------------------


class Shared:
    """Holds an object that copies of a network share."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __deepcopy__(self, memo: Any) -> Shared:
        return self


class DeviceName(str):
    """The name of a device, which equals the device: Keras compares them, and copies tensors if they differ."""

    __slots__ = ()

    def lower(self) -> DeviceName:
        return self

    def __eq__(self, other: object) -> bool:
        return str(self) == str(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


class KerasOperation(nn.Module):
    """An operation that Keras itself runs, with the weights that this module holds."""

    def __init__(self, operation: Any, last: bool) -> None:
        super().__init__()
        self.operation = Shared(operation)
        self.last = last
        self.constants = [value for value in vars(operation).values() if isinstance(value, Tensor)]
        self.weight_names: list[str] = []
        for variable, learnt in _variables(operation):
            name = variable.name.replace(".", "_")
            while hasattr(self, name):
                name += "_"
            self.weight_names.append(name)
            values = variable.value.detach()
            if learnt:
                self.register_parameter(name, nn.Parameter(values, values.requires_grad or variable.trainable))
            else:
                self.register_buffer(name, values)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        import keras

        operation = self.operation.value
        if self.last:
            args, kwargs = _map_tensors(channels_last, args), _map_tensors(channels_last, kwargs)
        if takes_training(operation):
            kwargs = {"training": self.training} | kwargs
        with ExitStack() as scopes:
            device = next((tensor.device for tensor in _tensors((args, kwargs))), None)
            if device is not None:
                scopes.enter_context(keras.device(DeviceName(device)))
            if self.weight_names:
                variables = [variable for variable, _ in _variables(operation)]
                own = [getattr(self, name) for name in self.weight_names]
                scopes.enter_context(keras.StatelessScope(list(zip(variables, own, strict=True))))
            result = operation(*args, **kwargs)
        return _map_tensors(channels_first, result) if self.last else result


def keras_operation(operation: Any, last: bool, kind: str = "") -> KerasOperation:
    """Return the module of an operation, of a class that is named as Keras's."""
    kind = kind or type(operation).__name__
    return type(kind, (KerasOperation,), {"__module__": __name__})(operation, last)


def _variables(operation: Any) -> Iterator[tuple[Any, bool]]:
    """Yield the weights and statistics of an operation, and whether each is a weight, whether it is trained or not."""
    weights = {id(variable) for layer in layers_in(operation) for variable in learnt_by(layer)}
    for variable in getattr(operation, "weights", ()):
        yield variable, id(variable) in weights


def _tensors(tree: Any) -> Iterator[Tensor]:
    found: list[Tensor] = []
    _map_tensors(lambda tensor: found.append(tensor) or tensor, tree)  # type: ignore[func-returns-value]
    return iter(found)


# ---- layers with units -----------------------------------------------------------------------------------------------


class Conv2D(nn.Conv2d):
    """A convolution that may pad so that the output has as many positions as strides fit into the input."""

    same = False

    def forward(self, images: Tensor) -> Tensor:
        padding: Any = self.padding
        if self.same:
            images, padding = _padded(images, self.kernel_size, self.stride, self.dilation, 0.0), 0
        return F.conv2d(images, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class DepthwiseConv2D(Conv2D):
    """A convolution with kernels of one channel each."""


class Conv2DTranspose(nn.ConvTranspose2d):
    """A transposed convolution whose output Keras crops or pads."""

    settings: dict[str, Any]

    def forward(self, images: Tensor, output_size: Any = None) -> Tensor:
        import keras

        with keras.device(DeviceName(images.device)):
            kernel = self.weight.permute(2, 3, 1, 0)
            result = keras.ops.conv_transpose(images, kernel, data_format="channels_first", **self.settings)
        return result if self.bias is None else result + self.bias[:, None, None]


class Dense(nn.Linear):
    """A linear layer over the last axis."""


class BatchNormalization(nn.BatchNorm2d):
    """Batch normalisation over the second axis, of maps or of features, with or without a scale and an offset."""

    def _check_input_dim(self, input: Tensor) -> None:
        return

    def reset_parameters(self) -> None:
        for parameter, value in ((self.weight, 1.0), (self.bias, 0.0)):
            if parameter is not None:
                nn.init.constant_(parameter, value)


class MaxPooling2D(nn.MaxPool2d):
    """Max-pooling that may pad so that the output has as many positions as strides fit into the input."""

    same = False

    def forward(self, images: Tensor) -> Tensor:
        if not self.same:
            return super().forward(images)
        images = _padded(images, self.kernel_size, self.stride, (1, 1), -math.inf)
        return F.max_pool2d(images, self.kernel_size, self.stride)


class AveragePooling2D(nn.AvgPool2d):
    """Average-pooling without padding."""


def _padded(images: Tensor, size: Any, stride: Any, dilation: Any, value: float) -> Tensor:
    """Pad so that there are ⌈side / stride⌉ windows, with one more at the end if the total is odd."""
    margins: list[int] = []
    for side, kernel, step, gap in zip(images.shape[:1:-1], size[::-1], stride[::-1], dilation[::-1], strict=True):
        total = max((math.ceil(side / step) - 1) * step + (kernel - 1) * gap + 1 - side, 0)
        margins += (total // 2, total - total // 2)
    return F.pad(images, margins, value=value) if any(margins) else images


def _convolution(layer: Any, name: str, last: bool) -> list[Part]:
    depth = _inputs(layer)
    return [(name, _conv(Conv2D, layer, depth, layer.filters, layer.groups, layer.kernel, layer.bias))]


def _depthwise(layer: Any, name: str, last: bool) -> list[Part]:
    depth = _inputs(layer)
    module = _conv(DepthwiseConv2D, layer, depth, depth * layer.depth_multiplier, depth, layer.kernel, layer.bias)
    return [(name, module)]


def _separable(layer: Any, name: str, last: bool) -> list[Part]:
    depth = _inputs(layer)
    depthwise, pointwise = layer.depthwise_kernel, layer.pointwise_kernel
    inner = depth * layer.depth_multiplier
    one = _conv(DepthwiseConv2D, layer, depth, inner, depth, depthwise, None)
    two = _conv(Conv2D, layer, inner, layer.filters, 1, pointwise, layer.bias, pointwise=True)
    return [(f"{name}_depthwise", one), (name, two)]


def _inputs(layer: Any) -> int:
    axis = -1 if layer.data_format == "channels_last" else 1
    return int(layer.input_spec.axes[axis])


def _conv(
    kind: type[Conv2D],
    layer: Any,
    depth: int,
    units: int,
    groups: int,
    kernel: Any,
    bias: Any,
    pointwise: bool = False,
) -> Conv2D:
    weight = _value(kernel).permute(3, 2, 0, 1)  # Keras has [height, width, channels, units]
    if kind is DepthwiseConv2D:  # and [height, width, channels, multiples]
        weight = _value(kernel).permute(2, 3, 0, 1).flatten(0, 1)[:, None]
    size: Any = tuple(weight.shape[2:])
    stride, dilation = ((1, 1), (1, 1)) if pointwise else (tuple(layer.strides), tuple(layer.dilation_rate))
    same = layer.padding == "same" and not pointwise
    odd = all(gap * (side - 1) % 2 == 0 for side, gap in zip(size, dilation, strict=True))
    padding: Any = 0
    if same and stride == (1, 1) and odd:
        same, padding = False, tuple(gap * (side - 1) // 2 for side, gap in zip(size, dilation, strict=True))
    with torch.device("meta"):
        module = kind(depth, units, size, stride, padding, dilation, groups, bias is not None)
    if same:
        module.same, module.padding = True, "same"
    _give(module, weight=(kernel, weight), bias=(bias, _value(bias)))
    return module


def _transposed(layer: Any, name: str, last: bool) -> list[Part]:
    weight = _value(layer.kernel).permute(3, 2, 0, 1)  # Keras has [height, width, units, channels]
    depth, units, *size = weight.shape
    with torch.device("meta"):
        module = Conv2DTranspose(depth, units, tuple(size), tuple(layer.strides), bias=layer.bias is not None)
    module.dilation = tuple(layer.dilation_rate)
    module.settings = {
        "strides": tuple(layer.strides),
        "padding": layer.padding,
        "output_padding": layer.output_padding,
        "dilation_rate": tuple(layer.dilation_rate),
    }
    _give(module, weight=(layer.kernel, weight), bias=(layer.bias, _value(layer.bias)))
    return [(name, module)]


def _dense(layer: Any, name: str, last: bool) -> list[Part]:
    weight = _value(layer.kernel).t()
    with torch.device("meta"):
        module = Dense(weight.shape[1], weight.shape[0], layer.bias is not None)
    _give(module, weight=(layer.kernel, weight), bias=(layer.bias, _value(layer.bias)))
    return [(name, module)]


def _normalisation(layer: Any, name: str, last: bool) -> list[Part]:
    rank = layer.input_spec.ndim
    if rank not in (2, 4) or layer.axis % rank != (3 if last and rank == 4 else 1):
        return [(name, keras_operation(layer, last))]
    mean, variance = _value(layer.moving_mean), _value(layer.moving_variance)
    with torch.device("meta"):
        module = BatchNormalization(len(mean), layer.epsilon, 1 - layer.momentum)
    module.weight = module.bias = module.num_batches_tracked = None  # type: ignore[assignment]
    _give(module, weight=(layer.gamma, _value(layer.gamma)), bias=(layer.beta, _value(layer.beta)))
    module.running_mean, module.running_var = mean, variance
    return [(name, module)]


def _pool(kind: Any) -> Callable[[Any, str, bool], list[Part]]:
    def translate(layer: Any, name: str, last: bool) -> list[Part]:
        if layer.padding == "same" and kind is AveragePooling2D:
            return [(name, keras_operation(layer, last))]
        module = kind(tuple(layer.pool_size), tuple(layer.strides))
        module.same = layer.padding == "same"
        return [(name, module)]

    return translate


def _value(variable: Any) -> Any:
    """Return a variable's values, or those that a layer computes from several; None for None."""
    return None if variable is None else getattr(variable, "value", variable).detach()


def _give(module: nn.Module, **weights: tuple[Any, Any]) -> None:
    """Give a module parameters that share the memory of Keras's variables."""
    for name, (variable, values) in weights.items():
        if values is not None:
            setattr(module, name, nn.Parameter(values, getattr(variable, "trainable", False)))


_TRANSLATIONS: dict[str, Callable[[Any, str, bool], list[Part]]] = {
    "Conv2D": _convolution,
    "DepthwiseConv2D": _depthwise,
    "SeparableConv2D": _separable,
    "Conv2DTranspose": _transposed,
    "Dense": _dense,
    "BatchNormalization": _normalisation,
    "MaxPooling2D": _pool(MaxPooling2D),
    "AveragePooling2D": _pool(AveragePooling2D),
}
