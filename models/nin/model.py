"""Network in Network, ImageNet version.

M. Lin, Q. Chen and S. Yan, "Network in network", ICLR 2014, in the version for 1000 classes that the authors published
in Caffe's model zoo (`nin_imagenet`), which Canziani et al. 2016 measure.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


def mlpconv(
    number: int, inputs: int, widths: tuple[int, int, int], kernel: int, stride: int, padding: int
) -> nn.Module:
    """Return a convolution followed by two 1 × 1 convolutions (an MLP at each position), each with ReLU."""
    first, second, last = widths
    return nn.Sequential(
        OrderedDict(
            [
                (f"conv{number}", nn.Conv2d(inputs, first, kernel, stride, padding)),
                (f"relu{number}", nn.ReLU()),
                (f"cccp{2 * number - 1}", nn.Conv2d(first, second, 1)),
                (f"relu_cccp{2 * number - 1}", nn.ReLU()),
                (f"cccp{2 * number}", nn.Conv2d(second, last, 1)),
                (f"relu_cccp{2 * number}", nn.ReLU()),
            ]
        )
    )


class NetworkInNetwork(nn.Sequential):
    """Four mlpconv layers and global average pooling over 1000 maps, without a fully connected layer."""

    def __init__(self) -> None:
        super().__init__()
        self.mlpconv1 = mlpconv(1, 3, (96, 96, 96), kernel=11, stride=4, padding=0)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.mlpconv2 = mlpconv(2, 96, (256, 256, 256), kernel=5, stride=1, padding=2)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.mlpconv3 = mlpconv(3, 256, (384, 384, 384), kernel=3, stride=1, padding=1)
        self.pool3 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.drop = nn.Dropout()
        self.mlpconv4 = mlpconv(4, 384, (1024, 1024, 1000), kernel=3, stride=1, padding=1)
        self.pool4 = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()


def build() -> nn.Module:
    """Return the network with random weights: [B, 3, 224, 224] to [B, 1000]."""
    return NetworkInNetwork()
