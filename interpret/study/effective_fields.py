"""Measure the effective receptive fields of a study's layers."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from interpret.analyses.effective_fields.compute import effective_receptive_field
from interpret.execution.parallel import images_at_once
from interpret.study.synthesis_budget import macs_below
from interpret.support.errors import InterpretError, warn

if TYPE_CHECKING:
    from interpret.study.study import Study

MOST_IMAGES = 16
"""The largest number of images that fields are measured on: those of SqueezeNet differ little from those on more."""
BUDGET = 5e11
"""Multiply–adds that fewer images take, but for one: some ten seconds on two cores, which do 60e9 a second."""
MOST = 3e12
"""Multiply–adds of one image from which on the fields are left out: some fifty seconds."""

logger = logging.getLogger(__name__)


def measure_effective_fields(study: Study) -> None:
    """Measure, and keep, the effective receptive fields of the mined layers that have none."""
    model, data = study.to_compute()
    kept = study.readable_results("effective-fields")
    done = {name for one in kept.values() for name in one.layers}
    missing = [name for name in study.mined_layers if name not in done and _is_on_image(study, name)]
    if not missing:
        return
    count = images_within(study, missing)
    if not count:
        logger.info("left out: effective receptive fields, as a single image takes too long")
        return
    # half of what other analyses run at once, as all intermediate results are held
    together = max(1, images_at_once(math.prod(study.info["model"]["input_shape"][1:])) // 2)
    try:
        found = effective_receptive_field(
            model,
            data,
            missing,
            count=count,
            seed=study.info["settings"]["seed"],
            batch_size=min(together, study.batch_size or together),
            device=study.device,
        )
    except InterpretError as error:
        warn(f"effective receptive fields were not measured: {error}")
        return
    study.keep(found, missing[0] if kept else "")


def images_within(study: Study, names: Sequence[str]) -> int:
    """Return how many images `BUDGET` pays for, at most `MOST_IMAGES`; 0 if one takes too long."""
    below = macs_below(study.traced)
    # once forwards, and once back from each layer
    cost = max(below.values()) + sum(below[name] for name in names)
    return 0 if cost > MOST else max(1, min(MOST_IMAGES, int(BUDGET / cost)))


def _is_on_image(study: Study, name: str) -> bool:
    """Return whether a layer runs once an image, which is no latent of one pixel, and has positions along both axes."""
    shape, layer = study.info["model"]["input_shape"], study.traced[name]
    return len(shape) == 3 and math.prod(shape[1:]) > 1 and layer.batched and len(layer.grid or ()) == 2
