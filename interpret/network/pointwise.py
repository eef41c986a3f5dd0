"""Pointwise: which tensors were made of which others position by position, and by what function.

Activations are written in many ways: `x * sigmoid(x)` is `F.silu(x)`. What a product, a maximum or a choice makes of
one tensor and of functions of that very tensor is one function of it, which can be looked at as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from interpret.network.layers import tensors_in
from interpret.network.operations import Backward, Grid, Operation, operation_of
from interpret.network.torch_internals import version_of

MOST_STEPS = 64
"""How many operations a function is followed through."""
FAR = 32.0
"""Where a rectifier shows what it does to large values."""


@dataclass(eq=False)
class Pending:
    """An operation without a reading, which is none of anybody's business if it turns out a part of a rectifier."""

    operation: str
    layer: str
    taken_up: bool = False
    """Whether it is a part of a rectifier."""
    reported: bool = False


@dataclass(frozen=True)
class Past:
    """How a tensor was made of another one, its source."""

    source: Tensor
    version: int
    """Of the source, when it was looked at: a tensor that was written over is another one."""
    function: Callable[[Tensor], Tensor]
    multiple: bool
    """Whether the tensor is the source times constants."""
    steps: int
    of: tuple[bool, ...] = ()
    """Of each operand that was made of the source, too, whether it was a multiple."""


@dataclass
class _Made:
    version: int
    pasts: list[Past]
    pending: list[Pending] = field(default_factory=list)


class Pedigree:
    """What is known of tensors' pasts.

    >>> pedigree, x = Pedigree(), torch.ones(2, requires_grad=True)
    >>> gate = torch.sigmoid(x)
    >>> pedigree.note(gate, pedigree.pasts(torch.sigmoid, (x,), {}))
    >>> (past,) = pedigree.pasts(torch.mul, (x, gate), {})
    >>> past.source is x, past.function(torch.zeros(2)), rectifier_slope(torch.mul, past)
    (True, tensor([0., 0.]), tensor(1.))
    """

    def __init__(self) -> None:
        self._made = WeakTensorKeyDictionary()

    def knows(self, values: Any) -> bool:
        """Whether something is known of any of these tensors."""
        return bool(self._made) and any(self._known(tensor) is not None for tensor in tensors_in(values))

    def pending(self, values: Any) -> list[Pending]:
        """Return the operations that wait for what becomes of these tensors."""
        found = (self._known(tensor) for tensor in tensors_in(values)) if self._made else iter(())
        return list(dict.fromkeys(one for made in found if made is not None for one in made.pending))

    def note(self, result: object, pasts: Sequence[Past], pending: Sequence[Pending] = ()) -> None:
        """Remember how a result was made."""
        if isinstance(result, Tensor):
            kept = [past for past in pasts if past.source is not result]  # which is written over
            self._made[result] = _Made(version_of(result), kept, list(pending))

    def pasts(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Past]:
        """Return how the result of an operation will have been made, the nearest source first; of none, nothing."""
        operation = operation_of(func)
        if not operation.in_rectifiers or "out" in kwargs:
            return []
        places: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
        tensors = {place: value for place, value in places.items() if isinstance(value, Tensor)}
        if operation.grid is Grid.EXTREMUM and len(tensors) < 2:  # over positions
            return []
        ways = {place: list(self._ways(tensor)) for place, tensor in tensors.items()}
        carriers = {place: found for place, found in ways.items() if found}
        if not carriers or (_is_of_first(operation) and len(carriers) > 1):
            return []
        first, *others = carriers.values()
        found = []
        for way in first:
            shared = [next((one for one in other if one.source is way.source), None) for other in others]
            chosen = [way, *(one for one in shared if one is not None)]
            steps = 1 + sum(one.steps for one in chosen)
            if len(chosen) < len(carriers) or steps > MOST_STEPS or not _fits(operation, way.source, tensors, carriers):
                continue
            parts = dict(zip(carriers, (one.function for one in chosen), strict=True))
            constants = {place: value for place, value in places.items() if place not in parts}
            function = partial(_apply, func, len(args), constants, parts)
            multiple = len(chosen) == 1 and way.multiple and _is_multiple(operation, next(iter(carriers)))
            of = tuple(one.multiple for one in chosen)
            found.append(Past(way.source, way.version, function, multiple, steps, of))
        return found

    def _known(self, tensor: Tensor) -> _Made | None:
        made: _Made | None = self._made.get(tensor)
        return made if made is not None and made.version == version_of(tensor) else None

    def _ways(self, tensor: Tensor) -> Iterator[Past]:
        """Yield how a tensor was made of those before it, and of itself if it carries a signal."""
        if tensor.requires_grad:
            yield Past(tensor, version_of(tensor), lambda value: value, True, 0)
        made = self._known(tensor)
        if made is not None:
            yield from (past for past in made.pasts if version_of(past.source) == past.version)


