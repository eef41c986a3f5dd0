"""The images that units are shown on: the source pictures, the inputs of the sample, and what is predicted for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from interpret.network.readings import in_words
from interpret.study.reader import StudyReader, source_picture_size
from interpret.study.views.pictures import Picture, find_picture

LEAST_PROBABILITY = 0.005
"""The smallest probability of a prediction that is shown."""


@dataclass(frozen=True)
class Prediction:
    """One of the classes that the network finds most probable for an image."""

    output: int
    """Which of the network's outputs."""
    name: str
    probability: float


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
    addresses: Mapping[int, str] = field(default_factory=dict, repr=False, compare=False)
    """Those of the network, which it shares."""

    @property
    def href(self) -> str:
        """Where its page is, or its entry in the list, relative to the gallery's root; empty where it has neither."""
        return self.addresses.get(self.number, "")


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


def read_sources(
    study: StudyReader,
    predicted: Mapping[int, tuple[Prediction, ...]],
    addresses: Mapping[int, str],
    context: bool,
) -> dict[int, Source]:
    """Return the source pictures that have hits or are in the sample, by number.

    Args:
        study: the study.
        predicted: what the network predicts for each.
        addresses: where each is found in the gallery; filled in later.
        context: whether their pictures are shown.
    """
    known = {}
    for number, record in study.sources().items():
        picture = find_picture(study, study.source_picture(number)) if context else None
        size = (picture.width, picture.height) if picture else source_picture_size(record["width"], record["height"])
        label = int(record.get("label", -1))
        known[number] = Source(number, record["name"], picture, label, size, predicted.get(number, ()), addresses)
    if context:
        for item, record in study.samples().items():
            picture = find_picture(study, study.sample_picture(item))
            number, label = record["source"], int(record["label"])
            size = (picture.width, picture.height) if picture else (0, 0)
            source = Source(number, record["name"], picture, label, size, predicted.get(number, ()), addresses)
            known.setdefault(number, source)
    return known


def read_samples(
    study: StudyReader, sources: Mapping[int, Source], labels: Sequence[str], outputs: Sequence[str]
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
