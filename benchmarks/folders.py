"""Time to the first batch and memory of a folder of many files, beside torchvision's ImageFolder.

    python benchmarks/folders.py [--files 1000000 10000000] [--markdown docs/folders.md]

The files are hard links to a few small JPEGs, in 1,000 folders, in a temporary folder that is removed at the end. Each
row is a process of its own, which opens the folder, reads a batch of 32 in the main process, and asks for what a study
keeps of the data. The files' names are in the system's cache: on a disk or share, listing takes longer.
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
from itertools import zip_longest
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent.parent
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
    # what this process has written, which it shares with no other
    with open("/proc/self/smaps_rollup") as file:
        return 1024 * sum(int(line.split()[1]) for line in file if line.startswith(("Private_Dirty", "Swap:")))

def start():
    global began, before, peak
    before, peak = resident(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()

def done(what):
    found[what] = time.process_time() - began
    if what == "opened":
        found["peak"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * 1024
        found["held"] = resident() - before
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


def measure(code: str, folder: Path, cache: Path) -> dict[str, float]:
    """Run a program on a folder, with what it keeps between runs in `cache`."""
    program = MEASURE + code + "\nprint(json.dumps(found))"
    finished = subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        capture_output=True,
        text=True,
        check=True,
        cwd=HERE,
        env=os.environ | {"PYTHONPATH": str(HERE), "XDG_CACHE_HOME": str(cache)},
    )
    return json.loads(finished.stdout.splitlines()[-1])


def table_of(files: int, ready: Path | None) -> str:
    """Make a folder of so many files, unless it is ready, and return a table of what each row takes for it."""
    rows = {
        "torchvision's ImageFolder": (TORCHVISION, "torchvision"),
        "interpret, the first time": (OURS, "ours"),
        "interpret, later, or as another rank": (OURS, "ours"),
    }
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        if ready is None:
            began = time.perf_counter()
            make(folder, files)
            print(f"made {files:,} links in {time.perf_counter() - began:.0f} s", file=sys.stderr)
        data = (ready or folder) / "data"
        measure(OURS, data, folder / "unused")  # brings the names into the system's cache
        found = {name: measure(code, data, folder / cache) for name, (code, cache) in rows.items()}
    table = [
        "| listing | folder opened | first batch | fingerprint | memory of its own, per file "
        "| most while opening, per file |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in found.items():
        seconds = [f"{row[what]:.1f} s" if what in row else "" for what in ("opened", "first batch", "fingerprint")]
        each = [f"{row[what] / files:.0f} bytes" for what in ("held", "peak")]
        table.append(f"| {name} | {' | '.join([*seconds, *each])} |")
    return f"## {files:,} files\n\n" + "\n".join(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--ready", type=Path, nargs="*", default=[], help="folders of the first of these, made before")
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    text = "\n\n".join(table_of(*one) for one in zip_longest(options.files, options.ready))
    print(text)
    if options.markdown:
        options.markdown.parent.mkdir(exist_ok=True)
        options.markdown.write_text(
            "# A folder of many files\n\n"
            f"Names of 29 letters, in 1,000 folders, on {os.cpu_count()} shared cores, "
            f"{platform.python_implementation()} {platform.python_version()}, all names in the system's cache. Seconds "
            "are of processor time, and count from the call; the first batch is of 32 images. Memory is that of "
            "names, labels and sources. Workers share it. Written by `benchmarks/folders.py`.\n\n"
            "Which images belong to the samples that statistics rest on depends on how many there are: so the whole "
            "folder is listed before the first batch, but once alone. The names of 100,000 files and more are kept in "
            "`listings` in the folder `interpret-cnn` of the system's caches (`~/.cache`, or `XDG_CACHE_HOME`), and "
            "used again while no folder has changed, which their time stamps show. Of the ranks on one machine, one "
            "lists, and the others wait for it and share the memory of the names. Names are not kept where there are "
            "links among the files.\n\n" + text + "\n"
        )


if __name__ == "__main__":
    main()
