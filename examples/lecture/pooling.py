"""Pooling and local invariance: a shift within a pooling window does not change its maximum.

    python examples/lecture/pooling.py --out figures

A digit is shifted to the right, pixel by pixel. How much does a feature map change, and how much does it change after
pooling? The larger the pooling window, the smaller the change. The larger the shift, the larger the change: the
invariance is local. Average pooling is nearly as invariant as max-pooling.
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
from interpret.figures.style import CATEGORIES, WIDTH, figure_grid, in_style, show

SHIFTS = (0, 1, 2, 3, 4, 5, 6)
POOLS = {
    "no pooling": lambda maps: maps,
    "max 2 × 2": lambda maps: F.max_pool2d(maps, 2),
    "max 4 × 4": lambda maps: F.max_pool2d(maps, 4),
    "max 8 × 8": lambda maps: F.max_pool2d(maps, 8),
    "mean 4 × 4": lambda maps: F.avg_pool2d(maps, 4),
}
SMALL = torch.tensor([[12.0, 20, 30, 0], [8, 12, 2, 0], [34, 70, 37, 4], [112, 100, 25, 12]])


def moved(images: Tensor, pixels: int) -> Tensor:
    """Shift images to the right; fill with black."""
    return F.pad(images, (pixels, 0))[..., : images.shape[-1]]


def changes(images: Tensor, features: Any) -> dict[str, list[float]]:
    """Return the relative change ‖pool(shifted) − pool(original)‖ / ‖pool(original)‖ for each pooling and shift."""
    original = features(images)
    found: dict[str, list[float]] = {name: [] for name in POOLS}
    for shift in SHIFTS:
        shifted = features(moved(images, shift))
        for name, pool in POOLS.items():
            before, after = pool(original).flatten(1), pool(shifted).flatten(1)
            found[name].append(float(((after - before).norm(dim=1) / before.norm(dim=1)).mean()))
    return found


@in_style
def draw(digit: Tensor, features: Any, found: dict[str, list[float]]) -> Figure:
    figure = figure_grid(1, 1, (WIDTH, 5.4))[0]
    figure.clear()
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    maps = top.subplots(3, 5)
    for row, shift in enumerate((0, 1, 4)):
        shifted = features(moved(digit, shift))
        pools = ("max 2 × 2", "max 4 × 4", "max 8 × 8")
        shown = [moved(digit, shift), shifted, *(POOLS[name](shifted) for name in pools)]
        titles = ["digit", "feature map", *pools]
        for column, (picture, title) in enumerate(zip(shown, titles, strict=True)):
            show(maps[row, column], picture[0, 0], title if row == 0 else "", cmap="gray_r", vmin=0)
        maps[row, 0].set_ylabel(f"shifted by {shift}", fontsize=7)
    small, curves = bottom.subplots(1, 2, width_ratios=(1, 1.3))
    show(small, SMALL, "2 × 2 max-pooling gives 20, 30, 112, 37", cmap="Blues", vmin=0, vmax=200)
    for y, x in np.ndindex(4, 4):
        top_of_window = SMALL[y // 2 * 2 : y // 2 * 2 + 2, x // 2 * 2 : x // 2 * 2 + 2].max()
        weight = "bold" if SMALL[y, x] == top_of_window else "normal"
        small.text(x, y, f"{int(SMALL[y, x])}", ha="center", va="center", fontsize=8, weight=weight)
    small.axhline(1.5, color="white", lw=4)
    small.axvline(1.5, color="white", lw=4)
    styles = ("-", "-", "-", "-", "--")
    for (name, values), color, style in zip(found.items(), CATEGORIES, styles, strict=False):
        curves.plot(SHIFTS, values, style, color=color, marker="o", ms=3, label=name)
    curves.set(xlabel="shift to the right (pixels)", ylabel="change / norm", ylim=(0, None))
    curves.legend(fontsize=6, loc="lower right")
    return figure


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(), help="the folder for pooling.png")
    out = parser.parse_args(arguments).out / "pooling.png"

    module = interpret.load("lenet").module
    digits = interpret.load_dataset("digits")
    chosen = np.flatnonzero(digits.held_out)[::10]
    images = torch.from_numpy(digits.images[chosen])[:, None].float() / 255
    with torch.inference_mode():
        # the first-layer unit with the highest mean activation, among those that are zero on the background
        activations = module.relu1(module.conv1((images - 0.1307) / 0.3081))
        strength = activations.mean((0, 2, 3)) * (activations[:, :, 0, 0].amax(0) == 0)
        unit = int(strength.argmax())

        def features(pictures: Tensor) -> Tensor:
            return module.relu1(module.conv1((pictures - 0.1307) / 0.3081))[:, unit : unit + 1]

        found = changes(images, features)
        for name, values in found.items():
            print(f"{name:11}", "  ".join(f"{value:.2f}" for value in values))
        write_figure(draw(images[55:56], features, found), out)
    print(f"Open {out}")
    return {"changes": found, "small": F.max_pool2d(SMALL[None, None], 2)[0, 0], "images": len(images)}


if __name__ == "__main__":
    with in_one_sentence():
        main()
