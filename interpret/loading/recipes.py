"""Read a model folder's `recipe.toml`: its network, its input and its training."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from interpret.images.datasets import DATASETS
from interpret.images.imagenet import class_names as imagenet_classes
from interpret.network.preprocess import Preprocess
from interpret.support.errors import InterpretError, unknown

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Table = TypeVar("Table", bound="DataclassInstance")


@dataclass(frozen=True)
class ModelTable:
    """Table `[model]`: the network's title and the names of its outputs."""

    title: str = ""
    classes: tuple[str, ...] = ()
    classes_of: Literal["", "imagenet"] = ""
    """The known set of classes, instead of a list."""
    untrained: bool = False
    """Whether the folder is an architecture without weights, which is loaded with random ones."""
    face_api: str = ""
    """The name of the weights in the npm package face-api that the network is loaded with."""

    def __post_init__(self) -> None:
        if self.classes and self.classes_of:
            raise InterpretError(
                f"[model] names its classes twice: leave out classes or classes_of={self.classes_of!r}"
            )

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the outputs; empty if the recipe does not name them."""
        return imagenet_classes() if self.classes_of == "imagenet" else self.classes


@dataclass(frozen=True)
class DataTable:
    """Table `[data]`: the data set to train on, by its name for `load_dataset`."""

    name: str

    def __post_init__(self) -> None:
        if self.name not in DATASETS:
            raise unknown("[data] name", self.name, DATASETS)


@dataclass(frozen=True)
class AugmentTable:
    """Table `[augment]`: the ranges of random shifts, rotations and scales, uniform in both directions, and flips."""

    translate: int = 0
    """Pixels of the input, along each axis."""
    rotate: float = 0.0
    """Degrees."""
    scale: float = 0.0
    """Relative to the size: 0.1 is from 0.9 to 1.1."""
    flip: bool = False
    """Whether an image is mirrored, left to right, with probability ½."""
    fill: int = 0
    """Grey level of uncovered pixels, 0 (black) to 255 (white)."""

    def __post_init__(self) -> None:
        if min(self.translate, self.rotate) < 0 or not 0 <= self.scale < 1:
            raise InterpretError(
                f"[augment] needs translate and rotate of at least 0 and scale from 0 to below 1, not {self}"
            )
        if not 0 <= self.fill <= 255:
            raise InterpretError(f"[augment] fill must be a grey level from 0 to 255, not {self.fill}")


@dataclass(frozen=True)
class TrainTable:
    """Table `[train]`: the optimiser, its schedule, and the epochs to keep."""

    lr: float
    batch_size: int
    epochs: int
    optimizer: Literal["sgd", "adam"] = "sgd"
    momentum: float = 0.0
    """For "sgd" alone."""
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine", "step"] = "constant"
    """The learning rate: constant, falling to zero along a half cosine, or divided by ten after each of `steps`."""
    steps: tuple[int, ...] = ()
    """Epochs, for "step" alone."""
    keep: tuple[int, ...] = ()
    """Epochs whose weights are kept, beside the final ones."""
    seed: int = 0
    loss: Literal["cross_entropy", "map", "yolo"] = "cross_entropy"
    """"map" is the maximum a posteriori criterion of LeCun et al. 1998, for outputs that are minus a distance; "yolo"
    is the loss of Redmon et al. 2016, for outputs that are boxes on a grid of cells."""

    def __post_init__(self) -> None:
        if not self.lr > 0 or self.batch_size < 1 or self.epochs < 1 or self.seed < 0:
            raise InterpretError(
                "[train] needs lr above 0, batch_size and epochs of at least 1 and seed of at least 0, "
                f"not lr={self.lr}, batch_size={self.batch_size}, epochs={self.epochs}, seed={self.seed}"
            )
        if not 0 <= self.momentum < 1 or self.weight_decay < 0:
            raise InterpretError(
                "[train] needs momentum from 0 to below 1 and weight_decay of at least 0, "
                f"not momentum={self.momentum}, weight_decay={self.weight_decay}"
            )
        if self.momentum and self.optimizer != "sgd":
            raise InterpretError(f"[train] momentum is for optimizer = 'sgd', not {self.optimizer!r}: leave it out")
        if bool(self.steps) != (self.schedule == "step"):
            raise InterpretError(
                f"[train] steps={list(self.steps)} and schedule={self.schedule!r} do not go together: "
                "name the steps of schedule = 'step', and of no other"
            )
        for name in ("keep", "steps"):
            if any(not 1 <= epoch <= self.epochs for epoch in getattr(self, name)):
                raise InterpretError(
                    f"[train] {name} must lie within epochs 1 to {self.epochs}, not {list(getattr(self, name))}"
                )


@dataclass(frozen=True)
class Recipe:
    """A model folder's `recipe.toml`, one field for each table."""

    input: Preprocess
    data: DataTable
    train: TrainTable
    model: ModelTable = field(default_factory=ModelTable)
    augment: AugmentTable = field(default_factory=AugmentTable)

    def __post_init__(self) -> None:
        if self.augment.translate > min(self.input.size):
            raise InterpretError(
                f"[augment] translate of {self.augment.translate} pixels moves an input of {self.input.size} out of "
                "view: lower it"
            )


