"""Gates: which factor of a product of two signals the rules hold constant."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from interpret.network.operations import Backward, Grid, Operation, is_in_place, operation_name, operation_of

MARK = "interpret"
"""Key in the metadata of nodes of autograd's graph."""

_QUERIES = "interpret queries"
"""Key there for the numbers of a node's results that were held as queries."""

Role = Literal["seen", "weights", "gate", "pooled", "bounded", "activation", "clamped", "query", "weighted", "context"]
"""The value there. "weights": the tensor came out of a softmax, "gate": of a sigmoid, "pooled": of a reduction that
kept its dimensions, "bounded": of tanh, "activation": of a rectifier, "clamped": of a clamp, "query": it was held in a
product with a context; "weighted": of a product of weights with as large a tensor, "context": of a product of matrices
with one of these held; "seen": of any other operation that a rule has overridden."""

_HELD: tuple[tuple[Role, ...], ...] = (
    ("weights", "gate"),
    ("pooled",),
    ("bounded",),
    ("activation",),
    ("clamped",),
    ("query",),
)
"""The roles of a factor that is held constant, those that decide first at the beginning: in tanh(a)·sigmoid(b) the
sigmoid, which is between 0 and 1, is the gate. What was pooled is one also in a map of a single position, over which it
is not broadcast. A clamp decides late: it often only keeps numbers from overflowing."""
_HELD_IN_MATRICES: tuple[Role, ...] = ("weighted",)
"""Those that decide after these in a product of matrices: in a state space model the weights of the input's places,
softmax(a)·b, are parameters that depend on the image (Jafari et al. 2024, "MambaLRP")."""


def squashed_role(func: Callable[..., Any]) -> Role:
    """Return the role of what a function gives whose backward pass is its derivative.

    >>> squashed_role(torch.softmax), squashed_role(torch.sigmoid), squashed_role(torch.tanh)
    ('weights', 'gate', 'bounded')
    """
    name = operation_name(func)
    if name in ("sigmoid", "hardsigmoid"):
        return "gate"
    if name in ("clamp", "clip", "clamp_min", "clamp_max"):
        return "clamped"
    return "weights" if name == "softmax" else "bounded"


def marks(value: Tensor) -> dict[str, Any]:
    """Return the metadata of the node that made a tensor."""
    node: Any = value.grad_fn
    return {} if node is None else node.metadata


def mark(value: Any, role: Role) -> None:
    """Note the role of a tensor, unless it has one."""
    if isinstance(value, Tensor):
        marks(value).setdefault(MARK, role)


def role_of(value: Tensor) -> Role:
    """Return the role of a tensor."""
    known = marks(value)
    role: Role = known.get(MARK, "seen")
    return "query" if role == "seen" and value.output_nr in known.get(_QUERIES, ()) else role


def mark_product(result: Any, gate: Tensor, signals: Sequence[Tensor], of_matrices: bool) -> None:
    """Note the role of a product in which a gate was held, and that a query was."""
    roles = [role_of(one) for one in signals if one is not gate]
    if of_matrices:
        mark(result, "context")
        if "context" in roles:
            held = marks(gate)
            held[_QUERIES] = {*held.get(_QUERIES, ()), gate.output_nr}
    elif "context" in roles:
        mark(result, "context")
    elif role_of(gate) == "weights" and all(one.shape == gate.shape for one in signals):
        mark(result, "weighted")


def keeps_role(operation: Operation, role: Role) -> bool:
    """Return whether a gate or an activation remains one through an operation on it alone.

    It does where values are moved, copied, dropped out, cast, scaled or shifted by constants. Weights of attention
    remain what they are through a matrix or convolution of constants, too, which mixes heads, and so does what
    attention has summed up.
    """
    by_element = operation.grid in (Grid.ELEMENTWISE, Grid.BROADCAST, Grid.SPLIT)
    by_constants = operation.backward is Backward.BILINEAR or operation.grid is Grid.STATISTICS
    if role in ("weights", "context") and by_constants:
        return True
    return operation.backward in (Backward.SHAPE, Backward.CAST) or (
        by_element and operation.backward in (Backward.LINEAR, Backward.PRODUCT)
    )


