"""Ten attribution methods side by side, and how much each map depends on the class.

    python examples/papers/methods_side_by_side.py
    python examples/papers/methods_side_by_side.py torchvision:resnet18 path/to/photographs

The rank correlations next to the maps confirm Nie et al. (2018, "A theoretical explanation for perplexing behaviors of
backpropagation-based visualizations"): the deconvnet and guided backpropagation give nearly the same map for any class,
and this map resembles the fine detail of the image.
"""

from __future__ import annotations

import argparse

import torch

import interpret
from interpret.cli.answers import in_one_sentence
from interpret.figures.saving import write_figure
from interpret.results.plotting import plot

ITEMS = (16, 12, 64)
"""Photographs of an axolotl, elephants and a stork."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="squeezenet1_1")
    parser.add_argument("images", nargs="?", default="photographs")
    parser.add_argument("--items", type=int, nargs="+", default=ITEMS, help="numbers of the images")
    parser.add_argument("--methods", nargs="+", help="default: all ten")
    parser.add_argument("--out", default="methods.png")
    arguments = parser.parse_args()

    model = interpret.load(arguments.model)
    data = interpret.open_images(arguments.images, model, crops="center")
    images = torch.stack([data[item][0] for item in arguments.items])
    # fewer points, samples and passes than by default, and larger occluders: one minute instead of four
    compared = interpret.compare_methods(model, images, arguments.methods, points=20, samples=10, window=45, passes=120)
    write_figure(plot(compared), arguments.out)

    print(f"{'rank correlation with':24}{'map of the runner-up':>22}   {'detail of image':>18}")
    for method, same in compared.same_for_other.items():
        print(f"{method:24}{same.mean():22.2f}   {compared.same_as_image[method].mean():18.2f}")
    print(compared.reading)
    print(f"Open {arguments.out}")


if __name__ == "__main__":
    with in_one_sentence():
        main()
