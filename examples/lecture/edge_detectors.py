"""Vertical and horizontal edge detectors on a step image and on digits.

    python examples/lecture/edge_detectors.py --out figures

The top row shows the two kernels, the others their outputs. A column of ones and a column of minus ones detects
vertical edges: the output is positive where the image is brighter on the left, negative where it is brighter on the
right, and zero where it is uniform. The transposed kernel detects horizontal edges.
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
from interpret.figures.style import WIDTH, figure_grid, in_style, show

VERTICAL = torch.tensor([[1.0, 0.0, -1.0]] * 3)
HORIZONTAL = VERTICAL.T.contiguous()


def step_image() -> Tensor:
    """Return an image of 6 × 6 pixels: 10 in the left half, 0 in the right half."""
    image = torch.zeros(6, 6)
    image[:, :3] = 10
    return image


def detect(image: Tensor, kernel: Tensor) -> Tensor:
    """Cross-correlate an image with a kernel at all valid positions."""
    return F.conv2d(image[None, None], kernel[None, None])[0, 0]


@in_style
def draw(images: list[tuple[str, Tensor]]) -> Figure:
    figure, axes = figure_grid(
        len(images) + 1, 4, (WIDTH, 1.75 * len(images) + 1.05), height_ratios=[0.6] + [1] * len(images)
    )
    kernels = (("vertical detector", VERTICAL), ("horizontal detector", HORIZONTAL))
    for axis, (title, kernel) in zip(axes[0, 1:3], kernels, strict=True):
        show(axis, kernel, title, cmap="RdBu_r", vmin=-1.8, vmax=1.8)
        write_values(axis, kernel)
    for axis in axes[0, ::3]:
        axis.set_axis_off()
    for row, (name, image) in enumerate(images, 1):
        vertical, horizontal = detect(image, VERTICAL), detect(image, HORIZONTAL)
        strength = (vertical**2 + horizontal**2).sqrt()
        limit = float(torch.stack([vertical, horizontal]).abs().max())
        show(axes[row, 0], image, name, cmap="gray")
        show(axes[row, 1], vertical, "vertical edges", cmap="RdBu_r", vmin=-limit, vmax=limit)
        show(axes[row, 2], horizontal, "horizontal edges", cmap="RdBu_r", vmin=-limit, vmax=limit)
        show(axes[row, 3], strength, "magnitude: √(v² + h²)", cmap="gray")
        if image.shape == (6, 6):
            for axis, values in ((axes[row, 0], image), (axes[row, 1], vertical), (axes[row, 2], horizontal)):
                write_values(axis, values)
    return figure


def write_values(axes: Any, values: Tensor) -> None:
    light = axes.images[0].cmap.name == "gray"
    for y, x in np.ndindex(tuple(values.shape)):
        value = int(values[y, x])
        color = "black" if not light or value > 5 else "white"
        if not light and abs(value) > 15:
            color = "white"
        axes.text(x, y, str(value).replace("-", "−"), ha="center", va="center", fontsize=6.5, color=color)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(), help="the folder for edge_detectors.png")
    out = parser.parse_args(arguments).out / "edge_detectors.png"

    step = step_image()
    print("output of the vertical detector on the step image:")
    print(detect(step, VERTICAL))
    digits = interpret.load_dataset("digits")
    chosen = [np.flatnonzero(digits.labels == digit)[index] for digit, index in ((1, 0), (7, 12), (0, 0))]
    images = [("a step", step)]
    images += [
        (f"a {digits.classes[digits.labels[i]]}", torch.from_numpy(digits.images[i]).float() / 255) for i in chosen
    ]
    write_figure(draw(images), out)
    print(f"Open {out}")
    return {"step": step, "vertical": detect(step, VERTICAL), "horizontal": detect(step, HORIZONTAL), "images": images}


if __name__ == "__main__":
    with in_one_sentence():
        main()
