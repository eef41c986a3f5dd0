"""Image synthesis: the digits that LeNet responds to most, made from noise by gradient ascent on the pixels.

    python examples/lecture/image_synthesis.py --out figures

Training changes the weights so that the outputs fit the images. Synthesis keeps the weights, and changes an image so
that one output grows: the gradient is taken of the pixels, not of the weights. Some of the images can be read as
digits, though nobody writes digits like these: several strokes that the network responds to are added in one image.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

import interpret
from interpret.cli.answers import in_one_sentence
from interpret.figures.saving import write_figure
from interpret.results.plotting import plot


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(), help="the folder for image_synthesis.png")
    parser.add_argument("--steps", type=int, default=200, help="steps of the gradient ascent")
    given = parser.parse_args(arguments)
    out = given.out / "image_synthesis.png"

    model = interpret.load("lenet")
    digits = interpret.open_images("digits", model)
    natural = torch.stack([digits[item][0] for item in range(0, len(digits), 20)])
    made = interpret.synthesise(model, units=range(10), kind="class", natural=natural, steps=given.steps)
    assert made.inputs is not None and made.shares is not None
    with torch.no_grad():
        answers = model.module.eval()(made.inputs).argmax(1).tolist()
    write_figure(plot(made), out)
    for name, value, share, answer in zip(made.names, made.values, made.shares, answers, strict=True):
        print(f"{name}: the output is {value:.1f}, {share:.1f} times that of the strongest digit; read as {answer}")
    print(f"Open {out}")
    return {"made": made, "natural": natural, "answers": answers}


if __name__ == "__main__":
    with in_one_sentence():
        main()
