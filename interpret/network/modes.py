"""Evaluation mode and constant parameters, restored at the end."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from interpret.network.torch_internals import own_buffers
from interpret.network.wrappers import refuse_without_numbers


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Put a network in evaluation mode with constant parameters, and restore it at the end.

    >>> network = nn.Linear(2, 2).train()
    >>> with frozen(network):
    ...     print(network.training, network.weight.requires_grad)
    False False
    >>> print(network.training, network.weight.requires_grad)
    True True

    Raises:
        InterpretError: a network whose parameters have no numbers.
    """
    refuse_without_numbers(module)
    with constant_parameters(module), evaluating(module):
        yield


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a network in evaluation mode, and restore it at the end.

    Also restored are buffers that a forward pass updates (a batch norm that stays in training mode), tensors that a
    hook replaces in layers (weight norm), and the state of the random generators, which active dropout uses.
    """
    with (
        _unchanged_buffers(module),
        _unchanged_attributes(module),
        unchanged_random_state(module),
        unchanged_modes(module.modules()),
    ):
        module.eval()
        yield


@contextmanager
def unchanged_modes(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Restore the modes of modules, training or evaluation, at the end.

    >>> network = nn.Linear(2, 2).train()
    >>> with unchanged_modes([network]):
    ...     _ = network.eval()
    >>> network.training
    True
    """
    before = [(module, module.training) for module in modules]
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


@contextmanager
def constant_parameters(module: nn.Module) -> Iterator[None]:
    """Make a network's parameters constants, and restore them at the end."""
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    try:
        for parameter in learning:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


@contextmanager
def _unchanged_buffers(module: nn.Module) -> Iterator[None]:
    """Restore buffers, whether the network changes or replaces them."""
    before = [
        (owner, name, buffer, None if _has_no_values(buffer) else buffer.detach().clone())
        for owner in module.modules()
        for name, buffer in own_buffers(owner).items()
        if buffer is not None
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for owner, name, buffer, _ in before:
                own_buffers(owner)[name] = buffer
            kept = [(buffer, values) for _, _, buffer, values in before if values is not None]
            # all compared before the first result is read, since reading waits for a GPU
            differ = [_differ(*pair) for pair in kept]
            for (buffer, values), changed in zip(kept, differ, strict=True):
                if changed:
                    buffer.copy_(values)


@contextmanager
def _unchanged_attributes(module: nn.Module) -> Iterator[None]:
    """Restore the tensors in layers that are neither parameters nor buffers."""
    before = [
        (layer, name, value)
        for layer in module.modules()
        for name, value in vars(layer).items()
        if isinstance(value, Tensor)
    ]
    try:
        yield
    finally:
        for layer, name, value in before:
            vars(layer)[name] = value


def _differ(buffer: Tensor, before: Tensor) -> Tensor | bool:
    """Return whether a buffer has other values than before; True of a sparse or nested one, which is not compared."""
    if buffer.layout is not torch.strided or buffer.is_nested or buffer.shape != before.shape:
        return True
    return (buffer != before).any()


def _has_no_values(buffer: Tensor) -> bool:
    return buffer.is_meta or isinstance(buffer, nn.parameter.UninitializedBuffer)


@contextmanager
def unchanged_random_state(module: nn.Module | None = None) -> Iterator[None]:
    """Restore the random generators of Python, NumPy and torch at the end, those of a network's devices included.

    >>> _ = torch.manual_seed(0)
    >>> with unchanged_random_state():
    ...     first = torch.rand(1)
    >>> bool(first == torch.rand(1))
    True
    """
    parameters = () if module is None else module.parameters()
    devices = {parameter.device for parameter in parameters} - {torch.device("cpu"), torch.device("meta")}
    kind = next((device.type for device in devices), "cuda")
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the one that users' code uses
    with torch.random.fork_rng([device.index or 0 for device in devices], device_type=kind):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
