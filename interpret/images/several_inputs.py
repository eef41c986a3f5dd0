"""Networks with several inputs: pack all inputs into one tensor, with the other inputs as extra image channels."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sized
from dataclasses import dataclass, replace
from inspect import Parameter, signature
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from interpret.images.dataset_images import DatasetImages
from interpret.images.opening import open_images
from interpret.images.sources import Images
from interpret.images.tensor_images import TensorImages
from interpret.network.forward import CalledBy, Several, first_weight, is_several, weights_type
from interpret.network.model import Model
from interpret.support.errors import InterpretError, unknown


def call_with(network: Callable[..., Any], inputs: Mapping[str | int, Tensor]) -> Any:
    """Call a network on inputs by name or by position."""
    by_place = [inputs[key] for key in sorted(key for key in inputs if isinstance(key, int))]
    return network(*by_place, **{key: value for key, value in inputs.items() if isinstance(key, str)})


def check_call(network: nn.Module, keys: Iterable[str | int]) -> None:
    """Refuse inputs that a network's `forward` does not accept.

    >>> check_call(nn.ReLU(), [0, 1])
    Traceback (most recent call last):
        ...
    interpret.support.errors.InterpretError: the network (ReLU) is not called on inputs 0 and 1 (too many positional \
arguments): pass images with labels as a data set of (image, label)
    """
    keys = list(keys)
    try:
        how = signature(network.forward)
    except (TypeError, ValueError):  # of what is not written in Python, nobody knows
        return
    try:
        call_with(how.bind, dict.fromkeys(keys, torch.empty(0)))
    except TypeError as error:
        given = " and ".join(map(repr, keys))
        raise InterpretError(
            f"the network ({type(network).__name__}) is not called on inputs {given} ({error}): "
            "pass images with labels as a data set of (image, label)"
        ) from None


def by_key(inputs: Several) -> dict[str | int, Tensor]:
    """Return inputs by name or by position, and refuse inputs of different lengths.

    >>> by_key((torch.zeros(2, 3), torch.zeros(2))).keys()
    dict_keys([0, 1])
    """
    found: dict[str | int, Tensor] = {}
    found.update(inputs if isinstance(inputs, Mapping) else enumerate(inputs))
    first = next(iter(found))
    for key, value in found.items():
        if value.dim() == 0 or found[first].dim() == 0 or len(value) != len(found[first]):
            raise InterpretError(
                f"inputs {first!r} and {key!r} have shapes {list(found[first].shape)} and {list(value.shape)}: the "
                "first dimension of each counts the images"
            )
    return found


def image_among(inputs: Mapping[str | int, Tensor], chosen: str | int | None = None) -> str | int:
    """Return which input holds the images: the chosen one, or the first float tensor [B, C, H, W].

    >>> image_among({"age": torch.zeros(2), "picture": torch.zeros(2, 3, 8, 8)})
    'picture'
    """
    if chosen is not None and chosen not in inputs:
        raise unknown("input", chosen, map(str, inputs))
    candidates = inputs if chosen is None else [chosen]
    for key in candidates:
        if inputs[key].dim() == 4 and inputs[key].is_floating_point():
            return key
    raise InterpretError(f"of the inputs {list(candidates)}, none is images: a float tensor [B, C, H, W]")


def taking_images(module: nn.Module, image: str | int, others: Mapping[str | int, Tensor]) -> CalledBy:
    """Wrap a network with several inputs into one that takes only images; the other inputs are constants.

    >>> network = taking_images(nn.Bilinear(3, 4, 2), 0, {1: torch.ones(1, 4)})
    >>> network(torch.rand(5, 3)).shape
    torch.Size([5, 2])

    Args:
        module: the network.
        image: the name or position of the input that takes the images.
        others: the other inputs [B, …], or [1, …] if they are the same for all images.
    """

    check_call(module, [image, *others])

    def call(network: nn.Module, images: Tensor) -> Any:
        # clones, since the network may change them in place
        constants = {key: value.expand(len(images), *value.shape[1:]).clone() for key, value in others.items()}
        return call_with(network, {image: images, **constants})

    return CalledBy(module, call)


@dataclass(frozen=True)
class Packing:
    """The layout of several inputs in one tensor: the images' channels first, then the values of the others.

    >>> inputs = by_key((torch.rand(2, 3, 4, 4), torch.tensor([True, False])))
    >>> packing = Packing.of(inputs)
    >>> packing.pack(inputs).shape
    torch.Size([2, 4, 4, 4])
    >>> packing.unpack(packing.pack(inputs))[1]
    tensor([ True, False])

    Values of another type than the images' are stored byte by byte; every float type holds a byte exactly.
    """

    image: str | int
    channels: int
    size: torch.Size
    """Height and width of the images. Crops are refused, since they would lose values of the other inputs."""
    others: tuple[tuple[str | int, torch.dtype, torch.Size], ...]
    """The name, type and shape (without the batch) of each other input."""

    @classmethod
    def of(cls, inputs: Mapping[str | int, Tensor], chosen: str | int | None = None) -> Packing:
        image = image_among(inputs, chosen)
        others = tuple((key, value.dtype, value.shape[1:]) for key, value in inputs.items() if key != image)
        return cls(image, inputs[image].shape[1], inputs[image].shape[2:], others)

    def pack(self, inputs: Mapping[str | int, Tensor]) -> Tensor:
        """Return the inputs as one tensor [B, C + …, H, W]."""
        images = inputs[self.image].detach()
        area = images[0, 0].numel()
        packed = [images]
        for key, dtype, _ in self.others:
            numbers = inputs[key].detach().to(images.device).flatten()
            numbers = numbers if dtype == images.dtype else numbers.view(torch.uint8).to(images.dtype)
            numbers = numbers.reshape(len(images), -1)
            numbers = nn.functional.pad(numbers, (0, -numbers.shape[1] % area))
            packed.append(numbers.reshape(len(images), -1, *images.shape[2:]))
        return torch.cat(packed, 1)

    def unpack(self, packed: Tensor) -> dict[str | int, Tensor]:
        """Return the inputs by name or by position; all but the images are detached."""
        if packed.shape[2:] != self.size:
            raise InterpretError(f"a network of several inputs takes whole images, {list(self.size)}")
        found = {self.image: packed[:, : self.channels]}
        rest, place = packed[:, self.channels :].detach(), 0
        area = math.prod(packed.shape[2:])
        for key, dtype, shape in self.others:
            count = math.prod(shape) * (1 if dtype == packed.dtype else dtype.itemsize)
            size = -(-count // area)
            numbers = rest[:, place : place + size].flatten(1)[:, :count]
            numbers = numbers if dtype == packed.dtype else numbers.to(torch.uint8).flatten().view(dtype)
            found[key] = numbers.reshape(len(packed), *shape)
            place += size
        return found

    def __call__(self, network: nn.Module, packed: Tensor) -> Any:
        return call_with(network, self.unpack(packed))


def as_one(model: Model, inputs: Several, chosen: str | int | None = None) -> tuple[Model, Tensor, Packing]:
    """Return a model that takes several inputs as one tensor, that tensor, and its layout.

    >>> model = Model(nn.Bilinear(3, 4, 2), name="two inputs")
    >>> as_one(model, (torch.rand(5, 3, 2, 2), torch.rand(5, 4)))[1].shape
    torch.Size([5, 4, 2, 2])
    """
    found = by_key(inputs)
    check_call(model.module, found)
    packing = Packing.of(found, chosen)
    return replace(model, module=CalledBy(model.module, packing)), packing.pack(found), packing


class SeveralImages(TensorImages):
    """Images in memory, each with the network's other inputs."""

    def __init__(self, model: Model, packed: Tensor, packing: Packing) -> None:
        super().__init__(packed[:, : packing.channels], model)
        self.model, self.packed = model, packed
        self.channels = packing.channels

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        return self.packed[item], -1

    @property
    def fingerprint(self) -> str:
        return TensorImages(self.packed, self.model).fingerprint


