"""Predict the source images of a study."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from interpret.analyses.predictions.compute import (
    MOST_PICTURES,
    check_k,
    find_class_reading,
    most_probable,
    predictions_of,
    right_classes,
)
from interpret.execution.execution import prepared
from interpret.execution.ranks import LostRank, State, ranks
from interpret.execution.reading import Reading as ItemsToRead
from interpret.execution.reading import Spans, remaining_batches
from interpret.execution.resume import UnfinishedParts
from interpret.images.batches import first_images, of_one_shape
from interpret.images.selected_images import SelectedImages
from interpret.images.sources import Images
from interpret.network.answers import Reading
from interpret.network.forward import refuse_other_type
from interpret.results.result import stacked
from interpret.study.detections import detect_in_sources
from interpret.study.reader import IMAGE_PREDICTIONS, UNPREDICTED
from interpret.study.source_pictures import keep_source_pictures
from interpret.support.errors import InterpretError
from interpret.support.files import discard

if TYPE_CHECKING:
    from interpret.study.study import Study

COLUMNS = ("top", "probabilities", "true_probabilities")
"""What a prediction consists of, in the study's result and in unfinished work."""


def predict_sources(study: Study, every_image: bool = True) -> None:
    """Keep pictures and predictions of the central part of source images, or the reason why there are none.

    Without `every_image`, those of the sources of hits and of the sample.
    """
    model, data = study.to_compute()
    central = data.central()
    items = ranks().once(lambda: _items_to_predict(study, central, every_image))
    keep_source_pictures(study, central.sources[items], central.labels[items])
    names = model.classes or data.classes
    study.info["settings"].pop(UNPREDICTED, None)
    try:
        if not names:
            raise InterpretError("nobody named the classes that the network answers")
        _predict_missing(study, SelectedImages(central, items), list(names))
    except (LostRank, ReadingFailed):
        raise
    except InterpretError as error:
        study.info["settings"][UNPREDICTED] = str(error)
        detect_in_sources(study, central, items)
    study.write_info()


class ReadingFailed(InterpretError):  # noqa: N818 - as LostRank
    """The images cannot be read, which says nothing about the network's predictions."""


def _items_to_predict(study: Study, central: Images, every_image: bool) -> NDArray[np.int64]:
    """Return the first item of each source to predict, by source."""
    sources, firsts = np.unique(central.sources, return_index=True)
    return firsts if every_image else firsts[np.isin(sources, study.shown_sources())]


def _predict_missing(study: Study, images: SelectedImages, names: list[str]) -> None:
    """Predict the images of which the study has no prediction; each save keeps what was predicted since the last."""
    model, _ = study.to_compute()
    folder = study.path / "unfinished" / "predictions"
    known, reading = ranks().once(lambda: _known(study))
    done = np.isin(images.sources, known)
    unreadable = _unreadable(study, images)
    if (done | unreadable).all():
        ranks().once(lambda: _forget(study, UnfinishedParts(folder, {})))
        return
    first = first_images(images)
    refuse_other_type(model.module, first)
    with prepared(model, first, study.device) as run:
        reading = reading or find_class_reading(model, run.place(first))
        if reading.classes != len(names):
            raise InterpretError(f"the network answers {reading.classes} classes, and {len(names)} have names")
        k = check_k(None, reading.classes)
        unfinished = UnfinishedParts(
            folder, {"outputs": reading.outputs, "part": reading.part, "k": k}, study.write_info
        )
        found: list[State] = list(unfinished.load_parts()) if ranks().first else []
        before = ranks().agreed(np.concatenate([known, *(part["sources"].numpy() for part in found)]))
        size = run.batch_size(study.batch_size)
        done = _with_unreadable(np.isin(images.sources, before), unreadable, size)
        to_read = ItemsToRead(images, size, _spans(done))
        truth = right_classes(model, images, range(len(images)), None, reading.classes)
        new: list[State] = []
        failures: list[InterpretError] = []

        def predicted() -> Iterator[State]:
            batches = of_one_shape(_read(to_read, study.workers), run.input_shape)
            for batch in batches:
                items = batch.items.numpy()
                try:
                    table = most_probable(model, run, reading, batch.images, truth[items], k)
                except InterpretError as error:  # of this rank, before which the others must not wait
                    failures.append(error)
                    return
                yield {"sources": torch.from_numpy(images.sources[items])} | {
                    name: torch.from_numpy(column) for name, column in table.items()
                }

        def state() -> State:
            arrived = list(ranks().arriving(new))
            together = _joined([*new, *arrived]) if ranks().first else {}
            new.clear()
            if together:
                found.append(together)
            return together

        with to_read.progress("predicting") as bar:

            def update(part: State) -> None:
                new.append(part)
                bar.update(len(part["sources"]))

            unfinished.process(predicted(), update, state)
        for skipped in ranks().concatenated([dict(images.skipped)]):
            images.skipped.update(skipped)
        try:
            ranks().concatenated(_raised(failures))
        except InterpretError:
            ranks().once(lambda: _forget(study, unfinished))
            raise
    ranks().once(lambda: _keep(study, images.data, found, reading, names))
    ranks().once(lambda: _forget(study, unfinished))


