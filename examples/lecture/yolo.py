"""YOLO: boxes from one grid in one pass, by a detector trained on scenes of emoji.

    npm install emoji-datasource-google@16.0.0
    python examples/lecture/yolo.py --out figures

Each cell of the grid answers for the objects whose middle lies in it: how sure it is of a box, where the box lies, and
of which class it is. The figure shows the boxes found and the true ones, the cells' confidence, the pixels that carried
the surest box's confidence (the projection of the unit that gave it), and what the units of classes respond to most.
The loss counts classes only in cells with an object, so in others a unit of a class may respond to plain texture.
Set INTERPRET_EMOJI if the package is in another folder than node_modules.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from torch import Tensor

import interpret
from interpret.cli.answers import in_one_sentence
from interpret.figures.saving import write_figure
from interpret.figures.style import ACCENT, WIDTH, figure_grid, in_style, show
from interpret.support.errors import InterpretError

LAYER = "cells"
"""The layer that answers for each cell."""
SHOWN = (3, 4, 6, 9, 27)
"""Places of the figure's scenes among the held-out ones."""
SCENES = 200
"""The number of held-out scenes that are looked at."""
AROUND = 18
"""Half the side of what is shown around a place, in pixels."""


def carried(model: interpret.Model, image: Tensor, found: dict[str, Tensor]) -> Tensor:
    """Return which pixels carried the confidence of the surest box, [3, H, W]."""
    unit, *place = found["units"][0].tolist()
    projection = interpret.project(model, image[None], LAYER, unit, place, rule="guided", start="one")
    return projection.full(image.shape[1:])[0]


def share_inside(signal: Tensor, box: Tensor) -> float:
    """Return how much of a signal lies in a box, as a part of all of it."""
    left, top, right, bottom = (int(side) for side in box.round().tolist())
    return float(signal[:, top:bottom, left:right].abs().sum() / signal.abs().sum())


def strongest_places(model: interpret.Model, images: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Return each class's unit, and the surroundings of the four cells that it responds to most, two by two."""
    mined = interpret.mine(model, list(images), layers=LAYER, k=4)[LAYER]
    stride = images.shape[1] // interpret.trace(model)[LAYER].output_shape[1]
    answers = []
    for unit in range(len(mined.images) - len(model.classes), len(mined.images)):
        parts = []
        for item, place in zip(mined.images[unit], mined.positions[unit], strict=True):
            middle = (place + 0.5) * stride
            top, left = (int(np.clip(at - AROUND, 0, images.shape[1] - 2 * AROUND)) for at in middle)
            parts.append(images[item][top : top + 2 * AROUND, left : left + 2 * AROUND])
        answers.append((unit, np.vstack([np.hstack(parts[:2]), np.hstack(parts[2:])])))
    return answers


def outline(axes: Axes, box: Any, color: str, label: str = "", **style: Any) -> None:
    """Draw a box (left, top, right, bottom) of pixels."""
    left, top, right, bottom = (float(side) - 0.5 for side in box)
    axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, color=color, **style))
    if label:
        text = {"color": "white", "fontsize": 5.5, "bbox": {"fc": color, "lw": 0, "pad": 0.8}, "clip_on": True}
        axes.text(max(left, 0) + 0.8, max(top, 0) + 0.8, label, va="top", **text)


@in_style
def draw(
    scenes: np.ndarray,
    boxes: list[np.ndarray],
    found: list[dict[str, Tensor]],
    sure: Tensor,
    signals: list[Tensor | None],
    strong: list[tuple[int, np.ndarray]],
    classes: tuple[str, ...],
) -> Figure:
    figure, axes = figure_grid(5, len(scenes), (WIDTH, 7.6))
    for column, scene in enumerate(scenes):
        top, middle, low = axes[:3, column]
        show(top, scene)
        for _, above, left, below, right in boxes[column]:
            outline(top, (left, above, right, below), "white", lw=2)
            outline(top, (left, above, right, below), "black", lw=0.9, ls=(0, (3, 2)))
        detections = found[column]
        for box, label, score in zip(*(detections[key].tolist() for key in ("boxes", "labels", "scores")), strict=True):
            outline(top, box, ACCENT, f"{classes[label]} {score:.2f}", lw=1.3)
        show(middle, sure[column], cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
        signal = signals[column]
        if signal is None:
            show(low, np.ones_like(scene) * 255, "no box")
            continue
        strength = signal.abs().sum(0)
        show(low, strength, cmap="gray_r", vmin=0, vmax=float(strength.quantile(0.995)))
        outline(low, detections["boxes"][0].tolist(), ACCENT, lw=1)
    for (unit, picture), name, below in zip(strong, classes, axes[3:].flat, strict=True):
        show(below, picture, f"unit {unit}, {name}")
    names = ("scene", "confidence", "what carried\nthe surest box", "units of classes\nrespond to", "")
    for row, name in enumerate(names):
        axes[row, 0].set_ylabel(name)
    keys = [
        Line2D([], [], color=ACCENT, lw=1.3, label="box found, with its score"),
        Line2D([], [], color="black", lw=0.9, ls=(0, (3, 2)), label="true box"),
    ]
    figure.legend(handles=keys, loc="outside upper center", ncols=2, fontsize=7, frameon=False)
    return figure


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(), help="the folder for yolo.png")
    parser.add_argument("--threshold", type=float, default=0.25, help="the least score of a box, 0.25 by default")
    options = parser.parse_args(arguments)
    out = options.out / "yolo.png"

    model = interpret.load("emoji_yolo")
    data = interpret.load_dataset("emoji-scenes")
    assert model.preprocess is not None
    held_out = np.flatnonzero(data.held_out)[:SCENES]
    inputs = torch.stack([model.preprocess.encode(data.images[item]) for item in held_out])
    with torch.no_grad():
        outputs = model.module(inputs)
        found = model.module.detect(inputs, options.threshold)
    count = sum(len(one["boxes"]) for one in found)
    if not count:
        raise InterpretError(f"no box has a score above {options.threshold:g}: lower --threshold")
    true = [data.boxes[item] for item in held_out]
    print(f"{len(held_out)} held-out scenes: {count} boxes found, {sum(map(len, true))} objects")

    confidences = outputs[:, : -len(model.classes)].unflatten(1, (-1, 5))[:, :, 4]  # [B, boxes, rows, columns]
    signals, inside, areas = [], [], []
    for place in SHOWN:
        if not len(found[place]["boxes"]):
            signals.append(None)
            continue
        box = found[place]["boxes"][0]
        signals.append(carried(model, inputs[place], found[place]))
        inside.append(share_inside(signals[-1], box))
        areas.append(float((box[2:] - box[:2]).prod()) / inputs[0, 0].numel())
        print(
            f"scene {held_out[place]}: {inside[-1]:.0%} of what carried the surest box lies in it; it is "
            f"{areas[-1]:.0%} of the scene"
        )
    strong = strongest_places(model, data.images[held_out])
    rows = list(SHOWN)
    figure = draw(
        data.images[held_out[rows]],
        [true[row] for row in rows],
        [found[row] for row in rows],
        confidences.amax(1)[rows],
        signals,
        strong,
        model.classes,
    )
    write_figure(figure, out)
    print(f"Open {out}")
    return {"found": found, "outputs": outputs, "inside": inside, "areas": areas, "strong": strong}


if __name__ == "__main__":
    with in_one_sentence():
        main()
