"""Occlusion compared with captum at its best batch size: a 32-pixel square with stride 16, and the same values.

python benchmarks/occlusion.py
python benchmarks/occlusion.py vgg16 resnet18 --batches 8 32
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import captum.attr
import numpy as np
import torch
import torchvision

from interpret import occlude
from interpret.analyses.occlusion.windowed_forward import Windowed

NETWORKS = ["vgg16", "resnet18", "squeezenet1_1", "mobilenet_v2", "densenet121", "efficientnet_b0"]


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def changed_fraction(network: torch.nn.Module, image: torch.Tensor) -> float:
    """Return the fraction of all convolutions' activations that an occluder in the middle of the image changes."""
    changed = whole = 0

    def hook(_layer: Any, _inputs: Any, output: torch.Tensor) -> None:
        nonlocal changed, whole
        whole += output[0].numel()
        changed += output.patch[0].numel() if isinstance(output, Windowed) else output[0].numel()

    handles = [part.register_forward_hook(hook) for part in network.modules() if isinstance(part, torch.nn.Conv2d)]
    with torch.no_grad():
        network(Windowed.of(image, torch.zeros(1, 3, 32, 32), [(96, 96)]))
    for handle in handles:
        handle.remove()
    return changed / whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32], help="captum's batch sizes to try")
    arguments = parser.parse_args()
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    print(f"{'network':16} {'changed':>8} {'captum':>9} {'batch':>9} {'interpret':>9} {'ratio':>6} {'difference':>11}")
    for name in arguments.networks:
        torch.manual_seed(0)
        network = getattr(torchvision.models, name)(weights=None).eval()

        def probabilities(x: torch.Tensor, network: Any = network) -> torch.Tensor:
            return network(x).softmax(1)

        captum_times = {}
        with torch.no_grad():
            for batch in arguments.batches:
                captum_times[batch], expected = timed(
                    lambda batch=batch, run=probabilities: captum.attr.Occlusion(run).attribute(
                        image, (3, 32, 32), (3, 16, 16), target=7, baselines=0.0, perturbations_per_eval=batch
                    )
                )
        best = min(captum_times, key=lambda batch: captum_times[batch])
        occlude(network, image, [7], 32, 112, feature_map=False)  # warm up
        seconds, found = timed(lambda network=network: occlude(network, image, [7], 32, 16, feature_map=False))
        difference = float(np.abs(found.attributions() - expected[:, 0].numpy()).max())
        print(
            f"{name:16} {changed_fraction(network, image):8.0%} {captum_times[best]:7.2f} s {best:9} "
            f"{seconds:7.2f} s {captum_times[best] / seconds:5.1f}× {difference:11.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
