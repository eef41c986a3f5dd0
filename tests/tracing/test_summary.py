"""The lecture's arithmetic for every layer, against what torch does and against counting by hand."""

from __future__ import annotations

import json
import math
import re
import warnings
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.ops import SqueezeExcitation

from helpers.commands import command
from interpret.loading.loading import load
from interpret.support.errors import InterpretError
from interpret.tracing.conv_arithmetic import size_formula
from interpret.tracing.summary import HEADINGS, summarise


def sizes_of(formula: str) -> list[int]:
    """What a formula's left side comes to, computed by Python; it must say the same on its right side."""
    found = []
    for side in formula.split("; "):
        left, _, right = side.rpartition(" = ")
        for ours, pythons in (
            ("−", "-"),
            ("·", "*"),
            ("⌊", "math.floor("),
            ("⌈", "math.ceil("),
            ("⌋", ")"),
            ("⌉", ")"),
        ):
            left = left.replace(ours, pythons)
        value = eval(left, {"math": math})
        assert value == int(right)
        found.append(int(value))
    return found


sides = st.integers(1, 5)


@settings(max_examples=150, deadline=None)
@given(
    kernel=st.tuples(sides, sides),
    stride=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    padding=st.one_of(st.sampled_from(["same", "valid"]), st.tuples(st.integers(0, 3), st.integers(0, 3))),
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    size=st.tuples(st.integers(15, 30), st.integers(15, 30)),
)
def test_the_formula_of_a_convolution_gives_the_size_that_torch_gives(
    kernel: Any, stride: Any, padding: Any, dilation: Any, size: Any
) -> None:
    if padding == "same":
        stride = (1, 1)
    layer = nn.Conv2d(2, 3, kernel, stride, padding, dilation, device="meta")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using padding='same'")  # an even kernel costs a copy
        output = layer(torch.zeros(1, 2, *size, device="meta"))[0].shape
    formula = size_formula(layer, (2, *size), output)
    assert formula is not None
    found = sizes_of(formula)
    assert [found[0], found[-1]] == list(output[1:])


@settings(max_examples=150, deadline=None)
@given(
    kernel=sides,
    stride=st.integers(1, 6),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    ceil=st.booleans(),
    height=st.integers(11, 25),
    width=st.integers(11, 25),
)
def test_the_formula_of_a_pool_gives_the_size_that_torch_gives(
    kernel: int, stride: int, padding: int, dilation: int, ceil: bool, height: int, width: int
) -> None:
    layer = nn.MaxPool2d(kernel, stride, min(padding, kernel // 2), dilation, ceil_mode=ceil)
    output = layer(torch.zeros(1, 2, height, width))[0].shape
    formula = size_formula(layer, (2, height, width), output)
    assert formula is not None
    found = sizes_of(formula)
    assert [found[0], found[-1]] == list(output[1:])


@settings(max_examples=60, deadline=None)
@given(
    kernel=sides, stride=st.integers(1, 3), padding=st.integers(0, 1), more=st.integers(0, 2),
    dilation=st.integers(1, 2), size=st.integers(4, 9),
)  # fmt: skip
def test_the_formula_of_a_transposed_convolution_gives_the_size_that_torch_gives(
    kernel: int, stride: int, padding: int, more: int, dilation: int, size: int
) -> None:
    more = min(more, max(stride, dilation) - 1)
    layer = nn.ConvTranspose2d(2, 3, kernel, stride, padding, more, dilation=dilation)
    output = layer(torch.zeros(1, 2, size, size))[0].shape
    formula = size_formula(layer, (2, size, size), output)
    assert formula is not None and sizes_of(formula) == [output[1]]


def test_a_window_that_would_start_in_the_padding_is_taken_off_again() -> None:
    layer = nn.MaxPool2d(2, 2, padding=1, ceil_mode=True)
    assert layer(torch.zeros(1, 1, 5, 5)).shape[-1] == 3 and layer(torch.zeros(1, 1, 3, 3)).shape[-1] == 2
    assert size_formula(layer, (1, 3, 3), (1, 2, 2)) == "⌈(3 − 2 + 2·1)/2⌉ + 1 − 1 = 2"
    assert size_formula(layer, (1, 5, 5), (1, 3, 3)) == "⌈(5 − 2 + 2·1)/2⌉ + 1 − 1 = 3"


def test_a_size_that_the_formula_does_not_explain_has_none() -> None:
    assert size_formula(nn.Conv2d(1, 1, 3), (1, 8, 8), (1, 7, 7)) is None
    assert size_formula(nn.Conv2d(1, 1, 3), None, (1, 6, 6)) is None
    assert size_formula(nn.ReLU(), (1, 6, 6), (1, 6, 6)) is None
    assert size_formula(nn.AdaptiveAvgPool2d(1), (8, 6, 6), (8, 1, 1)) == "set to 1 × 1"


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(2, 3, 3, padding=1, bias=True), (2, 5, 4)),
        (nn.Conv2d(4, 6, (3, 2), stride=2, groups=2, bias=False), (4, 7, 6)),
        (nn.ConvTranspose2d(2, 3, 3, stride=2), (2, 3, 4)),
    ],
)
def test_parameters_dense_parameters_and_macs_are_counted_by_hand(layer: Any, shape: tuple[int, int, int]) -> None:
    (row,) = json.loads(summarise(nn.Sequential(layer), shape, "json"))["layers"]
    images = torch.ones(1, *shape)
    output = layer(images)[0]
    assert row["params"] == sum(parameter.numel() for parameter in layer.parameters())
    dense = nn.Linear(images.numel(), output.numel(), bias=layer.bias is not None)
    assert row["dense_params"] == sum(parameter.numel() for parameter in dense.parameters())
    # each weight that is laid on the input is one product; what falls on the padding is laid there too
    height, width = (shape if isinstance(layer, nn.ConvTranspose2d) else output.shape)[1:]
    macs = 0
    for _, _ in product(range(height), range(width)):
        macs += layer.weight.numel()
    assert row["macs"] == macs
    assert row["output_shape"] == list(output.shape) and row["input_shape"] == list(shape)


