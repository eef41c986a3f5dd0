"""Backward rules of whole layers, from their papers' equations: nothing is decided by how tensors were made.

Each class of layer has a forward pass whose plain gradient is the rule's signal; a network is patched layer by layer.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Slope = Callable[[Tensor], Tensor]

SLOPES: dict[str, Slope] = {
    "ReLU": lambda x: (x > 0).to(x),
    # x·σ(x): Elfwing et al. 2017, equation 4
    "SiLU": lambda x: x.sigmoid() * (1 + x * (1 - x.sigmoid())),
    # x·Φ(x): Hendrycks & Gimpel 2016, section 2
    "GELU": lambda x: 0.5 * (1 + torch.erf(x / 2**0.5)) + x * torch.exp(-(x**2) / 2) / (2 * math.pi) ** 0.5,
    "GELUTanh": lambda x: _gelu_tanh(x),
    # x·ReLU6(x + 3)/6: Howard et al. 2019, section 5.2
    "Hardswish": lambda x: torch.where(x <= -3, 0.0, torch.where(x >= 3, 1.0, (2 * x + 3) / 6)),
}
"""The derivatives of rectifiers."""


def _gelu_tanh(x: Tensor) -> Tensor:
    inner = (2 / math.pi) ** 0.5 * (x + 0.044715 * x**3)
    slope = (2 / math.pi) ** 0.5 * (1 + 3 * 0.044715 * x**2)
    return 0.5 * (1 + inner.tanh()) + 0.5 * x * (1 - inner.tanh() ** 2) * slope


class _Rectified(torch.autograd.Function):
    """The deconvnet passes max(R, 0) (Zeiler & Fergus 2014), guided backpropagation that times f'(x)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(slope)
        return value

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> Any:
        return torch.where(signals[0] > 0, signals[0], 0.0) * ctx.saved_tensors[0], None, None


def _with_slope(slope: Slope, guided: bool) -> Callable[..., Tensor]:
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        value = type(self).forward(copy.copy(self), x.detach().clone())
        return _Rectified.apply(x, value, slope(x.detach()) if guided else torch.ones_like(x))  # type: ignore[no-any-return]

    return forward


def _squeeze_and_excitation(self: Any, x: Tensor) -> Tensor:
    """x·σ(W₂·δ(W₁·z)), z the mean of each channel (Hu et al. 2018, equations 2 to 4), with the gate held constant."""
    first, second = (getattr(self, name, None) for name in ("fc1", "fc2"))
    first, second = (first, second) if first is not None else (self.conv_reduce, self.conv_expand)
    rectify = getattr(self, "activation", None) or getattr(self, "act", None) or self.act1
    squash = getattr(self, "scale_activation", None) or self.gate
    squeezed = x.detach().mean((2, 3), keepdim=True)
    return x * squash(second(rectify(getattr(self, "bn", nn.Identity())(first(squeezed))))).detach()


def _attention(self: Any, x: Tensor, **_: Any) -> Tensor:
    """softmax(q·kᵀ/√d)·v (Vaswani et al. 2017, equation 1), head by head, with the weights held constant."""
    count, places, _ = x.shape
    depth = self.qkv.out_features // 3 // self.num_heads
    of_heads = []
    for head in range(self.num_heads):
        q, k, v = (
            F.linear(x, self.qkv.weight[begin : begin + depth], self.qkv.bias[begin : begin + depth])
            for begin in (part * self.num_heads * depth + head * depth for part in range(3))
        )
        logits = torch.einsum("bqd,bkd->bqk", q, k) / depth**0.5
        weights = logits.exp() / logits.exp().sum(2, keepdim=True)
        of_heads.append(torch.einsum("bqk,bkd->bqd", weights.detach(), v))
    return F.linear(torch.cat(of_heads, 2), self.proj.weight, self.proj.bias).reshape(count, places, -1)


def _layer_norm(self: Any, x: Tensor) -> Tensor:
    """γ·(x − μ)/σ + β (Ba et al. 2016, equation 4), by the scale γ/σ held constant; μ passes no signal."""
    channels_second = type(self).__name__ == "LayerNorm2d"
    x = x.movedim(1, -1) if channels_second else x
    mean = x.detach().mean(-1, keepdim=True)
    deviation = ((x.detach() - mean) ** 2).mean(-1, keepdim=True).add(self.eps).sqrt()
    found = (x - mean) / deviation * self.weight + self.bias
    return found.movedim(-1, 1) if channels_second else found


LAYERS: dict[str, Callable[..., Tensor]] = {
    **dict.fromkeys(("SqueezeExcitation", "SqueezeExcite", "SEModule"), _squeeze_and_excitation),
    "Attention": _attention,
    **dict.fromkeys(("LayerNorm", "LayerNorm2d"), _layer_norm),
}


def patched(network: nn.Module, rule: str) -> tuple[nn.Module, set[str]]:
    """Return a copy of a network whose layers have these forward passes, and the classes that were replaced."""
    network = copy.deepcopy(network).requires_grad_(False)
    found = set()
    for part in network.modules():
        name = type(part).__name__
        forward = _with_slope(SLOPES[name], rule == "guided") if name in SLOPES else LAYERS.get(name)
        if forward is not None:
            found.add(name)
            part.forward = MethodType(forward, part)  # type: ignore[method-assign]
    return network, found
