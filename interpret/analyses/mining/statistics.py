"""Statistics of units over images: histograms, class means, and the maxima on a sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from interpret.analyses.mining.histogram import DyadicHistogram


class Statistics:
    """Accumulates histograms, class means and the sample's maxima of all units from their maxima on each image."""

    STATE = ("sample_maxima", "sampled", "class_sums", "class_counts")

    def __init__(self, units: int, sample: int, classes: int | None = None) -> None:
        """Start without images; if the number of classes is None, the largest label determines it."""
        self.histogram = DyadicHistogram(units)
        self.sample_maxima = torch.zeros(sample, units, dtype=torch.float32)
        self.sampled = torch.zeros(sample, dtype=torch.bool)
        """Which images of the sample have been added."""
        self.open_ended = classes is None
        self.class_sums = torch.zeros(classes or 0, units, dtype=torch.float64)
        self.class_counts = torch.zeros(classes or 0, dtype=torch.int64)

    def update(self, maxima: Tensor, labels: Tensor, sample_rows: Tensor) -> None:
        """Add a batch: maxima [B, units], labels [B] (−1: unknown), and indices in the sample [B] (−1: not in it)."""
        maxima = maxima.cpu()
        self.histogram.update(maxima)
        chosen = sample_rows >= 0
        self.sample_maxima[sample_rows[chosen]] = maxima[chosen]
        self.sampled[sample_rows[chosen]] = True
        more = int(labels.max()) + 1 - len(self.class_counts)
        if self.open_ended and more > 0:
            self.class_sums = F.pad(self.class_sums, (0, 0, 0, more))
            self.class_counts = F.pad(self.class_counts, (0, more))
        known = (labels >= 0) & (labels < len(self.class_counts))
        if bool(known.any()):
            self.class_sums.index_add_(0, labels[known], maxima[known].double())
            self.class_counts += torch.bincount(labels[known], minlength=len(self.class_counts))

    def state_dict(self) -> dict[str, Tensor]:
        """Return copies of all tensors, for `load_state_dict`."""
        return {name: getattr(self, name).clone() for name in self.STATE} | self.histogram.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load tensors from `state_dict`."""
        for name in self.STATE:
            setattr(self, name, state[name].clone())
        self.histogram.load_state_dict(state)

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
                means = self.class_sums[:, columns].numpy() / self.class_counts.numpy()[:, None]
            found["class_means"] = means.astype(np.float32)
        return found