def test_the_lectures_layer() -> None:
    layer = nn.Conv2d(1, 8, 5)
    content = json.loads(summarise(nn.Sequential(layer), (1, 28, 28), "json"))
    (row,) = content["layers"]
    assert layer.weight.shape == (8, 1, 5, 5) and layer.bias is not None and layer.bias.shape == (8,)
    assert row["output_shape"] == [8, 24, 24] and row["kernel_size"] == [5, 5]
    assert row["params"] == 8 * 1 * 5 * 5 + 8 == content["params"]
    assert row["dense_params"] == 28 * 28 * 8 * 24 * 24 + 8 * 24 * 24
    assert row["macs"] == 8 * 24 * 24 * 25 == content["macs"]
    assert row["size_formula"] == "(28 − 5 + 2·0)/1 + 1 = 24"
    assert row["receptive_field"] == [5, 5] and row["stride"] == [1, 1]


def cells(table: str) -> list[list[str]]:
    lines = [line for line in table.splitlines() if not re.fullmatch(r"\|( -+:? \|)+", line)]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]


def test_text_markdown_and_json_say_the_same() -> None:
    model = load("lenet")
    text, markdown = summarise(model), cells(summarise(model, format="markdown"))
    content = json.loads(summarise(model, format="json"))
    assert markdown[0] == list(HEADINGS)
    assert [row[0] for row in markdown[1:]] == [*(layer["name"] for layer in content["layers"]), "total"]
    for row, line in zip(markdown, text.splitlines(), strict=True):
        assert [cell for cell in row if cell] == re.split(r"  +", line.strip())
    for row, layer in zip(markdown[1:], content["layers"], strict=False):
        named = dict(zip(HEADINGS, row, strict=True))
        assert named["parameters"] == f"{layer['params']:,}" and named["MACs"] == f"{layer['macs']:,}"
        assert named["output"] == " × ".join(map(str, layer["output_shape"]))
        assert named["output size"] == (layer["size_formula"] or "")
    assert markdown[-1][HEADINGS.index("parameters")] == f"{content['params']:,}"


@pytest.mark.parametrize("name", ["torchvision:alexnet", "torchvision:googlenet", "torchvision:mobilenet_v2"])
def test_every_convolution_and_pool_of_a_real_network_has_its_formula(name: str) -> None:
    layers = json.loads(summarise(load(name, weights="random"), format="json"))["layers"]
    windows = [layer for layer in layers if layer["kernel_size"]]
    assert len(windows) > 5
    for layer in windows:
        found = sizes_of(layer["size_formula"])
        assert [found[0], found[-1]] == layer["output_shape"][1:]


def test_an_unknown_format_is_one_sentence() -> None:
    with pytest.raises(InterpretError, match="unknown format 'html': choose from text, markdown, json"):
        summarise(nn.Sequential(nn.Conv2d(1, 1, 1)), (1, 2, 2), "html")  # type: ignore[arg-type]


def test_the_command_writes_json_and_says_where_weights_come_from_beside_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command(monkeypatch, "summary", "nin", "--format", "json")  # no warning: they are errors in tests
    written = capsys.readouterr()
    assert json.loads(written.out)["params"] == 7_595_176
    assert written.err == "nin: random weights (seed 0): this network has learnt nothing\n"


@pytest.mark.parametrize("format", ["html", "txt"])
def test_the_command_refuses_another_format_in_one_sentence(
    format: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command(monkeypatch, "summary", "lenet", "--format", format, status=2)
    written = capsys.readouterr()
    assert written.out == "" and written.err.count("Error") == 1
    assert f"Error: Invalid value for '--format': unknown value '{format}'" in written.err


def test_behind_a_gate_the_local_field_stands_beside_the_receptive_field() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 5, 2), SqueezeExcitation(8, 2), nn.Conv2d(8, 4, 3)).eval()
    lines = summarise(network, (3, 32, 32)).split("\n")
    (before,) = [line for line in lines if line.startswith("0 ")]
    (behind,) = [line for line in lines if line.startswith("2 ")]
    assert "local" not in before and "whole image, local 9 × 9 2 × 2" in " ".join(behind.split())
    layers = {layer["name"]: layer for layer in json.loads(summarise(network, (3, 32, 32), "json"))["layers"]}
    assert layers["2"]["receptive_field"] is None
    assert layers["2"]["local_field"] == [9, 9] and layers["2"]["stride"] == [2, 2]
    assert layers["1.fc1"]["local_field"] is None and layers["1.fc1"]["stride"] is None
