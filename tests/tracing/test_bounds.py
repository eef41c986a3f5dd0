"""Bounds of receptive fields: never smaller than the support of the gradient, and the smallest that hold it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.fields import Linearised, outputs_of, positive, sees, support
from interpret import trace
from interpret.network.layers import tensors_in
from interpret.network.torch_internals import TorchDispatchMode
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
