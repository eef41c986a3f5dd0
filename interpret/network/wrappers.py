"""Unwrap networks (`DataParallel`, `torch.compile` …), and refuse those whose layers do not run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from interpret.network.exported_program import exported_network, is_opaque
from interpret.network.keras_graph import keras_graph
from interpret.network.torch_internals import (
    COMPILED_MODULE,
    is_compiled_function,
    own_buffers,
    own_parameters,
    own_parts,
    uncompiled_twin,
)
from interpret.support.errors import InterpretError

WRAPPERS = {
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "AveragedModel": "module",
    COMPILED_MODULE[0]: COMPILED_MODULE[1],
}
"""PyTorch's modules that only call the module inside them, and the attribute that holds it."""
_REMEDY = "pass the Python module that it was made from"


def plain_network(module: nn.Module) -> nn.Module:
    """Return a network without wrappers of it or of its parts: the network itself if there are none.

    >>> network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    >>> plain_network(nn.DataParallel(network)) is network
    True
    >>> wrapped = nn.Sequential(nn.DataParallel(network), nn.Flatten())
    >>> [name for name, _ in plain_network(wrapped).named_modules()]
    ['', '0', '0.0', '0.1', '1']
    >>> [name for name, _ in wrapped.named_modules()]
    ['', '0', '0.module', '0.module.0', '0.module.1', '1']

    The given network is not changed: modules that contain a wrapped part are replaced by twins that share everything
    else. So layers have the names that the network's own code gives them, and nothing is compiled.

    Raises:
        InterpretError: the module is scripted, traced or exported, or has no weights yet.
    """
    module = keras_graph(module) or module
    if not isinstance(module, nn.Module):
        if isinstance(module, torch.export.ExportedProgram):
            return exported_network(module)
        raise _no_module(module)
    twins: dict[nn.Module, nn.Module] = {}
    plain = _unwrapped(module, twins)
    for name, part in plain.named_modules():
        _refuse_opaque(name, part)
    return plain


def _unwrapped(module: nn.Module, twins: dict[nn.Module, nn.Module]) -> nn.Module:
    """Return a module, or its one twin if something in it is wrapped or compiled."""
    while (inner := _inside(module)) is not None:
        module = inner
    if module in twins:
        return twins[module]
    twins[module] = module
    parts = {name: part if part is None else _unwrapped(part, twins) for name, part in own_parts(module).items()}
    compiled = [name for name, value in vars(module).items() if is_compiled_function(value)]
    if compiled or any(part is not own_parts(module)[name] for name, part in parts.items()):
        twins[module] = uncompiled_twin(module, parts)
    return twins[module]


def _inside(module: nn.Module) -> nn.Module | None:
    """Return the module inside a wrapper; None if it is no wrapper."""
    for kind in type(module).__mro__:
        if kind.__name__ in WRAPPERS and kind.__module__.startswith("torch."):
            inner: nn.Module = getattr(module, WRAPPERS[kind.__name__])
            return inner
    return None


def _refuse_opaque(name: str, part: nn.Module) -> None:
    """Raise an error for a part that does not run the code of its layers, or has no weights yet."""
    what = f"layer {name!r} is" if name else "the network is"
    if isinstance(part, torch.jit.ScriptModule):
        raise InterpretError(f"{what} scripted or traced, so that its layers do not run: {_REMEDY}")
    if is_opaque(part):
        raise InterpretError(
            f"{what} exported, so that its layers do not run: pass the program that torch.export returned, or the "
            "Python module that it was made from"
        )
    tensors = (*own_parameters(part).values(), *own_buffers(part).values())
    if any(isinstance(tensor, Tensor) and is_lazy(tensor) for tensor in tensors):
        raise InterpretError(
            f"{f'layer {name!r}' if name else 'the network'} ({type(part).__name__}) has no weights before it first "
            "runs: run the network once on an image, as in network(torch.zeros(1, 3, 224, 224))"
        )


def _no_module(given: Any) -> InterpretError:
    return InterpretError(
        f"model must be a Model or an nn.Module, not {type(given).__name__}: use interpret.load(spec)"
    )


def refuse_without_numbers(module: nn.Module) -> None:
    """Raise an error for a network on the meta device, whose weights have no values.

    >>> refuse_without_numbers(nn.Linear(2, 2, device="meta"))
    Traceback (most recent call last):
        ...
    interpret.support.errors.InterpretError: the network has no numbers in 'weight', which is on the meta device: make \
it with network.to_empty(device="cpu"), and load its weights
    """
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_meta:
            raise InterpretError(
                f"the network has no numbers in {name!r}, which is on the meta device: make it with "
                'network.to_empty(device="cpu"), and load its weights'
            )
