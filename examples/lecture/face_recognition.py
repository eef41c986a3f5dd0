"""Face recognition: 128 numbers describe a face, near for one person and far for two, and how much they change.

    npm install @vladmandic/face-api@1.7.15
    python examples/lecture/face_recognition.py --out figures
    python examples/lecture/face_recognition.py --measured examples/lecture/face_recognition.json  # without the package

An SSD finds the faces, a second network 68 landmarks in each; the part of the photograph that they enclose is described
by a residual network. Copies of a face (mirrored, darker, blurred) must be nearer to it than all other faces. The
curves show how far a descriptor moves as the face is rotated, scaled and shifted: beyond 0.6, dlib and face-api take it
for another person. The weights and the six photographs are those of the npm package; set INTERPRET_FACE_API if it is in
another folder than node_modules.

The photographs show people and are not published here. `--keep FILE` writes what was measured on them as numbers, and
`--measured FILE` draws the figure from such a file, with the distances of the copies in place of the photographs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from object_detection import detect, in_picture, outline, photographs
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torch import Tensor

import interpret
from interpret.cli.answers import in_one_sentence
from interpret.figures.saving import write_figure
from interpret.figures.style import ACCENT, CATEGORIES, WIDTH, figure_grid, in_style, show
from interpret.loading.face_api import PACKAGE
from interpret.support.errors import InterpretError
from interpret.support.files import never, write_text

THRESHOLD = 0.6
"""Descriptors that are nearer than this are taken for one person's."""
COPIES = {
    "mirrored": ImageOps.mirror,
    "darker": lambda face: ImageEnhance.Brightness(face).enhance(0.6),
    "blurred": lambda face: face.filter(ImageFilter.GaussianBlur(face.width / 75)),
}
TRANSFORMS = {
    "rotation": (np.arange(-60, 61, 10).tolist(), "degrees"),
    "scale": ([0.6, 0.7, 0.8, 0.9, 1, 1.15, 1.3, 1.45, 1.6], "factor"),
    "translation": (np.arange(-40, 41, 8).tolist(), "pixels of 150"),
}


def landmarks(model: interpret.Model, picture: Image.Image, box: Tensor) -> Tensor:
    """Return the 68 landmarks of the face in a box, in pixels of the picture: [68, 2] as (x, y)."""
    left, top, right, bottom = (round(side) for side in box.tolist())
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, picture.width), min(bottom, picture.height)
    face = picture.crop((left, top, right, bottom))
    assert model.preprocess is not None
    with torch.no_grad():
        points = model(model.preprocess(face)[None])[0].reshape(68, 2) * model.input_shape[1]
    return in_picture(model, face, points) + torch.tensor([left, top])


def aligned(picture: Image.Image, points: Tensor) -> Image.Image:
    """Return the square of the picture that the eyes and the mouth enclose, as dlib was trained on it."""
    eyes_and_mouth = torch.stack([points[part].mean(0) for part in (slice(36, 42), slice(42, 48), slice(48, 68))])
    side = float((eyes_and_mouth[2] - eyes_and_mouth[:2]).norm(dim=1).mean()) / 0.45
    x, y = (eyes_and_mouth.mean(0) - torch.tensor([0.5, 0.43]) * side).tolist()
    return picture.crop((int(x), int(y), int(x) + int(side), int(y) + int(side)))


def measure(describe: interpret.Model, faces: list[Image.Image]) -> dict[str, Any]:
    """Return what the figure shows of faces, as numbers alone."""
    encode = describe.preprocess
    assert encode is not None
    inputs = torch.stack([encode(face) for face in faces])
    with torch.no_grad():
        described = describe(inputs)
        copied = {
            name: describe(torch.stack([encode(change(face)) for face in faces])) for name, change in COPIES.items()
        }
    curves = {
        name: interpret.probe(describe, inputs, name, values, layers="fc", fill="edge")
        for name, (values, _) in TRANSFORMS.items()
    }
    return {
        "package": PACKAGE,
        "date": datetime.now(UTC).date().isoformat(),
        "distances": _rounded(torch.cdist(described, described)),
        "copies": {name: _rounded(_own_and_nearest(copy, described)) for name, copy in copied.items()},
        "curves": {
            name: _rounded(np.quantile(found.distances["fc"], (0.1, 0.5, 0.9), axis=0))
            for name, found in curves.items()
        },
    }


def _own_and_nearest(copies: Tensor, described: Tensor) -> Tensor:
    """Return how far the copy of each face is from it, and from the nearest other face: [2, faces]."""
    to_all = torch.cdist(copies, described)
    own = to_all.diagonal().clone()
    return torch.stack([own, to_all.fill_diagonal_(torch.inf).amin(1)])


def _rounded(numbers: Any) -> list[list[float]]:
    return [[round(number, 3) for number in row] for row in np.asarray(numbers).tolist()]


def read_measured(file: Path) -> dict[str, Any]:
    """Return what `--keep` has written.

    Raises:
        InterpretError: the file holds no such numbers.
    """
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        faces = len(found["distances"])
        expected = {"distances": (faces, faces)} | dict.fromkeys(COPIES, (2, faces))
        expected |= {name: (3, len(values)) for name, (values, _) in TRANSFORMS.items()}
        tables = {"distances": found["distances"]} | found["copies"] | found["curves"]
        if {name: np.shape(table) for name, table in tables.items()} != expected:
            raise ValueError("tables of other shapes")
        print(f"Measured on {found['date']} with {found['package']}, on {faces} faces in its six photographs.")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InterpretError(
            f"--measured {str(file)!r} is no file that --keep has written ({error!r}): measure again with the package"
        ) from None
    return found


