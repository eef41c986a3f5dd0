"""The findings: every other result of a study, as a figure with an explanation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING
from urllib.parse import quote

from interpret.figures.saving import name_clip_paths
from interpret.results import result_class
from interpret.study.reader import IMAGE_PREDICTIONS, StudyReader
from interpret.study.views.figures import show_result
from interpret.support.files import layer_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from interpret.results.result import Result

LARGEST_SVG = 500_000
"""Figures with a larger SVG, in bytes, are written as PNG: they consist mostly of pictures."""
DPI = 160


@dataclass(frozen=True)
class Finding:
    """One result: its figure as a file, and how to read it."""

    kind: str
    name: str
    """Its name among the results of its kind, such as a layer or a transform; may be empty."""
    title: str
    reading: str
    path: str
    """Where the gallery keeps the figure, relative to its root."""
    picture: bytes
    width: int
    height: int

    @property
    def href(self) -> str:
        return quote(self.path)

    @property
    def anchor(self) -> str:
        return quote(f"{self.kind}-{layer_path(self.name)}" if self.name else self.kind, safe="")


def findings(study: StudyReader, context: bool = True) -> Iterator[Finding]:
    """Yield the findings of a study in the order of a report; without context, those that show no whole images."""
    for kind, name in study.drawable_results():
        # the pages of images show these predictions
        if (result_class(kind).shows_images and not context) or (kind, name) == ("predictions", IMAGE_PREDICTIONS):
            continue
        found = show_result(study, kind, name, partial(_finding, kind, name))
        if found is not None:
            yield found


def _finding(kind: str, name: str, result: Result, figure: Figure) -> Finding:
    file = BytesIO()
    # without date and library version, the same result gives the same bytes
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    ending, picture = "svg", name_clip_paths(file.getvalue())
    if len(picture) > LARGEST_SVG:
        file = BytesIO()
        figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
        ending, picture = "png", file.getvalue()
    width, height = (round(float(side) * 96) for side in figure.get_size_inches())
    path = f"findings/{kind}{'-' + layer_path(name) if name else ''}.{ending}"
    return Finding(kind, name, result.title, result.reading, path, picture, width, height)
