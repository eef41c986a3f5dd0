"""The result of `interpret.mine`: the hits of each layer's units, and their statistics over all images."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from interpret.results.result import Result, header_of, refuse_newer, stacked
from interpret.results.study_file import read_study_file
from interpret.results.tables import as_html, as_text, pictures
from interpret.support.checksums import DamagedFileError, check_seal
from interpret.support.errors import InterpretError, unknown
from interpret.support.files import layer_path
from interpret.support.wording import EDGES, PLACES, count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import nn

    from interpret.analyses.mining.unit import Unit
    from interpret.images.sources import Images
    from interpret.network.model import Model

HEADINGS = ["layer", "units", "dead", "median of the maxima", "strongest"]
TILES_PER_LAYER = 6
"""Number of units per layer that a notebook shows, each with its top-activating patch."""


@dataclass
class Subject:
    """The network and the images that were mined, to show the hits; both None for a result read from a file."""

    model: Model | None = None
    data: Images | None = None
    fingerprint: str = ""
    """The fingerprint of the data; "" until it is computed."""
    tiles: dict[str, list[NDArray[np.uint8]]] = field(default_factory=dict)
    """Cache of the tiles for notebooks: layer to those of its most active units."""

    def attach(self, model: Model | nn.Module, data: Any) -> None:
        """Set the network and the data that were mined; see `Mined.attach`."""
        from interpret.images.opening import open_images
        from interpret.network.model import as_model

        network = as_model(model)
        images = open_images(data, network)
        if self.fingerprint and images.fingerprint != self.fingerprint:
            raise InterpretError(
                f"data {images.name!r} is not what was mined (its fingerprint differs): attach the same images"
            )
        self.model, self.data = network, images

    def both(self) -> tuple[Model, Images]:
        """Return the network and the data, or raise an error that says how to attach them."""
        if self.model is None or self.data is None:
            raise InterpretError("what was read from a file holds no images: call .attach(model, data) first")
        return self.model, self.data

    def __getstate__(self) -> dict[str, Any]:
        return vars(Subject(fingerprint=self.fingerprint))  # do not pickle networks and images with results

    def __deepcopy__(self, memo: object) -> Subject:
        return self

    @property
    def known_fingerprint(self) -> str:
        """The fingerprint of the data, computed now if the data is attached; "" if unknown."""
        if not self.fingerprint and self.data is not None:
            self.fingerprint = self.data.fingerprint
        return self.fingerprint


class _UnknownLayerError(InterpretError, KeyError):
    """A layer that was not mined."""

    __str__ = Exception.__str__  # KeyError's puts the sentence in quotes


@dataclass(repr=False, eq=False)
class MinedLayer(Result):
    """The hits and statistics of one layer's C units; a notebook shows a sheet of the most active ones.

    `layer.unit(12)` returns one unit with its patches and projections.
    """

    kind = "mined-layer"
    drawn_by = "interpret.analyses.mining.figure:plot_mined_layer"

    values: NDArray[np.float32]
    """[C, k] activations of the hits, strongest first; −inf for missing hits."""
    images: NDArray[np.int64]
    """[C, k] items of the data; −1 for missing hits."""
    positions: NDArray[np.int64]
    """[C, k, 2] rows and columns in the feature map, of signals [C, k, 1], of volumes [C, k, 3]; 0 for outputs without
    positions."""
    dead: NDArray[np.bool_]
    """[C] whether the unit was above zero on no image."""
    histogram: NDArray[np.int64]
    """[C, 64] number of images whose maximum is in each bin."""
    histogram_start: NDArray[np.float64]
    """[C] start of bin 0."""
    histogram_width: NDArray[np.float64]
    """[C] width of a bin, a power of two."""
    density: NDArray[np.float32]
    """[C] share of positions above zero, on the first 32 images of the sample; NaN if none of them decodes."""
    sample_maxima: NDArray[np.float32]
    """[n, C] the units' maxima on the sample."""
    class_means: NDArray[np.float32] | None = None
    """[K, C] mean of the units' maxima over each class's images, NaN for a class without any; None without labels."""
    sample_images: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """[n] the items of the sample."""
    sources: NDArray[np.int64] | None = None
    """[C, k] source of each hit's item; None, like `labels` and `boxes`, unless read from a study."""
    labels: NDArray[np.int64] | None = None
    """[C, k] label of each hit; −1 if unknown."""
    boxes: NDArray[np.float32] | None = None
    """[C, k, 4] window of the source that each hit sees: top, left, bottom, right, in fractions of its sides."""
    rois: NDArray[np.float32] | None = None
    """[C, k, 4] of a layer that runs once a box: the box of each hit, top, left, bottom, right in pixels of the
    network's input; positions are then in the map of the box, and NaN stands for missing hits. None for all other
    layers."""
    name: str = ""
    subject: Subject = field(default_factory=Subject, metadata={"kept": False})
    """The network and the data, for `unit`."""

    @property
    def maximum(self) -> NDArray[np.float32]:
        """[C] the strongest activation."""
        return self.values[:, 0]

    @property
    def most_active(self) -> NDArray[np.int64]:
        """The units sorted by their strongest activation, strongest first, without units that have no hits."""
        order = np.argsort(-self.maximum, kind="stable")
        return order[self.images[order, 0] >= 0]

    def unit(self, unit: int) -> Unit:
        """Return one unit, with the patches and projections of its hits.

        >>> import interpret, torch
        >>> from torch import nn
        >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
        >>> unit = interpret.mine(network, torch.rand(20, 1, 8, 8), k=3)["0"].unit(2)
        >>> unit.patches.shape, unit.projections("guided").shape
        (torch.Size([3, 1, 3, 3]), torch.Size([3, 1, 3, 3]))

        Raises:
            InterpretError: the layer does not have the unit.
        """
        from interpret.analyses.mining.unit import Unit

        if not 0 <= unit < len(self.values):
            raise InterpretError(
                f"unit {unit} is not in layer {self.name!r}, whose units are 0 to {len(self.values) - 1}"
            )
        filled = self.images[unit] >= 0
        return Unit(
            layer=self.name,
            unit=int(unit),
            values=self.values[unit][filled],
            images=self.images[unit][filled],
            positions=self.positions[unit][filled],
            density=float(self.density[unit]),
            dead=bool(self.dead[unit]),
            rois=None if self.rois is None else self.rois[unit][filled],
            names=self._names(self.images[unit][filled]),
            mined=self,
        )

    def only(self, units: NDArray[np.int64]) -> MinedLayer:
        """Return the layer with only the hits of some units, so that others are not projected."""
        images = np.full_like(self.images, -1)
        images[units] = self.images[units]
        return replace(self, images=images)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all arrays by name, for storage."""
        return {f.name: value for f in fields(self) if isinstance(value := getattr(self, f.name), np.ndarray)}

    def attach(self, model: Model | nn.Module, data: Any) -> Self:
        """Attach the network and the images to a result read from a file; see `Mined.attach`."""
        self.subject.attach(model, data)
        return self

    @property
    def title(self) -> str:
        return f"Units of {self.name}" if self.name else "Units of a layer"

    @property
    def extent(self) -> str:
        return f"{count(len(self.values), 'unit')}, {count(self.values.shape[1], 'hit')} each"

    @property
    def reading(self) -> str:
        return (
            f"The units of {self.name or 'the layer'} with the strongest activations, strongest first. Each has its "
            "number, its strongest activation, and the receptive fields of its top-activating images."
        )

    def columns(self) -> dict[str, Any]:
        """Return one row per hit: unit, rank, value, image, row, column, and the unit's dead and density.

        Of a layer that runs once a box also the box: top, left, bottom and right. If the data is attached, `source` is
        the name of the image.
        """
        units, ranks = np.nonzero(self.images >= 0)
        images = self.images[units, ranks]
        found: dict[str, Any] = {
            "unit": units,
            "rank": ranks,
            "value": self.values[units, ranks],
            "image": images,
        }
        found |= dict(zip(PLACES[self.positions.shape[-1]], self.positions[units, ranks].T, strict=True))
        if self.rois is not None:
            found |= dict(zip(EDGES[2], self.rois[units, ranks].T, strict=True))
        names = self._names(images)
        if names is not None:
            found["source"] = np.array(names, object)
        return found | {"dead": self.dead[units], "density": self.density[units]}

    def plot(
        self,
        panels: str | Sequence[str] | None = None,
        *,
        most: int = 18,
        width: float | None = None,
        figsize: tuple[float, float] | None = None,
        ax: Axes | None = None,
    ) -> Any:
        """Plot a sheet of units, each with its top-activating patches.

        Args:
            panels: numbers of units, in this order; None: the most active units.
            most: largest number of units, unless they are named.
            width: width of the figure in inches.
            figsize: width and height in inches, instead of `width`.
            ax: axes to draw into; None: a new figure.
        """
        from interpret.analyses.mining.figure import plot_mined_layer

        return plot_mined_layer(self, panels, most=most, width=width, figsize=figsize, ax=ax)

    def _repr_png_(self) -> tuple[bytes, dict[str, int]] | None:
        return super()._repr_png_() if self.subject.data is not None else None

    def _repr_html_(self) -> str | None:
        """Return a table of the most active units if the images are not attached."""
        if self.subject.data is not None:
            return None
        chosen = self.most_active[:18]
        rows = [
            [str(unit), f"{self.maximum[unit]:.4g}", str(self.images[unit, 0]), f"{self.density[unit]:.2f}"]
            for unit in chosen.tolist()
        ]
        note = f"{self.extent}; the most active ones. Call .attach(model, data) to see their patches."
        return as_html(self.title, ["unit", "strongest activation", "on image", "density"], rows, note)

    def _names(self, images: NDArray[np.int64]) -> list[str] | None:
        """Return the names of the images' sources; None if the data is not attached."""
        data = self.subject.data
        return None if data is None else [data.source_name(int(data.sources[item])) for item in images.tolist()]