@in_style
def draw(found: dict[str, Any], draw_photographs: Callable[[Any, Any], None] | None) -> Figure:
    """Draw what was measured; photographs on the first two axes, or the distances of copies without them."""
    figure, axes = figure_grid(2, 3, (WIDTH, 4.6), width_ratios=(1.25, 1, 1.1))
    distances = np.array(found["distances"])
    others = float(np.median(distances[~np.eye(len(distances), dtype=bool)]))
    if draw_photographs is None:
        grid = axes[0, 0].get_gridspec()
        for axis in axes[0, :2]:
            axis.remove()
        draw_copies(figure.add_subplot(grid[0, :2]), found)
    else:
        draw_photographs(axes[0, 0], axes[0, 1])
    drawn = axes[0, 2].imshow(distances, cmap="viridis_r", vmin=0, vmax=1, interpolation="nearest")
    axes[0, 2].set(title=f"distances of {len(distances)} faces", xticks=[], yticks=[], xlabel="face", ylabel="face")
    figure.colorbar(drawn, ax=axes[0, 2], shrink=0.8)
    for axis, (name, (values, unit)) in zip(axes[1], TRANSFORMS.items(), strict=True):
        low, median, high = found["curves"][name]
        axis.fill_between(values, low, high, color=CATEGORIES[0], alpha=0.2, lw=0)
        axis.plot(values, median, color=CATEGORIES[0])
        axis.axhline(THRESHOLD, color=ACCENT, lw=0.8, ls="--")
        axis.axhline(others, color="#7f7f7f", lw=0.8, ls=":")
        axis.set(title=name, xlabel=unit, ylim=(0, 1))
    axes[1, 0].set_ylabel("distance of the descriptor")
    axes[1, 0].text(-58, THRESHOLD - 0.02, "threshold", color=ACCENT, fontsize=6, va="top")
    axes[1, 0].text(-58, others + 0.02, "other faces (median)", color="#7f7f7f", fontsize=6, va="bottom")
    return figure


def draw_copies(axes: Any, found: dict[str, Any]) -> None:
    """Draw how far each copy is from its own face and from the nearest other one, a line for each kind of copy."""
    for row, name in enumerate(COPIES):
        for distances, color in zip(found["copies"][name], (CATEGORIES[0], "#7f7f7f"), strict=True):
            axes.plot(distances, [row] * len(distances), "|", color=color, ms=14, mew=1, alpha=0.8)
    axes.vlines(THRESHOLD, -0.4, 2.6, color=ACCENT, lw=0.8, ls="--")
    axes.text(THRESHOLD + 0.01, 2.55, "threshold", color=ACCENT, fontsize=6)
    axes.set(title="distances of copies", xlabel="distance of the descriptor", xlim=(0, 1), ylim=(2.6, -0.9))
    axes.set_yticks(range(len(COPIES)), list(COPIES))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    for x, text, color in ((0.24, "to their own face", CATEGORIES[0]), (0.56, "to the nearest other face", "#7f7f7f")):
        axes.text(x, -0.55, text, color=color, fontsize=7, ha="center")


def show_photographs(
    picture: Image.Image, boxes: Tensor, points: list[Tensor], faces: list[Image.Image], left: Any, right: Any
) -> None:
    """Show a photograph with its boxes and landmarks, and the faces that are described."""
    show(left, picture, "boxes and landmarks")
    for box, found in zip(boxes, points, strict=True):
        outline(left, box)
        left.plot(*found.T.numpy(), ".", color=CATEGORIES[5], ms=0.8)
    show(right, np.hstack([np.vstack(column) for column in _columns(faces)]), "aligned faces")


def _columns(faces: list[Image.Image]) -> list[list[np.ndarray]]:
    """Return twenty faces as five columns of four."""
    pictures = [np.asarray(face.resize((75, 75))) for face in faces[:20]]
    return [pictures[start : start + 4] for start in range(0, 20, 4)]


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(), help="the folder for face_recognition.png")
    parser.add_argument("--keep", type=Path, help="a JSON file for what is measured")
    parser.add_argument("--measured", type=Path, help="such a file, in place of the package")
    chosen = parser.parse_args(arguments)
    out = chosen.out / "face_recognition.png"

    points: list[list[Tensor]] = []
    draw_photographs = None
    if chosen.measured is not None:
        found = read_measured(chosen.measured)
    else:
        detector, marks, describe = (
            interpret.load(name) for name in ("ssd_face_detector", "face_landmarks", "face_recognition")
        )
        pictures = photographs()
        boxes = [detect(detector, picture)["boxes"] for picture in pictures]
        points = [[landmarks(marks, picture, box) for box in of] for picture, of in zip(pictures, boxes, strict=True)]
        faces = [aligned(picture, face) for picture, of in zip(pictures, points, strict=True) for face in of]
        found = measure(describe, faces)
        draw_photographs = partial(show_photographs, pictures[5], boxes[5], points[5], faces)

    for name, (own, other) in found["copies"].items():
        right = sum(np.less(own, other))
        print(f"{name}: {right} of {len(own)} faces recognised, at a distance of {np.median(own):.2f} (median)")
    if chosen.keep is not None:
        write_text(chosen.keep, json.dumps(found), never)
    write_figure(draw(found, draw_photographs), out)
    print(f"Open {out}")
    return found | {"points": points}


if __name__ == "__main__":
    with in_one_sentence():
        main()
