"""The images that units are shown on: the source pictures, the inputs of the sample, and what is predicted for them."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interpret.network.readings import in_words
from interpret.study.reader import StudyReader, source_picture_size
from interpret.study.views.pictures import Picture, find_picture, size_of

LEAST_PROBABILITY = 0.005
"""The smallest probability of a prediction that is shown."""
REMEMBERED = 10_000
"""How many sources are kept in memory: an image is a hit of many units."""


@dataclass(frozen=True)
class Prediction:
    """One of the classes that the network finds most probable for an image."""

    output: int
    """Which of the network's outputs."""
    name: str
    probability: float


@dataclass(frozen=True)
class Detection:
    """A box that a detector finds in an image."""

    name: str
    """Of its class; empty where it has none."""
    score: float
    frame: str
    """The box on the picture, as an SVG path."""


@dataclass(frozen=True)
class Source:
    """A source picture: its name, and the small copy of it that the study kept."""

    number: int
    name: str
    picture: Picture | None
    label: int = -1
    size: tuple[int, int] = (0, 0)
    """Width and height of the picture, also where it is left out."""
    predictions: tuple[Prediction, ...] = ()
    """What the network predicts for its central part, most probable first; empty where that is not known."""
    paged: bool = False
    """Whether it has a page."""
    detections: tuple[Detection, ...] | None = None
    """What a detector finds in its central part, the surest first; None where that is not known."""

    @property
    def href(self) -> str:
        """The address of its page, relative to the gallery's root; empty where it has none."""
        return f"images/{self.number}.html" if self.paged else ""


@dataclass(frozen=True)
class Sample:
    """An input of the sample: its source, its picture as the network saw it, and what the network predicts for it."""

    item: int
    source: Source
    label: str | None
    picture: Picture | None
    predictions: tuple[Prediction, ...]
    """Most probable first; empty where the network has no classes."""
    reading: str = ""
    """How the network's outputs became probabilities."""


def top_predictions(
    names: Sequence[str], outputs: Iterable[int], probabilities: Iterable[float]
) -> tuple[Prediction, ...]:
    """Return predictions by name, those left out that are too improbable to be shown.

    >>> [one.name for one in top_predictions(["cat", "dog"], [1, 0], [0.998, 0.002])]
    ['dog']
    """
    found = zip(outputs, probabilities, strict=True)
    return tuple(Prediction(output, str(names[output]), share) for output, share in found if share >= LEAST_PROBABILITY)


class Sources:
    """All source images of a study, in arrays: a `Source` is made when it is shown, as there may be a million.

    >>> import tempfile, torch
    >>> from interpret import Study
    >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3))
    >>> study = Study(tempfile.mkdtemp() + "/study", network, torch.rand(12, 1, 10, 10))
    >>> study.mine(k=12)
    >>> sources = Sources(study, None, context=True)
    >>> len(sources), sources[5].name, sources[5].picture
    (12, 'image 5', Picture(path='sources/0/5.jpg', width=10, height=10))
    """

    def __init__(self, study: StudyReader, predictions: Any, context: bool) -> None:
        """Read the study's lists.

        Args:
            study: the study.
            predictions: what the network predicts for them, or None.
            context: whether their pictures are shown, and the inputs of the sample where a source has none.
        """
        self._study = study
        self._detections = study.detections() if context else {}
        self.class_names: Sequence[str] = () if predictions is None else predictions.classes
        names, rows = [], []
        for one, records in study.source_lists.records():
            for number, record in records.items():
                names.append(record["name"])
                rows.append((number, record.get("label", -1), *_small_size(one.picture(number), record, context)))
        table = np.array(rows, np.int64).reshape(-1, 5)
        order = np.argsort(table[:, 0], kind="stable")  # a list of an earlier version comes first
        self._names = [names[place] for place in order.tolist()]
        self._recorded, self._pictured = table[order, 0], table[order, 4].astype(bool)
        self._sizes = table[order, 2:4].astype(np.int32)
        self._sampled = _only_sampled(study, set(self._recorded.tolist())) if context else {}
        self.numbers: NDArray[np.int64] = np.union1d(self._recorded, np.array(list(self._sampled), np.int64))
        """The number of each, ascending."""
        self.labels = np.full(len(self.numbers), -1)
        """What each is labelled; −1 where it is not."""
        self.labels[np.searchsorted(self.numbers, self._recorded)] = table[order, 1]
        for number, source in self._sampled.items():
            self.labels[np.searchsorted(self.numbers, number)] = source.label
        self.paged = np.zeros(len(self.numbers), bool)
        """Which have a page: the network's page sets it, before it shows any."""
        self._remembered = lru_cache(REMEMBERED)(self._make)
        self.top, self.probabilities = _predicted(predictions, self.numbers)
        """[n, k] the network's most probable classes of each and their probabilities; −1 and 0 where there is none."""

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, number: int) -> Source:
        return self._remembered(number)

    def _make(self, number: int) -> Source:
        place = int(np.searchsorted(self.numbers, number))
        if place == len(self.numbers) or self.numbers[place] != number:
            raise KeyError(number)
        paged = bool(self.paged[place])
        predictions = top_predictions(self.class_names, self.top[place].tolist(), self.probabilities[place].tolist())
        if number in self._sampled:
            own = self._sampled[number]
            return replace(own, predictions=predictions, paged=paged, detections=self._detected(number, own.size))
        row = int(np.searchsorted(self._recorded, number))
        width, height = self._sizes[row].tolist()
        picture = None
        if self._pictured[row]:
            path = self._study.source_picture(number).relative_to(self._study.path).as_posix()
            picture = Picture(path, width, height)
        return Source(
            number,
            self._names[row],
            picture,
            int(self.labels[place]),
            (width, height),
            predictions,
            paged,
            self._detected(number, (width, height)),
        )

    def _detected(self, number: int, size: tuple[int, int]) -> tuple[Detection, ...] | None:
        found = self._detections.get(number)
        if found is None:
            return None
        return tuple(Detection(one["name"], one["score"], _frame(one["box"], *size)) for one in found)

    @property
    def best(self) -> NDArray[np.int64]:
        """[n] the most probable class of each; −1 where there is none that is shown."""
        return self.top[:, 0]

    @property
    def listed(self) -> NDArray[np.int64]:
        """The numbers of those that have a page, ascending."""
        return self.numbers[self.paged]


