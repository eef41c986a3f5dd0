"""ZFNet: AlexNet as Zeiler and Fergus revised it after visualising its features.

M. D. Zeiler and R. Fergus, "Visualizing and understanding convolutional networks", ECCV 2014: section 3 and figure 3.
"""

from __future__ import annotations

from torch import nn


class ZFNet(nn.Sequential):
    """First layer of 7 × 7 with stride 2, no groups; 1000 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 7, stride=2, padding=1)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.norm1 = contrast_normalisation()
        self.conv2 = nn.Conv2d(96, 256, 5, stride=2)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.norm2 = contrast_normalisation()
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.relu3 = nn.ReLU()
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1)
        self.relu4 = nn.ReLU()
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1)
        self.relu5 = nn.ReLU()
        self.pool5 = nn.MaxPool2d(3, 2)
        self.flatten = nn.Flatten()
        self.fc6 = nn.Linear(256 * 6 * 6, 4096)
        self.relu6 = nn.ReLU()
        self.drop6 = nn.Dropout()
        self.fc7 = nn.Linear(4096, 4096)
        self.relu7 = nn.ReLU()
        self.drop7 = nn.Dropout()
        self.fc8 = nn.Linear(4096, 1000)
        for layer in self:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                # the paper sets all weights to 0.01, which keeps all units identical: taken as standard deviation
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)


def contrast_normalisation() -> nn.LocalResponseNorm:
    """Return AlexNet's normalisation across maps (2012, section 3.3), as the paper gives no formula."""
    return nn.LocalResponseNorm(size=5, alpha=5 * 1e-4, beta=0.75, k=2.0)


def build() -> nn.Module:
    """Return the network with random weights: [B, 3, 224, 224] to [B, 1000]."""
    return ZFNet()
