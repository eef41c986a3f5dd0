"""The invariance probe compared with a loop over single images and values with torchvision's `affine`.

    python benchmarks/invariance.py [--images 8] [--values 61] [--networks lenet …] [--memory]

Both measure, for every convolution and each of its units, the distance of the features to those of the untransformed
image and, for translations, to these shifted accordingly (the equivariance error), and the probability of a label.
Both fill with black, so that their numbers are comparable: "differ" is the largest difference of a relative distance
or a probability. The loop's forward passes may use all cores for each operation. The loop is also timed with the
network in channels-last layout, as in the probe ("…c.-last"), and for the layers' distances and the probability alone
("…layers"). The rounds alternate, so that changes in the machine's speed affect all.

"pass" is the bare forward pass in the probe's batches, in channels-last layout. Every input needs a forward pass, so
the loop's time relative to "pass" is an upper bound for the speed-up ("bound").

`--memory` prints the peak memory of a process that probes `--images` images, and of one that probes ten times as many.
"""

from __future__ import annotations

import argparse
import math
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torchvision.transforms import functional as TF

import interpret

RANGES = {"translation": (-60 / 224, 60 / 224), "scale": (1, 1.8), "rotation": (0, 354)}
"""First and last value of each transform; translations as fractions of the side."""
SHIPPED = ("lenet", "emoji_alexnet")
"""Shipped models, for 28 × 28 and 64 × 64 pixels."""
NETWORKS = (*SHIPPED, "squeezenet1_1", "alexnet", "resnet18", "vgg11")
"""The shipped models, and torchvision's with random weights."""
SHIPPED_FACTOR = 10
"""The shipped models, whose forward passes are fast, get this many times as many images."""


def affine(image: Tensor, transform: str, value: float) -> Tensor:
    arguments: dict[str, Any] = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    if transform == "translation":
        arguments["translate"] = [0, round(value)]
    elif transform == "scale":
        arguments["scale"] = value
    else:
        arguments["angle"] = -value  # torchvision turns clockwise
    return TF.affine(image, **arguments, interpolation=TF.InterpolationMode.BILINEAR)


