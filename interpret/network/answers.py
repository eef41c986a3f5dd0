"""Decide how a network's outputs are read as class probabilities, once for all images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from interpret.network.forward import call_network
from interpret.network.layers import tensors_in
from interpret.network.model import Model
from interpret.network.operations import operation_name, operation_of
from interpret.network.readings import READINGS
from interpret.network.torch_internals import TorchDispatchMode
from interpret.support.errors import InterpretError, unknown

Outputs = Literal["softmax", "sigmoid", "probabilities", "log-probabilities"]

NAMES = ("logits", "out", "output", "outputs", "scores", "predictions")
"""Names of the scores among several outputs, the most likely first."""

_MADE_AS = {
    **dict.fromkeys(("sigmoid", "hardsigmoid", "softmax"), "probabilities"),
    **dict.fromkeys(("log_sigmoid", "log_softmax"), "log-probabilities"),
}
"""The outputs of operations, by their names in the table of operations."""


@dataclass(frozen=True)
class Reading:
    """How a network's outputs are read as probabilities.

    >>> reading = Reading("sigmoid", 2)
    >>> reading.probabilities(torch.tensor([[0.0], [1.0]]))  # one score for two classes is the second's
    tensor([[0.5000, 0.5000],
            [0.2689, 0.7311]], dtype=torch.float64)
    >>> Reading("softmax", 4).probabilities(torch.zeros(1, 4))
    tensor([[0.2500, 0.2500, 0.2500, 0.2500]], dtype=torch.float64)
    """

    outputs: str
    """"softmax" of scores, one a class; "sigmoid" of scores, one a label or one for two classes; "probabilities" as
    they are, one a class or one a label; "log-probabilities"."""
    classes: int
    """The number of classes."""
    part: str = ""
    """The name of the output that is read, if there are several; otherwise ""."""

    def probabilities(self, scores: Tensor) -> Tensor:
        """Return outputs [B, K] as probabilities, float64; one output for each image becomes two classes, [B, 2].

        Raises:
            InterpretError: outputs that are NaN or infinite.
        """
        scores = scores.double()
        if self.outputs == "softmax":
            found = scores.softmax(1)
        elif self.outputs == "sigmoid":
            found = scores.sigmoid()
        elif self.outputs == "log-probabilities":
            found = scores.exp()
        else:
            found = scores
        if not bool(found.isfinite().all()):
            raise InterpretError(
                "the network's outputs are NaN or infinite: correct the weights or leave the image out"
            )
        return torch.cat([1 - found, found], 1) if self._is_binary(scores) else found

    def best(self, scores: Tensor) -> Tensor:
        """Return each image's most probable class, [B]."""
        if self._is_binary(scores):
            return (self.probabilities(scores)[:, 1] > 0.5).long()
        return scores.argmax(1)  # scores, since probabilities may be rounded to the same number

    def _is_binary(self, scores: Tensor) -> bool:
        return scores.shape[1] == 1 < self.classes


class NoScores(InterpretError):  # noqa: N818 - not every network has scores
    """The network does not return one score for each class."""


def main_output(outputs: object) -> tuple[str, object]:
    """Return the main one of a network's outputs, and its name; "" if there is only one.

    >>> main_output({"aux": torch.zeros(2, 3), "out": torch.ones(2, 3)})
    ('out', tensor([[1., 1., 1.],
            [1., 1., 1.]]))
    >>> main_output((torch.zeros(1, 2), "features"))
    ('0', tensor([[0., 0.]]))

    Of named outputs, that is the one with a usual name (see `NAMES`), or else the only tensor; of a tuple or a list,
    the first tensor.
    """
    if isinstance(outputs, Tensor):
        return "", outputs
    parts = _parts(outputs)
    tensors = {name: found for name, part in parts.items() if isinstance(found := main_output(part)[1], Tensor)}
    name = next((name for name in NAMES if name in tensors), None)
    if name is None and tensors and (len(tensors) == 1 or type(outputs) in (tuple, list)):
        name = next(iter(tensors))
    return ("", outputs) if name is None else (name, tensors[name])


def _parts(outputs: object) -> dict[str, object]:
    if isinstance(outputs, Mapping):
        return {str(name): part for name, part in outputs.items()}
    if isinstance(outputs, tuple) and hasattr(outputs, "_asdict"):
        return dict(outputs._asdict())
    if isinstance(outputs, (tuple, list)):
        return {str(place): part for place, part in enumerate(outputs)}
    if dataclasses.is_dataclass(outputs):
        return {field.name: getattr(outputs, field.name) for field in dataclasses.fields(outputs)}
    return {}


