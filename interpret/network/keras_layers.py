"""Keras's layers as modules of torch: maps [B, C, H, W], the layers' own weights, and modules that toolkits know.

Maps of signals are [B, C, T], those of volumes [B, C, D, H, W].

A layer with an activation becomes two modules: `conv1` before the activation, as in PyTorch, and `conv1_relu` after it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interpret.network.keras_internals import layers_in, learnt_by, takes_training

Part = tuple[str, nn.Module]
"""The name of a module, and the module."""


@dataclass(frozen=True)
class MapLayout:
    """How a network of Keras arranges its maps."""

    last: bool
    """Whether channels come last."""
    axes: int = 2
    """How many axes they have beside channels: 1 for signals, 2 for images, 3 for volumes."""

    def channels_first(self, tensor: Tensor) -> Tensor:
        """Return maps [B, H, W, C] as [B, C, H, W]; any other tensor as it is."""
        return tensor.movedim(-1, 1) if self.last and tensor.dim() == self.axes + 2 else tensor

    def channels_last(self, tensor: Tensor) -> Tensor:
        """Return maps [B, C, H, W] as Keras arranges them; any other tensor as it is."""
        return tensor.movedim(1, -1) if self.last and tensor.dim() == self.axes + 2 else tensor


def parts_of(operation: Any, name: str, layout: MapLayout) -> list[Part]:
    """Return the modules that do together, one after the other, what a layer or an operation of Keras does.

    Args:
        operation: a `keras.Layer` or another `keras.Operation`.
        name: what the module with the layer's units is called.
        layout: how the network arranges its maps.
    """
    translate = _TRANSLATIONS.get(_kind(operation).replace(f"{layout.axes}D", "ND"))
    if translate is None or not _is_plain(operation, layout.last):
        return [(name, keras_operation(operation, layout))]
    parts = translate(operation, name, layout)
    activation = getattr(operation, "activation", None)
    called = getattr(activation, "__name__", "") or getattr(activation, "name", "activation")
    if activation is not None and called != "linear":
        parts.append((f"{name}_{called.strip('<>_')}", keras_operation(activation, layout, called)))
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

    def __init__(self, operation: Any, layout: MapLayout) -> None:
        super().__init__()
        self.operation = Shared(operation)
        self.layout = layout
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
        args, kwargs = (_map_tensors(self.layout.channels_last, given) for given in (args, kwargs))
        if takes_training(operation):
            kwargs = kwargs | {"training": self.training}  # as Keras, over what the call was recorded with
        with ExitStack() as scopes:
            device = next((tensor.device for tensor in _tensors((args, kwargs))), None)
            if device is not None:
                scopes.enter_context(keras.device(DeviceName(device)))
            if self.weight_names:
                variables = [variable for variable, _ in _variables(operation)]
                own = [getattr(self, name) for name in self.weight_names]
                scopes.enter_context(keras.StatelessScope(list(zip(variables, own, strict=True))))
            result = operation(*args, **kwargs)
        return _map_tensors(self.layout.channels_first, result)


def keras_operation(operation: Any, layout: MapLayout, kind: str = "") -> KerasOperation:
    """Return the module of an operation, of a class that is named as Keras's."""
    kind = kind or type(operation).__name__
    return type(kind, (KerasOperation,), {"__module__": __name__})(operation, layout)


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


class Padding:
    """What a convolution or pool of Keras pads that none of torch does."""

    padded = ""
    """"same": the output has as many positions as strides fit into the input; "causal": all before the input."""

    def pad(self, maps: Tensor, dilation: Any, value: float) -> Tensor:
        """Return maps with a border of a value."""
        margins: list[int] = []
        layer: Any = self
        sizes = zip(maps.shape[:1:-1], layer.kernel_size[::-1], layer.stride[::-1], dilation[::-1], strict=True)
        for side, kernel, step, gap in sizes:
            total = (kernel - 1) * gap
            if self.padded == "same":  # with one more at the end if the total is odd
                total = max((math.ceil(side / step) - 1) * step + total + 1 - side, 0)
            before = total if self.padded == "causal" else total // 2
            margins += (before, total - before)
        return F.pad(maps, margins, value=value) if any(margins) else maps


class Convolving(Padding):
    """Convolves maps with a border of zeros by the function of PyTorch for their number of axes."""

    function: ClassVar[Callable[..., Tensor]]

    def forward(self, maps: Tensor) -> Tensor:
        layer: Any = self
        maps = self.pad(maps, layer.dilation, 0.0) if self.padded else maps
        padding = 0 if self.padded else layer.padding
        return self.function(maps, layer.weight, layer.bias, layer.stride, padding, layer.dilation, layer.groups)


