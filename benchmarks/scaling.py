"""What mining 10⁶, 10⁸ and 10¹⁰ images costs on 1 to 1,024 ranks, from costs measured on this machine.

    python benchmarks/scaling.py [--network resnet50] [--images 64] [--files 50000] [--write]

Measured: images a second, memory, bytes of the state of hits and statistics, the time to merge two states, to send one
between two processes and to write one, and the time and memory of listing a folder. All else is arithmetic on these,
in `extrapolate`. `--write` writes docs/scaling.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from PIL import Image
from torch import Tensor

from interpret import mine
from interpret.analyses.mining.compute import merge_mined
from interpret.execution.execution import device_name
from interpret.execution.ranks import join_ranks, leave_ranks
from interpret.execution.resume import SAVE_EVERY, Unfinished
from interpret.images import kept_listing
from interpret.images.batches import batches
from interpret.images.opening import open_images
from interpret.network.model import as_model
from interpret.network.preprocess import Preprocess
from interpret.support.numbers import THIN, compact, count, duration, storage

DOCUMENT = Path(__file__).parents[1] / "docs" / "scaling.md"
IMAGES = (10**6, 10**8, 10**10)
RANKS = (1, 8, 64, 1024)
STATE_IMAGES = 400
"""More than are in the sample, whose maxima the state holds."""
GPU_SPEED = 2000.0
"""Images a second of a rank with a GPU: assumed, as nothing was measured on one."""
NETWORK_SPEED = 1e9
"""Bytes a second between two machines: assumed; within this machine they are measured."""


@dataclass
class Costs:
    """What was measured."""

    machine: str
    network: str
    units: int
    images_per_second: float
    """Of one rank that has all cores of this machine, with images in memory."""
    decoded_per_second: float
    """JPEGs of 224 × 224 pixels that one process reads."""
    memory: int
    """Bytes of one rank: the peak of the process that mines."""
    state: int
    """Bytes of hits and statistics of all units."""
    merge_seconds: float
    send_bytes_per_second: float
    save_seconds: float
    list_seconds_per_image: float
    list_bytes_per_image: float
    """Of memory, in each rank: label and source; the names are shared."""


@dataclass
class Run:
    """What a run would cost."""

    images: int
    ranks: int
    compute_seconds: float
    list_seconds: float
    merge_seconds: float
    rank_memory: float
    merged_bytes: float
    """Of all states that are sent for one checkpoint."""
    first_rank_memory: float

    @property
    def seconds(self) -> float:
        return self.compute_seconds + self.list_seconds + self.merge_seconds


def extrapolate(costs: Costs, images: int, ranks: int, images_per_second: float, bytes_per_second: float) -> Run:
    """Return the cost of a run: a rank a machine lists, all mine their share, and once a minute all states are merged.

    States are merged by neighbours, in log₂ of the number of ranks steps, of which each sends and merges one state.
    """
    compute = images / (ranks * images_per_second)
    checkpoints = max(1, math.ceil(compute / SAVE_EVERY))
    steps = math.ceil(math.log2(ranks))
    a_step = costs.merge_seconds + costs.state / bytes_per_second
    return Run(
        images,
        ranks,
        compute,
        images * costs.list_seconds_per_image,
        checkpoints * (steps * a_step + costs.save_seconds),
        costs.memory + images * costs.list_bytes_per_image + (costs.state if ranks > 1 else 0),
        (ranks - 1) * costs.state,
        costs.memory + images * costs.list_bytes_per_image + 2 * costs.state,
    )


# ---- measuring ------------------------------------------------------------------------------------------------------


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def processor_seconds(work: Callable[[], Any]) -> float:
    """Return the processor time that work takes, on all cores together, which others on the machine change little."""
    start = time.process_time()
    work()
    return time.process_time() - start


def network(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return torchvision.models.get_model(name, weights=None)


def state_of(name: str, folder: Path) -> dict[str, Tensor]:
    """Return the state of mining small images, as its size is that of large ones."""
    mine(network(name), torch.randn(STATE_IMAGES, 3, 32, 32), resume_from=folder / "state.safetensors")
    return load(folder / "state.safetensors")


def load(file: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(file)


def size_of(state: dict[str, Tensor]) -> int:
    return sum(value.nbytes for value in state.values())


def memory_of(name: str, images: int) -> int:
    """Return the peak memory of a process of its own that mines."""
    out = subprocess.run(
        [sys.executable, __file__, "--network", name, "--memory-of", str(images)], capture_output=True, check=True
    )
    return int(out.stdout.split()[-1]) * 1024


def exchange(folder: Path, rounds: int = 5) -> float:
    """Return the bytes a second that torchrun's processes send: two of this machine, each with half of the images."""
    state = folder / "exchanged.safetensors"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    own = [__file__, "--exchange", str(state), "--rounds", str(rounds)]
    out = subprocess.run([*torchrun, *own], capture_output=True, check=True)
    return float(out.stdout.split()[-1])


