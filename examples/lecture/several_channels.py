"""Several input channels: a kernel has one slice per channel, and the outputs of the slices are summed.

    python examples/lecture/several_channels.py --out figures

The kernel is from the first layer of the shipped small AlexNet; the photograph of Grace Hopper comes with matplotlib
and is in the public domain.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.cbook import get_sample_data
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

import interpret
from interpret.cli.answers import in_one_sentence
from interpret.figures.saving import write_figure
from interpret.figures.style import WIDTH, figure_grid, in_style, show

CHANNELS = ("red", "green", "blue")
UNIT = 0
"""A unit that activates where red and green are brighter above than below, and whose weights for blue are small."""


def photograph(side: int = 128) -> Image.Image:
    """Return the top square of the portrait, resized to `side` pixels."""
    with get_sample_data("grace_hopper.jpg") as file:
        picture = Image.open(file).convert("RGB")
    return picture.crop((0, 0, picture.width, picture.width)).resize((side, side), Image.Resampling.BILINEAR)


@in_style
def draw(
    picture: Image.Image, image: Tensor, kernel: Tensor, bias: float, parts: list[Tensor], total: Tensor
) -> Figure:
    figure, axes = figure_grid(3, 5, (WIDTH, 4.6), width_ratios=(1, 1, 1, 1, 1))
    show(axes[0, 0], picture, "photograph")
    for row in (1, 2):
        axes[row, 0].set_axis_off()
    axes[1, 0].text(0.5, 0.5, f"{tuple(image.shape)}\ninput", ha="center", transform=axes[1, 0].transAxes)
    axes[2, 0].text(
        0.5, 0.5, f"(1, {', '.join(map(str, kernel.shape))})\nkernel", ha="center", transform=axes[2, 0].transAxes
    )
    limit, extent = float(kernel.abs().max()), float(torch.stack([*parts, total]).abs().max())
    for row, (name, channel, slice_, part) in enumerate(zip(CHANNELS, image, kernel, parts, strict=True)):
        show(axes[row, 1], channel, f"{name} channel", cmap="gray")
        show(axes[row, 2], slice_, "kernel slice", cmap="RdBu_r", vmin=-limit, vmax=limit)
        show(axes[row, 3], part, "output of the slice", cmap="RdBu_r", vmin=-extent, vmax=extent)
        axes[row, 4].set_axis_off()
    title = f"sum of the slices\nplus bias ({bias:+.2f})".replace("-", "−")
    show(axes[1, 4], total, title, cmap="RdBu_r", vmin=-extent, vmax=extent)
    return figure


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(), help="the folder for several_channels.png")
    out = parser.parse_args(arguments).out / "several_channels.png"

    model = interpret.load("emoji_alexnet")
    layer = model.module.conv1
    picture = photograph()
    image = model.preprocess.encode(np.array(picture)).double()
    kernel, bias = layer.weight[UNIT].detach().double(), float(layer.bias[UNIT].detach())
    parts = [F.conv2d(image[None, c : c + 1], kernel[None, c : c + 1])[0, 0] for c in range(3)]
    total = parts[0] + parts[1] + parts[2] + bias
    at_once = F.conv2d(image[None], kernel[None], torch.tensor([bias], dtype=torch.float64))[0, 0]
    print(f"conv1, unit {UNIT}: weights {tuple(layer.weight.shape)}, of which one kernel is {tuple(kernel.shape)}")
    print(f"sum over channels against conv2d on all channels: largest difference {(total - at_once).abs().max():.1e}")
    write_figure(draw(picture, image, kernel, bias, parts, total), out)
    print(f"Open {out}")
    return {"image": image, "kernel": kernel, "bias": bias, "total": total, "at_once": at_once, "layer": layer}


if __name__ == "__main__":
    with in_one_sentence():
        main()