def rectifier_slope(func: Callable[..., Any], past: Past, pending: bool = False) -> Tensor | None:
    """Return the slope at large values of the rectifier that an operation makes of its source; None if it makes none.

    A rectifier lets large values pass, and negative ones less.

    >>> x = torch.ones(2, requires_grad=True)
    >>> (past,) = Pedigree().pasts(torch.mul, (x, x), {})
    >>> rectifier_slope(torch.mul, past) is None
    True

    That is asked of the source times a function of it, over a function of it, of the larger of two multiples, and of a
    choice by its sign; of other operations where something in them has no reading of its own.
    """
    by_structure = {
        Backward.PRODUCT: sorted(past.of) == [False, True],
        Backward.QUOTIENT: past.of == (True, False),
        Backward.MAXIMUM: past.of == (True, True),
        Backward.CHOICE: len(past.of) > 1,
    }.get(operation_of(func).backward or Backward.QUERY, False)
    if not (pending or by_structure):
        return None
    if past.source.is_meta:  # which has no values
        return torch.ones(()) if by_structure else None
    try:
        with torch.no_grad():
            near, far, below, far_below = (
                past.function(torch.full_like(past.source, value)).double() for value in (FAR, 2 * FAR, -FAR, -2 * FAR)
            )
    except Exception:  # whatever the constants are that do not fit
        return None
    # it goes on growing, not faster than a square, and is flatter on the other side
    grows = (near > 0) & (far > 1.5 * near) & (far < 4.1 * near)
    slope = (far - near) / FAR
    if not bool((grows & ((below - far_below).abs() / FAR < 0.999 * slope)).all()):
        return None
    # of a square there is none, and what is almost 1 is still on its way there
    slope = torch.where((far > 3 * near) | ((slope - 1).abs() < 0.05), 1.0, slope).to(past.source.dtype)
    return torch.ones_like(slope[(0,) * slope.dim()]) if bool((slope == 1).all()) else slope


def slope_of(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return the derivative of a pointwise function at x.

    >>> slope_of(torch.square, torch.tensor([3.0]))
    tensor([6.])
    """
    with torch.enable_grad():
        point = x.detach().clone().requires_grad_()
        y = function(point.clone())  # which it may write over
        (slope,) = torch.autograd.grad(y, point, torch.ones_like(y))
    return slope


def _is_of_first(operation: Operation) -> bool:
    """Whether it is a function of the first operand's elements; other operands are its parameters."""
    return operation.grid is Grid.ELEMENTWISE or operation.backward is Backward.CLAMP


def _fits(operation: Operation, source: Tensor, tensors: Mapping[Any, Tensor], carriers: Mapping[Any, Any]) -> bool:
    """Whether an operation works position by position, on tensors of the shape of the source or spread over it."""
    if any(tensors[place].shape != source.shape for place in carriers):
        return False
    if _is_of_first(operation):
        return next(iter(carriers)) in (0, "input")
    try:
        return torch.broadcast_shapes(*(tensor.shape for tensor in tensors.values())) == source.shape
    except RuntimeError:
        return False


def _is_multiple(operation: Operation, place: Any) -> bool:
    """Whether an operation on one operand and constants, at this place, is a multiplication with a constant."""
    if operation.backward is Backward.QUOTIENT:
        return place in (0, "input", "self")
    return operation.backward is Backward.PRODUCT or (operation.is_linear and operation.grid is not Grid.BROADCAST)


def _apply(
    func: Callable[..., Tensor],
    count: int,
    constants: Mapping[Any, Any],
    parts: Mapping[Any, Callable[[Tensor], Tensor]],
    value: Tensor,
) -> Tensor:
    """Run an operation again on another value of its source."""
    places = {**constants, **{place: part(value).clone() for place, part in parts.items()}}  # which it may write over
    named = {place: one for place, one in places.items() if isinstance(place, str)}
    return func(*(places[place] for place in range(count)), **named)
