"""The results of a training: accuracy and loss by epoch and at the end."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Score:
    """The accuracy and loss of a network on some images.

    >>> Score(images=1000, correct=985, loss=0.05).accuracy
    0.985
    >>> Score(images=2, correct=6, loss=0.5, pixels=4, overlaps=(0.5, 0.7)).mean_overlap
    0.6
    >>> Score(images=2, correct=0, loss=0.5, pixels=0, precisions=(0.25, 0.75)).mean_precision
    0.5
    """

    images: int
    correct: int
    """Images of the right class; pixels, where each pixel has a class; 0 where images have boxes."""
    loss: float
    """The mean over the images."""
    pixels: int = 1
    """The number of answers for each image: 1; its pixels, where each has a class; 0 where images have boxes."""
    overlaps: tuple[float, ...] = ()
    """For each class of pixels: those of the class by both answer and label, as a share of those by either. NaN for a
    class that is neither answered nor labelled; empty where pixels have no classes."""
    precisions: tuple[float, ...] = ()
    """For each class of boxes the average precision at an overlap of 0.5. NaN for a class without objects; empty where
    images have no boxes, and of training batches."""

    @property
    def accuracy(self) -> float:
        """The fraction of correct answers, 0 to 1; NaN where images have boxes."""
        return self.correct / (self.images * self.pixels) if self.pixels else math.nan

    @property
    def mean_overlap(self) -> float:
        """The mean of `overlaps`, also called mean intersection over union (mean IoU)."""
        return _mean(self.overlaps)

    @property
    def mean_precision(self) -> float:
        """The mean of `precisions`, also called mean average precision (mAP)."""
        return _mean(self.precisions)

    @property
    def measure(self) -> tuple[str, float]:
        """What the score is judged by: its name, and its value from 0 to 1."""
        return ("mean average precision", self.mean_precision) if not self.pixels else ("accuracy", self.accuracy)


def _mean(values: tuple[float, ...]) -> float:
    """Return the mean of the values that are not NaN; NaN without any."""
    found = [value for value in values if not math.isnan(value)]
    return sum(found) / len(found) if found else math.nan


@dataclass(frozen=True)
class Epoch:
    """The results of one epoch.

    >>> Epoch(1, train=Score(4000, 3000, 0.8), held_out=Score(1000, 850, 0.5)).held_out.accuracy
    0.85
    """

    number: int
    """From 1."""
    train: Score
    """On the augmented batches of the epoch, while the weights change."""
    held_out: Score
    """After the epoch, on images that are not trained on."""


@dataclass(frozen=True)
class TrainingResult:
    """The results of `train`, and the folder that holds the weights."""

    folder: Path
    """The model folder that holds the weights."""
    epochs: tuple[Epoch, ...]
    train: Score
    """Of the final weights, on the training images without augmentation."""

    @property
    def held_out(self) -> Score:
        """Of the final weights, on images that were not trained on."""
        return self.epochs[-1].held_out
