"""Backward rules written down a second time: each function that a rule treats is replaced by one with its backward."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

RECTIFIERS = "relu relu6 leaky_relu prelu elu selu celu silu gelu mish softplus hardswish threshold".split()
SQUASHING = "sigmoid hardsigmoid".split()
PRODUCTS = "mul imul multiply".split()
QUOTIENTS = "div itruediv truediv".split()
MATRICES = "matmul bmm einsum baddbmm".split()
CONVOLUTIONS = "conv1d conv2d conv3d linear".split()
SUMS = "add iadd cat".split()
NUMBERS = "add radd sub rsub mul rmul".split()
MOVES = """view reshape flatten unflatten transpose permute chunk split unbind getitem squeeze unsqueeze expand
    expand_as contiguous clone to float double type type_as movedim T mT dropout""".split()


class _Rectified(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, func: Callable[..., Tensor], args: Any, kwargs: Any, slope: bool) -> Tensor:
        with torch.enable_grad():
            point = x.detach().clone().requires_grad_()
            y = func(point.clone(), *args, **kwargs)
            (derivative,) = torch.autograd.grad(y.sum(), point)
        ctx.save_for_backward(derivative if slope else torch.ones_like(derivative))
        return y.detach()

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> Any:
        (derivative,) = ctx.saved_tensors
        return torch.where(signals[0] > 0, signals[0], 0) * derivative, None, None, None, None


class ByHand(TorchFunctionMode):
    """The deconvnet, or guided backpropagation, of the functions that run in the block."""

    def __init__(self, rule: str) -> None:
        super().__init__()
        self.guided = rule == "guided"
        self.rectified = WeakTensorKeyDictionary()
        """The tensors that came out of a rectifier."""
        self.squashed = WeakTensorKeyDictionary()
        """The tensors that came out of a sigmoid: gates, where they are factors."""
        self.gated = WeakTensorKeyDictionary()
        """By sigmoid, the tensor that it is of: their product is a rectifier that is written out."""
        self.bounded = WeakTensorKeyDictionary()
        """The tensors that came out of tanh: gates, where the other factor is none."""
        self.softmaxed = WeakTensorKeyDictionary()
        """Weights of attention, constant."""
        self.contexts = WeakTensorKeyDictionary()
        """What they have summed up."""
        self.queries = WeakTensorKeyDictionary()
        """The tensors by which that was multiplied: constant in other products, too."""
        self.weighted = WeakTensorKeyDictionary()
        """Weights of attention times as large a tensor: those of a state space, constant in a product of matrices."""
        self.pooled = WeakTensorKeyDictionary()
        """Means and norms that kept their dimensions: gates, also of a single position."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        name = getattr(func, "__name__", "").strip("_")
        x = args[0] if args else named.get("input")
        carries = isinstance(x, Tensor) and x.requires_grad
        if carries and (name in RECTIFIERS or (name == "hardtanh" and (*args, named.get("min_val", -1))[1] >= 0)):
            result = _Rectified.apply(x, func, args[1:], {k: v for k, v in named.items() if k != "input"}, self.guided)
            self.rectified[result] = True
            return result
        if carries and name in PRODUCTS:
            for one, gate in (args, args[::-1]):
                if isinstance(gate, Tensor) and self.gated.get(gate, [None])[0] is one:
                    whole = F.silu if self.gated[gate][1] == "sigmoid" else F.hardswish
                    result = _Rectified.apply(one, whole, (), {}, self.guided)
                    self.rectified[result] = True
                    return result
        if carries and name == "pow" and x in self.rectified:  # the square of a rectifier is one
            return _Rectified.apply(x, func, args[1:], named, self.guided)
        if name == "softmax":
            weights = func(*args, **named)  # of attention, of branches, or a distribution
            self.softmaxed[weights] = True
            return weights
        if carries and func in SCALES:
            scale = SCALES[func](*args, **named).detach()
            return x * scale + (func(*args, **named) - x * scale).detach()
        if name == "scaled_dot_product_attention":
            q, k, v, *rest = args
            held = [one.detach() if isinstance(one, Tensor) else one for one in rest]  # a bias may follow the queries
            named = {key: one.detach() if isinstance(one, Tensor) else one for key, one in named.items()}
            return func(q.detach(), k.detach(), v, *held, **named)
        if name == "lstm" and carries:
            return self.read(*args)
        factors = [one for one in args if isinstance(one, Tensor)][-2:]
        if len(factors) == 2 and all(one.requires_grad for one in factors) and factors[0] is not factors[1]:
            held = self.held(name, *factors)
            args = tuple(one.detach() if one is held else one for one in args)
        result = func(*args, **named)
        made = {id(self.squashed): SQUASHING, id(self.bounded): ["tanh"]}
        for marked in (
            self.rectified, self.squashed, self.bounded, self.softmaxed,
            self.contexts, self.queries, self.pooled, self.weighted,
        ):  # fmt: skip
            mixed = {id(self.softmaxed): ("linear", "conv2d"), id(self.contexts): ("linear", "conv1d", "conv2d", *SUMS)}
            mixed[id(self.pooled)] = QUOTIENTS
            moved = name in (*MOVES, *mixed.get(id(marked), ()))
            if marked is self.squashed and name in NUMBERS and len(factors) == 1:  # as 1 + sigmoid(x)
                moved = True
            if name in SUMS and not all(one in marked for one in factors):
                moved = False
            if (carries and name in made.get(id(marked), ())) or (moved and isinstance(x, Tensor) and x in marked):
                for one in result if isinstance(result, (tuple, list)) else [result]:
                    marked[one] = True
        if not isinstance(result, Tensor):
            return result
        if carries and name in SQUASHING:
            self.gated[result] = x, name
        if named.get("keepdim") is True:
            self.pooled[result] = True
        if name in MATRICES and any(one in self.softmaxed or one in self.weighted for one in factors):
            self.contexts[result] = True
        if name in PRODUCTS and any(one in self.contexts for one in factors):
            self.contexts[result] = True
        if name in PRODUCTS and len(factors) == 2 and one_is_of(factors, self.softmaxed) and alike(factors):
            self.weighted[result] = True
        return result

    def read(self, x: Tensor, states: Any, weights: Any, biases: bool, layers: int, *rest: Any) -> tuple[Tensor, ...]:
        """Run an LSTM of one layer, whose results but the first nobody asks for, with constant gates."""
        both_ways, first = rest[-2:]
        assert layers == 1
        x = x.transpose(0, 1) if first else x
        ways = []
        for way in range(1 + both_ways):
            given, recurrent, *added = weights[way * len(weights) // 2 :][: 2 + 2 * biases]
            hidden, cell = (state[way] for state in states)
            steps = []
            for one in x.flip(0) if way else x:
                enter, forget, new, leave = (one @ given.T + hidden @ recurrent.T + sum(added)).chunk(4, -1)
                cell = torch.sigmoid(forget).detach() * cell + torch.sigmoid(enter).detach() * new.tanh()
                hidden = torch.sigmoid(leave).detach() * cell.tanh()
                steps.append(hidden)
            ways.append(torch.stack(steps[::-1] if way else steps))
        read = torch.cat(ways, -1)
        return read.transpose(0, 1) if first else read, *states

    def held(self, name: str, one: Tensor, other: Tensor) -> Tensor | None:
        """Return the factor that is held constant."""
        if name in QUOTIENTS or name in CONVOLUTIONS:
            return other
        if name in PRODUCTS and one.numel() != other.numel() and not one_is_of([one, other], self.softmaxed):
            return min(one, other, key=Tensor.numel)
        for marked in (self.softmaxed, self.squashed, self.pooled, self.bounded, self.rectified, self.queries):
            if name in (*PRODUCTS, *MATRICES) and (one in marked) != (other in marked):
                return one if one in marked else other
        if name in MATRICES and (one in self.weighted) != (other in self.weighted):
            return one if one in self.weighted else other
        if name in MATRICES and (one in self.contexts) != (other in self.contexts):
            query = other if one in self.contexts else one
            self.queries[query] = True
            return query
        return None


def one_is_of(factors: list[Tensor], marked: WeakTensorKeyDictionary) -> bool:
    return any(one in marked for one in factors)


def alike(factors: list[Tensor]) -> bool:
    return factors[0].shape == factors[1].shape


def _over(x: Tensor, dims: Any) -> Tensor:
    return ((x - x.mean(dims, keepdim=True)) ** 2).mean(dims, keepdim=True)


def _layer(x: Tensor, shape: Any, weight: Tensor | None = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
    scale = 1 / (_over(x, tuple(range(x.dim() - len(shape), x.dim()))) + eps).sqrt()
    return scale if weight is None else scale * weight


def _rms(x: Tensor, shape: Any, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    dims = tuple(range(x.dim() - len(shape), x.dim()))
    scale = 1 / ((x**2).mean(dims, keepdim=True) + (torch.finfo(x.dtype).eps if eps is None else eps)).sqrt()
    return scale if weight is None else scale * weight


def _group(x: Tensor, groups: int, weight: Tensor | None = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
    grouped = x.reshape(len(x), groups, -1)
    scale = (1 / (_over(grouped, 2) + eps).sqrt()).expand_as(grouped).reshape(x.shape)
    return scale if weight is None else scale * weight.reshape(-1, *[1] * (x.dim() - 2))


def _instance(
    x: Tensor, running_mean: Any = None, running_var: Any = None, weight: Tensor | None = None, bias: Any = None,
    use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    if use_input_stats:
        scale = 1 / (_over(x, tuple(range(2, x.dim()))) + eps).sqrt()
    else:
        scale = (1 / (running_var + eps).sqrt()).reshape(-1, *[1] * (x.dim() - 2))
    return scale if weight is None else scale * weight.reshape(-1, *[1] * (x.dim() - 2))


def _unit(x: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Any = None) -> Tensor:
    return 1 / (x**2).sum(dim, keepdim=True).sqrt().clamp(min=eps)


def _local_response(x: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    scale = torch.empty_like(x)
    for channel in range(x.shape[1]):  # of an even number, one more below than above
        near = x[:, max(0, channel - size // 2) : channel + (size - 1) // 2 + 1]
        scale[:, channel] = (k + alpha / size * (near**2).sum(1)) ** -beta
    return scale


SCALES: dict[Any, Callable[..., Tensor]] = {
    F.layer_norm: _layer, F.rms_norm: _rms, F.group_norm: _group, F.normalize: _unit,
    F.instance_norm: _instance, F.local_response_norm: _local_response,
}  # fmt: skip
"""The scale of normalisations, by which the signal is multiplied."""
