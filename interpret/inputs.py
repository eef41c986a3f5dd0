"""Several inputs: what a network takes beside its images travels behind them, as further channels of one tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from interpret.data import Images, TensorImages, open_images
from interpret.errors import InterpretError, unknown
from interpret.forward import CalledBy, Several, is_several
from interpret.model import Model


def call_with(network: nn.Module, inputs: Mapping[str | int, Tensor]) -> Any:
    """Call a network on inputs by name or by place."""
    by_place = [inputs[key] for key in sorted(key for key in inputs if isinstance(key, int))]
    return network(*by_place, **{key: value for key, value in inputs.items() if isinstance(key, str)})


def by_key(inputs: Several) -> dict[str | int, Tensor]:
    """Return inputs by name or by place, and refuse those of different length.

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
    """Return which input holds the images: the one chosen, or the first of floats [B, C, H, W].

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
    """Return a network of several inputs as one that takes images alone; the others are constants.

    >>> network = taking_images(nn.Bilinear(3, 4, 2), 0, {1: torch.ones(1, 4)})
    >>> network(torch.rand(5, 3)).shape
    torch.Size([5, 2])

    Args:
        others: the other inputs [B, …], or [1, …] where they are the same for all images.
    """

    def call(network: nn.Module, images: Tensor) -> Any:
        constants = {key: value.expand(len(images), *value.shape[1:]) for key, value in others.items()}
        return call_with(network, {image: images, **constants})

    return CalledBy(module, call)


@dataclass(frozen=True)
class Packing:
    """How several inputs lie in one tensor: the images' channels first, then the numbers of the others.

    >>> inputs = by_key((torch.rand(2, 3, 4, 4), torch.tensor([True, False])))
    >>> packing = Packing.of(inputs)
    >>> packing.pack(inputs).shape
    torch.Size([2, 4, 4, 4])
    >>> packing.unpack(packing.pack(inputs))[1]
    tensor([ True, False])

    Numbers of another type than the images' travel byte by byte, which every type of float holds exactly.
    """

    image: str | int
    channels: int
    size: torch.Size
    """Height and width of the images; of a part, the others' numbers would be lost."""
    others: tuple[tuple[str | int, torch.dtype, torch.Size], ...]
    """Of each further input its name, type and shape without the batch."""

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
        """Return the inputs by name or by place; all but the images are constants."""
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
    """Return a model that takes several inputs as one tensor, that tensor, and how they lie in it.

    >>> model = Model(nn.Bilinear(3, 4, 2), name="two inputs")
    >>> as_one(model, (torch.rand(5, 3, 2, 2), torch.rand(5, 4)))[1].shape
    torch.Size([5, 4, 2, 2])
    """
    found = by_key(inputs)
    packing = Packing.of(found, chosen)
    return replace(model, module=CalledBy(model.module, packing)), packing.pack(found), packing


class SeveralImages(TensorImages):
    """Images in memory, each with what the network takes beside it."""

    def __init__(self, model: Model, packed: Tensor, packing: Packing) -> None:
        super().__init__(packed[:, : packing.channels], model)
        self.model, self.packed = model, packed
        self.channels = packing.channels

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        return self.packed[item], -1

    @property
    def fingerprint(self) -> str:
        return TensorImages(self.packed, self.model).fingerprint


def open_together(model: Model, data: Any) -> tuple[Model, Images]:
    """Return data as `open_images` does, and of several inputs the model that takes them as one.

    >>> model, images = open_together(Model(nn.Bilinear(3, 4, 2), "two"), (torch.rand(5, 3, 2, 2), torch.rand(5, 4)))
    >>> len(images), images.channels
    (5, 3)
    """
    if not is_several(data):
        return model, open_images(data, model)
    model, packed, packing = as_one(model, data)
    return model, SeveralImages(model, packed, packing)


def with_examples(module: nn.Module, examples: Any) -> tuple[CalledBy, tuple[int, ...]]:
    """Return a network of several inputs as one that takes images alone, and the shape of one.

    >>> network, shape = with_examples(nn.Bilinear(3, 4, 2), [(3, 8, 8), (4,)])
    >>> shape
    (3, 8, 8)

    Args:
        examples: of each input, by name or place, its shape without the batch, or a tensor [B, …].
    """
    parameter = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(0))
    inputs = {
        key: one[:1] if isinstance(one, Tensor) else parameter.new_zeros(1, *one)
        for key, one in (examples.items() if isinstance(examples, Mapping) else enumerate(examples))
    }
    image = image_among(inputs)
    others = {key: value for key, value in inputs.items() if key != image}
    return taking_images(module, image, others), tuple(inputs[image].shape[1:])