class Conv1D(Convolving, nn.Conv1d):
    """A convolution of signals."""

    function = staticmethod(F.conv1d)


class Conv2D(Convolving, nn.Conv2d):
    """A convolution of images."""

    function = staticmethod(F.conv2d)


class Conv3D(Convolving, nn.Conv3d):
    """A convolution of volumes."""

    function = staticmethod(F.conv3d)


class DepthwiseConv1D(Conv1D):
    """A convolution with kernels of one channel each."""


class DepthwiseConv2D(Conv2D):
    """A convolution with kernels of one channel each."""


CONVOLUTIONS: dict[int, Any] = {1: Conv1D, 2: Conv2D, 3: Conv3D}
DEPTHWISE: dict[int, Any] = {1: DepthwiseConv1D, 2: DepthwiseConv2D}


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


class GroupNormalization(nn.GroupNorm):
    """Group normalisation over the second axis, with or without a scale and an offset."""

    reset_parameters = BatchNormalization.reset_parameters


class _MaxPooling(Padding):
    """Max-pooling that may pad so that the output has as many positions as strides fit into the input."""

    def forward(self, maps: Tensor) -> Tensor:
        layer: Any = self
        if self.padded:
            maps = self.pad(maps, (1,) * len(layer.kernel_size), -math.inf)
        pool: Any = getattr(F, f"max_pool{len(layer.kernel_size)}d")
        return pool(maps, layer.kernel_size, layer.stride)


class MaxPooling1D(_MaxPooling, nn.MaxPool1d):
    """Max-pooling of signals."""


class MaxPooling2D(_MaxPooling, nn.MaxPool2d):
    """Max-pooling of images."""


class MaxPooling3D(_MaxPooling, nn.MaxPool3d):
    """Max-pooling of volumes."""


class AveragePooling1D(nn.AvgPool1d):
    """Average-pooling of signals without padding."""


class AveragePooling2D(nn.AvgPool2d):
    """Average-pooling of images without padding."""


class AveragePooling3D(nn.AvgPool3d):
    """Average-pooling of volumes without padding."""


def _convolution(layer: Any, name: str, layout: MapLayout) -> list[Part]:
    depth = _inputs(layer)
    return [
        (name, _conv(CONVOLUTIONS[layout.axes], layer, depth, layer.filters, layer.groups, layer.kernel, layer.bias))
    ]


def _depthwise(layer: Any, name: str, layout: MapLayout) -> list[Part]:
    depth = _inputs(layer)
    kind = DEPTHWISE[layout.axes]
    module = _conv(kind, layer, depth, depth * layer.depth_multiplier, depth, layer.kernel, layer.bias)
    return [(name, module)]


def _separable(layer: Any, name: str, layout: MapLayout) -> list[Part]:
    depth = _inputs(layer)
    depthwise, pointwise = layer.depthwise_kernel, layer.pointwise_kernel
    inner = depth * layer.depth_multiplier
    one = _conv(DEPTHWISE[layout.axes], layer, depth, inner, depth, depthwise, None)
    kind = CONVOLUTIONS[layout.axes]
    two = _conv(kind, layer, inner, layer.filters, 1, pointwise, layer.bias, pointwise=True)
    return [(f"{name}_depthwise", one), (name, two)]


def _inputs(layer: Any) -> int:
    axis = -1 if layer.data_format == "channels_last" else 1
    return int(layer.input_spec.axes[axis])


