"""Feature visualization and interpretability for convolutional networks.

>>> import interpret
>>> model = interpret.load("lenet")
>>> layers = interpret.trace(model)
>>> layers["conv1"].output_shape
(20, 24, 24)

Functions that run a network share these arguments:

- **`device`**: a PyTorch device ("cuda", "cpu", …). Parameters and images are moved there while the function runs, and
  results return to the device of the images. Default: the device of the parameters.
- **`batch_size`**: the number of images per forward pass. It changes results at most by rounding, except for methods
  that draw noise per batch. Default: chosen for the device. On a CPU at most 32, and at most 8 images of 224 × 224
  pixels, which is faster and takes less memory; on a GPU what fits its memory, at most 256, or 32 where gradients are
  computed.
- **`layers`**: names or globs, as a list or as a comma-separated string. Default: all convolutional and linear layers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from interpret.support.moved import find_old_names
from interpret.support.version import __version__ as __version__

if TYPE_CHECKING:
    from interpret.analyses.attribution.compute import attribute
    from interpret.analyses.attribution.result import Attribution
    from interpret.analyses.comparison.compute import compare
    from interpret.analyses.correspondence.compute import correspond
    from interpret.analyses.costs.compute import compare_costs
    from interpret.analyses.effective_fields.compute import effective_receptive_field
    from interpret.analyses.evolution.compute import evolve
    from interpret.analyses.feature_maps.compute import feature_maps, layer_outputs
    from interpret.analyses.filters.compute import filter_images
    from interpret.analyses.filters.figure import plot_filters
    from interpret.analyses.invariance.compute import probe
    from interpret.analyses.invariance.figure import plot_invariance
    from interpret.analyses.invariance.result import InvarianceCurves
    from interpret.analyses.methods.compute import compare_methods
    from interpret.analyses.mining.compute import mine
    from interpret.analyses.mining.result import Mined
    from interpret.analyses.neighbours.compute import find_neighbours
    from interpret.analyses.occlusion.compute import occlude
    from interpret.analyses.occlusion.figure import plot_occlusion
    from interpret.analyses.occlusion.result import Occlusion
    from interpret.analyses.predictions.compute import predict
    from interpret.analyses.projection.compute import project
    from interpret.analyses.projection.result import Projections
    from interpret.analyses.sanity.compute import sanity_check
    from interpret.analyses.synthesis.activation_atlas import ActivationAtlas
    from interpret.analyses.synthesis.compute import synthesise
    from interpret.analyses.synthesis.inversions import Inversions
    from interpret.analyses.synthesis.invert import invert
    from interpret.analyses.synthesis.map_activations import map_activations
    from interpret.analyses.synthesis.objectives import Objective
    from interpret.analyses.synthesis.result import Synthesised
    from interpret.analyses.synthesis.robustness import Robustness
    from interpret.backprop.composite import Composite
    from interpret.backprop.rules import BackwardRule, UncoveredOperation
    from interpret.gallery import write_gallery
    from interpret.images.datasets import load_dataset
    from interpret.images.opening import open_images
    from interpret.images.sources import Images
    from interpret.loading.loading import load
    from interpret.network.model import Model
    from interpret.network.preprocess import Preprocess
    from interpret.network.registration import register_operation
    from interpret.report.writer import write_report
    from interpret.results.plotting import plot
    from interpret.results.result import Result
    from interpret.study.merging import merge_studies
    from interpret.study.study import Study
    from interpret.support.errors import InterpretError
    from interpret.tracing.summary import summarise
    from interpret.tracing.tracing import Layer, ReceptiveField, trace
    from interpret.training.training import train

# public name: its module, imported on first use, so that `import interpret` does not import torch
_HOME = {
    "ActivationAtlas": "analyses.synthesis.activation_atlas",
    "Attribution": "analyses.attribution.result",
    "BackwardRule": "backprop.rules",
    "Composite": "backprop.composite",
    "Images": "images.sources",
    "InterpretError": "support.errors",
    "InvarianceCurves": "analyses.invariance.result",
    "Inversions": "analyses.synthesis.inversions",
    "Layer": "tracing.tracing",
    "Mined": "analyses.mining.result",
    "Model": "network.model",
    "Objective": "analyses.synthesis.objectives",
    "Occlusion": "analyses.occlusion.result",
    "Preprocess": "network.preprocess",
    "Projections": "analyses.projection.result",
    "ReceptiveField": "tracing.tracing",
    "Result": "results.result",
    "Robustness": "analyses.synthesis.robustness",
    "Study": "study.study",
    "Synthesised": "analyses.synthesis.result",
    "UncoveredOperation": "backprop.rules",
    "attribute": "analyses.attribution.compute",
    "compare": "analyses.comparison.compute",
    "compare_costs": "analyses.costs.compute",
    "compare_methods": "analyses.methods.compute",
    "correspond": "analyses.correspondence.compute",
    "evolve": "analyses.evolution.compute",
    "effective_receptive_field": "analyses.effective_fields.compute",
    "feature_maps": "analyses.feature_maps.compute",
    "filter_images": "analyses.filters.compute",
    "find_neighbours": "analyses.neighbours.compute",
    "invert": "analyses.synthesis.invert",
    "layer_outputs": "analyses.feature_maps.compute",
    "load": "loading.loading",
    "load_dataset": "images.datasets",
    "map_activations": "analyses.synthesis.map_activations",
    "merge_studies": "study.merging",
    "mine": "analyses.mining.compute",
    "occlude": "analyses.occlusion.compute",
    "open_images": "images.opening",
    "plot": "results.plotting",
    "plot_filters": "analyses.filters.figure",
    "plot_invariance": "analyses.invariance.figure",
    "plot_occlusion": "analyses.occlusion.figure",
    "predict": "analyses.predictions.compute",
    "probe": "analyses.invariance.compute",
    "project": "analyses.projection.compute",
    "register_operation": "network.registration",
    "sanity_check": "analyses.sanity.compute",
    "summarise": "tracing.summary",
    "synthesise": "analyses.synthesis.compute",
    "trace": "tracing.tracing",
    "train": "training.training",
    "write_gallery": "gallery",
    "write_report": "report.writer",
}

__all__ = [
    "ActivationAtlas",
    "Attribution",
    "BackwardRule",
    "Composite",
    "Images",
    "InterpretError",
    "InvarianceCurves",
    "Inversions",
    "Layer",
    "Mined",
    "Model",
    "Objective",
    "Occlusion",
    "Preprocess",
    "Projections",
    "ReceptiveField",
    "Result",
    "Robustness",
    "Study",
    "Synthesised",
    "UncoveredOperation",
    "attribute",
    "compare",
    "compare_costs",
    "compare_methods",
    "correspond",
    "effective_receptive_field",
    "evolve",
    "feature_maps",
    "filter_images",
    "find_neighbours",
    "invert",
    "layer_outputs",
    "load",
    "load_dataset",
    "map_activations",
    "merge_studies",
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
    "register_operation",
    "sanity_check",
    "summarise",
    "synthesise",
    "trace",
    "train",
    "write_gallery",
    "write_report",
]

find_old_names()


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'interpret' has no attribute {name!r}")
    return getattr(import_module(f"interpret.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