class _ImagesOf:
    """A data set of (image, label) from one whose items hold several inputs; `others` has the last item's others."""

    def __init__(self, dataset: Any, keys: list[str | int], image: str | int) -> None:
        self.dataset, self.keys, self.image = dataset, keys, image
        self.others: dict[str | int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, item: int) -> tuple[Any, Any]:
        inputs, label = _inputs_of(self.dataset[item], self.keys, item)
        self.others = {key: _as_tensor(key, value, item) for key, value in inputs.items() if key != self.image}
        return inputs[self.image], label

    def __getattr__(self, name: str) -> Any:
        """Return the data set's own attributes, such as its classes."""
        if name in ("dataset", "keys", "image", "others"):  # while it is copied, before these are set
            raise AttributeError(name)
        return getattr(self.dataset, name)


class SeveralItems(DatasetImages):
    """A data set whose items hold an image and the network's other inputs."""

    def __init__(self, dataset: Any, model: Model, keys: list[str | int]) -> None:
        first, _ = _inputs_of(dataset[0], keys, 0)
        image = next((key for key, value in first.items() if _is_image(value)), None)
        if image is None:
            raise InterpretError(f"of the inputs {keys} in item 0, none is an image [C, H, W]")
        self.one_by_one = _ImagesOf(dataset, keys, image)
        super().__init__(self.one_by_one, model)
        self.name, self.dtype = type(dataset).__name__, weights_type(model.module)
        inputs = self._inputs(0)[0]
        self.packing = Packing.of(inputs, image)
        self.channels = self.packing.channels

    def _inputs(self, item: int) -> tuple[dict[str | int, Tensor], int]:
        image, label = super().__getitem__(item)
        read = {self.one_by_one.image: image, **self.one_by_one.others}
        return {key: read[key][None] for key in self.one_by_one.keys}, label

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        inputs, label = self._inputs(item)
        return self.packing.pack(inputs)[0], label