def _frame(box: Sequence[float], width: int, height: int) -> str:
    """Return a box (top, left, bottom, right), in fractions, on a picture as an SVG path.

    >>> _frame((0.25, 0.0, 0.75, 0.5), width=200, height=100)
    'M0 25h100v50h-100z'
    """
    top, left, bottom, right = box
    wide, high = (right - left) * width, (bottom - top) * height
    return f"M{left * width:.4g} {top * height:.4g}h{wide:.4g}v{high:.4g}h-{wide:.4g}z"


def _small_size(file: Path, record: Mapping[str, Any], context: bool) -> tuple[int, int, bool]:
    """Return width and height of a source's small picture, and whether it is shown."""
    size = record.get("picture")  # earlier versions did not say it
    if size is None and context and file.is_file():
        size = size_of(file)
    width, height = size or source_picture_size(record["width"], record["height"])
    return width, height, context and size is not None


def _only_sampled(study: StudyReader, known: Container[int]) -> dict[int, Source]:
    """Return the sources of the sample that the study has no picture of, with that of the sample's input."""
    found: dict[int, Source] = {}
    for item, record in study.samples().items():
        number = int(record["source"])
        if number not in known and number not in found:
            picture = find_picture(study, study.sample_picture(item))
            size = (picture.width, picture.height) if picture else (0, 0)
            found[number] = Source(number, record["name"], picture, int(record["label"]), size)
    return found


def _predicted(predictions: Any, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the classes that are probable enough to be shown, and their probabilities, of these sources [n, k]."""
    k = 1 if predictions is None else predictions.top.shape[1]
    top, probabilities = np.full((len(numbers), k), -1), np.zeros((len(numbers), k))
    if predictions is not None:
        _, places, rows = np.intersect1d(numbers, predictions.sources, assume_unique=True, return_indices=True)
        shown = predictions.probabilities[rows] >= LEAST_PROBABILITY
        top[places] = np.where(shown, predictions.top[rows], -1)
        probabilities[places] = np.where(shown, predictions.probabilities[rows], 0)
    return top, probabilities


def read_samples(
    study: StudyReader, sources: Sources, labels: Sequence[str], outputs: Sequence[str]
) -> dict[int, Sample]:
    """Return the inputs of the sample, by item.

    Args:
        study: the study.
        sources: the source pictures.
        labels: the data's classes.
        outputs: the network's classes.
    """
    return {
        item: Sample(
            item,
            sources[record["source"]],
            label_name(labels, record["label"]),
            find_picture(study, study.sample_picture(item)),
            top_predictions(outputs, record.get("classes", ()), record.get("probabilities", ())),
            in_words(record.get("outputs", ""), record.get("part", "")),
        )
        for item, record in study.samples().items()
    }


def label_name(labels: Sequence[str], label: int) -> str | None:
    """Return the name of a label, or None for −1, which means unlabelled.

    >>> label_name(["cat"], 0), label_name(["cat"], 3), label_name(["cat"], -1)
    ('cat', 'class 3', None)
    """
    if label < 0:
        return None
    return str(labels[label]) if label < len(labels) else f"class {label}"
