"""Follow what operations decide whose results carry no signal: masks, orders and places."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from interpret.network.layers import tensors_in
from interpret.network.operations import Backward, Grid, is_in_place, operation_of
from interpret.network.torch_internals import base_of, node_number

Named = tuple[str, str]
"""An operation and its layer."""


class Decisions:
    """Notes from which operations the tensors come that carry no signal.

    >>> import torch
    >>> decisions, x = Decisions(), torch.ones(2, requires_grad=True)
    >>> mask = x > 0
    >>> decisions.note([mask], {("gt", "layer1")})
    >>> places = mask.nonzero()
    >>> decisions.follow(Tensor.nonzero, (mask,), {}, places, decisions.behind(mask))
    {('gt', 'layer1'): []}
    >>> decisions.behind((places, x))
    {('gt', 'layer1')}

    The boxes that a detector finds are chosen by comparisons of scores. These are no part of the way of a signal that
    begins in a head whose boxes are given.
    """

    def __init__(self) -> None:
        self._known = WeakTensorKeyDictionary()

    def note(self, tensors: Iterable[Tensor], operations: Collection[Named]) -> None:
        """Note that operations decided these tensors, which carry no signal."""
        for tensor in tensors:
            self._known[tensor] = self._known.get(tensor, frozenset()) | frozenset(operations)

    def behind(self, values: Any) -> set[Named]:
        """Return the operations that decided tensors among these values."""
        if not self._known:
            return set()
        return set().union(*(self._known.get(tensor, ()) for tensor in tensors_in(values)))

    def follow(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        result: Any,
        operations: Collection[Named],
    ) -> dict[Named, list[int | None]]:
        """Note what a function has made of what operations decided.

        Return for each of them the nodes of results that carry a signal; None for a number that the network reads, by
        which it may decide anything.
        """
        operation = operation_of(func)
        if operation.grid is Grid.NEW:  # of another tensor's shape alone
            return {}
        made = list(tensors_in(result))
        if not made and operation.backward is Backward.QUERY:
            return {}
        writes = is_in_place(func) or operation.grid is Grid.WRITE
        written = list(tensors_in((args[:1] if writes else (), kwargs.get("out"))))
        self.note((part for part in (*made, *written) if not part.requires_grad), operations)
        nodes = [node_of(part) for part in (*made, *written) if part.requires_grad]
        return {one: nodes if made or written else [None] for one in operations}


def node_of(result: Any) -> int | None:
    """Return the number of the node that made a result, of a view that of its base; None where there is none."""
    if not isinstance(result, Tensor):
        return node_number(result) if hasattr(result, "next_functions") else None
    base = base_of(result)
    node = (result if base is None else base).grad_fn
    return None if node is None else node_number(node)
