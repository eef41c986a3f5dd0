"""Masks: which weights of an attention are zero for every image, because a constant hides places from the softmax.

Shifted windows (Liu et al. 2021, "Swin Transformer", section 3.2) hold pixels from opposite borders of the image; a
mask that is added before the softmax keeps them apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from interpret.network.operations import Backward, Grid, operation_name
from interpret.tracing.boxes import compressed, moved

HIDDEN = 80.0
"""How far below the largest of a row a constant lies that hides a place from the softmax.

Networks add −100 or less. The weight is e⁻⁸⁰ = 2·10⁻³⁵ of the others', which no sum in single precision shows."""


@dataclass(frozen=True, eq=False)
class Mask:
    """What constants do to the elements of a tensor, which has these dimensions, of size 1 where all have the same."""

    values: Tensor
    """What was added to logits; of weights, whether each is zero."""
    of_weights: bool = False


UNKNOWN = Mask(torch.empty(0, device="meta"))
"""The mask of logits to which a constant without values was added, on the meta device."""


def mask_after(call: Any) -> Mask | None:
    """Return the mask of an operation's result, an `interpret.tracing.receptive_field.Call`; None if it has none.

    Where a mask is not followed, elements see more than they do: a bound.
    """
    name, operation = operation_name(call.func), call.operation
    try:
        if name in ("add", "sub", "masked_fill", "where"):
            return _added(call, name)
        first = call.operands[0].mask if call.operands else None
        if first is None or len(call.results) != 1:
            return None
        if name == "softmax":
            return _softmaxed(call, first)
        if operation.grid is Grid.LAYOUT and first is not UNKNOWN:
            return replace(first, values=moved(call, first.values, 0)[0])
        zeros_stay = first.of_weights and operation.backward in (Backward.PRODUCT, Backward.QUOTIENT)
        kept = operation.backward in (Backward.SHAPE, Backward.CAST) or name == "dropout" or zeros_stay
        reshaped = tuple(call.results[0].shape) != call.operands[0].shape and first is not UNKNOWN
        return first if kept and not reshaped else None
    except (RuntimeError, IndexError, ValueError, TypeError):  # another form of the operation than is known here
        return None


def zeros_in(call: Any, mask: Mask | None) -> Tensor | None:
    """Return which weights are zero in what an operation does; None if none are known to be.

    Of a softmax these are its results, of which `mask` is the mask; of a product of matrices the elements of its first
    factor; of attention the weights [..., queries, keys] that it keeps to itself.
    """
    name = operation_name(call.func)
    if name == "softmax":
        return mask.values if mask is not None and mask.of_weights else None
    if name in ("matmul", "mm", "bmm", "addmm", "baddbmm"):
        first = call.operands[-2].mask
        return first.values if first is not None and first.of_weights else None
    if name == "scaled_dot_product_attention":
        return _hidden_keys(call)
    return None


def needs_values(call: Any) -> bool:
    """Return whether constants that have no values, on the meta device, may hide places from a softmax."""
    name = operation_name(call.func)
    if name == "softmax":
        first = call.operands[0]
        return first.mask is UNKNOWN and first.sees_part
    given = call.argument(3, "attn_mask") if name == "scaled_dot_product_attention" else None
    return isinstance(given, Tensor) and given.is_meta and any(operand.sees_part for operand in call.operands)


def _hidden_keys(call: Any) -> Tensor | None:
    """Return which keys `scaled_dot_product_attention` hides from which queries."""
    given, causal = call.argument(3, "attn_mask"), call.argument(5, "is_causal", False)
    found = None
    if isinstance(given, Tensor) and not given.is_meta:
        values = given.detach().cpu()  # of booleans, those that are true are seen
        found = ~values if values.dtype == torch.bool else _hidden(values.double(), -1)
    if causal:
        queries, keys = (call.argument(place, name).shape[-2] for place, name in enumerate(("query", "key")))
        found = torch.ones(queries, keys, dtype=torch.bool).triu(1)
    return found if found is not None and bool(found.any()) else None


def _added(call: Any, name: str) -> Mask | None:
    """Return the sum of the constants that were added to the elements, or put in their place."""
    if not any(operand.sees_pixels for operand in call.operands) or call.kwargs.get("alpha", 1) != 1:
        return None
    condition, one, other = _chosen_between(call, name)
    known = [_part(call, one), _part(call, other)]
    if condition is not None:
        known.append(None if _operand(call, condition).sees_pixels else _values(condition))
    if any(part is None for part in known) or not any(isinstance(part, Tensor) for part in known):
        return None
    if any(part.is_meta for part in known if isinstance(part, Tensor)):
        return UNKNOWN
    values = _combined(name, *(torch.as_tensor(part) for part in known))
    rank = call.results[0].ndim
    values = compressed(values.double().reshape((1,) * (rank - values.ndim) + tuple(values.shape)))
    return Mask(values) if bool(values.min() <= values.max() - HIDDEN) else None


def _combined(name: str, one: Tensor, other: Tensor, condition: Tensor | None = None) -> Tensor:
    if condition is not None:
        return torch.where(condition, one, other)
    return one + other if name == "add" else one - other


def _chosen_between(call: Any, name: str) -> tuple[Any, Any, Any]:
    """Return two operands, and the condition by which one of them is taken; None if they are added."""
    if name == "where":
        return call.argument(0, "condition"), call.argument(1, "input"), call.argument(2, "other")
    if name == "masked_fill":
        return call.argument(1, "mask"), call.argument(2, "value"), call.args[0]
    return None, call.argument(0, "input"), call.argument(1, "other")


def _part(call: Any, value: Any) -> float | Tensor | None:
    """Return what an operand adds to elements: a constant its values, one that sees the image 0; None: not known."""
    if not isinstance(value, Tensor):
        return float(value) if isinstance(value, (int, float)) else None
    operand = _operand(call, value)
    if operand.mask is not None:
        return None if operand.mask.of_weights else operand.mask.values
    return 0.0 if operand.sees_pixels else _values(value)


def _values(constant: Tensor) -> float | Tensor | None:
    """Return a constant's values; on the meta device a tensor without, None if they cannot tell places apart."""
    if constant.is_meta:
        return constant if constant.dim() > 1 and min(constant.shape[-2:]) > 1 else None
    return constant.detach().cpu()


def _operand(call: Any, value: Tensor) -> Any:
    return next(operand for operand in call.operands if operand.tensor is value)


def _softmaxed(call: Any, mask: Mask) -> Mask | None:
    dim = call.argument(1, "dim")
    if mask is UNKNOWN or mask.of_weights:
        return None
    rank = len(call.operands[0].shape)
    zeros = _hidden(mask.values, dim if dim < 0 else dim - rank)
    return Mask(zeros, of_weights=True) if bool(zeros.any()) else None


def _hidden(values: Tensor, dim: int) -> Tensor:
    """Return which of some logits a softmax makes zero, seen from what constants have added to them."""
    largest = values.amax(dim, keepdim=True)
    return (values <= largest - HIDDEN) & (largest > -math.inf)
