"""Find the connections between the layers of a study."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from interpret.support.checksums import sealed_arrays
from interpret.support.files import layer_path
from interpret.support.manifest import updating
from interpret.tracing.connectivity import connect, trace_flow

if TYPE_CHECKING:
    from interpret.study.study import Study


def connect_layers(study: Study) -> None:
    """Find which layers feed which, and the strongest weights between the units of mined layers."""
    model, _ = study.to_compute()
    names = study.mined_layers
    folder = study.path / "connections"
    known = folder / "layers.json"
    if known.exists() and json.loads(known.read_text("utf-8")) == names and study.flow():
        return
    study.write_info()
    flow = trace_flow(model, tuple(study.info["model"]["input_shape"]))
    place = {layer["name"]: j for j, layer in enumerate(study.layers)}
    index = np.array([place[name] for name in names] + [-1])  # −1 stays −1
    with updating(folder) as new:
        new.mkdir()
        for name, found in connect(model.module, flow, names).items():
            arrays = vars(found) | {key: index[getattr(found, key)] for key in ("in_layers", "out_layers")}
            (new / f"{layer_path(name)}.safetensors").write_bytes(sealed_arrays(arrays))
        (new / "flow.json").write_text(json.dumps([vars(node) for node in flow.nodes], indent=0), encoding="utf-8")
        (new / "layers.json").write_text(json.dumps(names), encoding="utf-8")
