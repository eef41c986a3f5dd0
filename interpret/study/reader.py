"""Read a study's folder, without torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from interpret.analyses.mining.result import (
    Mined,
    MinedLayer,
    Subject,
    mined_file,
    read_mined_folder,
    read_mined_layer,
)
from interpret.figures.drawn_inputs import picture_size
from interpret.results.kinds import in_report_order, is_known, result_class
from interpret.results.result import Result
from interpret.results.study_file import read_study_file
from interpret.study.source_lists import SourceLists, read_records
from interpret.support.checksums import DamagedFileError, check_seal, read_json
from interpret.support.errors import InterpretError, unknown, warn
from interpret.support.files import layer_path, refuse_inside
from interpret.support.wording import count as counted

LARGEST_TILE = 64
"""The largest side in pixels of a patch's or projection's tile."""
LARGEST_SOURCE_PICTURE = 320
"""The largest side in pixels of a source's small picture, which takes some 20 kB of a photograph."""
FEW_SOURCES = 10_000
"""The most sources that have pictures of that size."""
SMALLER_SOURCE_PICTURE = 160
"""The largest side of pictures of more sources: some 7 kB each, so that those of a million photographs take 7 GB."""
IMAGE_PREDICTIONS = "images"
"""The name under which a study keeps the predictions of its source images."""
UNFINISHED_MINING = "mining.safetensors"
"""The file in a study's folder that holds the state of unfinished mining."""
UNPREDICTED = "unpredicted"
"""The setting that says why a study has no predictions."""


