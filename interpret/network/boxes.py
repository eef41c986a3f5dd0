"""Boxes: the parts of images that a network pools features of, for layers that run once a box."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

POOLING = ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool")
"""torchvision's operations that pool the features in boxes."""
_ARGUMENTS = ("x", "boxes", "image_shapes")
"""What `MultiScaleRoIAlign` takes, and `BoxCrops` but for the last."""
_FUNCTION_ARGUMENTS = ("input", "rois", "spatial_scale")
"""The first arguments of torchvision's operations."""


class BoxCrops(nn.Module):
    """Cut boxes out of images and shrink each to a square by averaging, for networks that look at crops.

    >>> crops = BoxCrops(1)
    >>> image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> crops(image, [torch.tensor([[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 2.0, 1.0]])]).flatten()
    tensor([2.5000, 2.0000])

    Layers behind it run once a box: they are mined by image and box, and their signals pass back through the crop.

    Args:
        side: of the squares, in pixels.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: Tensor, boxes: Sequence[Tensor]) -> Tensor:
        """Return the crops [N, C, side, side] of images [B, C, H, W]; the edges of boxes are moved outward to pixels.

        Args:
            x: the images.
            boxes: those of each image, [n, 4], as (left, top, right, bottom) in pixels.
        """
        height, width = x.shape[2:]
        crops = [x.new_zeros(0, x.shape[1], self.side, self.side)]
        for image, own in zip(x, boxes, strict=True):
            corners = torch.cat([own[:, :2].floor(), own[:, 2:].ceil()], 1).long().clamp(min=0).tolist()
            for left, top, right, bottom in corners:
                top, left = min(top, height - 1), min(left, width - 1)
                cut = image[None, :, top : max(bottom, top + 1), left : max(right, left + 1)]
                crops.append(nn.functional.adaptive_avg_pool2d(cut, self.side))
        return torch.cat(crops)


class BoxCall(NamedTuple):
    """What one call that pools features was given: N boxes of B images."""

    images: Tensor
    """[N] the image of each row of the call's result."""
    boxes: Tensor
    """[N, 4] the boxes in pixels of the images that the network was given: top, left, bottom, right."""
    image_count: int
    """B."""

    def of_images(self) -> list[Tensor]:
        """Return the boxes of each image, [n, 4], in the order of the rows."""
        return [self.boxes[self.images == image] for image in range(self.image_count)]

    def by_image(self, output: Tensor) -> Tensor:
        """Return what a layer gave for the boxes, [N, C] or [N, C, h, w], as one map for each image: [B, C, R·h, w].

        >>> call = BoxCall(torch.tensor([0, 0, 1]), torch.zeros(3, 4), 2)
        >>> call.by_image(torch.tensor([[1.0], [2.0], [3.0]]))[:, 0, :, 0]
        tensor([[1., 2.],
                [3., -inf]])

        The maps of an image's boxes lie one below the other. R is the largest number of boxes of an image, at least 1;
        the rows of boxes that an image does not have are −inf.
        """
        if output.dim() == 2:
            output = output[:, :, None, None]
        own = [(self.images == image).nonzero()[:, 0] for image in range(self.image_count)]
        most = max(1, *map(len, own))
        output = torch.cat([output, output.new_full((1, *output.shape[1:]), -torch.inf)])
        none = len(self.images)
        rows = torch.stack([nn.functional.pad(one, (0, most - len(one)), value=none) for one in own])
        return output[rows.to(output.device)].transpose(1, 2).flatten(2, 3)


Given = Mapping[str, Sequence[Tensor]]
"""Boxes of each image by the name of a call, in place of the network's own."""
Change = Callable[[str, Tensor], Tensor]


@contextmanager
def watched_boxes(
    module: nn.Module, given: Given | None = None, change: Change | None = None
) -> Iterator[dict[str, BoxCall]]:
    """Note the boxes of each call that pools features while a network runs, by the call's name.

    >>> from torchvision.ops import roi_align
    >>> class Head(nn.Module):
    ...     def forward(self, images):
    ...         return roi_align(images, [torch.tensor([[2.0, 0.0, 6.0, 4.0]])], 2)
    >>> head = Head()
    >>> with watched_boxes(head) as calls:
    ...     _ = head(torch.zeros(1, 3, 8, 8))
    >>> calls["roi_align 0"].boxes
    tensor([[0., 2., 4., 6.]])

    A call is named after its `MultiScaleRoIAlign` or `BoxCrops`, or after its function, and counted from 0. Boxes of
    these layers are those of images of the sizes that it is given; they are scaled to the images that the
    network was given, which a detector resizes. Boxes of a function are taken as pixels of these images, or of those
    to which the network resizes them, if `spatial_scale` maps their sides to about those of the feature map, up to a
    factor of two; otherwise they are scaled so that the feature map covers the image.

    Args:
        module: the network.
        given: boxes that stand in for those of some calls.
        change: changes the result of a call.
    """
    watch = _Watch(module, given or {}, change)
    handles = [module.register_forward_pre_hook(watch.begin)]
    poolers: Any = sys.modules.get("torchvision.ops.poolers")
    for name, part in module.named_modules():
        if isinstance(part, BoxCrops) or (poolers is not None and isinstance(part, poolers.MultiScaleRoIAlign)):
            handles.append(part.register_forward_pre_hook(watch.enter(name), with_kwargs=True))
            handles.append(part.register_forward_hook(watch.leave(name)))
    try:
        with watch:
            yield watch.calls
    finally:
        for handle in handles:
            handle.remove()