def scores_of(outputs: object, count: int) -> Tensor:
    """Return the scores in a network's outputs for `count` images, [B, K], one for each class.

    >>> scores_of(torch.zeros(2, 5, 1, 1), 2).shape, scores_of({"logits": torch.zeros(2)}, 2).shape
    (torch.Size([2, 5]), torch.Size([2, 1]))
    >>> scores_of(torch.zeros(5), 1).shape  # a `squeeze` has removed the dimension of one image
    torch.Size([1, 5])

    Raises:
        NoScores: the network returns something else.
    """
    found = main_output(outputs)[1]
    if isinstance(found, Tensor) and found.numel() and not why_no_numbers(found):
        if found.dim() < 2 and (count == 1 or found.shape == (count,)):
            return found.reshape(count, -1)
        if found.dim() > 1 and found[:1].numel() == found.shape[1]:
            return found.flatten(1)
    what = f"shape {list(found.shape)}" if isinstance(found, Tensor) else type(outputs).__name__
    what = (isinstance(found, Tensor) and why_no_numbers(found)) or what
    if isinstance(outputs, (list, tuple)) and outputs and all(isinstance(one, Mapping) for one in outputs):
        what = f"a dictionary for each image, as detectors do, of {', '.join(map(str, outputs[0])) or 'nothing'}"
    raise NoScores(
        f"the network must return one score for each class, [B, K], not {what}: wrap it in a module that does"
    )


def why_no_numbers(output: Tensor) -> str:
    """Return what keeps an output from being read as scores or activations: its type or layout; otherwise "".

    >>> why_no_numbers(torch.zeros(1, dtype=torch.int64)), why_no_numbers(torch.zeros(1, dtype=torch.bfloat16))
    ('torch.int64 numbers', '')
    """
    if output.layout is not torch.strided:
        return f"a tensor of the layout {output.layout}"
    return "" if output.is_floating_point() else f"{output.dtype} numbers"


def check_class_names(model: Model, count: int) -> None:
    """Raise an error where a model names more or fewer classes than its network has outputs.

    >>> check_class_names(Model(torch.nn.Linear(2, 3), "pets", classes=("cat", "dog")), 3)
    Traceback (most recent call last):
        ...
    interpret.support.errors.InterpretError: model 'pets' names 2 classes, and its network answers 3: give all names

    """
    if model.classes is not None and len(model.classes) != count:
        raise InterpretError(
            f"model {model.name!r} names {len(model.classes)} classes, and its network answers {count}: give all names"
        )


def find_reading(model: Model, images: Tensor) -> Reading:
    """Run an image and return how the network's outputs are read: as the model says, or as their values suggest.

    >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3), torch.nn.Sigmoid())
    >>> find_reading(Model(network, "labels"), torch.zeros(1, 1, 2, 2))
    Reading(outputs='probabilities', classes=3, part='')

    Outputs are probabilities if a sigmoid or softmax computed them, or if none is below 0 and those of each image sum
    to 1. They are log-probabilities if this holds for their exponentials, or if a log-sigmoid or log-softmax computed
    them. Otherwise one output for each image is the score of a sigmoid, and several are the scores of a softmax. If
    each of several is the score of a sigmoid, `Model.outputs` has to say so.

    Args:
        model: the network, in evaluation mode.
        images: the first one runs; on the network's device.

    Raises:
        NoScores: the network does not return one score for each class.
        InterpretError: `Model.outputs` is unknown.
    """
    if model.outputs is not None and model.outputs not in READINGS:
        raise unknown("reading of outputs", model.outputs, READINGS)
    with _Watching() as watching, torch.no_grad():
        # twice, to distinguish one score for each image from several scores of one image
        returned = call_network(model.module, torch.cat([images[:1], images[:1]]))
    part, output = main_output(returned)
    scores = scores_of(returned, 2)
    reading = model.outputs or watching.made_as(output) or _reading_by_values(scores)
    return Reading(reading, 2 if scores.shape[1] == 1 and reading != "softmax" else scores.shape[1], part)


def _reading_by_values(scores: Tensor) -> str:
    """Return how outputs are read, by their values."""
    if scores.shape[1] == 1:
        return "sigmoid"
    # of the outputs' own type, since sums in bfloat16 are less exact
    rounding = 8 * torch.finfo(scores.dtype).eps * scores.shape[1] ** 0.5
    scores = scores.double()
    for reading, values in (("probabilities", scores), ("log-probabilities", scores.exp())):
        if bool((values >= 0).all()) and bool(((values.sum(1) - 1).abs() <= rounding).all()):
            return reading
    return "softmax"


class _Watching(TorchDispatchMode):
    """Notes which tensors a sigmoid or softmax has computed."""

    def __init__(self) -> None:
        super().__init__()
        self._made = WeakTensorKeyDictionary()

    def made_as(self, output: object) -> str | None:
        """Return what an output is if such an operation computed it, and otherwise None."""
        return self._made.get(output) if isinstance(output, Tensor) else None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        made = _MADE_AS.get(operation_name(func))
        if made is None and operation_of(func).keeps_values:
            kinds = {self._made.get(tensor) for tensor in tensors_in(args)}
            made = kinds.pop() if len(kinds) == 1 else None
        for tensor in tensors_in(result):
            if made is not None:
                self._made[tensor] = made
            elif tensor in self._made:  # written into
                del self._made[tensor]
        return result