@dataclass(repr=False, eq=False)
class Mined(Result, Mapping[str, MinedLayer]):
    """The result of `mine`, a mapping from layers to hits; `mined["features.3"].values` is [C, k].

    Printing it shows one line per layer. In a notebook, `mined["features.3"]` shows a sheet of the most active units,
    and `mined["features.3"].unit(12)` shows one unit.

    It refers to the network and the images, to show patches and projections. Neither is saved or pickled with it; call
    `attach` on a result that was read from a file.
    """

    kind = "mined"
    drawn_by = "interpret.analyses.mining.figure:plot_mined"

    layers: dict[str, MinedLayer]
    sample_images: NDArray[np.int64]
    """[n] the items of the sample, chosen by hash, the same for all units."""
    skipped: dict[str, str] = field(default_factory=dict)
    """The files that did not decode: name to reason."""
    model: str = ""
    """Name of the network."""
    data: str = ""
    """Name of the data."""
    subject: Subject = field(default_factory=Subject, metadata={"kept": False})

    def __post_init__(self) -> None:
        for name, layer in self.layers.items():
            layer.name, layer.subject, layer.sample_images = name, self.subject, self.sample_images

    def __getitem__(self, layer: str) -> MinedLayer:
        if layer not in self.layers:
            raise _UnknownLayerError(str(unknown("mined layer", layer, self.layers)))
        return self.layers[layer]

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def attach(self, model: Model | nn.Module, data: Any) -> Self:
        """Attach the network and the images to a result read from a file, and return the result.

        >>> import interpret, tempfile, torch
        >>> from torch import nn
        >>> network, images = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()), torch.rand(20, 1, 8, 8)
        >>> file = tempfile.mkdtemp() + "/mined.safetensors"
        >>> interpret.mine(network, images, k=3).save(file)
        >>> interpret.Mined.load(file).attach(network, images)["0"].unit(2).patches.shape
        torch.Size([3, 1, 3, 3])

        Raises:
            InterpretError: the images are not those that were mined.
        """
        self.subject.attach(model, data)
        return self

    @property
    def searched(self) -> int:
        """Number of images that were mined."""
        return next((int(layer.histogram[0].sum()) for layer in self.layers.values()), 0)

    @property
    def title(self) -> str:
        return f"Top-activating images of {self.model}" if self.model else "Top-activating images"

    @property
    def extent(self) -> str:
        units = sum(len(layer.values) for layer in self.layers.values())
        images = f" on {count(self.searched, 'image')} of {self.data}" if self.searched else ""
        return f"{count(len(self), 'layer')}, {count(units, 'unit')}{images}"

    @property
    def reading(self) -> str:
        return (
            "One row per layer: its most active units, strongest first, each with the receptive field in its "
            f"top-activating image. Found by {self.model or 'the network'} in "
            f"{count(self.searched, 'image') if self.searched else 'images'} of {self.data or 'the data'}."
        )

    def __repr__(self) -> str:
        return "\n".join([super().__repr__(), as_text(HEADINGS, [self._line(name) for name in self.layers])])

    def _line(self, name: str) -> list[str]:
        layer = self.layers[name]
        strongest = layer.most_active[:1]
        return [
            name,
            f"{len(layer.values):,}",
            f"{int(layer.dead.sum()):,}",
            f"{np.median(layer.maximum[layer.most_active]):.4g}" if len(strongest) else "–",
            f"{layer.maximum[strongest[0]]:.4g} (unit {strongest[0]})" if len(strongest) else "–",
        ]

    def columns(self) -> dict[str, Any]:
        """Return one row per hit: layer, and the columns of `MinedLayer.columns`; NaN where a layer has no boxes."""
        tables = [(name, layer.columns()) for name, layer in self.layers.items()]
        if any(layer.rois is not None for layer in self.layers.values()):
            without = [columns for _, columns in tables if EDGES[2][0] not in columns]
            for columns in without:
                columns |= {edge: np.full(len(columns["unit"]), np.nan, np.float32) for edge in EDGES[2]}
        return stacked([{"layer": np.full(len(columns["unit"]), name, object)} | columns for name, columns in tables])

    def plot(
        self,
        panels: str | Sequence[str] | None = None,
        *,
        most: int = 12,
        width: float | None = None,
        figsize: tuple[float, float] | None = None,
        ax: Axes | None = None,
    ) -> Any:
        """Plot the most active units of each layer, each with its top-activating patch.

        Args:
            panels: names of layers, in this order; None: all.
            most: largest number of units per layer.
            width: width of the figure in inches.
            figsize: width and height in inches, instead of `width`.
            ax: axes to draw into; None: a new figure.
        """
        from interpret.analyses.mining.figure import plot_mined

        return plot_mined(self, panels, most=most, width=width, figsize=figsize, ax=ax)

    def _repr_png_(self) -> None:
        return None

    def _repr_html_(self) -> str:
        """Return one line per layer, with patches of its most active units if the images are attached."""
        lines = [self._line(name) for name in self.layers]
        headings, note = list(HEADINGS), f"{self.extent}."
        if self.subject.data is not None:
            try:
                tiles = self._tiles()
            except InterpretError as error:
                note += f" Their patches cannot be shown: {error}."
            else:
                headings.append("what excites the most active ones")
                lines = [[*line, pictures(tiles[name])] for line, name in zip(lines, self.layers, strict=True)]
        return as_html(self.title, headings, lines, note)

    def _tiles(self) -> dict[str, list[NDArray[np.uint8]]]:
        """Return the strongest patch of each layer's most active units, computed once."""
        if not self.subject.tiles:
            from interpret.analyses.mining.patches import strongest_patches

            self.subject.tiles = strongest_patches(*self.subject.both(), self.layers, TILES_PER_LAYER)
        return self.subject.tiles

    def _stored_fields(self) -> dict[str, Any]:
        names = [f.name for f in fields(MinedLayer) if f.name not in ("name", "subject", "sample_images")]
        arrays = {
            key: {name: value for name, layer in self.layers.items() if (value := getattr(layer, key)) is not None}
            for key in names
        }
        own = {key: getattr(self, key) for key in ("sample_images", "skipped", "model", "data")}
        return arrays | own | {"order": list(self.layers), "fingerprint": self.subject.known_fingerprint}

    @classmethod
    def _from_stored(cls, kept: dict[str, Any]) -> Self:
        order, subject = kept.pop("order"), Subject(fingerprint=kept.pop("fingerprint"))
        own = {key: kept.pop(key) for key in ("sample_images", "skipped", "model", "data")}
        layers = {
            name: MinedLayer(**{key: arrays[name] for key, arrays in kept.items() if name in arrays}) for name in order
        }
        return cls(layers, **own, subject=subject)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file written by `save`, or all mined layers of a study's folder."""
        if Path(path).is_dir():
            found: Any = read_mined_folder(Path(path))
            return found
        return super().load(path)


