"""Select layers by name, and receive their outputs while the network runs."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from fnmatch import fnmatchcase
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from interpret.network.boxes import BoxCall, Given, watched_boxes
from interpret.network.weights import named_layers
from interpret.support.errors import InterpretError, unknown

CONVOLUTIONS: dict[int, tuple[type[nn.Module], ...]] = {
    1: (nn.Conv1d, nn.ConvTranspose1d),
    2: (nn.Conv2d, nn.ConvTranspose2d),
    3: (nn.Conv3d, nn.ConvTranspose3d),
}
"""Convolutions by the number of axes that they work along: of signals, images and volumes."""


def input_axes(module: nn.Module) -> int:
    """Return the number of axes of a network's inputs beside their channels: 1 for signals, 2 images, 3 volumes.

    >>> input_axes(nn.Sequential(nn.Conv1d(2, 8, 5), nn.Flatten(), nn.Linear(8, 2))), input_axes(nn.Linear(3, 4))
    (1, 2)

    They are those of its first convolution; without one, inputs are images.
    """
    declared = getattr(module, "declared_shape", None)
    if declared is not None:
        return len(declared) - 1
    found = (axes for part in module.modules() for axes, kinds in CONVOLUTIONS.items() if isinstance(part, kinds))
    return next(found, 2)


def refuse_other_than_images(module: nn.Module, what: str, why: str) -> None:
    """Raise an error for a network of signals or volumes; `why` says what the analysis does with images alone.

    >>> refuse_other_than_images(nn.Conv1d(1, 1, 3), "synthesise", "it optimises colours")
    Traceback (most recent call last):
        ...
    interpret.support.errors.InterpretError: synthesise takes networks of images, not of signals, as it optimises ...
    """
    axes = input_axes(module)
    if axes != 2:
        kind = {1: "signals", 3: "volumes"}[axes]
        raise InterpretError(
            f"{what} takes networks of images, not of {kind}, as {why}: mine, project, probe, occlude and predict "
            f"take {kind}"
        )


def kinds_with_units(module: nn.Module) -> tuple[type[nn.Module], ...]:
    """Return the kinds of layers whose outputs are units: convolutions along the input's axes, and linear layers.

    >>> [kind.__name__ for kind in kinds_with_units(nn.Conv1d(2, 8, 5))]
    ['Conv1d', 'ConvTranspose1d', 'Linear']
    """
    return (*CONVOLUTIONS[input_axes(module)], nn.Linear)


def select_layers(
    module: nn.Module, patterns: str | Iterable[str] | None = None, among: Container[str] | None = None
) -> list[str]:
    """Return the names of a module's layers that match, in the order of `named_modules()`.

    >>> network = nn.Sequential(nn.Conv2d(1, 8, 5), nn.ReLU(), nn.Conv2d(8, 8, 3))
    >>> select_layers(network)
    ['0', '2']
    >>> select_layers(network, "1")
    ['1']
    >>> select_layers(network, "*"), select_layers(network, "*, 1")
    (['0', '2'], ['0', '1', '2'])

    Args:
        module: the network.
        patterns: names or globs (`features.*`), several also separated by commas; None: every layer with units. A full
            name selects that layer alone, of any kind. Of what a glob matches, the layers with units are chosen:
            convolutions and linear layers (see `has_units`). A glob that matches none of them (`*.relu`) chooses all
            that it matches, except layers that only pass on another's output.
        among: the names that globs and the default choose from, such as those of the layers that run; None: all.

    Raises:
        InterpretError: a pattern that matches no layer, with the nearest names.
    """
    modules, axes = {name: layer for name, layer in named_layers(module) if name}, input_axes(module)
    eligible = [name for name in modules if among is None or name in among]
    if patterns is None:
        chosen = [name for name in eligible if has_units(modules[name], axes)]
        if not chosen:
            raise InterpretError("the network has no convolutional or linear layer: name the layers you want")
        return chosen
    matched: set[str] = set()
    for pattern in split_patterns(patterns, modules):
        names = {name: modules[name] for name in eligible if fnmatchcase(name, pattern)}
        if pattern in modules:
            matched.add(pattern)
        elif names:
            matched.update([name for name, layer in names.items() if has_units(layer, axes)] or _distinct(names))
        else:
            raise unknown("layer", pattern, eligible)
    if not matched:
        raise InterpretError("layers is empty: name at least one layer, or leave it out for all")
    return [name for name in modules if name in matched]


def has_units(layer: nn.Module, axes: int = 2) -> bool:
    """Return whether a layer's outputs are units: a convolution or a linear layer, also of the user's own class.

    Of a network whose inputs have another number of axes than images, `axes`, it is a convolution along as many.

    >>> import torch
    >>> class Standardised(nn.Module):  # a convolution of another class than torch's
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.kernels = nn.Parameter(torch.ones(8, 3, 5, 5))
    >>> has_units(nn.Conv2d(3, 8, 5)), has_units(Standardised()), has_units(nn.Sequential(nn.Conv2d(3, 8, 5)))
    (True, True, False)

    A layer of the user's own is recognised by a parameter [units, channels, height, width].
    """
    if isinstance(layer, (*CONVOLUTIONS[axes], nn.Linear)):
        return True
    if isinstance(layer, _HOLDERS):
        return False
    return any(weight.dim() == axes + 2 and len(weight) > 1 for weight in layer.parameters(recurse=False))


_HOLDERS = (nn.ParameterList, nn.ParameterDict, ParametrizationList)
"""Modules that hold parameters of another layer."""


def _distinct(layers: dict[str, nn.Module]) -> list[str]:
    """Return the names of layers without identities, and without sequences whose last layer is among them."""
    passing = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
    matched = set(layers.values())
    repeating = {
        name
        for name, layer in layers.items()
        if isinstance(layer, passing) or (isinstance(layer, nn.Sequential) and len(layer) and layer[-1] in matched)
    }
    return [name for name in layers if name not in repeating] or list(layers)


def did_not_run(name: str) -> InterpretError:
    """Return the error for a layer that the forward pass does not reach."""
    return InterpretError(f"layer {name!r} did not run in the forward pass: choose another")


def not_batched(name: str) -> InterpretError:
    """Return the error for a layer whose first dimension does not count images."""
    return InterpretError(
        f"layer {name!r} does not return one row for each image: its first dimension counts something else, such as "
        "time steps, boxes or parts of an image; choose another layer"
    )


def not_one_tensor(name: str) -> InterpretError:
    """Return the error for a layer that returns something else than a tensor."""
    return InterpretError(f"layer {name!r} returns several tensors, or none, and not one: choose a layer inside it")


def split_patterns(patterns: str | Iterable[str], names: Container[str] = ()) -> list[str]:
    """Return names and globs as a list; in one text, they are separated by commas, unless it is one of `names`.

    >>> split_patterns("conv1, layer1.*")
    ['conv1', 'layer1.*']
    >>> split_patterns(["conv1 "]), split_patterns("one, two ", {"one, two "})
    (['conv1 '], ['one, two '])
    """
    if isinstance(patterns, str):
        if patterns in names:
            return [patterns]
        patterns = [part.strip() for part in patterns.split(",")]
    return [part for part in patterns if part]


class Layout(NamedTuple):
    """How a layer's output is arranged, if not as [B, C, H, W]; see `interpret.Layer.layout`."""

    units: int
    """The dimension that counts the units, from the last."""
    grid: tuple[int, ...] | None = None
    """Rows and columns, if one dimension counts the positions row by row: tokens [B, N, C]."""
    order: tuple[int, ...] | None = None
    """For each position, row by row, its place among the output's, if those are in another order, as in windows."""
    parts: int = 1
    """Into how many rows of the first dimension an image is divided: tokens in windows [B·P, N, C]."""
    boxes: str | None = None
    """The call that pools features in boxes, if the first dimension counts these boxes; see `interpret.Layer.boxes`."""


