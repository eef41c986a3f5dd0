"""Call the user's network: the only place that runs its forward pass, and explains in one sentence why it failed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from inspect import getclosurevars, isfunction
from threading import Lock
from types import FrameType
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from interpret.network.checkpointing import plain_checkpoints
from interpret.network.layers import StopForward, first_outputs, tensors_in
from interpret.network.torch_internals import share_contents
from interpret.support.errors import InterpretError, reason_of

_PASSED_ON = (InterpretError, StopForward, Warning, MemoryError, torch.OutOfMemoryError, KeyboardInterrupt)
"""Exceptions that are passed on: not from the network's code, or warnings that the user made errors."""
_TOO_SMALL = ("too small", "greater than actual input", "must be greater than zero", "can't be greater than")


_TWO_DEVICES = ("on the same device", "Input type (torch.cuda.")


def call_network(module: nn.Module, images: Tensor, what: str = "an input of shape") -> Any:
    """Return a network's outputs for images; an exception in its code becomes an error of one sentence.

    >>> call_network(nn.Conv2d(3, 8, 3), torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 8, 6, 6])
    >>> call_network(nn.Sequential(nn.ReLU(), nn.Conv2d(3, 8, 3)), torch.zeros(2, 1, 8, 8))
    Traceback (most recent call last):
        ...
    interpret.support.errors.InterpretError: an input of shape (1, 8, 8) has 1 channel, but layer '1' (Conv2d) takes 3

    Every analysis calls the network here and nowhere else, without compilation and checkpointing.

    Args:
        module: the network.
        images: [B, C, H, W].
        what: the name of an image's shape in an error.

    Raises:
        InterpretError: the forward pass failed; it names the layer, the input and the reason.
    """
    try:
        with _nothing_compiled, plain_checkpoints():
            return module(images)
    except _PASSED_ON:
        raise
    except BaseException as error:  # the user's code may raise anything, and call sys.exit
        if "can't allocate memory" in reason_of(error):  # on a processor a RuntimeError
            raise
        raise _explained(module, images, error, what) from error


def collect_outputs(module: nn.Module, images: Tensor, layers: Iterable[str], raw: bool = False) -> dict[str, Tensor]:
    """Run images and return what layers return, each as a copy that no later in-place operation changes.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(inplace=True))
    >>> outputs = collect_outputs(network, torch.ones(2, 1, 2, 2), ["1"])
    >>> bool((outputs["1"] == network[1](torch.ones(2, 4))).all())
    True

    The pass ends when all of the layers have returned. Layers that do not run are left out.

    Args:
        module: the network.
        images: [B, C, H, W], which the network may write into.
        layers: names.
        raw: whether outputs come as the layers return them; otherwise their units are the second dimension.
    """
    found: dict[str, Tensor] = {}

    def receive(name: str, output: Tensor) -> None:
        found[name] = output.clone()

    with first_outputs(module, layers, receive, stop=True, count=None if raw else len(images), raw=raw):
        call_network(module, images)
    return found


Several = tuple[Tensor, ...] | Mapping[str, Tensor]
"""Inputs of a network by position or by name, each [B, …]."""


def is_several(data: object) -> TypeGuard[Several]:
    """Return whether data is several inputs: a tuple or a dict of tensors, one of which has four dimensions.

    >>> is_several({"image": torch.zeros(2, 3, 8, 8), "age": torch.zeros(2)})
    True
    >>> is_several(torch.zeros(2, 3, 8, 8)), is_several((torch.zeros(3, 8, 8), 5))
    (False, False)
    """
    values = list(data.values()) if isinstance(data, Mapping) else data if isinstance(data, tuple) else ()
    # a tuple of tensors [C, H, W] is a data set of images
    return all(isinstance(value, Tensor) for value in values) and any(value.dim() == 4 for value in values)


def first_weight(module: nn.Module) -> Tensor:
    """Return a network's first floating-point parameter, which has its type and device; an empty tensor without one.

    >>> first_weight(nn.Conv2d(1, 2, 3)).shape, first_weight(nn.ReLU()).shape
    (torch.Size([2, 1, 3, 3]), torch.Size([0]))
    """
    weights = (weight.detach() for weight in module.parameters() if weight.is_floating_point())
    return next(weights, torch.zeros(0, dtype=torch.float32))


def weights_type(module: nn.Module) -> torch.dtype:
    """Return the type of a network's weights, which is that of its inputs; float32 if it has none.

    >>> weights_type(nn.Conv2d(1, 1, 1).double()), weights_type(nn.ReLU())
    (torch.float64, torch.float32)
    """
    return first_weight(module).dtype


