"""Projecting 32 neurons of each VGG-16 layer, compared with captum's NeuronDeconvolution, one call per neuron.

    python benchmarks/projection.py [--neurons 32]

Times are milliseconds per neuron, first for neurons of different images, then for neurons of one image, for which
captum takes as long. The last column is the largest difference of the values, which should be at the rounding of the
convolutions. captum is timed on a few neurons (`--peer-neurons`), since each call takes the same time.
"""

from __future__ import annotations

import argparse
import time
import warnings

import torch
import torchvision
from captum.attr import NeuronDeconvolution

from interpret import project

LAYERS = {
    "conv1_1": "features.0", "conv1_2": "features.2", "conv2_1": "features.5", "conv2_2": "features.7",
    "conv3_1": "features.10", "conv3_2": "features.12", "conv3_3": "features.14", "conv4_1": "features.17",
    "conv4_2": "features.19", "conv4_3": "features.21", "conv5_1": "features.24", "conv5_2": "features.26",
    "conv5_3": "features.28",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--neurons", type=int, default=32)
    parser.add_argument("--peer-neurons", type=int, default=4)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # captum warns on every call that it sets hooks
    torch.manual_seed(0)
    module = torchvision.models.vgg16(weights=None).eval()
    images = torch.randn(arguments.neurons, 3, 224, 224)
    print("layer     captum ms interpret ms   ratio one image   ratio largest difference")
    for title, layer in LAYERS.items():
        shape = torch.nn.Sequential(*module.features[: int(layer.split(".")[1]) + 1])(images[:1]).shape
        channels = torch.randint(shape[1], (arguments.neurons,))
        positions = torch.stack([torch.randint(side, (arguments.neurons,)) for side in shape[2:]], 1)
        project(module, images[:2], layer, channels[:2], positions[:2], start="one")  # warm up

        start = time.perf_counter()
        projections = project(module, images, layer, channels, positions, start="one")
        ours = (time.perf_counter() - start) / arguments.neurons

        start = time.perf_counter()
        of_one = project(module, images[:1], layer, channels, positions, start="one")
        shared = (time.perf_counter() - start) / arguments.neurons

        peer = NeuronDeconvolution(module, module.get_submodule(layer))
        start = time.perf_counter()
        signals = [
            peer.attribute(images[i : i + 1], (int(channels[i]), *positions[i].tolist()))
            for i in range(arguments.peer_neurons)
        ]
        theirs = (time.perf_counter() - start) / arguments.peer_neurons

        expected = torch.cat(signals).detach()
        largest = expected.abs().max()
        difference = (projections.full((224, 224))[: len(expected)] - expected).abs().max() / largest
        difference = difference.maximum((of_one.full((224, 224))[0] - expected[0]).abs().max() / largest)
        print(
            f"{title:8} {theirs * 1e3:10.1f} {ours * 1e3:12.1f} {theirs / ours:7.1f} {shared * 1e3:9.1f} "
            f"{theirs / shared:7.1f} {float(difference):18.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