def _read(to_read: ItemsToRead, workers: int) -> Iterator[Any]:
    try:
        yield from to_read.batches(workers)
    except InterpretError as error:
        raise ReadingFailed(str(error)) from None


def _raised(failures: list[InterpretError]) -> Iterator[None]:
    for error in failures:
        raise error
    yield from ()


def _known(study: Study) -> tuple[NDArray[np.int64], Reading | None]:
    """Return the sources that are predicted, and how the outputs were read as probabilities."""
    kept = study.predictions()
    if kept is None:
        return np.zeros(0, np.int64), None
    reading = None if kept.class_count is None else Reading(kept.outputs, kept.class_count, kept.part)
    return kept.sources, reading


def _unreadable(study: Study, images: Images) -> NDArray[np.bool_]:
    """Return which images are known not to decode."""
    skipped = study.info["data"]["skipped"].keys() | images.skipped.keys()
    if not skipped:
        return np.zeros(len(images), bool)
    return images.are_named(images.sources, skipped)


def _with_unreadable(done: NDArray[np.bool_], unreadable: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """Add batches of which nothing can be read to what is done.

    Others are read with what does not decode, so that they are the same batches before and after that is known.

    >>> done, torn = np.array([1, 0, 0, 0, 0, 0], bool), np.array([0, 1, 1, 0, 1, 0], bool)
    >>> _with_unreadable(done, torn, 3).astype(int)
    array([1, 1, 1, 0, 0, 0])
    """
    done = done.copy()
    for first, last in remaining_batches(len(done), size, _spans(done)).tolist():
        done[first:last] |= unreadable[first:last].all()
    return done


def _spans(chosen: NDArray[np.bool_]) -> Spans:
    """Return where a mask is true, as spans.

    >>> _spans(np.array([True, True, False, True])).tolist()
    [[0, 2], [3, 4]]
    """
    return np.flatnonzero(np.diff(chosen.astype(np.int8), prepend=0, append=0)).reshape(-1, 2)


def _joined(parts: list[State]) -> State:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]} if parts else {}


def _keep(study: Study, central: Images, found: list[State], reading: Reading, names: list[str]) -> None:
    """Keep what was predicted with what the study had, by source."""
    model, _ = study.to_compute()
    tables = [{name: column.numpy() for name, column in part.items()} for part in found]
    kept = study.predictions()
    if kept is not None:
        tables.insert(0, {"sources": kept.sources} | {name: getattr(kept, name) for name in COLUMNS})
    if not tables:
        return  # nothing could be read
    table = stacked(tables)
    sources, rows = np.unique(table.pop("sources"), return_index=True)
    own, firsts = np.unique(central.sources, return_index=True)
    items = firsts[np.searchsorted(own, sources)]
    inputs = torch.stack([central[item][0] for item in items[:MOST_PICTURES].tolist()])
    truth = right_classes(model, central, items, None, reading.classes)
    table = {name: column[rows] for name, column in table.items()}
    result = predictions_of(model, central, items, table, inputs, reading, truth)
    study.keep(replace(result, classes=names), IMAGE_PREDICTIONS)


def _forget(study: Study, unfinished: UnfinishedParts) -> None:
    unfinished.forget()
    discard(study.path / "unfinished", [])
