"""A modern LeNet: the layout of LeNet-5 with ReLU and max-pooling, which the deconvnet is defined for."""

from __future__ import annotations

from torch import nn


class LeNet(nn.Sequential):
    """Two convolutions, each with ReLU and max-pooling, and two fully connected layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(50 * 4 * 4, 128)
        self.relu3 = nn.ReLU()
        self.fc2 = nn.Linear(128, 10)


def build() -> nn.Module:
    """Return the network with random weights: [B, 1, 28, 28] to [B, 10]."""
    return LeNet()
