"""A study: one model on one data set, with every result computed so far, in one folder."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from interpret.analyses.mining.result import (
    Mined,
    MinedLayer,
    Subject,
    mined_file,
    read_mined_folder,
    read_mined_layer,
)
from interpret.results.kinds import in_report_order, is_known, result_class
from interpret.results.result import Result
from interpret.results.study_file import FORMAT, read_study_file
from interpret.support.errors import InterpretError, unknown, warn
from interpret.support.files import discard, layer_path, replacing, taken_over, write_text
from interpret.support.manifest import updating
from interpret.support.wording import count as counted

if TYPE_CHECKING:
    import torch
    from torch import nn

    from interpret.analyses.projection.compute import HitBatch
    from interpret.backprop.rules import Overlap, Rule
    from interpret.images.sources import Images
    from interpret.network.answers import Reading
    from interpret.network.model import Model
    from interpret.network.pixel_scale import PixelScale

# Reading a study needs no torch, so that a gallery can be built where there is none: what computes imports it.

TILE = 64
THUMBNAIL = 320
GROUPS = 5
"""Of each unit's range on the sample: its four quarters by rank, strongest first, and the weakest."""
GROUP_SIZE = 4
PREDICTIONS = 5
IMAGES = "images"
"""The name under which a study keeps the predictions of its source images."""
UNPREDICTED = "unpredicted"
"""The setting that says why a study has no predictions."""
EVERY_IMAGE = 10_000
"""Up to so many source images, each is predicted and has its picture; of more, those of hits and of the sample.

A picture of a photograph takes some 20 kB: so many of them 200 MB.
"""
BEGUN = ("unfinished", "features")
"""What an interrupted analysis leaves of a study that has no result yet."""
TILES = ("patches", "projections")
TILES_AT_ONCE = 2**30
"""Bytes of tiles that wait on the disk until their units are complete."""


