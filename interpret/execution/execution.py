"""Execution: choose the device, memory layout and copies of a network by a dry run on the first images."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.backends import cudnn

from interpret.execution.batch_size import batch_size_for, gpu_batch_size
from interpret.execution.parallel import copies_of, most_workers, run_side_by_side, threads_each, torch_threads
from interpret.execution.ranks import ranks
from interpret.network.dry_run import DryRun, dry_run_of
from interpret.network.model import Model
from interpret.network.modes import frozen
from interpret.network.torch_internals import computes_in
from interpret.network.wrappers import refuse_without_numbers
from interpret.support.errors import warn
from interpret.support.recording import add_facts

Result = TypeVar("Result")

logger = logging.getLogger(__name__)


class Execution:
    """A network on its device, in its fastest memory layout, for the duration of an analysis."""

    def __init__(
        self,
        module: nn.Module,
        device: torch.device,
        layout: torch.memory_format,
        dry_run: DryRun,
        first: Tensor,
    ) -> None:
        self.module = module
        self.device = device
        self.layout = layout
        """The memory format of inputs."""
        self.dry_run = dry_run
        self._first = first[:1]
        self.input_shape = first.shape[1:]
        """The shape (C, H, W) of one input."""
        self._workers = 1

    def place(self, images: Tensor) -> Tensor:
        """Return images on the device, in the memory format of inputs."""
        return send(images, self.device).contiguous(memory_format=self.layout)

    def batch_size(self, asked: int | None = None) -> int:
        """Return the given number of images per forward pass, or the device's default: on a GPU, what fits its memory.

        Raises:
            InterpretError: a batch size below 1.
        """
        if asked is None and self.device.type == "cuda":
            return ranks().agreed(gpu_batch_size(self.module, self.place(self._first)))
        return batch_size_for(asked, math.prod(self.input_shape[1:]), self.device)

    def autocast(self, dtype: torch.dtype | None) -> AbstractContextManager[object]:
        """Return an autocast context for a type of lower precision; for None or float32, one without effect."""
        return autocast(self.device, dtype)

    def side_by_side(self, jobs: Iterable[Callable[[nn.Module], Result]]) -> Iterator[Result]:
        """Run jobs on the network, several at once on a CPU, and yield their results in the jobs' order.

        Each worker has its own copy of the network for hooks. On a GPU, or if copies give other outputs than the
        network, the jobs run one after the other.
        """
        copies = copies_of(self.module, most_workers()) if self.device.type == "cpu" else []
        alike = len(copies) > 1 and self.dry_run.copies_answer_the_same(copies)
        networks = copies if alike else [self.module]
        self._workers = len(networks)
        logger.debug("%d batches at once, %d threads each", len(networks), threads_each(len(networks)))
        return run_side_by_side(networks, jobs)

    def beside_workers(self) -> AbstractContextManager[None]:
        """Return a context in which this thread uses one worker's share of the cores while workers run."""
        return torch_threads(threads_each(self._workers))


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """Return an autocast context for a type of lower precision; for None or float32, one without effect."""
    return nullcontext() if dtype in (None, torch.float32) else torch.autocast(device.type, dtype)


def warn_of_slow_type(device: torch.device, dtype: torch.dtype | None) -> None:
    """Warn of a type of lower precision that a processor does not compute in: convolutions take six times as long.

    On a GPU, and for None or float32, nothing is said.
    """
    if dtype in (None, torch.float32) or device.type != "cpu" or computes_in(dtype):
        return
    name = str(dtype).removeprefix("torch.")
    warn(f"this processor does not compute in {name}, which is slower on it than float32: leave dtype out")


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; a GPU that is busy is not waited for."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        if 0 in tensor.stride():  # expanded, which cannot be pinned
            tensor = tensor.contiguous()
        tensor = tensor.pin_memory()  # the only memory that is copied while the program goes on
    return tensor.to(device, non_blocking=device.type == "cuda")


@contextmanager
def prepared(
    model: Model,
    images: Tensor,
    device: str | torch.device | None = None,
    until: Container[str] | None = None,
) -> Iterator[Execution]:
    """Prepare a network to run on images, and restore it at the end.

    >>> model = Model(nn.Conv2d(3, 4, 3), name="one layer")
    >>> with prepared(model, torch.rand(2, 3, 8, 8)) as run:
    ...     outputs = model(run.place(torch.rand(5, 3, 8, 8)))
    >>> outputs.shape
    torch.Size([5, 4, 6, 6])

    The network is moved to the device, in evaluation mode and without gradients for parameters. Parameters and inputs
    use the channels-last layout, which doubles the speed of convolutions on CPUs. If a dry run shows that this changes
    the outputs, as a `view` after a convolution may, they stay contiguous.

    Args:
        model: the network.
        images: [B, C, H, W] the first inputs, for the dry run.
        device: the device; None: that of the parameters.
        until: the layers after which the analysis stops the forward pass; None: the whole network runs.

    Raises:
        InterpretError: the outputs vary randomly or with the other images of a batch; see `DryRun`.
    """
    module = model.module
    with on_device(module, device) as target:
        dry_run = dry_run_of(model, images.to(target), until)
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
        add_facts(device=device_name(target), threads=torch.get_num_threads())
        logger.info("%s runs on %s, %s", model.name, device_name(target), str(layout).removeprefix("torch."))
        yield Execution(module, target, layout, dry_run, images)


def device_name(device: torch.device) -> str:
    """Return a device with the name of the card.

    >>> device_name(torch.device("cpu"))
    'cpu'
    """
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Convolve float32 in float32 on a CUDA device.

    PyTorch's default there, TF32, rounds factors to 11 bits. In a projection most of the signal cancels, and rounding
    is left: it is then 2 to 5 % of the projection's size in VGG-16, ResNet-50 and SqueezeNet, against 0.04 %.
    """
    if device.type != "cuda":
        yield
        return
    settings: Any = cudnn
    exact: bool | str = False
    try:
        holder, name = settings, "allow_tf32"
        before = settings.allow_tf32
    except RuntimeError:  # the user has set it in the way of torch 2.9 and later, which excludes the older one
        holder, name, exact = settings.conv, "fp32_precision", "ieee"
        before = holder.fp32_precision
    try:
        setattr(holder, name, exact)
        yield
    finally:
        setattr(holder, name, before)


@contextmanager
def on_device(module: nn.Module, device: str | torch.device | None = None) -> Iterator[torch.device]:
    """Move a network to a device, in evaluation mode without gradients for parameters, and restore it at the end."""
    refuse_without_numbers(module)
    tensors = [*module.parameters(), *module.buffers()]
    home = tensors[0].device if tensors else torch.device("cpu")
    target = torch.device(device) if device is not None else home
    before = [tensor.data for tensor in tensors]
    try:
        # not module.to(...), which replaces the module's buffers
        for tensor, data in zip(tensors, before, strict=True):
            tensor.data = data.to(target)
        if target.type == "cuda":
            for part in module.modules():
                if isinstance(part, nn.RNNBase):
                    part.flatten_parameters()  # cuDNN wants a recurrent layer's parameters in one piece
        with frozen(module):
            yield target
    finally:
        for tensor, data in zip(tensors, before, strict=True):
            tensor.data = data