class StudyReader:
    """What a study's folder holds; reading it needs neither torch, nor the model, nor the data.

    >>> import tempfile, torch
    >>> from interpret import Study
    >>> from torch import nn
    >>> study = Study(tempfile.mkdtemp() + "/study", nn.Sequential(nn.Conv2d(1, 4, 3)), torch.rand(12, 1, 10, 10))
    >>> study.mine(k=2)
    >>> StudyReader(study.path).mined("0").values.shape
    (4, 2)

    Args:
        path: the folder.

    Raises:
        InterpretError: the folder is no study, is damaged, or was written by a newer version.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.info: dict[str, Any] = read_study_file(self.path)

    def __repr__(self) -> str:
        model, data = self.info["model"]["name"], self.info["data"]["name"]
        mined = self.mined_layers
        projected = sum(bool(self.rules(name)) for name in mined)
        layers, results = counted(len(mined), "mined layer"), counted(len(self.results), "other result")
        return f"<Study: {model} on {data} in {self.path}, {layers}, {projected} of them projected, {results}>"

    def refuse_among_images(self, place: str | os.PathLike[str], what: str) -> None:
        """Refuse to write into the folder of the study's images.

        Raises:
            InterpretError: `place` lies there.
        """
        opened_from = self.info["data"].get("opened_from") or {}
        named = opened_from.get("data", [])
        for one in [named] if isinstance(named, str) else named:
            if Path(one).is_absolute():  # else the name of a data set
                refuse_inside(place, one, what)

    # layers

    @property
    def layers(self) -> list[dict[str, Any]]:
        """All traced layers in the order of execution, as in `interpret.Layer`."""
        return self.info["layers"]

    def layer(self, name: str) -> dict[str, Any]:
        """Return one traced layer."""
        for layer in self.layers:
            if layer["name"] == name:
                return layer
        raise unknown("layer", name, [layer["name"] for layer in self.layers])

    @property
    def mined_layers(self) -> list[str]:
        """The layers that have been mined, in the order of execution."""
        return [layer["name"] for layer in self.layers if self.is_mined(layer["name"])]

    def is_mined(self, name: str) -> bool:
        """Return whether a layer has been mined."""
        return mined_file(self.path, name).exists()

    def mined(self, name: str) -> MinedLayer:
        """Return the hits and statistics of a mined layer, with sources, labels and boxes of the hits."""
        if not self.is_mined(name):
            raise unknown("mined layer", name, self.mined_layers)
        return read_mined_layer(mined_file(self.path, name), name, self._subject)

    def all_mined(self) -> Mined:
        """Return what was mined of all layers, as `interpret.mine` does."""
        return read_mined_folder(self.path, self._subject)

    @property
    def _subject(self) -> Subject:
        return Subject(fingerprint=self.info["data"]["fingerprint"])

    # pictures of units

    def rules(self, name: str) -> list[str]:
        """Return the rules by which a layer's hits have been projected."""
        folder = self.path / "projections"
        found = sorted(rule.name for rule in folder.iterdir()) if folder.exists() else []
        return [rule for rule in found if (folder / rule / layer_path(name)).exists()]

    def tile(self, name: str) -> int:
        """Return the side in pixels of a tile in a layer's sprites."""
        field = local_field(self.layer(name))
        sides = self.info["model"]["input_shape"][1:]
        tile = max(picture_size(sides if field is None else [*map(min, field["size"], sides)]))
        return min(tile, LARGEST_TILE) if len(sides) == 2 else tile  # what is drawn has a size of its own

    def patch_sprite(self, name: str, unit: int) -> Path:
        """Return the picture of a unit's patches: tiles in a grid as square as possible, strongest first."""
        return self.path / "patches" / layer_path(name) / f"{unit:04d}.webp"

    def projection_sprite(self, rule: str, name: str, unit: int) -> Path:
        """Return the picture of a unit's projections, laid out as its patches are."""
        return self.path / "projections" / rule / layer_path(name) / f"{unit:04d}.webp"

    def filter_sheet(self, name: str) -> Path:
        """Return the picture of a layer's filters, which need not exist."""
        return self.path / "filters" / f"{layer_path(name)}.png"

    # images

    def sources(self) -> dict[int, dict[str, Any]]:
        """Return name, width, height and label of each source that has a picture."""
        return {source: record for _, records in self.source_lists.records() for source, record in records.items()}

    @cached_property
    def source_lists(self) -> SourceLists:
        """The lists of its sources, which hold a thousand each."""
        return SourceLists(self.path)

    def source_picture(self, source: int) -> Path:
        """Return a small picture of a source."""
        return self.source_lists.list_of(source).picture(source)

    def shown_sources(self) -> NDArray[np.int64]:
        """Return the sources of hits and of the sample, in ascending order."""
        shown = np.unique(np.array([record["source"] for record in self.samples().values()], np.int64))
        for name in self.mined_layers:
            sources = self.mined(name).sources
            if sources is not None:
                shown = np.union1d(shown, sources)
        return shown[shown >= 0]

    def samples(self) -> dict[int, dict[str, Any]]:
        """Return source, name, label and likeliest classes of each item of the sample.

        Empty before `find_activation_range_examples`.
        """
        return read_records(self.path / "samples.json")

    @property
    def detections_file(self) -> Path:
        """Where a detector's boxes are kept."""
        return self.path / "detections.json"

    def detections(self) -> dict[int, list[dict[str, Any]]]:
        """Return the boxes that a detector found in each source, the surest first.

        Each has its box (top, left, bottom, right) in fractions of the picture, its score and the name of its class.
        """
        found: dict[int, Any] = read_records(self.detections_file)
        return found

    def sample_picture(self, item: int) -> Path:
        """Return the picture of an input of the sample, as the network saw it."""
        return self.path / "samples" / f"{item}.webp"

    def activation_range_examples(self, name: str) -> dict[str, NDArray[Any]] | None:
        """Return examples from each unit's whole range of activations on the sample, in five groups.

        Items and values are [C, 5, 4], positions [C, 5, 4, 2], and boxes [C, 5, 4, 4] in fractions of the input; items
        are −1 where a group has fewer. The groups are the quarters by rank, strongest first, and the weakest. None
        before `find_activation_range_examples`.
        """
        file = self.activation_range_file(name)
        return _load_checked(file) if file.exists() else None

    def activation_range_file(self, name: str) -> Path:
        """Return the file of a layer's activation range examples, which need not exist."""
        return self.path / "spread" / f"{layer_path(name)}.safetensors"

    def spread_of(self, name: str) -> dict[str, NDArray[Any]] | None:
        """Call `activation_range_examples`, by its old name."""
        warn("Study.spread_of is now Study.activation_range_examples: call it by that name", DeprecationWarning)
        return self.activation_range_examples(name)

    # connections between layers

    def flow(self) -> list[dict[str, Any]]:
        """Return name, kind and sources of each module and join in order of execution; none before `connect`."""
        # it lies beside the folder in studies of earlier versions
        files = (self.path / "connections" / "flow.json", self.path / "flow.json")
        file = next((one for one in files if one.exists()), None)
        return [] if file is None else list(read_json(file))

    def connections(self, name: str) -> dict[str, NDArray[Any]] | None:
        """Return a layer's strongest weights to the layers that it reads.

        Layers are indices into `layers`.
        """
        file = self.path / "connections" / f"{layer_path(name)}.safetensors"
        return _load_checked(file) if file.exists() else None

    # other results

    def synthesised(self, layer: str = "", kind: str = "neuron") -> Any:
        """Return the optimised images of a layer's units, or of classes (kind "class"); None before `synthesise`."""
        kept = ("synthesised", synthesised_name(layer, kind))
        return self.result(*kept) if kept in self.results else None

    def predictions(self) -> Any:
        """Return what the network makes of the source images, as `interpret.predict` does; None before `predict`.

        Its `sources` say which image each row is of.
        """
        kept = ("predictions", IMAGE_PREDICTIONS)
        found = self.readable_result(*kept) if kept in self.results else None
        return None if found is None or found.sources is None else found

    @property
    def results(self) -> list[tuple[str, str]]:
        """The other analyses' results that the study keeps, as (kind, name), in the order of a report."""
        return in_report_order(self._kept_results())

    def result(self, kind: str, name: str = "") -> Result:
        """Return a result that the study keeps; kind and name may also be one text, as messages have them."""
        in_one_text = {" ".join(one): one for one in self._kept_results()}
        kind, name = in_one_text.get(kind, (kind, name)) if not name else (kind, name)
        if not is_known(kind) and (kind, name) in self._kept_results():
            result_class(kind)  # raises the error that says what is missing
        if (kind, name) not in self.results:
            raise unknown("result", f"{kind} {name}".strip(), [" ".join(one).strip() for one in self.results])
        return Result.load(self.result_file(kind, name))

    def result_file(self, kind: str, name: str) -> Path:
        """Return the file of a result, which need not exist."""
        return self.path / "results" / kind / f"{layer_path(name)}.safetensors"

    def drawable_results(self) -> list[tuple[str, str]]:
        """Return those of `results` that have a figure, and warn of those that cannot be drawn or read."""
        for kind in dict.fromkeys(kind for kind, _ in self._kept_results()):
            if not is_known(kind):
                warn(
                    f"{self.path} keeps results of kind {kind!r}, which are left out, as no class of that kind is "
                    "imported: import the module that defines it first"
                )
            elif not result_class(kind).has_figure():
                warn(f"results of kind {kind!r} are left out, as they have no figure: define plot in their class")
        return [(kind, name) for kind, name in self.results if result_class(kind).has_figure()]

    def readable_result(self, kind: str, name: str = "") -> Any:
        """Return a result that the study keeps; warn of one that cannot be read, and return None."""
        try:
            return self.result(kind, name)
        except InterpretError as error:
            warn(f"{error}; it is left out")
            return None

    def readable_results(self, kind: str) -> dict[str, Any]:
        """Return the results of one kind that can be read, by name, in the order of a report; warn of the others."""
        found = {name: self.readable_result(kind, name) for one, name in self.results if one == kind}
        return {name: result for name, result in found.items() if result is not None}

    def _kept_results(self) -> list[tuple[str, str]]:
        files = sorted((self.path / "results").glob("*/*.safetensors"))
        # not the stem: the file of a result without a name is ".safetensors", which has no ending for pathlib
        return [(file.parent.name, unquote(file.name.removesuffix(".safetensors"))) for file in files]


