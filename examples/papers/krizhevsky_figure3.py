"""The first layer's kernels, as in Krizhevsky et al. (2012), Figure 3.

    python examples/papers/krizhevsky_figure3.py squeezenet1_1
    python examples/papers/krizhevsky_figure3.py torchvision:alexnet

Zero is mid-grey, and each kernel has its own scale. The paper finds "a variety of frequency- and orientation-selective
kernels, as well as various colored blobs". The script prints the fraction of coloured kernels: those whose
deviation from their channel mean has a larger norm than the mean.
"""

from __future__ import annotations

import argparse

import numpy as np

import interpret
from interpret.cli.answers import in_one_sentence
from interpret.figures.saving import write_figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--out", default="figure3.png")
    arguments = parser.parse_args()

    model = interpret.load(arguments.model)
    write_figure(interpret.plot_filters(model), arguments.out)

    weights = interpret.filter_images(model) - 0.5
    grey = weights.mean(-1, keepdims=True)
    common, between = (3 * grey**2).sum((1, 2, 3)), ((weights - grey) ** 2).sum((1, 2, 3))
    print(f"{np.mean(between > common):.0%} of the {len(weights)} kernels are coloured.")
    print(f"Open {arguments.out}")


if __name__ == "__main__":
    with in_one_sentence():
        main()
