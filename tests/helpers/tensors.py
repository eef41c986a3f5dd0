"""Random tensors and networks that are the same in every run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def uniform(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def seeded(
    build: Callable[..., nn.Module], *args: Any, seed: int = 0, dtype: torch.dtype | None = None, **kwargs: Any
) -> Any:
    """Build a network in evaluation mode, with batch norms that do not happen to be the identity."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build(*args, **kwargs).to(dtype=dtype).eval()
        for layer in network.modules():
            if not isinstance(layer, nn.BatchNorm2d):
                continue
            for near_one in (layer.weight, layer.running_var):
                if near_one is not None:
                    nn.init.uniform_(near_one, 0.5, 1.5)
            for near_zero in (layer.bias, layer.running_mean):
                if near_zero is not None:
                    nn.init.normal_(near_zero, std=0.2)
    return network
