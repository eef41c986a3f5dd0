"""Max-pooling compared with anti-aliased max-pooling (BlurPool), as in Zhang (2019), on digits.

    python examples/papers/antialiased_pooling.py [--epochs 6] [--images 4000] [--out antialiased.png]

Strided max-pooling takes a dense maximum and then subsamples it without the low-pass filter that sampling requires.
Zhang adds the filter, as a convolution with fixed weights. This script trains the same network with either pooling on
the same digits, and probes both with diagonal shifts, pixel by pixel.

It measures the equivariance error after each pooling layer, which for max-pooling is low at multiples of the stride and
high between them, and the consistency of predictions over all pairs of shifts. The remaining error at multiples of the
stride comes from the border: from the padding and, for BlurPool, from the reflection.

Source: Zhang, "Making convolutional networks shift-invariant again", 2019, section 3.2 (max-pooling), section 4
(consistency) and figure 5 (equivariance layer by layer). The paper measures on CIFAR-10 and ImageNet.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from pooling_and_invariance import Digits, convolutional, digits, train
from torch import Tensor, nn

import interpret
from interpret.cli.answers import in_one_sentence
from interpret.figures.saving import write_figure
from interpret.figures.style import CATEGORIES, figure_grid, in_style

SHIFTS = np.arange(-8, 9.0)
POOLINGS = ("2", "5")
"""The pooling layers, with strides of 2 and 4 pixels in the input."""


class BlurPool(nn.Module):
    """Blur with the binomial filter [1, 2, 1] along both axes, with stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("weights", torch.outer(row, row).expand(channels, 1, 3, 3).contiguous())

    def forward(self, maps: Tensor) -> Tensor:
        padded = F.pad(maps, (1, 1, 1, 1), mode="reflect")
        return F.conv2d(padded, self.weights, stride=2, groups=maps.shape[1])


NETWORKS = {
    "max-pooling": lambda: convolutional(lambda _: nn.MaxPool2d(2)),
    "max, then BlurPool": lambda: convolutional(
        lambda channels: nn.Sequential(nn.MaxPool2d(2, stride=1), BlurPool(channels))
    ),
}


class Measurements(NamedTuple):
    accuracy: dict[str, float]
    probes: dict[str, interpret.InvarianceCurves]


def measure(images: int = 4000, epochs: int = 6, probed: int = 200) -> Measurements:
    """Train both networks on `images` digits and probe them with `probed` held-out digits."""
    training, held_out = digits()
    training = Digits(training.images[:images], training.labels[:images])
    accuracy, probes = {}, {}
    for name, build in NETWORKS.items():
        network = train(build, training, epochs)
        with torch.inference_mode():
            correct = network(held_out.images).argmax(1) == held_out.labels
        accuracy[name] = float(correct.double().mean())
        shifted, labels = held_out.images[:probed], held_out.labels[:probed]
        probes[name] = interpret.probe(
            network, shifted, "translation", SHIFTS, [*POOLINGS, "9"], labels, direction="diagonal", fill="black"
        )
    return Measurements(accuracy, probes)


def statistics(curves: interpret.InvarianceCurves) -> dict[str, float]:
    """Return the mean equivariance error at and between multiples of the stride, and the stability of the outputs."""
    found = {}
    for layer, stride in zip(POOLINGS, (2, 4), strict=True):
        error = curves.equivariance[layer].mean(0)
        at_strides = (curves.values % stride == 0) & (curves.values != 0)
        found[f"error at multiples of {stride} pixels"] = float(error[at_strides].mean())
        found[f"error between multiples of {stride} pixels"] = float(error[curves.values % stride != 0].mean())
    assert curves.consistency is not None and curves.deviations is not None
    found["consistency over pairs of shifts"] = float(curves.consistency.mean())
    near = np.abs(curves.values) <= 3
    same = curves.top[:, near, None] == curves.top[:, None, near]
    found["consistency up to 3 pixels"] = float(same[:, ~np.eye(near.sum(), dtype=bool)].mean())
    found["deviation of the true-label probability"] = float(curves.deviations.mean())
    return found


@in_style
def plot(measured: Measurements) -> Figure:
    """Plot the equivariance error of both poolings and the probability of the true label against the shift."""
    figure, axes = figure_grid(1, 3, (7.2, 2.3))
    for colour, (name, curves) in zip(CATEGORIES, measured.probes.items(), strict=False):
        style = {"color": colour, "label": name, "marker": "o", "markersize": 2.5}
        for panel, layer in enumerate(POOLINGS):
            axes[0, panel].plot(curves.values, curves.equivariance[layer].mean(0), **style)
        axes[0, 2].plot(curves.values, curves.probabilities.mean(0), **style)
    titles = ("after the first pooling layer", "after the second pooling layer", "true label")
    for panel, title in zip(axes[0], titles, strict=True):
        panel.set_title(title)
        panel.set(xlabel=curves.axis, ylim=(0, None), xticks=np.arange(-8, 9, 4))
    axes[0, 0].set_ylabel("equivariance error\n(distance / norm)")
    axes[0, 2].set_ylabel("probability")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4000, help="digits to train on")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--probed", type=int, default=200, help="held-out digits to probe with")
    parser.add_argument("--out", default="antialiased_pooling.png")
    chosen = parser.parse_args(arguments)
    measured = measure(chosen.images, chosen.epochs, chosen.probed)
    found = {name: statistics(curves) for name, curves in measured.probes.items()}
    print(f"{'':44}" + "".join(f"{name:>20}" for name in found))
    print(f"{'accuracy on 1,000 held-out digits':44}" + "".join(f"{a:20.3f}" for a in measured.accuracy.values()))
    for row in next(iter(found.values())):
        print(f"{row:44}" + "".join(f"{one[row]:20.3f}" for one in found.values()))
    write_figure(plot(measured), chosen.out)
    print(f"Open {chosen.out}")


if __name__ == "__main__":
    with in_one_sentence():
        main()
