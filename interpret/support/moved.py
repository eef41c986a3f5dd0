"""Modules that have moved: importing one by its old name works for this version, with a warning.

>>> NEW_NAMES["mining"]
'analyses.mining.compute'
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

NEW_NAMES = {
    "activations": "analyses.feature_maps.compute",
    "answers": "network.answers",
    "attribution": "analyses.attribution.compute",
    "checkpointing": "network.checkpointing",
    "checkpoints": "loading.checkpoints",
    "comparison": "analyses.comparison.compute",
    "convolutions": "backprop.windowed_convolution",
    "correspondence": "analyses.correspondence.compute",
    "costs": "analyses.costs.compute",
    "data": "images.opening",
    "datasets": "images.datasets",
    "display": "images.display",
    "dry_run": "network.dry_run",
    "errors": "support.errors",
    "evolution": "analyses.evolution.compute",
    "files": "support.files",
    "filters": "analyses.filters.compute",
    "flow": "tracing.connectivity",
    "folder": "images.folder",
    "forward": "network.forward",
    "gallery.numbers": "support.numbers",
    "imagenet": "images.imagenet",
    "inputs": "images.several_inputs",
    "interrupts": "support.interrupts",
    "invariance": "analyses.invariance.compute",
    "items": "images.items",
    "layers": "network.layers",
    "libraries": "loading.torchvision_timm",
    "loaders": "images.loaders",
    "macs": "tracing.macs",
    "manifest": "support.manifest",
    "methods": "analyses.methods.compute",
    "mining": "analyses.mining.compute",
    "model": "network.model",
    "model_files": "loading.folders",
    "modes": "network.modes",
    "neighbours": "analyses.neighbours.compute",
    "occlusion": "analyses.occlusion.compute",
    "opencv": "analyses.attribution.opencv",
    "output_size": "tracing.conv_arithmetic",
    "packages": "loading.packages",
    "parallel": "execution.parallel",
    "patches": "analyses.mining.patches",
    "pixel_scale": "network.pixel_scale",
    "plots": "results.plotting",
    "plots.attribution": "analyses.attribution.figure",
    "plots.comparison": "analyses.comparison.figure",
    "plots.correspondence": "analyses.correspondence.figure",
    "plots.costs": "analyses.costs.figure",
    "plots.evolution": "analyses.evolution.figure",
    "plots.feature_maps": "analyses.feature_maps.figure",
    "plots.invariance": "analyses.invariance.figure",
    "plots.labels": "figures.labels",
    "plots.lettering": "figures.lettering",
    "plots.methods": "analyses.methods.figure",
    "plots.mined": "analyses.mining.figure",
    "plots.neighbours": "analyses.neighbours.figure",
    "plots.occlusion": "analyses.occlusion.figure",
    "plots.panels": "figures.panels",
    "plots.pictures": "figures.pictures",
    "plots.predictions": "analyses.predictions.figure",
    "plots.projections": "analyses.projection.figure",
    "plots.sanity": "analyses.sanity.figure",
    "plots.sheet": "figures.sheet",
    "plots.style": "figures.style",
    "plots.tiles": "figures.tiles",
    "plots.trace": "tracing.figure",
    "pointwise": "network.pointwise",
    "predictions": "analyses.predictions.compute",
    "preprocess": "network.preprocess",
    "progress": "support.progress",
    "projection": "analyses.projection.compute",
    "receptive_field": "tracing.receptive_field",
    "recipes": "loading.recipes",
    "report_pdf": "report.pdf",
    "results.attribution": "analyses.attribution.result",
    "results.comparison": "analyses.comparison.result",
    "results.correspondence": "analyses.correspondence.result",
    "results.costs": "analyses.costs.result",
    "results.evolution": "analyses.evolution.result",
    "results.feature_maps": "analyses.feature_maps.result",
    "results.invariance": "analyses.invariance.result",
    "results.methods": "analyses.methods.result",
    "results.mined": "analyses.mining.result",
    "results.neighbours": "analyses.neighbours.result",
    "results.occlusion": "analyses.occlusion.result",
    "results.predictions": "analyses.predictions.result",
    "results.projections": "analyses.projection.result",
    "results.readings": "network.readings",
    "results.sanity": "analyses.sanity.result",
    "results.unit": "analyses.mining.unit",
    "rules": "backprop.rules",
    "sanity": "analyses.sanity.compute",
    "similarity": "analyses.attribution.similarity",
    "sources": "loading.model_source",
    "stamps": "support.stamps",
    "summary": "tracing.summary",
    "superpixels": "analyses.attribution.superpixels",
    "torch_transforms": "network.torch_transforms",
    "transforms": "analyses.invariance.transforms",
    "unfinished": "execution.resume",
    "weights": "network.weights",
    "windows": "analyses.occlusion.windowed_forward",
    "wrappers": "network.wrappers",
}
"""Old names below `interpret.`, and the new ones."""

ALSO_IN = {
    "attribution": ["cam_layer", "maps", "settings", "target"],
    "filters": ["figure", "sheet"],
    "data": [
        "batches",
        "dataset_images",
        "inputs",
        "picture_images",
        "sampling",
        "sources",
        "tensor_images",
        "tiling",
    ],
    "projection": ["crop", "hit_projection", "hits", "signals"],
    "invariance": ["curves", "prober", "surroundings"],
    "neighbours": ["feature_index", "search"],
    "mining": ["batch_maxima", "histogram", "miner", "statistics", "top_k"],
}
"""Old names of modules that were split: the modules beside the new one that hold the rest of their content."""

_PACKAGE = "interpret."


class _OldNames(MetaPathFinder, Loader):
    """Import the module of the new name when an old name is not found."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        old = name.removeprefix(_PACKAGE)
        return ModuleSpec(name, self) if name.startswith(_PACKAGE) and old in NEW_NAMES else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        new = _PACKAGE + NEW_NAMES[spec.name.removeprefix(_PACKAGE)]
        _warn(spec.name, new)
        return _Alias(spec.name, import_module(new), ALSO_IN.get(spec.name.removeprefix(_PACKAGE), []))

    def exec_module(self, module: ModuleType) -> None:
        pass


class _Alias(ModuleType):
    """A module of an old name, with the attributes of the module of the new name and of those beside it."""

    def __init__(self, name: str, new: ModuleType, beside: Sequence[str] = ()) -> None:
        super().__init__(name, new.__doc__)
        package = new.__name__.rpartition(".")[0]
        self.__dict__["_modules"] = [new.__name__, *(f"{package}.{one}" for one in beside)]
        self.__path__: list[str] = []  # so that old names below it are found as well

    def __getattr__(self, name: str) -> Any:
        for module in map(import_module, self.__dict__["_modules"]):
            if hasattr(module, name):
                return getattr(module, name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return sorted({name for module in self.__dict__["_modules"] for name in dir(import_module(module))})


def _warn(old: str, new: str) -> None:
    warnings.warn(
        f"{old} is now {new}: import it from there, as the old name ends with this version",
        DeprecationWarning,
        stacklevel=3,
    )


def old_attributes(package: str, *modules: str) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package that has the name of a module of an earlier version.

    Its attributes are those of the modules that hold the old module's content now.
    """

    def attribute(name: str) -> Any:
        for new in () if name.startswith("__") else modules:
            if hasattr(module := import_module(new), name):
                _warn(f"{package}.{name}", f"{new}.{name}")
                return getattr(module, name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return attribute


def find_old_names() -> None:
    """Let Python find modules by their old names, after all other finders."""
    if not any(isinstance(finder, _OldNames) for finder in sys.meta_path):
        sys.meta_path.append(_OldNames())
