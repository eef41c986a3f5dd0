"""A network's layers as a table to read."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from interpret.model import Model, as_model
from interpret.tracing import Layer, trace

HEADINGS = ("layer", "kind", "output", "parameters", "MACs", "receptive field", "stride")


def summarise(model: Model | nn.Module, input_shape: Sequence[int] | None = None) -> str:
    """Return a table of a network's layers, in the order in which they run, with the totals.

    >>> network = nn.Sequential(nn.Conv2d(1, 8, 5), nn.ReLU(), nn.MaxPool2d(2))
    >>> print(summarise(network, (1, 28, 28)))
    layer  kind       output       parameters     MACs  receptive field  stride
    0      Conv2d     8 × 24 × 24         208  115,200            5 × 5   1 × 1
    1      ReLU       8 × 24 × 24           0        0            5 × 5   1 × 1
    2      MaxPool2d  8 × 12 × 12           0        0            6 × 6   2 × 2
    total                                 208  115,200

    Sizes are channels × height × width; MACs are multiply-accumulates for one image; a receptive field in pixels of
    the input, and "whole image" where a neuron may see all of it.
    """
    layers = trace(as_model(model), input_shape)
    rows = [_row(layer) for layer in layers.values() if layer.leaf]
    rows.append(("total", "", "", f"{layers.params:,}", f"{layers.macs:,}", "", ""))
    widths = [max(map(len, column)) for column in zip(HEADINGS, *rows, strict=True)]
    return "\n".join(_line(row, widths) for row in (HEADINGS, *rows))


def _row(layer: Layer) -> tuple[str, ...]:
    field = layer.receptive_field
    return (
        layer.name,
        layer.kind,
        _times(layer.output_shape),
        f"{layer.params:,}",
        f"{layer.macs:,}",
        "whole image" if field is None else _times(field.size),
        "" if field is None else _times(field.stride),
    )


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        cell.ljust(width) if place < 3 else cell.rjust(width)
        for place, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def _times(sizes: Sequence[int]) -> str:
    return " × ".join(map(str, sizes))
