"""Boxes on a grid of cells: what is encoded is decoded, and the rest is told apart by score and overlap."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interpret.network.grid_boxes import decode_boxes, encode_boxes

SIZE, CELLS, CLASSES = (48, 64), (6, 8), 3
"""Cells of 8 × 8 pixels."""


@st.composite
def boxes_in_cells(draw: st.DrawFn) -> tuple[list[list[float]], list[int]]:
    """Boxes whose middles lie in cells of their own, and their classes."""
    places = draw(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7)), max_size=6, unique=True))
    boxes = []
    for row, column in places:
        x, y = (8 * cell + draw(st.floats(0, 7.99)) for cell in (column, row))
        half_width, half_height = (draw(st.floats(0.01, 1)) * min(at, side - at) for at, side in ((x, 64), (y, 48)))
        boxes.append([x - half_width, y - half_height, x + half_width, y + half_height])
    return boxes, [draw(st.integers(0, CLASSES - 1)) for _ in places]


@settings(max_examples=25, derandomize=True, deadline=None)
@given(boxes_in_cells())
def test_what_is_encoded_is_decoded(drawn: tuple[list[list[float]], list[int]]) -> None:
    boxes, labels = (
        torch.tensor(drawn[0], dtype=torch.float64).reshape(-1, 4),
        torch.tensor(drawn[1], dtype=torch.int64),
    )
    grid = encode_boxes(boxes, labels, CLASSES, CELLS, SIZE, torch.float64)
    (found,) = decode_boxes(grid[None], CLASSES, SIZE, threshold=0.5, overlap=1)
    wanted = sorted(
        (int((top + bottom) / 2 // 8), int((left + right) / 2 // 8), [left, top, right, bottom], label)
        for (left, top, right, bottom), label in zip(boxes.tolist(), drawn[1], strict=True)
    )
    columns = (found[name].tolist() for name in ("units", "boxes", "labels"))
    got = sorted((*unit[1:], box, label) for unit, box, label in zip(*columns, strict=True))
    assert [(row, column, label) for row, column, _, label in got] == [(y, x, label) for y, x, _, label in wanted]
    for (*_, box, _), (*_, expected, _) in zip(got, wanted, strict=True):
        assert box == pytest.approx(expected, abs=1e-12)
    assert (found["scores"] == 1).all() and (found["units"][:, 0] == 4).all()


def test_of_two_boxes_in_one_cell_the_last_stays() -> None:
    boxes = torch.tensor([[0, 0, 8, 8], [2, 2, 6, 8]])
    grid = encode_boxes(boxes, torch.tensor([0, 1]), CLASSES, CELLS, SIZE, torch.float64)
    (found,) = decode_boxes(grid[None], CLASSES, SIZE)
    assert found["labels"].tolist() == [1] and found["boxes"].round().tolist() == [[2, 2, 6, 8]]


def test_the_surest_of_overlapping_boxes_of_one_class_stays() -> None:
    outputs = torch.zeros(2, 2 * 5 + CLASSES, *CELLS)
    side = 16 / 64, 16 / 48
    # the first box of one cell, and the second of the next: 8 pixels apart, so they share a third of their union
    outputs[:, :5, 2, 3] = torch.tensor([0.5, 0.5, side[0] ** 0.5, side[1] ** 0.5, 0.8])
    outputs[:, 5:10, 2, 4] = torch.tensor([0.5, 0.5, side[0] ** 0.5, side[1] ** 0.5, 0.9])
    outputs[:, 10, 2, 3:5] = 1
    outputs[1, 10:, 2, 3] = torch.tensor([0.0, 0.5, 0.2])
    one, two = decode_boxes(outputs, CLASSES, SIZE, threshold=0.25, overlap=0.3)
    assert one["units"].tolist() == [[9, 2, 4]] and one["scores"].tolist() == pytest.approx([0.9])
    assert one["boxes"].tolist() == [pytest.approx([28, 12, 44, 28])]
    assert two["units"].tolist() == [[9, 2, 4], [4, 2, 3]] and two["labels"].tolist() == [0, 1]
    assert two["scores"].tolist() == pytest.approx([0.9, 0.4])  # 0.8 · 0.2 is below the threshold
    assert [len(found["boxes"]) for found in decode_boxes(outputs, CLASSES, SIZE, 0.25, 0.34)] == [2, 2]


def test_boxes_end_where_the_image_does_and_there_may_be_none() -> None:
    outputs = torch.zeros(1, 5 + CLASSES, *CELLS)
    outputs[0, :6, 0, 0] = torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    assert decode_boxes(outputs, CLASSES, SIZE)[0]["boxes"].tolist() == [[0, 0, 32, 24]]
    (none,) = decode_boxes(outputs, CLASSES, SIZE, threshold=1)
    assert none["boxes"].shape == (0, 4) and none["units"].shape == (0, 3) and len(none["labels"]) == 0
