"""The result of `interpret.compare_costs`: accuracy, multiply-accumulates and parameters of networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from interpret.results.result import Result
from interpret.support.wording import count


@dataclass(repr=False, eq=False)
class NetworkCosts(Result):
    """Accuracy and cost of several networks, as `interpret.compare_costs` returns it.

    >>> costs = NetworkCosts(
    ...     ["alexnet", "vgg16"], np.array([56.5, 71.6]), np.array([0.7141887, 15.4702641]), np.array([0.714, 15.47]),
    ...     np.array([61_100_840, 138_357_544]), np.array([61_100_840, 138_357_544]), np.array([224, 224]),
    ... )
    >>> costs.disagreeing
    []
    """

    kind: ClassVar[str] = "costs"
    drawn_by = "interpret.analyses.costs.figure:plot_costs"

    names: list[str]
    top1: NDArray[np.float64]
    """Published top-1 accuracy on ImageNet's validation images, in percent; one central crop."""
    macs: NDArray[np.float64]
    """Multiply-accumulates for one image as counted here, in billions."""
    published_macs: NDArray[np.float64]
    """Published multiply-accumulates, in billions, to three decimals."""
    params: NDArray[np.int64]
    """Number of parameters as counted here."""
    published_params: NDArray[np.int64]
    sides: NDArray[np.int64]
    """Height and width of the input in pixels."""

    @property
    def title(self) -> str:
        return "Accuracy against operations"

    @property
    def extent(self) -> str:
        return count(len(self.names), "network")

    def columns(self) -> dict[str, Any]:
        """Return one row per network, with the fields of this class."""
        numbers = ("top1", "macs", "published_macs", "params", "published_params")
        return {"name": self.names} | {name: getattr(self, name) for name in numbers} | {"side": self.sides}

    @property
    def reading(self) -> str:
        count = len(self.names)
        agree = count - len(self.disagreeing)
        return (
            f"Each of {count} networks of torchvision with its default weights: the published top-1 accuracy on "
            "ImageNet's validation images (one central crop) against the multiply-accumulates of one image, counted "
            "here; a bubble's area is the number of parameters. "
            f"For {agree if agree < count else 'all'} of them the counts equal torchvision's to its three decimals"
            + (f"; they do not for {', '.join(self.disagreeing)}." if self.disagreeing else ".")
        )

    @property
    def disagreeing(self) -> list[str]:
        """The networks whose multiply-accumulates are not the published ones to their three decimals."""
        wrong = np.abs(self.macs - self.published_macs) > 0.0005 + 1e-9
        return [name for name, one in zip(self.names, wrong, strict=True) if one]
