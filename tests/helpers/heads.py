"""Networks whose convolutions end in a head, written in as many ways as people write one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


def pictures(count: int = 2, height: int = 20, width: int = 23) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, height, width, generator=generator, dtype=torch.float64)


class Headed(nn.Module):
    """Convolutions, and a head that is written in one of many ways."""

    def __init__(self, head: Callable[[nn.Module, Tensor], Tensor], features: int, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 5, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2), nn.ReLU())
        self.norm, self.linear, self.conv = nn.BatchNorm2d(6), nn.Linear(features, 5), nn.Conv2d(6, 5, 1)
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self, self.body(x))


def in_the_middle(head: Headed, x: Tensor) -> Tensor:
    """Reads memory in its order halfway, and goes on with convolutions."""
    x = x.view(x.size(0), 3, 2, *x.shape[2:]).transpose(1, 2).contiguous().view(x.size(0), 6, *x.shape[2:])
    x = head.conv(x).relu()
    return x.view(x.size(0), x.size(1), -1).mean(2)


def through_numpy(head: Headed, x: Tensor) -> Tensor:
    """Leaves torch, which no window can follow."""
    return head.linear(torch.from_numpy(np.ascontiguousarray(x.detach().cpu().numpy())).flatten(1))


def by_memory(head: Headed, x: Tensor) -> Tensor:
    """Depends on how its input lies in memory, and raises nothing."""
    return head.linear(torch.as_strided(x, (len(x), 480), (480, 1)))


# behind maps of 6 × 8 × 10: the head, and how many features it has
HEADS: dict[str, tuple[Any, int]] = {
    "nn.Flatten": (lambda head, x: head.linear(nn.Flatten()(x)), 480),
    "torch.flatten": (lambda head, x: head.linear(torch.flatten(x, 1)), 480),
    "x.flatten": (lambda head, x: head.linear(x.flatten(start_dim=1)), 480),
    "reshape": (lambda head, x: head.linear(x.reshape(len(x), 480)), 480),
    "reshape, -1": (lambda head, x: head.linear(x.reshape(x.shape[0], -1)), 480),
    "contiguous view": (lambda head, x: head.linear(x.contiguous().view(len(x), -1)), 480),
    "unflatten": (lambda head, x: head.linear(x.flatten(1).unflatten(1, (6, 80)).sum(2)), 6),
    "channels last": (lambda head, x: head.linear(x.permute(0, 2, 3, 1).reshape(len(x), -1)), 480),
    "transpose": (lambda head, x: head.linear(x.flatten(2).transpose(1, 2).mean(1)), 6),
    "einops, by hand": (lambda head, x: head.linear(x.movedim(1, -1).flatten(1)), 480),
    "mean": (lambda head, x: head.linear(x.mean((2, 3))), 6),
    "mean, kept": (lambda head, x: head.linear(x.mean([-2, -1], keepdim=True).squeeze(-1).squeeze(-1)), 6),
    "mean of the view": (lambda head, x: head.linear(x.view(len(x), 6, -1).mean(-1)), 6),
    "sum": (lambda head, x: head.linear(x.sum(3).sum(2)), 6),
    "amax": (lambda head, x: head.linear(x.amax((2, 3))), 6),
    "max": (lambda head, x: head.linear(x.max(3).values.max(2)[0]), 6),
    "logsumexp": (lambda head, x: head.linear(x.logsumexp((2, 3))), 6),
    "norm": (lambda head, x: head.linear(x.norm(dim=(2, 3))), 6),
    "std": (lambda head, x: head.linear(torch.cat([x.mean((2, 3)), x.std((2, 3))], 1)), 12),
    "adaptive average": (lambda head, x: head.linear(F.adaptive_avg_pool2d(x, 1).flatten(1)), 6),
    "adaptive average, 2": (lambda head, x: head.linear(torch.flatten(F.adaptive_avg_pool2d(x, 2), 1)), 24),
    "average of the map": (lambda head, x: head.linear(F.avg_pool2d(x, x.shape[2:]).squeeze()), 6),
    "maximum of the map": (lambda head, x: head.linear(F.max_pool2d(x, (8, 10))[:, :, 0, 0]), 6),
    "generalised mean": (lambda head, x: head.linear(x.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3)), 6),
    "two pools": (
        lambda head, x: head.linear(
            torch.cat([F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1)], 1).flatten(1)
        ),
        12,
    ),
    "conv, mean": (lambda head, x: head.conv(x).mean((2, 3)), 6),
    "conv, flatten": (lambda head, x: F.adaptive_avg_pool2d(head.conv(x), 1).flatten(1), 6),
    "pool, conv": (lambda head, x: head.conv(F.adaptive_avg_pool2d(x, 1)).squeeze(3).squeeze(2), 6),
    "conv of the map": (lambda head, x: F.conv2d(x, head.linear.weight.view(5, 6, 8, 10)).view(len(x), 5), 480),
    "batch norm": (lambda head, x: head.linear(head.norm(x).flatten(1)), 480),
    "chunk": (lambda head, x: head.linear(torch.cat(x.chunk(2, dim=1)[::-1], 1).flatten(1)), 480),
    "split": (lambda head, x: head.linear((x.split(2, 1)[0] * x.split([2, 4], 1)[0]).flatten(1)), 160),
    "unbind": (lambda head, x: head.linear(torch.stack([one.amax((1, 2)) for one in x.unbind(1)], 1)), 6),
    "indexing": (lambda head, x: head.linear(x[:, [5, 0, 3], 1:-1:2, ::3].flatten(1)), 36),
    "narrow": (lambda head, x: head.linear(x.narrow(1, 1, 3).select(3, 4).flatten(1)), 24),
    "roll and flip": (lambda head, x: head.linear(x.roll(1, 2).flip(3).flatten(1)), 480),
    "einsum": (lambda head, x: torch.einsum("bchw,kc->bk", x, head.linear.weight), 6),
    "matmul": (lambda head, x: x.flatten(2).mean(2) @ head.linear.weight.t(), 6),
    "bilinear pooling": (lambda head, x: head.linear((x.flatten(2) @ x.flatten(2).mT).flatten(1)), 36),
    "attention": (lambda head, x: head.linear((x.flatten(2) * x.mean(1).flatten(1).softmax(1)[:, None]).sum(2)), 6),
    "linear at each place": (lambda head, x: head.linear(x.permute(0, 2, 3, 1)).mean((1, 2)), 6),
    "unfold": (lambda head, x: head.linear(F.unfold(x, 2, stride=2).mean(2)), 24),
    "interpolate": (lambda head, x: head.linear(F.interpolate(x, size=(4, 4), mode="bilinear").flatten(1)), 96),
    "pixel unshuffle": (lambda head, x: head.linear(F.pixel_unshuffle(x, 2).mean((2, 3))), 24),
    "layer norm": (lambda head, x: head.linear(F.layer_norm(x.flatten(1), (480,))), 480),
    "sorted": (lambda head, x: head.linear(x.flatten(2).topk(3, dim=2).values.flatten(1)), 18),
    "in the middle": (in_the_middle, 6),
    "through NumPy": (through_numpy, 480),
    "view, -1": (lambda head, x: head.linear(x.view(x.size(0), -1)), 480),
    "view, numbers": (lambda head, x: head.linear(x.view(-1, 6 * 8 * 10)), 480),
    "view, as": (lambda head, x: head.linear(x.view_as(torch.empty(len(x), 480))), 480),
    "adaptive maximum": (lambda head, x: head.linear(F.adaptive_max_pool2d(x, (2, 1)).view(len(x), 12)), 12),
    "in place": (lambda head, x: head.linear(x.mul_(2).view(len(x), -1).relu_()), 480),
    "by memory": (by_memory, 480),
}
