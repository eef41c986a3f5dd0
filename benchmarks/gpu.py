"""Mining and projecting on a GPU: beside a bare forward pass, beside captum, and in memory.

    python benchmarks/gpu.py [--markdown] [--networks resnet50 vgg16] [--dtypes float32] [--images 32768]

Random weights and synthetic pictures, so that nothing is downloaded. Bare passes and mining alternate, over the same
batches on the device, all convolutions and linear layers; the time of mining includes bringing hits and statistics to
the host at its end, which a run does once a minute, and each time ends when the device is done. "mine()" is the whole
call, from images in the host's memory. Projections are of neurons of different images, in the layers named; captum's
NeuronDeconvolution is called once for each neuron, in PyTorch's default precision (TF32 on recent cards) and in
float32, in which projections here are always computed. captum's rule covers `nn.ReLU` alone: for ConvNeXt (GELU) it
returns the plain gradient.

`--markdown` writes the table into docs/benchmarks.md, with the name of the card. Without a CUDA device the script says
so and ends; `--device cpu` runs it all the same, to try it.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torchvision
from captum.attr import NeuronDeconvolution
from torch import Tensor, nn

from interpret import mine, project
from interpret.analyses.mining.batch_maxima import batch_maxima
from interpret.analyses.mining.compute import prepared_to_mine
from interpret.analyses.mining.miner import Miner
from interpret.execution.execution import device_name, full_precision
from interpret.images.batches import Batch
from interpret.images.opening import open_images
from interpret.network.model import as_model

LAYERS = {
    "resnet50": ("layer2.3.conv2", "layer4.2.conv2"),
    "vgg16": ("features.14", "features.28"),
    "convnext_tiny": ("features.3.2.block.0", "features.7.2.block.0"),
}
"""A layer in the middle and one near the end."""
HELD = 8
"""Batches that lie on the device; mining goes through them again and again."""
MINING_TITLES = [
    "network",
    "type",
    "batch",
    "bare pass, images/s",
    "mining, images/s",
    "mining / bare (aim 1.10)",
    "`mine()`, images/s",
    "memory bare / mining, GB",
]
PROJECTING_TITLES = [
    "network",
    "layer",
    "projections/s",
    "captum, projections/s",
    "ratio (aim 20)",
    "captum in float32, projections/s",
    "ratio",
]
TYPES = {"float32": None, "bfloat16": torch.bfloat16}
DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- gpu:begin -->", "<!-- gpu:end -->"


def synthetic(count: int, side: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    """Return how long work takes, until the device has done it."""
    wait(device)
    start = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - start


@contextmanager
def peak_memory(device: torch.device, found: list[int]) -> Iterator[None]:
    """Append the largest number of bytes that tensors took on a GPU; nothing elsewhere."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    yield
    if device.type == "cuda":
        found.append(torch.cuda.max_memory_allocated(device))


