"""Convolution arithmetic: the formula for the size of a layer's output, with the numbers filled in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from interpret.network.layers import CONVOLUTIONS

_CONVOLUTIONS, _TRANSPOSED = zip(*CONVOLUTIONS.values(), strict=True)
_KINDS = ("MaxPool", "AvgPool", "LPPool", "AdaptiveAvgPool", "AdaptiveMaxPool")
_POOLS = tuple(tuple(getattr(nn, f"{kind}{axes}d") for axes in CONVOLUTIONS) for kind in _KINDS)
_ADAPTIVE = (*_POOLS[-2], *_POOLS[-1])


def is_convolution(layer: nn.Module) -> bool:
    """Return whether a layer is a convolution of torch along any number of axes, transposed or not."""
    return isinstance(layer, (*_CONVOLUTIONS, *_TRANSPOSED))


def size_formula(layer: nn.Module, input_shape: Sequence[int] | None, output_shape: Sequence[int]) -> str | None:
    """Return how the size of a layer's output follows from that of its input: (W − K + 2P) / S + 1, filled in.

    >>> size_formula(nn.Conv2d(1, 8, 5), (1, 28, 28), (8, 24, 24))
    '(28 − 5 + 2·0)/1 + 1 = 24'
    >>> size_formula(nn.Conv2d(3, 96, 7, stride=2, padding=1), (3, 224, 224), (96, 110, 110))
    '⌊(224 − 7 + 2·1)/2⌋ + 1 = 110'
    >>> size_formula(nn.MaxPool2d(3, 2, ceil_mode=True), (96, 110, 110), (96, 55, 55))
    '⌈(110 − 3 + 2·0)/2⌉ + 1 = 55'

    With dilation D the kernel spans D·(K − 1) + 1. For a transposed convolution the formula is
    (W − 1)·S − 2P + D·(K − 1) + Q + 1, with Q its output padding. Brackets show how the division is rounded. If height
    and width differ, both are given, the height first; of a volume, the depth before them.

    Args:
        layer: a convolution, pooling, flattening or linear layer.
        input_shape: (channels, height, width) of its input; (channels, length) of a signal.
        output_shape: the same of its output.

    Returns:
        None for a layer of another kind, and if the output has not the size of the formula.

    Source: V. Dumoulin and F. Visin, "A guide to convolution arithmetic for deep learning", 2016, relationships 6,
    14 and 15; rounding up and its exception as torch's pooling layers document them.
    """
    if input_shape is None:
        return None
    if isinstance(layer, nn.Flatten):
        return f"{'·'.join(map(str, input_shape))} = {math.prod(input_shape)}"
    axes = next(
        (
            kinds.index(kind) + 1
            for kinds in (_CONVOLUTIONS, _TRANSPOSED, *_POOLS)
            for kind in kinds
            if isinstance(layer, kind)
        ),
        None,
    )
    if axes is None or not len(input_shape) == len(output_shape) == axes + 1:
        return None
    if isinstance(layer, _ADAPTIVE):
        return f"set to {' × '.join(map(str, output_shape[1:]))}"
    sides = [_side(layer, axis, size) for axis, size in enumerate(input_shape[1:])]
    if tuple(size for _, size in sides) != tuple(output_shape[1:]):
        return None
    texts = [f"{text} = {size}" for text, size in sides]
    return texts[0] if len(set(texts)) == 1 else "; ".join(texts)


def _side(layer: Any, axis: int, size: int) -> tuple[str, int]:
    """Return the formula for one side, and its result."""
    kernel, stride = _at(layer.kernel_size, axis), _at(layer.stride, axis)
    dilation = _at(getattr(layer, "dilation", 1), axis)
    span = dilation * (kernel - 1) + 1
    spelled = str(kernel) if dilation == 1 else f"({dilation}·({kernel} − 1) + 1)"
    if isinstance(layer, _TRANSPOSED):
        padding, more = _at(layer.padding, axis), _at(layer.output_padding, axis)
        spelled = str(kernel) if dilation == 1 else f"{dilation}·({kernel} − 1) + 1"
        text = f"({size} − 1)·{stride} − 2·{padding} + {spelled}" + (f" + {more}" if more else "")
        return text, (size - 1) * stride - 2 * padding + span + more
    padding = getattr(layer, "padding", 0)
    if padding == "same":  # one more on one side if the total is odd
        before = max((math.ceil(size / stride) - 1) * stride + span - size, 0)
        spelled_padding = str(before)
    else:
        one_side = 0 if padding == "valid" else _at(padding, axis)
        before, spelled_padding = 2 * one_side, f"2·{one_side}"
    free = size - span + before
    steps = free // stride
    rounded = f"({size} − {spelled} + {spelled_padding})/{stride}"
    if free % stride:
        up = getattr(layer, "ceil_mode", False)
        rounded = f"⌈{rounded}⌉" if up else f"⌊{rounded}⌋"
        # a window that would start beyond the image and its padding is left out
        if up and (steps + 1) * stride < size + before // 2:
            steps += 1
        elif up:
            return f"{rounded} + 1 − 1", steps + 1
    return f"{rounded} + 1", steps + 1


def _at(value: Any, axis: int) -> int:
    return int(value[axis] if isinstance(value, Sequence) else value)
