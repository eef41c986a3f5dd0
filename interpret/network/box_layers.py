"""Decide which layers run once a box, and which call pools the features that they are given."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from interpret.network.boxes import Given, watched_boxes
from interpret.network.forward import call_network
from interpret.network.layers import StopForward

logger = logging.getLogger(__name__)

_BOXES = (((0.1, 0.1, 0.6, 0.7), (0.0, 0.0, 1.0, 1.0), (0.3, 0.4, 0.9, 0.9)), ((0.2, 0.1, 0.8, 0.9),))
"""Boxes of two images for the test, in fractions of their sides."""
_CODES = ((1, 3), (2, 3))
"""The rows that are NaN in the one and the other pass of the test: each row has a code of its own."""


def find_box_layers(module: nn.Module, images: Tensor, among: Collection[str]) -> dict[str, str]:
    """Return the layers that run once a box, each with the call that pools the features it is given.

    >>> from torchvision.ops import roi_align
    >>> class Detector(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.features, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(16, 2)
    ...     def forward(self, images):
    ...         boxes = [torch.tensor([[1.0, 1.0, 5.0, 6.0], [2.0, 0.0, 7.0, 7.0]])] * len(images)
    ...         return self.head(roi_align(self.features(images), boxes, 2).flatten(1))
    >>> find_box_layers(Detector(), torch.zeros(2, 3, 8, 8), ["head"])
    {'head': 'roi_align 0'}

    It is tried: the network runs with four other boxes in place of those of a call, and some rows of the call's result
    are NaN. A layer runs once for each of these boxes if it returns four rows, and NaN in the same rows alone, in two
    passes with NaN in different rows. All other layers are left out.

    Args:
        module: the network, in evaluation mode.
        images: [2, C, H, W].
        among: names of layers whose first dimension does not count images.
    """
    found: dict[str, str] = {}
    if not among or images.device.type == "meta":
        return found
    with torch.inference_mode(), watched_boxes(module) as calls:
        call_network(module, images.clone())
    for call in calls:
        seen = [_poisoned(module, images, call, rows, among) for rows in _CODES]
        for name in among:
            if name not in found and all(
                one.get(name) == [row in rows for row in range(4)] for one, rows in zip(seen, _CODES, strict=True)
            ):
                found[name] = call
    return found


def _poisoned(
    module: nn.Module, images: Tensor, call: str, rows: tuple[int, ...], among: Collection[str]
) -> Mapping[str, list[bool]]:
    """Run with other boxes and some of their rows NaN; return which rows of layers are NaN."""
    sides = torch.tensor(images.shape[2:]).repeat(2)
    given: Given = {call: [torch.tensor(boxes) * sides for boxes in _BOXES]}
    found: dict[str, list[bool]] = {}
    begun = False

    def poison(name: str, result: Tensor) -> Tensor:
        nonlocal begun
        if name != call:
            return result
        begun = True
        result = result.clone()
        result[list(rows)] = torch.nan
        return result

    def hook_for(name: str) -> Callable[..., None]:
        def hook(_layer: nn.Module, _inputs: object, output: object) -> None:
            if name not in found and isinstance(output, Tensor):
                rows = output.isnan().flatten(1).any(1).tolist() if begun and output.dim() > 1 else []
                found[name] = rows
            if len(found) == len(among):
                raise StopForward

        return hook

    with ExitStack() as undo:
        undo.enter_context(torch.inference_mode())
        undo.enter_context(watched_boxes(module, given, poison))
        for name in among:  # after the hooks that poison
            undo.callback(module.get_submodule(name).register_forward_hook(hook_for(name)).remove)
        try:
            call_network(module, images.clone())
        except StopForward:
            pass
        except Exception as error:  # what comes behind the head fits the network's own boxes alone
            logger.debug("the test of the boxes of %r ended early: %s", call, error)
    return found
