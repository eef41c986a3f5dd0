"""The base class of all results: a line to print, a figure, a table, and a file."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from interpret.results.kinds import register, result_class
from interpret.support.checksums import check_seal, sealed_arrays
from interpret.support.errors import InterpretError
from interpret.support.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame


class Result:
    """A data class of arrays, mappings from names to arrays, and settings that JSON can hold.

    >>> import tempfile
    >>> @dataclasses.dataclass(repr=False, eq=False)
    ... class Curve(Result):
    ...     kind = "curve"
    ...     title = "A curve"
    ...     values: NDArray[np.float64]
    ...     distances: dict[str, NDArray[np.float64]]
    ...     unit: str
    ...     extent = property(lambda self: f"{len(self.values)} values")
    ...     def columns(self):
    ...         return {"value": self.values, "distance": self.distances["conv1"]}
    >>> curve = Curve(np.arange(3.0), {"conv1": np.ones(3)}, "px")
    >>> curve
    <Curve: A curve, 3 values>
    >>> file = tempfile.mkdtemp() + "/curve.safetensors"
    >>> curve.save(file)
    >>> Curve.load(file).distances["conv1"], Curve.load(file).unit
    (array([1., 1., 1.]), 'px')

    In a notebook it shows its figure. `plot` returns the figure, `to_dataframe` the numbers as a pandas table, and
    `save` writes a file that `load` reads.

    A class that sets `kind` registers itself, one of your own as well: a study keeps and lists its results, and
    `interpret.plot`, reports and the findings of a gallery show them as soon as the class is imported. Its figure is
    what `drawn_by` names, or what its own `plot` draws.
    """

    kind: ClassVar[str]
    """The name of the kind for a study and the command; in a study it names a folder."""
    drawn_by: ClassVar[str] = ""
    """The function that draws the figure, as "module:function", imported at first use; see `plot`."""
    report_after: ClassVar[str | None] = None
    """The kind of results that those of a user's own class follow in a report; None: they come last."""
    format_version: ClassVar[int] = 1
    """The version of the file format; raise it when older versions of the class cannot read what `save` writes."""
    shows_images: ClassVar[bool] = False
    """Whether the figure shows whole images of the data; a gallery without context then leaves it out."""

    @classmethod
    def has_figure(cls) -> bool:
        """Return whether results of the class can be drawn."""
        return bool(cls.drawn_by) or cls.plot is not Result.plot

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        if "kind" in vars(cls):
            register(cls)

    @property
    def title(self) -> str:
        """The title, a few words."""
        raise NotImplementedError(f"{type(self).__name__} must define title")

    @property
    def reading(self) -> str:
        """A sentence on how to read the figure, and on what it is measured."""
        raise NotImplementedError(f"{type(self).__name__} must define reading")

    @property
    def extent(self) -> str:
        """How much it holds, in a few words: "4 images, 8 layers"; "" where the class does not say."""
        return ""

    def columns(self) -> dict[str, Any]:
        """Return the numbers as columns of one length, by name; `to_dataframe` makes a table of them."""
        raise NotImplementedError(f"{type(self).__name__} must define columns")

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {', '.join(filter(None, (self.title, self.extent)))}>"

    def plot(
        self,
        panels: str | Sequence[str] | None = None,
        *,
        width: float | None = None,
        figsize: tuple[float, float] | None = None,
        ax: Axes | None = None,
    ) -> Any:
        """Draw it in a figure of its own, or into given axes, and return that; see `interpret.plot`.

        A class of your own names its drawing function in `drawn_by`, or overrides this method. Both get only those
        arguments that the caller gave, so they need not accept all of them.

        Raises:
            InterpretError: the class has no figure.
        """
        if not self.drawn_by:
            raise InterpretError(
                f"a result of kind {self.kind!r} has no figure: set {type(self).__name__}.drawn_by to "
                "'module:function', or define its method plot"
            )
        module, _, name = self.drawn_by.partition(":")
        given = {"panels": panels, "width": width, "figsize": figsize, "ax": ax}
        return getattr(import_module(module), name)(
            self, **{argument: value for argument, value in given.items() if value is not None}
        )

    def _repr_png_(self) -> tuple[bytes, dict[str, int]] | None:
        """Return the figure as Jupyter shows it; None where the class has none."""
        if not self.has_figure():
            return None
        from interpret.figures.style import screen_picture

        return screen_picture(self.plot())

    def to_dataframe(self) -> DataFrame:
        """Return the numbers as a pandas table; see `columns` for its rows.

        Raises:
            InterpretError: pandas is not installed.
        """
        try:
            from pandas import DataFrame
        except ImportError:
            raise InterpretError(
                "to_dataframe needs pandas, which is not installed: run pip install pandas, or use .columns()"
            ) from None
        return DataFrame(self.columns())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the result to a safetensors file, whole or not at all.

        An older result at its place is replaced, and no other file. Fields with `metadata={"kept": False}` are left
        out.
        """
        arrays: dict[str, Any] = {}
        mappings: dict[str, list[str]] = {}
        settings: dict[str, Any] = {}
        for name, value in self._stored_fields().items():
            if _is_array(value):
                arrays[name] = value
            elif isinstance(value, dict) and value and all(map(_is_array, value.values())):
                mappings[name] = list(value)
                arrays |= {f"{name}/{key}": one for key, one in value.items()}
            else:
                settings[name] = value
        tensors = {key: _type_of(one) for key, one in arrays.items() if not isinstance(one, np.ndarray)}
        header: dict[str, Any] = {
            "kind": self.kind,
            "format": self.format_version,
            "mappings": mappings,
            "settings": settings,
        }
        if tensors:
            header["tensors"] = tensors
        with replacing(path, _holds_result) as new:
            flat = {key: _as_numpy(one) for key, one in arrays.items()}
            new.write_bytes(sealed_arrays(flat, {"result": json.dumps(header, ensure_ascii=False)}))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a result that `save` or a study wrote; `Result.load` reads any kind.

        Raises:
            InterpretError: the file does not exist, is damaged, holds no result, or one of another kind or a newer
                format.
        """
        try:
            check_seal(Path(path))
            with safe_open(path, "np") as stored:
                header = header_of(stored)
                arrays = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118 - no mapping
        except FileNotFoundError:
            raise InterpretError(f"{path} does not exist: give a file that save or a study wrote") from None
        except (SafetensorError, OSError):
            header = None
        if header is None:
            raise InterpretError(f"{path} holds no result of interpret's")
        made: Any = result_class(header["kind"]) if "kind" not in vars(cls) else cls
        if made.kind != header["kind"]:
            raise InterpretError(
                f"{path} holds a result of kind {header['kind']!r}, not {made.kind!r}: read it with Result.load"
            )
        refuse_newer(path, header, made)
        for key, dtype in header.get("tensors", {}).items():
            arrays[key] = _as_tensor(dtype, arrays[key])
        values = header["settings"] | {key: value for key, value in arrays.items() if "/" not in key}
        for name, keys in header["mappings"].items():
            values[name] = {key: arrays[f"{name}/{key}"] for key in keys}
        return made._from_stored(values)

    def _stored_fields(self) -> dict[str, Any]:
        """Return the fields that `save` writes, by name."""
        kept = (field for field in dataclasses.fields(self) if field.metadata.get("kept", True))  # type: ignore[arg-type]
        return {field.name: getattr(self, field.name) for field in kept}

    @classmethod
    def _from_stored(cls, kept: dict[str, Any]) -> Self:
        """Return the result with these stored fields."""
        return cls(**kept)


