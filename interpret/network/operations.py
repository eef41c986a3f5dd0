"""The table of operations: for each function that a network may call, what it does to a signal, the grid and the units.

All that follow a network's operations read it: the rules (`interpret.backprop.rules`), receptive fields, connectivity,
the windowed forward pass, written-out rectifiers and probabilities. `register_operation` adds rows to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

import torch.nn.functional as F


class Backward(StrEnum):
    """How the signal passes back through an operation; see the table of `interpret.BackwardRule`."""

    LINEAR = "linear"
    """By the transpose, in every rule."""
    SHAPE = "shape"
    """Linear; values are only moved or copied, so that a gate stays a gate."""
    CAST = "cast"
    """Linear; values get another type."""
    BILINEAR = "bilinear"
    """Linear in each factor: by the other factor, held constant, if that is a constant or a gate."""
    RECTIFIER = "rectifier"
    """As the rule says."""
    CLAMP = "clamp"
    """A rectifier if the lower bound is at least 0; otherwise as SLOPE."""
    SLOPE = "slope"
    """By the operation's derivative, in every rule. Its result may be a gate: tanh, sigmoid, softmax."""
    NORMALISATION = "normalisation"
    """By the scale that the statistics give, held constant."""
    PRODUCT = "product"
    """By the other factor, held constant, if that is a gate."""
    QUOTIENT = "quotient"
    """By the divisor, held constant."""
    ATTENTION = "attention"
    """Along the values; all else, and with it the attention weights, is held constant."""
    SAMPLING = "sampling"
    """Along the input; where it is sampled, and by what kernels, is held constant."""
    RECURRENT = "recurrent"
    """Step by step, with the gates held constant."""
    MAX_POOL = "max_pool"
    """To the switches."""
    MAXIMUM = "maximum"
    """To the larger of several signals; with a constant of at least 0, a rectifier."""
    CHOICE = "choice"
    """Covered only as a part of a rectifier that is written out."""
    QUERY = "query"
    """Not at all: it asks for something other than values, such as a shape."""


class Grid(StrEnum):
    """How the positions of an operation's result, along y and x, follow from those of its operands."""

    ELEMENTWISE = "elementwise"
    """The same positions as the first operand, each element a function of the element there."""
    BROADCAST = "broadcast"
    """The same positions, each element a function of the elements there of all operands."""
    CONVERT = "convert"
    """The same positions as the first operand; another gives only its type."""
    STATISTICS = "statistics"
    """The same positions, unless statistics are taken from the image."""
    CHANNELS = "channels"
    """The same positions, over neighbouring channels."""
    LAST_DIMENSION = "last dimension"
    """The same positions, if the last dimension is not one of them."""
    TRAILING = "trailing dimensions"
    """The same positions, if the normalised shape does not reach them."""
    ALONG = "along dimensions"
    """The same positions, if the dimensions that it works along are others."""
    EXTREMUM = "extremum"
    """As BROADCAST of two operands, as ALONG of one."""
    CONCATENATE = "concatenate"
    """The same positions, if the operands are joined along another dimension."""
    LAYOUT = "layout"
    """Elements are moved."""
    SPLIT = "split"
    """Elements are moved into several results."""
    PAD = "pad"
    CONVOLUTION = "convolution"
    TRANSPOSED_CONVOLUTION = "transposed convolution"
    MAX_POOL = "max pool"
    AVERAGE_POOL = "average pool"
    POWER_POOL = "power pool"
    ADAPTIVE_POOL = "adaptive pool"
    RESAMPLE = "resample"
    """The positions nearby, on a grid of another size."""
    SAMPLE = "sample"
    """The positions that a second operand names."""
    WINDOW = "window"
    """A window of each position, as `Operation.window` says."""
    NEW = "new"
    """No positions: the values do not depend on the operands'."""
    WRITE = "write"
    """Any: the first operand is written into and not returned."""


@dataclass(frozen=True)
class Operation:
    """What an operation is; the defaults are those of one that is not known.

    >>> import torch
    >>> relu = operation_of(torch.relu)
    >>> str(relu.backward), str(relu.grid), relu.mixes_units
    ('rectifier', 'elementwise', False)
    """

    backward: Backward | None = None
    """How the signal passes back; None: the rules do not cover it."""
    grid: Grid | None = None
    """How positions follow from positions; None: each position may depend on all."""
    mixes_units: bool = False
    """Whether a channel of the result is another unit than that channel of the operand, whatever the shapes say."""
    in_rectifiers: bool = False
    """Whether written-out rectifiers are followed through it, as through the sigmoid of x·sigmoid(x)."""
    dim: int = 1
    """The position of the argument that says along which dimensions it works."""
    window: Callable[..., tuple[Any, Any, Any]] | None = None
    """From the operation's arguments, the size, stride and padding of its windows."""

    @property
    def is_linear(self) -> bool:
        """Whether it is linear in its first operand, with no other that carries the signal."""
        return self.backward in (Backward.LINEAR, Backward.SHAPE, Backward.CAST, Backward.BILINEAR)

    @property
    def is_local(self) -> bool:
        """Whether each position of the result depends on that position of the operands alone."""
        return self.grid in (Grid.ELEMENTWISE, Grid.BROADCAST, Grid.CONVERT, Grid.STATISTICS)

    @property
    def keeps_values(self) -> bool:
        """Whether the result holds the operands' values, only arranged in another way."""
        return self.backward in (Backward.SHAPE, Backward.CAST) or self.grid is Grid.CONCATENATE


