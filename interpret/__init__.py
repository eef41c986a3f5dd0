"""Look inside convolutional networks.

>>> import interpret
>>> model = interpret.load("lenet")
>>> layers = interpret.trace(model)
>>> layers["conv1"].output_shape
(20, 24, 24)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interpret.attribution import Attribution, attribute
    from interpret.data import Images, open_images
    from interpret.errors import InterpretError
    from interpret.filters import filter_images, plot_filters
    from interpret.gallery import write_gallery
    from interpret.loading import load
    from interpret.methods import compare_methods
    from interpret.mining import Mined, mine
    from interpret.model import Model
    from interpret.preprocess import Preprocess
    from interpret.projection import Projections, project
    from interpret.report import write_report
    from interpret.rules import BackwardRule, UncoveredOperation
    from interpret.sanity import sanity_check
    from interpret.study import Study
    from interpret.tracing import Layer, ReceptiveField, trace
    from interpret.training import train

# public name: the module that holds it, imported at first use, so that `import interpret` does not import torch
_HOME = {
    "Attribution": "attribution",
    "BackwardRule": "rules",
    "Images": "data",
    "InterpretError": "errors",
    "Layer": "tracing",
    "Mined": "mining",
    "Model": "model",
    "Preprocess": "preprocess",
    "Projections": "projection",
    "ReceptiveField": "tracing",
    "Study": "study",
    "UncoveredOperation": "rules",
    "attribute": "attribution",
    "compare_methods": "methods",
    "filter_images": "filters",
    "load": "loading",
    "mine": "mining",
    "open_images": "data",
    "plot_filters": "filters",
    "project": "projection",
    "sanity_check": "sanity",
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
    "Layer",
    "Mined",
    "Model",
    "Preprocess",
    "Projections",
    "ReceptiveField",
    "Study",
    "UncoveredOperation",
    "attribute",
    "compare_methods",
    "filter_images",
    "load",
    "mine",
    "open_images",
    "plot_filters",
    "project",
    "sanity_check",
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
