"""Predict the source images of a study."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from interpret.analyses.predictions.compute import predict
from interpret.execution.ranks import ranks
from interpret.images.sources import Images
from interpret.study.reader import IMAGE_PREDICTIONS, MOST_SOURCES_PREDICTED, UNPREDICTED
from interpret.study.source_pictures import keep_source_pictures
from interpret.support.errors import InterpretError

if TYPE_CHECKING:
    from interpret.study.study import Study


def predict_sources(study: Study) -> None:
    """Keep the predictions of the central part of each source image, or the reason why there are none."""
    model, data = study.to_compute()
    central = data.central()
    items = ranks().once(lambda: _items_to_predict(study, central))
    if items is None:
        return
    names = model.classes or data.classes
    study.info["settings"].pop(UNPREDICTED, None)
    try:
        if not names:
            raise InterpretError("nobody named the classes that the network answers")
        found = predict(
            model,
            central,
            items,
            batch_size=study.batch_size,
            device=study.device,
        )
        if found.class_count != len(names):
            raise InterpretError(f"the network answers {found.class_count} classes, and {len(names)} have names")
    except InterpretError as error:
        study.info["settings"][UNPREDICTED] = str(error)
    else:
        study.keep(replace(found, classes=list(names)), IMAGE_PREDICTIONS)
    study.write_info()


def _items_to_predict(study: Study, central: Images) -> list[int] | None:
    """Keep pictures of the sources to predict, and return an item of each that decodes; None if all are known."""
    _, firsts = np.unique(central.sources, return_index=True)
    item_of = dict(zip(central.sources[firsts].tolist(), firsts.tolist(), strict=True))
    if len(item_of) > MOST_SOURCES_PREDICTED:
        known = study.sources().keys() | {record["source"] for record in study.samples().values()}
        item_of = {source: item_of[source] for source in sorted(known & item_of.keys())}
    keep_source_pictures(study, {source: int(central.labels[item]) for source, item in item_of.items()})
    skipped = study.info["data"]["skipped"]
    readable = [source for source in item_of if central.source_name(source) not in skipped]
    kept = study.predictions()
    if kept is not None and set(readable) <= set(kept.sources.tolist()):
        return None
    return [item_of[source] for source in readable]