def read_recipe(path: str | Path) -> Recipe:
    """Return the recipe in a TOML file.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "recipe.toml"
    >>> _ = path.write_text('''
    ... [input]
    ... size = [28, 28]
    ... channels = "L"
    ... [data]
    ... name = "digits"
    ... [train]
    ... lr = 0.1
    ... batch_size = 64
    ... epochs = 10
    ... ''')
    >>> read_recipe(path).train.epochs
    10

    Raises:
        InterpretError: a file that is missing or is not TOML; a table or key that is unknown or missing; a value of
            the wrong type or out of range.
    """
    path = Path(path)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InterpretError(f"recipe {str(path)!r} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InterpretError(f"recipe {str(path)!r} is not TOML: {error}") from None
    try:
        kinds = get_type_hints(Recipe)
        for name in tables:
            if name not in kinds:
                raise unknown("table", name, kinds)
        for needed in fields(Recipe):
            if needed.default_factory is MISSING and needed.name not in tables:
                raise InterpretError(f"there is no table [{needed.name}]: add it")
        return Recipe(**{name: parse_table(kinds[name], name, table) for name, table in tables.items()})
    except InterpretError as error:
        raise InterpretError(f"recipe {str(path)!r}: {error}") from None


def parse_table(kind: type[Table], name: str, values: Mapping[str, Any]) -> Table:
    """Return a TOML table as the dataclass `kind`, after checking every key and type.

    >>> parse_table(AugmentTable, "augment", {"rotate": 10})
    AugmentTable(translate=0, rotate=10.0, scale=0.0, flip=False, fill=0)
    """
    if not isinstance(values, Mapping):
        raise InterpretError(f"[{name}] must be a table, not {values!r}")
    kinds = get_type_hints(kind)
    for key in values:
        if key not in kinds:
            raise unknown(f"key in [{name}]", key, kinds)
    for needed in fields(kind):
        if needed.default is MISSING and needed.name not in values:
            raise InterpretError(f"[{name}] has no key {needed.name!r}: add it")
    return kind(**{key: _checked(kinds[key], value, f"[{name}] {key}") for key, value in values.items()})


def _checked(kind: Any, value: object, where: str) -> Any:
    """Return a TOML value as the annotated type, or raise an error that says what it should be."""
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise unknown(where, value, get_args(kind))
        return value
    if get_origin(kind) is tuple and isinstance(value, list):
        item, *more = get_args(kind)
        if more == [...] or len(value) == 1 + len(more):
            return tuple(_checked(item, entry, where) for entry in value)
    options = set(get_args(kind)) - {NoneType} if NoneType in get_args(kind) else {kind}
    if float in options and type(value) is int:
        return float(value)
    if type(value) in options:
        return value
    raise InterpretError(f"{where} must be {_described(kind)}, not {value!r}")


def _described(kind: Any) -> str:
    if get_origin(kind) is tuple:
        item, *more = get_args(kind)
        count = "" if more == [...] else f"{1 + len(more)} "
        return f"a list of {count}{_SEVERAL[item]}"
    return next(word for option, word in _SINGLE.items() if option in (kind, *get_args(kind)))


_SINGLE = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
_SEVERAL = {int: "whole numbers", float: "numbers", str: "texts"}