def is_pooled(operation: Operation, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Return whether an operation reduces dimensions and keeps them, of size 1."""
    place = operation.dim + 1
    return operation.grid in (Grid.ALONG, Grid.EXTREMUM) and (
        kwargs.get("keepdim", args[place] if len(args) > place else False) is True
    )


def find_gate(
    func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], signals: Sequence[Tensor]
) -> Tensor | None:
    """Return the factor of a product that is held constant; None where it is not decided.

    >>> from interpret.backprop.rules import BackwardRule
    >>> x = torch.rand(2, 3, 3, requires_grad=True)
    >>> with BackwardRule(torch.nn.Identity()):
    ...     weights, values = x.softmax(-1), x + 1
    ...     find_gate(torch.bmm, (weights, values), {}, [weights, values]) is weights
    ...     find_gate(torch.bmm, (x, values), {}, [x, values])
    True

    Args:
        func: an elementwise product, a product of matrices, or a convolution.
        args, kwargs: its arguments.
        signals: those that carry the signal, at least two.
    """
    factors = _factors(func, args, kwargs)
    if len(factors) != 2 or not all(any(one is signal for signal in signals) for one in factors):
        return None
    one, other = factors
    if one is other:
        return None
    if _has_kernels(func):
        return other
    gates: list[Tensor] = []
    if operation_of(func).backward is Backward.PRODUCT:
        gates = [gate for gate, rest in ((one, other), (other, one)) if _is_broadcast(gate, rest)]
    for roles in _HELD:
        gates = gates or [factor for factor in factors if role_of(factor) in roles]
    if multiplies_matrices(func):
        gates = gates or [factor for factor in factors if role_of(factor) in _HELD_IN_MATRICES]
        # of queries and what attention has summed up
        gates = gates or [factor for factor in factors if role_of(factor) != "context"]
    if len(gates) != 1 or (gates[0] is one and is_in_place(func)):  # a gate that is written into keeps its own graph
        return None
    return gates[0]


def multiplies_matrices(func: Callable[..., Any]) -> bool:
    """Return whether an operation is a product of matrices of which both may be signals."""
    return (
        operation_of(func).backward is Backward.BILINEAR and not _has_kernels(func) and operation_of(func).mixes_units
    )


def _factors(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """Return the factors of a product, without what is added to it."""
    name, named = operation_name(func), [kwargs[key] for key in _NAMES if key in kwargs]
    if name == "einsum":
        values = [one for value in args[1:] for one in (value if isinstance(value, (list, tuple)) else [value])]
    elif name.startswith(("add", "badd")):
        values = [*args[1:], *named]
    else:
        values = [*args, *named][:2]
    return [value for value in values if isinstance(value, Tensor)]


_NAMES = ("input", "self", "other", "mat2", "vec", "weight", "batch1", "batch2", "mat1", "tensor1", "tensor2")


def _has_kernels(func: Callable[..., Any]) -> bool:
    """Return whether the second factor is a kernel or matrix of weights, which the network computes from the image."""
    return operation_name(func).startswith(("conv", "linear"))


def _is_broadcast(gate: Tensor, other: Tensor) -> bool:
    """Return whether a factor is broadcast over the other one, now or by an `expand` before."""
    size = torch.broadcast_shapes(gate.shape, other.shape).numel()
    return _distinct(other) == size and _distinct(gate) < size


def _distinct(value: Tensor) -> int:
    """Return how many elements a tensor has in memory, those counted once that an `expand` repeats."""
    return math.prod(size for size, stride in zip(value.shape, value.stride(), strict=True) if stride or size == 0)
