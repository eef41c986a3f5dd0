"""Which factor of a product the rules hold constant: attention, written in any way, and gates of the user's own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

import interpret
from interpret.backprop.rules import BackwardRule, UncoveredOperation

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def held(value: Tensor) -> Tensor:
    return value.detach()


class Attention(nn.Module):
    """A convolution, attention of four heads between all positions, and a convolution, with rectifiers between."""

    def __init__(self, attend: Attend) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(2, 8, 3, padding=1)
        self.qkv = nn.Conv2d(8, 24, 1)
        self.last = nn.Conv2d(8, 3, 3)
        self.attend = attend
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        query, key, value = (
            part.reshape(len(x), 4, 2, -1).transpose(2, 3) for part in self.qkv(x).chunk(3, 1)
        )  # [B, heads, positions, 2]
        mixed = self.attend(query, key, value).transpose(2, 3).reshape(x.shape)
        return self.last((x + mixed).relu())


def softmax_weights(query: Tensor, key: Tensor) -> Tensor:
    return (query @ key.transpose(-2, -1) / 2**0.5).softmax(-1)


def literal(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(q·kᵀ/√d)·v as a sum over positions, with the weights as numbers."""
    weights = held(softmax_weights(query, key))
    return torch.stack([sum(weights[:, :, j, i, None] * value[:, :, i] for i in range(value.shape[2]))
                        for j in range(query.shape[2])], 2)  # fmt: skip