def _load_checked(file: Path) -> dict[str, NDArray[Any]]:
    check_seal(file)
    try:
        return load_file(file)
    except SafetensorError as error:
        raise DamagedFileError(file, str(error)) from None


def synthesised_name(layer: str, kind: str) -> str:
    """Return the name under which a study keeps optimised images.

    >>> synthesised_name("conv1", "neuron"), synthesised_name("", "class")
    ('conv1 neuron', 'class')
    """
    return f"{layer} {kind}".strip()


def source_picture_side(sources: int) -> int:
    """Return the largest side of the small pictures of so many sources.

    >>> source_picture_side(230), source_picture_side(1_000_000)
    (320, 160)
    """
    return LARGEST_SOURCE_PICTURE if sources <= FEW_SOURCES else SMALLER_SOURCE_PICTURE


def source_picture_size(width: int, height: int) -> tuple[int, int]:
    """Return width and height of a source's small picture, or of what stands in its place.

    >>> source_picture_size(640, 480), source_picture_size(64, 48)
    ((320, 240), (64, 48))
    """
    scale = min(1.0, LARGEST_SOURCE_PICTURE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def local_field(layer: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the window of a layer's patches and projections, as a study keeps it; None for the whole input.

    >>> local_field({"receptive_field": None})  # as version 0.1.0 wrote it, which kept no local field
    """
    field: dict[str, Any] | None = layer.get("local_field", layer["receptive_field"])
    return field


def is_left_out(layer: Mapping[str, Any]) -> bool:
    """Return whether a layer cannot be mined.

    It has no row for each image or box, or no known positions for its units, or was mined and had no box.
    """
    by_box = layer.get("boxes") is not None and not layer.get("without_boxes", False)
    return not ((layer.get("batched", True) or by_box) and layer.get("placed", True))


def units_of(layer: Mapping[str, Any]) -> int:
    """Return the number of units of a layer that can be mined.

    >>> units_of({"output_shape": [7, 7, 96], "units": -1})
    96
    """
    shape = layer["output_shape"]
    units: int = shape[layer.get("units", -len(shape))]
    return units
