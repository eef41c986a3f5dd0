"""Draw the filters of a study's convolutions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from interpret.analyses.filters.sheet import tiled_filter_sheet
from interpret.study.filter_tiles import write_filter_sheet
from interpret.support.files import replacing
from interpret.support.progress import progress

if TYPE_CHECKING:
    from interpret.study.study import Study


def draw_filter_sheets(study: Study, every: bool) -> None:
    """Draw the filters of the first convolution, or of every mined one whose kernels are larger than 1 × 1."""
    model, _ = study.to_compute()
    modules = dict(model.module.named_modules())
    convolutions = [layer["name"] for layer in study.layers if isinstance(modules[layer["name"]], nn.Conv2d)]
    mined = set(study.mined_layers)
    wanted = [
        name
        for name in convolutions
        if name == convolutions[0] or (every and name in mined and max(modules[name].kernel_size) > 1)
    ]
    missing = [name for name in wanted if not study.filter_sheet(name).exists()]
    if not missing:
        return
    with progress(len(missing), "drawing filters", "layer") as bar:
        for name in missing:
            study.write_info()
            with replacing(study.filter_sheet(name)) as new:
                write_filter_sheet(new, *tiled_filter_sheet(model, name))
            bar.update()
