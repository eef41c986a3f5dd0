"""The methods of attribution and their settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, cast, get_args

from interpret.analyses.attribution.result import METHODS
from interpret.support.errors import InterpretError, refuse_below_one, unknown

Method = Literal[
    "gradient",
    "gradient_x_input",
    "guided",
    "deconvnet",
    "integrated_gradients",
    "smoothgrad",
    "gradcam",
    "guided_gradcam",
    "occlusion",
    "kernel_shap",
]
assert set(METHODS) == set(get_args(Method))

DEFAULT_BATCH_SIZE = 8
"""Images in one pass; small, since a backward pass keeps all activations."""


@dataclass(frozen=True)
class Settings:
    """The settings of the methods; `interpret.attribute` takes each by name."""

    cam_layer: str | None = None
    """The feature maps that Grad-CAM weighs; None: the last ones below the target (see `find_cam_layer`)."""
    baseline: float = 0.0
    """The input value that stands for "no information": integrated gradients start there, and occlusion and KernelSHAP
    replace pixels by it. 0 is the mean colour where the preprocessing subtracts the mean."""
    points: int = 50
    """Points on the path of integrated gradients."""
    samples: int = 25
    """Noisy copies of each image for SmoothGrad."""
    noise: float = 0.15
    """Standard deviation of their noise, as a share of the image's range of values."""
    window: int | None = None
    """Side of the occluding square in pixels; None: a seventh of the image's shorter side."""
    stride: int | None = None
    """Step of the square in pixels; None: half its side."""
    superpixels: int = 50
    """Approximate number of regions for KernelSHAP."""
    passes: int = 250
    """Images with some regions replaced that KernelSHAP shows to the network."""
    seed: int = 0
    """Seed of SmoothGrad's noise and of KernelSHAP's choice of regions, the same for every image."""
    batch_size: int | None = None
    """Images, or variants of one image, in one pass; None: 8."""

    @property
    def images_per_pass(self) -> int:
        """Images in one pass through the network."""
        return DEFAULT_BATCH_SIZE if self.batch_size is None else self.batch_size

    def changed(self) -> dict[str, Any]:
        """Return the settings that affect the maps and differ from their defaults, by name."""
        chosen = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "batch_size"}
        return {name: value for name, value in chosen.items() if value != getattr(Settings, name)}

    def __post_init__(self) -> None:
        refuse_below_one(batch_size=self.batch_size)
        for name, least in (("points", 1), ("samples", 1), ("superpixels", 2), ("passes", 3)):
            if getattr(self, name) < least:
                raise InterpretError(f"{name} must be at least {least}, not {getattr(self, name)}")
        for name in ("window", "stride"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InterpretError(f"{name} must be at least 1 pixel, not {getattr(self, name)}")
        if self.noise < 0:
            raise InterpretError(f"noise must be 0 or more, not {self.noise}")
        if self.window is not None and self.stride is not None and self.stride > self.window:
            raise InterpretError(
                f"stride must be at most the window's {self.window} pixels, not {self.stride}: pixels would be left out"
            )


def check_method(method: str) -> None:
    """Raise an error if there is no such method."""
    if method not in METHODS:
        raise unknown("method", method, METHODS)


def resolve_methods(methods: Sequence[Method] | None) -> list[Method]:
    """Return the methods named, all for None; raise an error if one does not exist."""
    chosen = cast(list[Method], list(METHODS) if methods is None else list(methods))
    if not chosen:
        raise InterpretError("methods is empty: name at least one, or leave it out for all")
    for method in chosen:
        check_method(method)
    return chosen
