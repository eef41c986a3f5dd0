"""Redirected rectifiers: a gradient for images at which a unit is silent."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from interpret.backprop.composite import Composite


def pass_where_silent(signal: Tensor, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Pass a signal back through a rectifier, and through its flat part where nothing else of an image passes.

    >>> x = torch.tensor([[-1.0, -2.0], [-1.0, 3.0]], requires_grad=True)
    >>> pass_where_silent(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.relu, x)
    tensor([[1., 0.],
            [0., 1.]])

    Through the flat part, only a signal passes that moves the input towards the other part.

    Source: lucid (Olah et al. 2017), `redirected_relu_grad`.
    """
    (x,) = inputs
    output = function(x)
    (slope,) = torch.autograd.grad(output, x, torch.ones_like(output))
    plain = signal * slope
    silent = (plain.flatten(1) == 0).all(1).view(-1, *[1] * (x.dim() - 1))
    return torch.where(silent & (slope == 0) & (x * signal < 0), signal, plain)


REDIRECTED = Composite(
    by_operation={"rectifier": pass_where_silent, "hardtanh": pass_where_silent}, otherwise="gradient"
)
"""The gradient, with redirected rectifiers. torch runs ReLU6 as hardtanh."""
