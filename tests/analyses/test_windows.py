"""Images that differ in windows: what networks make of them equals what they make of the whole images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from interpret.analyses.occlusion.windowed_forward import Windowed

TOLERANCE = {"rtol": 1e-9, "atol": 1e-10}  # of float64: another size of convolution adds up in another order


def images_in_windows(size: int = 24, count: int = 3, side: int = 6, channels: int = 3, seed: int = 0) -> Windowed:
    generator = torch.Generator().manual_seed(seed)
    clean = torch.randn(1, channels, size, size, generator=generator, dtype=torch.float64)
    patch = torch.randn(count, channels, side, side, generator=generator, dtype=torch.float64)
    corners = torch.randint(0, size - side + 1, (count, 2), generator=generator).tolist()
    corners[0], corners[-1] = (0, 0), (size - side, size - side)
    return Windowed.of(clean, patch, [(int(top), int(left)) for top, left in corners])


def both(module: nn.Module, images: Windowed) -> tuple[Any, Tensor]:
    """Return what a module makes of windowed images, and of the whole ones."""
    module = module.double().eval()
    with torch.no_grad():
        return module(images), module(images.whole())


@st.composite
def sliding(draw: st.DrawFn) -> nn.Module:
    kernel = (draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    stride = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    kind = draw(st.sampled_from(["conv", "conv", "max", "average"]))
    if kind == "conv":
        dilation = draw(st.integers(1, 2))
        groups = draw(st.sampled_from([1, 3]))
        padding = (draw(st.integers(0, 4)), draw(st.integers(0, 4)))
        return nn.Conv2d(3, 3, kernel, stride, padding, dilation, groups, bias=draw(st.booleans()))
    padding = (draw(st.integers(0, kernel[0] // 2)), draw(st.integers(0, kernel[1] // 2)))
    if kind == "max":
        return nn.MaxPool2d(kernel, stride, padding, dilation=draw(st.integers(1, 2)), ceil_mode=draw(st.booleans()))
    return nn.AvgPool2d(kernel, stride, padding, draw(st.booleans()), draw(st.booleans()))


@settings(max_examples=150, deadline=None)
@given(
    layers=st.lists(sliding(), min_size=1, max_size=3),
    side=st.integers(1, 10),
    size=st.integers(20, 30),
    seed=st.integers(0, 100),
)
def test_whatever_slides_over_windows_gives_what_it_gives_over_images(
    layers: list[nn.Module], side: int, size: int, seed: int
) -> None:
    torch.manual_seed(seed)
    network = nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU(inplace=True))))
    images = images_in_windows(size, side=side, seed=seed)
    try:
        expected = network.double()(images.whole())
    except RuntimeError:  # a map that is smaller than the kernel
        return
    found, _ = both(network, images)
    torch.testing.assert_close(found.whole() if isinstance(found, Windowed) else found, expected, **TOLERANCE)


@pytest.mark.parametrize(
    "module",
    [
        nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(), nn.SiLU(), nn.GELU(), nn.Hardswish(), nn.PReLU(3), nn.Tanh(),
        nn.BatchNorm2d(3), nn.Dropout(), nn.Identity(), nn.Conv2d(3, 4, 3, padding="same"),
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), nn.AdaptiveAvgPool2d(2), nn.AdaptiveMaxPool2d(2),
        nn.LocalResponseNorm(2), nn.GroupNorm(3, 3), nn.Upsample(scale_factor=2), nn.ConvTranspose2d(3, 2, 3),
        nn.Flatten(), nn.ChannelShuffle(3), nn.LPPool2d(2, 3), nn.Softmax(dim=1), nn.InstanceNorm2d(3),
    ],
    ids=str,
)  # fmt: skip
def test_every_kind_of_layer_is_either_local_or_sees_the_whole_images(module: nn.Module) -> None:
    found, expected = both(module, images_in_windows())
    torch.testing.assert_close(found.whole() if isinstance(found, Windowed) else found, expected, **TOLERANCE)


def test_the_window_grows_by_what_a_kernel_reaches_and_stays_small() -> None:
    images = images_in_windows(size=40, side=8)
    found, _ = both(nn.Conv2d(3, 4, 5, padding=2), images)
    assert isinstance(found, Windowed)
    assert found.patch.shape[2:] == (12, 12)
    assert found.corners[-1] == (28, 28), "at the border it moves in, so that all are of one size"


def test_a_window_of_most_of_the_map_is_given_up() -> None:
    found, _ = both(nn.Conv2d(3, 4, 5, padding=2), images_in_windows(size=12, side=8))
    assert not isinstance(found, Windowed)


def test_two_images_that_differ_in_different_windows_meet_in_a_window_that_holds_both() -> None:
    one = images_in_windows(size=30, seed=1)
    other = Windowed.of(one.clean * 2, images_in_windows(size=30, seed=2).patch, [(3, 4), (12, 12), (20, 5)])
    for operation in (torch.add, torch.sub, torch.mul, torch.maximum, lambda a, b: torch.cat([a, b], 1)):
        found = operation(one, other)
        assert isinstance(found, Windowed)
        torch.testing.assert_close(found.whole(), operation(one.whole(), other.whole()), rtol=0, atol=0)


def test_what_differs_from_place_to_place_is_not_applied_to_a_window() -> None:
    images = images_in_windows()
    for value in (torch.rand(24, dtype=torch.float64), torch.rand(1, 3, 24, 24, dtype=torch.float64)):
        torch.testing.assert_close(images * value, images.whole() * value, rtol=0, atol=0)


def rectify_a_part(x: Tensor) -> Tensor:
    x = x * 1
    x[:, :2].relu_()
    x[:, 0] += 1
    return x + 0


def change_by_name(x: Tensor) -> Tensor:
    x = x * 1
    x.add_(torch.arange(24, dtype=x.dtype))  # whose value is not looked at
    return x * 2


def change_through_a_view(x: Tensor) -> Tensor:
    x = x * 1
    flat, halves = x.view(x.size(0), -1), x.chunk(2, 2)
    x.mul_(2)
    halves[1].neg_()
    return flat + 0


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "network",
    [
        rectify_a_part, change_by_name, change_through_a_view,
        lambda x: x.view(len(x), -1), lambda x: x.reshape(len(x), 72, 24).flatten(1), lambda x: x.permute(0, 2, 3, 1),
        lambda x: x.detach().mul_(2), lambda x: torch.cat([x[:, :1], x[:, 1:]], 1).as_strided((3, 4), (4, 1)),
        lambda x: F.batch_norm(x, None, None, training=True), lambda x: x.sum((2, 3)).unsqueeze(1).squeeze(),
        lambda x: torch.stack(x.unbind(1), 1).view(len(x), -1), lambda x: torch.clamp(x, 0, out=x.new_empty(0)) + x,
    ],
)  # fmt: skip
def test_what_looks_into_images_or_writes_into_them_does_as_with_plain_ones(network: Any, layout: Any) -> None:
    images = images_in_windows()
    clean, patch = (part.contiguous(memory_format=layout) for part in (images.clean, images.patch))
    expected = network(images.whole())
    with torch.no_grad():
        found = network(Windowed.of(clean, patch, images.corners))
    torch.testing.assert_close(
        found.whole() if isinstance(found, Windowed) else found, expected, rtol=1e-12, atol=1e-12
    )


def test_the_clean_image_is_never_changed_by_the_network() -> None:
    images = images_in_windows()
    before = images.clean.clone()
    both(nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU(inplace=True)), images)
    assert torch.equal(images.clean, before)


def test_one_channel_is_that_of_the_whole_images() -> None:
    images = images_in_windows()
    assert torch.equal(images.channel(1), images.whole()[:, 1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["vgg11", "resnet18", "squeezenet1_1", "googlenet", "densenet121", "mobilenet_v2", "efficientnet_b0"]
)
def test_whole_networks_give_the_same_answers(name: str) -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"init_weights": True, "aux_logits": False} if name == "googlenet" else {}
    network = getattr(torchvision.models, name)(weights=None, **options)
    found, expected = both(network, images_in_windows(size=96, count=4, side=12))
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)


def test_functional_calls_are_seen_too() -> None:
    def network(x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(x, weight, padding=1))
        return F.max_pool2d(x + 1, 2).mean((2, 3))

    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64)
    images = images_in_windows()
    torch.testing.assert_close(network(images), network(images.whole()), **TOLERANCE)
