"""What analyses return: arrays and settings, which a study keeps and figures are drawn from; needs no torch."""

from __future__ import annotations

import dataclasses
import json
import os
from importlib import import_module
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from interpret.errors import InterpretError, unknown
from interpret.files import replacing

# kind of result: the class, imported at first use; a report shows them in this order
KINDS: dict[str, str] = {
    "predictions": "interpret.results.predictions:Predictions",
    "feature-maps": "interpret.results.feature_maps:FeatureMaps",
    "evolution": "interpret.results.evolution:Evolution",
    "invariance": "interpret.results.invariance:InvarianceCurves",
    "occlusion": "interpret.results.occlusion:Occlusion",
    "neighbours": "interpret.results.neighbours:Neighbours",
    "correspondence": "interpret.results.correspondence:Correspondence",
    "methods": "interpret.results.methods:MethodComparison",
    "sanity": "interpret.results.sanity:SanityCheck",
    "costs": "interpret.results.costs:NetworkCosts",
}


class Result:
    """A data class of NumPy arrays, of mappings from names to such, and of settings that JSON can hold.

    >>> import tempfile
    >>> @dataclasses.dataclass
    ... class Curve(Result):
    ...     kind = "curve"
    ...     values: NDArray[np.float64]
    ...     distances: dict[str, NDArray[np.float64]]
    ...     unit: str
    >>> file = tempfile.mkdtemp() + "/curve.safetensors"
    >>> Curve(np.arange(3.0), {"conv1": np.ones(3)}, "px").save(file)
    >>> Curve.load(file).distances["conv1"], Curve.load(file).unit
    (array([1., 1., 1.]), 'px')
    """

    kind: ClassVar[str]
    """What a study and the command call it."""
    shows_images: ClassVar[bool] = False
    """Whether its figure shows whole images of the data, which a gallery without context leaves out."""

    @property
    def title(self) -> str:
        """What the result is, in a few words."""
        raise NotImplementedError

    @property
    def reading(self) -> str:
        """The sentence that tells how to read its figure, and what it is measured on."""
        raise NotImplementedError

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the result to a safetensors file, whole or not at all."""
        arrays: dict[str, NDArray[Any]] = {}
        mappings: dict[str, list[str]] = {}
        settings: dict[str, Any] = {}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                arrays[field.name] = np.ascontiguousarray(value)
            elif isinstance(value, dict) and value and all(isinstance(one, np.ndarray) for one in value.values()):
                mappings[field.name] = list(value)
                arrays |= {f"{field.name}/{key}": np.ascontiguousarray(one) for key, one in value.items()}
            else:
                settings[field.name] = value
        header = {"kind": self.kind, "mappings": mappings, "settings": settings}
        with replacing(path) as new:
            new.write_bytes(save(arrays, {"result": json.dumps(header, ensure_ascii=False)}))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a result that `save` wrote; `Result.load` finds out which kind it is."""
        with safe_open(path, "np") as stored:
            header = json.loads((stored.metadata() or {}).get("result", "null"))
            if header is None:
                raise InterpretError(f"{path} holds no result of interpret's")
            arrays = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118 - no mapping
        made = cls if cls is not Result else result_class(header["kind"])
        values = header["settings"] | {key: value for key, value in arrays.items() if "/" not in key}
        for name, keys in header["mappings"].items():
            values[name] = {key: arrays[f"{name}/{key}"] for key in keys}
        return made(**values)


def result_class(kind: str) -> Any:
    """Return the class of a kind of result."""
    if kind not in KINDS:
        raise unknown("kind of result", kind, KINDS)
    module, _, name = KINDS[kind].partition(":")
    return getattr(import_module(module), name)
