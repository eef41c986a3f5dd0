"""Trace a network on the meta device, where tensors have shapes but no values."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from contextlib import AbstractContextManager
from weakref import WeakKeyDictionary

from torch import nn

from interpret.network.structure import held_for, structure_of
from interpret.network.weights import copied
from interpret.tracing.tracing import Layer, Trace, trace

_TRACED: WeakKeyDictionary[nn.Module, tuple[Hashable, dict[tuple[int, ...], Trace]]] = WeakKeyDictionary()
"""By network: its structure, and what was traced of it by the shape of the input."""


_HELD: WeakKeyDictionary[nn.Module, Trace] = WeakKeyDictionary()
"""By network: its trace, while it does not change."""


def trace_held(module: nn.Module, traced: Trace) -> AbstractContextManager[None]:
    """Let `trace_on_meta` return this trace until the block ends, in which the network does not change.

    A detector takes minutes to trace, as it runs twenty times.
    """
    return held_for(module, _HELD, traced)


def trace_on_meta(module: nn.Module, shape: tuple[int, ...]) -> Mapping[str, Layer]:
    """Trace a copy of the network on the meta device, which is fast; if that fails, trace the network itself.

    A trace on the meta device depends on no values: it is remembered for as long as the network's structure is the
    same.
    """
    if module in _HELD and _HELD[module].input_shape == shape:
        return _HELD[module]
    structure = structure_of(module)
    if structure is None:
        return _trace(module, shape)[0]
    known, by_shape = _TRACED.get(module, (None, {}))
    if known != structure:
        by_shape = {}
    if shape not in by_shape:
        traced, on_meta = _trace(module, shape)
        if not on_meta:
            return traced
        by_shape[shape] = traced
        _TRACED[module] = structure, by_shape
    return by_shape[shape]


def _trace(module: nn.Module, shape: tuple[int, ...]) -> tuple[Trace, bool]:
    """Return a network's trace, and whether the meta device sufficed."""
    on_meta = {
        id(tensor): nn.Parameter(tensor.to("meta"), False) if isinstance(tensor, nn.Parameter) else tensor.to("meta")
        for tensor in (*module.parameters(), *module.buffers())
    }
    try:
        network = copied(module, on_meta)
        traced = trace(network, shape)
    except Exception:  # it needs values or cannot be copied, or the input is invalid, which `trace` explains
        return trace(module, shape), False
    # on the meta device, empty feature maps raise no error, and rectifiers may not be recognised without values
    whole = traced.has_signal and not traced.needs_values and all(all(layer.output_shape) for layer in traced.values())
    return (traced, True) if whole else (trace(module, shape), False)