def mined_file(study: Path, layer: str) -> Path:
    """Return the file of a mined layer in a study's folder."""
    return study / "mined" / f"{layer_path(layer)}.safetensors"


def read_mined_layer(file: Path, name: str, subject: Subject) -> MinedLayer:
    """Read the hits and statistics of a layer.

    Raises:
        InterpretError: the file is damaged, or has a newer format.
    """
    check_seal(file)
    try:
        with safe_open(file, "np") as stored:
            refuse_newer(file, header_of(stored) or {}, MinedLayer)
            arrays: dict[str, Any] = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118 - no mapping
    except SafetensorError as error:
        raise DamagedFileError(file, str(error)) from None
    return MinedLayer(name=name, subject=subject, **arrays)


def read_mined_folder(study: Path, subject: Subject | None = None) -> Mined:
    """Read all mined layers of a study's folder.

    Raises:
        InterpretError: the folder is not a study, or has no mined layer.
    """
    info = read_study_file(study)
    model, data = info["model"], info["data"]
    subject = Subject(fingerprint=data["fingerprint"]) if subject is None else subject
    files = {record["name"]: mined_file(study, record["name"]) for record in info["layers"]}
    layers = {name: read_mined_layer(file, name, subject) for name, file in files.items() if file.exists()}
    if not layers:
        raise InterpretError(f"{study} has no mined layer: mine it first")
    sample = next(iter(layers.values())).sample_images
    return Mined(layers, sample, dict(data["skipped"]), model["name"], data["name"], subject=subject)
