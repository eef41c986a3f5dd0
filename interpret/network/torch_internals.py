"""What this package uses of torch that torch does not publish: all of it, in one place.

`tests/network/test_torch_internals.py` states what each function here has to return, and fails if a version of torch
changes that; it also fails if another file uses a private name of torch. The tests of networks and backward rules pass
with the oldest and the newest version that `pyproject.toml` allows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import MethodType
from typing import Any

import torch
import torch.utils.checkpoint as torch_checkpoint
from torch import Tensor, nn
from torch.nn.modules._functions import BackwardHookFunction
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode

# ---- processors --------------------------------------------------------------------------------------------------


def computes_in(dtype: torch.dtype) -> bool:
    """Return whether this processor computes in a type by instructions of its own; true where torch does not say."""
    names = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}
    says = getattr(torch.ops.mkldnn, names.get(dtype, ""), None)
    return says is None or bool(says())


# ---- autograd's graph --------------------------------------------------------------------------------------------


def next_node_number() -> int:
    """Return the number of the node that autograd makes next on this thread; they rise."""
    return int(torch.autograd._get_sequence_nr())


def node_number(node: Any) -> int:
    """Return the number of a node of autograd's graph."""
    return int(node._sequence_nr())


def is_module_hook(node: Any) -> bool:
    """Return whether a node only calls a module's backward hooks."""
    return isinstance(node, BackwardHookFunction._backward_cls)


def is_bookkeeping(node: Any) -> bool:
    """Return whether a node is a leaf, or what an in-place change of a view makes of its base: no operation."""
    return type(node).__name__ in ("AccumulateGrad", "CopySlices")


def node_shape(node: Any) -> tuple[int, ...]:
    """Return the shape of the first result of the operation that a node of autograd's graph is of."""
    return tuple(node._input_metadata[0].shape)


def node_device(node: Any) -> torch.device:
    """Return the device of that result."""
    device: torch.device = node._input_metadata[0].device
    return device


def node_type(node: Any) -> torch.dtype:
    """Return the type of that result."""
    dtype: torch.dtype = node._input_metadata[0].dtype
    return dtype


def result_count(node: Any) -> int:
    """Return how many results the operation that a node of autograd's graph is of has."""
    return len(node._input_metadata)


def saved(node: Any, name: str) -> Any:
    """Return what autograd keeps of an operation's arguments or results for its backward pass."""
    return getattr(node, f"_saved_{name}")


# ---- tensors -----------------------------------------------------------------------------------------------------

BASE_PROPERTY = Tensor._base
"""The property that asks a tensor for its base, as a `TorchFunctionMode` sees it."""


def base_of(tensor: Tensor) -> Tensor | None:
    """Return the tensor that a view is of; None for a tensor that is no view."""
    return tensor._base


def is_view(tensor: Tensor) -> bool:
    """Return whether a tensor is a view of another one."""
    return tensor._is_view()


def version_of(tensor: Tensor) -> int:
    """Return how often a tensor was written to in place."""
    return tensor._version


def storage_id(tensor: Tensor) -> int:
    """Return a number that is the same for tensors that share memory, also on the meta device."""
    return tensor.untyped_storage()._cdata  # `data_ptr` is 0 for all tensors on the meta device


def without_torch_function() -> AbstractContextManager[None]:
    """Return a context in which no `TorchFunctionMode` sees what is called."""
    found: AbstractContextManager[None] = torch._C.DisableTorchFunction()
    return found


NO_TORCH_FUNCTION = torch._C._disabled_torch_function_impl
"""The `__torch_function__` of a subclass of `Tensor` that handles operations in `__torch_dispatch__` alone."""


def wrapper_tensor(kind: type[Tensor], size: Sequence[int], like: Tensor) -> Any:
    """Return a tensor of a subclass that has no memory of its own, with another's type and device."""
    return Tensor._make_wrapper_subclass(kind, size, dtype=like.dtype, device=like.device, requires_grad=False)


# ---- operators, as a `TorchDispatchMode` sees them -----------------------------------------------------------------


def is_operator(target: Any) -> bool:
    """Return whether this is an operator of torch's dispatcher, of which exported graphs consist."""
    return isinstance(target, torch._ops.OpOverload)


def operator_name(operator: Any) -> str:
    """Return an operator's library and name, such as "aten::add_"."""
    return str(operator._schema.name) if hasattr(operator, "_schema") else str(operator)


def operator_arguments(operator: Any) -> Sequence[Any]:
    """Return an operator's arguments in order, each with a `name` and an `alias_info` (None where it is only read)."""
    arguments: Sequence[Any] = operator._schema.arguments
    return arguments


# ---- modules -----------------------------------------------------------------------------------------------------