class _Watch(TorchFunctionMode):
    """Sees the calls, and notes or replaces what they are given."""

    def __init__(self, module: nn.Module, given: Given, change: Change | None) -> None:
        super().__init__()
        self.calls: dict[str, BoxCall] = {}
        self._given, self._change = given, change
        self._size: tuple[int, ...] = ()
        """(B, C, H, W) of the images."""
        self._resized: tuple[int, ...] = ()
        """(H, W) to which the network has resized them."""
        self._counts: Counter[str] = Counter()
        self._inside = False
        """Whether such a layer runs, which calls the function once a level."""

    def begin(self, _module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if not self._size and inputs and isinstance(inputs[0], Tensor):
            self._size = tuple(inputs[0].shape)
            self._resized = self._size[2:]

    def _next(self, name: str) -> str:
        self._counts[name] += 1
        return f"{name} {self._counts[name] - 1}"

    def _changed(self, name: str, result: Tensor) -> Tensor:
        return result if self._change is None else self._change(name, result)

    # ---- MultiScaleRoIAlign ------------------------------------------------------------------------------------------

    def enter(self, name: str) -> Callable[..., Any]:
        def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            call = self._next(name)
            self._inside = True
            found = dict(zip(_ARGUMENTS, args, strict=False)) | kwargs
            shapes = found.get("image_shapes")
            if isinstance(layer, BoxCrops):
                shapes = [found["x"].shape[2:]] * len(found["x"])
            if len(self._size) != 4 or "boxes" not in found or shapes is None:
                return None
            sides = torch.tensor(self._size[2:])
            scales = [sides / torch.tensor(shape) for shape in shapes]
            if call in self._given:
                found["boxes"] = [
                    _swapped(_like(own, old) / _like(scale.repeat(2), old))
                    for own, old, scale in zip(self._given[call], found["boxes"], scales, strict=True)
                ]
            boxes = [
                _swapped(own.detach()) * scale.repeat(2).to(own)
                for own, scale in zip(found["boxes"], scales, strict=True)
            ]
            counts = torch.tensor([len(own) for own in boxes])
            if len(boxes) == self._size[0]:
                images = torch.arange(len(boxes)).repeat_interleave(counts)
                self.calls[call] = BoxCall(images, _on_host(torch.cat(boxes)), len(boxes))
            return (), found

        return hook

    def leave(self, name: str) -> Callable[..., Any]:
        def hook(_layer: nn.Module, _inputs: Any, result: Any) -> Any:
            self._inside = False
            return self._changed(f"{name} {self._counts[name] - 1}", result)

        return hook

    # ---- functions ---------------------------------------------------------------------------------------------------

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "").startswith(("interpolate", "upsample_")):
            return self._noting_size(func(*args, **kwargs), *args, *kwargs.values())
        name = "" if self._inside or not isinstance(func, _PACKET) else str(func).removeprefix("torchvision.")
        args += tuple(kwargs.pop(key) for key in _FUNCTION_ARGUMENTS[len(args) :] if name in POOLING and key in kwargs)
        if name not in POOLING or len(args) < 3 or len(self._size) != 4 or len(args[0]) != self._size[0]:
            return func(*args, **kwargs)
        call = self._next(name)
        features, rois, spatial_scale, *rest = args
        sides = zip(self._size[2:], self._resized, features.shape[2:], strict=True)
        scale = torch.tensor([_to_pixels(spatial_scale, *one) for one in sides]).repeat(2)
        if call in self._given:
            rois = torch.cat(
                [
                    nn.functional.pad(_swapped(_like(own, rois) / _like(scale, rois)), (1, 0), value=image)
                    for image, own in enumerate(self._given[call])
                ]
            )
        found = _on_host(rois)
        self.calls[call] = BoxCall(found[:, 0].long(), _swapped(found[:, 1:]) * scale.to(found), len(features))
        result = func(features, rois, spatial_scale, *rest, **kwargs)
        if isinstance(result, Tensor):
            return self._changed(call, result)
        return (self._changed(call, result[0]), *result[1:])

    def _noting_size(self, result: Any, images: Any, *_: Any) -> Any:
        """Note to which size images are resized."""
        if isinstance(images, Tensor) and images.shape[1:] == (*self._size[1:2], *self._resized):
            self._resized = tuple(result.shape[2:])
        return result


_PACKET = type(torch.ops.aten.relu)


def _on_host(boxes: Tensor) -> Tensor:
    """Return boxes on the host; zeros for those on the meta device, which have no values."""
    return torch.zeros(boxes.shape) if boxes.is_meta else boxes.detach().cpu()


def _like(given: Tensor, old: Tensor) -> Tensor:
    """Return a tensor of another's type and device; nothing else depends on the other one, not even for a rule."""
    return given.to(device=old.device, dtype=old.dtype)


def _swapped(boxes: Tensor) -> Tensor:
    """Return boxes (left, top, right, bottom) as (top, left, bottom, right), or the other way round."""
    return boxes[:, [1, 0, 3, 2]]


def _to_pixels(spatial_scale: float, side: int, resized: int, map_side: int) -> float:
    """Return what turns a box's coordinate into pixels of the image, whose side the network may have resized.

    >>> _to_pixels(1 / 16, 227, 227, 13), _to_pixels(1 / 16, 227, 454, 29)  # pixels of the image; of the resized one
    (1.0, 0.5)
    >>> _to_pixels(1.0, 224, 224, 7)  # on the grid of the feature map
    32.0
    """
    nearer = min((side, resized), key=lambda one: abs(spatial_scale * one - map_side))
    return side / nearer if 0.5 < spatial_scale * nearer / map_side < 2 else spatial_scale * side / map_side