def units_first(layer: nn.Module, output: Tensor, layout: Layout | None = None) -> Tensor:
    """Return a layer's output with its units as the second dimension, and positions as rows and columns after it.

    A linear layer that runs at each position of an image (ConvNeXt) has its features last.

    >>> import torch
    >>> units_first(nn.Linear(3, 5), torch.zeros(2, 7, 7, 5)).shape
    torch.Size([2, 5, 7, 7])
    >>> units_first(nn.LayerNorm(5), torch.zeros(2, 12, 5), Layout(-1, (3, 4))).shape
    torch.Size([2, 5, 3, 4])

    Tokens in two windows of 2 × 2 each, side by side:

    >>> windows = torch.tensor([[[0], [1], [4], [5]], [[2], [3], [6], [7]]])
    >>> units_first(nn.Linear(3, 1), windows, Layout(-1, (2, 4), (0, 1, 4, 5, 2, 3, 6, 7), parts=2))
    tensor([[[[0, 1, 2, 3],
              [4, 5, 6, 7]]]])
    """
    if layout is None:
        return output.movedim(-1, 1) if isinstance(layer, nn.Linear) and output.dim() > 2 else output
    if layout.order is not None and layout.grid is not None:
        output = output.movedim(layout.units, -1)
        places = output.reshape(len(output) // layout.parts, -1, output.shape[-1])
        order = torch.tensor(layout.order, device=output.device)
        return places.index_select(1, order).movedim(-1, 1).unflatten(2, layout.grid)
    output = output.movedim(layout.units, 1)
    return output if layout.grid is None else output.reshape(*output.shape[:2], *layout.grid)


def tensors_in(tree: object) -> Iterator[Tensor]:
    """Return the tensors in nested lists, tuples and dictionaries.

    >>> import torch
    >>> [len(tensor) for tensor in tensors_in(([torch.zeros(1)], {"a": torch.zeros(2)}, "b"))]
    [1, 2]
    """
    found: list[Tensor] = []
    _collect_tensors(tree, found)
    return iter(found)


def _collect_tensors(tree: object, found: list[Tensor]) -> None:
    """Append the tensors in a tree: a list costs a third of nested generators, and rules look at every operation."""
    if isinstance(tree, Tensor):
        found.append(tree)
    elif isinstance(tree, dict):
        for branch in tree.values():
            _collect_tensors(branch, found)
    elif isinstance(tree, (list, tuple)):
        for branch in tree:
            _collect_tensors(branch, found)


class StopForward(Exception):  # noqa: N818 - not an error
    """Ends a forward pass early; `first_outputs` catches it."""


@contextmanager
def first_outputs(
    module: nn.Module,
    names: Iterable[str],
    receive: Callable[[str, Tensor], None],
    stop: bool = False,
    count: int | None = None,
    raw: bool = False,
    layouts: Mapping[str, Layout] | None = None,
    boxes: Given | None = None,
) -> Iterator[Mapping[str, BoxCall]]:
    """Call `receive(name, output)` as each named layer returns, before any later in-place operation touches it.

    The output has its units as the second dimension. A layer that runs several times in one pass (a shared rectifier)
    counts with its first output. Each forward pass needs its own `with` block. With `stop`, the forward pass ends as
    soon as every named layer has returned. `count` is the number of images, for each of which a layer must return a
    row: if it is 1, a dimension that a `squeeze` has removed is restored. With `raw`, the output is passed as the layer
    returned it. `layouts` says which layers have their units or positions elsewhere than a map [B, C, H, W] (see
    `interpret.tracing.tracing.layouts_of`). The output of a layer that runs once a box has the maps of an image's boxes
    one below the other (see `BoxCall.by_image`); what is yielded says which boxes these are, by the name of the call in
    the layer's layout. `boxes` stand in for the boxes of some calls.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(inplace=True))
    >>> import torch
    >>> with first_outputs(network, ["1"], lambda name, output: print(name, tuple(output.shape))):
    ...     _ = network(torch.zeros(2, 1, 2, 2))
    1 (2, 3)

    Raises:
        InterpretError: a layer whose output is not one tensor; with `count`, one that has not a row for each image.
    """
    waiting = set(names)
    dims = (1, input_axes(module) + 1) if count == 1 and not raw else ()
    arranged = {} if raw else {name: layout for name, layout in (layouts or {}).items() if name in waiting}
    calls: dict[str, BoxCall] = {}

    def hook_for(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(layer: nn.Module, _inputs: object, output: object) -> None:
            if name not in waiting:
                return
            if not isinstance(output, Tensor):
                raise not_one_tensor(name)
            waiting.discard(name)
            layout = arranged.get(name)
            by_box = None if layout is None else layout.boxes
            one_row = layout is None or (layout.parts == 1 and by_box is None)
            if output.dim() in dims and len(output) != 1 and one_row:
                output = output[None]
            output = output if raw else units_first(layer, output, layout)
            if by_box is not None:
                if by_box not in calls or len(calls[by_box].images) != len(output):
                    raise not_batched(name)
                output = calls[by_box].by_image(output)
            if count is not None and not raw and len(output) != count:
                raise InterpretError(
                    f"layer {name!r} returns {len(output)} rows for {count} images, as where a network sends only some "
                    "of its images through a layer: choose other layers"
                )
            receive(name, output)
            if stop and not waiting:
                raise StopForward

        return hook

    handles = [module.get_submodule(name).register_forward_hook(hook_for(name)) for name in list(waiting)]
    by_box = any(layout.boxes for layout in arranged.values())
    try:
        with watched_boxes(module, boxes) if by_box else nullcontext(calls) as calls:
            yield calls
    except StopForward:
        pass
    finally:
        for handle in handles:
            handle.remove()
