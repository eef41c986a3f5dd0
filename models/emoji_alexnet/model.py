"""A small AlexNet for 64 × 64 colour images: five convolutions, three overlapping pools, three linear layers."""

from __future__ import annotations

from torch import nn


class SmallAlexNet(nn.Sequential):
    """The layer sequence of AlexNet, with a quarter of its kernels, no normalisation and no groups."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 24, 7, stride=2, padding=2)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(3, 2)
        self.conv2 = nn.Conv2d(24, 48, 5, padding=2)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(3, 2)
        self.conv3 = nn.Conv2d(48, 64, 3, padding=1)
        self.relu3 = nn.ReLU()
        self.conv4 = nn.Conv2d(64, 64, 3, padding=1)
        self.relu4 = nn.ReLU()
        self.conv5 = nn.Conv2d(64, 48, 3, padding=1)
        self.relu5 = nn.ReLU()
        self.pool5 = nn.MaxPool2d(3, 2)
        self.flatten = nn.Flatten()
        self.drop6 = nn.Dropout()
        self.fc6 = nn.Linear(48 * 3 * 3, 64)
        self.relu6 = nn.ReLU()
        self.fc7 = nn.Linear(64, 64)
        self.relu7 = nn.ReLU()
        self.fc8 = nn.Linear(64, 9)
        for layer in self:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                # variance 2 / fan-in preserves the scale of activations across layers (He et al. 2015)
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)
        # small, so that the final kernels show what was learnt and not the initial noise
        nn.init.normal_(self.conv1.weight, std=0.01)


def build() -> nn.Module:
    """Return the network with random weights: [B, 3, 64, 64] to [B, 9]."""
    return SmallAlexNet()
