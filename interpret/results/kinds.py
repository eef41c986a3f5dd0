"""The kinds of results: one line for each analysis here, and a user's own classes as they are defined."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING

from interpret.support.errors import InterpretError, unknown

if TYPE_CHECKING:
    from interpret.results.result import Result

BUILT_IN: dict[str, str] = {
    "predictions": "interpret.analyses.predictions.result:Predictions",
    "feature-maps": "interpret.analyses.feature_maps.result:FeatureMaps",
    "evolution": "interpret.analyses.evolution.result:Evolution",
    "invariance": "interpret.analyses.invariance.result:InvarianceCurves",
    "occlusion": "interpret.analyses.occlusion.result:Occlusion",
    "neighbours": "interpret.analyses.neighbours.result:Neighbours",
    "correspondence": "interpret.analyses.correspondence.result:Correspondence",
    "methods": "interpret.analyses.methods.result:MethodComparison",
    "sanity": "interpret.analyses.sanity.result:SanityCheck",
    "effective-fields": "interpret.analyses.effective_fields.result:EffectiveFields",
    "costs": "interpret.analyses.costs.result:NetworkCosts",
    "trace": "interpret.tracing.tracing:Trace",
    "mined": "interpret.analyses.mining.result:Mined",
    "mined-layer": "interpret.analyses.mining.result:MinedLayer",
    "unit": "interpret.analyses.mining.unit:Unit",
    "projections": "interpret.analyses.projection.result:Projections",
    "synthesised": "interpret.analyses.synthesis.result:Synthesised",
    "inversions": "interpret.analyses.synthesis.inversions:Inversions",
    "atlas": "interpret.analyses.synthesis.activation_atlas:ActivationAtlas",
    "attribution": "interpret.analyses.attribution.result:Attribution",
    "comparison": "interpret.analyses.comparison.result:Comparison",
}
"""Kind to the class, which is imported at first use: reading one result does not import the others."""

_registered: dict[str, type[Result]] = {}
"""The classes defined so far, built-in ones and a user's own."""


def register(cls: type[Result]) -> None:
    """Register a result class under its `kind`; a class that is defined again replaces its earlier definition.

    Raises:
        InterpretError: the kind cannot be the name of a folder, or it belongs to another class.
    """
    kind, name = cls.kind, f"{cls.__module__}:{cls.__qualname__}"
    if not isinstance(kind, str) or not re.fullmatch(r"[A-Za-z0-9][\w-]*", kind):
        raise InterpretError(
            f"kind of {cls.__name__} must consist of letters, digits, '-' and '_', as it names a folder, not {kind!r}"
        )
    other = BUILT_IN.get(kind)
    if other is None and kind in _registered:
        other = f"{_registered[kind].__module__}:{_registered[kind].__qualname__}"
    if other not in (None, name):
        raise InterpretError(f"kind {kind!r} of {name} is that of {other} already: choose another kind")
    _registered[kind] = cls


def result_class(kind: str) -> type[Result]:
    """Return the class of a kind of result.

    >>> result_class("occlusion").__name__
    'Occlusion'

    Raises:
        InterpretError: no class of this kind is built in, or has been imported.
    """
    if kind not in _registered and kind in BUILT_IN:
        import_module(BUILT_IN[kind].partition(":")[0])  # which registers it
    if kind not in _registered:
        raise InterpretError(
            f"{unknown('kind of result', kind, all_kinds())}; a kind of your own is known once its class is imported"
        )
    return _registered[kind]


def is_known(kind: str) -> bool:
    """Return whether the class of a kind is built in, or has been imported."""
    return kind in BUILT_IN or kind in _registered


def all_kinds() -> list[str]:
    """Return all known kinds in the order in which a report shows them.

    Built-in kinds come as they are listed above. A user's own kind follows the one that its `report_after` names, and
    is last if it names none.
    """
    order = list(BUILT_IN)
    for kind, cls in _registered.items():
        if kind in BUILT_IN:
            continue
        after = cls.report_after
        order.insert(order.index(after) + 1 if after in order else len(order), kind)
    return order


def in_report_order(results: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the results of known kinds, as (kind, name), in the order in which a report shows them.

    >>> in_report_order([("sanity", ""), ("occlusion", "conv1"), ("unheard-of", ""), ("occlusion", "conv2")])
    [('occlusion', 'conv1'), ('occlusion', 'conv2'), ('sanity', '')]
    """
    place = {kind: number for number, kind in enumerate(all_kinds())}
    return sorted((one for one in results if one[0] in place), key=lambda one: place[one[0]])
