"""Weights: what a layer multiplies with, what truly holds it, and copies of networks that keep both.

A layer's weight need not be a parameter: weight norm, spectral norm and pruning compute it from others, in a hook
before each forward pass or, as `torch.nn.utils.parametrizations` do, whenever it is asked for.
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
"""After how many the norm that spectral norm estimates belongs to new weights."""


def kind_of(layer: nn.Module) -> str:
    """Return the name of a layer's class, as its author knows it.

    >>> kind_of(nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 1, 3)))
    'Conv2d'
    """
    return type_before_parametrizations(layer).__name__


def named_layers(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield what `named_modules` does, without the modules that only compute another's weights.

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
    """Whether there are layers inside a layer."""
    return sum(1 for _ in named_layers(layer)) > 1


@torch.no_grad()
def weight_of(layer: nn.Module) -> Tensor | None:
    """Return the weight that a layer would use in evaluation mode now; None where it has none.

    >>> layer = nn.utils.parametrizations.weight_norm(nn.Linear(1, 1))
    >>> with torch.no_grad():
    ...     _ = layer.parametrizations.weight.original0.fill_(3.0)
    >>> weight_of(layer).abs().round(decimals=4)
    tensor([[3.]])
    """
    with evaluating(layer):
        user = layer if is_parametrized(layer) or "weight" not in vars(layer) else _written_into(layer)
        weight = getattr(user, "weight", None)
    return weight.detach() if isinstance(weight, Tensor) else None


def _written_into(layer: nn.Module) -> nn.Module:
    """Return what a layer is after its hooks have run, of which it knows nothing itself."""
    stand_in = twin_of(layer, parameters=own_parameters(layer), buffers=own_buffers(layer), parts=own_parts(layer))
    _run_hooks(stand_in)
    return stand_in


def held_by(layer: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers that are a layer's own: not those of layers inside it.

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
    """Draw a layer's weights anew, where they are held.

    By the layer's own `reset_parameters`; each of the parameters that it leaves as it was is permuted. What a
    parametrization computes is drawn as it would be without one, and given back to it.
    """
    if is_parametrized(layer):
        _draw_parametrized(layer)
    else:
        _draw(layer)
    if is_parametrized(layer) or "weight" in vars(layer):
        _settle(layer)


def _draw(layer: nn.Module) -> None:
    held = dict(layer.named_parameters(recurse=False))
    before = {name: tensor.clone() for name, tensor in held.items()}
    for tensor in held.values():
        tensor.add_(1)  # for what is written over by equal numbers to be told from what is not
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
        except (RuntimeError, NotImplementedError):  # which has no inverse
            for tensor in parts[name].parameters(recurse=False):
                tensor.copy_(_permuted(tensor))


def _permuted(tensor: Tensor) -> Tensor:
    return tensor.flatten()[torch.randperm(tensor.numel())].view_as(tensor)


def copied(module: nn.Module, memo: Mapping[int, Any] | None = None) -> Any:
    """Return a deep copy of a network, also where a hook has left a computed weight in it, which PyTorch cannot copy.

    >>> network = nn.utils.parametrizations.weight_norm(nn.Linear(1, 1))
    >>> copied(network) is network
    False

    Args:
        memo: what stands for an object in the copy, by its id, as `copy.deepcopy` takes it.

    Raises:
        InterpretError: a network that refuses to be copied.
    """
    found: dict[int, Any] = dict(memo or {})
    for layer in module.modules():
        for value in vars(layer).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                found.setdefault(id(value), value.detach().clone())
    try:
        return copy.deepcopy(module, found)
    except Exception as error:  # what a user's module holds may refuse to be copied, in any way
        raise InterpretError(
            f"{type(module).__name__} cannot be copied ({type(error).__name__}: {error}), which this needs: "
            "take out of it what refuses, or give it a __deepcopy__"
        ) from error


def _settle(layer: nn.Module) -> None:
    """Let what is estimated of a weight, such as its spectral norm, follow the weight, as training does."""
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
    """Let hooks compute a layer's weight from what holds it, as they do before a forward pass."""
    for hook in forward_pre_hooks(layer):
        try:
            hook(layer, ())
        except Exception:  # one that looks at the inputs computes no weight from them
            continue
