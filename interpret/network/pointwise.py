"""Recognise rectifiers that are written out of other operations, such as `x * sigmoid(x)` for `F.silu(x)`.

Tensors are followed through elementwise operations. If a product, a maximum or a choice combines a tensor with
functions of the same tensor, the result is one elementwise function of it, which can be evaluated at other values.
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

MAX_OPERATIONS = 64
"""The largest number of operations in a function that is followed."""
LARGE_VALUE = 32.0
"""The value at which the slope of a rectifier is measured."""


@dataclass(eq=False)
class Pending:
    """An operation that the rule does not cover, not reported yet: it may turn out to be a part of a rectifier."""

    operation: str
    layer: str
    nodes: list[int | None] = field(default_factory=list)
    """The numbers of the nodes of autograd's graph that its results came from; None for a result that is no tensor."""
    in_rectifier: bool = False
    """Whether it is a part of a rectifier."""
    reported: bool = False


@dataclass(frozen=True)
class Derivation:
    """How a tensor was computed from another one, its source."""

    source: Tensor
    version: int
    """The version of the source that was read: writing in place changes it."""
    function: Callable[[Tensor], Tensor]
    multiple: bool
    """Whether the tensor is the source times constants."""
    steps: int
    of: tuple[bool, ...] = ()
    """For each operand that was computed from the source, whether it is the source times constants."""


@dataclass
class _Made:
    version: int
    derivations: list[Derivation]
    pending: list[Pending] = field(default_factory=list)