UNKNOWN = Operation()
PROPERTY = Operation(Backward.QUERY)
"""A property of a tensor that has no row of its own."""


def operation_name(function: Callable[..., Any]) -> str:
    """Return what the table calls a torch function, method, property or operator.

    >>> import torch
    >>> [operation_name(one) for one in (torch.Tensor.add_, torch.Tensor.__iadd__, torch.ops.aten.add_.Tensor)]
    ['add', 'add', 'add']
    >>> operation_name(torch.Tensor.mT.__get__), operation_name(torch.ops.aten._to_copy.default)
    ('get.mT', 'to')

    In-place forms, operators and aten's variants of an operation have one name.
    """
    name = getattr(function, "__name__", "") or repr(function)
    if name in ("__get__", "__set__"):
        return f"{name.strip('_')}.{getattr(getattr(function, '__self__', None), '__name__', '')}"
    return _name_of_all_variants(name)


@lru_cache(maxsize=4096)
def _name_of_all_variants(name: str) -> str:
    name = name.partition(".")[0].strip("_")
    return _SAME_AS.get(name, name)


def operation_of(function: Callable[..., Any]) -> Operation:
    """Return what a torch function, method, property or operator does: `UNKNOWN` where the table has no row for it."""
    own: Operation | None = getattr(function, "interpret_operation", None)  # of one that is registered as a whole
    found = own or REGISTERED.get(function) or BY_FUNCTION.get(function)
    if found is not None:
        return found
    name = operation_name(function)
    found = REGISTERED.get(name) or _BY_NAME.get(name)
    if found is None:
        return PROPERTY if getattr(function, "__name__", "") in ("__get__", "__set__") else UNKNOWN
    return found


def names_of(backward: Backward | None = None) -> set[str]:
    """Return the names of the operations through which the signal passes in one way; None: of all.

    >>> sorted(names_of(Backward.PRODUCT))
    ['mul', 'multiply']
    """
    return {name for name, operation in _BY_NAME.items() if backward in (None, operation.backward)}


def is_registered(name: str) -> bool:
    """Return whether a user has added an operation of a name."""
    return name in REGISTERED


def is_in_place(function: Callable[..., Any]) -> bool:
    """Return whether a torch function, method or operator writes its result into its first operand.

    >>> import torch
    >>> is_in_place(torch.relu_), is_in_place(torch.Tensor.__imul__), is_in_place(torch.Tensor.__invert__)
    (True, True, False)
    """
    name = getattr(function, "__name__", "").partition(".")[0]
    return name[2:-2] in _IN_PLACE_OPERATORS if name.endswith("__") else name.endswith("_")


_IN_PLACE_OPERATORS = {
    f"i{name}" for name in "add sub mul div truediv floordiv pow mod matmul and or xor lshift rshift".split()
}

_SAME_AS = {
    **{name: name[1:] for name in _IN_PLACE_OPERATORS},
    **{f"r{name}": name for name in ("add", "mul", "and", "or", "xor")},
    **dict.fromkeys(("truediv", "itruediv"), "div"),
    "rtruediv": "rdiv",
    # operators of aten
    "to_copy": "to",
    "prelu_kernel": "prelu",
    **dict.fromkeys(
        """native_batch_norm native_batch_norm_legit native_batch_norm_legit_no_training cudnn_batch_norm
        miopen_batch_norm""".split(),
        "batch_norm",
    ),
    "unsafe_view": "view",
    "slice": "narrow",
    "index": "getitem",
    "safe_softmax": "softmax",
    "log_sigmoid_forward": "log_sigmoid",
    "logsigmoid": "log_sigmoid",
    "special_expit": "sigmoid",
    **{f"special_{name}": name for name in "softmax log_softmax erf erfc exp2 expm1 log1p".split()},
}
"""Names of the same operation that the table has under another."""

_B, _G = Backward, Grid

