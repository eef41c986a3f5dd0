"""Links to the reference of other libraries, from lists kept here: the build needs no network.

`docs/inventories/NAME.txt` holds the address of the reference in its first line, and then a name, its kind and its page
in each: what version 1 of Sphinx's inventories says, without its first lines.
"""

from __future__ import annotations

from pathlib import Path

Inventories = dict[str, tuple[str, Path]]


def write_inventories(lists: Path, build: Path) -> Inventories:
    """Write each list as an inventory that intersphinx reads; return addresses and files by name."""
    found: Inventories = {}
    (build / "inventories").mkdir(parents=True, exist_ok=True)
    for path in sorted(lists.glob("*.txt")):
        url, *lines = path.read_text(encoding="utf-8").splitlines()
        file = build / "inventories" / f"{path.stem}.inv"
        head = ["# Sphinx inventory version 1", f"# Project: {path.stem}", "# Version: "]
        file.write_text("\n".join([*head, *lines, ""]), encoding="utf-8")
        found[path.stem] = url, file
    return found
