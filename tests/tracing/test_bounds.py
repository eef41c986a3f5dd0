"""Bounds of receptive fields: never smaller than the support of the gradient, and the smallest that hold it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from operator import sub
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import SwinTransformer
from torchvision.ops import deform_conv2d

from helpers.fields import CONVOLVED, Calls, Linearised, outputs_of, positive, sees, support
from interpret import project, trace
from interpret.network.layers import tensors_in
from interpret.network.torch_internals import TorchDispatchMode
from interpret.tracing.meta_trace import trace_on_meta
from interpret.tracing.receptive_field import ReceptiveField


class Decoder(nn.Module):
    """Strided convolutions, a function that changes the grid back, and a convolution of what it gives."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.down, self.skip = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)
        self.up, self.end = nn.Identity(), nn.Conv2d(4, 2, 3, padding=1)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        up = self.up(self.function(self.skip(x)))
        return self.end(up + x if up.shape == x.shape else up)


def transposed(kernel: int, **settings: int) -> Callable[[Tensor], Tensor]:
    return lambda x: F.conv_transpose2d(x, x.new_ones(4, 4, kernel, kernel), **settings)


def in_windows(x: Tensor, mix: Callable[[Tensor], Tensor], height: int = 3, width: int = 5, shift: int = 0) -> Tensor:
    """Apply a function to the tokens [B·P, N, C] of windows, which may be shifted."""
    batch, channels, rows, columns = x.shape
    x = x.permute(0, 2, 3, 1).roll((-shift, -shift), (1, 2))
    x = x.view(batch, rows // height, height, columns // width, width, channels).permute(0, 1, 3, 2, 4, 5)
    x = mix(x.reshape(-1, height * width, channels))
    x = x.view(batch, rows // height, columns // width, height, width, -1).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, rows, columns, -1).roll((shift, shift), (1, 2)).permute(0, 3, 1, 2)


def attention(x: Tensor) -> Tensor:
    return (x @ x.transpose(1, 2)).softmax(2) @ x


def attention_of_heads(x: Tensor) -> Tensor:
    q, k, v = x.unflatten(2, (2, 2)).transpose(1, 2).repeat(3, 1, 1, 1).chunk(3)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def attention_with_halo(x: Tensor) -> Tensor:
    """Each window of 2 × 2 sees the positions around it too."""
    around = F.unfold(x, 4, padding=1, stride=2).unflatten(1, (4, 16)).permute(0, 3, 2, 1)  # [B, P, 16, C]
    own = F.unfold(x, 2, stride=2).unflatten(1, (4, 4)).permute(0, 3, 2, 1)
    mixed = (own @ around.mT).softmax(-1) @ around
    return F.fold(mixed.permute(0, 3, 2, 1).flatten(1, 2), x.shape[2:], 2, stride=2)


def sampled(x: Tensor, theta: list[list[float]], **settings: Any) -> Tensor:
    """Sample a map at the places of a grid of constants."""
    grid = F.affine_grid(torch.tensor([theta], dtype=x.dtype), [1, 1, *x.shape[2:]], align_corners=False)
    return F.grid_sample(x, grid, align_corners=False, **settings)


def outlook(x: Tensor) -> Tensor:
    """Each position spreads over its 3 × 3 neighbours what it has seen of them."""
    values = F.unfold(x, 3, padding=1).unflatten(1, (4, 9))
    return F.fold((x.new_ones(9, 9) @ values).flatten(1, 2), x.shape[2:], 3, padding=1)


def shifted(x: Tensor, mix: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Apply a function to the tokens of shifted windows, and to which of them come from opposite borders [P, N, N]."""
    rows, columns = x.shape[2:]
    wrapped = 2 * (torch.arange(rows) == rows - 1)[:, None] + 1 * (torch.arange(columns) == columns - 1)
    parts = wrapped.unflatten(0, (-1, 3)).unflatten(2, (-1, 5)).transpose(1, 2).reshape(-1, 15)
    return in_windows(x, lambda tokens: mix(tokens, parts[:, None] != parts[:, :, None]), shift=1)


def masked(x: Tensor, hide: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Attention in shifted windows, of two heads, in which a function hides tokens of logits from each other."""

    def mix(tokens: Tensor, apart: Tensor) -> Tensor:
        tokens = tokens.unflatten(2, (2, 2)).transpose(1, 2)  # [B·P, heads, N, channels]
        logits = (tokens @ tokens.mT).unflatten(0, (-1, len(apart)))
        weights = F.dropout(hide(logits, apart[:, None]).flatten(0, 1).softmax(-1), training=False)
        return (weights @ tokens).transpose(1, 2).flatten(2)

    return shifted(x, mix)


def masked_attention(x: Tensor, mask_of: Callable[[Tensor], Tensor | None], **settings: Any) -> Tensor:
    def mix(tokens: Tensor, apart: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(tokens, tokens, tokens, attn_mask=mask_of(apart), **settings)

    return shifted(x, mix)


WINDOWS: dict[str, Callable[[Tensor], Tensor]] = {
    "attention": lambda x: in_windows(x, attention),
    "attention of heads": lambda x: in_windows(x, attention_of_heads),
    "attention in rows": lambda x: in_windows(x, attention, 1, 5),
    "attention with a halo": attention_with_halo,
    "outlook": outlook,
    "shifted windows": lambda x: masked(x, lambda logits, apart: logits + torch.where(apart, -torch.inf, 0.0)),
    "shifted, a bias added": lambda x: masked(
        x, lambda logits, apart: logits + torch.linspace(0, 9, 15) - torch.where(apart, torch.inf, 0.0)
    ),
    "shifted, filled": lambda x: masked(x, lambda logits, apart: logits.masked_fill(apart, -torch.inf)),
    "shifted, chosen": lambda x: masked(x, lambda logits, apart: torch.where(~apart, logits.mul(2), -torch.inf)),
    "shifted, attention": lambda x: masked_attention(x, lambda apart: ~apart),
    "shifted, attention plus": lambda x: masked_attention(x, lambda apart: torch.where(apart, -torch.inf, 0.0).to(x)),
    "causal": lambda x: in_windows(x, lambda t: F.scaled_dot_product_attention(t, t, t, is_causal=True)),
    "half a map": lambda x: sampled(x, [[0.5, 0, 0.1], [0, 0.5, -0.2]]),
    "a turned map": lambda x: sampled(x, [[0.9, 0.3, 0], [-0.3, 0.9, 0]], padding_mode="border"),
    "the nearest": lambda x: sampled(x, [[0.7, 0, 0], [0, 0.8, 0]], mode="nearest"),
    "einsum": lambda x: in_windows(
        x, lambda t: torch.einsum("nij,njc->nic", torch.einsum("nic,njc->nij", t, t).softmax(2), t)
    ),
    "softmax of rows": lambda x: x.softmax(3) + x,
    "mean of windows": lambda x: in_windows(x, lambda t: t + t.mean(1, keepdim=True)),
    "reflecting padding": lambda x: F.pad(x, (2, 1, 0, 3), mode="reflect"),
    "a blur behind it": lambda x: F.avg_pool2d(F.pad(x, (1, 2, 1, 2), mode="reflect"), 4, 2),
    "beside what is reflected": lambda x: x + F.avg_pool2d(F.pad(x.relu(), (2, 0, 2, 0), mode="reflect"), 3, 1),
    "reflected twice": lambda x: F.pad(F.pad(x, (1, 1, 1, 1), mode="reflect"), (0, 0, 2, 2), mode="reflect"),
    "circular padding": lambda x: F.pad(x, (1, 1, 0, 0), mode="circular"),
    "one after another": lambda x: torch.cat([x, x], dim=2),
    "one after half": lambda x: torch.cat([x, x[:, :, ::2]], dim=2),
    "first row": lambda x: x + x[:, :, :1],
    "repeated": lambda x: x + F.max_pool2d(x, 2).repeat(1, 1, 2, 2),
    "cumulative": lambda x: x.cumsum(3),
    "pixel shuffle": lambda x: F.pixel_shuffle(x, 2),
    "uneven pool": lambda x: F.adaptive_avg_pool2d(x, (4, 7)),
}

RESAMPLING: dict[str, Callable[[Tensor], Tensor]] = {
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "nearest to a size": lambda x: F.interpolate(x, size=(13, 22), mode="nearest"),
    "nearest-exact": lambda x: F.interpolate(x, scale_factor=2, mode="nearest-exact"),
    "bilinear": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "bilinear to corners": lambda x: F.interpolate(x, size=(12, 20), mode="bilinear", align_corners=True),
    "bicubic": lambda x: F.interpolate(x, scale_factor=(2, 2), mode="bicubic"),
    "smaller": lambda x: F.interpolate(x, scale_factor=0.5, mode="bilinear"),
    "smaller, anti-aliased": lambda x: F.interpolate(x, size=(4, 6), mode="bicubic", antialias=True),
    "area": lambda x: F.interpolate(x, size=(4, 5), mode="area"),
    "four times": lambda x: F.interpolate(x, scale_factor=4, mode="bilinear"),
    "eight times": lambda x: F.interpolate(x, scale_factor=8),  # finer than pixels
    "half as large again": lambda x: F.interpolate(x, scale_factor=1.5, mode="bilinear"),
    "half as large again, nearest": lambda x: F.interpolate(x, scale_factor=1.5),
    "transposed": transposed(2, stride=2),
    "transposed, overlapping": transposed(4, stride=2, padding=1),
    "transposed, dilated": transposed(3, stride=2, dilation=3, padding=2, output_padding=1),
    "transposed, with gaps": transposed(1, stride=2, output_padding=1),
}


def windows_of(network: nn.Module, shape: tuple[int, int, int]) -> dict[str, tuple[ReceptiveField, list[list[int]]]]:
    """Return the fields of the layers behind the function, and how far each support is from its window's edges."""
    network = positive(network)
    traced = trace(network, shape)
    image = torch.ones(1, *shape, dtype=torch.float64, requires_grad=True)
    with Linearised():
        outputs = outputs_of(network, image, ["up", "end"])
    found = {}
    for name, output in outputs.items():
        layer = traced[name]
        assert layer.receptive_field is not None and layer.local_field == layer.receptive_field and layer.grid
        slack = []
        for y in range(layer.grid[0]):
            for x in range(layer.grid[1]):
                seen = support(output, image, layer, (y, x))
                top, left, bottom, right = layer.receptive_field.window((y, x))
                if seen is not None:
                    slack.append([seen[0] - top, seen[1] - left, bottom - seen[2], right - seen[3]])
        found[name] = layer.receptive_field, slack
    return found


def smallest(seen: list[tuple[int, int]]) -> int:
    """Return the size of the smallest evenly spaced windows that hold what positions in a row see."""
    sizes = []
    for step in range(1, 40):
        first = min(begin - place * step for place, (begin, _) in enumerate(seen))
        sizes.append(max(end - place * step for place, (_, end) in enumerate(seen)) - first)
    return min(sizes)


@pytest.mark.parametrize("name", WINDOWS)
def test_boxes_hold_the_support_of_the_gradient_of_every_neuron(name: str) -> None:
    network = positive(Calls(WINDOWS[name]))
    traced = trace(network, (3, 12, 20))
    image = torch.ones(1, 3, 12, 20, dtype=torch.float64, requires_grad=True)
    with Linearised():
        output = outputs_of(network, image, ["end"])["end"]
    layer = traced["end"]
    field = layer.receptive_field
    assert field is not None and not field.exact and layer.grid == tuple(output.shape[2:])
    seen = {
        (y, x): support(output, image, replace(layer, axes=(-2, -1)), (y, x))
        for y in range(layer.grid[0])
        for x in range(layer.grid[1])
    }
    for place, own in seen.items():
        window = field.window(place)
        assert own is not None and max(map(sub, window[:2], own[:2])) <= 0 <= min(map(sub, window[2:], own[2:]))
    for axis, size in enumerate(field.size):
        along: list[list[tuple[int, int]]] = [[] for _ in range(layer.grid[axis])]
        for place, own in seen.items():
            along[place[axis]].append((own[axis], own[2 + axis]))  # type: ignore[index]
        # what is seen ends at the border, where the convolution's window begins one pixel outside
        spare = 4 if "map" in name or "nearest" in name else 2  # a sample may be where one of two pixels has no weight
        assert size <= smallest([(min(one)[0], max(end for _, end in one)) for one in along]) + spare


def test_a_mask_of_minus_100_hides_as_one_of_infinity() -> None:
    def shifts(added: float) -> nn.Module:
        return positive(Calls(lambda x: masked(x, lambda logits, apart: logits + torch.where(apart, added, 0.0))))

    network, shape = shifts(-100), (3, 12, 20)
    field = trace(network, shape)["end"].receptive_field
    assert field is not None and field == trace(shifts(-torch.inf), shape)["end"].receptive_field
    assert trace(shifts(-50), shape)["end"].receptive_field is None  # a shifted window in a corner sees all borders
    image = torch.ones(1, *shape, dtype=torch.float64, requires_grad=True)
    output = network(image)
    for y, x in [(0, 0), (11, 19), (2, 5)]:
        (gradient,) = torch.autograd.grad(output[0, :, y, x].sum(), image, retain_graph=True)
        top, left, bottom, right = (max(0, edge) for edge in field.window((y, x)))
        outside = gradient.clone()
        outside[..., top:bottom, left:right] = 0
        assert 0 < outside.abs().max() < 1e-35 * gradient.abs().max() or not outside.any()


@pytest.mark.slow
def test_bounds_hold_what_neurons_of_a_swin_transformer_see() -> None:
    torch.manual_seed(0)
    swin = SwinTransformer([4, 4], 8, depths=[2, 2], num_heads=[1, 2], window_size=[3, 3], stochastic_depth_prob=0)
    network, shape = swin.double().eval(), (3, 96, 96)
    names = [f"features.{stage}.{block}.mlp.3" for stage in (1, 3) for block in (0, 1)]
    traced = trace(network, shape)
    image = torch.rand(1, *shape, dtype=torch.float64, requires_grad=True)
    outputs = outputs_of(network, image, names)
    sizes = []
    for name, output in outputs.items():
        field = traced[name].receptive_field
        assert field is not None
        sizes.append(field.size[0])
        for y in range(0, output.shape[1], 3):
            (gradient,) = torch.autograd.grad(output[0, y, -1 - y].sum(), image, retain_graph=True)
            strength = gradient.abs().sum((0, 1))
            seen = (strength > 1e-35 * strength.max()).nonzero()
            window = field.window((y, output.shape[2] - 1 - y))
            assert bool((seen >= torch.tensor(window[:2])).all() and (seen < torch.tensor(window[2:])).all())
    assert sizes == [20, 32, 64, 80]


class Masked(nn.Module):
    """Attention in shifted windows, whose mask is a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.end = nn.Conv2d(3, 4, 3, padding=1), nn.Identity()
        self.register_buffer("added", torch.empty(16, 1, 15, 15))
        shifted(torch.ones(1, 4, 12, 20), self.keep)

    def keep(self, tokens: Tensor, apart: Tensor) -> Tensor:
        self.added = torch.where(apart, -100.0, 0.0)[:, None]
        return tokens

    def forward(self, x: Tensor) -> Tensor:
        return self.end(masked(self.conv(x), lambda logits, _: logits + self.added))


def test_masks_are_read_before_mining() -> None:
    network = Masked()
    field = trace_on_meta(network, (3, 12, 20))["end"].receptive_field
    assert field is not None and field == trace(network, (3, 12, 20))["end"].receptive_field


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.grid_sample(x, x.mean(1)[..., None].expand(-1, -1, -1, 2).tanh(), align_corners=False),
        lambda x: deform_conv2d(x, x.repeat(1, 5, 1, 1)[:, :18], x.new_ones(4, 4, 3, 3), padding=1),
    ],
)
def test_places_that_depend_on_the_image_may_be_anywhere(function: Callable[[Tensor], Tensor]) -> None:
    layer = sees(function)
    assert layer.receptive_field is None and layer.local_field is None


def test_the_values_of_a_grid_are_read_before_mining() -> None:
    network = Calls(lambda x: sampled(x, [[0.5, 0, 0.1], [0, 0.5, -0.2]]))
    assert trace_on_meta(network, (3, 12, 20))["end"] == trace(network, (3, 12, 20))["end"]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: in_windows(x, lambda tokens: tokens.relu()),
        lambda x: in_windows(x, lambda tokens: tokens, shift=2),
        lambda x: torch.cat([x.new_zeros(1, 1, 4), x.flatten(2).mT], 1).mul(2)[:, 1:].mT.unflatten(2, (12, 20)),
        lambda x: torch.cat([x.flatten(2).mT[:, :0], x.flatten(2).mT.relu()], 1).mT.unflatten(2, (12, 20)),
        lambda x: x.flip(-1),
        lambda x: x.roll(1, -1),
        lambda x: x.roll(3, 2).roll(-3, 2),
    ],
)
def test_what_is_only_moved_keeps_its_window(function: Callable[[Tensor], Tensor]) -> None:
    assert sees(function, (12, 20)).receptive_field == CONVOLVED


@pytest.mark.parametrize("name", RESAMPLING)
def test_bounds_hold_the_support_of_the_gradient_of_every_neuron(name: str) -> None:
    found = windows_of(Decoder(RESAMPLING[name]), (3, 24, 40))
    for layer, (_, slack) in found.items():
        assert min(map(min, slack)) >= 0, layer
    # the smallest: at each edge, some neuron sees all there is
    assert [min(one[edge] for one in found["up"][1]) for edge in range(4)] == [0, 0, 0, 0]


def test_bounds_are_marked_and_stay_so() -> None:
    traced = trace(Decoder(RESAMPLING["bilinear"]), (3, 24, 40))
    assert traced["skip"].receptive_field == ReceptiveField((7, 7), (4, 4), (-3, -3))
    bound = traced["up"].receptive_field
    assert bound is not None and not bound.exact and bound.stride == (2, 2) and bound.size == (13, 13)
    assert not traced["end"].receptive_field.exact  # type: ignore[union-attr]
    assert repr(bound) == "ReceptiveField(size=(13, 13), stride=(2, 2), start=(-7, -7), exact=False)"
    assert not traced["up"].croppable
    assert "≤ 13 × 13" in repr(traced)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_behind_resizing_by_a_fraction_windows_are_as_small_in_large_images(mode: str) -> None:
    """With a whole stride, they would grow with the image, since the windows of its positions drift away."""
    size = {"nearest": 15, "bilinear": 19}[mode]  # those of the largest neuron, as the support says
    for side in (96, 192):
        network = positive(Decoder(lambda x: F.interpolate(x, scale_factor=1.5, mode=mode)))
        layer = trace(network, (3, side, side))["end"]
        field = layer.receptive_field
        assert field is not None and field.size == (size, size) and field.stride == (8 / 3, 8 / 3) and not field.exact
    image = torch.ones(1, 3, 24, 24, dtype=torch.float64, requires_grad=True)
    output = outputs_of(network, image, ["end"])["end"]
    seen = [support(output, image, layer, (place, place)) for place in range(9)]
    assert size - 1 <= max(one[2] - one[0] for one in seen if one) <= size


def test_projections_are_cut_to_windows_with_a_stride_that_is_no_whole_number() -> None:
    network = positive(Decoder(lambda x: F.interpolate(x, scale_factor=1.5)))
    image = torch.rand(1, 3, 96, 96, dtype=torch.float64)
    field = trace(network, (3, 96, 96))["end"].receptive_field
    for place in ((0, 0), (17, 4), (35, 35)):
        found = project(network, image, "end", 0, positions=[place], rule="gradient", start="one")
        x = image.clone().requires_grad_()
        (expected,) = torch.autograd.grad(network(x)[0, 0, place[0], place[1]], x)
        assert torch.equal(found.full((96, 96)), expected)
        assert found.pixels.shape[2:] == field.size  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "function", [lambda x: F.interpolate(x, scale_factor=1.0), lambda x: F.interpolate(x, (12, 16))]
)
def test_resampling_to_the_same_grid_is_exact(function: Callable[[Tensor], Tensor]) -> None:
    assert sees(function).receptive_field == ReceptiveField((3, 3), (1, 1), (-1, -1))


class Largest(TorchDispatchMode):
    """Keeps the number of elements of the largest tensor that an operation returned."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.numel = max(self.numel, *(tensor.numel() for tensor in tensors_in(result)), 0)
        return result


def test_maps_are_resampled_axis_by_axis() -> None:
    """A channel for every position of an axis, each as large as the map, would take 9 GB for 512 × 512 positions."""
    network = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Upsample(scale_factor=2, mode="bilinear"))
    with Largest() as largest:
        trace(network.to("meta"), (1, 128, 128))
    assert largest.numel <= 2 * 256 * 256  # two images
