"""Compare every CNN of `keras.applications` with its graph here, and write docs/keras.md.

    python benchmarks/keras_applications.py                   # the smallest of each family
    python benchmarks/keras_applications.py --all             # all 39: six minutes, 5 GB of memory

Weights are random, and so are those and the statistics of normalisations, which would hide a mistake if they were 0
and 1. All is in float64, and each layer gets the very input that Keras's layer gets: through hundreds of layers with
random weights, rounding alone may grow until no digit is left.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import torch
from keras.src.backend.common import dtypes
from torch import Tensor, nn

import interpret
from interpret.network.keras_internals import calls_of, function_of
from interpret.support.files import any_file, replacing

keras.config.set_floatx("float64")
dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"  # else Keras's normalisations compute in float32

SMALL = """VGG16 ResNet50 ResNet50V2 InceptionV3 InceptionResNetV2 Xception DenseNet121 MobileNet MobileNetV2
    MobileNetV3Small EfficientNetB0 EfficientNetV2B0 ConvNeXtTiny""".split()
LARGER = """VGG19 ResNet101 ResNet152 ResNet101V2 ResNet152V2 DenseNet169 DenseNet201 MobileNetV3Large EfficientNetB1
    EfficientNetB2 EfficientNetB3 EfficientNetB4 EfficientNetB5 EfficientNetB6 EfficientNetB7 EfficientNetV2B1
    EfficientNetV2B2 EfficientNetV2B3 EfficientNetV2S EfficientNetV2M EfficientNetV2L ConvNeXtSmall ConvNeXtBase
    ConvNeXtLarge ConvNeXtXLarge NASNetLarge""".split()
SIDE = 96
INTRODUCTION = """# Networks of Keras

Written by `benchmarks/keras_applications.py`: the CNNs of `keras.applications` with random weights, on two images of
{side} × {side} pixels, in float64. *Layers* is the largest difference of any layer's output, relative to the largest
value of Keras's own, where each layer is given the very input that Keras's has: if it is rounding, the networks are
equal. *Logits* is the difference at the end of the whole network, and *rounding* the one that Keras itself has if its
input is changed by 1e-15 of itself: such weights amplify rounding from layer to layer, most in EfficientNetV2M.
*Parameters* are Keras's trainable ones; *MACs* are counted from Keras's shapes, each weight of a kernel once for each
position; both are those of the trace here, unless a cell says otherwise. *Fields*: how many of the convolutions have a
receptive field that is a window, and how many a local field, with gates held constant. NASNetMobile is missing: Keras
refuses it on its torch backend.

| network | layers | logits | rounding | parameters | MACs | receptive fields | local fields | convolutions |
|---|---:|---:|---:|---:|---:|---:|---:|---:|
"""


def draw_statistics(model: Any) -> None:
    """Give normalisations random statistics, scales and offsets."""
    generator = torch.Generator().manual_seed(0)
    for variable in model.variables:
        shape = tuple(variable.shape)
        if variable.path.endswith(("moving_variance", "gamma")):
            variable.assign(torch.rand(shape, generator=generator) + 0.5)
        elif any(name in variable.path for name in ("moving_mean", "beta", "bias")):
            variable.assign(torch.randn(shape, generator=generator) * 0.1)


def macs_of(model: Any) -> int:
    """Count multiply-accumulates from Keras's shapes."""
    total = 0
    for layer in model._flatten_layers(include_self=False):
        kernels = [getattr(layer, name, None) for name in ("kernel", "depthwise_kernel", "pointwise_kernel")]
        weights = sum(math.prod(kernel.shape) for kernel in kernels if kernel is not None)
        total += weights * math.prod(layer.output.shape[1:-1]) if weights else 0
    return total


def off(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference, relative to the largest value expected."""
    return float((found - expected).abs().max() / expected.abs().max())


def of_layers(model: Any, graph: Any, images: Tensor) -> float:
    """Return the largest difference of a layer's output, each layer being given the input that Keras's has."""
    calls = list(calls_of(function_of(model)))
    outputs = keras.Function(model.inputs, [call.outputs[0] for call in calls])([images.permute(0, 2, 3, 1)])
    waiting: dict[str, list[Tensor]] = {}
    for step, output in zip(graph._steps, outputs, strict=True):
        waiting.setdefault(step.modules[-1], []).append(output)
    differences = []

    def compare(name: str, module: nn.Module, inputs: Any, found: Tensor) -> Tensor:
        expected = waiting[name].pop(0)
        expected = expected if isinstance(module, nn.Linear) else graph.layout.channels_first(expected)
        differences.append(off(found, expected))
        return expected  # what the next layers get

    hooks = [graph.get_submodule(name).register_forward_hook(partial(compare, name)) for name in waiting]
    graph(images)
    for hook in hooks:
        hook.remove()
    assert len(differences) == len(calls)
    return max(differences)


def row(name: str) -> str:
    """Compare one network."""
    keras.utils.set_random_seed(0)
    model = getattr(keras.applications, name)(weights=None, input_shape=(SIDE, SIDE, 3), classifier_activation=None)
    draw_statistics(model)
    images = torch.rand(2, 3, SIDE, SIDE, dtype=torch.float64) * 255
    network = interpret.load(model)
    with torch.inference_mode():
        last = images.permute(0, 2, 3, 1)
        expected = model(last, training=False)
        shifted = model(last * (1 + 1e-15), training=False)
        logits = network(images)
        differences = (of_layers(model, network.module, images), off(logits, expected), off(shifted, expected))
    layers = interpret.trace(network)
    params, macs = sum(math.prod(one.shape) for one in model.trainable_weights), macs_of(model)
    numbers = [
        f"{ours:,}" if ours == theirs else f"{ours:,} instead of {theirs:,}"
        for ours, theirs in ((layers.params, params), (layers.macs, macs))
    ]
    fields = [layer for layer in layers.values() if layer.kind.endswith(("Conv2D", "Conv2DTranspose"))]
    windows = [sum(field is not None for field in which) for which in zip(
        *((layer.receptive_field, layer.local_field) for layer in fields), strict=True)]  # fmt: skip
    cells = (name, *(f"{one:.0e}" for one in differences), *numbers, *map(str, windows), str(len(fields)))
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="the larger networks of each family, too")
    parser.add_argument("--out", type=Path, default=Path("docs/keras.md"))
    options = parser.parse_args()
    rows = []
    for name in [*SMALL, *(LARGER if options.all else ())]:
        rows.append(row(name))
        print(rows[-1], flush=True)
        gc.collect()
    options.out.parent.mkdir(exist_ok=True)
    with replacing(options.out, any_file) as new:
        new.write_text(INTRODUCTION.format(side=SIDE) + "\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
