"""Ten ways of asking what speaks for a class, side by side, and what each answer has to do with the class.

    python examples/papers/methods_side_by_side.py
    python examples/papers/methods_side_by_side.py torchvision:resnet18 path/to/photographs

The numbers beside the pictures say what Nie et al. (2018, "A theoretical explanation for perplexing behaviors of
backpropagation-based visualizations") found: the deconvnet and guided backpropagation give the same map for any class,
and that map is the image's own detail.
"""

from __future__ import annotations

import argparse

import torch

import interpret
from interpret.cli.answers import in_one_sentence
from interpret.figures.saving import write_figure
from interpret.results.plotting import plot

SOME = (16, 12, 64)
"""Of the photographs: an axolotl, elephants, a stork."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="squeezenet1_1")
    parser.add_argument("images", nargs="?", default="photographs")
    parser.add_argument("--items", type=int, nargs="+", default=SOME, help="which of the images, by number")
    parser.add_argument("--methods", nargs="+", help="some of the ten; default: all")
    parser.add_argument("--out", default="methods.png")
    arguments = parser.parse_args()

    model = interpret.load(arguments.model)
    found = interpret.open_images(arguments.images, model, crops="center")
    images = torch.stack([found[item][0] for item in arguments.items])
    # fewer points, copies and passes than by default, and larger squares: a minute instead of four
    compared = interpret.compare_methods(model, images, arguments.methods, points=20, samples=10, window=45, passes=120)
    write_figure(plot(compared), arguments.out)

    print(f"{'':24}for the runner-up, too   the image's detail   (rank correlations)")
    for method, same in compared.same_for_other.items():
        print(f"{method:24}{same.mean():22.2f}   {compared.same_as_image[method].mean():18.2f}")
    print(compared.reading)
    print(f"Open {arguments.out}")


if __name__ == "__main__":
    with in_one_sentence():
        main()
