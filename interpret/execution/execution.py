"""Execution: the device, memory layout and copies with which a network runs, chosen on the first images."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor, nn

from interpret.execution.parallel import copies_of, most_workers, run_side_by_side, threads_each, torch_threads
from interpret.network.dry_run import DryRun
from interpret.network.model import Model
from interpret.network.modes import frozen
from interpret.network.wrappers import refuse_without_numbers

Result = TypeVar("Result")


class Execution:
    """A network on its device, in the memory layout that suits it, while an analysis runs."""

    def __init__(
        self,
        module: nn.Module,
        device: torch.device,
        layout: torch.memory_format,
        dry_run: DryRun,
        input_shape: torch.Size,
    ) -> None:
        self.module = module
        self.device = device
        self.layout = layout
        """The memory format of inputs."""
        self.dry_run = dry_run
        self.input_shape = input_shape
        """Of one input, (C, H, W)."""
        self._workers = 1

    def place(self, images: Tensor) -> Tensor:
        """Return images on the device, in the layout in which they run."""
        return images.to(self.device).contiguous(memory_format=self.layout)

    def autocast(self, dtype: torch.dtype | None) -> AbstractContextManager[object]:
        """Return a context in which operations run in a type of lower precision; None or float32: as they are."""
        return nullcontext() if dtype in (None, torch.float32) else torch.autocast(self.device.type, dtype)

    def side_by_side(self, jobs: Iterable[Callable[[nn.Module], Result]]) -> Iterator[Result]:
        """Run jobs on the network, several at once on a processor, and yield their results in the jobs' order.

        Each worker has a copy of the network for its hooks, if copies answer as the network does; otherwise, and on a
        GPU, the jobs run one after the other.
        """
        copies = copies_of(self.module, most_workers()) if self.device.type == "cpu" else []
        alike = len(copies) > 1 and self.dry_run.copies_answer_the_same(copies)
        networks = copies if alike else [self.module]
        self._workers = len(networks)
        return run_side_by_side(networks, jobs)

    def beside_workers(self) -> AbstractContextManager[None]:
        """Return a context for this thread's own operations while workers run: they use one worker's share of cores."""
        return torch_threads(threads_each(self._workers))


@contextmanager
def prepared(
    model: Model,
    images: Tensor,
    device: str | torch.device | None = None,
    until: Container[str] | None = None,
) -> Iterator[Execution]:
    """Make a network ready to run on images, and leave it as it was at the end.

    >>> model = Model(nn.Conv2d(3, 4, 3), name="one layer")
    >>> with prepared(model, torch.rand(2, 3, 8, 8)) as run:
    ...     outputs = model(run.place(torch.rand(5, 3, 8, 8)))
    >>> outputs.shape
    torch.Size([5, 4, 6, 6])

    The network is put on the device, in evaluation mode with constant parameters. Parameters and inputs are
    channels-last, which doubles the speed of convolutions on processors, unless a dry run shows other answers: those
    of a network that reads memory in its order, with a `view` after a convolution.

    Args:
        model: the network.
        images: [B, C, H, W] the first inputs, for the dry run.
        device: the device; None: that of its parameters.
        until: the layers after which the analysis stops the pass; None: the whole network runs.

    Raises:
        InterpretError: a network whose answers vary by chance or with the other images; see `DryRun`.
    """
    module = model.module
    with on_device(module, device) as target:
        dry_run = DryRun(module, images.to(target), until, model.varying)
        tensors = [*module.parameters(), *module.buffers()]
        plain = [tensor.data for tensor in tensors]
        layout: torch.memory_format = torch.contiguous_format
        if images.dim() == 4 and any(tensor.dim() == 4 for tensor in tensors):
            layout = torch.channels_last
            for tensor in tensors:
                if tensor.dim() == 4:
                    tensor.data = tensor.data.contiguous(memory_format=layout)
            if not dry_run.answers_the_same(module, layout):
                layout = torch.contiguous_format
                for tensor, data in zip(tensors, plain, strict=True):
                    tensor.data = data
        yield Execution(module, target, layout, dry_run, images.shape[1:])


@contextmanager
def on_device(module: nn.Module, device: str | torch.device | None = None) -> Iterator[torch.device]:
    """Put a network on a device, in evaluation mode with constant parameters, and leave it as it was at the end."""
    refuse_without_numbers(module)
    tensors = [*module.parameters(), *module.buffers()]
    home = tensors[0].device if tensors else torch.device("cpu")
    target = torch.device(device) if device is not None else home
    before = [tensor.data for tensor in tensors]
    try:
        # not module.to(...), which replaces the module's buffers by others
        for tensor, data in zip(tensors, before, strict=True):
            tensor.data = data.to(target)
        with frozen(module):
            yield target
    finally:
        for tensor, data in zip(tensors, before, strict=True):
            tensor.data = data
