"""What decides how a network runs, apart from its weights' values, in a form that can be compared."""

from __future__ import annotations

from collections.abc import Hashable
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from interpret.network.operations import REGISTERED
from interpret.network.torch_internals import own_buffers, own_parameters, own_state

_PLAIN = (int, float, complex, str, bytes, bool, type(None), torch.dtype, torch.device, torch.memory_format, type)


class _Unclear(Exception):  # noqa: N818
    """A module has an attribute that may change unseen."""


def structure_of(module: nn.Module) -> Hashable | None:
    """Return what a network consists of: layers, their attributes, and shapes and types of parameters and buffers.

    >>> network = nn.Sequential(nn.Conv2d(1, 1, 3))
    >>> before = structure_of(network)
    >>> network[0].stride = (2, 2)
    >>> structure_of(network) == before
    False

    None if a layer has hooks, or an attribute that may change without being seen, such as an object of its own class.
    """
    try:
        layers = tuple(
            (name, _structure_of_layer(layer)) for name, layer in module.named_modules(remove_duplicate=False)
        )
        found = (layers, tuple(REGISTERED.items()))
        hash(found)
    except (_Unclear, TypeError):
        return None
    return found


def _structure_of_layer(layer: nn.Module) -> Hashable:
    kind = type(layer)
    tensors = {**own_parameters(layer), **own_buffers(layer)}
    shapes = tuple((name, None if one is None else _of_tensor(one)) for name, one in tensors.items())
    return id(layer), kind, kind.forward, kind.__call__, shapes, _of_value(own_state(layer))


def _of_tensor(tensor: Tensor) -> Hashable:
    if type(tensor) not in (Tensor, nn.Parameter):
        raise _Unclear
    return tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device


def _of_value(value: Any) -> Hashable:
    """Return an attribute's value by value; functions, which must hold no variables, by identity."""
    if isinstance(value, _PLAIN) or type(value) is torch.Size:
        return type(value), value
    if isinstance(value, BuiltinFunctionType) or (isinstance(value, FunctionType) and value.__closure__ is None):
        return value
    if type(value) is dict:
        return tuple((_of_value(key), _of_value(one)) for key, one in value.items())
    if type(value) in (list, tuple):
        return type(value), tuple(_of_value(one) for one in value)
    if type(value) in (set, frozenset):
        return type(value), frozenset(_of_value(one) for one in value)
    raise _Unclear
