"""Sensitivity to occlusion, as in Zeiler & Fergus (2014), Figure 7.

python examples/papers/zeiler_fergus_figure7.py squeezenet1_1 photographs --images 5 60 210
python examples/papers/zeiler_fergus_figure7.py lenet digits --size 7 --stride 2
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

import interpret
from interpret.analyses.predictions.compute import different_classes
from interpret.cli.answers import in_one_sentence
from interpret.figures.saving import write_figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="squeezenet1_1")
    parser.add_argument("data", nargs="?", default="photographs")
    parser.add_argument(
        "--images", type=int, nargs="+", help="numbers of the images, from 0; default: three of different classes"
    )
    parser.add_argument("--layer", help="the layer of the feature map to follow; default: the last hidden convolution")
    parser.add_argument("--size", type=int, default=32, help="side of the occluder in pixels")
    parser.add_argument("--stride", type=int, default=16, help="step of the occluder in pixels")
    parser.add_argument("--out", default="figure7.png")
    arguments = parser.parse_args()

    model = interpret.load(arguments.model)
    data = interpret.open_images(arguments.data, model)
    _, first_items = np.unique(data.sources, return_index=True)
    items = [first_items[source] for source in arguments.images or ()] or different_classes(model, data, 3)
    chosen = [data[int(item)] for item in items]
    labels = [label for _, label in chosen]
    occlusion = interpret.occlude(
        model,
        torch.stack([image for image, _ in chosen]),
        labels if min(labels) >= 0 and data.classes == model.classes else None,
        arguments.size,
        arguments.stride,
        layer=arguments.layer or hidden_layer(model),
        others=data,
    )
    write_figure(interpret.plot_occlusion(occlusion), arguments.out)
    for row, label in enumerate(occlusion.labels.tolist()):
        clean = occlusion.clean_probabilities[row]
        lost = clean - occlusion.probabilities[row].min()
        print(
            f"{occlusion.class_name(label)}: probability {clean:.2f}, reduced by up to {lost:.2f}; "
            f"the feature map's sum falls to {occlusion.activations[row].min() / occlusion.clean_activations[row]:.0%}"
        )
    print(occlusion.reading)
    print(f"Open {arguments.out}")


def hidden_layer(model: interpret.Model) -> str:
    """Return the last convolution whose number of maps is not the number of classes."""
    layers = interpret.trace(model).values()
    convolutions = [layer for layer in layers if layer.kind == "Conv2d"]
    hidden = [layer.name for layer in convolutions if layer.output_shape[0] != len(model.classes or ())]
    return (hidden or [layer.name for layer in convolutions])[-1]


if __name__ == "__main__":
    with in_one_sentence():
        main()
