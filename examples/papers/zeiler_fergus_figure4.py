"""Evolution of features during training, as in Zeiler & Fergus (2014), Figure 4.

    python examples/papers/zeiler_fergus_figure4.py
    python examples/papers/zeiler_fergus_figure4.py emoji_alexnet emoji --layers 'conv*'      # in colour; see its card
    python examples/papers/zeiler_fergus_figure4.py my-model-folder path/to/training/images --units 8

Each row is a unit, each column a saved epoch: the unit's highest activation over all training images, projected to
pixels by the deconvnet. The paper concludes that "the lower layers of the model can be seen to converge within a few
epochs" and that "the upper layers only develop after a considerable number of epochs": the curve below the images
measures this, and the script prints the numbers.
"""

from __future__ import annotations

import argparse

import interpret
from interpret.cli.answers import in_one_sentence
from interpret.figures.saving import write_figure
from interpret.images.datasets import load_dataset
from interpret.results.plotting import plot


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="lenet", help="a model folder with saved epochs")
    parser.add_argument("data", nargs="?", help="default: the 4,000 digits that lenet was trained on")
    parser.add_argument("--layers", help="default: all convolutional and linear layers")
    parser.add_argument("--units", type=int, default=6, help="number of random units per layer")
    parser.add_argument("--out", default="figure4.png")
    arguments = parser.parse_args()

    model = interpret.load(arguments.model)
    if arguments.data is None:
        digits = load_dataset("digits")
        images = interpret.open_images(digits.images[~digits.held_out], model)
        images.name = "the training digits"
    else:
        images = interpret.open_images(arguments.data, model)

    evolution = interpret.evolve(arguments.model, images, arguments.layers, arguments.units)
    write_figure(plot(evolution), arguments.out)

    print(evolution.reading)
    for layer in evolution.layers:
        moved, jumps = 100 * evolution.movement[layer], evolution.jumps[layer]
        print(
            f"{layer}: features change by {moved[0]:.1f} % of their norm per epoch at first, "
            f"by {moved[-1]:.2f} % at last; "
            f"the top-activating image changed in {jumps.sum()} of {jumps[:, 1:].size} steps"
        )
    print(f"Open {arguments.out}")


if __name__ == "__main__":
    with in_one_sentence():
        main()
