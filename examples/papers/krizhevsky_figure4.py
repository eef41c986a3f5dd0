"""What a network sees in an image, as in Krizhevsky et al. (2012), Figure 4.

    python examples/papers/krizhevsky_figure4.py
    pip download foolbox==3.3.4 --no-deps && unzip foolbox-3.3.4-py3-none-any.whl 'foolbox/data/imagenet_*.jpg'
    python examples/papers/krizhevsky_figure4.py squeezenet1_1 photographs --tests foolbox/data --average

Left: test images with the five most probable labels, the right one marked. Right: the images whose features in the last
hidden layer are nearest to those of a query. The first line shows LeNet on the digits that it was not trained on, those
of which it is least sure; the others get foolbox's twenty labelled photographs of ImageNet, with the class's number at
the end of each file's name, and show SqueezeNet on them, and neighbours among the 230 photographs of the demo packages.
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
    parser.add_argument("data", nargs="?", default="digits", help="where neighbours are looked for")
    parser.add_argument("--tests", type=Path, help="a folder of test images called NAME_CLASS.jpg; default: the data's")
    parser.add_argument("--images", type=int, default=8, help="test images, and queries")
    parser.add_argument("--layer", help="whose features; default: the last hidden layer")
    parser.add_argument("--average", action="store_true", help="average features over positions")
    parser.add_argument("--index", help="a folder that keeps the features")
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
    answers = interpret.predict(model, tests, candidates, labels=labels)
    known = answers.truth >= 0
    first, among = (answers.top[:, 0] == answers.truth)[known].sum(), answers.hits.sum()
    print(
        f"Of {known.sum():,} test images whose class is known, it comes first in {first:,} and among five in {among:,}."
    )

    # those of which it is least sure tell most
    unsure = np.argsort(answers.probabilities[:, 0], kind="stable")[: arguments.images]
    shown = interpret.predict(
        model,
        tests,
        [candidates[place] for place in unsure],
        labels=None if labels is None else [labels[place] for place in unsure],
    )
    queries = np.linspace(0, len(data) - 1, arguments.images + 2).astype(int)[1:-1].tolist()
    near = interpret.find_neighbours(
        model, queries, data, arguments.layer, average=arguments.average, index=arguments.index
    )
    write_figure(plot_krizhevsky_figure4(shown, near), arguments.out)

    if (near.labels >= 0).all():
        alike = (near.labels == near.query_labels[:, None]).mean()
        print(f"Of the nearest images, {alike:.0%} are of the query's class.")
    print(shown.reading)
    print(near.reading)
    print(f"Open {arguments.out}")


if __name__ == "__main__":
    with in_one_sentence():
        main()
