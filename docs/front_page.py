"""Draw the picture of the front page: what some units of SqueezeNet see in a cat, and images made for them.

    python docs/front_page.py

The photograph is Chelsea, by Stéfan van der Walt, in the public domain; it comes with scikit-image.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from skimage import data

import interpret
from interpret.figures.style import CATEGORIES, figure_grid, in_style, show
from interpret.images.display import contrast, inputs_to_bytes, to_bytes

LAYER = "features.9.expand3x3"
UNITS = {119: "eye", 128: "nose", 114: "whiskers", 125: "eye and brow", 171: "stripes"}
"""Units that are strong on this cat, and what they see there."""


@in_style
def draw(
    cat: np.ndarray, patches: np.ndarray, projections: np.ndarray, optimised: np.ndarray, boxes: np.ndarray
) -> Figure:
    figure = figure_grid(1, 1, (9, 3.75))[0]
    figure.clear()
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.75))
    whole = left.subplots()
    show(whole, cat, "an image")
    axes = right.subplots(3, len(UNITS))
    for column, ((unit, seen), color) in enumerate(zip(UNITS.items(), CATEGORIES, strict=False)):
        top, start, bottom, end = boxes[column]
        whole.add_patch(Rectangle((start, top), end - start, bottom - top, fill=False, color=color, lw=2))
        show(axes[0, column], patches[column], f"unit {unit}")
        show(axes[1, column], projections[column])
        show(axes[2, column], optimised[column])
        axes[2, column].set_xlabel(seen, fontsize=8)
        for at in axes[:, column]:
            for side in at.spines.values():
                side.set(visible=True, color=color, lw=2)
    for row, said in enumerate(("what it sees", "what activates it", "made from noise")):
        axes[row, 0].set_ylabel(said, fontsize=8)
    return figure


def main() -> None:
    model = interpret.load("squeezenet1_1")
    with tempfile.TemporaryDirectory() as folder:
        Image.fromarray(data.chelsea()).save(Path(folder) / "chelsea.png")
        images = interpret.open_images(folder, model)
        inputs = images[0][0][None]
    found = interpret.project(model, inputs, LAYER, channels=list(UNITS))
    boxes = found.boxes.numpy()
    cat = inputs_to_bytes(inputs, model.preprocess)[0]
    patches = np.stack([cat[top:bottom, left:right] for top, left, bottom, right in boxes.clip(0, 227)])
    projections = to_bytes(contrast(found.pixels, "RGB" if model.preprocess is None else model.preprocess.channels))
    optimised = interpret.synthesise(model, LAYER, list(UNITS)).pictures
    figure = draw(cat, patches, projections, optimised, boxes)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=144)
    Image.open(picture).convert("RGB").save(Path(__file__).parent / "_static" / "units.jpg", quality=82, optimize=True)


if __name__ == "__main__":
    main()
