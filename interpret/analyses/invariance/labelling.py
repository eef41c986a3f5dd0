"""Labels of images, as indices of the network's outputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from interpret.images.batches import Batch
from interpret.images.sources import Images
from interpret.network.model import Model
from interpret.support.errors import InterpretError


class Labelling:
    """Labels of images, as indices of the network's outputs: given, predicted or from the data."""

    def __init__(
        self, labels: Iterable[int] | str | None, chosen: Sequence[int], data: Images, model: Model, outputs: int | None
    ) -> None:
        self.outputs = outputs
        self.predicted = False
        self.given: Tensor | None = None
        # labels of the data count only if its classes are the network's
        self.known = outputs is not None and (
            None in (data.classes, model.classes) or tuple(data.classes or ()) == tuple(model.classes or ())
        )
        self.settings: Any = [self.known, data.labels[list(chosen)].tolist()]
        """The part of the labelling that work to resume must share."""
        if labels is None:
            return
        if outputs is None:
            raise InterpretError(
                f"model {model.name!r} returns no row of classes, so that there are no probabilities: leave labels out"
            )
        if isinstance(labels, str):
            if labels != "predicted":
                raise InterpretError(f"labels must be indices of classes, 'predicted' or None, not {labels!r}")
            self.predicted, self.settings = True, labels
            return
        try:
            given = [int(label) for label in labels]
        except (TypeError, ValueError):
            raise InterpretError(f"labels must be whole numbers, one an image, not {labels!r}") from None
        if len(given) != len(chosen):
            raise InterpretError(f"labels must be one for each of the {len(chosen)} images, not {len(given)}")
        self._check(given)
        self.given, self.settings = torch.tensor(given), given

    def of(self, batch: Batch) -> Tensor | None:
        """Return the labels of a batch, −1 if unknown; None if the labels are the network's predictions."""
        if self.predicted:
            return None
        if self.given is not None:
            return self.given[batch.items]
        if not self.known:
            return torch.full_like(batch.labels, -1)
        self._check(batch.labels.tolist())
        return batch.labels

    def _check(self, labels: Iterable[int]) -> None:
        for label in labels:
            if not -1 <= label < (self.outputs or 0):
                raise InterpretError(
                    f"labels must be from 0 to {(self.outputs or 0) - 1}, the network's outputs, or -1 for none, "
                    f"not {label}"
                )
