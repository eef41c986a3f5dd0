"""The results of a training: accuracy and loss by epoch and at the end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Score:
    """The accuracy and loss of a network on some images.

    >>> Score(images=1000, correct=985, loss=0.05).accuracy
    0.985
    """

    images: int
    correct: int
    loss: float
    """The mean over the images."""

    @property
    def accuracy(self) -> float:
        """The fraction of correct answers, 0 to 1."""
        return self.correct / self.images


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