def _inputs_of(item: Any, keys: list[str | int], place: int) -> tuple[dict[str | int, Any], Any]:
    """Return an item's inputs, by name or position, and its label."""
    holds = isinstance(item, Mapping | tuple | list)
    if not holds or any(key not in (item if isinstance(item, Mapping) else range(len(item))) for key in keys):
        raise InterpretError(f"item {place} does not hold the inputs {keys} that the network takes")
    label = item.get("label", -1) if isinstance(item, Mapping) else item[len(keys)] if len(item) > len(keys) else -1
    return {key: item[key] for key in keys}, label


def _as_tensor(key: str | int, value: Any, place: int) -> Tensor:
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        raise InterpretError(
            f"input {key!r} of item {place} is {type(value).__name__}: give it as a tensor or a number"
        ) from None


def _is_image(value: Any) -> bool:
    floats = isinstance(value, Tensor) and value.dim() == 3 and value.is_floating_point()
    return floats or isinstance(value, Image.Image)


def needed_inputs(module: nn.Module) -> list[str]:
    """Return the names of the required parameters of a network's `forward`.

    >>> needed_inputs(nn.Bilinear(3, 4, 2)), needed_inputs(nn.Linear(3, 4))
    (['input1', 'input2'], ['input'])
    """
    kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    try:
        parameters = signature(module.forward).parameters.values()
    except (TypeError, ValueError):  # of what is not written in Python, nobody knows
        return []
    return [one.name for one in parameters if one.kind in kinds and one.default is Parameter.empty]


def open_together(model: Model, data: Any) -> tuple[Model, Images]:
    """Open data as `open_images` does; for several inputs, pack them and wrap the model accordingly.

    >>> model, images = open_together(Model(nn.Bilinear(3, 4, 2), "two"), (torch.rand(5, 3, 2, 2), torch.rand(5, 4)))
    >>> len(images), images.channels
    (5, 3)

    The items of a data set hold several inputs if the network's `forward` requires more than one: under the names of
    its parameters, or in their order.
    """
    if is_several(data):
        model, packed, packing = as_one(model, data)
        return model, SeveralImages(model, packed, packing)
    names = needed_inputs(model.module)
    if len(names) > 1 and _has_items(data):
        by_name = isinstance(data[0], Mapping)
        images = SeveralItems(data, model, list(names) if by_name else list(range(len(names))))
        return replace(model, module=CalledBy(model.module, images.packing)), images
    return model, open_images(data, model)


def _has_items(data: Any) -> bool:
    """Return whether data is a map-style data set whose items hold several things."""
    if isinstance(data, Images | Tensor | np.ndarray | str | os.PathLike) or not isinstance(data, Sized):
        return False
    return hasattr(data, "__getitem__") and len(data) > 0 and isinstance(data[0], Mapping | tuple | list)


def with_examples(module: nn.Module, examples: Any) -> tuple[CalledBy, tuple[int, ...]]:
    """Wrap a network with several inputs into one that takes only images, and return it with the shape of an image.

    >>> network, shape = with_examples(nn.Bilinear(3, 4, 2), [(3, 8, 8), (4,)])
    >>> shape
    (3, 8, 8)

    Args:
        module: the network.
        examples: for each input, by name or position, its shape without the batch or a tensor [B, …].
    """
    weight = first_weight(module)
    inputs = {
        key: one[:1] if isinstance(one, Tensor) else weight.new_zeros(1, *one)
        for key, one in (examples.items() if isinstance(examples, Mapping) else enumerate(examples))
    }
    image = image_among(inputs)
    others = {key: value for key, value in inputs.items() if key != image}
    return taking_images(module, image, others), tuple(inputs[image].shape[1:])
