"""What decides how a network runs, without its weights' values or with them, in a form that can be compared."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, MutableMapping
from contextlib import contextmanager
from types import BuiltinFunctionType, FunctionType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from interpret.network.operations import REGISTERED
from interpret.network.torch_internals import own_buffers, own_parameters, own_state, version_of

Held = TypeVar("Held")

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


@contextmanager
def held_for(module: nn.Module, by_network: MutableMapping[nn.Module, Held], value: Held) -> Iterator[None]:
    """Keep a network's value in a dictionary until the block ends, in which the network does not change.

    >>> network, numbers = nn.Identity(), {}
    >>> with held_for(network, numbers, 3):
    ...     numbers[network]
    3
    >>> numbers
    {}
    """
    before = by_network.get(module)
    by_network[module] = value
    try:
        yield
    finally:
        if before is None:
            del by_network[module]
        else:
            by_network[module] = before


def state_of(module: nn.Module) -> Hashable | None:
    """Return a network's structure, and what shows that its weights have changed.

    >>> network = nn.Sequential(nn.Conv2d(1, 1, 3))
    >>> before = state_of(network)
    >>> _ = network[0].weight.data.mul_(2)
    >>> state_of(network) == before
    False

    That is where they lie, how often they were written to, and some of their values: neither of the others shows what
    is written through `data`.
    """
    structure = structure_of(module)
    tensors = [*module.parameters(), *module.buffers()]
    if structure is None or any(map(_cannot_be_compared, tensors)):
        return None
    return structure, tuple((one.data_ptr(), version_of(one), _some_values(one)) for one in tensors)


def _cannot_be_compared(tensor: Tensor) -> bool:
    return tensor.is_inference() or tensor.is_quantized or tensor.is_nested or tensor.layout is not torch.strided


def _some_values(tensor: Tensor) -> bytes:
    """Return the bytes of up to 31 values along each dimension."""
    some = tensor.detach()[tuple(slice(None, None, max(1, size // 16)) for size in tensor.shape)]
    values = some.cpu().reshape(-1).resolve_conj().resolve_neg().contiguous()
    return values.view(torch.uint8).numpy().tobytes()


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
