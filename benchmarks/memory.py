"""Peak memory of mining 1,000 and 10,000 images of 224 × 224 pixels, each in a separate process.

python benchmarks/memory.py
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys

import torch
import torchvision
from torch import Tensor

from interpret import mine


class GeneratedImages(torch.utils.data.Dataset[Tensor]):
    """Random images, generated on access so that they take no memory."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, item: int) -> Tensor:
        return torch.randn(3, 224, 224, generator=torch.Generator().manual_seed(item))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    measured = parser.parse_args().measure
    if measured:
        torch.manual_seed(0)
        mine(torchvision.models.squeezenet1_1(weights=None), GeneratedImages(measured))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    peaks = {}
    for count in (1000, 10000):
        peaks[count] = float(
            subprocess.run([sys.executable, __file__, "--measure", str(count)], capture_output=True, check=True).stdout
        )
        print(f"{count:6} images: peak {peaks[count]:7.0f} MiB", flush=True)
    print(f"ratio {peaks[10000] / peaks[1000]:.3f}")


if __name__ == "__main__":
    main()
