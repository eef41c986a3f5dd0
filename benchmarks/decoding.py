"""The share of time for which the network waits for images, by the size of the JPEG files.

    python benchmarks/decoding.py [--images 64] [--markdown docs/decoding.md]

JPEGs of 0.1, 1 and 12 megapixels are made of noise and smooth shades, as large as a camera's at quality 90, and read
as 224 × 224 pixels: in the main process and by worker processes, whole and at a reduced scale. Each batch runs through
ResNet-18 and through a network that takes no time, so that the reading alone is timed, too. The rows of one size
alternate in one run.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.models import resnet18

from interpret.images.batches import batches
from interpret.images.opening import open_images
from interpret.network.model import Model
from interpret.network.preprocess import Preprocess

SIZES = {"0.1": (274, 365), "1": (866, 1155), "12": (3000, 4000)}
BATCH = 8
DISTINCT = 4
PREPROCESS = Preprocess((224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), resize=256)


def make(folder: Path, size: tuple[int, int], count: int) -> None:
    """Write JPEGs in which shades, edges and grain take about as many bytes as in photographs."""
    rng = np.random.default_rng(0)
    height, width = size
    y, x = np.mgrid[:height, :width] / max(size)
    for number in range(min(count, DISTINCT)):
        waves = [np.sin(a * x + b * y) for a, b in rng.uniform(-60, 60, (3, 2))]
        pixels = 127.5 + 90 * np.stack(waves, -1) + rng.normal(0, 6, (height, width, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.jpg", quality=90)
    for number in range(DISTINCT, count):
        os.link(folder / f"{number % DISTINCT}.jpg", folder / f"{number}.jpg")


def run(network: nn.Module | None, folder: Path, workers: int, reduced: bool) -> tuple[float, float]:
    """Return this process's processor seconds a picture, and the share of the time that is waiting for pictures."""
    model = Model(network or nn.Conv2d(3, 1, 1), "network", preprocess=PREPROCESS)
    arriving = iter(batches(open_images(folder, model, reduced=reduced), BATCH, workers=workers))

    def compute() -> int:
        batch = next(arriving, None)
        nonlocal waited
        waited += time.perf_counter() - asked
        if batch is not None and network is not None:
            with torch.inference_mode():
                network(batch.images)
        return 0 if batch is None else len(batch.items)

    waited, asked = 0.0, time.perf_counter()
    compute()  # workers start but once
    waited, count, began, computed = 0.0, 0, time.perf_counter(), time.process_time()
    while True:
        asked = time.perf_counter()
        if not (read := compute()):
            break
        count += read
    return (time.process_time() - computed) / count, waited / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    network = resnet18().eval().to(memory_format=torch.channels_last)
    lines = [
        "| megapixels | KB a file | decoded | images read a second of one core | waiting, no workers | 2 workers |",
        "|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as temporary:
        for name, size in SIZES.items():
            folder = Path(temporary, name)
            folder.mkdir()
            make(folder, size, options.images)
            kilobytes = sum(file.stat().st_size for file in folder.iterdir()) / options.images / 1000
            for reduced in (False, True):
                alone = 1 / run(None, folder, 0, reduced)[0]
                shares = [run(network, folder, workers, reduced)[1] for workers in (0, 2)]
                how = "reduced" if reduced else "whole"
                lines.append(f"| {name} | {kilobytes:,.0f} | {how} | {alone:.0f} | {shares[0]:.0%} | {shares[1]:.0%} |")
                print(lines[-1], flush=True)
    text = "\n".join(lines)
    if options.markdown:
        options.markdown.parent.mkdir(exist_ok=True)
        options.markdown.write_text(
            "# The share of time for which the network waits for images\n\n"
            f"JPEGs read as 224 × 224 pixels (short side 256), in batches of {BATCH}, for ResNet-18 on "
            f"{os.cpu_count()} shared cores, {platform.python_implementation()} {platform.python_version()}, torch "
            f"{torch.__version__}; {options.images} images a row, the first batch not counted. Workers take their time "
            'from the network where there is no GPU, so that waiting becomes computing that is slower. "Reduced" is '
            "`--reduced`. Written by `benchmarks/decoding.py`.\n\n" + text + "\n"
        )


if __name__ == "__main__":
    main()
