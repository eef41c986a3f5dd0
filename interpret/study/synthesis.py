"""Make optimised images of a study's units, and keep them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from interpret.analyses.synthesis.compute import synthesise
from interpret.network.layers import select_layers
from interpret.study.reader import synthesised_name
from interpret.study.synthesis_budget import BUDGET, MOST_UNITS, costs_of, units_within
from interpret.support.errors import InterpretError, refuse_below_one, unknown, warn

if TYPE_CHECKING:
    from interpret.study.study import Study

KINDS = ("neuron", "unit", "class")
MOST_AT_ONCE = 32
"""The largest number of units whose images are made before they are kept."""


Units = int | Sequence[int] | Literal["auto"] | None
"""So many of the liveliest units of a layer, these units, as many as a budget pays for, or all."""


def synthesise_layers(
    study: Study, layers: str | Iterable[str] | None, units: Units, kind: str, **settings: Any
) -> None:
    """Make images of units that have none with these settings yet, in parts that are kept as they are done."""
    model, data = study.to_compute()
    if kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    if isinstance(units, int):
        refuse_below_one(units=units)
    if isinstance(units, str) and (units != "auto" or kind == "class"):
        raise InterpretError(f"units must be a number, numbers, None or, for layers, 'auto', not {units!r}")
    if kind == "class":
        assert not isinstance(units, str)
        if layers is not None:
            raise InterpretError("classes are outputs of the network, not of layers: leave layers out")
        if model.classes is None and not isinstance(units, Sequence):
            raise InterpretError("the network's classes have no names or number: name units, such as units=[0, 1]")
        _make(study, "", _chosen(units, range(len(model.classes or ()))), kind, data, settings)
        return
    if not study.mined_layers:
        raise InterpretError(f"{study.path} has no mined layer: mine it first")
    names = study.mined_layers if layers is None else select_layers(model.module, layers, study.mined_layers)
    if isinstance(units, str):
        _make_within_budget(study, names, kind, settings)
        return
    for name in names:
        mined = study.mined(name)
        _make(study, name, _chosen(units, mined.most_active.tolist()), kind, mined, settings)


def _make_within_budget(study: Study, names: Sequence[str], kind: str, settings: dict[str, Any]) -> None:
    """Make images of as many units as `BUDGET` pays for; leave layers that have images made with other settings."""
    images = tuple(study.info["model"]["input_shape"][1:])
    available = {name: min(MOST_UNITS, int((~study.mined(name).dead).sum())) for name in names}
    chosen = units_within(BUDGET, costs_of(study.traced, names, images), available)
    for name in names:
        if not chosen[name] or not _same_settings(study.synthesised(name, kind), settings):
            continue
        mined = study.mined(name)
        try:
            _make(study, name, mined.most_active[: chosen[name]].tolist(), kind, mined, settings)
        except InterpretError as error:
            warn(f"layer {name!r} has no optimised images: {error}")


def _same_settings(kept: Any, settings: dict[str, Any]) -> bool:
    """Return whether a layer's images were made with these settings, or there are none."""
    return kept is None or all(kept.settings.get(name) == value for name, value in settings.items())


def _chosen(units: int | Sequence[int] | None, liveliest: Sequence[int]) -> list[int]:
    """Return the units: so many of the liveliest, those that are named, or all."""
    return [int(unit) for unit in (liveliest[:units] if units is None or isinstance(units, int) else units)]


def _make(study: Study, layer: str, units: Sequence[int], kind: str, natural: Any, settings: dict[str, Any]) -> None:
    """Make the images of a layer's units, or of classes, that are missing."""
    model, _ = study.to_compute()
    kept = study.synthesised(layer, kind)
    if not _same_settings(kept, settings):
        kept = None
    missing = [unit for unit in units if kept is None or unit not in kept.units]
    for start in range(0, len(missing), MOST_AT_ONCE):
        made = synthesise(
            model, layer or None, missing[start : start + MOST_AT_ONCE], kind,  # type: ignore[arg-type]
            natural=natural, batch_size=study.batch_size, device=study.device, dtype=study.dtype, **settings,
        )  # fmt: skip
        kept = made if kept is None else kept.with_others(made)
        study.keep(kept, synthesised_name(layer, kind))
