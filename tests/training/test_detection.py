"""Training a detector: its loss, its moved boxes and its average precision, each against a literal one."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from interpret.images import datasets
from interpret.images.datasets import Dataset
from interpret.loading.loading import load
from interpret.loading.recipes import AugmentTable
from interpret.network.grid_boxes import decode_boxes, encode_boxes
from interpret.network.preprocess import Preprocess
from interpret.support.errors import InterpretError
from interpret.training.augmentation import augmentation, move_boxes
from interpret.training.average_precision import average_precisions
from interpret.training.losses import yolo_loss
from interpret.training.reproducibility import seeded
from interpret.training.tasks import LEAST_SCORE
from interpret.training.training import train

Box = tuple[float, float, float, float]


def shared(first: Box, second: Box) -> float:
    """Intersection over union."""
    width = max(0.0, min(first[2], second[2]) - max(first[0], second[0]))
    height = max(0.0, min(first[3], second[3]) - max(first[1], second[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return width * height / (sum(areas) - width * height)


def literal_loss(outputs: Tensor, targets: Tensor, boxes: int) -> float:
    """Equation 3 of the paper, term by term; a box's x and y are parts of its cell, its size parts of the image."""
    images, classes = len(outputs), targets.shape[1] - 5
    rows, columns = outputs.shape[2:]

    def corners(x: float, y: float, root_width: float, root_height: float, row: int, column: int) -> Box:
        x, y, width, height = (column + x) / columns, (row + y) / rows, root_width**2, root_height**2
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2

    total = 0.0
    for image in range(images):
        for row in range(rows):
            for column in range(columns):
                cell, wanted = outputs[image, :, row, column].tolist(), targets[image, :, row, column].tolist()
                predicted = [cell[5 * j : 5 * j + 5] for j in range(boxes)]
                if not wanted[4]:
                    total += sum(0.5 * box[4] ** 2 for box in predicted)
                    continue
                true = corners(*wanted[:4], row, column)
                overlaps = [shared(corners(*box[:4], row, column), true) for box in predicted]
                best = overlaps.index(max(overlaps))
                for j, box in enumerate(predicted):
                    if j != best:
                        total += 0.5 * box[4] ** 2
                        continue
                    total += 5 * ((box[0] - wanted[0]) ** 2 + (box[1] - wanted[1]) ** 2)
                    total += 5 * ((box[2] - wanted[2]) ** 2 + (box[3] - wanted[3]) ** 2)
                    total += (box[4] - overlaps[j]) ** 2
                total += sum((cell[5 * boxes + k] - wanted[5 + k]) ** 2 for k in range(classes))
    return total / images


@pytest.mark.parametrize("boxes", [1, 2, 3])
def test_the_loss_is_equation_3(boxes: int) -> None:
    random = torch.Generator().manual_seed(boxes)
    true = torch.tensor([[2.0, 3, 20, 30], [30, 1, 47, 22], [12, 26, 44, 46]])
    targets = torch.stack(
        [
            encode_boxes(true[some], torch.tensor(labels, dtype=torch.int64), 4, (3, 4), (48, 48), torch.float64)
            for some, labels in (([0, 1, 2], [3, 0, 1]), ([2], [2]), ([], []))
        ]
    )
    outputs = torch.rand(3, 5 * boxes + 4, 3, 4, generator=random, dtype=torch.float64).requires_grad_()
    loss = yolo_loss(outputs, targets)
    assert loss.item() == pytest.approx(literal_loss(outputs, targets, boxes), rel=1e-12)
    # the overlap that the confidence should have is a number, not a way to move the box
    (gradient,) = torch.autograd.grad(loss, outputs)
    step = 1e-6 * gradient
    places = torch.ones(5 * boxes + 4, dtype=torch.bool)
    places[[unit for unit in range(5 * boxes) if unit % 5 < 4]] = False  # confidences and classes
    moved = (outputs + step * places[:, None, None]).detach()
    change = literal_loss(moved, targets, boxes) - loss.item()
    assert change == pytest.approx(1e-6 * gradient[:, places].square().sum().item(), rel=1e-4)