class Study:
    """A folder that holds a model's results on a data set, computes what is missing and skips what is done.

    >>> import tempfile, torch
    >>> from torch import nn
    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    >>> study = Study(tempfile.mkdtemp() + "/study", network, torch.rand(12, 1, 10, 10))
    >>> study.mine(k=4)
    >>> study.project()
    >>> study.mined("2").values.shape
    (2, 4)
    >>> Study.open(study.path).rules("2")
    ['deconvnet']
    >>> study  # doctest: +ELLIPSIS
    <Study: Sequential on tensor in ...study, 2 mined layers, 2 of them projected, 0 other results>

    Args:
        path: the folder; made when it does not exist.
        model: the network; its weights must be those that the study was begun with.
        data: the images; they must be those that the study was begun with.
        batch_size, workers, device, dtype: how the network runs; see `interpret.mine`.
        made_from: what to call again to get the model and the data, kept in the study as it is.

    Raises:
        InterpretError: the folder holds something else, or results of other weights or data.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        model: Model | nn.Module,
        data: Any,
        *,
        batch_size: int | None = None,
        workers: int = 0,
        device: str | torch.device | None = None,
        dtype: str = "float32",
        made_from: Mapping[str, str | None] | None = None,
    ) -> None:
        from interpret.images.opening import open_images
        from interpret.network.model import as_model

        self.path = Path(path)
        self.model: Model | None = as_model(model)
        self.data: Images | None = open_images(data, self.model)
        self.batch_size, self.workers, self.device = batch_size, workers, device
        self.dtype = _dtype(dtype)
        begun = _describe(self.model, self.data, dtype)
        if (self.path / "study.json").exists():
            self.info = read_study_file(self.path)
            self._refuse_others(begun)
        else:
            if self.path.exists() and not (
                self.path.is_dir() and all(one.name in BEGUN for one in self.path.iterdir())
            ):
                raise InterpretError(f"{self.path} exists and is no study: choose another folder")
            self.info = begun | {"made_from": dict(made_from or {})}  # written with the first result

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Study:
        """Open a study to read; needs neither the model nor the data."""
        study = cls.__new__(cls)
        study.path, study.model, study.data = Path(path), None, None
        study.info = read_study_file(study.path)
        return study

    # what it holds

    def __repr__(self) -> str:
        model, data = self.info["model"]["name"], self.info["data"]["name"]
        mined = self.mined_layers
        projected = sum(bool(self.rules(name)) for name in mined)
        layers, results = counted(len(mined), "mined layer"), counted(len(self.results), "other result")
        return f"<Study: {model} on {data} in {self.path}, {layers}, {projected} of them projected, {results}>"

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
        return [layer["name"] for layer in self.layers if self._mined_file(layer["name"]).exists()]

    def mined(self, name: str) -> MinedLayer:
        """Return the hits and statistics of a mined layer, with sources, labels and boxes of the hits."""
        if not self._mined_file(name).exists():
            raise unknown("mined layer", name, self.mined_layers)
        return read_mined_layer(self._mined_file(name), name, self._subject)

    def all_mined(self) -> Mined:
        """Return what was mined of all layers, as `interpret.mine` does."""
        return read_mined_folder(self.path, self._subject)

    def rules(self, name: str) -> list[str]:
        """Return the rules by which a layer's hits have been projected."""
        folder = self.path / "projections"
        found = sorted(rule.name for rule in folder.iterdir()) if folder.exists() else []
        return [rule for rule in found if (folder / rule / layer_path(name)).exists()]

    def tile(self, name: str) -> int:
        """Return the side in pixels of a tile in a layer's sprites."""
        field = local_field(self.layer(name))
        height, width = self.info["model"]["input_shape"][1:]
        sides = (height, width) if field is None else (min(field["size"][0], height), min(field["size"][1], width))
        return min(max(sides), TILE)

    def patch_sprite(self, name: str, unit: int) -> Path:
        """Return the picture of a unit's patches: tiles in as square a grid as there is, strongest first."""
        return self.path / "patches" / layer_path(name) / f"{unit:04d}.webp"

    def projection_sprite(self, rule: str, name: str, unit: int) -> Path:
        """Return the picture of a unit's projections, laid out as its patches are."""
        return self.path / "projections" / rule / layer_path(name) / f"{unit:04d}.webp"

    def filter_sheet(self, name: str) -> Path:
        """Return the picture of a layer's filters, which need not exist."""
        return self.path / "filters" / f"{layer_path(name)}.png"

    def sources(self) -> dict[int, dict[str, Any]]:
        """Return name, width, height and label of each source that has hits."""
        file = self.path / "sources.json"
        return {int(key): value for key, value in json.loads(file.read_text("utf-8")).items()} if file.exists() else {}

    def source_picture(self, source: int) -> Path:
        """Return a small picture of a source."""
        return self.path / "sources" / f"{source}.jpg"

    def flow(self) -> list[dict[str, Any]]:
        """Return name, kind and sources of each module and join in order of execution; none before `connect`."""
        file = self.path / "flow.json"
        return list(json.loads(file.read_text("utf-8"))) if file.exists() else []

    def connections(self, name: str) -> dict[str, NDArray[Any]] | None:
        """Return a layer's strongest weights, as in `interpret.tracing.connectivity.Connections`.

        Layers are indices into `layers`.
        """
        file = self.path / "connections" / f"{layer_path(name)}.safetensors"
        return load_file(file) if file.exists() else None

    def spread_of(self, name: str) -> dict[str, NDArray[Any]] | None:
        """Return examples from each unit's whole range on the sample, group by group, or None before `spread`.

        items, values [C, 5, 4], positions [C, 5, 4, 2], and boxes [C, 5, 4, 4] in fractions of the input; −1 where a
        group has fewer.
        """
        file = self.path / "spread" / f"{layer_path(name)}.safetensors"
        return load_file(file) if file.exists() else None

    def samples(self) -> dict[int, dict[str, Any]]:
        """Return of each item of the sample its source, name, label, and its likeliest classes, after `spread`."""
        file = self.path / "samples.json"
        return {int(key): value for key, value in json.loads(file.read_text("utf-8")).items()} if file.exists() else {}

    def sample_picture(self, item: int) -> Path:
        """Return the picture of an input of the sample, as the network saw it."""
        return self.path / "samples" / f"{item}.webp"

    def predictions(self) -> Any:
        """Return what the network makes of the source images, as `interpret.predict` does, or None before `predict`.

        Its `sources` say which image each row is of.
        """
        found: Any = self.result("predictions", IMAGES) if ("predictions", IMAGES) in self.results else None
        return None if found is None or found.sources is None else found

    @property
    def results(self) -> list[tuple[str, str]]:
        """The other analyses' results that it keeps, as (kind, name), in the order in which a report shows them."""
        return in_report_order(self._kept_results())

    def drawable_results(self) -> list[tuple[str, str]]:
        """Return those of `results` that have a figure, and warn of what cannot be drawn or read."""
        for kind in dict.fromkeys(kind for kind, _ in self._kept_results()):
            if not is_known(kind):
                warn(
                    f"{self.path} keeps results of kind {kind!r}, which are left out, as no class of that kind is "
                    "imported: import the module that defines it first"
                )
            elif not result_class(kind).has_figure():
                warn(f"results of kind {kind!r} are left out, as they have no figure: define plot in their class")
        return [(kind, name) for kind, name in self.results if result_class(kind).has_figure()]

    def _kept_results(self) -> list[tuple[str, str]]:
        files = sorted((self.path / "results").glob("*/*.safetensors"))
        # not its stem: without a name, the file is called ".safetensors", which is no ending to pathlib
        return [(file.parent.name, unquote(file.name.removesuffix(".safetensors"))) for file in files]

    def result(self, kind: str, name: str = "") -> Result:
        """Return a result that it keeps."""
        if not is_known(kind) and (kind, name) in self._kept_results():
            result_class(kind)  # which says what is missing
        if (kind, name) not in self.results:
            raise unknown("result", f"{kind} {name}".strip(), [" ".join(one).strip() for one in self.results])
        return Result.load(self._result_file(kind, name))

    # what it computes

    def keep(self, result: Result, name: str = "") -> None:
        """Keep another analysis's result, in the place of an earlier one of the same kind and name.

        The name tells results of one kind apart: the transform of an invariance probe, the layer of an evolution.
        """
        self._note_skipped()
        self._write_info()
        result.save(self._result_file(result.kind, name))

    def mine(self, layers: str | Iterable[str] | None = None, k: int = 9, seed: int = 0) -> None:
        """Mine the layers that have not been mined; unfinished mining goes on where it stopped."""
        from interpret.analyses.mining.compute import mine_remaining
        from interpret.analyses.mining.miner import Miner
        from interpret.execution.resume import Unfinished
        from interpret.network.layers import select_layers

        model, data = self._able()
        settings = self.info["settings"]
        if self.mined_layers and (settings["k"], settings["seed"]) != (k, seed):
            raise InterpretError(
                f"{self.path} was mined with k={settings['k']} and seed={settings['seed']}, not k={k} and seed={seed}: "
                "choose another folder, or the same values"
            )
        chosen = select_layers(
            model.module, layers, among={layer["name"] for layer in self.layers if layer.get("batched", True)}
        )
        missing = [name for name in chosen if not self._mined_file(name).exists()]
        if not missing:
            return
        miner = Miner(model, data, missing, k, seed=seed)
        unfinished = Unfinished(
            self.path / "mining.safetensors", {"layers": missing, "k": k, "seed": seed}, self._write_info
        )
        mine_remaining(miner, unfinished, self.batch_size, self.workers, self.device, self.dtype)
        self._store(miner.result(), k, seed)
        unfinished.forget()

    def project(
        self,
        layers: str | Iterable[str] | None = None,
        rule: Rule | Iterable[Rule] = "deconvnet",
        *,
        overlap: Overlap = "add",
    ) -> None:
        """Project all hits of the mined layers, by one rule or by several, and cut their patches.

        Layers that have both are skipped, and what was interrupted goes on where it stopped. What
        `overlap="overwrite"` makes of a rule is kept beside it, as "deconvnet-overwrite".
        """
        from interpret.network.layers import select_layers

        model, _ = self._able()
        chosen = self.mined_layers if layers is None else select_layers(model.module, layers, among=self.mined_layers)
        for one in dict.fromkeys([rule] if isinstance(rule, str) else rule):
            kind = one if overlap == "add" else f"{one}-{overlap}"
            missing = {name: self.mined(name) for name in chosen if kind not in self.rules(name)}
            if missing:
                self._project(missing, one, overlap, kind)

    def _project(self, mined: Mapping[str, MinedLayer], rule: Any, overlap: Any, kind: str) -> None:
        import torch

        from interpret.analyses.projection.compute import project_hits
        from interpret.execution.resume import Unfinished

        model, data = self._able()
        folder = self.path / "unfinished" / "projections" / kind
        settings = {"rule": kind, "version": _version("interpret-cnn")}
        unfinished = Unfinished(folder / "done.safetensors", settings, self._write_info)
        begun = {name: mask.numpy() for name, mask in unfinished.load().items()}
        published = [name for name in begun if kind in self.rules(name)]
        for name in published:
            del begun[name]
        names = [
            "done.safetensors",
            *(f"{layer_path(name)}.{what}.npy" for name in self.mined_layers for what in TILES),
        ]
        unfinished.refuse_others(names)
        tiles = {
            name: _Tiles(folder / layer_path(name), layer.images >= 0, self.tile(name), begun.pop(name, None))
            for name, layer in mined.items()
        }

        def state() -> dict[str, torch.Tensor]:
            done = {name: found.done for name, found in tiles.items()} | begun  # of layers not asked for now, too
            return {name: torch.from_numpy(mask) for name, mask in done.items()}

        def take(batch: HitBatch) -> None:
            if not folder.exists():
                unfinished.save(state())  # from now on, the folder is known to be its own
            tiles[batch.layer].take(batch, model, data.pixel_scale)

        def publish(group: Iterable[str]) -> None:
            for name in group:
                if not self.patch_sprite(name, 0).parent.exists():
                    _write_sprites(self.patch_sprite(name, 0).parent, tiles[name].read("patches"), self.tile(name))
                sprites = self.projection_sprite(kind, name, 0).parent
                _write_sprites(sprites, tiles[name].read("projections"), self.tile(name))
                discard(folder, [file.name for file in tiles.pop(name).files.values()])

        publish([name for name, found in tiles.items() if found.complete])
        for group in self._groups({name: mined[name] for name in tiles}):
            hits, done = {name: mined[name] for name in group}, {name: tiles[name].done for name in group}
            batches = project_hits(model, data, hits, rule=rule, overlap=overlap, device=self.device, done=done)
            unfinished.take_all(batches, take, state)
            publish(group)
        unfinished.save(state() if begun else {})
        ours = [f"{layer_path(name)}.{what}.npy" for name in published for what in TILES]
        if not begun:
            ours.append("done.safetensors")
        discard(self.path / "unfinished", [f"projections/{kind}/{name}" for name in ours])

    def draw_filters(self, every: bool = False) -> None:
        """Draw the filters of the first convolution, or of every mined one that has more than single weights."""
        from PIL import Image
        from torch import nn

        from interpret.analyses.filters.compute import filter_sheet

        model, _ = self._able()
        parts = dict(model.module.named_modules())
        convolutions = [layer["name"] for layer in self.layers if isinstance(parts[layer["name"]], nn.Conv2d)]
        mined = set(self.mined_layers)
        for name in convolutions:
            drawn = name == convolutions[0] or (every and name in mined and max(parts[name].kernel_size) > 1)
            if not drawn or self.filter_sheet(name).exists():
                continue
            self._write_info()
            with replacing(self.filter_sheet(name)) as new:
                Image.fromarray(filter_sheet(model, name)).save(new, "PNG")

    def connect(self) -> None:
        """Find which layers feed which, and between the units of mined layers the strongest weights."""
        from interpret.tracing.connectivity import connect, trace_flow

        model, _ = self._able()
        names = self.mined_layers
        folder = self.path / "connections"
        known = folder / "layers.json"
        if known.exists() and json.loads(known.read_text("utf-8")) == names:
            return
        self._write_info()
        flow = trace_flow(model, tuple(self.info["model"]["input_shape"]))
        place = {layer["name"]: j for j, layer in enumerate(self.layers)}
        index = np.array([place[name] for name in names] + [-1])  # −1 stays −1
        with updating(folder) as new:
            new.mkdir()
            for name, found in connect(model.module, flow, names).items():
                arrays = {key: np.ascontiguousarray(value) for key, value in vars(found).items()}
                arrays |= {key: index[arrays[key]] for key in ("in_layers", "out_layers")}
                (new / f"{layer_path(name)}.safetensors").write_bytes(save(arrays))
            (new / "layers.json").write_text(json.dumps(names), encoding="utf-8")
        if not (self.path / "flow.json").exists():
            write_text(self.path / "flow.json", json.dumps([vars(node) for node in flow.nodes], indent=0) + "\n")

    def spread(self) -> None:
        """Keep examples from the whole range of each unit of the mined layers, and the sample's inputs as pictures.

        The maxima on the sample are known from mining: this runs the sample once more, to see where they lie, and
        what the network makes of each image. Layers that have it are skipped.
        """
        import torch

        from interpret.execution.batch_size import default_batch_size
        from interpret.execution.execution import prepared
        from interpret.images.batches import Batch, first_images
        from interpret.support.progress import progress

        model, data = self._able()
        missing = [name for name in self.mined_layers if self.spread_of(name) is None]
        if not missing:
            return
        chosen = {name: _spread(self.mined(name)) for name in missing}
        positions = {name: np.zeros((*spread["items"].shape, 2), np.int64) for name, spread in chosen.items()}
        items = np.sort(self.mined(missing[0]).sample_images)
        known = self.samples()
        with (
            prepared(model, first_images(data), self.device) as run,
            progress(len(items), "sampling", "img") as bar,
        ):
            size = self.batch_size or default_batch_size(data, run.device)
            for start in range(0, len(items), size):
                part = items[start : start + size]
                read = [data[item] for item in part.tolist()]
                images = torch.stack([image for image, _ in read])
                batch = Batch(images, torch.from_numpy(part), torch.tensor([label for _, label in read]))
                if start == 0:
                    reading = _reading(model, run.place(images))
                likeliest = _look_again(model, batch, chosen, positions, reading, run, self.dtype)
                self._store_samples(batch, likeliest, reading, known)
                bar.update(len(part))
        for name in missing:
            boxes = self._boxes_in_input(name, positions[name])
            with replacing(self.path / "spread" / f"{layer_path(name)}.safetensors") as new:
                new.write_bytes(save(chosen[name] | {"positions": positions[name], "boxes": boxes}))

    def predict(self) -> None:
        """Keep what the network makes of each source image, by its central part, as the predictions "images".

        Of more than 10,000 images, those that have hits or are in the sample are predicted. Where the network is no
        classifier, or nobody named its classes, the study keeps the reason instead. What is known is not done again.
        """
        import torch

        from interpret.analyses.predictions.compute import predict
        from interpret.execution.batch_size import default_batch_size

        model, data = self._able()
        central = data.central()
        _, firsts = np.unique(central.sources, return_index=True)
        item_of = dict(zip(central.sources[firsts].tolist(), firsts.tolist(), strict=True))
        if len(item_of) > EVERY_IMAGE:
            known = self.sources().keys() | {record["source"] for record in self.samples().values()}
            item_of = {source: item_of[source] for source in sorted(known & item_of.keys())}
        self._picture_sources({source: int(central.labels[item]) for source, item in item_of.items()})
        skipped = self.info["data"]["skipped"]
        readable = [source for source in item_of if central.source_name(source) not in skipped]
        kept = self.predictions()
        if kept is not None and set(readable) <= set(kept.sources.tolist()):
            return
        names = model.classes or data.classes
        home = next(model.module.parameters(), torch.empty(0)).device
        self.info["settings"].pop(UNPREDICTED, None)
        try:
            if not names:
                raise InterpretError("nobody named the classes that the network answers")
            found = predict(
                model,
                central,
                [item_of[source] for source in readable],
                batch_size=self.batch_size or default_batch_size(central, torch.device(self.device or home)),
                device=self.device,
            )
            if found.class_count != len(names):
                raise InterpretError(f"the network answers {found.class_count} classes, and {len(names)} have names")
        except InterpretError as error:
            self.info["settings"][UNPREDICTED] = str(error)
        else:
            self.keep(replace(found, classes=list(names)), IMAGES)
        self._write_info()

    # how

    @property
    def _subject(self) -> Subject:
        return Subject(self.model, self.data, self.info["data"]["fingerprint"])

    def _able(self) -> tuple[Model, Images]:
        if self.model is None or self.data is None:
            raise InterpretError(f"{self.path} was opened to read: use Study(path, model, data) to compute")
        return self.model, self.data

    def _mined_file(self, name: str) -> Path:
        return mined_file(self.path, name)

    def _result_file(self, kind: str, name: str) -> Path:
        return self.path / "results" / kind / f"{layer_path(name)}.safetensors"

    def _write_info(self) -> None:
        write_text(self.path / "study.json", json.dumps(self.info, indent=1, ensure_ascii=False) + "\n", taken_over)

    def _refuse_others(self, begun: Mapping[str, Any]) -> None:
        for part, key, what in (
            ("model", "weights_hash", "weights"),
            ("model", "input_shape", "inputs"),
            ("data", "fingerprint", "data"),
            ("settings", "dtype", "precision"),
        ):
            if self.info[part][key] != begun[part][key]:
                raise InterpretError(
                    f"{self.path} holds results of other {what} ({part} {self.info[part].get('name', '')!r}): "
                    "choose another folder"
                )
        now = {layer["name"]: layer["local_field"] for layer in begun["layers"]}
        for layer in self.info["layers"]:
            if "local_field" in layer or layer["name"] not in now:
                continue
            if local_field(layer) != now[layer["name"]] and self._mined_file(layer["name"]).exists():
                raise InterpretError(
                    f"{self.path} was begun by an earlier version, whose patches behind gates were the whole image "
                    f"(layer {layer['name']!r}): choose another folder"
                )
            layer["local_field"] = now[layer["name"]]

    def _note_skipped(self) -> None:
        """Take into account which images turned out not to decode: they are listed, and not counted."""
        if self.data is not None and self.data.skipped:
            items, sources = self.data.count_readable()
            self.info["data"]["skipped"] |= self.data.skipped
            self.info["data"] |= {"items": items, "sources": sources}

    def _store(self, mined: Mined, k: int, seed: int) -> None:
        """Write what was mined; a layer's own file comes last, because it says that the layer is done."""
        self.info["settings"] |= {"k": k, "seed": seed}
        self._note_skipped()
        self._write_info()
        places = {name: self._places(name, layer) for name, layer in mined.items()}
        self._store_sources(places.values())
        for name, layer in mined.items():
            replace(layer, **places[name]).save(self._mined_file(name))

    def _places(self, name: str, layer: MinedLayer) -> dict[str, Any]:
        """Return for each hit its source, its label, and where in the source the neuron looks."""
        import torch

        _, data = self._able()
        shape = tuple(self.info["model"]["input_shape"])
        filled = layer.images >= 0
        items = layer.images[filled]
        sources = np.full(layer.images.shape, -1, np.int64)
        labels = np.full(layer.images.shape, -1, np.int64)
        boxes = np.zeros((*layer.images.shape, 4), np.float32)
        sources[filled], labels[filled] = data.sources[items], data.labels[items]
        places = torch.from_numpy(layer.positions[filled])
        inside = self._crop(name).boxes(places).numpy() / np.array([*shape[1:], *shape[1:]])
        windows = {item: data.window(item) for item in np.unique(items).tolist()}
        window = np.array([windows[item] for item in items.tolist()], np.float64).reshape(-1, 4)
        corner, size = window[:, [0, 1, 0, 1]], (window[:, 2:] - window[:, :2])[:, [0, 1, 0, 1]]
        boxes[filled] = np.clip(corner + inside * size, 0, 1)
        return {"sources": sources, "labels": labels, "boxes": boxes}

    def _crop(self, name: str) -> Any:
        """Return what a layer's neurons see of an input."""
        from interpret.analyses.projection.compute import Crop
        from interpret.tracing.tracing import trace

        model, _ = self._able()
        shape = tuple(self.info["model"]["input_shape"])
        if not hasattr(self, "_traced"):
            self._traced = trace(model, shape)
        return Crop.of(self._traced[name], shape[1:])

    def _boxes_in_input(self, name: str, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return where neurons look, in fractions of the network's input."""
        import torch

        height, width = self.info["model"]["input_shape"][1:]
        boxes = self._crop(name).boxes(torch.from_numpy(positions.reshape(-1, 2))).numpy()
        fractions = np.clip(boxes / np.array([height, width, height, width]), 0, 1)
        return fractions.astype(np.float32).reshape(*positions.shape[:-1], 4)

    def _store_samples(
        self, batch: Any, likeliest: list[Any] | None, reading: Reading | None, known: dict[int, dict[str, Any]]
    ) -> None:
        """Keep the inputs of the sample as pictures, and what is known of them; `known` collects it."""
        from interpret.images.display import inputs_to_bytes, webp

        _, data = self._able()
        pictures = inputs_to_bytes(batch.images, data.pixel_scale)
        for row, (item, label) in enumerate(zip(batch.items.tolist(), batch.labels.tolist(), strict=True)):
            source = int(data.sources[item])
            known[item] = {"source": source, "name": data.source_name(source), "label": int(label)}
            if likeliest is not None and reading is not None:
                known[item] |= {"classes": likeliest[row][0], "probabilities": likeliest[row][1]}
                known[item] |= {"outputs": reading.outputs, "part": reading.part}
            if self.sample_picture(item).exists():
                continue
            with replacing(self.sample_picture(item)) as new:
                new.write_bytes(webp(pictures[row], min(pictures.shape[1:3])))
        write_text(self.path / "samples.json", json.dumps(known, ensure_ascii=False, indent=0) + "\n", taken_over)

    def _store_sources(self, found: Iterable[Mapping[str, NDArray[Any]]]) -> None:
        """Keep a small picture of each source that has hits."""
        labels: dict[int, int] = {}
        for arrays in found:
            labels |= dict(zip(arrays["sources"].ravel().tolist(), arrays["labels"].ravel().tolist(), strict=True))
        labels.pop(-1, None)
        self._picture_sources(labels)

    def _picture_sources(self, labels: Mapping[int, int]) -> None:
        """Keep a small picture of each of these sources, with its label; one that does not decode is skipped."""
        from interpret.images.folder import UnreadableImage

        _, data = self._able()
        known = self.sources()
        missing = [
            source for source in sorted(labels) if source not in known or not self.source_picture(source).exists()
        ]
        for source in missing:
            name = data.source_name(source)
            if name in self.info["data"]["skipped"]:
                continue
            try:
                picture = data.source_picture(source).convert("RGB")
            except UnreadableImage as error:
                self.info["data"]["skipped"][name] = error.reason
                continue
            known[source] = {
                "name": name,
                "width": picture.width,
                "height": picture.height,
                "label": labels[source],
            }
            if self.source_picture(source).exists():
                continue
            picture.thumbnail((THUMBNAIL, THUMBNAIL))
            picture.info.clear()  # no comment or profile of the original goes with it
            with replacing(self.source_picture(source)) as new:
                picture.save(new, "JPEG", quality=85, optimize=True)
        if missing:
            listed = {str(source): known[source] for source in sorted(known)}
            write_text(self.path / "sources.json", json.dumps(listed, ensure_ascii=False, indent=0) + "\n", taken_over)

    def _groups(self, mined: Mapping[str, MinedLayer]) -> Iterator[list[str]]:
        """Yield layers in groups whose tiles may wait together: each group reads the data once."""
        group: list[str] = []
        held = 0
        for name in mined:
            size = 2 * 3 * mined[name].values.size * self.tile(name) ** 2
            if group and held + size > TILES_AT_ONCE:
                yield group
                group, held = [], 0
            group.append(name)
            held += size
        if group:
            yield group


def _spread(mined: MinedLayer) -> dict[str, NDArray[Any]]:
    """Return which items of the sample show each unit's range: items and values [C, 5, 4], −1 and NaN where few."""
    maxima, items = mined.sample_maxima, mined.sample_images
    count, units = maxima.shape
    # where values tie, the lowest item comes first
    order = np.lexsort((np.broadcast_to(items[:, None], maxima.shape), -maxima), axis=0)
    groups = [
        np.unique(np.minimum((quarter + (np.arange(GROUP_SIZE) + 0.5) / GROUP_SIZE) / 4 * count, count - 1).astype(int))
        for quarter in range(4)
    ]
    groups.append(np.arange(max(count - GROUP_SIZE, 0), count))
    chosen = np.full((units, GROUPS, GROUP_SIZE), -1, np.int64)
    values = np.full((units, GROUPS, GROUP_SIZE), np.nan, np.float32)
    for group, ranks in enumerate(groups):
        chosen[:, group, : len(ranks)] = items[order[ranks]].T
        values[:, group, : len(ranks)] = np.take_along_axis(maxima, order[ranks], 0).T
    return {"items": chosen, "values": values}


def _reading(model: Model, images: Any) -> Reading | None:
    """Return how the network's outputs are read; None where they are not the classes of its model."""
    from interpret.network.answers import NoScores, find_reading

    try:
        found = find_reading(model, images)
    except NoScores:
        return None
    return found if model.classes is not None and found.classes == len(model.classes) else None


def _look_again(
    model: Model,
    batch: Any,
    chosen: Mapping[str, Mapping[str, NDArray[Any]]],
    positions: Mapping[str, NDArray[np.int64]],
    reading: Reading | None,
    run: Any,
    dtype: Any,
) -> list[Any] | None:
    """Write where the chosen maxima of a batch lie into `positions`, and return each image's likeliest classes."""
    from contextlib import nullcontext

    import torch

    from interpret.analyses.mining.batch_maxima import strongest_places
    from interpret.network.answers import scores_of
    from interpret.network.forward import call_network
    from interpret.network.layers import first_outputs

    row_of = {item: row for row, item in enumerate(batch.items.tolist())}

    def receive(name: str, output: Any) -> None:
        if output.dim() != 4:
            return
        items = chosen[name]["items"]
        units, groups, places = np.nonzero(np.isin(items, batch.items.numpy()))
        if not len(units):
            return
        rows = torch.tensor([row_of[item] for item in items[units, groups, places].tolist()])
        flat = strongest_places(name, output)[1].cpu()[rows, torch.from_numpy(units)].numpy()
        positions[name][units, groups, places] = np.stack([flat // output.shape[3], flat % output.shape[3]], 1)

    images = run.place(batch.images)
    autocast = torch.autocast(images.device.type, dtype) if dtype is not None else nullcontext()
    with torch.inference_mode(), autocast, first_outputs(model.module, chosen, receive, count=len(images)):
        outputs = call_network(model.module, images)
    if reading is None:
        return None
    best = reading.probabilities(scores_of(outputs, len(images))).topk(min(PREDICTIONS, reading.classes))
    shares = [[round(share, 4) for share in row] for row in best.values.tolist()]
    return list(zip(best.indices.tolist(), shares, strict=True))


class _Tiles:
    """The tiles of a layer's hits as they come in, in files, which an interrupt leaves."""

    def __init__(self, path: Path, filled: NDArray[np.bool_], side: int, done: NDArray[np.bool_] | None = None) -> None:
        self.files = {what: path.with_name(f"{path.name}.{what}.npy") for what in TILES}
        self.filled = filled
        self.side = side
        kept = done is not None and done.shape == filled.shape and all(file.exists() for file in self.files.values())
        self.done = done if done is not None and kept else np.zeros(filled.shape, bool)
        """[C, k] which hits have their tiles in the files."""

    @property
    def complete(self) -> bool:
        return bool((self.done | ~self.filled).all())

    def take(self, batch: Any, model: Model, scale: PixelScale) -> None:
        from interpret.images.display import contrast, inputs_to_bytes, shrink, to_bytes

        tiles = {
            "projections": to_bytes(contrast(shrink(batch.projections, self.side), model.colours)),
            "patches": inputs_to_bytes(shrink(batch.patches, self.side), scale),
        }
        for what, file in self.files.items():
            shape = tiles[what].shape[1:]
            if not self.done.any():
                file.parent.mkdir(parents=True, exist_ok=True)
                np.lib.format.open_memmap(file, "w+", np.uint8, (*self.filled.shape, *shape))
            size = math.prod(shape)
            with file.open("r+b") as opened:  # and no mapping, by which a full disk would be a crash
                begin = opened.seek(0, os.SEEK_END) - self.filled.size * size
                for unit, rank, tile in zip(batch.units, batch.ranks, tiles[what], strict=True):
                    opened.seek(begin + (unit * self.filled.shape[1] + rank) * size)
                    opened.write(tile.tobytes())
        self.done[batch.units, batch.ranks] = True

    def read(self, what: str) -> NDArray[np.uint8]:
        """Return the tiles [C, k, h, w, 3], grey where there is no hit; empty where there is none at all."""
        if not self.done.any():
            return np.zeros(0, np.uint8)
        tiles: NDArray[np.uint8] = np.load(self.files[what])
        tiles[~self.done] = 128
        return tiles


def _write_sprites(folder: Path, tiles: NDArray[np.uint8], side: int) -> None:
    from interpret.images.display import sheet, webp

    with replacing(folder) as new, ThreadPoolExecutor(os.cpu_count()) as pool:
        new.mkdir()

        def write(unit: int) -> None:
            (new / f"{unit:04d}.webp").write_bytes(webp(sheet(tiles[unit]), side))

        list(pool.map(write, range(len(tiles))))


def _dtype(name: str) -> Any:
    import torch

    if name not in ("float32", "bfloat16"):
        raise InterpretError(f"dtype must be float32 or bfloat16, not {name!r}")
    return torch.bfloat16 if name == "bfloat16" else None


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _describe(model: Model, data: Images, dtype: str) -> dict[str, Any]:
    """Return what study.json says of a study before anything is computed."""
    from interpret.images.batches import first_images
    from interpret.tracing.tracing import trace

    shape = tuple(first_images(data).shape[1:])
    layers = trace(model, shape)
    return {
        "format": FORMAT,
        "versions": {name: _version(name) for name in ("interpret-cnn", "torch", "torchvision", "numpy")}
        | {"python": platform.python_version()},
        "model": {
            "name": model.name,
            "spec": model.spec,
            "weights": model.weights,
            "origin": model.origin,
            "weights_hash": model.weights_hash,
            "params": sum(parameter.numel() for parameter in model.module.parameters()),
            "input_shape": list(shape),
            "classes": list(model.classes) if model.classes is not None else None,
            "card": model.card,
            "uncounted": layers.uncounted,
            "preprocess": model.preprocess.to_dict() if model.preprocess is not None else None,
        },
        "data": {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "items": len(data),
            "sources": len(np.unique(data.sources)),
            "classes": list(data.classes) if data.classes is not None else None,
            "skipped": dict(data.skipped),
            "opened_from": data.opened_from,
            "notes": list(data.notes),
            "shown": data.pixel_scale.said,
        },
        "settings": {"dtype": dtype},
        "layers": [_layer_record(layer) for layer in layers.values()],
    }


def thumbnail_size(width: int, height: int) -> tuple[int, int]:
    """Return width and height of a source's small picture.

    >>> thumbnail_size(640, 480), thumbnail_size(64, 48)
    ((320, 240), (64, 48))
    """
    scale = min(1.0, THUMBNAIL / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def local_field(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the window of a layer's patches and projections, as a study keeps it; None for the whole input.

    >>> local_field({"receptive_field": None})  # as version 0.1.0 wrote it, which knew of no other
    """
    field: dict[str, Any] | None = record.get("local_field", record["receptive_field"])
    return field


def _layer_record(layer: Any) -> dict[str, Any]:
    return {
        "name": layer.name,
        "kind": layer.kind,
        "leaf": layer.leaf,
        "batched": layer.batched,
        "input_shape": None if layer.input_shape is None else list(layer.input_shape),
        "output_shape": list(layer.output_shape),
        "params": layer.params,
        "macs": layer.macs,
        "receptive_field": _field_record(layer.receptive_field),
        "local_field": _field_record(layer.local_field),
    }


def _field_record(field: Any) -> dict[str, Any] | None:
    return None if field is None else {key: list(getattr(field, key)) for key in ("size", "stride", "start")}
