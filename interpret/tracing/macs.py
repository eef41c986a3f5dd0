"""Multiply-accumulates, counted as the operators run.

`torch.utils.flop_counter` gives the same numbers for convolutions and matrix products, twice as floating-point
operations. On a processor it counts nothing for LSTMs, attention and transformer encoders; anywhere, for `nn.Bilinear`,
products with vectors, weighted sums of embeddings and deformable convolutions (torch 2.14); nor does it say what it
leaves out. So the formulas are here; `tests/tracing/test_macs.py` compares the two.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from torch import Tensor

from interpret.network.torch_internals import TorchDispatchMode, operator_name


class MacCounter(TorchDispatchMode):
    """Counts the multiply-accumulates of convolutions and matrix products in the `with` block.

    They are counted from the shapes, also for tensors on the `meta` device: one for each weight at each position where
    it is applied. Biases, norms, pools, rectifiers, resampling and elementwise products count nothing, as in
    torchvision's published numbers. Operations that multiply but are not counted are listed in `uncounted`.

    >>> import torch
    >>> with torch.no_grad(), MacCounter() as counter:
    ...     _ = torch.nn.Conv2d(3, 8, 5)(torch.zeros(1, 3, 12, 12))  # 8×8 places, 8×3×5×5 weights
    ...     _ = torch.fft.rfft(torch.zeros(16))
    >>> counter.total, counter.uncounted
    (38400, ['fft_r2c'])
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        self.uncounted: list[str] = []
        """The operations that multiply but are not counted, one entry for each run, in order."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        # in place or not, it is the same operation
        name = operator_name(func).removesuffix("_")
        if name in _MACS:
            self.total += _MACS[name](result, *args)
        elif _multiplies(name):
            self.uncounted.append(name.partition("::")[2].lstrip("_"))
        return result


def _multiplies(name: str) -> bool:
    """Return whether the name of an operation without a formula suggests multiply-accumulates."""
    library, _, operation = name.partition("::")
    if library == "aten":
        return re.search(_PRODUCTS, operation) is not None and re.search(_NO_PRODUCTS, operation) is None
    # torchvision's other operators do not multiply; those of other libraries are unknown
    return library not in ("prim", "prims", "profiler", "c10d", "torchvision")


_PRODUCTS = (
    r"fft|linalg|cdist|rnn|lstm|gru|attention|transformer_encoder|trilinear|cholesky|triangular_solve|lu_solve|geqrf|"
    r"ormqr|lstsq|svd|pinverse|matrix_exp|matrix_power|(^|_)conv(?!ert)|(?<![a-z])(add|badd|sspadd|hsp|s)*b?mm(?![a-z])|"
    r"(?<![a-z])(add)?mv(?![a-z])|(?<![a-z])v?dot(?![a-z])|linear(?!ly)(?!_space)|matmul"
)


_NO_PRODUCTS = (
    r"upsample|norm$|check_errors|diagonal|cross|vander|thnn_fused|flatten_weight|reorder|freq$|shift$|_cache"
)
"""Parts of names that match the above and are no products, such as resampling, or products that are counted already."""


def _convolution(result: Tensor, image: Tensor, weight: Tensor, *settings: Any) -> int:
    transposed = settings[4]
    places = (image if transposed else result).shape
    return places[0] * math.prod(places[2:]) * weight.numel()


def _deformable(result: Tensor, image: Tensor, weight: Tensor, *_: object) -> int:
    return result.shape[0] * math.prod(result.shape[2:]) * weight.numel()


def _product(result: Tensor, left: Tensor, right: Tensor, *_: object) -> int:
    return left.numel() * right.shape[-1]


def _added_product(result: Tensor, bias: Tensor, left: Tensor, right: Tensor, *_: object) -> int:
    return _product(result, left, right)


def _with_vector(result: Tensor, left: Tensor, *_: object) -> int:
    return left.numel()


def _added_with_vector(result: Tensor, bias: Tensor, left: Tensor, *_: object) -> int:
    return _with_vector(result, left)


def _bilinear(result: Tensor, one: Tensor, two: Tensor, three: Tensor, *expanded: Any, unroll_dim: int = 1) -> int:
    """Count the broadcast of three tensors: for `nn.Bilinear`, one for each weight and each row."""
    shapes = []
    for tensor, dims in zip((one, two, three), expanded, strict=False):
        shape = list(tensor.shape)
        for dim in sorted(dims):
            shape.insert(dim, 1)
        shapes.append(shape)
    return math.prod(map(max, *shapes))


def _attention(result: Any, query: Tensor, key: Tensor, value: Tensor, *_: object) -> int:
    return math.prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])


def _multi_head(
    result: Any, query: Tensor, key: Tensor, value: Tensor, width: int, heads: int, qkv: Tensor, _: Any, out: Tensor,
    *__: object,
) -> int:  # fmt: skip
    """Count the projections of queries, keys and values, the attention, and the output projection."""
    queries, keys = math.prod(query.shape[:-1]), math.prod(key.shape[:-1])
    projections = (queries + 2 * keys) * qkv.numel() // 3 + queries * out.numel()
    return projections + queries * key.shape[-2] * 2 * width


def _encoder_layer(result: Tensor, source: Tensor, width: int, heads: int, *parts: Any) -> int:
    qkv, qkv_bias, out = parts[:3]
    places = math.prod(source.shape[:-1])
    attention = _multi_head(result, source, source, source, width, heads, qkv, qkv_bias, out)
    # the weights and biases of two norms come before those of the two linear layers
    return attention + places * (parts[11].numel() + parts[13].numel())


def _recurrent_layer(result: Any, sequence: Tensor, of_input: Tensor, of_state: Tensor, *_: object) -> int:
    """Count one layer in one direction: every step multiplies its input and the previous state by all their weights."""
    return math.prod(sequence.shape[:-1]) * (of_input.numel() + of_state.numel())


def _recurrent(result: Any, sequence: Tensor, weights: list[Tensor], *_: object) -> int:
    """Count all layers and directions on a GPU, where one operation runs them."""
    return math.prod(sequence.shape[:-1]) * sum(weight.numel() for weight in weights if weight.dim() == 2)


def _bag(result: Any, table: Tensor, indices: Tensor, *settings: Any) -> int:
    """Count a weighted sum of embeddings; a plain sum or mean has no products."""
    weighted = len(settings) > 4 and settings[4] is not None
    return indices.numel() * table.shape[1] if weighted else 0


_MACS: dict[str, Callable[..., int]] = {
    "aten::convolution": _convolution,
    "torchvision::deform_conv2d": _deformable,
    "aten::mm": _product,
    "aten::bmm": _product,
    "aten::_int_mm": _product,
    "aten::_scaled_mm": _product,
    "aten::addmm": _added_product,
    "aten::baddbmm": _added_product,
    "aten::addbmm": _added_product,
    "aten::mv": _with_vector,
    "aten::dot": _with_vector,
    "aten::vdot": _with_vector,
    "aten::addmv": _added_with_vector,
    "aten::_trilinear": _bilinear,
    "aten::_scaled_dot_product_flash_attention_for_cpu": _attention,
    "aten::_scaled_dot_product_flash_attention": _attention,
    "aten::_scaled_dot_product_efficient_attention": _attention,
    "aten::_scaled_dot_product_cudnn_attention": _attention,
    "aten::_scaled_dot_product_fused_attention_overrideable": _attention,
    "aten::_native_multi_head_attention": _multi_head,
    "aten::_transformer_encoder_layer_fwd": _encoder_layer,
    "aten::mkldnn_rnn_layer": _recurrent_layer,
    "aten::_cudnn_rnn": _recurrent,
    "aten::miopen_rnn": _recurrent,
    "aten::_embedding_bag": _bag,
    "aten::_embedding_bag_forward_only": _bag,
}
