"""Make optimised images of a study's units, and keep them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from interpret.analyses.synthesis.compute import synthesise
from interpret.network.layers import select_layers
from interpret.study.reader import synthesised_name
from interpret.support.errors import InterpretError, refuse_below_one, unknown

if TYPE_CHECKING:
    from interpret.study.study import Study

KINDS = ("neuron", "unit", "class")
MOST_AT_ONCE = 32
"""The largest number of units whose images are made before they are kept."""


def synthesise_layers(
    study: Study, layers: str | Iterable[str] | None, units: int | Sequence[int] | None, kind: str, **settings: Any
) -> None:
    """Make images of units that have none with these settings yet, in parts that are kept as they are done."""
    model, data = study.to_compute()
    if kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    if isinstance(units, int):
        refuse_below_one(units=units)
    if kind == "class":
        if layers is not None:
            raise InterpretError("classes are outputs of the network, not of layers: leave layers out")
        if model.classes is None and not isinstance(units, Sequence):
            raise InterpretError("the network's classes have no names or number: name units, such as units=[0, 1]")
        _make(study, "", _chosen(units, range(len(model.classes or ()))), kind, data, settings)
        return
    if not study.mined_layers:
        raise InterpretError(f"{study.path} has no mined layer: mine it first")
    names = study.mined_layers if layers is None else select_layers(model.module, layers, study.mined_layers)
    for name in names:
        mined = study.mined(name)
        _make(study, name, _chosen(units, mined.most_active.tolist()), kind, mined, settings)


def _chosen(units: int | Sequence[int] | None, liveliest: Sequence[int]) -> list[int]:
    """Return the units: so many of the liveliest, those that are named, or all."""
    return [int(unit) for unit in (liveliest[:units] if units is None or isinstance(units, int) else units)]


def _make(study: Study, layer: str, units: Sequence[int], kind: str, natural: Any, settings: dict[str, Any]) -> None:
    """Make the images of a layer's units, or of classes, that are missing."""
    model, _ = study.to_compute()
    kept = study.synthesised(layer, kind)
    if kept is not None and any(kept.settings.get(name) != value for name, value in settings.items()):
        kept = None  # made with other settings
    missing = [unit for unit in units if kept is None or unit not in kept.units]
    for start in range(0, len(missing), MOST_AT_ONCE):
        made = synthesise(
            model, layer or None, missing[start : start + MOST_AT_ONCE], kind,  # type: ignore[arg-type]
            natural=natural, batch_size=study.batch_size, device=study.device, dtype=study.dtype, **settings,
        )  # fmt: skip
        kept = made if kept is None else kept.with_others(made)
        study.keep(kept, synthesised_name(layer, kind))
