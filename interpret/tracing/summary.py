"""A table of a network's layers: sizes with their formulas, parameters, operations and receptive fields."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from torch import nn

from interpret.network.model import Model, as_model
from interpret.support.errors import unknown
from interpret.support.numbers import product
from interpret.tracing.conv_arithmetic import is_convolution, size_formula
from interpret.tracing.tracing import GLOBAL_FROM, Layer, Trace, global_from, trace

Format = Literal["text", "markdown", "json"]

HEADINGS = (
    "layer", "kind", "input", "kernel", "output", "parameters", "if dense", "MACs", "receptive field", "stride",
    "output size", GLOBAL_FROM,
)  # fmt: skip
RIGHT = {"parameters", "if dense", "MACs", "receptive field", "stride"}
"""The columns of numbers."""


@dataclass(frozen=True)
class LayerSummary:
    """The sizes, parameters, operations and fields of one layer."""

    name: str
    kind: str
    input_shape: tuple[int, ...] | None
    """Without the batch; None if the layer does not take a tensor."""
    kernel_size: tuple[int, ...] | None
    """(height, width), one number per axis of the input, of the window of a convolution or pool."""
    output_shape: tuple[int, ...]
    """Without the batch."""
    size_formula: str | None
    """How the output's size follows from the input's, with the numbers filled in."""
    params: int
    dense_params: int | None
    """Parameters of a fully connected layer with the same input and output shapes; None unless a convolution."""
    macs: int
    """Multiply-accumulates for one image."""
    receptive_field: tuple[int, ...] | None
    """(height, width) in pixels of the input; None if a neuron may see the whole image."""
    local_field: tuple[int, ...] | None
    """(height, width) of the window that its signal reaches in the backward pass, gates constant; None: whole image."""
    exact: bool
    """Whether the fields are what neurons see; otherwise they are bounds: a neuron sees no more."""
    global_from: str | None
    """From what on neurons may see the whole image: an operation and its layer; None if the field is a window."""
    local_global_from: str | None
    """The same of the local field."""
    stride: tuple[float, ...] | None
    """Pixels of the input from one neuron to the next, (y, x); None if neither field is a window."""


def summarise(model: Model | nn.Module, input_shape: Sequence[int] | None = None, format: Format = "text") -> str:
    """Summarise a network in a table: one row per layer, in the order in which they run, and the totals.

    >>> network = nn.Sequential(nn.Conv2d(1, 8, 5), nn.ReLU(), nn.MaxPool2d(2))
    >>> print(summarise(network, (1, 28, 28)))
    layer  kind  input  kernel  output  parameters  if dense  MACs  receptive field stride output size
    0  Conv2d  1 × 28 × 28  5 × 5  8 × 24 × 24  208  3,617,280  115,200  5 × 5  1 × 1  (28 − 5 + 2·0)/1 + 1 = 24
    1      ReLU       8 × 24 × 24          8 × 24 × 24    0                    0        5 × 5  1 × 1
    2  MaxPool2d  8 × 24 × 24  2 × 2  8 × 12 × 12  0  0  6 × 6  2 × 2  (24 − 2 + 2·0)/2 + 1 = 12
    total                                               208                    115,200
    >>> json.loads(summarise(network, (1, 28, 28), "json"))["layers"][0]["dense_params"]
    3617280

    The columns:

    - **input**, **output**: sizes, as channels × height × width.
    - **parameters**: the layer's own; **if dense**: those of a fully connected layer with the same input and output.
    - **MACs**: multiply-accumulates for one image.
    - **receptive field**, **stride**: in pixels of the input; "whole image" if a neuron may see all of it. If it does
      so only through gates, as in squeeze-and-excitation, the local field is given too: the window that the signal
      reaches in the backward pass with the gates held constant. "≤" marks a bound: a neuron sees no more than that.
    - **whole image from**: the operation, and its layer, from which on neurons see the whole image; no column where
      none do.

    Args:
        model: the network.
        input_shape: (channels, height, width) of one image; None: the model's input shape.
        format: "text", "markdown" or "json"; JSON has the fields of `LayerSummary`.

    Returns:
        the table as text, Markdown or JSON.

    Raises:
        InterpretError: an unknown format; an input shape that is missing or does not fit.
    """
    if format not in get_args(Format):
        raise unknown("format", format, get_args(Format))
    model = as_model(model)
    layers = trace(model, input_shape)
    summaries = [
        summarise_layer(model.module.get_submodule(layer.name), layer) for layer in layers.values() if layer.leaf
    ]
    if format == "json":
        return _as_json(model, layers, summaries)
    total = {"layer": "total", "parameters": f"{layers.params:,}", "MACs": f"{layers.macs:,}"}
    whole = "whole image" if len(layers.input_shape) == 3 else "whole input"
    rows = [_row(summary, whole) for summary in summaries]
    rows.append(tuple(total.get(heading, "") for heading in HEADINGS))
    headings = HEADINGS if any(row[-1] for row in rows) else HEADINGS[:-1]
    table = (_as_markdown if format == "markdown" else _as_text)(headings, [row[: len(headings)] for row in rows])
    return table + (f"\n\nNot counted in MACs: {', '.join(layers.uncounted)}" if layers.uncounted else "")


def summarise_layer(module: nn.Module, layer: Layer) -> LayerSummary:
    """Return the summary of one layer, from the module and its trace.

    >>> network = nn.Sequential(nn.Conv2d(1, 8, 5))
    >>> summary = summarise_layer(network[0], trace(network, (1, 28, 28))["0"])
    >>> summary.params, summary.dense_params  # 28·28 inputs to each of 8·24·24 outputs, and as many biases
    (208, 3617280)
    """
    convolution = is_convolution(module)
    dense = None
    if convolution and layer.input_shape is not None:
        outputs = math.prod(layer.output_shape)
        dense = math.prod(layer.input_shape) * outputs + (outputs if module.bias is not None else 0)
    window: Any = getattr(module, "kernel_size", None)
    field, local = layer.receptive_field, layer.local_field
    return LayerSummary(
        name=layer.name,
        kind=layer.kind,
        input_shape=layer.input_shape,
        kernel_size=(window,) * (len(layer.output_shape) - 1) if isinstance(window, int) else window,
        output_shape=layer.output_shape,
        size_formula=size_formula(module, layer.input_shape, layer.output_shape),
        params=layer.params,
        dense_params=dense,
        macs=layer.macs,
        receptive_field=None if field is None else field.size,
        local_field=None if local is None else local.size,
        exact=all(one is None or one.exact for one in (field, local)),
        global_from=layer.global_from,
        local_global_from=layer.local_global_from,
        stride=None if local is None else local.stride,
    )


def _row(summary: LayerSummary, whole: str) -> tuple[str, ...]:
    return (
        summary.name,
        summary.kind,
        _times(summary.input_shape),
        _times(summary.kernel_size),
        _times(summary.output_shape),
        f"{summary.params:,}",
        "" if summary.dense_params is None else f"{summary.dense_params:,}",
        f"{summary.macs:,}",
        _fields(summary, whole),
        _times(summary.stride),
        summary.size_formula or "",
        global_from(summary),
    )


def _fields(summary: LayerSummary, whole: str) -> str:
    most = "" if summary.exact else "≤ "
    full = whole if summary.receptive_field is None else most + _times(summary.receptive_field)
    if summary.local_field == summary.receptive_field:
        return full
    return f"{full}, local {most}{_times(summary.local_field)}"


def _as_text(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        cells = [
            cell.rjust(width) if heading in RIGHT else cell.ljust(width)
            for heading, cell, width in zip(headings, row, widths, strict=True)
        ]
        return "  ".join(cells).rstrip()

    return "\n".join(map(line, (headings, *rows)))


def _as_markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---:" if heading in RIGHT else "---" for heading in headings]
    return "\n".join(f"| {' | '.join(row)} |" for row in (headings, rule, *rows))


def _as_json(model: Model, layers: Trace, summaries: Sequence[LayerSummary]) -> str:
    content = {
        "model": model.name,
        "input_shape": layers.input_shape,
        "params": layers.params,
        "macs": layers.macs,
        "uncounted": layers.uncounted,
        "layers": [asdict(summary) for summary in summaries],
    }
    return json.dumps(content, ensure_ascii=False, indent=2)


def _times(sizes: Sequence[float] | None) -> str:
    return "" if sizes is None else product(sizes)