class History:
    """Notes how tensors were computed from each other by elementwise operations.

    >>> history, x = History(), torch.ones(2, requires_grad=True)
    >>> gate = torch.sigmoid(x)
    >>> history.note(gate, history.derivations(torch.sigmoid, (x,), {}))
    >>> (derivation,) = history.derivations(torch.mul, (x, gate), {})
    >>> derivation.source is x, derivation.function(torch.zeros(2)), rectifier_slope(torch.mul, derivation)
    (True, tensor([0., 0.]), tensor(1.))
    """

    def __init__(self) -> None:
        self._made = WeakTensorKeyDictionary()

    def knows(self, values: Any) -> bool:
        """Return whether any of these tensors was computed by operations that are followed."""
        return bool(self._made) and any(self._known(tensor) is not None for tensor in tensors_in(values))

    def pending(self, values: Any) -> list[Pending]:
        """Return the operations behind these tensors that are not reported yet."""
        found = (self._known(tensor) for tensor in tensors_in(values)) if self._made else iter(())
        return list(dict.fromkeys(one for made in found if made is not None for one in made.pending))

    def note(self, result: object, derivations: Sequence[Derivation], pending: Sequence[Pending] = ()) -> None:
        """Note how a result was computed."""
        if isinstance(result, Tensor):
            kept = [
                derivation for derivation in derivations if derivation.source is not result
            ]  # not if it was written into
            self._made[result] = _Made(version_of(result), kept, list(pending))

    def derivations(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> list[Derivation]:
        """Return how the result of an operation is computed from each possible source, the nearest source first."""
        operation = operation_of(func)
        if not operation.in_rectifiers or "out" in kwargs:
            return []
        places: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
        tensors = {place: value for place, value in places.items() if isinstance(value, Tensor)}
        if operation.grid is Grid.EXTREMUM and len(tensors) < 2:  # over positions
            return []
        ways = {place: list(self.derivations_of(tensor)) for place, tensor in tensors.items()}
        carriers = {place: found for place, found in ways.items() if found}
        if not carriers or (_is_of_first(operation) and len(carriers) > 1):
            return []
        first, *others = carriers.values()
        found = []
        for way in first:
            shared = [next((one for one in other if one.source is way.source), None) for other in others]
            chosen = [way, *(one for one in shared if one is not None)]
            steps = 1 + sum(one.steps for one in chosen)
            if (
                len(chosen) < len(carriers)
                or steps > MAX_OPERATIONS
                or not _fits(operation, way.source, tensors, carriers)
            ):
                continue
            parts = dict(zip(carriers, (one.function for one in chosen), strict=True))
            constants = {place: value for place, value in places.items() if place not in parts}
            function = partial(_apply, func, len(args), constants, parts)
            multiple = len(chosen) == 1 and way.multiple and _is_multiple(operation, next(iter(carriers)))
            of = tuple(one.multiple for one in chosen)
            found.append(Derivation(way.source, way.version, function, multiple, steps, of))
        return found

    def derivations_of(self, tensor: Tensor) -> Iterator[Derivation]:
        """Yield how a tensor was computed from others, and from itself if it carries a signal."""
        if tensor.requires_grad:
            yield Derivation(tensor, version_of(tensor), lambda value: value, True, 0)
        made = self._known(tensor)
        if made is not None:
            yield from (
                derivation for derivation in made.derivations if version_of(derivation.source) == derivation.version
            )

    def _known(self, tensor: Tensor) -> _Made | None:
        made: _Made | None = self._made.get(tensor)
        return made if made is not None and made.version == version_of(tensor) else None


def rectifier_slope(func: Callable[..., Any], derivation: Derivation, pending: bool = False) -> Tensor | None:
    """Return the slope at large values of the rectifier that an operation makes of its source; None if it makes none.

    A rectifier passes large values, and negative ones less.

    >>> x = torch.ones(2, requires_grad=True)
    >>> (derivation,) = History().derivations(torch.mul, (x, x), {})
    >>> rectifier_slope(torch.mul, derivation) is None
    True

    It may be the source times a function of it, or divided by one; the larger of two multiples; or a choice by its
    sign. Any other operation is tested if something in it is not covered by itself (`pending`).
    """
    by_structure = {
        Backward.PRODUCT: sorted(derivation.of) == [False, True],
        Backward.QUOTIENT: derivation.of == (True, False),
        Backward.MAXIMUM: derivation.of == (True, True),
        Backward.CHOICE: len(derivation.of) > 1,
    }.get(operation_of(func).backward or Backward.QUERY, False)
    if not (pending or by_structure):
        return None
    if derivation.source.is_meta:  # it has no values
        return torch.ones(()) if by_structure else None
    try:
        with torch.no_grad():
            near, far, below, far_below = (
                derivation.function(torch.full_like(derivation.source, value)).double()
                for value in (LARGE_VALUE, 2 * LARGE_VALUE, -LARGE_VALUE, -2 * LARGE_VALUE)
            )
    except Exception:  # constants that do not fit another shape
        return None
    # it keeps growing, at most as a square, and is flatter for negative values
    grows = (near > 0) & (far > 1.5 * near) & (far < 4.1 * near)
    slope = (far - near) / LARGE_VALUE
    if not bool((grows & ((below - far_below).abs() / LARGE_VALUE < 0.999 * slope)).all()):
        return None
    # a square has no slope at infinity, only a factor; what is almost 1 converges to 1
    slope = torch.where(far > 3 * near, slope / (3 * LARGE_VALUE), slope)
    slope = torch.where((slope - 1).abs() < 0.05, 1.0, slope).to(derivation.source.dtype)
    return torch.ones_like(slope[(0,) * slope.dim()]) if bool((slope == 1).all()) else slope


def slope_of(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return the derivative of a pointwise function at x.

    >>> slope_of(torch.square, torch.tensor([3.0]))
    tensor([6.])
    """
    with torch.enable_grad():
        point = x.detach().clone().requires_grad_()
        y = function(point.clone())  # func may write into it
        (slope,) = torch.autograd.grad(y, point, torch.ones_like(y))
    return slope


def _is_of_first(operation: Operation) -> bool:
    """Return whether it is a function of the first operand's elements, with other operands as parameters."""
    return operation.grid is Grid.ELEMENTWISE or operation.backward is Backward.CLAMP


def _fits(operation: Operation, source: Tensor, tensors: Mapping[Any, Tensor], carriers: Mapping[Any, Any]) -> bool:
    """Return whether all tensors have the shape of the source, or are broadcast to it."""
    if any(tensors[place].shape != source.shape for place in carriers):
        return False
    if _is_of_first(operation):
        return next(iter(carriers)) in (0, "input")
    try:
        return torch.broadcast_shapes(*(tensor.shape for tensor in tensors.values())) == source.shape
    except RuntimeError:
        return False


def _is_multiple(operation: Operation, place: Any) -> bool:
    """Return whether an operation multiplies its one operand that is no constant, at this place, by a constant."""
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
    """Run an operation again for another value of its source."""
    places = {**constants, **{place: part(value).clone() for place, part in parts.items()}}  # func may write into it
    named = {place: one for place, one in places.items() if isinstance(place, str)}
    return func(*(places[place] for place in range(count)), **named)
