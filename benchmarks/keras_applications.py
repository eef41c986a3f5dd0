"""Compare every CNN of `keras.applications` with its graph here, and write docs/keras.md.

    python benchmarks/keras_applications.py                   # the smallest of each family
    python benchmarks/keras_applications.py --all             # all 38: some 15 minutes, 8 GB of memory

Weights are random, and so are the statistics of normalisations, which would hide a mistake if they were 0 and 1.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import torch

import interpret
from interpret.support.files import any_file, replacing

SMALL = """VGG16 ResNet50 ResNet50V2 InceptionV3 InceptionResNetV2 Xception DenseNet121 MobileNet MobileNetV2
    MobileNetV3Small EfficientNetB0 EfficientNetV2B0 ConvNeXtTiny""".split()
LARGER = """VGG19 ResNet101 ResNet152 ResNet101V2 ResNet152V2 DenseNet169 DenseNet201 MobileNetV3Large EfficientNetB1
    EfficientNetB2 EfficientNetB3 EfficientNetB4 EfficientNetB5 EfficientNetB6 EfficientNetB7 EfficientNetV2B1
    EfficientNetV2B2 EfficientNetV2B3 EfficientNetV2S EfficientNetV2M EfficientNetV2L ConvNeXtSmall ConvNeXtBase
    ConvNeXtLarge ConvNeXtXLarge""".split()
SIDE = 96
INTRODUCTION = """# Networks of Keras

Written by `benchmarks/keras_applications.py`: CNNs of `keras.applications` with random weights, on two images of
{side} × {side} pixels. *Difference* is the largest one of the logits, relative to the largest logit of Keras itself,
in float32. *Parameters* are Keras's trainable ones; *MACs* are counted from Keras's shapes, each weight of a kernel
once for each position; both are those of the trace here, unless a cell says otherwise. *Fields*: how many of the
convolutions have a receptive field that is a window, and how many a local field, with gates held constant. NASNet is
missing: Keras refuses it on its torch backend.

EfficientNetV2-S, -M and -L differ because their gates amplify rounding with such weights, layer by layer: of V2-S,
Keras's own logits differ by 0.6 of the largest if the input is changed by 1e-7 of itself.
All other numbers are rounding.

| network | difference | parameters | MACs | receptive fields | local fields | convolutions |
|---|---:|---:|---:|---:|---:|---:|
"""


def draw_statistics(model: Any) -> None:
    """Give normalisations random statistics and offsets."""
    generator = torch.Generator().manual_seed(0)
    for variable in model.variables:
        shape = tuple(variable.shape)
        if "moving_variance" in variable.path:
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


def row(name: str) -> str:
    """Compare one network."""
    keras.utils.set_random_seed(0)
    model = getattr(keras.applications, name)(weights=None, input_shape=(SIDE, SIDE, 3), classifier_activation=None)
    draw_statistics(model)
    images = torch.rand(2, 3, SIDE, SIDE) * 255
    network = interpret.load(model)
    with torch.inference_mode():
        expected = model(images.permute(0, 2, 3, 1), training=False)
        difference = float((network(images) - expected).abs().max() / expected.abs().max())
    layers = interpret.trace(network)
    params, macs = sum(math.prod(one.shape) for one in model.trainable_weights), macs_of(model)
    numbers = [
        f"{ours:,}" if ours == theirs else f"{ours:,} instead of {theirs:,}"
        for ours, theirs in ((layers.params, params), (layers.macs, macs))
    ]
    fields = [layer for layer in layers.values() if layer.kind.endswith(("Conv2D", "Conv2DTranspose"))]
    windows = [sum(field is not None for field in which) for which in zip(
        *((layer.receptive_field, layer.local_field) for layer in fields), strict=True)]  # fmt: skip
    cells = (name, f"{difference:.0e}", *numbers, *map(str, windows), str(len(fields)))
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
