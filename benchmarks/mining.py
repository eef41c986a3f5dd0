"""The time of mining relative to a bare forward pass and to zennit-crp's feature visualisation.

    python benchmarks/mining.py [--images 2048] [--batch-sizes 8 32] [--peer]

The same module runs the same batches from memory, in inference mode and channels-last. Bare pass and mining alternate
batch by batch, so that changes in the machine's speed affect both. Mining the first images takes longer, because most
of them enter the top-k: "later" is the ratio for the second half. "mine()" is the time of the whole call, which runs
batches in parallel, relative to a loop of bare passes. 8 is the default batch size of `mine` for these images.
`--peer` needs `pip install zennit-crp`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from interpret.analyses.mining.batch_maxima import batch_maxima
from interpret.analyses.mining.compute import mine, prepared_to_mine
from interpret.analyses.mining.miner import Miner
from interpret.execution.execution import prepared
from interpret.images.batches import Batch
from interpret.images.opening import open_images
from interpret.network.model import as_model


def bare_and_mined(module: nn.Module, images: Tensor, size: int) -> tuple[list[float], list[float]]:
    """Return the seconds of each batch's bare forward pass, and of mining all convolutional layers."""
    convolutions = [name for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d)]
    miner = Miner(as_model(module), open_images(images, module), convolutions, k=9)
    labels = torch.full((size,), -1)
    bare, mined = [], []
    with prepared_to_mine(miner) as run:
        for turn, start in enumerate(range(0, len(images) - size + 1, size)):
            batch = run.place(images[start : start + size])
            items = torch.arange(start, start + size)
            if turn == 0:  # warm up
                with torch.inference_mode():
                    module(batch)

            def run_bare(batch: Tensor = batch) -> None:
                with torch.inference_mode():
                    module(batch)

            def run_mined(batch: Tensor = batch, items: Tensor = items) -> None:
                found = batch_maxima(module, Batch(batch, items, labels), run, miner.layers, miner.density_items)
                miner.update(found)

            first, second = (run_bare, run_mined) if turn % 2 else (run_mined, run_bare)
            times = {first: seconds(first), second: seconds(second)}
            bare.append(times[run_bare])
            mined.append(times[run_mined])
    return bare, mined


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def whole_call(module: nn.Module, images: Tensor, size: int, rounds: int = 2) -> float:
    """Return the time of `mine` relative to a loop of bare forward passes."""
    convolutions = [name for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d)]

    def loop() -> None:
        with prepared(as_model(module), images) as run, torch.inference_mode():
            for batch in images.split(size):
                module(run.place(batch))

    bare = mined = 0.0
    for _ in range(rounds):
        bare += seconds(loop)
        mined += seconds(lambda: mine(module, images, convolutions, batch_size=size))
    return mined / bare


def peer(module: nn.Module, images: Tensor, size: int) -> float:
    """Return the seconds that zennit-crp takes for the same layers, in its own pass, which needs gradients."""
    from crp.attribution import CondAttribution
    from crp.concepts import ChannelConcept
    from crp.visualization import FeatureVisualization
    from zennit.composites import EpsilonPlusFlat

    layers = {name: ChannelConcept() for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d)}

    class WithLabels(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, item: int) -> tuple[Tensor, int]:
            return images[item], 0

    with tempfile.TemporaryDirectory() as folder:
        visualisation = FeatureVisualization(CondAttribution(module), WithLabels(), layers, path=folder)
        return seconds(lambda: visualisation.run(EpsilonPlusFlat(), 0, len(images), size, 100))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--peer", action="store_true", help="also time zennit-crp, on 64 images")
    arguments = parser.parse_args()
    images = torch.randn(arguments.images, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    titles = (
        f"{'network':16} {'batch':>5} {'bare img/s':>10} {'mined img/s':>11} {'ratio':>6} {'later':>6} {'mine()':>6}"
    )
    print(titles + (f" {'zennit-crp img/s':>16}" if arguments.peer else ""))
    for name in ("resnet18", "squeezenet1_1"):
        torch.manual_seed(0)
        module = torchvision.models.get_model(name, weights=None).eval()
        for size in arguments.batch_sizes:
            bare, mined = bare_and_mined(module, images, size)
            count, half = len(bare) * size, len(bare) // 2
            peer_speed = ""
            if arguments.peer and name == "resnet18":
                peer_speed = f" {64 / peer(module, images[:64], size):16.1f}"
            speeds = f"{count / sum(bare):10.1f} {count / sum(mined):11.1f}"
            ratios = f"{sum(mined) / sum(bare):6.3f} {sum(mined[half:]) / sum(bare[half:]):6.3f}"
            ratios += f" {whole_call(module, images, size):6.3f}"
            print(f"{name:16} {size:5} {speeds} {ratios}{peer_speed}", flush=True)


if __name__ == "__main__":
    main()