def channels_literal(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    query, key = (one / one.norm(dim=-2, keepdim=True) for one in (query, key))
    return value @ held((query.transpose(-2, -1) @ key).softmax(-1)).transpose(-2, -1)


def between_channels(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    query, key = F.normalize(query, dim=-2), F.normalize(key, dim=-2)
    return value @ (query.transpose(-2, -1) @ key).softmax(-1).transpose(-2, -1)


def linear_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    query, key = query.relu(), key.relu()
    summed = query @ (key.transpose(-2, -1) @ F.pad(value, (0, 1), value=1.0))
    return summed[..., :-1] / (summed[..., -1:] + 1e-3)


def linear_literal(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    weights = held(query.relu() @ key.relu().transpose(-2, -1))
    return (weights / (weights.sum(-1, keepdim=True) + 1e-3)) @ value


def one_query(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """MobileViT v2: one context vector weighs the rectified values of all positions."""
    scores = query[..., :1].softmax(-2)
    return value.relu() * (key * scores).sum(-2, keepdim=True).expand_as(value)


def one_query_literal(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return value.relu() * held((key * query[..., :1].softmax(-2)).sum(-2, keepdim=True))


def divided_by_its_sum(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """ConViT: weights of content and of positions are mixed, and divided by their sum."""
    weights = 0.7 * softmax_weights(query, key) + 0.4 / key.shape[2]
    weights /= weights.sum(-1).unsqueeze(-1)
    return weights @ value


MIXING = normal(4, 4, seed=7)


def talking_heads(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """CaiT: linear layers mix the heads before and after the softmax."""
    scores = F.linear((query @ key.mT).permute(0, 2, 3, 1), MIXING).permute(0, 3, 1, 2)
    return F.linear(scores.softmax(-1).permute(0, 2, 3, 1), MIXING.T).permute(0, 3, 1, 2) @ value


def talking_heads_of_convolutions(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = F.conv2d(query @ key.mT, MIXING[..., None, None])
    return F.conv2d(scores.softmax(-1), MIXING.T[..., None, None]) @ value


def talking_heads_literal(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = torch.einsum("gh,bhqk->bgqk", MIXING, query @ key.mT)
    return torch.einsum("hg,bhqk->bgqk", MIXING, held(scores.softmax(-1))) @ value


def with_relative_positions(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """CoaT: queries are multiplied by what attention has summed up, and by neighbouring values."""
    query, key, value = torch.stack([query, key, value]).unbind(0)
    return query @ (key.softmax(2).mT @ value) + query[:, :, :] * value.cumsum(2)


def with_relative_positions_literal(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return held(query @ key.softmax(2).mT) @ value + held(query) * value.cumsum(2)


def state_space(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """EfficientViM: places enter a state by weights that depend on the image, and are read from it by others."""
    state = value.mT @ (query * key.softmax(2))
    state, gate = F.linear(state, MIXING[:, :2]).chunk(2, -1)
    return ((state * F.silu(gate) + 2 * state) @ key.mT).mT


def state_space_literal(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    state = value.mT @ held(query * key.softmax(2))
    state, gate = F.linear(state, MIXING[:, :2]).chunk(2, -1)
    return held(key) @ (state * (held(F.silu(gate)) + 2)).mT


FORMS: dict[str, tuple[Attend, Attend]] = {
    "fused": (F.scaled_dot_product_attention, literal),
    "fused, by name": (lambda q, k, v: F.scaled_dot_product_attention(value=v, key=k, query=q), literal),
    "matmul": (lambda q, k, v: softmax_weights(q, k) @ v, literal),
    "torch.matmul by name": (lambda q, k, v: torch.matmul(input=softmax_weights(q, k), other=v), literal),
    "einsum": (lambda q, k, v: torch.einsum("bhqk,bhkd->bhqd", softmax_weights(q, k), v), literal),
    "einsum, values first": (lambda q, k, v: torch.einsum("bhkd,bhqk->bhqd", v, softmax_weights(q, k)), literal),
    "einsum of a list": (lambda q, k, v: torch.einsum("bhqk,bhkd->bhqd", [softmax_weights(q, k), v]), literal),
    "bmm": (
        lambda q, k, v: torch.bmm(softmax_weights(q, k).flatten(0, 1), v.flatten(0, 1)).view(q.shape),
        literal,
    ),
    "baddbmm": (
        lambda q, k, v: torch.baddbmm(torch.zeros(1, dtype=q.dtype), softmax_weights(q, k).flatten(0, 1),
                                      v.flatten(0, 1)).view(q.shape),
        literal,
    ),
    "with dropout and a cast": (
        lambda q, k, v: F.dropout(softmax_weights(q, k).to(torch.float64), 0.1, training=False).contiguous() @ v,
        literal,
    ),
    "transposed": (lambda q, k, v: (v.transpose(-2, -1) @ softmax_weights(q, k).mT).mT, literal),
    "scaled": (lambda q, k, v: (2 * softmax_weights(q, k)) @ (v / 2), literal),
    "of itself": (lambda q, k, v: softmax_weights(v, v) @ v, lambda q, k, v: literal(v, v, v)),
    "between channels": (between_channels, channels_literal),
    "divided by its sum": (
        divided_by_its_sum,
        lambda q, k, v: (0.7 * literal(q, k, v) + 0.4 * v.mean(2, keepdim=True)) / 1.1,
    ),
    "linear": (linear_attention, linear_literal),
    "talking heads": (talking_heads, talking_heads_literal),
    "talking heads by 1×1 convolutions": (talking_heads_of_convolutions, talking_heads_literal),
    "plain queries": (
        lambda q, k, v: 0.5 * q @ (k.softmax(2).mT @ v),
        lambda q, k, v: (held(0.5 * q) @ held(k.softmax(2).mT)) @ v,
    ),
    "one query": (one_query, one_query_literal),
    "with relative positions": (with_relative_positions, with_relative_positions_literal),
    "a state space": (state_space, state_space_literal),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rule", ["deconvnet", "guided"])
def test_attention_passes_the_signal_along_the_values(form: str, rule: Any) -> None:
    written, reference = FORMS[form]
    image = normal(2, 2, 4, 5)
    outputs, signals = [], []
    for network in (Attention(written), Attention(reference)):
        x = image.clone().requires_grad_()
        with BackwardRule(network, rule, strict=True) as backward:
            output = network(x)
            backward.signals_from([output])
        outputs.append(output.detach())
        signals += torch.autograd.grad(output, x, output.detach())
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(signals[0], signals[1], rtol=1e-10, atol=1e-12)
    assert signals[0].abs().max() > 0


@pytest.mark.parametrize("form", FORMS)
def test_the_gradient_of_attention_is_the_true_one(form: str) -> None:
    network, x = Attention(FORMS[form][0]), normal(2, 2, 4, 5).requires_grad_()
    output = network(x)
    (plain,) = torch.autograd.grad(output, x, output.detach())
    with BackwardRule(network, "gradient", strict=True):
        output = network(x)
    (signal,) = torch.autograd.grad(output, x, output.detach())
    assert torch.equal(signal, plain)


class Tokens(nn.Module):
    """`nn.MultiheadAttention` over the positions of a feature map."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(2, 8, 3)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, **options)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.conv(x).relu().flatten(2).transpose(1, 2)
        mixed: Tensor = self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return mixed


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"kdim": 8, "vdim": 8}])
def test_multi_head_attention_is_the_same_written_out(options: dict[str, Any]) -> None:
    network, image = Tokens(**options), normal(2, 2, 5, 6)
    own = network.attention
    weights = own.in_proj_weight if own.in_proj_weight is not None else torch.cat(
        [own.q_proj_weight, own.k_proj_weight, own.v_proj_weight]
    )  # fmt: skip

    def written_out(x: Tensor) -> Tensor:
        tokens = network.conv(x).relu().flatten(2).transpose(1, 2)
        query, key, value = (
            part.unflatten(2, (2, 4)).transpose(1, 2)
            for part in F.linear(tokens, weights, own.in_proj_bias).chunk(3, 2)
        )
        mixed = literal(query * 4**-0.5 * 2**0.5, key, value)  # `literal` divides by √2
        return F.linear(mixed.transpose(1, 2).flatten(2), own.out_proj.weight, own.out_proj.bias)

    found = []
    for run in (network, written_out):
        x = image.clone().requires_grad_()
        with BackwardRule(network, strict=True) as rule:
            output = run(x)
            rule.signals_from([output])
        found += [output.detach(), *torch.autograd.grad(output, x, output.detach())]
    torch.testing.assert_close(found[0], found[2], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found[1], found[3], rtol=1e-10, atol=1e-12)


Product = Callable[[Tensor, Tensor], Tensor]


def response_norm(x: Tensor) -> Tensor:
    """The factor of a global response normalisation (ConvNeXt V2)."""
    norms = x.norm(p=2, dim=(2, 3), keepdim=True)
    return norms / (norms.mean(1, keepdim=True) + 1e-6)


GATED: dict[str, tuple[Product, Product]] = {
    "relu6(a)·b (StarNet)": (lambda a, b: F.relu6(a) * b, lambda a, b: held(F.relu6(a)) * b),
    "silu(a)·b (MambaOut)": (lambda a, b: F.silu(a) * b, lambda a, b: held(F.silu(a)) * b),
    "gelu(a)·b, split": (lambda a, b: torch.mul(b, F.gelu(a)), lambda a, b: held(F.gelu(a)) * b),
    "a written-out silu": (lambda a, b: (a * a.sigmoid()) * b, lambda a, b: held(F.silu(a)) * b),
    "sigmoid before relu": (lambda a, b: a.sigmoid() * b.relu(), lambda a, b: held(a.sigmoid()) * b.relu()),
    "a gate in two parts": (
        lambda a, b: torch.cat([half * b for half in torch.cat([a, a], 1).sigmoid().chunk(2, 1)], 1),
        lambda a, b: torch.cat([held(a.sigmoid()) * b] * 2, 1),
    ),
    "1 + tanh(a)": (lambda a, b: (1 + a.tanh()) * b, lambda a, b: held(1 + a.tanh()) * b),
    "tanh(a)·sigmoid(b) (WaveNet)": (lambda a, b: a.tanh() * b.sigmoid(), lambda a, b: a.tanh() * held(b.sigmoid())),
    "sigmoid and a clamp": (lambda a, b: b.clamp(-1, 1) * a.sigmoid(), lambda a, b: b.clamp(-1, 1) * held(a.sigmoid())),
    "gelu and a clamp (Gemma)": (
        lambda a, b: F.gelu(a) * b.clamp(-9, 9),
        lambda a, b: held(F.gelu(a)) * b.clamp(-9, 9),
    ),
    "half a sigmoid": (lambda a, b: (a.sigmoid() / 2) * b, lambda a, b: held(a.sigmoid() / 2) * b),
    "a kernel computed from the image": (
        lambda a, b: F.conv2d(b[:1], a[0, :, None, :3, :3], groups=4),
        lambda a, b: F.conv2d(b[:1], held(a[0, :, None, :3, :3]), groups=4),
    ),
    "sampled where the image says": (
        lambda a, b: F.grid_sample(b, a[:, :2].movedim(1, 3).tanh(), align_corners=False),
        lambda a, b: F.grid_sample(b, held(a[:, :2].movedim(1, 3).tanh()), align_corners=False),
    ),
    "deformable convolution": (
        lambda a, b: deform_conv2d(b, a[:, :2], MIXING[..., None, None], mask=a[:, 2:3].sigmoid()),
        lambda a, b: deform_conv2d(b, held(a[:, :2]), MIXING[..., None, None], mask=held(a[:, 2:3].sigmoid())),
    ),
    "broadcast before rectified": (
        lambda a, b: a.relu() * b.mean((2, 3), keepdim=True),
        lambda a, b: a.relu() * held(b.mean((2, 3), keepdim=True)),
    ),
    "a response norm": (
        lambda a, b: b.relu() * response_norm(b.relu()),
        lambda a, b: b.relu() * held(response_norm(b.relu())),
    ),
    "a response norm of one position": (
        lambda a, b: b[..., :1, :1].relu() * response_norm(b[..., :1, :1].relu()),
        lambda a, b: b[..., :1, :1].relu() * held(response_norm(b[..., :1, :1].relu())),
    ),
}


@pytest.mark.parametrize("form", GATED)
@pytest.mark.parametrize("rule", ["deconvnet", "guided"])
def test_one_factor_of_a_product_is_its_gate(form: str, rule: Any) -> None:
    one, two = normal(4, 2, 3, 3, seed=1), normal(4, 2, 3, 3, seed=2)
    signals = []
    for product in GATED[form]:
        x = normal(1, 2, 6, 7).requires_grad_()
        with BackwardRule(nn.Identity(), rule, strict=True) as backward:
            output = product(F.conv2d(x, one), F.conv2d(x, two))
            backward.signals_from([output])
        signals += torch.autograd.grad(output, x, torch.ones_like(output))
    torch.testing.assert_close(signals[0], signals[1], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    "product",
    [
        lambda a, b: a * b,
        lambda a, b: a.relu() * b.relu(),
        lambda a, b: a @ b.mT,
        lambda a, b: a.softmax(-1) @ b.softmax(-1).mT,
        lambda a, b: (a.softmax(-1) * b) @ (a.softmax(-1) * b).mT,
        lambda a, b: a * F.conv2d(b, normal(4, 1, 3, 3), padding=1, groups=4),  # FocalNet: a query and its context
        lambda a, b: a.sigmoid() * b.sigmoid(),
        lambda a, b: a.tanh() * b.tanh(),
        lambda a, b: F.linear(a.sigmoid(), torch.eye(5).double()) * b,  # what a layer makes of a gate is none
        lambda a, b: torch.einsum("bcij,bckj->bcik", a, b),
        lambda a, b: torch.einsum("bcij,bckj,bckj->bcik", a.softmax(-1), b, b),
        lambda a, b: a.sigmoid().mul_(b),  # a gate that is written into
    ],
)
def test_products_that_are_not_decided_are_named(product: Product) -> None:
    x = normal(1, 4, 5, 5).requires_grad_()
    with (
        pytest.raises(interpret.InterpretError, match="does not cover"),
        BackwardRule(nn.Identity(), strict=True) as rule,
    ):
        rule.signals_from([product(F.conv2d(x, normal(4, 4, 1, 1)), F.conv2d(x, normal(4, 4, 1, 1, seed=1)))])


@pytest.mark.parametrize("rule", ["deconvnet", "guided"])
@pytest.mark.parametrize(
    ("transform", "literal"),
    [
        (  # GFNet: a filter of complex numbers
            lambda x, f: torch.fft.irfft2(torch.fft.rfft2(x, norm="ortho") * f, s=x.shape[2:], norm="ortho"),
            lambda x, f: _circular(x, torch.fft.irfft2(f, s=x.shape[2:])),
        ),
        (  # FNet
            lambda x, f: torch.fft.fft(torch.fft.fft(x, dim=-1), dim=-2).real,
            lambda x, f: _cosines(x),
        ),
        (
            lambda x, f: torch.view_as_real(torch.view_as_complex(torch.stack([x, 2 * x], -1)) * 1j).sum(-1),
            lambda x, f: -x,
        ),
        (lambda x, f: torch.fft.ifft2(torch.fft.fft2(x)).imag + x, lambda x, f: x),
    ],
)
def test_fourier_transforms_pass_the_signal_by_their_transpose(transform: Product, literal: Product, rule: Any) -> None:
    parts = normal(2, 4, 6, 4, seed=3)
    kernel, signals = torch.complex(parts[0], parts[1]), []
    for form in (transform, literal):
        x = normal(1, 2, 6, 6).requires_grad_()
        with BackwardRule(nn.Identity(), rule, strict=True) as backward:
            output = form(F.conv2d(x, normal(4, 2, 1, 1, seed=1)).relu(), kernel)
            backward.signals_from([output])
        signals += torch.autograd.grad(output, x, normal(*output.shape, seed=5))
    torch.testing.assert_close(signals[0], signals[1], rtol=1e-10, atol=1e-12)


def _circular(x: Tensor, kernel: Tensor) -> Tensor:
    """The circular convolution of each channel with a kernel of the same size, as a sum over shifts."""
    shifted = [
        kernel[:, i, j, None, None] * x.roll((i, j), (2, 3)) for i in range(x.shape[2]) for j in range(x.shape[3])
    ]
    return torch.stack(shifted).sum(0)


def _cosines(x: Tensor) -> Tensor:
    """The real part of the discrete Fourier transform over rows and columns."""
    height, width = x.shape[2:]
    y, z = torch.arange(height).double(), torch.arange(width).double()
    angle = (
        2
        * torch.pi
        * ((y[:, None, None, None] * y[None, None, :, None]) / height + (z[None, :, None, None] * z) / width)
    )
    return torch.einsum("vwij,bcij->bcvw", angle.cos(), x)


def test_only_operations_on_the_way_of_the_signal_are_named() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Identity(), nn.Identity())
    network[1].forward = lambda x: x * torch.erf(x.mean((2, 3), keepdim=True)).abs()  # type: ignore[method-assign]
    network[2].forward = lambda x: torch.sin(x)  # type: ignore[method-assign]
    network.double()
    image = normal(1, 1, 6, 6)
    with pytest.warns(UncoveredOperation) as caught:
        interpret.project(network, image, "2", channels=0)
    assert caught[0].message.operations == [("sin", "2")]  # type: ignore[union-attr]
    interpret.project(network, image, "1", channels=0, strict=True)
    with pytest.warns(UncoveredOperation) as caught, BackwardRule(network):
        network(image.requires_grad_())
    assert caught[0].message.operations == [("erf", "1"), ("abs", "1"), ("sin", "2")]  # type: ignore[union-attr]


def test_the_network_is_as_before() -> None:
    network, image = Attention(F.scaled_dot_product_attention), normal(1, 2, 4, 4)
    before = copy.deepcopy(network.state_dict())
    interpret.project(network, image, "last", channels=0)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not network.first._forward_hooks
