"""Make optimised images of a study's units, and keep them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from interpret.analyses.synthesis.compute import synthesise
from interpret.analyses.synthesis.natural import natural_images_held
from interpret.analyses.synthesis.result import Synthesised
from interpret.network.layers import select_layers
from interpret.study.reader import synthesised_name
from interpret.study.synthesis_budget import BUDGET, MOST_UNITS, costs_of, units_within
from interpret.support.errors import InterpretError, refuse_below_one, unknown, warn
from interpret.support.wording import count

if TYPE_CHECKING:
    from interpret.study.study import Study

KINDS = ("neuron", "unit", "class")
FOLLOWED = ("parametrisation", "steps", "seed")
"""Settings that new images share with those that a layer has."""
UNITS_IN_A_CALL = 16
"""How many units are made and kept at once, on any machine: enough for its cores, and few to make again."""

Units = int | Sequence[int] | Literal["auto"] | None
"""So many of the liveliest units of a layer, these units, as many as a budget pays for, or all."""


@natural_images_held()
def synthesise_layers(
    study: Study, layers: str | Iterable[str] | None, units: Units, kind: str, again: bool, **settings: Any
) -> None:
    """Make images of units that have none with these settings yet, in parts that are kept as they are done.

    A setting that is None is that of the images that the layer has.
    """
    settings = {name: value for name, value in settings.items() if value is not None}
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
        _make(study, "", _chosen(units, range(len(model.classes or ()))), kind, data, settings, again)
        return
    if not study.mined_layers:
        raise InterpretError(f"{study.path} has no mined layer: mine it first")
    names = study.mined_layers if layers is None else select_layers(model.module, layers, study.mined_layers)
    if isinstance(units, str):
        _make_within_budget(study, names, kind, settings, again)
        return
    for name in names:
        mined = study.mined(name)
        _make(study, name, _chosen(units, mined.most_active.tolist()), kind, mined, settings, again)


def _make_within_budget(study: Study, names: Sequence[str], kind: str, settings: dict[str, Any], again: bool) -> None:
    """Make images of as many units as `BUDGET` pays for; leave layers that have images made with other settings."""
    images = tuple(study.info["model"]["input_shape"][1:])
    available = {name: min(MOST_UNITS, int((~study.mined(name).dead).sum())) for name in names}
    chosen = units_within(BUDGET, costs_of(study.traced, names, images), available)
    for name in names:
        kept = study.synthesised(name, kind)
        if not chosen[name] or (not again and kept is not None and len(_made_with(kept, settings)) < len(kept.units)):
            continue
        mined = study.mined(name)
        try:
            _make(study, name, mined.most_active[: chosen[name]].tolist(), kind, mined, settings, again)
        except InterpretError as error:
            warn(f"layer {name!r} has no optimised images: {error}")


def _made_with(kept: Synthesised, settings: dict[str, Any]) -> set[int]:
    """Return the units whose images were made with these settings."""
    return {
        unit
        for row, unit in enumerate(kept.units.tolist())
        if all(kept.settings_of(row).get(name) == value for name, value in settings.items())
    }


def _chosen(units: int | Sequence[int] | None, liveliest: Sequence[int]) -> list[int]:
    """Return the units: so many of the liveliest, those that are named, or all."""
    return [int(unit) for unit in (liveliest[:units] if units is None or isinstance(units, int) else units)]


def _make(
    study: Study, layer: str, units: Sequence[int], kind: str, natural: Any, settings: dict[str, Any], again: bool
) -> None:
    """Make the images of a layer's units, or of classes, that are missing; those of other units stay."""
    model, _ = study.to_compute()
    kept = study.synthesised(layer, kind)
    done = set() if again or kept is None else _made_with(kept, settings)
    missing = [unit for unit in units if unit not in done]
    settings = _settings_of_others(kept) | settings
    together = max(UNITS_IN_A_CALL, study.batch_size or 0)
    for start in range(0, len(missing), together):
        part = missing[start : start + together]
        made = synthesise(
            model, layer or None, part, kind,  # type: ignore[arg-type]
            natural=natural, batch_size=study.batch_size, device=study.device, dtype=study.dtype, **settings,
        )  # fmt: skip
        others = None if kept is None else kept.only(np.flatnonzero(~np.isin(kept.units, part)))
        kept = made if others is None or not len(others.units) else others.with_others(made)
        study.keep(kept, synthesised_name(layer, kind))
    if missing and kept is not None and set().union(*kept.own_settings):
        _say_what_differs(kept, missing)


def _settings_of_others(kept: Synthesised | None) -> dict[str, Any]:
    """Return what new images have in common with those that a layer has, unless other settings are asked for."""
    return {} if kept is None else {name: kept.settings[name] for name in FOLLOWED if name in kept.settings}


def _say_what_differs(kept: Synthesised, made: Sequence[int]) -> None:
    """Warn of images that were made with other settings than the new ones."""
    new = next(own for unit, own in zip(kept.units.tolist(), kept.own_settings, strict=True) if unit in made)
    others = [own for own in kept.own_settings if own != new]
    names = sorted(name for name in set().union(new, *others) if any(own.get(name) != new.get(name) for own in others))
    of = f"layer {kept.layer!r}" if kept.layer else "the network"
    warn(
        f"{of} keeps {count(len(others), 'image')} made with other {' and '.join(names)}, as the pages of their units "
        "say: name these units with again=True (--again) to make them as the new ones"
    )
