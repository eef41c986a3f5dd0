"""A study as a report: one file to read, print or send, HTML or PDF."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from interpret.figures.style import only_house_style
from interpret.gallery.pages import LayerView, NetworkView, Picture, UnitLine
from interpret.results.plotting import plot
from interpret.study.study import Study
from interpret.support import numbers
from interpret.support.errors import InterpretError
from interpret.support.files import replacing
from interpret.support.html import breakable
from interpret.support.progress import progress
from interpret.support.stamps import is_stamped, stamped
from interpret.support.version import __version__
from interpret.support.wording import count as counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from interpret.results import Result

UNITS = 4
"""Units of each layer that are shown: those with the largest values."""
TYPES = {".png": "image/png", ".webp": "image/webp", ".jpg": "image/jpeg", ".svg": "image/svg+xml"}

READ_FILTERS = (
    "Each tile is one kernel of {layer}, drawn as the pattern that it answers to: mid-grey is a weight of zero, light "
    "is positive and dark negative, in the colours of the input where it has three channels."
)
READ_UNITS = (
    "The {count} units of each layer with the largest values. Left, the parts of the images that excite the unit most, "
    "the strongest first; right, what in them carried the excitation, passed back to the pixels by the rule named. "
    "Mid-grey is nothing; each projection is stretched to its own contrast."
)
READ_LAYERS = (
    "In the order in which they run. Output is channels × height × width; MACs are multiply-accumulates for one image; "
    "a receptive field is what one unit sees of the input, in pixels; a local field that part of it from which its "
    "signal comes, where the rest is seen by gates alone."
)


def write_report(study: Study | str | os.PathLike[str], out: str | os.PathLike[str]) -> Path:
    """Write what a study holds as one file, .html or .pdf, and return its path.

    >>> import tempfile, torch
    >>> folder = Path(tempfile.mkdtemp())
    >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 3))
    >>> study = Study(folder / "study", network, torch.rand(12, 1, 10, 10))
    >>> study.mine(k=4)
    >>> write_report(study, folder / "report.html").name
    'report.html'

    The report has the model and where all comes from, its layers, and of the following what the study holds: filters,
    the strongest units with their patches and projections, and every kept result, each as its figure with the sentence
    that tells how to read it. The HTML file needs no other file and no network. It is a function of the study alone,
    needs neither torch nor the model, and twice the same study gives twice the same bytes.

    Args:
        study: a study or its folder.
        out: the file to write; an older report is replaced, and no other file.

    Raises:
        InterpretError: a study that holds nothing yet, a file of another kind, a place where something else stands.
    """
    if not isinstance(study, Study):
        study = Study.open(study)
    out = Path(out).resolve()
    if out.suffix.lower() not in (".html", ".pdf"):
        raise InterpretError(f"out must end in .html or .pdf, not {out.name!r}")
    report = Report(study)
    if report.is_empty:
        raise InterpretError(
            f"study {str(study.path)!r} holds nothing to report yet: mine it, draw its filters or keep a result first"
        )
    with replacing(out, is_stamped) as new:
        if out.suffix.lower() == ".html":
            new.write_bytes(_html(report).encode("utf-8", errors="replace"))
        else:
            from interpret.report.pdf import write_pdf

            write_pdf(report, new)
        new.write_bytes(stamped(new.read_bytes(), out.suffix[1:].lower()))
    return out


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

    def __init__(self, study: Study) -> None:
        self.study = study
        self.network = NetworkView(study)
        self.name = str(self.network.model["name"])
        self.results: list[tuple[str, str]] = study.results

    @property
    def is_empty(self) -> bool:
        return not (self.results or self.network.mined_layers or self.network.filtered_layers)

    @cached_property
    def facts(self) -> list[tuple[str, str]]:
        """What the network and the data are."""
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
        """Where all of it comes from, in full."""
        network = self.network
        settings = [f"{name} = {value}" for name, value in network.settings.items()]
        versions = [f"{name} {value}" for name, value in network.versions.items()]
        skipped, spec = network.data["skipped"], network.model["spec"]
        found = [
            ("Model", self.name if spec in (None, self.name) else f"{self.name} ({spec})"),
            ("Weights", network.model["origin"] or "as the caller had them"),
            ("SHA-256 of the weights", network.model["weights_hash"]),
            ("Data set", str(network.data["name"])),
            ("Fingerprint of the data", network.data["fingerprint"]),
            ("Settings", ", ".join(settings)),
            ("Computed with", ", ".join(versions)),
        ]
        if skipped:
            found.append(("Not readable", f"{counted(len(skipped), 'file')}: " + "; ".join(sorted(skipped)[:5])))
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

    def units(self, layer: LayerView) -> list[UnitLine]:
        """Return a layer's strongest units, of those that have pictures."""
        return [unit for unit in layer.liveliest if unit.patches][:UNITS]

    @property
    def shown_layers(self) -> list[LayerView]:
        """The mined layers whose units have pictures."""
        return [layer for layer in self.network.mined_layers if self.units(layer)]

    def load(self) -> Iterator[Result]:
        """Yield the kept results in the order of their kinds."""
        with progress(len(self.results), "drawing figures", "figure") as bar:
            for kind, name in self.results:
                yield self.study.result(kind, name)
                bar.update()

    def read(self, picture: Picture) -> bytes:
        """Return a picture's file."""
        return (self.study.path / picture.path).read_bytes()


def draw(result: Result) -> Figure:
    """Return a result's figure."""
    with only_house_style():
        return plot(result)


# ---- HTML ------------------------------------------------------------------------------------------------------------


def _html(report: Report) -> str:
    templates = Environment(
        loader=PackageLoader("interpret.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    style = (Path(__file__).parent / "templates" / "report.css").read_text(encoding="utf-8")
    templates.filters["breakable"] = breakable
    templates.filters["counted"] = counted
    templates.filters["value"] = numbers.value
    return templates.get_template("report.html").render(
        report=report,
        network=report.network,
        results=[_figure(result) for result in report.load()],
        picture=lambda picture: _uri(Path(picture.path).suffix, report.read(picture)),
        style=style,
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        read_filters=READ_FILTERS,
        read_units=READ_UNITS.format(count=UNITS),
        read_layers=READ_LAYERS,
        version=__version__,
    )


def _figure(result: Result) -> dict[str, Any]:
    file = BytesIO()
    figure = draw(result)
    # lines stay sharp as vectors; of pictures, vectors would be larger and no sharper
    kind = "png" if any(axes.images for axes in figure.axes) else "svg"
    with only_house_style():
        figure.savefig(file, format=kind, dpi=200, metadata={"Software": None} if kind == "png" else {"Date": None})
    width, height = figure.get_size_inches()
    return {
        "title": result.title,
        "reading": result.reading,
        "uri": _uri(f".{kind}", file.getvalue()),
        "width": round(width * 116),
        "height": round(height * 116),
    }


def _uri(suffix: str, content: bytes) -> str:
    return f"data:{TYPES[suffix]};base64,{base64.b64encode(content).decode()}"