def literal_precision(found: list[dict[str, Tensor]], true: list[dict[str, Tensor]], label: int) -> Fraction:
    """The area under the curve of the highest precision at each recall or beyond, point by point."""
    ranked = [
        (score, image, tuple(box))
        for image, one in enumerate(found)
        for box, score, kind in zip(one["boxes"].tolist(), one["scores"].tolist(), one["labels"].tolist(), strict=True)
        if kind == label
    ]
    ranked.sort(key=lambda one: -one[0])
    objects = [
        (image, tuple(box))
        for image, one in enumerate(true)
        for box, kind in zip(one["boxes"].tolist(), one["labels"].tolist(), strict=True)
        if kind == label
    ]
    points = []
    for count in range(1, len(ranked) + 1):
        taken: set[int] = set()
        for _, image, box in ranked[:count]:
            free = [
                (shared(box, other), -number)
                for number, (where, other) in enumerate(objects)
                if where == image and number not in taken and shared(box, other) >= 0.5
            ]
            if free:
                taken.add(-max(free)[1])
        points.append((Fraction(len(taken), len(objects)), Fraction(len(taken), count)))
    area, before = Fraction(0), Fraction(0)
    for recall in sorted({recall for recall, _ in points}):
        area += (recall - before) * max(precision for other, precision in points if other >= recall)
        before = recall
    return area


def test_average_precision_is_the_area_under_the_literal_curve() -> None:
    random = np.random.RandomState(5)
    seen = set()
    for _ in range(12):
        true, found = [], []
        for _image in range(4):
            corner = random.randint(0, 12, (random.randint(0, 5), 2))
            boxes = np.concatenate([corner, corner + random.randint(4, 9, corner.shape)], 1)
            true.append(
                {"boxes": torch.from_numpy(boxes), "labels": torch.from_numpy(random.randint(0, 2, len(boxes)))}
            )
            elsewhere = np.array([[0, 0, 9, 9], [3, 2, 12, 11]])
            near = np.concatenate([boxes, boxes[:2], elsewhere])
            near = near + random.uniform(-1, 1, near.shape)
            found.append(
                {
                    "boxes": torch.from_numpy(near),
                    "scores": torch.from_numpy(random.permutation(1000)[: len(near)] / 1000),
                    "labels": torch.from_numpy(random.randint(0, 2, len(near))),
                }
            )
        for label, value in enumerate(average_precisions(found, true, 3)):
            if any((one["labels"] == label).any() for one in true):
                assert value == pytest.approx(float(literal_precision(found, true, label)), abs=1e-12)
                seen.add(round(value, 3))
            else:
                assert math.isnan(value)
    assert len(seen) > 15 and min(seen) < 0.1 and max(seen) > 0.4


def test_average_precision_without_detections_is_zero() -> None:
    none = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64)}
    true = {"boxes": torch.tensor([[0, 0, 4, 4]]), "labels": torch.tensor([0])}
    assert average_precisions([none], [true], 1) == (0.0,)


def test_boxes_move_with_their_image() -> None:
    table = AugmentTable(translate=9, scale=0.2, flip=True)
    move = augmentation(table, Preprocess((40, 40), channels="L", mean=(1.0,)))  # uncovered pixels are -1
    kept, mirrored = 0, set()
    with seeded(3, 0, torch.device("cpu")):
        for _ in range(60):
            image = torch.zeros(1, 40, 40)
            image[:, 4:14, 24:38] = 1
            image[:, 4:14, 24:29] = 2  # the left part
            moved, boxes, labels = move_boxes(move, image, torch.tensor([[24, 4, 38, 14]]), torch.tensor([7]))
            rows, columns = (moved[0] > 0.5).any(1).nonzero().flatten(), (moved[0] > 0.5).any(0).nonzero().flatten()
            if not len(boxes):
                assert len(labels) == 0 and min(len(rows), len(columns)) <= 4
                continue
            seen = torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
            assert (boxes[0] - seen).abs().max() <= 1 and labels.tolist() == [7]
            assert boxes.min() >= 0 and boxes.max() <= 40
            bright = (moved[0] > 1.5).any(0).nonzero().flatten().float()
            if len(bright):
                mirrored.add(bool(bright.mean() > columns.float().mean()))
            kept += 1
    assert kept > 50 and mirrored == {False, True}


