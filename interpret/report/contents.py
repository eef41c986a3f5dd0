"""What a report says of a study, whatever format it is written in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from interpret.study.damage import refuse_damage
from interpret.study.reader import StudyReader
from interpret.study.views.figures import Shown, show_result
from interpret.study.views.layer import LayerView
from interpret.study.views.network import NetworkView
from interpret.study.views.pictures import Picture
from interpret.study.views.units import Unit
from interpret.support import numbers
from interpret.support.progress import progress
from interpret.support.wording import count as counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNITS = 4
"""Units of each layer that are shown: those with the largest values."""

READ_FILTERS = (
    "Each tile is one kernel of {layer}, drawn as the pattern that it responds to: mid-grey is a weight of zero, light "
    "is positive and dark negative, in the colours of the input where it has three channels."
)
READ_UNITS = (
    "The {count} units of each layer with the largest values. Left: the patches that activate the unit most, strongest "
    "first. Right: their projections, that is, the activation passed back to the pixels by the rule named. Mid-grey is "
    "zero; each projection is scaled to its own contrast."
)
READ_LAYERS = (
    "In order of execution. Output: channels × height × width. MACs: multiply-accumulates for one image. Receptive "
    "field: the window of the input, in pixels, that one unit sees; local field: the part of it from which the signal "
    "comes, where only gates see the rest."
)


@dataclass(frozen=True)
class LayerLine:
    """A layer as the table of layers shows it."""

    name: str
    kind: str
    output: str
    params: str
    macs: str
    field: str


class Report:
    """What a report says of a study, whatever it is written as."""

    def __init__(self, study: StudyReader) -> None:
        refuse_damage(study)
        self.study = study
        self.network = NetworkView(study, LayerView)
        self.name = str(self.network.model["name"])
        self.results: list[tuple[str, str]] = study.drawable_results()

    @property
    def is_empty(self) -> bool:
        return not (self.results or self.network.mined_layers or self.network.filtered_layers)

    @cached_property
    def facts(self) -> list[tuple[str, str]]:
        """The numbers that describe the network and the data."""
        network = self.network
        facts = [
            ("Parameters", numbers.compact(network.model["params"])),
            ("Multiply–adds", numbers.compact(network.macs)),
            ("Input", numbers.product(network.input_shape)),
        ]
        if network.model["classes"]:
            facts.append(("Classes", numbers.count(len(network.model["classes"]))))
        if network.mined_layers:
            facts.append(("Units mined", numbers.count(network.unit_count)))
        crops = "" if network.item_count == network.source_count else f" in {numbers.count(network.item_count)} crops"
        facts.append(("Images", numbers.count(network.source_count) + crops))
        return facts

    @cached_property
    def provenance(self) -> list[tuple[str, str]]:
        """Model, weights, data, settings and versions, in full."""
        network = self.network
        settings = [f"{name} = {value}" for name, value in network.settings.items()]
        versions = [f"{name} {value}" for name, value in network.versions.items()]
        skipped, spec = network.data["skipped"], network.model["spec"]
        found = [
            ("Model", self.name if spec in (None, self.name) else f"{self.name} ({spec})"),
            ("Weights", network.model["origin"] or "as given"),
            ("SHA-256 of the weights", network.model["weights_hash"]),
            ("Data set", str(network.data["name"])),
            ("Fingerprint of the data", network.data["fingerprint"]),
            ("Settings", ", ".join(settings)),
            ("Computed with", ", ".join(versions)),
        ]
        if skipped:
            found.append(("Unreadable", f"{counted(len(skipped), 'file')}: " + "; ".join(sorted(skipped)[:5])))
        return found

    @cached_property
    def layers(self) -> list[LayerLine]:
        return [
            LayerLine(
                name=layer.name,
                kind=layer.kind,
                output=numbers.product(layer.output_shape),
                params=numbers.count(layer.params) if layer.params else "",
                macs=numbers.compact(layer.macs) if layer.macs else "",
                field=numbers.field(layer.receptive_field, layer.field),
            )
            for layer in self.network.layers
        ]

    def units(self, layer: LayerView) -> list[Unit]:
        """Return a layer's strongest units, of those that have pictures."""
        return [unit for unit in layer.strongest_units if unit.patches][:UNITS]

    @property
    def shown_layers(self) -> list[LayerView]:
        """The mined layers whose units have pictures."""
        return [layer for layer in self.network.mined_layers if self.units(layer)]

    def shown_results(self, show: Callable[[Any, Figure], Shown]) -> Iterator[Shown]:
        """Yield what `show` makes of each kept result and its figure, in the order of their kinds."""
        with progress(len(self.results), "drawing figures", "figure") as bar:
            for kind, name in self.results:
                found = show_result(self.study, kind, name, show)
                if found is not None:
                    yield found
                bar.update()

    def read(self, picture: Picture) -> bytes:
        """Return a picture's file."""
        return (self.study.path / picture.path).read_bytes()
