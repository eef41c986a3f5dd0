"""Does pooling make a network invariant? Five small networks on the same digits, probed side by side.

    python examples/papers/pooling_and_invariance.py [--epochs 6] [--images 4000] [--out pooling.png]

The same two convolutions with max-pooling, average pooling, strides or no downsampling, and a multilayer perceptron on
the pixels, are trained on the same digits. Three claims that lectures make are measured:

1. A convolutional network is not invariant to translation, scale or rotation: the probability of the true label falls.
2. Pooling gives local invariance: after pooling, features have moved less far than before, when the digit moves by one
   pixel.
3. A multilayer perceptron is worse: under every transform, its probability of the true label is lower.

The script prints the numbers, and of each claim whether they bear it out. Probabilities are means over the held-out
digits that are probed; what comes into the picture is black, as a digit's surroundings are.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

import interpret
from interpret.cli.answers import in_one_sentence
from interpret.figures.saving import write_figure
from interpret.figures.style import CATEGORIES, figure_grid, in_style
from interpret.images.datasets import load_dataset

VALUES = {
    "translation": np.arange(-8, 9.0),
    "scale": np.arange(5, 17) / 10,
    "rotation": np.arange(-90, 91, 15.0),
}
FAR = {"translation": (-6, 6), "scale": (0.6, 1.5), "rotation": (-60, 60)}
"""Values at which a digit can still be read."""
CONVOLUTIONAL = ("max-pooling", "average pooling", "stride", "no downsampling")


def convolutional(downsample: Callable[[int], nn.Module], stride: int = 1, side: int = 7) -> nn.Sequential:
    """Return two convolutions, each rectified and downsampled, and two linear layers: [B, 1, 28, 28] to [B, 10]."""
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 5, stride, padding=2), nn.ReLU(), downsample(8)),
        *(nn.Conv2d(8, 16, 5, stride, padding=2), nn.ReLU(), downsample(16)),
        *(nn.Flatten(), nn.Linear(16 * side**2, 64), nn.ReLU(), nn.Linear(64, 10)),
    )


NETWORKS: dict[str, Callable[[], nn.Sequential]] = {
    "max-pooling": lambda: convolutional(lambda _: nn.MaxPool2d(2)),
    "average pooling": lambda: convolutional(lambda _: nn.AvgPool2d(2)),
    "stride": lambda: convolutional(lambda _: nn.Identity(), stride=2),
    "no downsampling": lambda: convolutional(lambda _: nn.Identity(), side=28),
    "perceptron": lambda: nn.Sequential(
        *(nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10))
    ),
}


class Digits(NamedTuple):
    images: Tensor
    """[N, 1, 28, 28], black 0 and white 1."""
    labels: Tensor


def digits() -> tuple[Digits, Digits]:
    """Return the digits for training and those held out, in an order that mixes the classes."""
    data = load_dataset("digits")
    order = np.random.default_rng(0).permutation(len(data.labels))
    images = torch.from_numpy(data.images[order]).float()[:, None] / 255
    labels, held_out = torch.from_numpy(data.labels[order]), torch.from_numpy(data.held_out[order])
    return Digits(images[~held_out], labels[~held_out]), Digits(images[held_out], labels[held_out])


def train(build: Callable[[], nn.Sequential], data: Digits, epochs: int, seed: int = 0) -> nn.Sequential:
    """Return a network after some epochs of Adam on batches of 32, the same batches for every network."""
    torch.manual_seed(seed)
    network = build()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    order = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for batch in torch.randperm(len(data.images), generator=order).split(32):
            optimizer.zero_grad()
            F.cross_entropy(network(data.images[batch]), data.labels[batch]).backward()
            optimizer.step()
    return network.eval()


class Measured(NamedTuple):
    accuracy: dict[str, float]
    """Network to its share of right answers on the held-out digits, untransformed."""
    probes: dict[str, dict[str, interpret.InvarianceCurves]]
    """Transform to network to curves."""


def measure(images: int = 4000, epochs: int = 6, probed: int = 200) -> Measured:
    """Train the five networks on so many digits, and probe each on so many others."""
    training, held_out = digits()
    training = Digits(training.images[:images], training.labels[:images])
    accuracy: dict[str, float] = {}
    probes: dict[str, dict[str, interpret.InvarianceCurves]] = {transform: {} for transform in VALUES}
    for name, build in NETWORKS.items():
        network = train(build, training, epochs)
        with torch.inference_mode():
            right = network(held_out.images).argmax(1) == held_out.labels
        accuracy[name] = float(right.double().mean())
        layers = [layer for layer, _ in network.named_modules() if layer]
        for transform, values in VALUES.items():
            probes[transform][name] = interpret.probe(
                network, held_out.images[:probed], transform, values, layers, held_out.labels[:probed], fill="black"
            )
    return Measured(accuracy, probes)


def hidden(curves: interpret.InvarianceCurves) -> np.ndarray:
    """Return the mean relative distance [V] of the last hidden layer, rectified: 64 units in all networks."""
    return curves.relative[curves.layers[-2]].mean(0)


def at(curves: interpret.InvarianceCurves, of: np.ndarray, values: Sequence[float]) -> float:
    """Return the mean of a curve [V] at some values."""
    return float(np.mean([of[np.flatnonzero(np.isclose(curves.values, value))[0]] for value in values]))


def around_pooling(curves: interpret.InvarianceCurves) -> tuple[float, float]:
    """Return how far the features move for one pixel, before and after the first downsampling (layers 1 and 2)."""
    before, after = (at(curves, curves.relative[layer].mean(0), (-1, 1)) for layer in ("1", "2"))
    return before, after


class Claim(NamedTuple):
    text: str
    holds: dict[str, bool]
    """Case to whether the numbers bear the claim out."""
    numbers: list[str]


def claims(measured: Measured) -> list[Claim]:
    """Return each claim with the numbers that speak for it or against it."""
    not_invariant = Claim("a convolutional network is not invariant: the probability falls by more than 0.1", {}, [])
    for transform, probes in measured.probes.items():
        for name in CONVOLUTIONAL:
            curves = probes[name]
            mean = curves.probabilities.mean(0)
            still, far = at(curves, mean, [curves.identity]), at(curves, mean, FAR[transform])
            not_invariant.holds[f"{transform}, {name}"] = far < still - 0.1
            ends = " and ".join(f"{value:g}" for value in FAR[transform])
            not_invariant.numbers.append(f"{transform:12} {name:16} {still:.2f} untransformed, {far:.2f} at {ends}")

    local = Claim("pooling gives local invariance: for one pixel, less distance after it than before", {}, [])
    for name in CONVOLUTIONAL[:2]:
        before, after = around_pooling(measured.probes["translation"][name])
        local.holds[name] = after < before
        local.numbers.append(f"{name:16} {before:.3f} before, {after:.3f} after the first pooling")
    for name in NETWORKS:
        curves = measured.probes["translation"][name]
        local.numbers.append(f"{name:16} {at(curves, hidden(curves), (-1, 1)):.3f} in the last hidden layer")

    worse = Claim("a perceptron is worse: a lower mean probability than any convolutional network's", {}, [])
    for transform, probes in measured.probes.items():
        means = {name: float(curves.probabilities.mean()) for name, curves in probes.items()}
        worse.holds[transform] = means["perceptron"] < min(means[name] for name in CONVOLUTIONAL)
        listed = ", ".join(f"{name} {mean:.3f}" for name, mean in means.items())
        worse.numbers.append(f"{transform:12} {listed}")
    return [not_invariant, local, worse]


@in_style
def plot(measured: Measured) -> Figure:
    """Draw the five networks' curves together: distances above, probabilities below."""
    figure, axes = figure_grid(2, len(VALUES), (7.2, 4.2), sharex="col", sharey="row")
    for column, (transform, probes) in enumerate(measured.probes.items()):
        for colour, (name, curves) in zip(CATEGORIES, probes.items(), strict=False):
            style = {"color": colour, "label": name, "linestyle": "--" if name == "perceptron" else "-"}
            axes[0, column].plot(curves.values, hidden(curves), **style)
            axes[1, column].plot(curves.values, curves.probabilities.mean(0), **style)
        axes[0, column].set_title(transform)
        axes[1, column].set(xlabel=probes["stride"].axis, ylim=(0, 1.03))
    axes[0, 0].set(ylabel="last hidden layer:\ndistance / norm", ylim=(0, None))
    axes[1, 0].set_ylabel("probability\nof the true label")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4000, help="digits to train on")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--probed", type=int, default=200, help="held-out digits to probe with")
    parser.add_argument("--out", default="pooling_and_invariance.png")
    chosen = parser.parse_args(arguments)
    measured = measure(chosen.images, chosen.epochs, chosen.probed)
    print("accuracy on 1,000 held-out digits: " + ", ".join(f"{n} {a:.1%}" for n, a in measured.accuracy.items()))
    for claim in claims(measured):
        against = [case for case, holds in claim.holds.items() if not holds]
        print(f"{claim.text}: " + (f"not borne out for {'; '.join(against)}" if against else "borne out"))
        for line in claim.numbers:
            print(f"    {line}")
    write_figure(plot(measured), chosen.out)
    print(f"Open {chosen.out}")


if __name__ == "__main__":
    with in_one_sentence():
        main()
