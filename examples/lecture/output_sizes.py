"""Output sizes, (W − K + 2P) / S + 1, and how many parameters weight sharing saves.

    python examples/lecture/output_sizes.py --out figures

Eight 5 × 5 kernels on a 28 × 28 image: weights (8, 1, 5, 5), eight biases, eight maps of 24 × 24. A fully connected
layer with the same input and output would need seventeen thousand times as many parameters.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from torch import nn

import interpret
from interpret.cli.answers import in_one_sentence
from interpret.figures.saving import write_figure
from interpret.figures.style import ACCENT, CATEGORIES, WIDTH, figure_grid, in_style

SIDE = 28


def output_size(size: int, kernel: int, stride: int = 1, padding: int = 0) -> int:
    """Count the valid positions of a kernel one by one."""
    return sum(1 for start in range(-padding, size + padding - kernel + 1, stride))


@in_style
def draw(layers: list[dict[str, Any]]) -> Figure:
    figure, ((sizes, params),) = figure_grid(1, 2, (WIDTH, 2.9), width_ratios=(1, 1.15))
    kernels = list(range(1, 12))
    for (stride, paddings), color in zip(((1, (0, 2)), (2, (0, 2)), (4, (0,))), CATEGORIES, strict=False):
        for padding, style in zip(paddings, ("-", "--"), strict=False):
            values = [output_size(SIDE, kernel, stride, padding) for kernel in kernels]
            sizes.plot(kernels, values, style, color=color, marker="o", ms=2.5, lw=1)
            label, end = f"S = {stride}, P = {padding}", (kernels[-1], values[-1])
            sizes.annotate(label, end, (5, 0), textcoords="offset points", va="center", color=color, fontsize=6.5)
    sizes.plot([5], [output_size(SIDE, 5)], "o", ms=8, mfc="none", mec=ACCENT, mew=1.3)
    sizes.annotate("24", (5, 24), (8, 5), textcoords="offset points", color=ACCENT, fontsize=8)
    sizes.set(xlabel="kernel size K", ylabel=f"output size for an input of {SIDE}", xticks=kernels[::2])
    sizes.set(xlim=(0.5, 15), ylim=(0, 34), title="stride S, padding P")

    names = [layer["name"] for layer in layers]
    rows = range(len(layers))
    dense = [layer["dense_params"] or layer["params"] for layer in layers]
    shared = [layer["params"] for layer in layers]
    params.barh([row - 0.19 for row in rows], dense, 0.36, color="#c8c8c8", label="fully connected equivalent")
    params.barh([row + 0.19 for row in rows], shared, 0.36, color=CATEGORIES[0], label="the layer itself")
    for row, (large, small) in enumerate(zip(dense, shared, strict=True)):
        params.text(large * 1.15, row - 0.19, f"{large:,}", va="center", fontsize=6)
        params.text(small * 1.15, row + 0.19, f"{small:,}", va="center", fontsize=6)
    params.set_yticks(rows, names)
    params.invert_yaxis()
    params.set(xscale="log", xlim=(100, 4e9), xlabel="trainable parameters")
    params.xaxis.set_major_formatter(EngFormatter(sep=""))
    params.legend(loc="lower right", fontsize=6)
    return figure


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(), help="the folder for output_sizes.png")
    out = parser.parse_args(arguments).out / "output_sizes.png"

    layer = nn.Conv2d(1, 8, 5)
    image = torch.zeros(1, 1, SIDE, SIDE)
    print(
        f"weights {tuple(layer.weight.shape)}, bias {tuple(layer.bias.shape)}, output {tuple(layer(image).shape[1:])}"
    )
    print(interpret.summarise(layer_alone := nn.Sequential(layer), (1, SIDE, SIDE)))
    (lecture,) = json.loads(interpret.summarise(layer_alone, (1, SIDE, SIDE), "json"))["layers"]
    network = json.loads(interpret.summarise(interpret.load("lenet"), format="json"))["layers"]
    layers = [lecture | {"name": "8 kernels of 5 × 5"}]
    layers += [one | {"name": f"LeNet {one['name']}"} for one in network if one["params"]]
    write_figure(draw(layers), out)
    print(f"Open {out}")
    return {"layer": layer, "lecture": lecture, "layers": layers}


if __name__ == "__main__":
    with in_one_sentence():
        main()
