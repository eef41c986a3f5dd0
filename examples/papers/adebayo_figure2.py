"""The sanity check of Adebayo et al. (2018), Figures 2 to 4: maps as layers are randomised from the top down.

    python examples/papers/adebayo_figure2.py
    python examples/papers/adebayo_figure2.py torchvision:resnet18 path/to/photographs

In the paper, on Inception v3, the gradient and Grad-CAM change as soon as the top layers are randomised; guided
backpropagation and guided Grad-CAM hardly change. The paper does not test the deconvnet, which hardly changes either.
"""

from __future__ import annotations

import argparse

import torch

import interpret
from interpret.cli.answers import in_one_sentence
from interpret.figures.saving import write_figure
from interpret.results.plotting import plot

METHODS = ("gradient", "gradient_x_input", "smoothgrad", "gradcam", "guided_gradcam", "guided", "deconvnet")
ITEMS = (16, 12, 64)
"""Photographs of an axolotl, elephants and a stork."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="squeezenet1_1")
    parser.add_argument("images", nargs="?", default="photographs")
    parser.add_argument("--items", type=int, nargs="+", default=ITEMS, help="numbers of the images")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--steps", type=int, default=8, help="number of randomisation depths")
    parser.add_argument("--out", default="adebayo_figure2.png")
    arguments = parser.parse_args()

    model = interpret.load(arguments.model)
    data = interpret.open_images(arguments.images, model, crops="center")
    images = torch.stack([data[item][0] for item in arguments.items])
    check = interpret.sanity_check(model, images, arguments.methods, steps=arguments.steps, samples=6)
    write_figure(plot(check), arguments.out)

    print(f"{check.layers} layers; number randomised:" + "".join(f"{depth:7}" for depth in check.depths))
    for method in check.rank:
        for measure in ("rank", "rank_signed", "ssim"):
            means = "".join(f"{value:7.2f}" for value in check.mean(measure, method))
            print(f"{method:20}{measure:12}{means}")
    print(check.reading)
    print(f"Open {arguments.out}")


if __name__ == "__main__":
    with in_one_sentence():
        main()
