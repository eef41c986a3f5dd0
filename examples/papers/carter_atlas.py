"""Carter et al. 2019, "Activation atlas": what a layer distinguishes, as a map of optimised images.

    python examples/papers/carter_atlas.py
    python examples/papers/carter_atlas.py emoji_alexnet emoji --layer conv5
    python examples/papers/carter_atlas.py lenet digits --layer conv2 --grid 8

Activations at one random position of each image are laid out by t-SNE, and for the mean of each cell of a grid an image
is made. Like things lie together: in SqueezeNet animals apart from vehicles and buildings, in LeNet the strokes of one
digit beside those of the next.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import interpret
from interpret import ActivationAtlas
from interpret.cli.answers import in_one_sentence
from interpret.figures.saving import write_figure
from interpret.results.plotting import plot


def main(arguments: list[str] | None = None) -> ActivationAtlas:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="squeezenet1_1")
    parser.add_argument("images", nargs="?", default="photographs")
    parser.add_argument("--layer", default="features.9.expand3x3")
    parser.add_argument("--grid", type=int, default=10, help="rows and columns")
    parser.add_argument("--samples", type=int, default=2000, help="the largest number of images")
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--out", type=Path, default=Path("carter_atlas.png"))
    given = parser.parse_args(arguments)

    model = interpret.load(given.model)
    images = interpret.open_images(given.images, model)
    atlas = interpret.map_activations(
        model, images, given.layer, grid=given.grid, samples=given.samples, steps=given.steps
    )
    write_figure(plot(atlas), given.out)
    print(f"{len(atlas.cells)} of {given.grid * given.grid} cells have an image, for {len(atlas.items):,} activations")
    if any(atlas.labels):
        share = np.average(atlas.label_shares, weights=atlas.counts)
        print(f"the images of a cell are predicted as its most frequent class in {share:.0%} of all cases")
    print(f"Open {given.out}")
    return atlas


if __name__ == "__main__":
    with in_one_sentence():
        main()
