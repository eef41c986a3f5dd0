"""Examples from a unit's whole range: what it sees of images on which it is strong, and of those on which it is not."""

from __future__ import annotations

from dataclasses import dataclass

from interpret.gallery.drawings import short
from interpret.gallery.layer_page import LayerPage
from interpret.gallery.network_page import NetworkPage
from interpret.gallery.sources import Source

GROUP_TITLES = ("strongest quarter", "second quarter", "third quarter", "last quarter", "weakest")
"""The titles of the groups in which a study keeps its examples."""


@dataclass(frozen=True)
class Example:
    """An image of the sample, and the part of it that a unit sees."""

    item: int
    source: Source
    value: float
    size: tuple[int, int]
    """Width and height of its picture."""
    view: list[float]
    """The part of the picture that the unit sees: left, top, width and height in its pixels; empty for all of it."""


@dataclass(frozen=True)
class Group:
    """Some of the examples from one part of a unit's range."""

    title: str
    examples: list[Example]


def range_groups(network: NetworkPage, layer: LayerPage, unit: int) -> list[Group]:
    """Return a unit's examples from its whole range, group by group; none where the study has none."""
    found = layer.range_examples
    if found is None:
        return []
    inset = 0.0 if layer.unit_pixels else 0.5  # a smoothed edge would mix with what lies beside it
    groups = []
    rows = (found[key][unit].tolist() for key in ("items", "values", "boxes"))
    for title, items, values, boxes in zip(GROUP_TITLES, *rows, strict=True):
        examples = []
        for item, value, (top, left, bottom, right) in zip(items, values, boxes, strict=True):
            sample = network.samples.get(item)
            if sample is None or sample.picture is None:
                continue
            width, height = sample.picture.width, sample.picture.height
            across = max((right - left) * width - 2 * inset, 1)
            down = max((bottom - top) * height - 2 * inset, 1)
            view = [short(left * width + inset), short(top * height + inset), short(across), short(down)]
            if not layer.shows_range_patches or (top, left, bottom, right) == (0, 0, 1, 1):
                view = []
            examples.append(Example(item, sample.source, value, (width, height), view))
        if examples:
            groups.append(Group(title, examples))
    return groups
