"""Redirected rectifiers: a gradient for images at which a unit is silent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from interpret.backprop.composite import Composite
from interpret.backprop.rules import BackwardRule

FAR = 1e3
"""The distance at which an input is no longer in the flat part, if it moves out of it."""
CLAMPS = ("hardtanh", "hardsigmoid", "clamp", "clamp_min", "clip")


def pass_where_silent(signal: Tensor, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Pass a signal back through a rectifier, and through its flat part where nothing else of an image passes.

    >>> x = torch.tensor([[-1.0, -2.0], [-1.0, 3.0]], requires_grad=True)
    >>> pass_where_silent(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.relu, x)
    tensor([[1., 0.],
            [0., 1.]])

    Through a flat part, only a signal passes that moves the input towards another part.

    Source: lucid (Olah et al. 2017), `redirected_relu_grad`.
    """
    (x,) = inputs
    output = function(x)
    (slope,) = torch.autograd.grad(output, x, torch.ones_like(output))
    plain = signal * slope
    silent = (plain.flatten(1) == 0).all(1).view(-1, *[1] * (x.dim() - 1))
    with torch.no_grad():
        leaves = function(x + FAR * signal.sign()) != output
    return torch.where(silent & (slope == 0) & leaves, signal, plain)


REDIRECTED = Composite(by_operation=dict.fromkeys(("rectifier", *CLAMPS), pass_where_silent), otherwise="gradient")
"""The gradient, with redirected rectifiers and clamps: as functions, methods, modules, or written out as products and
choices. (x + |x|)/2 and the square of a rectifier are not redirected."""


@contextmanager
def redirecting(module: nn.Module) -> Iterator[None]:
    """Redirect the rectifiers of a network that runs in the block, and nothing else that is computed from its output.

    >>> network, x = nn.Sequential(nn.ReLU()), torch.tensor([[-1.0]], requires_grad=True)
    >>> with redirecting(network):
    ...     output = network(x)
    >>> torch.autograd.grad(output.sum(), x)
    (tensor([[1.]]),)
    """
    with BackwardRule(module, REDIRECTED) as rule:
        try:
            yield
        finally:
            rule.forget()
