"""Files of the tests: what a folder holds, and pictures to put into one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from interpret.study.timings import TIMINGS


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file in a folder by its path, without how long the parts of a study took."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != TIMINGS]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def noise(height: int = 20, width: int = 30, seed: int = 0) -> Image.Image:
    """Return a picture in which no two places look alike."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))
