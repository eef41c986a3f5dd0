"""Weight sharing in backpropagation: the gradient of a shared weight is the sum over all paths through it.

    python examples/lecture/weight_sharing.py --out figures

First two paths: a weight w is applied to two inputs, and the chain rule along each path gives one term of its
gradient. Then a convolution, where each weight of the kernel has one path per output position: the terms form a map,
and their sum agrees with autograd.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

import interpret
from interpret.cli.answers import in_one_sentence
from interpret.figures.saving import write_figure
from interpret.figures.style import ACCENT, CATEGORIES, INK, WIDTH, figure_grid, in_style, show


def two_paths(x1: float, x2: float, w: float, v1: float, v2: float, target: float) -> dict[str, float]:
    """Return d(o − t)²/dw with o = v1·tanh(w·x1) + v2·tanh(w·x2): for each path, their sum, and by autograd."""
    a1, a2 = np.tanh(w * x1), np.tanh(w * x2)
    through_loss = 2 * (v1 * a1 + v2 * a2 - target)  # dL/do
    first = through_loss * v1 * (1 - a1**2) * x1  # dL/do · do/da1 · da1/dw
    second = through_loss * v2 * (1 - a2**2) * x2  # dL/do · do/da2 · da2/dw

    shared = torch.tensor(w, dtype=torch.float64, requires_grad=True)
    loss = (v1 * torch.tanh(shared * x1) + v2 * torch.tanh(shared * x2) - target) ** 2
    (autograd,) = torch.autograd.grad(loss, shared)
    return {"first": first, "second": second, "sum": first + second, "autograd": autograd.item()}


def kernel_gradient_by_position(image: Tensor, upstream: Tensor, side: int) -> Tensor:
    """Return the terms of a kernel's gradient for each output position: [y, x, side, side].

    At each position, the term is the window of the image times the upstream gradient there.
    """
    terms = torch.zeros(*upstream.shape, side, side, dtype=image.dtype)
    for y, x in np.ndindex(tuple(upstream.shape)):
        terms[y, x] = upstream[y, x] * image[y : y + side, x : x + side]
    return terms


@in_style
def draw(paths: dict[str, float], image: Tensor, terms: Tensor, summed: Tensor, autograd: Tensor) -> Figure:
    figure, axes = figure_grid(2, 3, (WIDTH, 4.6))
    bars = axes[0, 0]
    names = ["via x₁", "via x₂", "sum", "autograd"]
    values = [paths["first"], paths["second"], paths["sum"], paths["autograd"]]
    bars.bar(names, values, color=[CATEGORIES[0], CATEGORIES[1], INK, CATEGORIES[2]], width=0.6)
    for x, value in enumerate(values):
        up = value >= 0
        bars.annotate(f"{value:.4f}".replace("-", "−"), (x, value), (0, 2 if up else -2), ha="center",
                      va="bottom" if up else "top", textcoords="offset points", fontsize=6.5)  # fmt: skip
    bars.axhline(0, color=INK, lw=0.5)
    bars.margins(y=0.18)
    bars.set(ylabel="gradient of w", title="two paths")
    bars.tick_params(axis="x", labelsize=6.5)

    show(axes[0, 1], image, "digit, 28 × 28", cmap="gray_r")
    limit = float(terms[:, :, 2, 2].abs().max())
    show(axes[0, 2], terms[:, :, 2, 2], "gradient of the middle weight\nby output position, 24 × 24",
         cmap="RdBu_r", vmin=-limit, vmax=limit)  # fmt: skip
    limit = float(summed.abs().max())
    show(axes[1, 0], summed, "sum over positions", cmap="RdBu_r", vmin=-limit, vmax=limit)
    show(axes[1, 1], autograd, "autograd", cmap="RdBu_r", vmin=-limit, vmax=limit)
    compare = axes[1, 2]
    compare.plot([-limit, limit], [-limit, limit], color="#c8c8c8", lw=1, zorder=1)
    compare.scatter(autograd.flatten().numpy(), summed.flatten().numpy(), 12, color=ACCENT, lw=0, zorder=2)
    compare.set(xlabel="autograd", ylabel="sum over positions", title="25 weights", aspect="equal")
    return figure


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(), help="the folder for weight_sharing.png")
    out = parser.parse_args(arguments).out / "weight_sharing.png"

    paths = two_paths(x1=0.6, x2=-1.1, w=0.7, v1=1.2, v2=0.9, target=0.5)
    print("two paths: {first:.6f} + {second:.6f} = {sum:.6f}; autograd {autograd:.6f}".format(**paths))

    digits = interpret.load_dataset("digits")
    image = torch.from_numpy(digits.images[np.flatnonzero(digits.labels == 4)[0]]).double() / 255
    kernel = interpret.load("lenet").module.conv1.weight[0, 0].detach().double().requires_grad_()
    outputs = F.conv2d(image[None, None], kernel[None, None])[0, 0]
    loss = outputs.tanh().square().sum()
    upstream, autograd = torch.autograd.grad(loss, (outputs, kernel))
    terms = kernel_gradient_by_position(image, upstream, 5)
    summed = terms.sum((0, 1))
    print(f"5 × 5 kernel: largest difference from autograd {(summed - autograd).abs().max():.1e}")
    write_figure(draw(paths, image, terms, summed, autograd), out)
    print(f"Open {out}")
    return {"paths": paths, "parts": terms, "autograd": autograd}


if __name__ == "__main__":
    with in_one_sentence():
        main()