def header_of(stored: Any) -> Any:
    """Return what an open safetensors file says of the result in it; None where it holds none."""
    return json.loads((stored.metadata() or {}).get("result", "null"))


def _holds_result(path: Path) -> bool:
    with suppress(SafetensorError), safe_open(path, "np") as stored:
        return header_of(stored) is not None
    return False


def refuse_newer(path: str | os.PathLike[str], header: dict[str, Any], made: type[Result]) -> None:
    """Refuse a file whose header says that a later version wrote it, in a format that this one does not know."""
    written = header.get("format", 1)  # version 0.1.0 wrote format 1, and did not say so
    if written > made.format_version:
        raise InterpretError(
            f"{path} has format {written} of results of kind {made.kind!r}, and this version reads format "
            f"{made.format_version} at most: update interpret, or what defines {made.__name__}"
        )


def crossed(**axes: Any) -> dict[str, NDArray[Any]]:
    """Return all combinations of the axes' values as columns; the last axis varies fastest.

    >>> {name: column.tolist() for name, column in crossed(unit=[0, 1], rank=[0, 1]).items()}
    {'unit': [0, 0, 1, 1], 'rank': [0, 1, 0, 1]}
    """
    values = [np.asarray(one) for one in axes.values()]
    places = np.indices([len(one) for one in values]).reshape(len(values), -1)
    return {name: one[place] for name, one, place in zip(axes, values, places, strict=True)}


def stacked(parts: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[Any]]:
    """Return tables of the same columns as one, below each other.

    >>> stacked([{"unit": [0, 1]}, {"unit": [7]}])
    {'unit': array([0, 1, 7])}
    """
    return {name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in parts[0]} if parts else {}


def _is_array(value: object) -> bool:
    """Return whether a value is an array or a tensor, without importing torch."""
    return isinstance(value, np.ndarray) or type(value).__module__.partition(".")[0] == "torch"


def _type_of(tensor: Any) -> str:
    """Return the name of a tensor's type."""
    return str(tensor.dtype).removeprefix("torch.")


def _as_numpy(value: Any) -> NDArray[Any]:
    """Return an array, or a tensor as one; bfloat16, which NumPy does not have, becomes int16 with the same bits."""
    if isinstance(value, np.ndarray):
        return value
    import torch

    tensor = value.detach().cpu()
    return np.asarray((tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy())


def _as_tensor(dtype: str, array: NDArray[Any]) -> Any:
    """Return an array as the tensor from which `_as_numpy` made it."""
    import torch

    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor
