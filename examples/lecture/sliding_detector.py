"""An animation of a feature detector that slides over a digit and fills its feature map.

    python examples/lecture/sliding_detector.py --out figures

At each position, the window under the detector is multiplied by the weights and summed; the sum, after the ReLU, is one
pixel of the feature map.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

import interpret
from interpret.cli.answers import in_one_sentence
from interpret.figures.style import ACCENT, figure_grid, in_style, show
from interpret.support.files import replacing
from interpret.support.progress import progress
from interpret.support.stamps import is_stamped, stamped

STEP = 3
"""Show every third position."""
MILLISECONDS = 60
"""Duration of a frame."""


def shown_positions(height: int, width: int) -> list[tuple[int, int]]:
    """Return the positions (y, x) that have a frame: every third one, row by row, and the last one."""
    positions = [(y, x) for y in range(height) for x in range(width)]
    return [*positions[::STEP], positions[-1]]


@in_style
def animate(image: Tensor, kernel: Tensor, bias: float, sums: Tensor, out: Path) -> int:
    """Write the animation and return its number of frames."""
    figure, ((left, middle, right),) = figure_grid(1, 3, (6.2, 2.5), width_ratios=(1, 0.55, 1))
    side = kernel.shape[0]
    limit = float(kernel.abs().max())
    show(left, image, "digit", cmap="gray_r")
    show(middle, kernel, "detector", cmap="RdBu_r", vmin=-limit, vmax=limit)
    values = middle.text(0.5, -0.12, "\n\n", transform=middle.transAxes, ha="center", va="top", fontsize=7)
    rectified = sums.clamp(min=0)
    drawn = np.full(tuple(sums.shape), np.nan)
    right.set_facecolor("#eef1f5")
    shown = right.imshow(drawn, cmap="gray_r", vmin=0, vmax=float(rectified.max()), interpolation="nearest")
    right.set(xticks=[], yticks=[])
    right.set_title("feature map", fontsize=7)
    for axes in (left, right):  # outline the image and the map, so that the window has a visible border to move within
        axes.spines[:].set(visible=True, color="#b0b0b0", linewidth=0.6)
    window = left.add_patch(Rectangle((0, 0), side, side, fill=False, color=ACCENT, lw=1.6))
    pixel = right.add_patch(Rectangle((0, 0), 1, 1, fill=False, color=ACCENT, lw=1.2))
    canvas = FigureCanvasAgg(figure)
    # keep the layout of the first frame; otherwise the panels would move as the text changes
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    frames = []
    positions = shown_positions(*sums.shape)
    with progress(len(positions), "drawing", "frame") as bar:
        for y, x in positions:
            done = y * sums.shape[1] + x + 1
            drawn.ravel()[:done] = rectified.numpy().ravel()[:done]
            shown.set_data(drawn)
            window.set_xy((x - 0.5, y - 0.5))
            pixel.set_xy((x - 0.5, y - 0.5))
            text = f"Σ window × weights {bias:+.2f}\n= {float(sums[y, x]):+.2f}\nReLU: {float(rectified[y, x]):.2f}"
            values.set_text(text.replace("-", "−"))
            canvas.draw()
            frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
            bar.update()
    # one palette for all frames, so that colours do not flicker
    palette = frames[-1].quantize(128, dither=Image.Dither.NONE)
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    durations = [MILLISECONDS] * (len(frames) - 1) + [2000]
    with replacing(out, is_stamped) as new:
        frames[0].save(new, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=False)
        new.write_bytes(stamped(new.read_bytes(), "gif"))
    return len(frames)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(), help="the folder for sliding_detector.gif")
    out = parser.parse_args(arguments).out / "sliding_detector.gif"

    model = interpret.load("lenet")
    digits = interpret.open_images("digits", model)
    item = int(np.flatnonzero(digits.labels == 3)[2])
    image = digits[item][0]
    layer = model.module.conv1
    with torch.no_grad():
        outputs = layer(image[None])[0]
        # the unit with the largest output
        unit = int(outputs.amax((1, 2)).argmax())
        kernel, bias = layer.weight[unit, 0].clone(), float(layer.bias[unit])
    sums = torch.zeros(outputs.shape[1:])
    for y, x in np.ndindex(tuple(sums.shape)):
        sums[y, x] = (image[0, y : y + 5, x : x + 5] * kernel).sum() + bias
    print(f"conv1, unit {unit}: largest difference from the layer {(sums - outputs[unit]).abs().max():.1e}")
    count = animate(image[0], kernel, bias, sums, out)
    print(f"Open {out} ({count} frames)")
    return {"sums": sums, "layer": outputs[unit], "frames": count, "at_once": F.relu(outputs[unit])}


if __name__ == "__main__":
    with in_one_sentence():
        main()
