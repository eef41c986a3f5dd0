"""Dry run: a few forward passes of two images, which show how a network may run.

Analyses treat a network as a function of one image. If its outputs depend on chance, on the other images of a batch, on
the memory layout of its input or on another thread, nothing in the results would show it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from interpret.network.boxes import watched_boxes
from interpret.network.forward import call_network
from interpret.network.layers import StopForward, not_batched, tensors_in
from interpret.network.model import Model
from interpret.network.structure import held_for, state_of
from interpret.support.errors import InterpretError, warn

GPU_TOLERANCE = 0.02
"""The largest relative difference of outputs on a GPU, which rounds products to about ten bits, in any order."""


@dataclass
class Answers:
    """The first outputs of all modules in one forward pass, in the order in which they finished."""

    shapes: dict[str, tuple[int, ...]]
    """Shapes of the outputs that are one tensor."""
    digests: dict[str, list[Tensor]]
    """For every tensor that a module returned, [rows, n]: its values, or the extremes and means of feature maps."""


def pair_of(images: Tensor) -> Tensor:
    """Return the first two images, or one and its mirror image.

    >>> pair_of(torch.tensor([[[[1.0, 2.0]]]]))[:, 0, 0]
    tensor([[1., 2.],
            [2., 1.]])
    """
    return images[:2] if len(images) > 1 else torch.cat([images, images.flip(-1)])


def answers_of(module: nn.Module, images: Tensor, until: Container[str] | None = None) -> Answers:
    """Run images and return the outputs of all modules; with `until`, stop after the last of those layers."""
    answers = Answers({}, {})
    waiting = {name for name, _ in module.named_modules() if until is not None and name in until}
    stops = bool(waiting)

    def hook_for(name: str) -> Callable[..., None]:
        def hook(_layer: nn.Module, _inputs: object, output: object) -> None:
            if name not in answers.digests:
                answers.digests[name] = [_digest(tensor) for tensor in tensors_in(output)]
                if isinstance(output, Tensor):
                    answers.shapes[name] = tuple(output.shape)
            waiting.discard(name)
            if stops and not waiting:
                raise StopForward

        return hook

    with ExitStack() as undo:
        for name, layer in module.named_modules():
            undo.callback(layer.register_forward_hook(hook_for(name)).remove)
        undo.enter_context(torch.inference_mode())
        undo.enter_context(suppress(StopForward))
        call_network(module, images.clone())  # which it may change
    if not images.is_meta:  # only now, since a GPU would be waited for after every layer
        answers.digests = {name: [digest.cpu() for digest in digests] for name, digests in answers.digests.items()}
    return answers


def _digest(output: Tensor) -> Tensor:
    """Return a digest of an output by which it is compared, [rows, n] in float64, in a fraction of its memory."""
    if output.layout is not torch.strided:
        output = output.to_dense()
    if output.is_complex():
        output = torch.view_as_real(output)
    if output.numel() == 0 or output.dim() == 0:
        return output.detach().double().reshape(1, -1)
    if output.dim() < 3:
        return output.detach().double().flatten(1) if output.dim() == 2 else output.detach().double()[:, None]
    if not output.is_floating_point():
        output = output.float()
    dims = tuple(range(2, output.dim()))
    each = output.amax(dims), output.amin(dims), output.mean(dims)
    return torch.stack([one.double() for one in each], 2).flatten(1)


def is_batched(alone: Sequence[int], together: Sequence[int]) -> bool:
    """Return whether the first dimension of a layer's output counts images, from its shapes for one and two images.

    >>> is_batched((1, 8), (2, 8)), is_batched((5, 8), (10, 8)), is_batched((7, 1, 8), (7, 2, 8))
    (True, False, False)
    >>> is_batched((8,), (2, 8))  # a `squeeze` has removed the dimension of one image
    True
    """
    if not together or together[0] != 2:
        return False
    return tuple(alone) in ((1, *together[1:]), tuple(together[1:]))


class DryRun:
    """Checks of a network by a few forward passes of two images.

    >>> network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten())
    >>> run = DryRun(network.eval(), torch.rand(2, 1, 5, 5))
    >>> run.unbatched, run.answers_the_same(network, torch.channels_last)
    (frozenset(), True)

    Args:
        module: a network in evaluation mode.
        images: [B, C, H, W]; the first two run.
        until: the layers that are needed: the pass ends when all of them have returned. None: all layers.
        varying: whether outputs may vary by chance or with the other images of a batch.

    Raises:
        InterpretError: outputs vary, and `varying` is not set; the first layer that varies is named.
    """

    def __init__(
        self, module: nn.Module, images: Tensor, until: Container[str] | None = None, varying: bool = False
    ) -> None:
        self._pair = pair_of(images)
        self._until = until
        self._varying = varying
        self._found: dict[object, bool] = {}
        """Whether outputs are the same, by memory layout, and of copies."""
        self._tolerance = torch.finfo(images.dtype).eps ** 0.5
        if images.device.type != "cpu":
            self._tolerance = max(self._tolerance, GPU_TOLERANCE)
        with watched_boxes(module) as calls:
            alone = self._answers(module, 1)
        self.pools_boxes = bool(calls)
        """Whether features are pooled in boxes: with one in each image, the layers behind that seem to be batched."""
        self._together = self._answers(module, 2)
        self.unbatched = frozenset(
            name for name, shape in alone.shapes.items() if not is_batched(shape, self._together.shapes.get(name, ()))
        )
        """The layers whose first dimension does not count images."""
        self.not_one_tensor = frozenset(self._together.digests.keys() - self._together.shapes.keys())
        """The layers that return several tensors, or none."""
        if varying:
            return
        again = answers_of(module, self._pair[:1], until)
        name = self._first_difference(alone, again)
        if name is not None:
            raise InterpretError(
                f"{_named(name)} gives another output when the same image runs again (is dropout on in evaluation "
                f"mode, as in F.dropout(x)?): {REMEDY}"
            )
        batched = [name for name in alone.shapes if name not in self.unbatched]
        name = self._first_difference(alone, self._together, among=batched, rows=1)
        if name is None:
            return
        if not self._is_rounding(module, alone, batched):
            raise InterpretError(
                f"{_named(name)} gives an image another output when a second image is in the batch (does it use "
                f"batch statistics?): {REMEDY}"
            )
        warn(
            f"{_named(name)} amplifies rounding, as networks with random weights may: its outputs differ between "
            "batches of other sizes, and so will results"
        )

    def _is_rounding(self, module: nn.Module, alone: Answers, batched: Sequence[str]) -> bool:
        """Return whether rounding explains that an image has another output in a batch of two.

        Then the other image does not matter, and an image that differs in its last bits has another output, too.
        """
        image = self._pair[:1]
        twice = answers_of(module, torch.cat([image, image]), self._until)
        if self._first_difference(self._together, twice, among=batched, rows=1) is not None:
            return False
        last_bits = torch.where(torch.arange(image.numel(), device=image.device).view_as(image) % 2 > 0, 1.0, -1.0)
        nudged = image * (1 + torch.finfo(image.dtype).eps * last_bits.to(image.dtype))
        return self._first_difference(alone, answers_of(module, nudged, self._until), among=batched) is not None

    def _answers(self, module: nn.Module, count: int) -> Answers:
        """Return the outputs for one image or two; an error says so where the other number of images runs."""
        try:
            return answers_of(module, self._pair[:count], self._until)
        except InterpretError as error:
            if not self._runs(module, 3 - count):
                raise
            runs, fails = ("one image", "two at once") if count == 2 else ("two images at once", "one alone")
            raise InterpretError(
                f"the network runs {runs} but not {fails}: let it take batches of any size ({error})"
            ) from error

    def _runs(self, module: nn.Module, count: int) -> bool:
        try:
            answers_of(module, self._pair[:count], self._until)
        except InterpretError:
            return False
        return True

    def holds_for(self, images: Tensor, until: Container[str] | None, varying: bool) -> bool:
        """Return whether this is the dry run on these images, and saw all layers that are needed."""
        pair, own = pair_of(images), self._pair
        return (
            (self._until is None or self._until == until)
            and self._varying == varying
            and (pair.shape, pair.dtype, pair.device) == (own.shape, own.dtype, own.device)
            and torch.equal(pair, own)
        )

    def rank(self, name: str) -> int:
        """Return the number of dimensions of a layer's output; 0 if it did not run."""
        return len(self._together.shapes.get(name, ()))

    def refuse_unbatched(self, name: str) -> None:
        """Raise an error for a layer whose first dimension does not count images."""
        if name in self.unbatched:
            raise not_batched(name)

    def answers_the_same(self, module: nn.Module, layout: torch.memory_format) -> bool:
        """Return whether the network gives the same outputs for another memory layout of its input."""
        if layout not in self._found:
            self._found[layout] = self._answers_in(module, layout)
        return self._found[layout]

    def _answers_in(self, module: nn.Module, layout: torch.memory_format) -> bool:
        if self._varying:  # outputs differ anyway
            return False
        try:
            answers = answers_of(module, self._pair.contiguous(memory_format=layout), self._until)
        except Exception:  # the user's code may raise anything
            return False
        return self._first_difference(self._together, answers) is None

    def copies_answer_the_same(self, copies: Sequence[nn.Module]) -> bool:
        """Return whether copies of the network that run at the same time give the same outputs.

        They alternate, operation by operation, so that any data that they share shows in the outputs.
        """
        if "copies" not in self._found:
            self._found["copies"] = self._copies_answer(copies)
        return self._found["copies"]

    def _copies_answer(self, copies: Sequence[nn.Module]) -> bool:
        if self._varying:
            return False
        found: list[Answers | None] = [None, None]
        turns = _Turns(2)

        def run(place: int) -> None:
            try:
                with turns.taken_by(place):
                    found[place] = answers_of(copies[place], self._pair.flip(0) if place else self._pair, self._until)
            except Exception:  # the user's code may raise anything
                found[place] = None

        with ThreadPoolExecutor(2) as pool:  # waits for both, also if interrupted
            list(pool.map(run, (0, 1)))
        first, second = found
        if first is None or second is None or self._first_difference(self._together, first) is not None:
            return False
        second.digests = {
            name: [digest.flip(0) if len(digest) == 2 else digest for digest in digests]
            for name, digests in second.digests.items()
            if name not in self.unbatched
        }
        return self._first_difference(self._together, second, among=second.digests) is None

    def _first_difference(
        self, one: Answers, other: Answers, among: Container[str] | None = None, rows: int | None = None
    ) -> str | None:
        """Return the first module whose outputs differ; with `rows`, compare only so many rows."""
        for name, digests in one.digests.items():
            if among is not None and name not in among:
                continue
            others = other.digests.get(name, [])
            if len(digests) != len(others):
                return name
            for first, second in zip(digests, others, strict=True):
                if rows is not None and first.shape[1:] == second.shape[1:]:
                    first, second = first[:rows], second[:rows]
                elif rows is not None and first.shape != second.shape:  # a `squeeze` has removed the dimension
                    first, second = first.flatten()[None], second[:rows].flatten()[None]
                if not self._same(first, second):
                    return name
        return None

    def _same(self, one: Tensor, other: Tensor) -> bool:
        if one.shape != other.shape:
            return False
        finite = one.isfinite()
        scale = float(one[finite].abs().max()) if bool(finite.any()) else 0.0
        near = (one - other).abs() <= self._tolerance * scale
        return bool((near | (one == other) | (one.isnan() & other.isnan())).all())