_ROWS: dict[str, Operation] = {
    # rectifiers and other functions of each element
    """relu relu6 leaky_relu prelu elu selu celu silu gelu mish softplus hardswish threshold""": Operation(
        _B.RECTIFIER, _G.ELEMENTWISE, in_rectifiers=True
    ),
    "rrelu": Operation(_B.RECTIFIER, _G.ELEMENTWISE),
    "hardtanh": Operation(_B.CLAMP, _G.ELEMENTWISE, in_rectifiers=True),
    "clamp clamp_min clamp_max clip": Operation(_B.CLAMP, _G.BROADCAST, in_rectifiers=True),
    "tanh sigmoid hardsigmoid log_sigmoid softsign": Operation(_B.SLOPE, _G.ELEMENTWISE, in_rectifiers=True),
    "softmax log_softmax": Operation(_B.SLOPE, _G.ALONG),
    """abs absolute sign sgn exp exp2 expm1 log log1p sqrt rsqrt square reciprocal erf erfc atan arctan logical_not
    bitwise_not invert""": Operation(None, _G.ELEMENTWISE, in_rectifiers=True),
    """log2 log10 sin cos tan asin acos sinh cosh logit round floor ceil trunc frac nan_to_num softshrink hardshrink
    tanhshrink isnan isinf isfinite feature_dropout""": Operation(None, _G.ELEMENTWISE),
    # arithmetic
    "neg negative positive": Operation(_B.LINEAR, _G.ELEMENTWISE, in_rectifiers=True),
    "add sub rsub subtract": Operation(_B.LINEAR, _G.BROADCAST, in_rectifiers=True),
    "copy": Operation(_B.LINEAR, _G.BROADCAST),
    "mul multiply": Operation(_B.PRODUCT, _G.BROADCAST, in_rectifiers=True),
    "div divide true_divide": Operation(_B.QUOTIENT, _G.BROADCAST, in_rectifiers=True),
    "addcmul": Operation(_B.BILINEAR, _G.BROADCAST),
    "maximum": Operation(_B.MAXIMUM, _G.BROADCAST, in_rectifiers=True),
    "max": Operation(_B.MAXIMUM, _G.EXTREMUM, in_rectifiers=True),
    "amax": Operation(_B.MAXIMUM, _G.ALONG),
    "min": Operation(None, _G.EXTREMUM, in_rectifiers=True),
    "where masked_fill": Operation(_B.CHOICE, _G.BROADCAST, in_rectifiers=True),
    """rdiv pow rpow minimum gt lt ge le greater less greater_equal less_equal heaviside""": Operation(
        None, _G.BROADCAST, in_rectifiers=True
    ),
    """floor_divide floordiv rfloordiv remainder fmod mod rmod float_power addcdiv lerp fmax fmin eq ne logical_and
    logical_or logical_xor bitwise_and bitwise_or bitwise_xor and or xor atan2 hypot""": Operation(None, _G.BROADCAST),
    # over dimensions
    "mean sum cumsum": Operation(_B.LINEAR, _G.ALONG),
    """amin softmin glu prod std var argmax argmin logsumexp any all median sort argsort""": Operation(None, _G.ALONG),
    "norm normalize": Operation(None, _G.ALONG, dim=2),
    "batch_norm instance_norm": Operation(None, _G.STATISTICS),
    "layer_norm rms_norm": Operation(None, _G.TRAILING),
    "lstm gru rnn_tanh rnn_relu": Operation(_B.RECURRENT, mixes_units=True),
    # convolutions and products of matrices
    "conv1d conv2d conv3d": Operation(_B.BILINEAR, _G.CONVOLUTION, mixes_units=True),
    "conv_transpose1d conv_transpose2d conv_transpose3d": Operation(
        _B.BILINEAR, _G.TRANSPOSED_CONVOLUTION, mixes_units=True
    ),
    "linear matmul": Operation(_B.BILINEAR, _G.LAST_DIMENSION, mixes_units=True),
    "convolution bilinear rmatmul mm sparse_mm mv bmm addmm sparse_addmm addmv baddbmm einsum tensordot": Operation(
        _B.BILINEAR, mixes_units=True
    ),
    "scaled_dot_product_attention multi_head_attention_forward": Operation(_B.ATTENTION, mixes_units=True),
    # pools and windows
    """max_pool1d max_pool1d_with_indices max_pool2d max_pool2d_with_indices max_pool3d
    max_pool3d_with_indices""": Operation(_B.MAX_POOL, _G.MAX_POOL),
    """adaptive_max_pool1d adaptive_max_pool1d_with_indices adaptive_max_pool2d adaptive_max_pool2d_with_indices
    adaptive_max_pool3d adaptive_max_pool3d_with_indices""": Operation(_B.MAX_POOL, _G.ADAPTIVE_POOL),
    "avg_pool1d avg_pool2d avg_pool3d": Operation(_B.LINEAR, _G.AVERAGE_POOL),
    "lp_pool1d lp_pool2d lp_pool3d": Operation(None, _G.POWER_POOL),
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d": Operation(_B.LINEAR, _G.ADAPTIVE_POOL),
    "max_unpool1d max_unpool2d max_unpool3d fold unfold": Operation(_B.LINEAR),
    # linear in the features, whose boxes are constants; of `roi_pool`, by the switches
    "roi_align roi_pool ps_roi_align ps_roi_pool": Operation(_B.LINEAR),
    # Fourier transforms, and the parts of complex numbers, linear over the real numbers
    " ".join(
        f"fft_{inverse}{kind}fft{axes}" for inverse in ("", "i") for kind in ("", "r", "h") for axes in ("", "2", "n")
    ): Operation(_B.LINEAR),
    "fft_fftshift fft_ifftshift": Operation(_B.LINEAR, mixes_units=True),
    "real imag get.real get.imag view_as_real view_as_complex complex conj conj_physical resolve_conj": Operation(
        _B.LINEAR
    ),
    "grid_sample": Operation(_B.SAMPLING, _G.SAMPLE),
    "deform_conv2d": Operation(_B.SAMPLING, mixes_units=True),  # offsets have no bounds
    "interpolate upsample": Operation(_B.SHAPE, _G.RESAMPLE),
    "pad": Operation(_B.LINEAR, _G.PAD),
    # layout
    "permute transpose swapaxes swapdims movedim moveaxis t get.T get.mT get.H get.mH adjoint": Operation(
        _B.SHAPE, _G.LAYOUT, mixes_units=True
    ),
    """view view_as reshape reshape_as flatten unflatten squeeze unsqueeze expand expand_as broadcast_to repeat tile
    repeat_interleave getitem select narrow""": Operation(_B.SHAPE, _G.LAYOUT),
    "channel_shuffle native_channel_shuffle index_select pixel_unshuffle": Operation(
        _B.SHAPE, _G.LAYOUT, mixes_units=True
    ),
    "pixel_shuffle roll flip fliplr flipud rot90 gather take_along_dim": Operation(_B.LINEAR, mixes_units=True),
    "chunk split split_with_sizes tensor_split unsafe_chunk unsafe_split": Operation(_B.LINEAR, _G.SPLIT, dim=2),
    "unbind": Operation(_B.LINEAR, _G.SPLIT),
    "cat concat concatenate stack": Operation(_B.LINEAR, _G.CONCATENATE),
    "clone contiguous": Operation(_B.SHAPE, _G.ELEMENTWISE, in_rectifiers=True),
    "detach requires_grad alias cuda cpu": Operation(_B.SHAPE, _G.ELEMENTWISE),
    "to type type_as": Operation(_B.CAST, _G.CONVERT, in_rectifiers=True),
    "float double half bfloat16": Operation(_B.CAST, _G.ELEMENTWISE, in_rectifiers=True),
    """dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout""": Operation(
        _B.LINEAR, _G.ELEMENTWISE
    ),
    """hstack vstack dstack ravel diagonal tril triu broadcast_tensors index_add index_copy scatter scatter_add zero
    fill""": Operation(_B.LINEAR),
    "setitem": Operation(_B.LINEAR, _G.WRITE),
    # queries
    "set set.data set.real set.imag": Operation(_B.QUERY, _G.WRITE),
    "get.data": Operation(_B.QUERY, _G.ELEMENTWISE),
    """zeros_like ones_like empty_like full_like rand_like randn_like new_zeros new_ones new_empty
    new_full""": Operation(_B.QUERY, _G.NEW),
    """size sym_size sym_stride sym_numel dim ndimension numel nelement stride storage_offset element_size
    is_contiguous is_floating_point is_complex is_signed is_same_size is_inference get_device data_ptr len repr
    format has_names new_tensor hash register_hook retain_grad backward grad result_type""": Operation(_B.QUERY),
}

_BY_NAME: dict[str, Operation] = {name: operation for names, operation in _ROWS.items() for name in names.split()}

BY_FUNCTION: dict[Any, Operation] = {
    F.local_response_norm: Operation(_B.NORMALISATION, _G.CHANNELS),
    F.layer_norm: Operation(_B.NORMALISATION, _G.TRAILING),
    F.rms_norm: Operation(_B.NORMALISATION, _G.TRAILING),
    F.normalize: Operation(_B.NORMALISATION, _G.ALONG, dim=2),
    F.group_norm: Operation(_B.NORMALISATION),
    F.instance_norm: Operation(_B.NORMALISATION, _G.STATISTICS),
    F.batch_norm: Operation(_B.NORMALISATION, _G.STATISTICS),
}
"""Functions of `torch.nn.functional` whose namesakes in `torch` take other arguments."""

REGISTERED: dict[Any, Operation] = {}
"""What users have added, by name or function."""
