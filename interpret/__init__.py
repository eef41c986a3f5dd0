"""Look inside convolutional networks.

>>> import interpret
>>> model = interpret.load("lenet")
>>> layers = interpret.trace(model)
>>> layers["conv1"].output_shape
(20, 24, 24)

Wherever a function runs a network:

- **`device`** is where it runs, as PyTorch says it ("cuda", "cpu", …); None: where its parameters are. Parameters and
  images are moved there for as long as the function runs, and results come back to where the images were.
- **`batch_size`** is how many images go through it together; None: as many as suit the device, 32 at most, and on a
  processor no more than 8 images of 224 × 224 pixels, which is faster there and takes less memory. It changes results
  by the rounding of the forward pass at most, save where noise is drawn batch by batch.
- **`layers`** are names or globs, several also separated by commas in one text; None: every convolutional and linear
  layer.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interpret.activations import feature_maps, layer_outputs
    from interpret.attribution import attribute
    from interpret.comparison import compare
    from interpret.correspondence import correspond
    from interpret.costs import compare_costs
    from interpret.data import Images, open_images
    from interpret.datasets import load_dataset
    from interpret.errors import InterpretError
    from interpret.evolution import evolve
    from interpret.filters import filter_images, plot_filters
    from interpret.gallery import write_gallery
    from interpret.invariance import probe
    from interpret.loading import load
    from interpret.methods import compare_methods
    from interpret.mining import mine
    from interpret.model import Model
    from interpret.neighbours import find_neighbours
    from interpret.occlusion import occlude
    from interpret.plots import plot
    from interpret.plots.invariance import plot_invariance
    from interpret.plots.occlusion import plot_occlusion
    from interpret.predictions import predict
    from interpret.preprocess import Preprocess
    from interpret.projection import project
    from interpret.report import write_report
    from interpret.results.attribution import Attribution
    from interpret.results.invariance import InvarianceCurves
    from interpret.results.mined import Mined
    from interpret.results.occlusion import Occlusion
    from interpret.results.projections import Projections
    from interpret.results.result import Result
    from interpret.rules import BackwardRule, UncoveredOperation
    from interpret.sanity import sanity_check
    from interpret.study import Study
    from interpret.summary import summarise
    from interpret.tracing import Layer, ReceptiveField, trace
    from interpret.training import train

# public name: the module that holds it, imported at first use, so that `import interpret` does not import torch
_HOME = {
    "Attribution": "results.attribution",
    "BackwardRule": "rules",
    "Images": "data",
    "InterpretError": "errors",
    "InvarianceCurves": "results.invariance",
    "Layer": "tracing",
    "Mined": "results.mined",
    "Model": "model",
    "Occlusion": "results.occlusion",
    "Preprocess": "preprocess",
    "Projections": "results.projections",
    "ReceptiveField": "tracing",
    "Result": "results.result",
    "Study": "study",
    "UncoveredOperation": "rules",
    "attribute": "attribution",
    "compare": "comparison",
    "compare_costs": "costs",
    "compare_methods": "methods",
    "correspond": "correspondence",
    "evolve": "evolution",
    "feature_maps": "activations",
    "filter_images": "filters",
    "find_neighbours": "neighbours",
    "layer_outputs": "activations",
    "load": "loading",
    "load_dataset": "datasets",
    "mine": "mining",
    "occlude": "occlusion",
    "open_images": "data",
    "plot": "plots",
    "plot_filters": "filters",
    "plot_invariance": "plots.invariance",
    "plot_occlusion": "plots.occlusion",
    "predict": "predictions",
    "probe": "invariance",
    "project": "projection",
    "sanity_check": "sanity",
    "summarise": "summary",
    "trace": "tracing",
    "train": "training",
    "write_gallery": "gallery",
    "write_report": "report",
}

__all__ = [
    "Attribution",
    "BackwardRule",
    "Images",
    "InterpretError",
    "InvarianceCurves",
    "Layer",
    "Mined",
    "Model",
    "Occlusion",
    "Preprocess",
    "Projections",
    "ReceptiveField",
    "Result",
    "Study",
    "UncoveredOperation",
    "attribute",
    "compare",
    "compare_costs",
    "compare_methods",
    "correspond",
    "evolve",
    "feature_maps",
    "filter_images",
    "find_neighbours",
    "layer_outputs",
    "load",
    "load_dataset",
    "mine",
    "occlude",
    "open_images",
    "plot",
    "plot_filters",
    "plot_invariance",
    "plot_occlusion",
    "predict",
    "probe",
    "project",
    "sanity_check",
    "summarise",
    "trace",
    "train",
    "write_gallery",
    "write_report",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'interpret' has no attribute {name!r}")
    return getattr(import_module(f"interpret.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