_HELD: WeakKeyDictionary[nn.Module, list[DryRun]] = WeakKeyDictionary()
"""By network: its dry runs, while it does not change."""


def dry_runs_held(module: nn.Module, runs: list[DryRun]) -> AbstractContextManager[None]:
    """Let `dry_run_of` return one of these until the block ends, in which the network does not change, and add to them.

    The parts of a gallery begin with the same images, and a detector takes a second for each.
    """
    return held_for(module, _HELD, runs)


def dry_run_of(model: Model, images: Tensor, until: Container[str] | None = None) -> DryRun:
    """Return a network's dry run on the first two images: one that is held for them, or a new one.

    >>> network, images = nn.Conv2d(1, 2, 3), torch.rand(2, 1, 5, 5)
    >>> with dry_runs_held(network, []):
    ...     runs = [dry_run_of(Model(network, name="one layer"), images) for _ in range(2)]
    >>> runs[0] is runs[1]
    True
    """
    held = _HELD.get(model.module, [])
    run = next((one for one in held if one.holds_for(images, until, model.varying)), None)
    if run is None:
        run = DryRun(model.module, images, until, model.varying)
        held.append(run)
    return run


_PASSED: WeakKeyDictionary[nn.Module, tuple[Hashable, set[Hashable]]] = WeakKeyDictionary()
"""By network: its state, and the checks that it has passed in this state."""


