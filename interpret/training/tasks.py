"""What a network is trained for: batches of a data set, and scores of the network's answers."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from interpret.images.datasets import Dataset
from interpret.loading.recipes import AugmentTable, Recipe
from interpret.network.grid_boxes import BOX_UNITS, decode_boxes, encode_boxes
from interpret.support.errors import InterpretError
from interpret.training.augmentation import augmentation, move_boxes
from interpret.training.average_precision import average_precisions
from interpret.training.scores import Score

LEAST_SCORE = 0.01
"""Detections of a lower score do not count in the average precision."""


class Tally(ABC):
    """Counts right answers, batch by batch."""

    @abstractmethod
    def add(self, outputs: Tensor, targets: Tensor, items: np.ndarray | None) -> None:
        """Count a batch; `items` of the data set, or None if they were augmented."""

    @abstractmethod
    def score(self, images: int, loss: float) -> Score:
        """Return the score of all batches so far."""


class Task(ABC):
    """The answers that a network is trained to give to the images of a data set."""

    def __init__(self, recipe: Recipe, data: Dataset, dtype: torch.dtype) -> None:
        self.data, self.dtype, self.input = data, dtype, recipe.input
        self.augment = augmentation(recipe.augment, recipe.input)
        self.classes = data.classes
        self._check_recipe(recipe)

    @abstractmethod
    def _check_recipe(self, recipe: Recipe) -> None:
        """Refuse a recipe that does not fit the data."""

    @abstractmethod
    def check_answer(self, shape: list[int]) -> None:
        """Refuse a network that answers two images in this shape."""

    @abstractmethod
    def batch(self, items: np.ndarray, augmented: bool) -> tuple[Tensor, Tensor]:
        """Return items of the data set as inputs and targets."""

    @abstractmethod
    def tally(self) -> Tally: ...

    @abstractmethod
    def tables(self, parts: dict[str, Score]) -> list[str]:
        """Return scores by the names of their images as lines of Markdown."""

    def _inputs(self, items: np.ndarray) -> list[Tensor]:
        return [self.input(Image.fromarray(image)).to(self.dtype) for image in self.data.images[items]]

    def _by_class(self, name: str, values: tuple[float, ...]) -> list[str]:
        rows = [f"| {of} | {value:.2%} |" for of, value in zip(self.classes, values, strict=True)]
        return ["", f"| class | {name}, held out |", "|---|---:|", *rows]


class Classification(Task):
    """One class for each image."""

    unit = "class"

    def _check_recipe(self, recipe: Recipe) -> None:
        pass

    def check_answer(self, shape: list[int]) -> None:
        wanted = [2, len(self.classes), *self.data.labels.shape[1:]]
        if shape != wanted:
            raise InterpretError(
                f"the network answers {shape} to 2 images of data set {self.data.name!r}, not {wanted}: it needs one "
                f"output a {self.unit}"
            )

    def batch(self, items: np.ndarray, augmented: bool) -> tuple[Tensor, Tensor]:
        images = self._inputs(items)
        inputs = torch.stack([self.augment(image) for image in images] if augmented else images)
        return inputs, torch.from_numpy(self.data.labels[items]).to(torch.int64)

    def tally(self) -> Tally:
        return _Confusion(len(self.classes), dense=self.data.labels.ndim > 1)

    def tables(self, parts: dict[str, Score]) -> list[str]:
        return [
            "| images | number | correct | accuracy |",
            "|---|---:|---:|---:|",
            *(f"| {name} | {one.images:,} | {one.correct:,} | {one.accuracy:.2%} |" for name, one in parts.items()),
        ]


class Segmentation(Classification):
    """One class for each pixel."""

    unit = "class and pixel"

    def _check_recipe(self, recipe: Recipe) -> None:
        if recipe.augment != AugmentTable():
            raise InterpretError(
                f"[augment] moves images, and data set {self.data.name!r} has a class for each pixel, which would not "
                "move: leave the table out"
            )

    def tables(self, parts: dict[str, Score]) -> list[str]:
        return [
            "| images | number | correct pixels | mean IoU |",
            "|---|---:|---:|---:|",
            *(
                f"| {name} | {one.images:,} | {one.accuracy:.2%} | {one.mean_overlap:.2%} |"
                for name, one in parts.items()
            ),
            *self._by_class("IoU", parts["held out"].overlaps),
        ]


class _Confusion(Tally):
    """How often each class got each answer."""

    def __init__(self, classes: int, dense: bool) -> None:
        self.counts = torch.zeros(classes, classes, dtype=torch.int64)  # [label, answer]
        self.dense = dense

    def add(self, outputs: Tensor, targets: Tensor, items: np.ndarray | None) -> None:
        classes = len(self.counts)
        pairs = targets * classes + outputs.argmax(1)
        self.counts += pairs.flatten().bincount(minlength=classes**2).reshape(classes, classes).cpu()

    def score(self, images: int, loss: float) -> Score:
        right = self.counts.diagonal()
        overlaps = right.double() / (self.counts.sum(0) + self.counts.sum(1) - right)
        pixels = int(self.counts.sum()) // images
        return Score(images, int(right.sum()), loss, pixels, tuple(overlaps.tolist()) if self.dense else ())


class Detection(Task):
    """Boxes on a grid of cells, each with its class."""

    cells: tuple[int, int]

    def _check_recipe(self, recipe: Recipe) -> None:
        size = self.data.images.shape[1:3]
        if not self.data.boxes:
            raise InterpretError(
                f"[train] loss = 'yolo' needs boxes, and data set {self.data.name!r} has none: name 'emoji-scenes' in "
                "[data]"
            )
        if recipe.input.size != size:
            raise InterpretError(
                f"[input] size is {list(recipe.input.size)}, where the boxes of data set {self.data.name!r} lie in "
                f"{list(size)} pixels: name that size"
            )
        if recipe.augment.rotate:
            raise InterpretError(
                f"[augment] rotate={recipe.augment.rotate:g} would leave boxes wider than their objects: leave it out"
            )
        self.classes = self.data.classes[1:]  # the first is the background

    def check_answer(self, shape: list[int]) -> None:
        left_over = (shape[1] - len(self.classes)) if len(shape) == 4 else 0
        if left_over < BOX_UNITS or left_over % BOX_UNITS:
            count = len(self.classes)
            raise InterpretError(
                f"the network answers {shape} to 2 images of data set {self.data.name!r}, not [2, {BOX_UNITS} n + "
                f"{count}, rows, columns]: it needs {BOX_UNITS} outputs for each of n boxes a cell, and one a class"
            )
        self.cells = (shape[2], shape[3])

    def batch(self, items: np.ndarray, augmented: bool) -> tuple[Tensor, Tensor]:
        images, targets = self._inputs(items), []
        for place, item in enumerate(items):
            boxes, labels = self._objects(item)
            if augmented:
                images[place], boxes, labels = move_boxes(self.augment, images[place], boxes, labels)
            targets.append(encode_boxes(boxes, labels, len(self.classes), self.cells, self.input.size, self.dtype))
        return torch.stack(images), torch.stack(targets)

    def _objects(self, item: int) -> tuple[Tensor, Tensor]:
        """Return boxes as (left, top, right, bottom), and their labels."""
        label, top, left, bottom, right = torch.from_numpy(self.data.boxes[item]).unbind(1)
        return torch.stack([left, top, right, bottom], 1), label - 1

    def tally(self) -> Tally:
        return _Detections(self)

    def tables(self, parts: dict[str, Score]) -> list[str]:
        return [
            "| images | number | mean average precision |",
            "|---|---:|---:|",
            *(f"| {name} | {one.images:,} | {one.mean_precision:.2%} |" for name, one in parts.items()),
            *self._by_class("average precision", parts["held out"].precisions),
        ]


class _Detections(Tally):
    """The boxes that a network found, and those that are there."""

    def __init__(self, task: Detection) -> None:
        self.task = task
        self.found: list[dict[str, Tensor]] = []
        self.true: list[dict[str, Tensor]] = []

    def add(self, outputs: Tensor, targets: Tensor, items: np.ndarray | None) -> None:
        if items is not None:
            self.found += decode_boxes(outputs.cpu(), len(self.task.classes), self.task.input.size, LEAST_SCORE)
            self.true += [dict(zip(("boxes", "labels"), self.task._objects(item), strict=True)) for item in items]

    def score(self, images: int, loss: float) -> Score:
        precisions = average_precisions(self.found, self.true, len(self.task.classes)) if self.found else ()
        return Score(images, 0, loss, pixels=0, precisions=precisions)


def find_task(recipe: Recipe, data: Dataset, dtype: torch.dtype) -> Task:
    """Return what a recipe trains a network for: detection by its loss, else by what the data's labels are."""
    if recipe.train.loss == "yolo":
        return Detection(recipe, data, dtype)
    return (Segmentation if data.labels.ndim > 1 else Classification)(recipe, data, dtype)
