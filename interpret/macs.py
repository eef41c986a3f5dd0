"""Multiply-accumulates, counted as the operators run."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class MacCounter(TorchDispatchMode):
    """Counts the multiply-accumulates of convolutions and matrix products in the `with` block.

    They are counted from the shapes, so that tensors on the `meta` device do: a product for each weight at each place
    that it is laid on. Biases, norms, pools and rectifiers count nothing, as in torchvision's published numbers.

    >>> with torch.no_grad(), MacCounter() as counter:
    ...     _ = torch.nn.Conv2d(3, 8, 5)(torch.zeros(1, 3, 12, 12))  # 8×8 places, 8×3×5×5 weights
    >>> counter.total
    38400
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _MACS:
            self.total += _MACS[func](result, *args)
        return result


def _convolution(result: Tensor, image: Tensor, weight: Tensor, *settings: Any) -> int:
    transposed = settings[4]
    places = (image if transposed else result).shape
    return places[0] * math.prod(places[2:]) * weight.numel()


def _product(result: Tensor, left: Tensor, right: Tensor, *_: object) -> int:
    return left.numel() * right.shape[-1]


def _added_product(result: Tensor, bias: Tensor, left: Tensor, right: Tensor, *_: object) -> int:
    return left.numel() * right.shape[-1]


def _attention(result: Any, query: Tensor, key: Tensor, value: Tensor, *_: object) -> int:
    return math.prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])


_aten = torch.ops.aten
_MACS: dict[Any, Callable[..., int]] = {
    _aten.convolution.default: _convolution,
    _aten.mm.default: _product,
    _aten.bmm.default: _product,
    _aten.addmm.default: _added_product,
    _aten.baddbmm.default: _added_product,
    _aten._scaled_dot_product_flash_attention_for_cpu.default: _attention,
    _aten._scaled_dot_product_flash_attention.default: _attention,
    _aten._scaled_dot_product_efficient_attention.default: _attention,
    _aten._scaled_dot_product_cudnn_attention.default: _attention,
}
