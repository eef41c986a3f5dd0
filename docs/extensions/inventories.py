"""Links to the reference of other libraries, from lists kept here: the build needs no network.

`docs/inventories/NAME.txt` holds the address of the reference in its first line, and in each other line a name, its
kind and its place.
"""

from __future__ import annotations

import zlib
from pathlib import Path

Inventories = dict[str, tuple[str, Path]]


def write_inventories(lists: Path, build: Path) -> Inventories:
    """Write each list as an inventory that intersphinx reads; return addresses and files by name."""
    found: Inventories = {}
    (build / "inventories").mkdir(parents=True, exist_ok=True)
    for path in sorted(lists.glob("*.txt")):
        url, *lines = path.read_text(encoding="utf-8").splitlines()
        file = build / "inventories" / f"{path.stem}.inv"
        head = f"# Sphinx inventory version 2\n# Project: {path.stem}\n# Version: \n# Compressed with zlib.\n"
        entries = [f"{name} py:{kind} 1 {place} -\n" for name, kind, place in map(str.split, lines)]
        file.write_bytes(head.encode() + zlib.compress("".join(entries).encode()))
        found[path.stem] = url, file
    return found
