"""Segmentation: a class for each pixel, by a U-Net trained on scenes of emoji, and what its units respond to.

    npm install emoji-datasource-google@16.0.0
    python examples/lecture/segmentation.py --out figures

The encoder finds what there is, at ever lower resolutions, and the decoder where it is: transposed convolutions raise
the resolution, and skip connections bring the encoder's fine maps. The third row shows what the decoder loses without
them. Set INTERPRET_EMOJI if the package is in another folder than node_modules.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor, nn

import interpret
from interpret.cli.answers import in_one_sentence
from interpret.figures.saving import write_figure
from interpret.figures.style import WIDTH, figure_grid, in_style, show

COLOURS = ListedColormap(
    [
        "#f2f2f2",
        "#e6b800",
        "#d55e00",
        "#f0a878",
        "#7b4a12",
        "#1a9641",
        "#0072b2",
        "#7f7f7f",
        "#e7298a",
        "#6a3d9a",
        "#17becf",
    ]
)
SHOWN = (4001, 4004, 4005, 4006, 4008, 4010)
"""Held-out scenes of the figure."""
UNITS = (0, 1, 7, 8, 9, 10)
"""Units of the last layer, one a class, whose strongest places are shown."""
AROUND = 14
"""Half the side of what is shown around a place, in pixels."""


def segment(network: nn.Module, images: Tensor, without_skips: bool = False) -> Tensor:
    """Return each pixel's class, [B, H, W]; without skips, the encoder's fine maps are zero where they are joined."""

    def silence(_layer: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        (joined,) = inputs
        half = joined.shape[1] // 2
        return (torch.cat([torch.zeros_like(joined[:, :half]), joined[:, half:]], 1),)

    merges = [network.get_submodule(name) for name in ("merge1", "merge2", "merge3")]
    handles = [merge.register_forward_pre_hook(silence) for merge in merges if without_skips]
    try:
        with torch.no_grad():
            return network(images).argmax(1)
    finally:
        for handle in handles:
            handle.remove()


def overlaps(answers: Tensor, labels: Tensor, classes: int) -> list[float]:
    """Return for each class the pixels that have it by both, as a share of those that have it by either."""
    found = []
    for number in range(classes):
        both, either = (answers == number) & (labels == number), (answers == number) | (labels == number)
        found.append(float(both.sum() / either.sum()))
    return found


@in_style
def draw(
    scenes: np.ndarray, labels: np.ndarray, answers: Tensor, blind: Tensor, units: Any, classes: tuple[str, ...]
) -> Figure:
    columns = len(SHOWN)
    figure, axes = figure_grid(5, columns, (WIDTH, 6.6))
    limits = {"cmap": COLOURS, "vmin": -0.5, "vmax": len(classes) - 0.5, "interpolation": "nearest"}
    rows = (("scene", scenes), ("answer", answers), ("without skips", blind), ("label", labels))
    for row, (name, pictures) in enumerate(rows):
        for column in range(columns):
            show(axes[row, column], pictures[column], **({} if row == 0 else limits))
        axes[row, 0].set_ylabel(name)
    for column, (unit, picture) in enumerate(units):
        show(axes[4, column], picture, f"unit {unit}, {classes[unit]}")
    axes[4, 0].set_ylabel("responds to")
    keys = [Patch(color=COLOURS(number), label=name) for number, name in enumerate(classes)]
    figure.legend(handles=keys, loc="outside lower center", ncols=len(classes) // 2 + 1, fontsize=7, frameon=False)
    return figure


def strongest_places(model: interpret.Model, images: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Return of the last layer's units the surroundings of the four places that each responds to most."""
    mined = interpret.mine(model, list(images), layers="classes", k=4)["classes"]
    answers = []
    for unit in UNITS:
        parts = []
        for item, (y, x) in zip(mined.images[unit], mined.positions[unit], strict=True):
            top, left = (int(np.clip(place - AROUND, 0, images.shape[1] - 2 * AROUND)) for place in (y, x))
            parts.append(images[item][top : top + 2 * AROUND, left : left + 2 * AROUND])
        answers.append((unit, np.vstack([np.hstack(parts[:2]), np.hstack(parts[2:])])))
    return answers


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(), help="the folder for segmentation.png")
    out = parser.parse_args(arguments).out / "segmentation.png"

    model = interpret.load("emoji_unet")
    data = interpret.load_dataset("emoji-scenes")
    assert model.preprocess is not None
    held_out = np.flatnonzero(data.held_out)[:200]
    inputs = torch.stack([model.preprocess.encode(data.images[item]) for item in held_out])
    labels = torch.from_numpy(data.labels[held_out])
    answers, blind = segment(model.module, inputs), segment(model.module, inputs, without_skips=True)
    found = {name: overlaps(maps, labels, len(data.classes)) for name, maps in (("answers", answers), ("blind", blind))}
    print(f"mean IoU on {len(held_out)} held-out scenes: {np.mean(found['answers']):.2f}")
    print(f"without skip connections: {np.mean(found['blind']):.2f}")
    for name in ("down1.conv1", "bottom.conv2", "up3", "classes"):
        layer = interpret.trace(model)[name]
        field = layer.receptive_field
        print(f"{name}: output {layer.output_shape}, sees {'the whole image' if field is None else field.size}")
    rows = [int(np.flatnonzero(held_out == item)[0]) for item in SHOWN]
    units = strongest_places(model, data.images[held_out])
    write_figure(draw(data.images[held_out[rows]], labels[rows], answers[rows], blind[rows], units, data.classes), out)
    print(f"Open {out}")
    return {"overlaps": found, "answers": answers, "labels": labels}


if __name__ == "__main__":
    with in_one_sentence():
        main()
