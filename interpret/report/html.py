"""The report as one HTML file, with its style and every picture inside it."""

from __future__ import annotations

import base64
import hashlib
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from interpret.figures.saving import name_clip_paths
from interpret.figures.style import ignoring_user_style
from interpret.report.contents import READ_FILTERS, READ_LAYERS, READ_UNITS, UNITS, Report
from interpret.support import numbers
from interpret.support.html import breakable
from interpret.support.version import __version__
from interpret.support.wording import count as counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from interpret.results import Result

TYPES = {".png": "image/png", ".webp": "image/webp", ".jpg": "image/jpeg", ".svg": "image/svg+xml"}


def write_html(report: Report, path: Path) -> None:
    """Write a report as HTML; the same report gives the same bytes."""
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
    text = templates.get_template("report.html").render(
        report=report,
        network=report.network,
        results=list(report.shown_results(_figure)),
        picture=lambda picture: _uri(Path(picture.path).suffix, report.read(picture)),
        style=style,
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        read_filters=READ_FILTERS,
        read_units=READ_UNITS.format(count=UNITS),
        read_layers=READ_LAYERS,
        version=__version__,
    )
    # a file name that is not Unicode contains lone surrogates, which UTF-8 cannot encode
    path.write_bytes(text.encode("utf-8", errors="replace"))


def _figure(result: Result, figure: Figure) -> dict[str, Any]:
    file = BytesIO()
    # lines stay sharp as vectors; of pictures, vectors would be larger and no sharper
    kind = "png" if any(axes.images for axes in figure.axes) else "svg"
    with ignoring_user_style():
        figure.savefig(file, format=kind, dpi=200, metadata={"Software": None} if kind == "png" else {"Date": None})
    width, height = figure.get_size_inches()
    return {
        "title": result.title,
        "reading": result.reading,
        "uri": _uri(f".{kind}", file.getvalue() if kind == "png" else name_clip_paths(file.getvalue())),
        "width": round(width * 116),
        "height": round(height * 116),
    }


def _uri(suffix: str, content: bytes) -> str:
    return f"data:{TYPES[suffix]};base64,{base64.b64encode(content).decode()}"
