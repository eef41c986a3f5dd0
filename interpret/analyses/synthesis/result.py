"""The result of `interpret.synthesise`: optimised images, with what tells whether they are true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from interpret.results.result import Result
from interpret.support.errors import InterpretError
from interpret.support.wording import count

if TYPE_CHECKING:
    from torch import Tensor

DAMAGES = ("jpeg", "shift", "blur")
"""What is done to an image to see whether it keeps its activation."""

Numbers = NDArray[np.floating[Any]]


@dataclass(repr=False, eq=False)
class Synthesised(Result):
    """Optimised images of n objectives; beside each stand its numbers, and the strongest natural image.

    >>> one = Synthesised("net", "conv1", ["unit 3 of conv1"], np.array([3]), np.zeros((1, 4, 4, 3), np.uint8),
    ...     values=np.array([8.0]), natural_values=np.array([5.0]))
    >>> one.shares, one.beats_natural
    (array([1.6]), array([ True]))
    """

    kind = "synthesised"
    drawn_by = "interpret.analyses.synthesis.figure:plot_synthesised"
    shows_images = True

    model: str
    layer: str
    """The layer; "" for classes, and where objectives have several."""
    names: list[str]
    """[n] the objectives in words."""
    units: NDArray[np.int64]
    """[n] the units or classes; −1 where an objective is another."""
    pictures: NDArray[np.uint8]
    """[n, h, w, 3] the images, in the size of the receptive field for neurons."""
    values: Numbers
    """[n] the objective's value, measured on the image without transformations."""
    versions: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """[n] which of several images of one objective it is, counted from 0."""
    negative: bool = False
    """Whether the objectives were minimised: what silences the unit."""
    target: str = "neuron"
    """"neuron", "unit", "class", "layer", or "objective"."""
    natural_values: Numbers | None = None
    """[n] the objective's largest value on natural images; None without natural images."""
    natural_pictures: NDArray[np.uint8] | None = None
    """[n, h, w, 3] the natural image, or patch, that has it."""
    kept: dict[str, Numbers] = field(default_factory=dict)
    """Share [n] of the value that the image keeps after "jpeg" (quality 75), "shift" and "blur"."""
    natural_kept: dict[str, Numbers] = field(default_factory=dict)
    """The same for the natural images."""
    distances: Numbers | None = None
    """[n] the distance to the nearest natural patch in features of early layers, in units of the median distance from
    a natural patch to its nearest other."""
    distance_layers: list[str] = field(default_factory=list)
    """The early layers whose features are compared."""
    steps: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """[p] the steps at which `curves` were noted."""
    curves: Numbers = field(default_factory=lambda: np.zeros((0, 0)))
    """[n, p] the objective's values on transformed images during the optimisation; NaN where they were not noted."""
    redirected: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """[n] in how many steps the unit was silent, and the gradient passed through redirected rectifiers."""
    stopped: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """[n] the step at which an activation was NaN or infinite, and the image of the step before was kept; −1: none."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Parametrisation, colours, steps, robustness and the other settings, as far as all images have them."""
    own_settings: list[dict[str, Any]] = field(default_factory=list)
    """[n] of each image the settings that not all of them have; see `settings_of`."""
    data: str = ""
    """The name of the natural images."""
    shown: str = ""
    """A sentence on how inputs are shown as pictures; empty if the preprocessing defines it."""
    inputs: Tensor | None = field(default=None, metadata={"kept": False})
    """[n, C, h, w] the images as inputs of the network; not saved."""

    def __post_init__(self) -> None:
        rows = len(self.names)
        for name, empty in (("versions", 0), ("redirected", 0), ("stopped", -1)):
            if len(getattr(self, name)) != rows:
                setattr(self, name, np.full(rows, empty, np.int64))
        if len(self.curves) != rows:
            self.curves = np.zeros((rows, len(self.steps)))
        if len(self.own_settings) != rows:
            self.own_settings = [{} for _ in range(rows)]

    def settings_of(self, row: int) -> dict[str, Any]:
        """Return the settings of one image."""
        return self.settings | self.own_settings[row]

    def own_settings_in_words(self, row: int) -> str:
        """Return the settings of an image that not all have: "rate 0.05, contrast 1.4"; "" where there are none."""
        return ", ".join(
            f"{name} {'none' if value is None else value}"
            for own, value in self.own_settings[row].items()
            for name, value in (value.items() if isinstance(value, dict) else [(own, value)])
        )

    @property
    def shares(self) -> Numbers | None:
        """[n] the value as a share of the largest natural one; None without natural images."""
        if self.natural_values is None:
            return None
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.natural_values > 0, self.values / self.natural_values, np.nan)

    @property
    def beats_natural(self) -> NDArray[np.bool_] | None:
        """[n] whether the image is stronger than all natural ones, or weaker if negative; None without them."""
        if self.natural_values is None:
            return None
        return self.values < self.natural_values if self.negative else self.values > self.natural_values

    def only(self, rows: Sequence[int] | NDArray[Any]) -> Synthesised:
        """Return some of the images."""
        chosen = np.asarray(rows, np.int64)
        own = dict(vars(self))
        for name, value in own.items():
            if name in ("steps", "settings", "distance_layers"):
                continue
            if isinstance(value, np.ndarray) or (value is not None and name == "inputs"):
                own[name] = value[chosen]
            elif isinstance(value, dict):
                own[name] = {key: one[chosen] for key, one in value.items()}
        own["names"] = [self.names[row] for row in chosen.tolist()]
        own["settings"], own["own_settings"] = _shared([self.settings_of(row) for row in chosen.tolist()])
        return Synthesised(**own)

    def with_others(self, others: Synthesised) -> Synthesised:
        """Return these images and others of the same layer and size; each keeps its settings.

        Raises:
            InterpretError: the others are of another layer, model or kind, or compared with other images.
        """
        for name in ("model", "layer", "target", "negative", "data", "distance_layers"):
            if getattr(self, name) != getattr(others, name):
                raise InterpretError(
                    f"images whose {name} differ ({getattr(self, name)} and {getattr(others, name)}) cannot be joined: "
                    "keep them apart"
                )
        own = dict(vars(self))
        for name, value in own.items():
            other = getattr(others, name)
            if name in ("steps", "curves", "settings", "distance_layers"):
                continue
            if isinstance(value, np.ndarray):
                own[name] = None if other is None else np.concatenate([value, other])
            elif isinstance(value, dict):
                own[name] = {key: np.concatenate([one, other[key]]) for key, one in value.items() if key in other}
        own["names"], own["inputs"] = [*self.names, *others.names], None
        own["steps"] = np.union1d(self.steps, others.steps)
        own["curves"] = np.concatenate([_at_steps(one, own["steps"]) for one in (self, others)])
        own["settings"], own["own_settings"] = _shared(
            [one.settings_of(row) for one in (self, others) for row in range(len(one.names))]
        )
        return Synthesised(**own)

    @property
    def title(self) -> str:
        what = "Images that silence" if self.negative else "Optimised images of"
        plural = {"neuron": "neurons", "unit": "units", "class": "classes", "layer": "the layer"}
        of = f" of {self.layer}" if self.layer and self.target != "layer" else f" {self.layer}".rstrip()
        return f"{what} {plural.get(self.target, 'objectives')}{of if self.target != 'class' else ''}"

    @property
    def extent(self) -> str:
        height, width = self.pictures.shape[1:3]
        return f"{count(len(self.names), 'image')} of {height} × {width} pixels"

    @property
    def reading(self) -> str:
        said = [
            f"Made for {self.model or 'the network'} by {self.settings.get('steps', 'some')} steps from noise"
            if not self.settings.get("start")
            else f"Made for {self.model or 'the network'} by {self.settings.get('steps', 'some')} steps from an image",
            f"in the parametrisation {self.settings.get('parametrisation', '')!r}",
        ]
        text = ", ".join(said) + "; below each the objective's value"
        if self.natural_values is not None:
            text += (
                f" and its share of the largest value on {self.data or 'natural images'}, whose patch stands beside it"
            )
        text += "."
        if differing := sorted(set().union(*self.own_settings)):
            text += f" Not all images were made with the same {' and '.join(differing)}."
        if self.kept:
            text += (
                " Kept is the share of the value after JPEG compression, a shift and a blur: an adversarial pattern "
                "loses it, a picture keeps it."
            )
        if self.distances is not None:
            text += (
                f" Distance is that to the nearest natural patch, in features of {' and '.join(self.distance_layers)} "
                "of the network itself; 1 is usual between natural patches."
            )
        silent = int((self.redirected > 0).sum())
        if silent:
            text += (
                f" {count(silent, 'image')} began where the gradient is zero, as rectifiers were flat: it passed "
                f"through them in up to {count(int(self.redirected.max()), 'step')}."
            )
        return f"{text} {self.shown}".rstrip()

    def columns(self) -> dict[str, Any]:
        """Return one row per image: its objective, unit, version, value, and the numbers beside it."""
        found: dict[str, Any] = {
            "objective": np.array(self.names, object),
            "unit": self.units,
            "version": self.versions,
            "value": self.values,
        }
        shares = self.shares
        if self.natural_values is not None and shares is not None:
            found |= {"natural": self.natural_values, "share": shares, "beats_natural": self.beats_natural}
        found |= {f"kept_{name}": shares for name, shares in self.kept.items()}
        found |= {f"natural_kept_{name}": shares for name, shares in self.natural_kept.items()}
        if self.distances is not None:
            found["distance"] = self.distances
        found |= {
            name: np.array([self.settings_of(row).get(name) for row in range(len(self.names))], object)
            for name in sorted(set().union(*self.own_settings))
        }
        return found | {"redirected": self.redirected, "stopped": self.stopped}


def _shared(settings: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the settings that all images have, and of each image the others.

    >>> _shared([{"steps": 160, "rate": 0.1}, {"steps": 160, "rate": 0.2}])
    ({'steps': 160}, [{'rate': 0.1}, {'rate': 0.2}])
    """
    first = settings[0] if settings else {}
    shared = {key: value for key, value in first.items() if all(key in one and one[key] == value for one in settings)}
    return shared, [{key: value for key, value in one.items() if key not in shared} for one in settings]


def _at_steps(result: Synthesised, steps: NDArray[np.int64]) -> Numbers:
    """Return the curves [n, p] at these steps."""
    found = np.full((len(result.names), len(steps)), np.nan)
    found[:, np.isin(steps, result.steps)] = result.curves
    return found
