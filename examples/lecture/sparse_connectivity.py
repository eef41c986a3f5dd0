"""Sparse connectivity: a convolution is a fully connected layer whose weights are mostly zero and otherwise shared.

    python examples/lecture/sparse_connectivity.py --out figures

The weight matrix of a 3 × 3 convolution has a row for each output and a column for each input. Each row has nine
nonzero entries, and the whole matrix has only nine distinct ones. The receptive field grows by two with each further
layer.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import nn

import interpret
from interpret.cli.answers import in_one_sentence
from interpret.figures.saving import write_figure
from interpret.figures.style import ACCENT, CATEGORIES, INK, QUIET, WIDTH, figure_grid, in_style, show

SIDE, KERNEL = 6, 3
SUBSCRIPTS = "₀₁₂₃₄₅₆₇₈₉"


def weight_indices(side: int, kernel: int) -> NDArray[np.int64]:
    """Return the weight's index between each output (row) and input (column): 1 to kernel², 0 if unconnected."""
    size = side - kernel + 1
    matrix = np.zeros((size**2, side**2), np.int64)
    for y, x in np.ndindex(size, size):
        for dy, dx in np.ndindex(kernel, kernel):
            matrix[y * size + x, (y + dy) * side + x + dx] = 1 + dy * kernel + dx
    return matrix


def receptive_fields(layers: int) -> list[int]:
    """Return the side of the receptive field of each layer of a stack of 3 × 3 convolutions."""
    network = nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=1) for _ in range(layers)))
    traced = interpret.trace(network, (1, 15, 15))
    return [traced[str(layer)].receptive_field.size[0] for layer in range(layers)]


@in_style
def draw(matrix: NDArray[np.int64], sizes: list[int]) -> Figure:
    figure, axes = figure_grid(2, 2, (WIDTH, 5.4), height_ratios=(1, 1.1))
    colors = ListedColormap(["white", *(np.array(CATEGORIES[:7]).tolist()), "#000000", "#b7a600"])
    kernel = np.arange(1, KERNEL**2 + 1).reshape(KERNEL, KERNEL)
    show(axes[0, 0], kernel, "nine weights", cmap=colors, vmin=0, vmax=9)
    for y, x in np.ndindex(kernel.shape):
        axes[0, 0].text(x, y, f"w{SUBSCRIPTS[kernel[y, x]]}", ha="center", va="center", color="white", fontsize=11)
    axes[0, 0].set_box_aspect(1)

    show(axes[0, 1], matrix, f"weight matrix: {matrix.shape[0]} outputs × {matrix.shape[1]} inputs",
         cmap=colors, vmin=0, vmax=9)  # fmt: skip
    axes[0, 1].set(xlabel="inputs, row by row", ylabel="outputs, row by row")
    for side in axes[0, 1].spines.values():
        side.set_visible(True)

    draw_connections(axes[1, 0], "sparse: three inputs per neuron", lambda lower, upper: abs(lower - upper) <= 1)
    draw_connections(axes[1, 1], "dense: nine inputs per neuron", lambda lower, upper: True)
    listed = ", ".join(map(str, sizes))
    axes[1, 0].set_xlabel(f"receptive field in layers 1, 2 and 3: {listed} inputs", color=QUIET)
    return figure


def draw_connections(axes: Any, title: str, connected: Any) -> None:
    """Draw three layers of nine neurons above nine inputs, and mark the middle neuron's receptive field."""
    seen = {(3, 4)}
    for layer in (3, 2, 1):
        seen |= {
            (layer - 1, low) for low in range(9) for top in range(9) if (layer, top) in seen and connected(low, top)
        }
        for low in range(9):
            for top in range(9):
                if connected(low, top):
                    marked = (layer, top) in seen
                    axes.plot([low, top], [layer - 1, layer], color=ACCENT if marked else "#d0d0d0",
                              lw=0.9 if marked else 0.5, zorder=2 if marked else 1)  # fmt: skip
    for layer in range(4):
        for neuron in range(9):
            color = ACCENT if (layer, neuron) in seen else "white"
            axes.plot(neuron, layer, "o", ms=7, mfc=color, mec=INK, mew=0.6, zorder=3)
    axes.set_title(title, fontsize=8)
    axes.set(xticks=[], yticks=range(4), yticklabels=["input", "layer 1", "layer 2", "layer 3"], xlim=(-0.6, 8.6))
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(), help="the folder for sparse_connectivity.png")
    out = parser.parse_args(arguments).out / "sparse_connectivity.png"

    matrix = weight_indices(SIDE, KERNEL)
    layer = nn.Conv2d(1, 1, KERNEL, bias=False).double()
    image = torch.rand(1, 1, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = np.concatenate([[0.0], layer.weight.detach().numpy().ravel()])
    by_matrix = weights[matrix] @ image.numpy().ravel()
    by_layer = layer(image).detach().numpy().ravel()
    sizes = receptive_fields(3)
    distinct = len(np.unique(matrix)) - 1
    print(f"{np.count_nonzero(matrix)} of {matrix.size} entries are nonzero, with {distinct} distinct weights")
    print(f"matrix product against convolution: largest difference {np.abs(by_matrix - by_layer).max():.1e}")
    print(f"receptive field in layers 1, 2 and 3: {sizes} inputs")
    write_figure(draw(matrix, sizes), out)
    print(f"Open {out}")
    return {"matrix": matrix, "by_matrix": by_matrix, "by_layer": by_layer, "sizes": sizes}


if __name__ == "__main__":
    with in_one_sentence():
        main()