def loop(
    module: nn.Module,
    strides: dict[str, int],
    images: Tensor,
    transform: str,
    values: Any,
    layers_alone: bool = False,
) -> dict[str, Any]:
    """Return relative distances [B, V] of each layer and [C, V] of its units, their equivariance errors for
    translations, and the probabilities of class 0."""
    found: dict[str, Any] = defaultdict(partial(np.zeros, (len(images), len(values))))
    sums: dict[str, Any] = {}  # layer: [2, C, V], distances and norms of its units, summed over the images

    def features(image: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        kept: dict[str, Tensor] = {}
        hooks = [
            module.get_submodule(name).register_forward_hook(
                lambda _module, _inputs, output, name=name: kept.__setitem__(name, output.clone())
            )
            for name in strides
        ]
        outputs = module(image)
        for hook in hooks:
            hook.remove()
        return kept, outputs

    def record(name: str, b: int, v: int, distances: Tensor, norms: Tensor) -> None:
        found[name][b, v] = distances.norm() / norms.norm()
        if name not in sums:
            sums[name] = np.zeros((2, len(norms), len(values)))
        sums[name][0, :, v] += distances.numpy()
        sums[name][1, :, v] += norms.numpy()

    with torch.inference_mode():
        for b, image in enumerate(images[:, None]):
            before, _ = features(image)
            norms = {name: unit_norms(output) for name, output in before.items()}
            for v, value in enumerate(values):
                after, outputs = features(affine(image, transform, float(value)))
                found["probability"][b, v] = float(outputs.softmax(1)[0, 0])
                for name, stride in strides.items():
                    if layers_alone:
                        found[name][b, v] = (after[name] - before[name]).norm() / norms[name].norm()
                        continue
                    record(name, b, v, unit_norms(after[name] - before[name]), norms[name])
                    if transform == "translation":
                        shifted, rows = shift_down(before[name], float(value) / stride)
                        distances = unit_norms(after[name][:, :, rows] - shifted)
                        record(f"{name} moved", b, v, distances, unit_norms(shifted))
    return {**found, **{f"units of {name}": distances / norms for name, (distances, norms) in sums.items()}}


def unit_norms(maps: Tensor) -> Tensor:
    """Return the norms [C] of maps [1, C, H, W]."""
    return torch.linalg.vector_norm(maps[0], dim=(1, 2))


def shift_down(maps: Tensor, steps: float) -> tuple[Tensor, slice]:
    """Shift maps down by linear interpolation; return the rows that stay inside, and where they lie."""
    whole = math.floor(steps)
    height = maps.shape[2]
    if fraction := steps - whole:
        maps = torch.lerp(maps[:, :, 1:], maps[:, :, :-1], fraction)
    first = whole + height - maps.shape[2]  # interpolation loses one row
    low, high = max(0, first), min(height, whole + height)
    return maps[:, :, low - first : high - first], slice(low, high)


def probed(module: nn.Module, strides: dict[str, int], images: Tensor, transform: str, values: Any) -> dict[str, Any]:
    curves = interpret.probe(module, images, transform, values, list(strides), [0] * len(images), fill="black")
    assert curves.probabilities is not None
    found = {**curves.relative, "probability": curves.probabilities}
    found |= {f"{name} moved": errors for name, errors in curves.equivariance.items()}
    found |= {f"units of {name}": distances for name, distances in curves.unit_distances.items()}
    return found | {f"units of {name} moved": errors for name, errors in curves.unit_equivariance.items()}


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def smooth_images(count: int, channels: int = 3, side: int = 224) -> Tensor:
    """Return smooth random images, with mostly low frequencies, as photographs have."""
    noise = torch.randn(count, channels, 15, 15, generator=torch.Generator().manual_seed(0))
    return nn.functional.interpolate(noise, (side, side), mode="bicubic")


def bare_pass(module: nn.Module, images: Tensor, inputs: int) -> None:
    """Run the network on `inputs` images, in batches of as many pixels as 8 images of 224 × 224."""
    size = 8 * 224 * 224 // images[0, 0].numel()
    batch = images.repeat(-(-size // len(images)), 1, 1, 1)[:size].contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        for start in range(0, inputs, size):
            module(batch[: inputs - start])


def compare(networks: Iterable[str], images_of_each: int, count: int) -> None:
    threads = torch.get_num_threads()
    print(f"{images_of_each} images, {count} values, {threads} threads; milliseconds per input")
    names = ("loop", "…c.-last", "…layers", "probe", "pass", "ratio", "…c.-last", "…layers", "bound", "differ")
    print(f"{'network':14} {'transform':12} " + " ".join(f"{name:>8}" for name in names))
    for network in networks:
        torch.manual_seed(0)
        if network in SHIPPED:
            model = interpret.load(network)
            assert model.preprocess is not None
            channels, side = len(model.preprocess.channels), model.preprocess.size[0]
            module, images = model.module.eval(), smooth_images(SHIPPED_FACTOR * images_of_each, channels, side)
        else:
            module = torchvision.models.get_model(network, weights=None).eval()
            images = smooth_images(images_of_each)
        strides = {
            name: layer.receptive_field.stride[0]
            for name, layer in interpret.trace(module, tuple(images.shape[1:])).items()
            if layer.kind == "Conv2d" and layer.receptive_field is not None
        }
        probed(module, strides, images[:1], "rotation", [0, 90])  # warm up
        loop(module, strides, images[:1], "rotation", [0, 90])
        for transform, ends in RANGES.items():
            values = np.linspace(*ends, count)
            values = (values * images.shape[-1]).round() if transform == "translation" else values
            spent = dict.fromkeys(("loop", "last", "layers", "probe", "pass"), 0.0)
            differ = 0.0
            for half in images.split(-(-len(images) // 2)):
                settings = (module, strides, half, transform, values)
                took, ours = seconds(partial(probed, *settings))
                spent["probe"] += took
                took, theirs = seconds(partial(loop, *settings))
                spent["loop"] += took
                spent["layers"] += seconds(partial(loop, *settings, layers_alone=True))[0]
                module.to(memory_format=torch.channels_last)
                spent["last"] += seconds(partial(loop, *settings))[0]
                spent["pass"] += seconds(partial(bare_pass, module, half, len(half) * count))[0]
                module.to(memory_format=torch.contiguous_format)
                assert set(ours) == set(theirs)
                differ = max(differ, *(float(np.nanmax(np.abs(ours[name] - theirs[name]))) for name in theirs))
            each = {name: 1000 * total / len(images) / count for name, total in spent.items()}
            ratios = [each[name] / each["probe"] for name in ("loop", "last", "layers")]
            numbers = [*each.values(), *ratios, each["loop"] / each["pass"]]
            print(
                f"{network:14} {transform:12} " + " ".join(f"{n:8.2f}" for n in numbers) + f" {differ:8.0e}",
                flush=True,
            )


def peak_memory(count: int, values: int) -> float:
    """Return the peak memory in MB of a process that probes `count` images."""
    command = [sys.executable, __file__, "--measure", str(count), "--values", str(values)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure(count: int, values: int) -> None:
    torch.manual_seed(0)
    module = torchvision.models.squeezenet1_1(weights=None)

    class Generated(torch.utils.data.Dataset):  # type: ignore[type-arg]
        """Images that are made as they are read, so that they do not count."""

        def __len__(self) -> int:
            return count

        def __getitem__(self, item: int) -> Tensor:
            return torch.randn(3, 224, 224, generator=torch.Generator().manual_seed(item))

    interpret.probe(module, Generated(), "translation", np.linspace(-60, 60, values))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--values", type=int, default=61)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument(
        "--memory", action="store_true", help="print the peak memory for --images and for ten times as many"
    )
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure, arguments.values)
    elif arguments.memory:
        few, many = (peak_memory(count, arguments.values) for count in (arguments.images, 10 * arguments.images))
        print(f"SqueezeNet, all convolutions, {arguments.values} values; peak memory of the process:")
        print(
            f"{few:.0f} MB for {arguments.images} images, {many:.0f} MB for ten times as many: {many / few:.2f} times"
        )
    else:
        compare(arguments.networks, arguments.images, arguments.values)


if __name__ == "__main__":
    main()
