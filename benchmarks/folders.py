"""Time to the first batch and memory of a folder of many files, beside torchvision's ImageFolder.

    python benchmarks/folders.py [--files 1000000] [--before FOLDER] [--markdown docs/folders.md]

The files are hard links to a few small JPEGs, in 1,000 folders, in a temporary folder that is removed at the end. Each
row is a process of its own, which opens the folder, reads a batch of 32 in the main process, and asks for what a study
keeps of the data. `--before` names a checkout of an earlier version, for a row of its own. The files' names are in the
system's cache: on a disk or share, listing takes longer.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

LINKS = 50_000
"""Hard links to one file; ext4 allows 65,000."""

OURS = """
from torch import nn
from interpret import Model, Preprocess, open_images
from interpret.images.batches import batches
model = Model(nn.Conv2d(3, 1, 1), "tiny", preprocess=Preprocess((224, 224)))
start()
images = open_images(FOLDER, model)
done("opened")
next(batches(images, 32))
done("first batch")
images.fingerprint
done("fingerprint")
"""
TORCHVISION = """
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder
start()
steps = [transforms.Resize(224), transforms.CenterCrop(224), transforms.ToTensor()]
images = ImageFolder(FOLDER, transforms.Compose(steps))
done("opened")
next(iter(DataLoader(images, 32)))
done("first batch")
"""
MEASURE = """
import json, os, resource, sys, time
FOLDER = sys.argv[1]
found = {}

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

def start():
    global began, before, peak
    before, peak = resident(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()

def done(what):
    found[what] = time.process_time() - began
    if what == "opened":
        found["held"] = resident() - before
        found["peak"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * 1024
"""


def make(folder: Path, count: int) -> None:
    """Fill a folder with hard links to pictures."""
    rng = np.random.default_rng(0)
    sources = []
    for number in range(-(-count // LINKS)):
        sources.append(folder / f"source{number}.jpg")
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(sources[-1])
    data = folder / "data"
    for number in range(1000):
        (data / f"n{number:08d}").mkdir(parents=True)
    for number in range(count):
        os.link(sources[number // LINKS], data / f"n{number % 1000:08d}/n{number % 1000:08d}_{number // 1000}.JPEG")


def measure(code: str, folder: Path, path: Path) -> dict[str, float]:
    program = MEASURE + code + "\nprint(json.dumps(found))"
    finished = subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        capture_output=True,
        text=True,
        check=True,
        cwd=path,
        env=os.environ | {"PYTHONPATH": str(path)},
    )
    return json.loads(finished.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    here = Path(__file__).resolve().parent.parent
    rows = {"torchvision's ImageFolder": (TORCHVISION, here), "interpret": (OURS, here)}
    if options.before:
        rows = {"interpret 0.1": (OURS, options.before.resolve()), **rows}
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        make(Path(folder), options.files)
        print(f"made {options.files:,} links in {time.perf_counter() - began:.0f} s", file=sys.stderr)
        measure(OURS, Path(folder, "data"), here)  # fill the cache
        found = {name: measure(code, Path(folder, "data"), path) for name, (code, path) in rows.items()}
    table = [
        "| | folder opened | first batch | fingerprint | memory held, per file | most while listing, per file |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in found.items():
        seconds = [f"{row[what]:.1f} s" if what in row else "" for what in ("opened", "first batch", "fingerprint")]
        each = [f"{row[what] / options.files:.0f} bytes" for what in ("held", "peak")]
        table.append(f"| {name} | {' | '.join([*seconds, *each])} |")
    text = "\n".join(table)
    print(text)
    if options.markdown:
        options.markdown.parent.mkdir(exist_ok=True)
        options.markdown.write_text(
            "# A folder of many files\n\n"
            f"{options.files:,} files with names of 29 letters, in 1,000 folders, on {os.cpu_count()} shared cores, "
            f"{platform.python_implementation()} {platform.python_version()}, all names in the system's cache. Seconds "
            "are of processor time, and count from the call; the first batch is of 32 images. Memory is that of "
            "names, labels and sources. Workers share it. Written by `benchmarks/folders.py`.\n\n" + text + "\n"
        )


if __name__ == "__main__":
    main()
