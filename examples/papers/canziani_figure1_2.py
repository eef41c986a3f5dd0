"""Accuracy by network and accuracy against operations, as in Canziani et al. (2016), Figures 1 and 2.

    python examples/papers/canziani_figure1_2.py --out figures

All classifiers of torchvision with their published accuracy. Operations and parameters are counted here and compared
with the published numbers. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import interpret
from interpret.cli.answers import in_one_sentence
from interpret.figures.saving import write_figure
from interpret.results.plotting import plot


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="torchvision networks; default: all")
    parser.add_argument("--out", type=Path, default=Path(), help="the folder for figure1.png and figure2.png")
    arguments = parser.parse_args()

    costs = interpret.compare_costs(arguments.names or None)
    write_figure(plot(costs, panels="accuracies"), arguments.out / "figure1.png")
    write_figure(plot(costs), arguments.out / "figure2.png")
    print(costs.reading)
    print(f"Open {arguments.out / 'figure1.png'} and {arguments.out / 'figure2.png'}")


if __name__ == "__main__":
    with in_one_sentence():
        main()
