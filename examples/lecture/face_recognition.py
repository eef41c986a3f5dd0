"""Face recognition: 128 numbers describe a face, near for one person and far for two, and how much they change.

    npm install @vladmandic/face-api@1.7.15
    python examples/lecture/face_recognition.py --out figures

An SSD finds the faces, a second network 68 landmarks in each; the part of the photograph that they enclose is described
by a residual network. Copies of a face (mirrored, darker, blurred) must be nearer to it than all other faces. The
curves show how far a descriptor moves as the face is rotated, scaled and shifted: beyond 0.6, dlib and face-api take it
for another person. The weights and the six photographs are those of the npm package; set INTERPRET_FACE_API if it is in
another folder than node_modules.
"""

from __future__ import annotations

import argparse
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


@in_style
def draw(
    picture: Image.Image, boxes: Tensor, points: list[Tensor], faces: list[Image.Image], distances: Tensor, curves: Any
) -> Figure:
    figure, axes = figure_grid(2, 3, (WIDTH, 4.6), width_ratios=(1.25, 1, 1.1))
    show(axes[0, 0], picture, "boxes and landmarks")
    for box, found in zip(boxes, points, strict=True):
        outline(axes[0, 0], box)
        axes[0, 0].plot(*found.T.numpy(), ".", color=CATEGORIES[5], ms=0.8)
    show(axes[0, 1], np.hstack([np.vstack(column) for column in _columns(faces)]), "aligned faces")
    drawn = axes[0, 2].imshow(distances.numpy(), cmap="viridis_r", vmin=0, vmax=1, interpolation="nearest")
    axes[0, 2].set(title=f"distances of {len(distances)} faces", xticks=[], yticks=[], xlabel="face", ylabel="face")
    figure.colorbar(drawn, ax=axes[0, 2], shrink=0.8)
    others = distances[~torch.eye(len(distances), dtype=torch.bool)]
    for axis, (name, (values, unit)) in zip(axes[1], TRANSFORMS.items(), strict=True):
        moved = curves[name].distances["fc"]
        axis.fill_between(values, *np.quantile(moved, (0.1, 0.9), axis=0), color=CATEGORIES[0], alpha=0.2, lw=0)
        axis.plot(values, np.median(moved, axis=0), color=CATEGORIES[0])
        axis.axhline(THRESHOLD, color=ACCENT, lw=0.8, ls="--")
        axis.axhline(float(others.median()), color="#7f7f7f", lw=0.8, ls=":")
        axis.set(title=name, xlabel=unit, ylim=(0, 1))
    axes[1, 0].set_ylabel("distance of the descriptor")
    axes[1, 0].text(-58, THRESHOLD - 0.02, "threshold", color=ACCENT, fontsize=6, va="top")
    axes[1, 0].text(
        -58, float(others.median()) + 0.02, "other faces (median)", color="#7f7f7f", fontsize=6, va="bottom"
    )
    return figure


def _columns(faces: list[Image.Image]) -> list[list[np.ndarray]]:
    """Return twenty faces as five columns of four."""
    pictures = [np.asarray(face.resize((75, 75))) for face in faces[:20]]
    return [pictures[start : start + 4] for start in range(0, 20, 4)]


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(), help="the folder for face_recognition.png")
    out = parser.parse_args(arguments).out / "face_recognition.png"

    detector, marks, describe = (
        interpret.load(name) for name in ("ssd_face_detector", "face_landmarks", "face_recognition")
    )
    encode = describe.preprocess
    assert encode is not None
    pictures = photographs()
    boxes = [detect(detector, picture)["boxes"] for picture in pictures]
    points = [[landmarks(marks, picture, box) for box in of] for picture, of in zip(pictures, boxes, strict=True)]
    faces = [aligned(picture, found) for picture, of in zip(pictures, points, strict=True) for found in of]
    inputs = torch.stack([encode(face) for face in faces])
    copies = {name: torch.stack([encode(change(face)) for face in faces]) for name, change in COPIES.items()}
    with torch.no_grad():
        described = describe(inputs)
        copied = {name: describe(images) for name, images in copies.items()}
    distances = torch.cdist(described, described)
    for name, descriptors in copied.items():
        to_all = torch.cdist(descriptors, described)
        own = to_all.diagonal()
        found = int((to_all.argmin(1) == torch.arange(len(faces))).sum())
        print(f"{name}: {found} of {len(faces)} faces recognised, at a distance of {own.median():.2f} (median)")
    curves = {
        name: interpret.probe(describe, inputs, name, values, layers="fc", fill="edge")
        for name, (values, _) in TRANSFORMS.items()
    }
    write_figure(draw(pictures[5], boxes[5], points[5], faces, distances, curves), out)
    print(f"Open {out}")
    return {"described": described, "copied": copied, "curves": curves, "points": points, "boxes": boxes}


if __name__ == "__main__":
    with in_one_sentence():
        main()
