"""The network of a study as the gallery's pages show it: its layers, images, predictions and other results."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, cached_property

import numpy as np

from interpret.gallery.correlation import Correlates
from interpret.gallery.layer_list import Row, list_rows
from interpret.gallery.layer_page import LayerPage
from interpret.gallery.mosaic import Placed, place_by_similarity
from interpret.gallery.optimised import SmallOptimised
from interpret.gallery.sources import Sample, Source, Sources, label_name, read_samples
from interpret.gallery.unit_results import Curve, UnitResults
from interpret.network.readings import in_words
from interpret.study.reader import UNPREDICTED, StudyReader
from interpret.study.views.network import NetworkView


class NetworkPage(NetworkView[LayerPage]):
    """A whole study as the gallery's templates read it.

    Without `context`, whole images are left out: sources, the sample's inputs, and patches that are whole inputs.
    Without `every_image`, pages of images that are neither hits nor in the sample are left out.
    """

    def __init__(self, study: StudyReader, context: bool = True, every_image: bool = True) -> None:
        super().__init__(study, LayerPage, context)
        self.every_image = every_image
        self.unit_results = UnitResults(study)
        self.correlates_inside: Mapping[str, Correlates] = {}
        self.correlates_outside: Mapping[str, Correlates] = {}
        """For each mined layer, the units of other layers that its units correlate with: set by the writer."""
        self._places = {record["name"]: place for place, record in enumerate(study.layers)}

    @property
    def gated(self) -> bool:
        """Whether units are shown that lie behind a gate."""
        return any(layer.gated for layer in self.mined_layers)

    @property
    def pictured(self) -> bool:
        """Whether pictures of any unit have been made."""
        return any(layer.pictured for layer in self.mined_layers)

    @cached_property
    def traced_at(self) -> dict[int, LayerPage]:
        """The mined layers by their place among all traced layers."""
        return {self._places[layer.name]: layer for layer in self.mined_layers}

    @cached_property
    def rows(self) -> list[Row]:
        """The list of layers."""
        return list_rows(self.layers, self.study.flow())

    # optimised images

    @cache  # noqa: B019 - lives as long as the gallery is written
    def optimised_of(self, layer: LayerPage) -> Mapping[int, SmallOptimised]:
        """Return the optimised image of each unit of a layer that has one."""
        return self.unit_results.optimised.of_layer(layer.name)

    @property
    def optimised_count(self) -> int:
        """How many units have an optimised image."""
        return sum(len(self.optimised_of(layer)) for layer in self.mined_layers)

    @cached_property
    def overview(self) -> list[list[Placed]]:
        """Rows of optimised images of units, laid out by what the units respond to."""
        return place_by_similarity([(layer, self.optimised_of(layer)) for layer in self.mined_layers])

    # its classes and predictions

    def label_name(self, label: int) -> str | None:
        """Return what the data calls a label."""
        return label_name(self.data["classes"] or (), label)

    @property
    def predicted(self) -> bool:
        """Whether the network's predictions of any source image are known."""
        return self.predictions is not None and len(self.predictions.sources) > 0

    @property
    def reading(self) -> str:
        """How the network's outputs became the probabilities of its predictions, as a sentence."""
        return "" if self.predictions is None else in_words(self.predictions.outputs, self.predictions.part)

    @property
    def unpredicted(self) -> str:
        """Why the images have no predictions, as a sentence; empty where they have."""
        if self.predicted:
            return ""
        why = self.settings.get(UNPREDICTED)
        return f"There are no predictions: {why}." if why else "The network’s predictions were not computed."

    @cached_property
    def accuracy(self) -> tuple[float, int] | None:
        """The share of the sample's labelled images whose most probable class is the label, and how many these are."""
        correct = [
            sample.predictions[0].name == sample.label
            for sample in self.samples.values()
            if sample.label is not None and sample.predictions
        ]
        same_names = self.model["classes"] == self.data["classes"]
        return (sum(correct) / len(correct), len(correct)) if correct and same_names else None

    # its images

    @cached_property
    def sources(self) -> Sources:
        """The source images that the study has pictures of, and those of the sample; with context, they have pages."""
        found = Sources(self.study, self.predictions, self.context)
        if self.context:
            found.paged[:] = self.every_image or np.isin(found.numbers, self.study.shown_sources())
        return found

    @property
    def image_count(self) -> int:
        """How many images have a page."""
        return int(self.sources.paged.sum())

    def source(self, number: int) -> Source:
        """Return one of the source pictures."""
        return self.sources[number]

    @cached_property
    def samples(self) -> dict[int, Sample]:
        """The inputs of the sample by item; none without context."""
        if not self.context:
            return {}
        labels, outputs = self.data["classes"] or (), self.model["classes"] or ()
        return read_samples(self.study, self.sources, labels, outputs)

    # what is known of a layer only with all of the study

    def preferred(self, layer: LayerPage) -> list[tuple[int, str]]:
        """Return the classes that a layer's units prefer, with their names."""
        if layer.selectivity is None:
            return []
        found = set(layer.selectivity.classes.tolist()) - {-1}
        return [(label, self.label_name(label) or "") for label in sorted(found)]

    def movement(self, layer: LayerPage) -> list[float | None] | None:
        """Return how far each unit of a layer moves as images are transformed; None where that was not measured."""
        return self.unit_results.movement_of(layer.name, layer.unit_count)

    @property
    def has_effective_fields(self) -> bool:
        """Whether any layer's effective receptive field is known."""
        return any(self.effective_field(layer) for layer in self.mined_layers)

    def effective_field(self, layer: LayerPage) -> tuple[tuple[int, int], float] | None:
        """Return height and width of a layer's effective receptive field, and the share that it holds."""
        return self.unit_results.effective_field(layer.name)

    def curves(self, layer: LayerPage) -> list[Curve]:
        """Return how far a layer moves as images are transformed."""
        return self.unit_results.curves(layer.name)
