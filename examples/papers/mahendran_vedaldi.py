"""Mahendran & Vedaldi 2015: what each layer of a network still knows of an image.

    python examples/papers/mahendran_vedaldi.py
    python examples/papers/mahendran_vedaldi.py squeezenet1_1 photographs --layers 'features.0,features.6.expand3x3'

For each layer, an image is made from noise whose features in that layer are nearest to those of the given image. The
first layers give the image back; the last one tells the digit, and little of how it was written.
"""

from __future__ import annotations

import argparse

import interpret
from interpret.cli.answers import in_one_sentence
from interpret.figures.saving import write_figure
from interpret.results.plotting import plot


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="lenet")
    parser.add_argument("images", nargs="?", default="digits")
    parser.add_argument("--items", type=int, nargs="+", default=[700, 1234, 4100], help="numbers of the images")
    parser.add_argument("--layers", help="default: all convolutional and linear layers")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", default="mahendran_vedaldi.png")
    arguments = parser.parse_args()

    model = interpret.load(arguments.model)
    found = interpret.invert(model, arguments.images, arguments.layers, items=arguments.items, steps=arguments.steps)
    write_figure(plot(found), arguments.out)
    for layer, errors in zip(found.layers, found.errors, strict=True):
        different = abs(found.pictures[found.layers.index(layer)] / 255 - found.originals / 255).mean()
        print(f"{layer}: features differ by {errors.mean():.2%} of their squares, pixels by {different:.3f} on average")
    print(f"Open {arguments.out}")


if __name__ == "__main__":
    with in_one_sentence():
        main()