_TABLES = {"parameters": "_parameters", "buffers": "_buffers", "parts": "_modules"}


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """Return the dictionary in which a module itself keeps its parameters."""
    return module._parameters


def own_buffers(module: nn.Module) -> dict[str, Tensor | None]:
    """Return the dictionary in which a module itself keeps its buffers."""
    return module._buffers


def own_parts(module: nn.Module) -> dict[str, nn.Module | None]:
    """Return the dictionary in which a module keeps the modules directly inside it."""
    return module._modules


def own_state(module: nn.Module) -> dict[str, Any]:
    """Return all else that a module holds: its attributes, and its hooks where it has any."""
    return {
        name: value
        for name, value in vars(module).items()
        if name not in _TABLES.values()
        and not (name.endswith(("_hooks", "_hooks_with_kwargs", "_always_called")) and not value)
    }


def share_contents(module: nn.Module, other: nn.Module) -> None:
    """Give a module another's own parameters, buffers and parts: the same dictionaries."""
    for name in (*_TABLES.values(), "_non_persistent_buffers_set"):
        module.__dict__[name] = other.__dict__[name]


def twin_of(module: nn.Module, kind: type[nn.Module] | None = None, **contents: Mapping[str, Any]) -> nn.Module:
    """Return a module of the same class, or of `kind`, that shares all attributes with another but these.

    Args:
        module: stays as it is.
        kind: a class; None: the module's.
        contents: `parameters`, `buffers` or `parts` by name, which replace the module's own.
    """
    twin: nn.Module = object.__new__(type(module) if kind is None else kind)
    twin.__dict__.update(vars(module))
    twin.__dict__.update({_TABLES[name]: dict(content) for name, content in contents.items()})
    return twin


def forward_pre_hooks(module: nn.Module) -> Iterable[Callable[..., Any]]:
    """Return the functions that run before a module's forward pass."""
    return module._forward_pre_hooks.values()


def versions_of(state: Mapping[str, Any]) -> dict[str, dict[str, Any]] | None:
    """Return the versions of the modules whose state this is, by name; None if the state does not hold them."""
    return getattr(state, "_metadata", None)


def keep_versions(state: Mapping[str, Any], versions: Mapping[str, Any] | None) -> None:
    """Note in a state the versions of its modules, for `load_state_dict` to read; None: leave it as it is."""
    if versions is not None:
        vars(state)["_metadata"] = versions


# ---- compilation -------------------------------------------------------------------------------------------------

COMPILED_MODULE = ("OptimizedModule", "_orig_mod")
"""The class of what `torch.compile` returns for a module, and the attribute that holds the module."""
_COMPILED_FUNCTION = "_torchdynamo_orig_callable"
_DYNAMO = Path(torch.__file__).parent / "_dynamo"


def is_compiled(module: nn.Module) -> bool:
    """Return whether a module was compiled, as a whole or in place by `module.compile()`."""
    return type(module).__name__ == COMPILED_MODULE[0] or getattr(module, "_compiled_call_impl", None) is not None


def is_compiled_function(value: Any) -> bool:
    """Return whether a function or method was compiled."""
    return hasattr(value, _COMPILED_FUNCTION)


def source_of_compiled(value: Any) -> Any:
    """Return the function that a compiled one was made of; anything else as it is."""
    if not is_compiled_function(value):
        return value
    value = getattr(value, _COMPILED_FUNCTION)
    # torch.compile puts a function of its own around those of PyTorch's modules
    code = getattr(value, "__code__", None)
    return value.__wrapped__ if code is not None and Path(code.co_filename).parent == _DYNAMO else value


def uncompiled_twin(module: nn.Module, parts: Mapping[str, nn.Module | None]) -> nn.Module:
    """Return a module with other parts whose compiled functions are as written, and that shares all else with it."""
    twin = twin_of(module, parts=parts)
    twin.__dict__.pop("_compiled_call_impl", None)
    for name, value in vars(module).items():
        if name in twin.__dict__ and name not in _TABLES.values():
            value = source_of_compiled(value)
            own = isinstance(value, MethodType) and value.__self__ is module
            twin.__dict__[name] = MethodType(value.__func__, twin) if own else value
    return twin


# ---- checkpointing -----------------------------------------------------------------------------------------------

CheckpointFunction: Any = torch_checkpoint.CheckpointFunction
"""What runs the reentrant form of `torch.utils.checkpoint`."""
checkpoint_hook: Any = torch_checkpoint._checkpoint_hook
"""What keeps the other form from saving tensors."""


def set_checkpointing(function: Any, hook: Any) -> None:
    """Let `torch.utils.checkpoint.checkpoint` call these in place of its two parts, however it was imported."""
    vars(torch_checkpoint).update(CheckpointFunction=function, _checkpoint_hook=hook)
