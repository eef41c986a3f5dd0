"""Predict the source images of a study."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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
from interpret.execution.resume import UnfinishedParts
from interpret.images.batches import first_images
from interpret.images.selected_images import SelectedImages
from interpret.images.sources import Images
from interpret.network.answers import Reading
from interpret.network.forward import refuse_other_type
from interpret.results.result import stacked
from interpret.study.answering import ReadingFailed, answers_to_images, forget, to_answer
from interpret.study.detections import detect_in_sources
from interpret.study.reader import IMAGE_PREDICTIONS, UNPREDICTED
from interpret.study.source_pictures import keep_source_pictures
from interpret.support.errors import InterpretError

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
        detect_in_sources(study, SelectedImages(central, items))
    study.write_info()


def _items_to_predict(study: Study, central: Images, every_image: bool) -> NDArray[np.int64]:
    """Return the first item of each source to predict, by source."""
    sources, firsts = np.unique(central.sources, return_index=True)
    return firsts if every_image else firsts[np.isin(sources, study.shown_sources())]


def _predict_missing(study: Study, images: SelectedImages, names: list[str]) -> None:
    """Predict the images of which the study has no prediction; each save keeps what was predicted since the last."""
    model, _ = study.to_compute()
    folder = study.path / "unfinished" / "predictions"
    known, reading = ranks().once(lambda: _known(study))
    if not to_answer(study, images, known).any():
        ranks().once(lambda: forget(study, UnfinishedParts(folder, {})))
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
        truth = right_classes(model, images, range(len(images)), None, reading.classes)

        def answer(items: NDArray[np.int64], shown: Tensor) -> State:
            table = most_probable(model, run, reading, shown, truth[items], k)
            return {name: torch.from_numpy(column) for name, column in table.items()}

        found = answers_to_images(study, run, images, known, unfinished, "predicting", answer)
    ranks().once(lambda: _keep(study, images.data, found, reading, names))
    ranks().once(lambda: forget(study, unfinished))


def _known(study: Study) -> tuple[NDArray[np.int64], Reading | None]:
    """Return the sources that are predicted, and how the outputs were read as probabilities."""
    kept = study.predictions()
    if kept is None:
        return np.zeros(0, np.int64), None
    reading = None if kept.class_count is None else Reading(kept.outputs, kept.class_count, kept.part)
    return kept.sources, reading


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
