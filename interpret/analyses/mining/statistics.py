"""Statistics of units over images: histograms, class means, and the maxima on a sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from interpret.analyses.mining.histogram import DyadicHistogram
from interpret.execution.exact_sums import ExactSums
from interpret.execution.resume import below


class Statistics:
    """Accumulates histograms, class means and the sample's maxima of all units from their maxima on each image."""

    STATE = ("sample_maxima", "sampled", "class_counts")

    def __init__(self, units: int, sample: int, classes: int | None = None) -> None:
        """Start without images; if the number of classes is None, the largest label determines it."""
        self.histogram = DyadicHistogram(units)
        self.sample_maxima = torch.zeros(sample, units, dtype=torch.float32)
        self.sampled = torch.zeros(sample, dtype=torch.bool)
        """Which images of the sample have been added."""
        self.open_ended = classes is None
        self.class_sums = ExactSums(classes or 0, units)
        self.class_counts = torch.zeros(classes or 0, dtype=torch.int64)

    def update(self, maxima: Tensor, labels: Tensor, sample_rows: Tensor, missing: Tensor | None = None) -> None:
        """Add a batch: maxima [B, units], labels [B] (−1: unknown), and indices in the sample [B] (−1: not in it).

        Of `missing` [B, units], images have no maximum: they are in no histogram, and 0 in sums and on the sample.
        """
        maxima = maxima.cpu()
        if missing is not None and bool(missing.any()):
            self.histogram.update(maxima, ~missing)
            maxima = maxima.masked_fill(missing, 0)
        else:
            self.histogram.update(maxima)
        chosen = sample_rows >= 0
        self.sample_maxima[sample_rows[chosen]] = maxima[chosen]
        self.sampled[sample_rows[chosen]] = True
        if self.open_ended:
            self._grow(int(labels.max()) + 1)
        known = (labels >= 0) & (labels < len(self.class_counts))
        if bool(known.any()):
            self.class_sums.add(maxima[known], labels[known])
            self.class_counts += torch.bincount(labels[known], minlength=len(self.class_counts))

    def merge(self, other: Statistics) -> None:
        """Add the statistics of other images."""
        self.histogram.merge(other.histogram)
        self.sample_maxima[other.sampled] = other.sample_maxima[other.sampled]
        self.sampled |= other.sampled
        classes = max(len(self.class_counts), len(other.class_counts))
        for one in (self, other):
            one._grow(classes)
        self.class_sums.merge(other.class_sums)
        self.class_counts += other.class_counts

    def _grow(self, classes: int) -> None:
        """Add classes without images until there are so many."""
        more = classes - len(self.class_counts)
        if more > 0:
            self.class_sums.grow(classes)
            self.class_counts = F.pad(self.class_counts, (0, more))

    @classmethod
    def of_state(cls, state: Mapping[str, Tensor]) -> Statistics:
        """Return the statistics of a `state_dict`."""
        sample, units = state["sample_maxima"].shape
        new = cls(units, sample)
        new.load_state_dict(state)
        return new

    def state_dict(self) -> dict[str, Tensor]:
        """Return copies of all tensors, for `load_state_dict`."""
        sums = {f"class_sums/{name}": value for name, value in self.class_sums.state_dict().items()}
        return {name: getattr(self, name).clone() for name in self.STATE} | self.histogram.state_dict() | sums

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load tensors from `state_dict`."""
        for name in self.STATE:
            setattr(self, name, state[name].clone())
        self.histogram.load_state_dict(state)
        self.class_sums.load_state_dict(below("class_sums/", state))

    def of(self, columns: slice) -> dict[str, Any]:
        """Return the statistics of some units under their names in `MinedLayer`."""
        counts, starts, widths = self.histogram.of(columns)
        found: dict[str, Any] = {
            "histogram": counts,
            "histogram_start": starts,
            "histogram_width": widths,
            "sample_maxima": self.sample_maxima[self.sampled, columns].numpy(),
        }
        if int(self.class_counts.sum()):
            with np.errstate(invalid="ignore"):
                means = self.class_sums.of(columns).value().numpy() / self.class_counts.numpy()[:, None]
            found["class_means"] = means.astype(np.float32)
        return found
