"""The network of a study: what it is, the data it was shown, and its layers in order of execution."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

from interpret.study.reader import StudyReader
from interpret.study.views.layer import LayerView

Layer = TypeVar("Layer", bound=LayerView)
LayerOut = TypeVar("LayerOut", bound=LayerView, covariant=True)


class MakeLayer(Protocol[LayerOut]):
    """Makes the view of a layer."""

    def __call__(
        self, study: StudyReader, record: dict[str, Any], mined: bool, context: bool, class_names: Sequence[str]
    ) -> LayerOut:
        """Return the view of a layer, from the arguments of `LayerView`."""
        ...


class NetworkView(Generic[Layer]):
    """A whole study: the model, its data and its layers in order of execution."""

    def __init__(self, study: StudyReader, make_layer: MakeLayer[Layer], context: bool = True) -> None:
        """Read a study.

        Args:
            study: the study.
            make_layer: `LayerView`, or a class of its own.
            context: whether to show whole images; without, patches that are whole inputs are left out.
        """
        self.study = study
        self.context = context
        self.model: dict[str, Any] = study.info["model"]
        self.data: dict[str, Any] = study.info["data"]
        self.versions: dict[str, str] = study.info["versions"]
        self.settings: dict[str, Any] = study.info["settings"]
        self.input_shape: Sequence[int] = self.model["input_shape"]
        self.predictions = study.predictions()
        """What the network predicts for the source images, or None where the study has no predictions."""
        names = self.model["classes"] if self.predictions is None else self.predictions.classes
        self.class_names = [str(name) for name in names or ()]
        """The classes of the network's outputs; empty where nobody named them."""
        mined = [name for name in (record["name"] for record in study.layers) if name in set(study.mined_layers)]
        # a block's layers are shown one by one, the block itself only where it was mined
        self.layers = [
            make_layer(
                study,
                record,
                record["name"] in mined,
                context,
                self.class_names if mined and record["name"] == mined[-1] else (),
            )
            for record in study.layers
            if record["leaf"] or record["name"] in mined
        ]

    @cached_property
    def mined_layers(self) -> list[Layer]:
        """The layers that have units to show."""
        return [layer for layer in self.layers if layer.mined]

    @property
    def filtered_layers(self) -> list[Layer]:
        """The first layer with filters: those that can be read as they are."""
        return [layer for layer in self.layers if layer.filters][:1]

    @cached_property
    def rules(self) -> list[str]:
        """The rules by which any layer was projected, the deconvnet first."""
        found = {rule for layer in self.mined_layers for rule in layer.rules}
        return sorted(found, key=lambda rule: (rule != "deconvnet", rule))

    @cached_property
    def unit_count(self) -> int:
        """How many units the mined layers have."""
        total = 0
        for layer in self.mined_layers:
            total += layer.unit_count
            layer.forget()
        return total

    @property
    def item_count(self) -> int:
        """How many inputs the network was shown."""
        return int(self.data["items"])

    @property
    def source_count(self) -> int:
        """How many pictures they were cut from."""
        return int(self.data["sources"])

    @cached_property
    def macs(self) -> int:
        """Multiply–adds of one forward pass: those of the outermost layers, which count what is inside them."""
        names = {record["name"] for record in self.study.layers}

        def inside_another(name: str) -> bool:
            parts = name.split(".")
            return any(".".join(parts[:j]) in names for j in range(1, len(parts)))

        return sum(record["macs"] for record in self.study.layers if not inside_another(record["name"]))
