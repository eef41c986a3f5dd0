"""Does pooling make a network invariant? Five small networks, trained and probed on the same digits.

    python examples/papers/pooling_and_invariance.py [--epochs 6] [--images 4000] [--out pooling.png]

Four networks have two convolutions, with max-pooling, average pooling, strides or no downsampling; the fifth is a
multilayer perceptron. The script measures three common claims:

1. A convolutional network is not invariant to translation, scale or rotation: the probability of the true label falls.
2. Pooling gives local invariance: for a shift by one pixel, features change less after pooling than before.
3. A multilayer perceptron is worse: under every transform, its probability of the true label is lower.

It prints the numbers and whether they confirm each claim. Probabilities are means over the probed held-out digits.
Areas outside the image are filled with black, the background of the digits.
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
LARGE = {"translation": (-6, 6), "scale": (0.6, 1.5), "rotation": (-60, 60)}
"""Large transformations that leave a digit readable."""
CONVOLUTIONAL = ("max-pooling", "average pooling", "stride", "no downsampling")


def convolutional(downsample: Callable[[int], nn.Module], stride: int = 1, side: int = 7) -> nn.Sequential:
    """Return two convolutions, each with ReLU and downsampling, and two linear layers: [B, 1, 28, 28] to [B, 10]."""
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
    """[N, 1, 28, 28], from 0 (black) to 1 (white)."""
    labels: Tensor


def digits() -> tuple[Digits, Digits]:
    """Return the training and the held-out digits, shuffled."""
    data = load_dataset("digits")
    order = np.random.default_rng(0).permutation(len(data.labels))
    images = torch.from_numpy(data.images[order]).float()[:, None] / 255
    labels, held_out = torch.from_numpy(data.labels[order]), torch.from_numpy(data.held_out[order])
    return Digits(images[~held_out], labels[~held_out]), Digits(images[held_out], labels[held_out])


def train(build: Callable[[], nn.Sequential], data: Digits, epochs: int, seed: int = 0) -> nn.Sequential:
    """Train a network with Adam at batch size 32, with the same batches for every network."""
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


class Measurements(NamedTuple):
    accuracy: dict[str, float]
    """Accuracy of each network on the held-out digits, untransformed."""
    probes: dict[str, dict[str, interpret.InvarianceCurves]]
    """Curves by transform and network."""


def measure(images: int = 4000, epochs: int = 6, probed: int = 200) -> Measurements:
    """Train the five networks on `images` digits and probe each with `probed` held-out digits."""
    training, held_out = digits()
    training = Digits(training.images[:images], training.labels[:images])
    accuracy: dict[str, float] = {}
    probes: dict[str, dict[str, interpret.InvarianceCurves]] = {transform: {} for transform in VALUES}
    for name, build in NETWORKS.items():
        network = train(build, training, epochs)
        with torch.inference_mode():
            correct = network(held_out.images).argmax(1) == held_out.labels
        accuracy[name] = float(correct.double().mean())
        layers = [layer for layer, _ in network.named_modules() if layer]
        for transform, values in VALUES.items():
            probes[transform][name] = interpret.probe(
                network, held_out.images[:probed], transform, values, layers, held_out.labels[:probed], fill="black"
            )
    return Measurements(accuracy, probes)


def last_hidden_distance(curves: interpret.InvarianceCurves) -> np.ndarray:
    """Return the mean relative distance [V] of the last hidden layer after its ReLU: 64 units in all networks."""
    return curves.relative[curves.layers[-2]].mean(0)


def mean_at(curves: interpret.InvarianceCurves, curve: np.ndarray, values: Sequence[float]) -> float:
    """Return the mean of a curve [V] at some values."""
    return float(np.mean([curve[np.flatnonzero(np.isclose(curves.values, value))[0]] for value in values]))


def around_pooling(curves: interpret.InvarianceCurves) -> tuple[float, float]:
    """Return the relative distance for a shift by one pixel before and after the first downsampling."""
    before, after = (mean_at(curves, curves.relative[layer].mean(0), (-1, 1)) for layer in ("1", "2"))
    return before, after


class Claim(NamedTuple):
    text: str
    holds: dict[str, bool]
    """Whether the numbers confirm the claim, by case."""
    numbers: list[str]


def claims(measured: Measurements) -> list[Claim]:
    """Return each claim with the numbers that confirm or contradict it."""
    not_invariant = Claim("a convolutional network is not invariant: the probability falls by more than 0.1", {}, [])
    for transform, probes in measured.probes.items():
        for name in CONVOLUTIONAL:
            curves = probes[name]
            mean = curves.probabilities.mean(0)
            original, transformed = mean_at(curves, mean, [curves.identity]), mean_at(curves, mean, LARGE[transform])
            not_invariant.holds[f"{transform}, {name}"] = transformed < original - 0.1
            ends = " and ".join(f"{value:g}" for value in LARGE[transform])
            not_invariant.numbers.append(
                f"{transform:12} {name:16} {original:.2f} untransformed, {transformed:.2f} at {ends}"
            )

    local = Claim(
        "pooling gives local invariance: a shift by one pixel changes features less after pooling than before", {}, []
    )
    for name in CONVOLUTIONAL[:2]:
        before, after = around_pooling(measured.probes["translation"][name])
        local.holds[name] = after < before
        local.numbers.append(f"{name:16} {before:.3f} before, {after:.3f} after the first pooling")
    for name in NETWORKS:
        curves = measured.probes["translation"][name]
        local.numbers.append(
            f"{name:16} {mean_at(curves, last_hidden_distance(curves), (-1, 1)):.3f} in the last hidden layer"
        )

    worse = Claim("a perceptron is worse: its mean probability is lower than that of any convolutional network", {}, [])
    for transform, probes in measured.probes.items():
        means = {name: float(curves.probabilities.mean()) for name, curves in probes.items()}
        worse.holds[transform] = means["perceptron"] < min(means[name] for name in CONVOLUTIONAL)
        listed = ", ".join(f"{name} {mean:.3f}" for name, mean in means.items())
        worse.numbers.append(f"{transform:12} {listed}")
    return [not_invariant, local, worse]


@in_style
def plot(measured: Measurements) -> Figure:
    """Plot the curves of the five networks: distances above, probabilities below."""
    figure, axes = figure_grid(2, len(VALUES), (7.2, 4.2), sharex="col", sharey="row")
    for column, (transform, probes) in enumerate(measured.probes.items()):
        for colour, (name, curves) in zip(CATEGORIES, probes.items(), strict=False):
            style = {"color": colour, "label": name, "linestyle": "--" if name == "perceptron" else "-"}
            axes[0, column].plot(curves.values, last_hidden_distance(curves), **style)
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
        contradicted = [case for case, holds in claim.holds.items() if not holds]
        print(f"{claim.text}: " + (f"not confirmed for {'; '.join(contradicted)}" if contradicted else "confirmed"))
        for line in claim.numbers:
            print(f"    {line}")
    write_figure(plot(measured), chosen.out)
    print(f"Open {chosen.out}")


if __name__ == "__main__":
    with in_one_sentence():
        main()
