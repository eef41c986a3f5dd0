"""The result of `interpret.attribute`: maps of how much each pixel speaks for a target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from interpret.results.result import Result
from interpret.support.wording import count

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(repr=False, eq=False)
class Attribution(Result):
    """Maps of B images for one target each."""

    kind = "attribution"
    drawn_by = "interpret.analyses.attribution.figure:plot_attribution"
    shows_images = True

    maps: Tensor
    """[B, C, H, W] as the images; [B, 1, H, W] by Grad-CAM, occlusion and KernelSHAP, which do not separate colours."""
    channels: Tensor
    """[B] the class, or the channel of the layer."""
    positions: Tensor | None
    """[B, 2] the neuron's row and column; None where the target has no positions."""
    scores: Tensor
    """[B] the target's value on the image."""
    method: str = ""
    layer: str | None = None
    """The layer of a hidden unit; None: the network's output."""
    model: str = ""
    target_names: list[str] | None = None
    """[B] names of the targets."""
    pictures: NDArray[np.uint8] | None = None
    """[B, H, W, 3] the images."""
    shown: str = ""
    """A sentence on the display scale of the pictures; empty if the preprocessing defines it."""

    @property
    def title(self) -> str:
        where = "" if self.layer is None else f" at {self.layer}"
        return f"Attribution maps of {self.model or 'a network'}{where}, by {METHODS.get(self.method, self.method)}"

    @property
    def extent(self) -> str:
        return count(len(self.maps), "image")

    @property
    def reading(self) -> str:
        target = "class" if self.layer is None else "unit"
        return (
            f"Beside each image its map by {METHODS.get(self.method, self.method)}, summed over colours and scaled by "
            f"the 99th percentile of its magnitude: red speaks for the {target} named below, blue against it."
            f"{self.shown and ' ' + self.shown}"
        )

    def columns(self) -> dict[str, Any]:
        """Return one row per image: image, channel, target, score, and of a hidden neuron row and column."""
        found: dict[str, Any] = {"image": list(range(len(self.maps))), "channel": self.channels.tolist()}
        if self.target_names is not None:
            found["target"] = list(self.target_names)
        found["score"] = self.scores.tolist()
        if self.positions is not None:
            at = self.positions.tolist()
            found |= {"row": [row for row, _ in at], "column": [column for _, column in at]}
        return found


METHODS = {
    "gradient": "Gradient",
    "gradient_x_input": "Gradient × input",
    "integrated_gradients": "Integrated gradients",
    "smoothgrad": "SmoothGrad",
    "guided": "Guided backpropagation",
    "deconvnet": "Deconvnet",
    "gradcam": "Grad-CAM",
    "guided_gradcam": "Guided Grad-CAM",
    "occlusion": "Occlusion",
    "kernel_shap": "KernelSHAP",
}
"""Methods by name, with their titles in figures."""
