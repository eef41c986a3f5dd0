"""Accuracy by network and accuracy against operations, as in Canziani et al. (2016), Figures 1 and 2.

    python examples/papers/canziani_figure1_2.py --out figures

All of torchvision's classifiers with the accuracy that torchvision publishes; operations and parameters are counted
here and held against the published ones. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import interpret
from interpret.plots import plot


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="torchvision's networks; without any: all")
    parser.add_argument("--out", type=Path, default=Path(), help="the folder for figure1.png and figure2.png")
    arguments = parser.parse_args()

    costs = interpret.compare_costs(arguments.names or None)
    arguments.out.mkdir(parents=True, exist_ok=True)
    plot(costs, panels="accuracies").savefig(arguments.out / "figure1.png", dpi=200)
    plot(costs).savefig(arguments.out / "figure2.png", dpi=200)
    print(costs.reading)
    print(f"Open {arguments.out / 'figure1.png'} and {arguments.out / 'figure2.png'}")


if __name__ == "__main__":
    main()
