"""The table of operations names every form of a function alike, and knows each in one row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision  # noqa: F401 - registers its operators
from torch import Tensor
from torch.overrides import TorchFunctionMode

from interpret.network.operations import (
    _BY_NAME,
    _ROWS,
    PROPERTY,
    UNKNOWN,
    Backward,
    Grid,
    is_in_place,
    operation_name,
    operation_of,
)
from interpret.network.torch_internals import TorchDispatchMode


class Names(TorchFunctionMode):
    """Notes what the table calls the functions that run, those of properties apart."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found.append(operation_name(func))
        return func(*args, **(kwargs or {}))


class AtenNames(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found.append(operation_name(func))
        return func(*args, **(kwargs or {}))


X = torch.arange(1.0, 7.0).reshape(2, 3)


def _iadd(x: Tensor) -> None:
    x += 1


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda x: x + 1, "add"),
        (lambda x: 1 + x, "add"),
        (lambda x: x.add_(1), "add"),
        (_iadd, "add"),
        (lambda x: torch.add(x, 1), "add"),
        (lambda x: x / 2, "div"),
        (lambda x: 2 / x, "rdiv"),
        (lambda x: 2 - x, "rsub"),
        (lambda x: 2**x, "rpow"),
        (lambda x: x @ x.mT, "matmul"),
        (lambda x: x[0], "getitem"),
        (lambda x: x.__setitem__(0, 1.0), "setitem"),
        (lambda x: x.mT, "get.mT"),
        (lambda x: setattr(x, "data", x * 2), "set.data"),
        (lambda x: F.relu(x, inplace=True), "relu"),
        (lambda x: F.logsigmoid(x), "log_sigmoid"),
        (lambda x: torch.special.expit(x), "sigmoid"),
        (lambda x: x.requires_grad_(), "requires_grad"),
        (lambda x: x.requires_grad, "get.requires_grad"),
    ],
)
def test_each_form_of_a_function_has_one_name(call: Callable[[Tensor], Any], name: str) -> None:
    with Names() as names:
        call(X.clone())
    assert name in names.found


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda x: x.double(), "to"),
        (lambda x: F.prelu(x, torch.ones(1)), "prelu"),
        (lambda x: F.batch_norm(x, torch.zeros(3), torch.ones(3)), "batch_norm"),
        (lambda x: F.logsigmoid(x), "log_sigmoid"),
        (lambda x: x.mul_(2), "mul"),
    ],
)
def test_operators_of_aten_have_the_names_of_their_functions(call: Callable[[Tensor], Any], name: str) -> None:
    with AtenNames() as names, torch.no_grad():
        call(X.clone())
    assert name in names.found


def test_no_operation_has_two_rows() -> None:
    assert [name for name, count in Counter(" ".join(_ROWS).split()).items() if count > 1] == []


def test_every_row_is_of_something_that_torch_has() -> None:
    """Operators stand without their underscores; some are functions of `torch.nn.functional` or properties."""
    places = (torch, F, Tensor, torch.ops.aten, torch._C._nn, torch.ops.torchvision)
    operators = set("set.data set.real set.imag rdiv rpow rmod rfloordiv rmatmul mod floordiv".split())
    earlier = {"has_names"}  # in torch 2.7, which is allowed

    def exists(name: str) -> bool:
        forms = (name, f"{name}_", f"__{name}__", f"_{name}")
        return any(hasattr(place, form) for place in places for form in forms)

    assert {name for name in _BY_NAME if not exists(name.removeprefix("get."))} <= operators | earlier


def test_properties_without_a_row_are_queries_and_other_functions_unknown() -> None:
    assert operation_of(Tensor.shape.__get__) is PROPERTY  # type: ignore[attr-defined]
    assert operation_of(torch.erfinv) is UNKNOWN
    assert operation_of(Tensor.mT.__get__).grid is Grid.LAYOUT  # type: ignore[attr-defined]


def test_namesakes_with_other_arguments_are_told_apart() -> None:
    assert operation_of(F.layer_norm).backward is Backward.NORMALISATION
    assert operation_of(torch.layer_norm).backward is None
    assert operation_of(torch.layer_norm).grid is operation_of(F.layer_norm).grid


@pytest.mark.parametrize(
    ("function", "writes"),
    [
        (Tensor.add_, True),
        (Tensor.__iadd__, True),
        (torch.ops.aten.add_.Tensor, True),
        (Tensor.add, False),
        (Tensor.__invert__, False),
        (torch.ops.aten._to_copy.default, False),
    ],
)
def test_what_writes_in_place(function: Callable[..., Any], writes: bool) -> None:
    assert is_in_place(function) == writes
