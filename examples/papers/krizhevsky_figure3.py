"""The first layer's kernels, as in Krizhevsky et al. (2012), Figure 3.

python examples/krizhevsky_figure3.py squeezenet1_1
python examples/krizhevsky_figure3.py torchvision:alexnet
"""

from __future__ import annotations

import argparse

import interpret


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--out", default="figure3.png")
    arguments = parser.parse_args()
    interpret.plot_filters(interpret.load(arguments.model)).savefig(arguments.out, dpi=200)
    print(f"Open {arguments.out}")


if __name__ == "__main__":
    main()
