"""AlexNet as published in 2012; torchvision's AlexNet is a later version.

A. Krizhevsky, I. Sutskever and G. E. Hinton, "ImageNet classification with deep convolutional neural networks",
NIPS 2012: sections 3.3 to 3.5 and 5, figure 2.
"""

from __future__ import annotations

from torch import nn


class AlexNet2012(nn.Sequential):
    """Five convolutions, three of them in two groups, local response normalisation, overlapping pools; 1000 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 11, stride=4)
        self.relu1 = nn.ReLU()
        self.norm1 = response_normalisation()
        self.pool1 = nn.MaxPool2d(3, 2)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=2)
        self.relu2 = nn.ReLU()
        self.norm2 = response_normalisation()
        self.pool2 = nn.MaxPool2d(3, 2)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.relu3 = nn.ReLU()
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=2)
        self.relu4 = nn.ReLU()
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=2)
        self.relu5 = nn.ReLU()
        self.pool5 = nn.MaxPool2d(3, 2)
        self.flatten = nn.Flatten()
        self.drop6 = nn.Dropout()
        self.fc6 = nn.Linear(256 * 6 * 6, 4096)
        self.relu6 = nn.ReLU()
        self.drop7 = nn.Dropout()
        self.fc7 = nn.Linear(4096, 4096)
        self.relu7 = nn.ReLU()
        self.fc8 = nn.Linear(4096, 1000)
        for name, layer in self.named_children():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)
                # a bias of 1 gives the ReLUs of these layers positive inputs at the start (section 5)
                nn.init.constant_(layer.bias, name in ("conv2", "conv4", "conv5", "fc6", "fc7"))


def response_normalisation() -> nn.LocalResponseNorm:
    """Return a / (2 + 1e-4 Σ a²)^0.75, the sum over five maps (section 3.3); torch takes their mean."""
    return nn.LocalResponseNorm(size=5, alpha=5 * 1e-4, beta=0.75, k=2.0)


def build() -> nn.Module:
    """Return the network with random weights: [B, 3, 227, 227] to [B, 1000]."""
    return AlexNet2012()