class CalledBy(nn.Module):
    """Wraps a network that is called in another way as one that takes only images.

    >>> network = nn.Bilinear(3, 4, 2)
    >>> with_context = CalledBy(network, lambda network, images: network(images, torch.ones(len(images), 4)))
    >>> call_network(with_context, torch.rand(5, 3)).shape, list(with_context.state_dict())
    (torch.Size([5, 2]), ['weight', 'bias'])

    It shares the network's parameters, buffers and layers, by their names, and its mode.
    """

    def __init__(self, network: nn.Module, call: Callable[[nn.Module, Tensor], Any]) -> None:
        training = network.training
        self.__dict__["network"] = network  # not registered as a layer
        super().__init__()
        self.training = training
        self.call = call
        share_contents(self, network)

    @property
    def training(self) -> bool:
        return bool(self.__dict__["network"].training)

    @training.setter
    def training(self, value: bool) -> None:
        self.__dict__["network"].training = value

    def train(self, mode: bool = True) -> CalledBy:
        self.__dict__["network"].train(mode)
        return self

    def forward(self, images: Tensor) -> Any:
        return self.call(self.__dict__["network"], images)


def constants_of(module: nn.Module) -> list[Tensor]:
    """Return the tensors in the closure of a network's `call`, which do not depend on the images."""
    if not isinstance(module, CalledBy) or not isfunction(module.call):
        return []
    variables = getclosurevars(module.call)
    return list(tensors_in([*variables.nonlocals.values(), *variables.globals.values()]))


class _NothingCompiled:
    """Disables compilation in a forward pass, so that its operations can be followed and overridden.

    PyTorch has one stance for all threads: the first thread sets it, and the last one restores it.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._stance: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._stance = torch.compiler.set_stance("force_eager")
            self._inside += 1

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._stance.__exit__(None, None, None)


_nothing_compiled = _NothingCompiled()


def _explained(module: nn.Module, images: Tensor, error: BaseException, what: str) -> InterpretError:
    """Return the error with the layer and the reason for which a forward pass failed."""
    name, layer, shape = _where(module, error)
    kind = type(layer.network if isinstance(layer, CalledBy) else layer).__name__
    where = f"layer {name!r} ({kind})" if name else f"the network ({kind})"
    # of several inputs in one tensor, only the channels of the images count
    given = (getattr(getattr(module, "call", None), "channels", images.shape[1]), *images.shape[2:])
    channels = getattr(layer, "in_channels", None)
    if shape is not None and isinstance(channels, int) and len(shape) == 3 and channels != shape[0] == given[0]:
        return InterpretError(
            f"{what} {given} has {shape[0]} channel{'s' * (shape[0] > 1)}, but {where} takes {channels}"
        )
    reason = reason_of(error)
    if layer is module and isinstance(error, TypeError) and "required positional argument" in reason:
        reason = reason.removeprefix("TypeError: ")
        return InterpretError(
            f"{where} takes more than one input ({reason}): load it with call=lambda network, images: …"
        )
    if type(error) is RuntimeError:
        reason = reason.removeprefix("RuntimeError: ")
    if layer.training and "training" in reason:  # of torchvision's detectors, and of batch norm on a single value
        return InterpretError(
            f"{where} stays in training mode and fails there ({reason}): let its eval() put it into evaluation mode"
        )
    if images.device.type != "cpu" and any(phrase in reason for phrase in _TWO_DEVICES):
        return InterpretError(
            f"{where} holds tensors that do not move to {images.device} with the network ({reason}): register them as "
            "modules, parameters or buffers, or run the network on the CPU (device='cpu', --device cpu)"
        )
    small = any(phrase in reason for phrase in _TOO_SMALL)
    return InterpretError(
        f"{what} {given} {'is too small for' if small else 'does not fit'} the network: {where} fails on "
        f"{'an input of ' + '×'.join(map(str, shape)) if shape else 'its input'} ({reason})"
    )


def _where(module: nn.Module, error: BaseException) -> tuple[str, nn.Module, tuple[int, ...] | None]:
    """Return the innermost layer that was running as the error was raised, and its input's shape without the batch.

    They are found in the frames of the traceback, at no cost while a network runs.
    """
    names = {layer: name for name, layer in module.named_modules()}
    found: nn.Module = module
    inputs: dict[nn.Module, object] = {}
    step = error.__traceback__
    while step is not None:
        running = _own(step.tb_frame, names)
        if running is not None:
            found = running
            arguments = step.tb_frame.f_locals.get("args")
            if running not in inputs and isinstance(arguments, tuple) and arguments:
                inputs[running] = arguments[0]
        step = step.tb_next
    first = inputs.get(found)
    return names[found], found, tuple(first.shape[1:]) if isinstance(first, Tensor) else None


def _own(frame: FrameType, names: dict[nn.Module, str]) -> nn.Module | None:
    """Return the layer whose method runs in a frame."""
    one = frame.f_locals.get("self")
    return one if isinstance(one, nn.Module) and one in names else None


def refuse_other_type(module: nn.Module, images: Tensor) -> None:
    """Raise an error where images and weights are of different types."""
    weights = [weight.dtype for weight in module.parameters() if weight.is_floating_point()]
    if weights and images.dtype not in weights:
        raise InterpretError(f"images are {images.dtype}, and the network's weights {weights[0]}: convert one of them")
