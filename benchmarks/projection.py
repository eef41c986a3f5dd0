"""Projecting 32 neurons of each VGG-16 layer, compared with captum's NeuronDeconvolution, one call per neuron.

    python benchmarks/projection.py [--neurons 32]
    python benchmarks/projection.py --again
    python benchmarks/projection.py --study STUDY [--images 80]

With `--again`, one neuron is asked for again and again. With `--study`, those hits of a mined study are projected that
lie in a sample of its images, in float32 and in bfloat16, which alternate. Both tell CPU time, which differs less than
other times on a busy machine.

Times are milliseconds per neuron, first for neurons of different images, then for neurons of one image, for which
captum takes as long. The last column is the largest difference of the values, which should be at the rounding of the
convolutions. captum is timed on a few neurons (`--peer-neurons`), since each call takes the same time.
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torchvision
from captum.attr import NeuronDeconvolution

from interpret import load, project
from interpret.analyses.projection.hit_projection import project_hits
from interpret.images.opening import open_images
from interpret.study.study import Study

LAYERS = {
    "conv1_1": "features.0", "conv1_2": "features.2", "conv2_1": "features.5", "conv2_2": "features.7",
    "conv3_1": "features.10", "conv3_2": "features.12", "conv3_3": "features.14", "conv4_1": "features.17",
    "conv4_2": "features.19", "conv4_3": "features.21", "conv5_1": "features.24", "conv5_2": "features.26",
    "conv5_3": "features.28",
}  # fmt: skip


def ask_again(calls: int = 20) -> None:
    """Print the time of the first call for a neuron of conv3_3, and that of later ones, before and after a change.

    Later calls alternate: the network is as it was, or its weights were written to, so that it is checked again.
    """
    module = torchvision.models.vgg16(weights=None).eval()
    took: dict[str, list[float]] = {"first": [], "changed": [], "same": []}
    for call in range(1 + 2 * calls):
        image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(call))
        kind = "first" if call == 0 else ("same", "changed")[call % 2]
        if kind == "changed":
            with torch.no_grad():
                module.features[0].weight.mul_(1)
        start = time.process_time()
        project(module, image, LAYERS["conv3_3"], call, (20, 20))
        took[kind].append(1e3 * (time.process_time() - start))
    first, changed, same = (float(np.median(took[kind])) for kind in ("first", "changed", "same"))
    print(
        f"one neuron of conv3_3: {first:.0f} ms of CPU time; later {same:.0f} ms, after a change of the weights "
        f"{changed:.0f} ms (medians)"
    )


def project_sample(path: Path, count: int, rounds: int = 3) -> None:
    """Print the CPU time for a hit of the sampled images, and how far signals in bfloat16 differ from those in float32.

    An image is taken with all its hits, since these share its forward pass.
    """
    study = Study.open(path)
    origin = study.info["made_from"]
    model = load(origin["model"], origin["weights"])
    images = open_images(origin["data"], model, crops=origin["crops"])
    mined = {name: study.mined(name) for name in study.mined_layers}
    items = np.unique(np.concatenate([layer.images[layer.images >= 0] for layer in mined.values()]))
    chosen = np.random.default_rng(0).choice(items, min(count, len(items)), replace=False)
    some = {
        name: replace(layer, images=np.where(np.isin(layer.images, chosen), layer.images, -1))
        for name, layer in mined.items()
    }
    hits = sum(int((layer.images >= 0).sum()) for layer in some.values())
    spent: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    signals: dict[torch.dtype, dict[tuple[str, int, int], torch.Tensor]] = {dtype: {} for dtype in spent}
    for _ in range(rounds):
        for dtype, took in spent.items():
            start = time.process_time()
            batches = list(project_hits(model, images, some, dtype=dtype))
            took.append(1e3 * (time.process_time() - start) / hits)
            for batch in batches:
                places = zip(batch.units.tolist(), batch.ranks.tolist(), strict=True)
                signals[dtype] |= {
                    (batch.layer, *place): one for place, one in zip(places, batch.projections, strict=True)
                }
    exact, rounded = signals.values()
    errors = [float((rounded[hit] - one).norm() / one.norm()) for hit, one in exact.items() if one.any()]
    low, middle, high = np.quantile(errors, (0.05, 0.5, 0.95))
    print(f"{model.name}, {hits:,} hits in {len(chosen)} of {len(items):,} images with hits, {rounds} rounds")
    for dtype, took in spent.items():
        print(f"{dtype!s:15} {min(took):.2f} ms of CPU time a hit, at most {max(took):.2f}")
    print(
        f"bfloat16 differs from float32 by {middle:.1%} of a signal's norm; 90 % of signals by {low:.1%} to {high:.1%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neurons", type=int, default=32)
    parser.add_argument("--peer-neurons", type=int, default=4)
    parser.add_argument("--again", action="store_true", help="time repeated calls for one neuron")
    parser.add_argument("--study", type=Path, help="a mined study, whose hits are projected")
    parser.add_argument("--images", type=int, default=80, help="of --study: number of images in the sample")
    arguments = parser.parse_args()
    if arguments.again:
        ask_again()
        return
    if arguments.study:
        project_sample(arguments.study, arguments.images)
        return
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