NETWORK = """from torch import nn

def build():
    return nn.Sequential(
        nn.Conv2d(1, 8, 4, stride=4), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 12, 3, padding=1),
    )
"""

RECIPE = """
[model]
classes = ["dark", "bright"]

[input]
size = [16, 16]
channels = "L"

[data]
name = "squares"

[augment]
flip = true
translate = 2

[train]
optimizer = "adam"
lr = 0.01
batch_size = 10
epochs = 7
loss = "yolo"
"""


@pytest.fixture
def squares(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """A data set of one or two dark or bright squares on grey."""
    random, images, boxes = np.random.RandomState(0), [], []
    for _ in range(150):
        image, of_image = random.randint(110, 140, (16, 16)), []
        for half in range(random.randint(1, 3)):
            label, side = random.randint(1, 3), random.randint(5, 8)
            top, left = random.randint(0, 17 - side), 8 * half + random.randint(0, 9 - side)
            image[top : top + side, left : left + side] = (0, 20, 235)[label]
            of_image.append([label, top, left, top + side, left + side])
        images.append(image.astype(np.uint8))
        boxes.append(np.array(of_image))
    pictures, held_out = np.stack(images), np.arange(150) % 3 == 0
    labels = np.zeros(len(pictures), np.int64)
    data = Dataset("squares", "Squares", pictures, labels, ("none", "dark", "bright"), held_out, tuple(boxes))
    monkeypatch.setitem(datasets.DATASETS, "squares", lambda: data)
    return data


@pytest.fixture
def folder(tmp_path: Path, squares: Dataset) -> Path:
    path = tmp_path / "detector"
    path.mkdir()
    (path / "model.py").write_text(NETWORK)
    (path / "recipe.toml").write_text(RECIPE)
    return path


def test_a_detector_is_scored_by_its_average_precision(folder: Path, squares: Dataset) -> None:
    result = train(folder)
    model = load(folder)
    items = np.flatnonzero(squares.held_out)
    with torch.no_grad():
        outputs = model(torch.stack([model.preprocess.encode(image) for image in squares.images[items]]))
    found = decode_boxes(outputs, 2, (16, 16), LEAST_SCORE)
    boxes = [torch.from_numpy(squares.boxes[item]) for item in items]
    true = [{"boxes": of[:, [2, 1, 4, 3]], "labels": of[:, 0] - 1} for of in boxes]
    expected = average_precisions(found, true, 2)
    assert result.held_out.precisions == pytest.approx(expected) and min(expected) > 0.2
    assert result.held_out.measure == ("mean average precision", pytest.approx(np.mean(expected)))
    assert math.isnan(result.held_out.accuracy) and result.epochs[0].train.precisions == ()
    card = (folder / "card.md").read_text()
    assert f"| held out | 50 | {np.mean(expected):.2%} |" in card and f"| dark | {expected[0]:.2%} |" in card


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('"squares"', '"digits"', "loss = 'yolo' needs boxes, and data set 'digits' has none"),
        ("[16, 16]", "[24, 16]", r"size is \[24, 16\], where the boxes of data set 'squares' lie in \[16, 16\] pixels"),
        ("flip = true", "rotate = 5", "rotate=5 would leave boxes wider"),
        ('["dark", "bright"]', '["none", "dark", "bright"]', "classes are 3 where data set 'squares' has 2"),
    ],
)  # fmt: skip
def test_a_recipe_that_does_not_fit_boxes_is_refused(folder: Path, old: str, new: str, sentence: str) -> None:
    (folder / "recipe.toml").write_text(RECIPE.replace(old, new))
    with pytest.raises(InterpretError, match=sentence):
        train(folder)


@pytest.mark.parametrize(
    ("old", "new"),
    [("16, 12, 3", "16, 11, 3"), ("16, 12, 3", "16, 2, 3"), ("12, 3, padding=1)", "12, 4), nn.Flatten()")],
)
def test_a_network_without_boxes_is_refused(folder: Path, old: str, new: str) -> None:
    (folder / "model.py").write_text(NETWORK.replace(old, new))
    with pytest.raises(InterpretError, match=r"not \[2, 5 n \+ 2, rows, columns\]: it needs 5 outputs for each of n"):
        train(folder)
