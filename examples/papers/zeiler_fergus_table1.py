"""Correspondence of eyes and mouths in different faces, as in Zeiler & Fergus (2014), Table 1.

    npm pack emoji-datasource-google@16.0.0 && tar xf emoji-datasource-google-16.0.0.tgz
    python examples/papers/zeiler_fergus_table1.py package

The first line downloads Google's emoji drawings (Apache-2.0) with npm.

The paper masks eyes and noses of five dogs. This script masks parts of emoji faces, whose eyes and mouths have known
positions. Each face is placed at a random position in a white image. Then the left eye, the right eye, the mouth and,
as a control, boxes of the same size at random positions on the face are filled with the mean colour. A low Δ means that
masking changes the features of different faces in the same way.

With SqueezeNet, all three parts have a much lower Δ than random boxes, as in the paper. But so do boxes at one random
position that is the same for all faces. The paper lacks this control: its table alone does not distinguish a part from
a position on the face.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import interpret
from interpret.cli.answers import in_one_sentence
from interpret.figures.saving import write_figure
from interpret.results.plotting import plot
from interpret.support.errors import InterpretError

FACES = """1f600 1f603 1f604 1f601 1f606 1f642 1f60a 1f617 1f619 1f610 1f611 1f612 1f62c 1f635 1f615 1fae4 1f61f 1f641
2639-fe0f 1f62e 1f62f 1f626 1f627 1f629 1f62b 1f60b""".split()
"""Code points of faces that look straight ahead, with both eyes and a mouth at the usual positions."""
SIDE = 64
FACE = (2, 2, 61, 62)
"""Top, left, bottom and right of the face in its 64 × 64 image."""
PARTS = {"eye on the left": (17, 13, 35, 31), "eye on the right": (17, 33, 35, 51), "mouth": (35, 13, 53, 51)}
LAYERS = "features.0,features.2,features.5,features.8,features.12,classifier.3"
"""SqueezeNet's first convolution, its three pooling layers, its last fire module and its global average pooling."""


def read_faces(path: Path, names: list[str]) -> NDArray[np.uint8]:
    """Return emoji on white, uint8 [n, 64, 64, 3], from the package's folder, its folder of images, or its sheet."""
    if path.is_file():
        sheet = Image.open(path).convert("RGBA")
        listed = next(
            (folder / "emoji.json" for folder in path.resolve().parents if (folder / "emoji.json").exists()), None
        )
        if listed is None:
            raise InterpretError(f"sheet {str(path)!r} needs the package's emoji.json in a parent folder")
        entries = {one["image"].removesuffix(".png"): one for one in json.loads(listed.read_text("utf-8"))}
        pitch = SIDE + 2
        corners = [(entries[name]["sheet_x"] * pitch + 1, entries[name]["sheet_y"] * pitch + 1) for name in names]
        pictures = [sheet.crop((x, y, x + SIDE, y + SIDE)) for x, y in corners]
    else:
        folder = next((one for one in (path / "img/google/64", path) if (one / f"{names[0]}.png").exists()), None)
        if folder is None:
            raise InterpretError(
                f"{str(path)!r} holds no {names[0]}.png: unpack emoji-datasource-google and give its folder `package`"
            )
        pictures = [Image.open(folder / f"{name}.png").convert("RGBA") for name in names]
    white = Image.new("RGBA", (SIDE, SIDE), "white")
    return np.stack([np.asarray(Image.alpha_composite(white, picture).convert("RGB")) for picture in pictures])


def place_faces(
    faces: NDArray[np.uint8], size: tuple[int, int], share: float, seed: int
) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.int64]]]:
    """Return images with each face at a random position, `share` of the image high, and the boxes of face and parts."""
    generator = np.random.default_rng(seed)
    side = round(share * min(size))
    corners = np.floor(generator.random((len(faces), 2)) * (np.array(size) - side + 1)).astype(int)
    pictures = np.full((len(faces), *size, 3), 255, np.uint8)
    for picture, face, (top, left) in zip(pictures, faces, corners, strict=True):
        large = Image.fromarray(face).resize((side, side), Image.Resampling.BICUBIC)
        picture[top : top + side, left : left + side] = np.asarray(large)
    boxes = {name: np.rint(np.array(box) * side / SIDE).astype(int) for name, box in {"face": FACE, **PARTS}.items()}
    return pictures, {name: box + np.tile(corners, 2) for name, box in boxes.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("emoji", type=Path, help="the unpacked package, its folder img/google/64, or its sheet 64.png")
    parser.add_argument("--model", default="squeezenet1_1")
    parser.add_argument("--layers", help=f"default: {LAYERS} of squeezenet1_1, otherwise all convolutions")
    parser.add_argument("--faces", type=int, default=len(FACES), help="number of faces")
    parser.add_argument("--draws", type=int, default=5, help="number of random positions")
    parser.add_argument("--share", type=float, default=0.8, help="height of a face as a fraction of the image height")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="table1.png")
    arguments = parser.parse_args()

    model = interpret.load(arguments.model)
    assert model.preprocess is not None
    faces = read_faces(arguments.emoji, FACES[: arguments.faces])
    pictures, boxes = place_faces(faces, model.preprocess.size, arguments.share, arguments.seed)
    images = torch.stack([model.preprocess.encode(picture) for picture in pictures])
    parts = {name: boxes[name] for name in PARTS}
    layers = arguments.layers or (LAYERS if arguments.model == "squeezenet1_1" else None)
    found = interpret.correspond(
        model, images, parts, layers, within=boxes["face"], draws=arguments.draws, seed=arguments.seed
    )
    write_figure(plot(found), arguments.out)

    print(found.table())
    for layer in found.layers:
        gains = ", ".join(
            f"{part} {gain:+.3f} ± {error:.3f}"
            for part, gain, error in zip(found.parts, found.gains[layer][0], found.gain_errors[layer][0], strict=True)
        )
        print(f"{layer}: Δ of random boxes minus Δ of the part: {gains}")
    print(found.reading)
    print(f"Open {arguments.out}")


if __name__ == "__main__":
    with in_one_sentence():
        main()
