"""Vertical translation, scale and rotation of five photographs, as in Zeiler & Fergus (2014), figure 5.

    python examples/papers/zeiler_fergus_figure5.py [--every 1] [--out figure5.png]

The network is SqueezeNet 1.1 with ImageNet weights; the photographs come with the demo packages. Each shows a single
object of an ImageNet class; the labels were assigned by hand. Photographs are resized to a short side of 360 pixels and
the network sees a crop of 227, so a transformed crop is filled with the photograph's own surroundings.

The paper's claims, and how each is measured:

1. "Small transformations have a dramatic effect in the first layer of the model, but a lesser impact at the top feature
   layer": the distance at a small transformation, in the first and the last layer.
2. "being quasi-linear for translation & scaling": R² of a line through 0, fitted to the last layer's distances.
3. "The network output is stable to translations and scalings. In general, the output is not invariant to rotation": the
   probability of the true label over all values.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

import interpret
from interpret.cli.answers import in_one_sentence
from interpret.figures.saving import write_figure

PHOTOGRAPHS = {
    "classification/11.jpg": "jay",
    "classification/23.jpg": "axolotl",
    "classification/20.jpg": "dial telephone",
    "classification/22.jpg": "European fire salamander",
    "classification/4.jpg": "giant panda",
}
SHORT_SIDE = 360
LAYERS = "features.0,*.squeeze,*.expand1x1,*.expand3x3,classifier.1,classifier.3"
"""All convolutions, and the global average pooling, in place of the paper's fully connected layers."""
VALUES = {
    "translation": np.arange(-60, 61, 2.0),
    "scale": np.arange(50, 91) / 50,
    "rotation": np.arange(0, 351, 10.0),
}
SMALL = {"translation": 6, "scale": 1.1, "rotation": 20}
"""The small transformations of the first claim."""


def probe(every: int = 1) -> list[interpret.InvarianceCurves]:
    """Probe the five photographs at every n-th value of each transform, at the identity and at `SMALL`."""
    model = interpret.load("squeezenet1_1")
    model.preprocess = replace(model.preprocess, resize=SHORT_SIDE)
    images = interpret.open_images("photographs", model, crops="center")
    numbers = {images.source_name(source): source for source in range(len(images))}
    items = [numbers[name] for name in PHOTOGRAPHS]
    labels = [model.classes.index(name) for name in PHOTOGRAPHS.values()]
    probes = []
    for transform, values in VALUES.items():
        identity = 1 if transform == "scale" else 0
        probed = np.unique([*values[::every], identity, SMALL[transform]])
        probes.append(interpret.probe(model, images, transform, probed, LAYERS, labels, items=items))
    return probes


def claims(curves: interpret.InvarianceCurves) -> dict[str, float]:
    """Return the measurements for the paper's claims."""
    first, last = (curves.relative[layer].mean(0) for layer in (curves.layers[0], curves.layers[-1]))
    small = int(np.flatnonzero(curves.values == SMALL[curves.transform])[0])
    found = {"first layer, small": first[small], "last layer, small": last[small]}
    if curves.transform != "rotation":
        strength = np.abs(curves.values - curves.identity)
        line = strength * (strength @ last) / (strength @ strength)  # least squares, through 0
        found["linearity, R²"] = 1 - np.sum((last - line) ** 2) / np.sum((last - last.mean()) ** 2)
    return found | {
        "probability at identity": curves.probabilities[:, curves.values == curves.identity].mean(),
        "mean probability": curves.probabilities.mean(),
        "lowest probability": curves.probabilities.min(1).mean(),
        "consistency": curves.consistency.mean(),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="probe every n-th value only")
    parser.add_argument("--out", default="figure5.png")
    chosen = parser.parse_args(arguments)
    probes = probe(chosen.every)
    for curves in probes:
        print(f"{curves.axis}, mean of {len(PHOTOGRAPHS)} photographs")
        for name, number in claims(curves).items():
            print(f"    {name:24} {number:6.3f}")
    write_figure(interpret.plot_invariance(*probes), chosen.out)
    print(f"Open {chosen.out}")


if __name__ == "__main__":
    with in_one_sentence():
        main()
