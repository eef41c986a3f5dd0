"""One unit: its hits, their patches of the images, and their projections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from interpret.results.result import Result
from interpret.support.errors import InterpretError
from interpret.support.wording import EDGES, PLACES, ZERO, count, place_in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

    from interpret.analyses.mining.result import MinedLayer, Subject
    from interpret.backprop.composite import RuleName
    from interpret.images.sources import Images
    from interpret.network.model import Model


@dataclass(repr=False, eq=False)
class Unit(Result):
    """One unit's n ≤ k hits, returned by `mined["features.3"].unit(12)`.

    A notebook shows its patches beside its projections, with value and position below each. Both are computed on first
    use; a saved unit keeps those that were computed.
    """

    kind = "unit"
    drawn_by = "interpret.analyses.mining.figure:plot_unit"

    layer: str
    unit: int
    values: NDArray[np.float32]
    """[n] activations, strongest first."""
    images: NDArray[np.int64]
    """[n] items of the data."""
    positions: NDArray[np.int64]
    """[n, 2] rows and columns in the feature map, of signals [n, 1], of volumes [n, 3]; 0 where the output has none."""
    density: float
    """Share of positions above zero, on a sample; NaN if no image of the sample decodes."""
    dead: bool
    """Whether the unit was above zero on no image."""
    rois: NDArray[np.float32] | None = None
    """[n, 4] of a layer that runs once a box: the boxes, top, left, bottom, right in pixels of the network's input."""
    names: list[str] | None = None
    """[n] names of the images; None without the data."""
    colours: str = "RGB"
    """Order of the projections' channels: "RGB", "BGR" or "L"."""
    found_patches: Tensor | None = None
    """Cache of `patches`."""
    found_pictures: NDArray[np.uint8] | None = None
    found_projections: dict[str, Tensor] = field(default_factory=dict)
    """Cache of `projections`, by rule."""
    mined: MinedLayer | None = field(default=None, metadata={"kept": False})
    """The unit's layer, with the network and the images; None for a unit read from a file."""

    @property
    def patches(self) -> Tensor:
        """[n, C, h, w] the windows of the network's inputs that the hits see, strongest first.

        Raises:
            InterpretError: the network and the images are not attached.
        """
        if self.found_patches is None:
            from interpret.analyses.mining.patches import cut_patches, pictures_of

            model, data, layer = self._at_hand("patches")
            one = layer.only(np.array([self.unit]))
            self.found_patches = cut_patches(model, data, {layer.name: one})[layer.name]
            self.found_pictures = pictures_of(model, data, self.found_patches)
        return self.found_patches

    def projections(self, rule: RuleName = "deconvnet") -> Tensor:
        """Return the projections of the hits, [n, C, h, w], as `interpret.project` computes them.

        Args:
            rule: "deconvnet", "guided" or "gradient"; see `interpret.BackwardRule`.

        Raises:
            InterpretError: an unknown rule; the network and the images are not attached, or give other activations than
                were mined.
        """
        if rule not in self.found_projections:
            from interpret.analyses.mining.patches import project_unit

            model, data, layer = self._at_hand(f"projections by {rule!r}")
            self.colours = model.colours
            self.found_projections[rule] = project_unit(model, data, layer, self.unit, rule)
        return self.found_projections[rule]

    @property
    def pictures(self) -> NDArray[np.uint8]:
        """[n, h, w, 3] the patches as pictures."""
        if self.found_pictures is None:
            _ = self.patches
        assert self.found_pictures is not None
        return self.found_pictures

    @property
    def shows_projections(self) -> list[str]:
        """The rules whose projections were computed, or else "deconvnet" if the network and the images are attached."""
        return list(self.found_projections) or ([] if self._subject is None else ["deconvnet"])

    @property
    def title(self) -> str:
        return f"Unit {self.unit} of {self.layer}"

    @property
    def extent(self) -> str:
        strongest = f", the strongest {self.values[0]:.4g}" if len(self.values) else ""
        return f"{count(len(self.values), 'hit')}{strongest}" + (", dead" if self.dead else "")

    @property
    def reading(self) -> str:
        return (
            f"The top-activating images of unit {self.unit} of {self.layer}, strongest first. Each pair shows the "
            f"neuron's receptive field and its projection, {ZERO[self.positions.shape[1]]}. Below: the activation, "
            f"and the neuron's {place_in_words(self.positions.shape[1])} in the feature map."
        )

    def columns(self) -> dict[str, Any]:
        """Return one row per hit: rank, value, image, row, column and, if the data is attached, the source's name."""
        found: dict[str, Any] = {
            "rank": np.arange(len(self.values)),
            "value": self.values,
            "image": self.images,
        }
        found |= dict(zip(PLACES[self.positions.shape[1]], self.positions.T, strict=True))
        if self.rois is not None:
            found |= dict(zip(EDGES[2], self.rois.T, strict=True))
        return found if self.names is None else found | {"source": np.array(self.names, object)}

    def plot(
        self,
        panels: str | Sequence[str] | None = None,
        *,
        rule: RuleName | None = None,
        width: float | None = None,
        figsize: tuple[float, float] | None = None,
        ax: Axes | None = None,
    ) -> Any:
        """Plot the patches beside their projections.

        Args:
            panels: ranks of hits, "0" for the strongest; None: all.
            rule: the rule of the projections; None: "deconvnet", or for a unit from a file the rule stored with it.
            width: width of the figure in inches.
            figsize: width and height in inches, instead of `width`.
            ax: axes to draw into; None: a new figure.
        """
        from interpret.analyses.mining.figure import plot_unit

        return plot_unit(self, panels, rule=rule, width=width, figsize=figsize, ax=ax)

    def _repr_png_(self) -> tuple[bytes, dict[str, int]] | None:
        at_hand = self._subject is not None or self.found_pictures is not None
        return super()._repr_png_() if at_hand and len(self.values) else None

    @property
    def _subject(self) -> Subject | None:
        subject = None if self.mined is None else self.mined.subject
        return subject if subject is not None and subject.data is not None else None

    def _at_hand(self, what: str) -> tuple[Model, Images, MinedLayer]:
        """Return the network, the data and the layer, or raise an error that says how to attach them."""
        if self.mined is None:
            raise InterpretError(
                f"{self.title} was read from a file without its {what}: read the mined layer, call "
                f".attach(model, data) on it and ask it for unit({self.unit})"
            )
        if not len(self.values):
            raise InterpretError(f"{self.title} has no hits, and no {what}: choose another unit")
        return *self.mined.subject.both(), self.mined

    def _stored_fields(self) -> dict[str, Any]:
        if self._subject is not None and len(self.values):
            _ = self.patches  # so that a saved unit can be shown without the network
        return super()._stored_fields()