def mining(module: nn.Module, dtype: str, device: torch.device, settings: argparse.Namespace) -> list[str]:
    """Return type, batch size, images a second of bare pass and mining, their ratio, those of mine(), and memory."""
    computed_in = TYPES[dtype]
    pictures = synthetic(2, settings.side)
    memory: dict[str, list[int]] = {"bare": [], "mined": []}
    times: dict[str, list[float]] = {"bare": [], "mined": []}
    first = Miner(as_model(module), open_images(pictures, module))
    with prepared_to_mine(first, device, computed_in) as run:
        size = run.batch_size(settings.batch_size)
        held = [run.place(synthetic(size, settings.side, seed)) for seed in range(HELD)]
        rounds = max(1, settings.images // size)
        # only the number of the images is asked for; of a million, few are in the sample that is looked at more closely
        images = open_images(torch.zeros(1, 1).expand(max(10**6, rounds * size), 3, 1, 1), module)

        def bare(turns: int = rounds) -> None:
            with torch.inference_mode(), run.autocast(computed_in), peak_memory(device, memory["bare"]):
                for turn in range(turns):
                    module(held[turn % HELD])

        def mined(turns: int = rounds) -> None:
            miner = Miner(as_model(module), images)
            miner.layers = first.layers
            labels = torch.full((size,), -1)
            with peak_memory(device, memory["mined"]):
                for turn in range(turns):
                    items = torch.arange(turn * size, (turn + 1) * size)
                    batch = Batch(held[turn % HELD], items, labels)
                    found = batch_maxima(module, batch, run, miner.layers, miner.density_items, computed_in)
                    miner.update(found)
                miner.state_dict()

        for work in (bare, mined):  # warm up
            work(2)
        for taking in memory.values():
            taking.clear()
        for turn in range(settings.rounds):
            for name, work in (("bare", bare), ("mined", mined))[:: 1 if turn % 2 else -1]:
                times[name].append(seconds(work, device))
    done = rounds * size
    speeds = {name: done * settings.rounds / sum(took) for name, took in times.items()}
    ratio = statistics.median(mined / bare for bare, mined in zip(times["bare"], times["mined"], strict=True))
    pictures = synthetic(min(rounds, 16) * size, settings.side)
    whole = seconds(lambda: mine(module, pictures, batch_size=size, device=device, dtype=computed_in), device)
    taken = " / ".join(f"{max(found) / 1e9:.1f}" if found else "–" for found in memory.values())
    return [
        dtype,
        str(size),
        f"{speeds['bare']:,.0f}",
        f"{speeds['mined']:,.0f}",
        f"{ratio:.2f}",
        f"{len(pictures) / whole:,.0f}",
        taken,
    ]


def projecting(module: nn.Module, layer: str, device: torch.device, settings: argparse.Namespace) -> list[str]:
    """Return projections a second, captum's, and how many times as fast this is; the latter two in float32 again."""
    count, peers = settings.neurons, settings.peer_neurons
    module.to(device)
    images = synthetic(count, settings.side).to(device)
    kept: list[torch.Size] = []
    hook = module.get_submodule(layer).register_forward_hook(lambda _layer, _inputs, output: kept.append(output.shape))
    with torch.no_grad():
        module(images[:1])
    hook.remove()
    channels = torch.randint(kept[0][1], (count,))
    positions = torch.stack([torch.randint(side, (count,)) for side in kept[0][2:]], 1)

    def ours() -> None:
        project(module, images, layer, channels, positions, start="one")

    peer = NeuronDeconvolution(module, module.get_submodule(layer))

    def theirs() -> None:
        for one in range(peers):
            peer.attribute(images[one : one + 1], (int(channels[one]), *positions[one].tolist()))

    def theirs_in_float32() -> None:
        with full_precision(device):
            theirs()

    def a_second(work: Callable[[], None], done: int) -> float:
        work()  # warm up
        return done / statistics.median(seconds(work, device) for _ in range(settings.rounds))

    fast, slow, exact = a_second(ours, count), a_second(theirs, peers), a_second(theirs_in_float32, peers)
    return [f"`{layer}`", f"{fast:,.0f}", f"{slow:,.0f}", f"{fast / slow:.1f}", f"{exact:,.0f}", f"{fast / exact:.1f}"]


def table(titles: list[str], rows: list[list[str]]) -> str:
    lines = [titles, ["---", "---", *["---:"] * (len(titles) - 2)], *rows]  # the first two columns are words
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_between_marks(text: str, document: Path = DOCUMENT) -> None:
    """Write a table between the marks of a document."""
    content = document.read_text("utf-8")
    before, _, rest = content.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"{document} has no marks {BEGIN} and {END}")
    document.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", help="default: the first CUDA device")
    parser.add_argument("--networks", nargs="+", default=list(LAYERS), choices=list(LAYERS))
    parser.add_argument("--images", type=int, default=32768, help="images of each round of mining")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batch-size", type=int, help="default: what fits the memory")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--neurons", type=int, default=1024)
    parser.add_argument("--peer-neurons", type=int, default=32)
    parser.add_argument("--dtypes", nargs="+", default=list(TYPES), choices=list(TYPES), help="of mining")
    parser.add_argument("--markdown", type=Path, nargs="?", const=DOCUMENT, help="write the table there")
    settings = parser.parse_args()
    if settings.device is None and not torch.cuda.is_available():
        print("There is no CUDA device here, so nothing was measured; --device cpu tries the script on the processor.")
        return
    device = torch.device(settings.device or "cuda")
    warnings.simplefilter("ignore")  # captum warns on every call that it sets hooks
    torch.manual_seed(0)
    mined, projected = [], []
    for name in settings.networks:
        module = torchvision.models.get_model(name, weights=None).eval().to(device)
        for dtype in settings.dtypes:
            mined.append([name, *mining(module, dtype, device, settings)])
            print(*mined[-1], flush=True)
        for layer in LAYERS[name]:
            projected.append([name, *projecting(module, layer, device, settings)])
            print(*projected[-1], flush=True)
        del module
    said = "\n\n".join(
        [
            f"Measured on {device_name(device)} with torch {torch.__version__}, "
            f"{settings.side} × {settings.side} pixels, by `python benchmarks/gpu.py`:",
            table(MINING_TITLES, mined),
            table(PROJECTING_TITLES, projected),
        ]
    )
    print(f"\n{said}")
    if settings.markdown:
        write_between_marks(said, settings.markdown)


if __name__ == "__main__":
    main()