def _conv(
    kind: Any,
    layer: Any,
    depth: int,
    units: int,
    groups: int,
    kernel: Any,
    bias: Any,
    pointwise: bool = False,
) -> nn.Module:
    weight = _value(kernel).movedim((-1, -2), (0, 1))  # Keras has [height, width, channels, units]
    if kind in DEPTHWISE.values():  # and [height, width, channels, multiples]
        weight = weight.transpose(0, 1).flatten(0, 1)[:, None]
    size: Any = tuple(weight.shape[2:])
    ones = (1,) * len(size)
    stride, dilation = (ones, ones) if pointwise else (_each(layer.strides, ones), _each(layer.dilation_rate, ones))
    padded = "" if pointwise or layer.padding == "valid" else layer.padding
    odd = all(gap * (side - 1) % 2 == 0 for side, gap in zip(size, dilation, strict=True))
    padding: Any = 0
    if padded == "same" and stride == ones and odd:
        padded, padding = "", tuple(gap * (side - 1) // 2 for side, gap in zip(size, dilation, strict=True))
    with torch.device("meta"):
        module = kind(depth, units, size, stride, padding, dilation, groups, bias is not None)
    if padded:
        module.padded, module.padding = padded, padded
    _give(module, weight=(kernel, weight), bias=(bias, _value(bias)))
    return module


def _each(value: Any, ones: tuple[int, ...]) -> tuple[int, ...]:
    """Return a setting for each axis, where a layer has one for all."""
    return tuple(value) if isinstance(value, list | tuple) else (value,) * len(ones)


def _transposed(layer: Any, name: str, layout: MapLayout) -> list[Part]:
    if layout.axes != 2:
        return [(name, keras_operation(layer, layout))]
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


def _dense(layer: Any, name: str, layout: MapLayout) -> list[Part]:
    weight = _value(layer.kernel).t()
    with torch.device("meta"):
        module = Dense(weight.shape[1], weight.shape[0], layer.bias is not None)
    _give(module, weight=(layer.kernel, weight), bias=(layer.bias, _value(layer.bias)))
    return [(name, module)]


def _is_over_channels(layer: Any, layout: MapLayout) -> bool:
    """Return whether a layer normalises the channels of maps, or of features."""
    rank, of_maps = layer.input_spec.ndim, layout.axes + 2
    channels = of_maps - 1 if layout.last and rank == of_maps else 1
    return rank in (2, of_maps) and layer.axis % rank == channels


def _group_normalisation(layer: Any, name: str, layout: MapLayout) -> list[Part]:
    if not _is_over_channels(layer, layout):
        return [(name, keras_operation(layer, layout))]
    (depth,) = layer.input_spec.axes.values()
    module = GroupNormalization(layer.groups, depth, layer.epsilon, affine=False)
    _give(module, weight=(layer.gamma, _value(layer.gamma)), bias=(layer.beta, _value(layer.beta)))
    return [(name, module)]


def _normalisation(layer: Any, name: str, layout: MapLayout) -> list[Part]:
    if not _is_over_channels(layer, layout):
        return [(name, keras_operation(layer, layout))]
    mean, variance = _value(layer.moving_mean), _value(layer.moving_variance)
    with torch.device("meta"):
        module = BatchNormalization(len(mean), layer.epsilon, 1 - layer.momentum)
    module.weight = module.bias = module.num_batches_tracked = None  # type: ignore[assignment]
    _give(module, weight=(layer.gamma, _value(layer.gamma)), bias=(layer.beta, _value(layer.beta)))
    module.running_mean, module.running_var = mean, variance
    return [(name, module)]


def _max_pool(layer: Any, name: str, layout: MapLayout) -> list[Part]:
    kind: Any = {1: MaxPooling1D, 2: MaxPooling2D, 3: MaxPooling3D}[layout.axes]
    module = kind(tuple(layer.pool_size), tuple(layer.strides))
    module.padded = "same" if layer.padding == "same" else ""
    return [(name, module)]


def _average_pool(layer: Any, name: str, layout: MapLayout) -> list[Part]:
    if layer.padding == "same":
        return [(name, keras_operation(layer, layout))]
    kind: Any = {1: AveragePooling1D, 2: AveragePooling2D, 3: AveragePooling3D}[layout.axes]
    return [(name, kind(tuple(layer.pool_size), tuple(layer.strides)))]


def _value(variable: Any) -> Any:
    """Return a variable's values, or those that a layer computes from several; None for None."""
    return None if variable is None else getattr(variable, "value", variable).detach()


def _give(module: nn.Module, **weights: tuple[Any, Any]) -> None:
    """Give a module parameters that share the memory of Keras's variables."""
    for name, (variable, values) in weights.items():
        if values is not None:
            setattr(module, name, nn.Parameter(values, getattr(variable, "trainable", False)))


_TRANSLATIONS: dict[str, Callable[[Any, str, MapLayout], list[Part]]] = {
    "ConvND": _convolution,
    "DepthwiseConvND": _depthwise,
    "SeparableConvND": _separable,
    "ConvNDTranspose": _transposed,
    "Dense": _dense,
    "BatchNormalization": _normalisation,
    "GroupNormalization": _group_normalisation,
    "MaxPoolingND": _max_pool,
    "AveragePoolingND": _average_pool,
}
"""By the class of the layer, with the network's number of axes as N."""