def check_answers(model: Model, images: Tensor, layer: str | None = None, known: bool = False) -> None:
    """Raise an error if a network's outputs, up to a layer or at its end, are no function of one image.

    With `known`, the layer's first dimension counts parts of each image, or boxes in them.

    A check that is passed is remembered for images of this shape, for as long as the network is the same.

    >>> check_answers(Model(nn.Conv2d(1, 2, 3), name="one layer"), torch.rand(1, 1, 5, 5))
    """
    pair = pair_of(images)
    # of two equal images, one does not show in the other's outputs
    tells = bool(pair.isfinite().all()) and not torch.equal(*pair)
    state = state_of(model.module) if tells else None
    check = pair.shape, pair.dtype, pair.device, layer, known, model.varying
    before, passed = _PASSED.get(model.module, (None, set()))
    if state is not None and state == before and check in passed:
        return
    run = DryRun(model.module, pair, None if layer is None else [layer], model.varying)
    if layer is not None and not known:
        run.refuse_unbatched(layer)
    if state is not None:
        _PASSED[model.module] = state, (passed if state == before else set()) | {check}


REMEDY = "results would depend on it; change the network, or allow it with interpret.load(network, varying=True)"


def _named(name: str) -> str:
    return f"layer {name!r}" if name else "the network"


class _Turns:
    """Lets threads alternate: each runs up to its next operation, then the next thread runs."""

    def __init__(self, count: int) -> None:
        self._condition = threading.Condition()
        self._waiting = list(range(count))
        """Threads that have not finished; the first one runs."""

    @contextmanager
    def taken_by(self, place: int) -> Iterator[None]:
        """Let this thread alternate with the others until the end of the block."""
        with self._condition:
            self._condition.wait_for(lambda: self._waiting[0] == place)
        try:
            with _AtEachOperation(lambda: self._next(place)):
                yield
        finally:
            with self._condition:
                self._waiting.remove(place)
                self._condition.notify_all()

    def _next(self, place: int) -> None:
        with self._condition:
            self._waiting.append(self._waiting.pop(0))
            self._condition.notify_all()
            self._condition.wait_for(lambda: self._waiting[0] == place)


class _AtEachOperation(TorchFunctionMode):
    """Calls a function before each operation."""

    def __init__(self, before: Callable[[], None]) -> None:
        super().__init__()
        self._before = before

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self._before()
        return func(*args, **(kwargs or {}))
