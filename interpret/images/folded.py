"""Signals and volumes as images, for analyses that move or hide what is at rows and columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor, nn

from interpret.images.derived import DerivedImages
from interpret.images.sources import Images
from interpret.network.forward import CalledBy
from interpret.network.model import Model


def fold(inputs: Tensor) -> Tensor:
    """Return inputs [n, C, …] as images: of signals the only row, of volumes the slices as channels of their own.

    >>> import torch
    >>> fold(torch.zeros(2, 3, 50)).shape, fold(torch.zeros(2, 3, 4, 8, 9)).shape
    (torch.Size([2, 3, 1, 50]), torch.Size([2, 12, 8, 9]))
    """
    if inputs.dim() == 3:
        return inputs[:, :, None]
    return inputs.flatten(1, 2) if inputs.dim() == 5 else inputs


def unfold(images: Tensor, shape: Sequence[int]) -> Tensor:
    """Return images made by `fold` as the inputs of a shape (C, …) that they were; a view."""
    return images.view(len(images), *shape)


def _call(network: nn.Module, images: Tensor, shape: Sequence[int]) -> Tensor:
    answer: Tensor = network(unfold(images.contiguous(), shape))
    return answer


def folded_model(model: Model, shape: Sequence[int]) -> Model:
    """Return a network of signals or volumes of a shape (C, …) as one that takes what `fold` makes of them."""
    return replace(model, module=CalledBy(model.module, partial(_call, shape=tuple(shape))))


class FoldedImages(DerivedImages):
    """Signals or volumes as images; see `fold`."""

    def __init__(self, data: Images) -> None:
        super().__init__(data)
        self.channels, self.skipped = data.channels, data.skipped
        self.most_workers = data.most_workers

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        one, label = self.data[item]
        return fold(one[None])[0], label
