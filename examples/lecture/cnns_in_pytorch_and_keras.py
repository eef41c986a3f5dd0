"""CNNs in PyTorch and Keras: the same LeNet, written and trained in both, and what its units look for.

    python examples/lecture/cnns_in_pytorch_and_keras.py --out figures
    python examples/lecture/cnns_in_pytorch_and_keras.py --out figures --gallery      # and a gallery of each

Layer by layer, both have the same output sizes, parameters and multiply-accumulates. Keras keeps maps as [height,
width, channels] and its layers call their own activation; here, both are seen as in PyTorch. With PyTorch's weights,
the network of Keras gives the same outputs. Trained from different random weights on the same digits, both learn edges
in the first layer and parts of digits in the second, in another order: unit 3 of one is not unit 3 of the other.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

import interpret
from interpret.cli.answers import in_one_sentence
from interpret.figures.saving import write_figure
from interpret.figures.style import WIDTH, figure_grid, in_style, show

UNITS = 10
PAIRS = {"conv1": "conv1", "pool1": "pool1", "conv2": "conv2", "pool2": "pool2", "fc1": "fc1", "fc2": "fc2"}
"""The layers of PyTorch's network, and those of Keras's that do the same."""


def build_in_keras() -> Any:
    """Return LeNet in Keras; the one in PyTorch is `models/lenet/model.py`."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    try:
        import keras
    except ModuleNotFoundError:
        raise interpret.InterpretError(
            "the script needs Keras: install it with pip install 'interpret-cnn[keras]'"
        ) from None
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(20, 5, activation="relu", name="conv1"),
            layers.MaxPooling2D(2, name="pool1"),
            layers.Conv2D(50, 5, activation="relu", name="conv2"),
            layers.MaxPooling2D(2, name="pool2"),
            layers.Flatten(name="flatten"),
            layers.Dense(128, activation="relu", name="fc1"),
            layers.Dense(10, activation="softmax", name="fc2"),
        ],
        name="lenet",
    )


def train_in_keras(images: np.ndarray, labels: np.ndarray, epochs: int) -> Any:
    """Return LeNet, trained by Keras on images [B, H, W, 1]."""
    import keras

    keras.utils.set_random_seed(1998)
    network = build_in_keras()
    network.compile(keras.optimizers.Adam(0.002), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    network.fit(images, labels, batch_size=64, epochs=epochs, verbose=0)
    return network


def with_weights_of(module: torch.nn.Module, network: Any) -> Any:
    """Give a network of Keras the weights of one of PyTorch, and return it.

    A kernel is [units, channels, height, width] in PyTorch and [height, width, channels, units] in Keras. The first
    linear layer reads flattened maps, whose elements are in another order.
    """
    state = {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}
    for name in ("conv1", "conv2"):
        network.get_layer(name).set_weights([state[f"{name}.weight"].transpose(2, 3, 1, 0), state[f"{name}.bias"]])
    matrix = state["fc1.weight"].reshape(128, 50, 4, 4).transpose(2, 3, 1, 0).reshape(-1, 128)
    network.get_layer("fc1").set_weights([matrix, state["fc1.bias"]])
    network.get_layer("fc2").set_weights([state["fc2.weight"].T, state["fc2.bias"]])
    return network


def units_of(model: Any) -> dict[str, list[Any]]:
    """Return first-layer kernels, and top patches and projections of units with the highest maxima, as pictures."""
    mined = interpret.mine(model, "digits", layers="conv2", k=1)["conv2"]
    strongest = np.argsort(-np.asarray(mined.values)[:, 0])[:UNITS]
    units = [mined.unit(int(unit)) for unit in strongest]
    return {
        "conv1,\nkernels": [kernel[0] for kernel in model.module.conv1.weight.detach()[:UNITS]],
        "conv2,\npatches": [unit.patches[0, 0] for unit in units],
        "conv2,\nprojections": [unit.projections()[0, 0] for unit in units],
    }


@in_style
def draw(found: dict[str, dict[str, list[Any]]]) -> Figure:
    figure = figure_grid(1, 1, (WIDTH, 5.0))[0]
    figure.clear()
    for block, (framework, rows) in zip(figure.subfigures(len(found), 1), found.items(), strict=True):
        block.suptitle(framework, fontsize=8)
        for line, (name, pictures) in zip(block.subplots(len(rows), UNITS), rows.items(), strict=True):
            for axis, picture in zip(line, pictures, strict=True):
                limit = float(abs(picture).max())
                colours = {"cmap": "gray"} if "patches" in name else {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
                show(axis, picture, **colours)
            line[0].set_ylabel(name, fontsize=6.5)
    return figure


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(), help="the folder for cnns_in_pytorch_and_keras.png")
    parser.add_argument("--epochs", type=int, default=4, help="of training in Keras")
    parser.add_argument("--gallery", action="store_true", help="write a gallery of each network, too")
    options = parser.parse_args(arguments)
    out = options.out / "cnns_in_pytorch_and_keras.png"

    torch_model = interpret.load("lenet")
    digits = interpret.load_dataset("digits")
    pixels = ((digits.images / np.float32(255) - 0.1307) / 0.3081)[..., None].astype(np.float32)
    same = with_weights_of(torch_model.module, build_in_keras())
    images = torch.from_numpy(pixels[::50]).permute(0, 3, 1, 2)
    with torch.inference_mode():
        difference = float((interpret.load(same)(images) - torch_model(images).softmax(1)).abs().max())
    print(f"with the same weights, the outputs differ by {difference:.1e} at most")

    held_out, labels = digits.held_out, digits.labels
    network = train_in_keras(pixels[~held_out], labels[~held_out], options.epochs)
    accuracy = float(network.evaluate(pixels[held_out], labels[held_out], verbose=0)[1])
    print(
        f"trained in Keras for {options.epochs} epochs: {accuracy:.1%} of {held_out.sum():,} held-out digits are right"
    )
    keras_model = interpret.load(network, preprocess=torch_model.preprocess, classes=torch_model.classes)

    in_torch, in_keras = interpret.trace(torch_model), interpret.trace(keras_model)
    print(f"{'layer':6} {'output':13} {'parameters':>10} {'MACs':>9}  in PyTorch and in Keras")
    for ours, theirs in PAIRS.items():
        layer, other = in_torch[ours], in_keras[theirs]
        size = " × ".join(map(str, other.output_shape))
        alike = (layer.output_shape, layer.params, layer.macs) == (other.output_shape, other.params, other.macs)
        print(f"{theirs:6} {size:13} {other.params:10,} {other.macs:9,}  {'the same' if alike else 'different'}")

    write_figure(draw({"LeNet in PyTorch": units_of(torch_model), "LeNet in Keras": units_of(keras_model)}), out)
    print(f"Open {out}")
    if options.gallery:
        for name, model in (("pytorch", torch_model), ("keras", keras_model)):
            study = interpret.Study(options.out / f"study-{name}", model, interpret.open_images("digits", model))
            study.mine()
            study.project()
            interpret.write_gallery(study, options.out / f"gallery-{name}")
            print(f"Open {options.out / f'gallery-{name}' / 'index.html'}")
    return {"accuracy": accuracy, "difference": difference, "torch": in_torch, "keras": in_keras}


if __name__ == "__main__":
    with in_one_sentence():
        main()