def exchange_here(file: Path, rounds: int) -> None:
    """Send a state to rank 0 some times; it prints the bytes a second."""
    ranks = join_ranks()
    state = load(file)
    took = []
    for _ in range(rounds + 1):
        ranks.all(True)  # both begin
        took.append(seconds(lambda: ranks.reduced(state, lambda first, second: second)))
    if ranks.first:
        print(size_of(state) * rounds / sum(took[1:]))
    leave_ranks()


def measure(name: str, images: int, files: int) -> Costs:
    """Measure all costs; takes some minutes."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        whole = state_of(name, folder)
        pictures, module = torch.randn(images, 3, 224, 224), network(name)
        speed = images * torch.get_num_threads() / processor_seconds(lambda: mine(module, pictures))
        state = size_of(whole)
        assert not len(whole["read/labels"])  # they were known: the state does not grow with the images
        # a second state of other images, as another rank has it
        other = whole | {name: whole[name] + STATE_IMAGES for name in ("read/done", "top/images", "top/sources")}
        merging = min(processor_seconds(lambda: merge_mined(whole, other)) for _ in range(3))
        unfinished = Unfinished(folder / "saved.safetensors", {})
        saving = min(seconds(lambda: unfinished.save(whole)) for _ in range(3))
        from safetensors.torch import save_file

        save_file(whole, folder / "exchanged.safetensors")
        sending = exchange(folder)
        listing, held = measure_listing(folder / "files", files)
        decoding = measure_decoding(folder / "pictures")
        return Costs(
            machine=f"{os.cpu_count()} cores, {device_name(torch.device('cpu'))}",
            network=name,
            units=len(whole["top/values"]),
            images_per_second=speed,
            decoded_per_second=decoding,
            memory=memory_of(name, images),
            state=state,
            merge_seconds=merging,
            send_bytes_per_second=sending,
            save_seconds=saving,
            list_seconds_per_image=listing,
            list_bytes_per_image=held,
        )


def measure_listing(folder: Path, files: int) -> tuple[float, float]:
    """Return the seconds and the bytes of memory for each file of a folder, in subfolders of 1,000."""
    for number in range(files):
        if number % 1000 == 0:
            (folder / f"{number // 1000:05d}").mkdir(parents=True)
        (folder / f"{number // 1000:05d}" / f"image_{number:012d}.jpg").touch()
    model = as_model(network("squeezenet1_1"))
    model.preprocess = Preprocess((224, 224))
    os.environ["XDG_CACHE_HOME"] = str(folder.with_name("cache"))
    kept_listing.KEPT_FROM, kept_listing.SETTLED = files, 0
    took = processor_seconds(lambda: open_images(folder, model))
    tracemalloc.start()
    images = open_images(folder, model)
    assert len(images.labels) == len(images.sources) == files
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return took / files, held / files


def measure_decoding(folder: Path, number: int = 200) -> float:
    """Return how many JPEGs of 224 × 224 pixels one process decodes a second."""
    folder.mkdir()
    for place in range(number):
        pixels = torch.randint(0, 256, (28, 28, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(place))
        Image.fromarray(pixels.numpy()).resize((224, 224)).save(folder / f"{place:03d}.jpg", quality=90)
    model = as_model(network("squeezenet1_1"))
    model.preprocess = Preprocess((224, 224))
    images = open_images(folder, model)
    return number / processor_seconds(lambda: [len(batch.items) for batch in batches(images, 32)])


# ---- writing --------------------------------------------------------------------------------------------------------


def table(titles: list[str], rows: list[list[str]]) -> str:
    lines = [titles, ["---:"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def power(number: int) -> str:
    return "10" + "".join("⁰¹²³⁴⁵⁶⁷⁸⁹"[int(digit)] for digit in str(round(math.log10(number))))


def runs_table(costs: Costs, speed: float, bytes_per_second: float) -> str:
    rows = []
    for images in IMAGES:
        for ranks in RANKS:
            run = extrapolate(costs, images, ranks, speed, bytes_per_second)
            shares = [f"{100 * part / run.seconds:.0f} %" for part in (run.list_seconds, run.merge_seconds)]
            sizes = [storage(size) for size in (run.rank_memory, run.first_rank_memory, run.merged_bytes)]
            hours = run.seconds / 3600
            taken = f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"
            rows.append([power(images), count(ranks), taken, *shares, *sizes])
    titles = ["images", "ranks", "hours", "of it listing", "merging and saving", "memory a rank", "memory of rank 0"]
    return table([*titles, "sent for a checkpoint"], rows)


def saturation(costs: Costs) -> list[str]:
    """Return from where on what takes more than it may, in the order of the number of images."""
    name_limit = 16e9 / costs.list_bytes_per_image
    most_ranks = max(1.0, 1 / (costs.list_seconds_per_image * GPU_SPEED))
    step = costs.merge_seconds + costs.state / NETWORK_SPEED
    most_steps = SAVE_EVERY / 10 / step
    decoders = GPU_SPEED / costs.decoded_per_second
    return [
        f"**Reading.** One process decodes {costs.decoded_per_second:,.0f} JPEGs of 224 × 224 pixels a second. A GPU "
        f"that mines {GPU_SPEED:,.0f} images a second needs {math.ceil(decoders)} such processes, more for larger "
        "pictures. This is the first limit, for any number of images.",
        f"**Labels and sources in memory.** Each rank holds {costs.list_bytes_per_image:.0f} bytes for each image of "
        f"the folder, beside the names, which the ranks of a machine share. From {compact(int(name_limit))} images on, "
        "that is more than 16 GB a rank, also for parts that `interpret merge` joins: use fewer ranks a machine.",
        f"**Listing.** One rank a machine lists the whole folder, the first time: from {most_ranks:,.0f} ranks with a "
        "GPU on, listing takes as long as mining. Later runs read the names that it has kept.",
        f"**Merging.** A step sends and merges {storage(costs.state)} in {duration(step)}. The tree of 1,024 ranks has "
        f"10 steps; {most_steps:.0f} would take a tenth of the minute between two checkpoints.",
    ]


def document(costs: Costs) -> str:
    """Return the page."""
    measured = [
        ["network", f"{costs.network}, random weights, {costs.units:,} units of convolutions and linear layers"],
        ["machine", costs.machine],
        ["mining, one rank", f"{costs.images_per_second:,.1f} images a second"],
        ["decoding JPEGs of 224 × 224 pixels, one process", f"{costs.decoded_per_second:,.0f} a second"],
        ["memory of a rank", storage(costs.memory)],
        ["state of hits and statistics", f"{storage(costs.state)}, {costs.state / costs.units:,.0f} bytes a unit"],
        ["the same, for each image read", "0 bytes, or 1 to 8 where labels come only when images are read"],
        ["merging two states", duration(costs.merge_seconds)],
        ["sending a state between two processes", f"{storage(costs.send_bytes_per_second)} a second"],
        ["saving a state", duration(costs.save_seconds)],
        ["listing a folder, by one rank a machine", f"{1 / costs.list_seconds_per_image:,.0f} files a second"],
        ["labels and sources", f"{costs.list_bytes_per_image:.0f} bytes a file, in every rank"],
    ]
    parts = [
        "# Scaling",
        "Written by `python benchmarks/scaling.py --write`, from costs measured on one machine. What mining costs on "
        "more images and ranks follows by arithmetic; no run of this size was made.",
        "## Measured",
        table(["cost", "measured"], measured).replace("---:", "---"),
        "The state holds 9 hits a unit, a histogram of 64 bins and the maxima of 256 images; with labels, also sums "
        "for each class and unit. The machine was busy with other work, too: times of computing are therefore "
        "processor times, that of mining divided by the cores. Sending and saving are as they were, and slower than on "
        "a machine of one's own.",
        "## Extrapolated: processors as here",
        f"{costs.images_per_second:,.1f} images a second a rank, and between ranks the speed that was measured within "
        "one machine. One rank a machine lists the folder; each minute, all states are merged on rank 0 and saved.",
        runs_table(costs, costs.images_per_second, costs.send_bytes_per_second),
        "## Extrapolated: a GPU a rank",
        f"**Assumed**, not measured: {GPU_SPEED:,.0f} images a second a rank, fed without waiting, and "
        f"{storage(NETWORK_SPEED)} a second between ranks.",
        runs_table(costs, GPU_SPEED, NETWORK_SPEED),
        "## What saturates first",
        "\n".join(f"{number}. {line}" for number, line in enumerate(saturation(costs), 1)),
    ]
    return "\n\n".join(parts).replace(THIN, " ") + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--images", type=int, default=64, help="images to mine, to measure speed and memory")
    parser.add_argument("--files", type=int, default=50_000, help="files to list")
    parser.add_argument("--costs", type=Path, help="write the costs to this JSON file, or read them from it")
    parser.add_argument("--write", type=Path, nargs="?", const=DOCUMENT, help="write docs/scaling.md")
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--exchange", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5, help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.exchange:
        exchange_here(settings.exchange, settings.rounds)
        return
    if settings.memory_of:
        # one image many times, which takes no memory
        mine(network(settings.network), torch.randn(1, 3, 224, 224).expand(settings.memory_of, -1, -1, -1))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return
    if settings.costs and settings.costs.exists():
        costs = Costs(**json.loads(settings.costs.read_text("utf-8")))
    else:
        costs = measure(settings.network, settings.images, settings.files)
        if settings.costs:
            settings.costs.write_text(json.dumps(asdict(costs), indent=1) + "\n", "utf-8")
    text = document(costs)
    print(text)
    if settings.write:
        settings.write.parent.mkdir(exist_ok=True)
        settings.write.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
