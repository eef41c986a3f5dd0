"""LeNet's feature maps of one digit, layer by layer.

    python examples/papers/feature_maps.py
    python examples/papers/feature_maps.py squeezenet1_1 path/to/picture.jpg --layers 'features.0,features.2,features.5'

With depth, maps get smaller and more numerous: edges of the digit, then pieces of strokes, then ten logits, the largest
of which is the prediction.
"""

from __future__ import annotations

import argparse

import numpy as np
from PIL import Image

import interpret
from interpret.cli.answers import in_one_sentence
from interpret.figures.saving import write_figure
from interpret.results.plotting import plot

LAYERS = "conv1,pool1,conv2,pool2,fc1,fc2"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="lenet")
    parser.add_argument("picture", nargs="?", help="an image file; default: one of the digits")
    parser.add_argument("--item", type=int, default=1234, help="number of the digit, 0 to 4999")
    parser.add_argument("--layers", help=f"default: {LAYERS} of lenet, otherwise all convolutional and linear layers")
    parser.add_argument("--out", default="feature_maps.png")
    arguments = parser.parse_args()

    model = interpret.load(arguments.model)
    if arguments.picture is None:
        digits = interpret.open_images("digits", model)
        image, label = digits[arguments.item]
        print(f"This is a {label}.")
    else:
        assert model.preprocess is not None
        image = model.preprocess(Image.open(arguments.picture))
    found = interpret.feature_maps(model, image, arguments.layers or (LAYERS if arguments.model == "lenet" else None))
    write_figure(plot(found), arguments.out)

    for layer, maps in found.maps.items():
        size = " × ".join(map(str, maps.shape[1:])) or "no positions"
        print(f"{layer}: {len(maps)} units, {size}; {np.mean(maps > 0):.0%} of the activations are above zero")
    last = next(reversed(found.maps.values()))
    if last.ndim == 1 and model.classes is not None and len(last) == len(model.classes):
        print(f"The largest output is {model.classes[int(last.argmax())]}.")
    print(found.reading)
    print(f"Open {arguments.out}")


if __name__ == "__main__":
    with in_one_sentence():
        main()
