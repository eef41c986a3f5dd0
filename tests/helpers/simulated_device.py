"""A device that is none: its tensors are computed on the CPU, and what would make the host wait for it is counted.

As on a GPU, the host waits where a value, or a shape that depends on values, comes from the device. The device is
called "meta", a name that torch knows everywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from interpret.execution.execution import Execution, prepared

DEVICE = torch.device("meta")


class OnDevice(Tensor):
    """A tensor on the simulated device, with its values on the CPU."""

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> OnDevice:
        shape = values.size()
        strides = values.stride()
        made = Tensor._make_wrapper_subclass(cls, shape, strides=strides, dtype=values.dtype, device=DEVICE)
        made.values = values
        return made

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run_simulated(function, args, kwargs or {}, Counter())


class Simulation(TorchDispatchMode):
    """Runs operations on the simulated device, and counts those for which the host would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run_simulated(function, args, kwargs or {}, self.waits)


def run_simulated(function: Any, args: Any, kwargs: dict[str, Any], waits: Counter[str]) -> Any:
    inputs, _ = tree_flatten((args, kwargs))
    on_device = any(isinstance(value, OnDevice) for value in inputs)
    name = function.name().removeprefix("aten::").partition(".")[0]
    target = kwargs.get("device")
    if target is not None and target.type == DEVICE.type:
        kwargs = kwargs | {"device": torch.device("cpu")}
        stays = True
    else:
        # `_to_copy` without a device, as for another type, stays where it is
        stays = on_device and target is None
    if on_device and not stays:
        waits[f"{name} to the host"] += 1
    if name == "copy_" and not isinstance(args[0], OnDevice) and isinstance(args[1], OnDevice):
        waits["copy_ to the host"] += 1
        stays = False
    by_mask = name in ("index", "index_put_", "index_put") and any(
        isinstance(value, OnDevice) and value.dtype in (torch.bool, torch.uint8) for value in args[1]
    )
    if on_device and (by_mask or name in ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2")):
        waits[name] += 1

    found = function(*tree_map(_unwrapped, args), **tree_map(_unwrapped, kwargs))
    if function._schema.is_mutable and not name.endswith("_out") and name.endswith("_"):
        return args[0]  # in place
    return tree_map(lambda value: OnDevice(value) if isinstance(value, Tensor) else value, found) if stays else found


def _unwrapped(value: Any) -> Any:
    return value.values if isinstance(value, OnDevice) else value


@contextmanager
def prepared_on_simulated_device(*args: Any, **kwargs: Any) -> Iterator[Execution]:
    """Prepare a network as `prepared` does, then let it run on the simulated device; its parameters stay on the CPU."""
    with prepared(*args, **kwargs) as run:
        run.device = DEVICE
        yield run
