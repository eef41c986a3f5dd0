"""Trace a network on the meta device, where tensors have shapes but no values."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from interpret.network.weights import copied
from interpret.tracing.tracing import Layer, trace


def trace_on_meta(module: nn.Module, shape: tuple[int, ...]) -> Mapping[str, Layer]:
    """Trace a copy of the network on the meta device, which is fast; if that fails, trace the network itself."""
    on_meta = {
        id(tensor): nn.Parameter(tensor.to("meta"), False) if isinstance(tensor, nn.Parameter) else tensor.to("meta")
        for tensor in (*module.parameters(), *module.buffers())
    }
    try:
        traced = trace(copied(module, on_meta), shape)
    except Exception:  # it needs values or cannot be copied, or the input is invalid, which `trace` explains
        return trace(module, shape)
    # on the meta device, empty feature maps raise no error, and rectifiers may not be recognised without values
    whole = traced.has_signal and all(all(layer.output_shape) for layer in traced.values())
    return traced if whole else trace(module, shape)
