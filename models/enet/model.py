"""ENet: the ImageNet classifier that Canziani et al. 2016 compare, and the whole segmentation network.

A. Paszke, A. Chaurasia, S. Kim and E. Culurciello, "ENet: a deep neural network architecture for real-time semantic
segmentation", 2016: section 3, figure 2 and table 1. E. Culurciello, "Training ENet on ImageNet", 2016: version 3.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Initial(nn.Module):
    """Halve the resolution: thirteen 3 × 3 kernels, concatenated with the pooled input (figure 2a)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 13, 3, stride=2, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.norm = nn.BatchNorm2d(16)
        self.act = nn.PReLU(16)

    def forward(self, images: Tensor) -> Tensor:
        return self.act(self.norm(torch.cat([self.conv(images), self.pool(images)], 1)))


class Bottleneck(nn.Module):
    """Add a narrow branch of three convolutions to the input (figure 2b), optionally at half the resolution."""

    def __init__(
        self,
        inputs: int,
        maps: int,
        half: bool = False,
        dilation: int = 1,
        asymmetric: bool = False,
        drop: float = 0.1,
        relu: bool = False,
    ) -> None:
        super().__init__()
        narrow, side = maps // 4, 2 if half else 1
        self.extra = maps - inputs
        self.pool = nn.MaxPool2d(2) if half else None
        self.reduce = nn.Conv2d(inputs, narrow, side, stride=side, bias=False)
        self.norm1, self.act1 = nn.BatchNorm2d(narrow), rectifier(narrow, relu)
        if asymmetric:
            self.conv: nn.Module = nn.Sequential(
                nn.Conv2d(narrow, narrow, (5, 1), padding=(2, 0), bias=False),
                nn.Conv2d(narrow, narrow, (1, 5), padding=(0, 2)),
            )
        else:
            self.conv = nn.Conv2d(narrow, narrow, 3, padding=dilation, dilation=dilation)
        self.norm2, self.act2 = nn.BatchNorm2d(narrow), rectifier(narrow, relu)
        self.expand = nn.Conv2d(narrow, maps, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(maps)
        self.drop = nn.Dropout2d(drop)
        self.act3 = rectifier(maps, relu)

    def forward(self, maps: Tensor) -> Tensor:
        branch = self.act1(self.norm1(self.reduce(maps)))
        branch = self.act2(self.norm2(self.conv(branch)))
        branch = self.drop(self.norm3(self.expand(branch)))
        main = maps if self.pool is None else self.pool(maps)
        if self.extra:
            # pad missing input maps with zeros
            main = F.pad(main, (0, 0, 0, 0, 0, self.extra))
        return self.act3(main + branch)


class Upsampling(nn.Module):
    """Double the resolution: a transposed convolution in the branch, unpooling by the encoder's switches beside it."""

    def __init__(self, inputs: int, maps: int) -> None:
        super().__init__()
        narrow = maps // 4
        self.main = nn.Conv2d(inputs, maps, 1, bias=False)
        self.norm0 = nn.BatchNorm2d(maps)
        self.unpool = nn.MaxUnpool2d(2)
        self.reduce = nn.Conv2d(inputs, narrow, 1, bias=False)
        self.norm1, self.act1 = nn.BatchNorm2d(narrow), nn.ReLU()
        self.conv = nn.ConvTranspose2d(narrow, narrow, 3, stride=2, padding=1, output_padding=1)
        self.norm2, self.act2 = nn.BatchNorm2d(narrow), nn.ReLU()
        self.expand = nn.Conv2d(narrow, maps, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(maps)
        self.drop = nn.Dropout2d(0.1)
        self.act3 = nn.ReLU()

    def forward(self, maps: Tensor, switches: Tensor) -> Tensor:
        main = self.unpool(self.norm0(self.main(maps)), switches)
        branch = self.act1(self.norm1(self.reduce(maps)))
        branch = self.act2(self.norm2(self.conv(branch)))
        return self.act3(main + self.drop(self.norm3(self.expand(branch))))


def rectifier(maps: int, relu: bool) -> nn.Module:
    """Return the encoder's PReLU or the decoder's ReLU (section 4)."""
    return nn.ReLU() if relu else nn.PReLU(maps)


def first_stages() -> OrderedDict[str, nn.Module]:
    """Return the layers "initial" to "bottleneck2.0" of table 1 by name."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(initial=Initial())
    layers["bottleneck1_0"] = Bottleneck(16, 64, half=True, drop=0.01)
    for number in range(1, 5):
        layers[f"bottleneck1_{number}"] = Bottleneck(64, 64, drop=0.01)
    layers["bottleneck2_0"] = Bottleneck(64, 128, half=True)
    return layers


def context(stage: int, maps: int, last_maps: int) -> OrderedDict[str, nn.Module]:
    """Return the eight bottlenecks of a stage, "bottleneck2.1" to "bottleneck2.8" of table 1, by name."""
    kinds: list[dict[str, int]] = [{}, {"dilation": 2}, {"asymmetric": True}, {"dilation": 4}]
    kinds += [{}, {"dilation": 8}, {"asymmetric": True}, {"dilation": 16}]
    return OrderedDict(
        (f"bottleneck{stage}_{number}", Bottleneck(maps, last_maps if number == 8 else maps, **kind))  # type: ignore[arg-type]
        for number, kind in enumerate(kinds, 1)
    )


class ENetClassifier(nn.Sequential):
    """The ImageNet version: after each stage twice as many maps at half the resolution; 1000 classes."""

    def __init__(self) -> None:
        super().__init__(first_stages() | context(2, 128, 256))
        self.bottleneck3_0 = Bottleneck(256, 256, half=True)
        for name, layer in context(3, 256, 512).items():
            self.add_module(name, layer)
        self.bottleneck4_0 = Bottleneck(512, 512, half=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(512, 1000)


class ENet(nn.Module):
    """The whole network of table 1: a class for each pixel."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(first_stages() | context(2, 128, 128) | context(3, 128, 128))
        self.bottleneck4_0 = Upsampling(128, 64)
        self.bottleneck4_1 = Bottleneck(64, 64, relu=True)
        self.bottleneck4_2 = Bottleneck(64, 64, relu=True)
        self.bottleneck5_0 = Upsampling(64, 16)
        self.bottleneck5_1 = Bottleneck(16, 16, relu=True)
        self.fullconv = nn.ConvTranspose2d(16, classes, 2, stride=2)

    def forward(self, images: Tensor) -> Tensor:
        maps, switches = images, []
        for stage in self.encoder:
            if isinstance(stage, Bottleneck) and stage.pool is not None:
                # positions of the maxima, for unpooling in the decoder
                switches.append(F.max_pool2d(maps, 2, return_indices=True)[1])
            maps = stage(maps)
        maps = self.bottleneck4_2(self.bottleneck4_1(self.bottleneck4_0(maps, switches.pop())))
        return self.fullconv(self.bottleneck5_1(self.bottleneck5_0(maps, switches.pop())))


def build() -> nn.Module:
    """Return the classifier with random weights: [B, 3, 224, 224] to [B, 1000]."""
    return ENetClassifier()


def build_segmentation() -> nn.Module:
    """Return the whole network with random weights: [B, 3, H, W] to [B, 12, H, W], for H and W divisible by 8."""
    return ENet(classes=12)
