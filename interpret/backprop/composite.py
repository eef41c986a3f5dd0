"""Compose backward rules by layer and operation, with functions of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal, Protocol, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interpret.network.layers import tensors_in
from interpret.network.operations import Backward, Grid, Operation, is_registered, names_of, operation_name
from interpret.support.errors import InterpretError, unknown

RULES = ("deconvnet", "guided", "gradient")

RuleName = Literal["deconvnet", "guided", "gradient"]

KINDS = ("rectifier", "slope", "normalisation", "product", "quotient", "attention", "max_pool", "maximum")
"""Kinds of operations that a composite may name, beside operations."""


class OwnRule(Protocol):
    """A function that passes a signal back through one operation; see `Composite`."""

    def __call__(
        self, signal: Tensor, function: Callable[..., Tensor], *inputs: Tensor
    ) -> Tensor | Sequence[Tensor]: ...


Rule = Union[RuleName, "Composite"]
AnyRule = Rule | OwnRule


@dataclass(frozen=True, eq=False)
class Composite:
    """A backward rule composed of others: one for each layer or operation.

    Guided backpropagation in the second convolution's block, the deconvnet elsewhere:

    >>> from torch import nn
    >>> import interpret
    >>> network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Sequential(nn.Conv2d(2, 2, 3), nn.ReLU()))
    >>> rule = interpret.Composite(by_layer={"2": "guided"}, otherwise="deconvnet")
    >>> interpret.project(network, torch.rand(1, 1, 8, 8), "2", channels=0, rule=rule).pixels.shape
    torch.Size([1, 1, 5, 5])

    A function of your own passes the signal back through one operation. This is layer-wise relevance propagation by
    the ε-rule (Bach et al. 2015, equation 58):

    >>> def epsilon(signal, function, *inputs):
    ...     output = function(*inputs)
    ...     shares = torch.autograd.grad(output, inputs, signal / (output + 1e-6 * output.sign()))
    ...     return [one * share for one, share in zip(inputs, shares)]
    >>> def unchanged(signal, function, x):
    ...     return signal
    >>> rule = interpret.Composite(
    ...     by_operation={"conv2d": epsilon, "linear": epsilon, "rectifier": unchanged}, otherwise="gradient"
    ... )
    >>> interpret.attribute(network, torch.rand(1, 1, 8, 8), rule, target=1, layer="2").maps.shape
    torch.Size([1, 1, 8, 8])

    It receives `signal`, what arrives at the operation's output; `function`, the operation as a function of those
    operands that carry the signal; and these, `inputs`, each of which requires a gradient. It returns what leaves each
    of them, one tensor for one input. Where the signal is zero it has to return zero: of an image, only what a neuron
    sees is run. A function that `by_layer` or `otherwise` names takes every operation but those that only move or copy
    values.

    Args:
        by_layer: by the name of a layer, or a glob, what is the rule in it and inside it; the first that fits counts.
        by_operation: by the name of an operation, or a glob, or a kind ("rectifier", "slope", "normalisation",
            "product", "quotient", "attention", "max_pool", "maximum"), what is its rule, unless its layer has one; the
            first that fits counts. Operations have their names in torch, without underscores.
        otherwise: the rule of all else.

    Raises:
        InterpretError: an unknown rule or operation; where it is used, a name that fits no layer.
    """

    by_layer: Mapping[str, AnyRule] = field(default_factory=dict)
    by_operation: Mapping[str, AnyRule] = field(default_factory=dict)
    otherwise: AnyRule = "deconvnet"

    def __post_init__(self) -> None:
        for one in (*self.by_layer.values(), *self.by_operation.values(), self.otherwise):
            check_rule(one, own=True)
        for name in self.by_operation:
            if not _is_operation(name):
                raise unknown("operation", name, (*KINDS, *names_of()))

    def __str__(self) -> str:
        chosen = (*self.by_layer.items(), *self.by_operation.items())
        parts = [f"{name}: {_in_words(rule)}" for name, rule in chosen]
        return f"composite({', '.join([*parts, f'otherwise {_in_words(self.otherwise)}'])})"

    def rule_for(
        self, running: Sequence[str], name: str = "", operation: Operation | None = None
    ) -> RuleName | OwnRule:
        """Return the rule of an operation in the layers that are running; without an operation, that of the layers.

        >>> Composite({"conv*": "guided"}, {"relu": "gradient"}).rule_for(["", "conv1"], "relu")
        'guided'
        """
        fitting = [
            *(rule for glob, rule in self.by_layer.items() if any(fnmatchcase(layer, glob) for layer in running)),
            *(rule for key, rule in self.by_operation.items() if _is_of(key, name, operation)),
            self.otherwise,
        ]
        chosen = fitting[0]
        if isinstance(chosen, Composite):
            return chosen.rule_for(running, name, operation)
        if callable(chosen) and (operation is None or _only_moves(operation)):
            return "gradient"
        return chosen

    def check_layers(self, module: nn.Module) -> None:
        """Raise an error for a name that fits no layer of a network."""
        names = [name for name, _ in module.named_modules()]
        for glob in self.by_layer:
            if not any(fnmatchcase(name, glob) for name in names):
                raise unknown("layer", glob, names)
        for rule in (*self.by_layer.values(), *self.by_operation.values(), self.otherwise):
            if isinstance(rule, Composite):
                rule.check_layers(module)


def check_rule(rule: Any, own: bool = False) -> None:
    """Raise an error for what is no rule; with `own`, a function is one."""
    if not (isinstance(rule, Composite) or (own and callable(rule)) or rule in RULES):
        raise InterpretError(f"rule must be one of {', '.join(RULES)}, or an interpret.Composite, not {rule!r}")


def _in_words(rule: AnyRule) -> str:
    return getattr(rule, "__name__", str(rule))


def _is_operation(name: str) -> bool:
    known = name in KINDS or name in names_of() or is_registered(name) or any(letter in name for letter in "*?[")
    return known or any(hasattr(place, name) for place in (torch, F, Tensor))


def _is_of(key: str, name: str, operation: Operation | None) -> bool:
    if operation is None:
        return False
    return fnmatchcase(name, key) or (key in KINDS and operation.backward == key)


def _only_moves(operation: Operation) -> bool:
    return operation.backward in (Backward.SHAPE, Backward.CAST, Backward.QUERY) or operation.grid is Grid.SPLIT


class PassByOwnRule(torch.autograd.Function):
    """An operation that runs as written and passes the signal back by a function of the user's own."""

    @staticmethod
    def forward(
        ctx: Any,
        rule: OwnRule,
        func: Callable[..., Any],
        args: Any,
        kwargs: Any,
        whole: Callable[[Tensor], Tensor] | None,
        *inputs: Tensor,
    ) -> Tensor:
        """Run `func`, or the end of a function `whole` of the one input that is written out."""
        ctx.save_for_backward(*(one.clone() for one in inputs))  # which the operation may write over
        ctx.rule, ctx.name = rule, operation_name(func)

        def again(*values: Tensor) -> Any:
            return func(*_replaced(args, inputs, values), **_replaced(kwargs, inputs, values))

        ctx.again = again if whole is None else whole
        output = func(*args, **kwargs)
        if not isinstance(output, Tensor):
            raise InterpretError(
                f"{ctx.name!r} returns {type(output).__name__}, which {_in_words(rule)} cannot pass back through: "
                "name another rule for it in the composite's by_operation"
            )
        if any(output is one for one in tensors_in((args, kwargs))):  # in place
            ctx.mark_dirty(output)
        return output

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> Any:
        inputs = [one.detach().requires_grad_() for one in ctx.saved_tensors]
        with torch.enable_grad():
            # of copies, for the operation may write over them
            found = ctx.rule(signals[0], lambda *values: ctx.again(*(one.clone() for one in values)), *inputs)
        found = [found] if isinstance(found, Tensor) else list(found)
        if [one.shape for one in found] != [one.shape for one in inputs]:
            raise InterpretError(
                f"{_in_words(ctx.rule)} returns tensors of shape {[tuple(one.shape) for one in found]} for "
                f"{ctx.name!r}, whose inputs have {[tuple(one.shape) for one in inputs]}: return one like each input"
            )
        return None, None, None, None, None, *(one.detach() for one in found)


def _replaced(tree: Any, olds: Sequence[Tensor], news: Sequence[Tensor]) -> Any:
    """Return nested arguments with other tensors in the place of some."""
    if isinstance(tree, Tensor):
        return next((new for old, new in zip(olds, news, strict=True) if old is tree), tree)
    if isinstance(tree, dict):
        return {key: _replaced(value, olds, news) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(_replaced(value, olds, news) for value in tree)
    return tree
