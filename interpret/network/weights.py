"""The weight that a layer uses, the parameters that it is computed from, and copies of networks that keep both.

A layer's weight need not be a parameter: weight norm, spectral norm and pruning compute it from others, in a hook
before each forward pass or, as `torch.nn.utils.parametrizations` do, at each access.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

from interpret.network.modes import evaluating, unchanged_modes
from interpret.network.torch_internals import forward_pre_hooks, own_buffers, own_parameters, own_parts, twin_of
from interpret.support.errors import InterpretError

POWER_ITERATIONS = 100
"""The number of power iterations after which spectral norm's estimate fits new weights."""


def kind_of(layer: nn.Module) -> str:
    """Return the name of a layer's class, without parametrizations.

    >>> kind_of(nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 1, 3)))
    'Conv2d'
    """
    return type_before_parametrizations(layer).__name__


def named_layers(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the same as `named_modules`, without modules that only compute another's weights.

    >>> network = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(1, 1)))
    >>> [name for name, _ in named_layers(network)]
    ['', '0']
    """
    inside: tuple[str, ...] = ()
    for name, layer in module.named_modules():
        if is_parametrized(layer):
            inside += (f"{name}.parametrizations".lstrip("."),)
        if not name.startswith(inside):
            yield name, layer


def has_layers(layer: nn.Module) -> bool:
    """Return whether there are layers inside a layer."""
    return sum(1 for _ in named_layers(layer)) > 1


@torch.no_grad()
def weight_of(layer: nn.Module) -> Tensor | None:
    """Return the weight that a layer would use in evaluation mode; None if it has none.

    >>> layer = nn.utils.parametrizations.weight_norm(nn.Linear(1, 1))
    >>> with torch.no_grad():
    ...     _ = layer.parametrizations.weight.original0.fill_(3.0)
    >>> weight_of(layer).abs().round(decimals=4)
    tensor([[3.]])
    """
    with evaluating(layer):
        user = layer if is_parametrized(layer) or "weight" not in vars(layer) else _after_hooks(layer)
        weight = getattr(user, "weight", None)
    return weight.detach() if isinstance(weight, Tensor) else None


def _after_hooks(layer: nn.Module) -> nn.Module:
    """Return a twin of a layer on which its hooks have run; the layer itself is not changed."""
    twin = twin_of(layer, parameters=own_parameters(layer), buffers=own_buffers(layer), parts=own_parts(layer))
    _run_hooks(twin)
    return twin


def held_by(layer: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers of a layer itself, without those of layers inside it.

    >>> sorted(held_by(nn.utils.parametrizations.weight_norm(nn.Linear(1, 1))))
    ['bias', 'parametrizations.weight.original0', 'parametrizations.weight.original1']
    """
    own = dict(layer.named_parameters(recurse=False)) | dict(layer.named_buffers(recurse=False))
    if is_parametrized(layer):
        inside: Any = layer.parametrizations
        within = *inside.named_parameters("parametrizations"), *inside.named_buffers("parametrizations")
        own |= dict(within)
    return own


@torch.no_grad()
def draw_again(layer: nn.Module) -> None:
    """Reinitialise a layer's weights in place.

    The layer's own `reset_parameters` is used; parameters that it does not change are permuted. Weights that a
    parametrization computes are initialised as without one, and assigned to it.
    """
    if is_parametrized(layer):
        _draw_parametrized(layer)
    else:
        _draw(layer)
    if is_parametrized(layer) or "weight" in vars(layer):
        _update_estimates(layer)


def with_new_weights(network: nn.Module) -> nn.Module:
    """Reinitialise all layers of a network in place, and return it."""
    for layer in network.modules():
        draw_again(layer)
    return network


def _draw(layer: nn.Module) -> None:
    held = dict(layer.named_parameters(recurse=False))
    before = {name: tensor.clone() for name, tensor in held.items()}
    for tensor in held.values():
        tensor.add_(1)  # so that a reset to the same values shows as a change
    moved = {name: tensor.clone() for name, tensor in held.items()}
    reset: Any = getattr(layer, "reset_parameters", None)
    if callable(reset):
        reset()
    for name, tensor in held.items():
        if torch.equal(tensor, moved[name]):
            tensor.copy_(_permuted(before[name]))


def _draw_parametrized(layer: nn.Module) -> None:
    parts: Any = layer.parametrizations
    computed = {name: nn.Parameter(getattr(layer, name).clone(), False) for name in parts}
    kind = type_before_parametrizations(layer)
    drawn = twin_of(layer, kind, parameters=own_parameters(layer) | computed, parts={})
    _draw(drawn)
    for name, weight in computed.items():
        try:
            setattr(layer, name, weight.data)
        except (RuntimeError, NotImplementedError):  # the parametrization has no inverse
            for tensor in parts[name].parameters(recurse=False):
                tensor.copy_(_permuted(tensor))


def _permuted(tensor: Tensor) -> Tensor:
    return tensor.flatten()[torch.randperm(tensor.numel())].view_as(tensor)


def copied(module: nn.Module, memo: Mapping[int, Any] | None = None) -> Any:
    """Return a deep copy of a network, also if a hook has left a computed weight in it, which PyTorch cannot copy.

    >>> network = nn.utils.parametrizations.weight_norm(nn.Linear(1, 1))
    >>> copied(network) is network
    False

    Args:
        memo: replacements of objects in the copy, by id, as for `copy.deepcopy`.

    Raises:
        InterpretError: the network cannot be copied.
    """
    found: dict[int, Any] = dict(memo or {})
    for layer in module.modules():
        for value in vars(layer).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                found.setdefault(id(value), value.detach().clone())
    try:
        return copy.deepcopy(module, found)
    except Exception as error:  # the user's objects may raise anything
        raise InterpretError(
            f"{type(module).__name__} cannot be copied ({type(error).__name__}: {error}), as is needed here: "
            "remove the object that cannot, or give it a __deepcopy__"
        ) from error


def _update_estimates(layer: nn.Module) -> None:
    """Update estimates of a weight, such as its spectral norm, as training does."""
    with unchanged_modes(layer.modules()):
        layer.train()
        for _ in range(POWER_ITERATIONS):
            if is_parametrized(layer):
                parts: Any = layer.parametrizations
                for name in parts:
                    getattr(layer, name)
            else:
                _run_hooks(layer)


def _run_hooks(layer: nn.Module) -> None:
    """Run the hooks that compute a layer's weight, as before a forward pass."""
    for hook in forward_pre_hooks(layer):
        try:
            hook(layer, ())
        except Exception:  # a hook that needs the inputs computes no weight
            continue
