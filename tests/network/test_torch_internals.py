"""What the package takes from torch beyond its public interface does what it is used for, and lies in one file.

If a test fails after an update of torch, `interpret/network/torch_internals.py` is the file to change.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

import interpret
from interpret.network import torch_internals as internals

PACKAGE = Path(interpret.__file__).parent


def ones(*shape: int) -> Tensor:
    return torch.ones(shape, requires_grad=True)


# ---- one file ------------------------------------------------------------------------------------------------------


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _defined(tree: ast.AST) -> set[str]:
    """Return the private names that a file defines or assigns."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return {name for name in found if _is_private(name)}


def test_no_other_file_uses_a_private_name_of_torch() -> None:
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")}
    own = set().union(*map(_defined, trees.values())) | {"_replace", "_asdict", "_getframe", "_exit"}  # and Python's
    found = {}
    for path, tree in trees.items():
        uses = []
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and _is_private(node.attr) and node.attr not in own:
                uses.append(node.attr)
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("torch"):
                names = [*str(node.module).split("."), *(alias.name for alias in node.names)]
                uses += [name for name in names if _is_private(name)]
        if uses:
            found[path.relative_to(PACKAGE).as_posix()] = uses
    assert found.pop("network/torch_internals.py") and found.pop("network/keras_internals.py")
    assert found == {}


# ---- autograd's graph ----------------------------------------------------------------------------------------------


def test_nodes_are_numbered_as_they_are_made() -> None:
    x = ones(2)
    before = x * 2
    number = internals.next_node_number()
    after = before * 3
    assert internals.node_number(before.grad_fn) < number <= internals.node_number(after.grad_fn)
    assert internals.next_node_number() > number


def test_hooks_of_modules_are_told_from_operations() -> None:
    layer = nn.ReLU()
    handle = layer.register_full_backward_hook(lambda *_: None)
    hooked = layer(ones(2))
    handle.remove()
    assert internals.is_module_hook(hooked.grad_fn)
    assert not internals.is_module_hook(layer(ones(2)).grad_fn)


def test_leaves_and_changed_bases_are_no_operations() -> None:
    x = ones(2)
    base = x * 2
    leaf, _ = base.grad_fn.next_functions[0]  # type: ignore[union-attr]
    assert internals.is_bookkeeping(leaf) and not internals.is_bookkeeping(base.grad_fn)
    base[0].mul_(2)
    assert internals.is_bookkeeping(base.grad_fn)


def test_nodes_know_shapes_and_arguments() -> None:
    pooled = F.max_pool2d(ones(1, 2, 6, 8), 3, 2, 1)
    assert internals.node_shape(pooled.grad_fn) == (1, 2, 3, 4)
    assert internals.saved(pooled.grad_fn, "kernel_size") == (3, 3)
    assert internals.saved(pooled.grad_fn, "result1").shape == (1, 2, 3, 4)


# ---- processors ----------------------------------------------------------------------------------------------------


def test_torch_says_which_types_a_processor_computes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    assert internals.computes_in(torch.float32) and internals.computes_in(torch.float64)
    operators = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}
    for dtype, name in operators.items():
        assert internals.computes_in(dtype) in (True, False)
        if torch.backends.mkldnn.is_available():
            assert hasattr(torch.ops.mkldnn, name)
        for says in (True, False):
            monkeypatch.setattr(torch.ops.mkldnn, name, lambda says=says: says, raising=False)
            assert internals.computes_in(dtype) is says


# ---- tensors -------------------------------------------------------------------------------------------------------


def test_a_view_knows_its_base() -> None:
    base = torch.ones(4)
    view = base[1:]
    assert internals.base_of(view) is base and internals.base_of(base) is None
    assert internals.is_view(view) and not internals.is_view(base)


def test_asking_for_the_base_is_seen_as_one_property() -> None:
    seen = []

    class Watching(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(getattr(func, "__self__", None))
            return func(*args, **(kwargs or {}))

    base = torch.ones(4)
    view = base[1:]
    with Watching():
        assert internals.base_of(view) is base
    assert seen == [internals.BASE_PROPERTY]


def test_modes_see_nothing_where_that_is_asked_for() -> None:
    seen: list[Any] = []

    class Sees(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(func)
            return func(*args, **kwargs or {})

    x = torch.ones(2, requires_grad=True)
    with Sees():
        with internals.without_torch_function():
            assert x.grad_fn is None and (x + 1).grad_fn is not None
        assert seen == []
        _ = x + 1
    assert len(seen) == 1


def test_writing_in_place_makes_another_version() -> None:
    x = torch.ones(2)
    before = internals.version_of(x)
    x.add(1)
    assert internals.version_of(x) == before
    x.add_(1)
    assert internals.version_of(x) == before + 1


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_shared_memory_is_known_by_its_number(device: str) -> None:
    one, other = torch.ones(4, device=device), torch.ones(4, device=device)
    assert internals.storage_id(one) == internals.storage_id(one[1:].view(3, 1))
    assert internals.storage_id(one) != internals.storage_id(other)


def test_a_wrapper_has_no_memory_and_sees_operators_alone() -> None:
    class Seeing(Tensor):
        seen: list[str]
        __torch_function__ = internals.NO_TORCH_FUNCTION  # type: ignore[assignment]

        @classmethod
        def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
            args[0].seen.append(internals.operator_name(func))
            return torch.zeros(3)

    wrapper = internals.wrapper_tensor(Seeing, (2, 3), torch.ones(1, dtype=torch.float64))
    wrapper.seen = []
    assert type(wrapper) is Seeing and wrapper.shape == (2, 3) and wrapper.dtype == torch.float64
    assert torch.equal(F.relu(wrapper), torch.zeros(3))
    assert wrapper.seen == ["aten::relu"]


# ---- operators -----------------------------------------------------------------------------------------------------


def test_a_dispatch_mode_sees_operators_with_names_and_arguments() -> None:
    seen: dict[str, list[tuple[str, bool]]] = {}

    class Watching(internals.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            arguments = internals.operator_arguments(func)
            seen[internals.operator_name(func)] = [(one.name, one.alias_info is not None) for one in arguments]
            return func(*args, **(kwargs or {}))

    with Watching():
        torch.ones(2).add_(torch.ones(2))
    assert seen["aten::add_"] == [("self", True), ("other", False), ("alpha", False)]


def test_exported_graphs_consist_of_operators() -> None:
    assert internals.is_operator(torch.ops.aten.relu.default)
    assert not internals.is_operator(torch.relu)
    exported = torch.export.export(nn.ReLU(), (torch.ones(2),)).module()
    assert isinstance(exported.graph, fx.Graph)
    assert any(internals.is_operator(node.target) for node in exported.graph.nodes)


# ---- modules -------------------------------------------------------------------------------------------------------


def test_what_a_module_itself_holds() -> None:
    module = nn.Sequential(nn.BatchNorm2d(3))
    norm = module[0]
    assert internals.own_parameters(norm) == dict(norm.named_parameters(recurse=False))
    assert internals.own_buffers(norm) == dict(norm.named_buffers(recurse=False))
    assert internals.own_parts(module) == {"0": norm} and internals.own_parameters(module) == {}
    internals.own_buffers(norm)["running_mean"] = torch.ones(3)
    assert torch.equal(norm.running_mean, torch.ones(3))


def test_a_modules_state_holds_attributes_and_hooks() -> None:
    layer = nn.Conv2d(1, 1, 3, padding=2)
    state = internals.own_state(layer)
    assert state["padding"] == (2, 2) and "weight" not in state
    assert not any("hook" in name and value for name, value in state.items() if name != "_is_full_backward_hook")
    layer.register_forward_hook(lambda *_: None)
    assert any("forward_hooks" in name for name in internals.own_state(layer))


def test_a_module_with_shared_contents_has_the_others_state() -> None:
    module, other = nn.Module(), nn.Linear(2, 3)
    other.register_buffer("kept", torch.ones(1))
    other.register_buffer("left", torch.ones(1), persistent=False)
    internals.share_contents(module, other)
    assert list(module.state_dict()) == ["weight", "bias", "kept"]
    other.weight = nn.Parameter(torch.zeros(3, 2))
    assert module.weight is other.weight


def test_a_twin_shares_all_but_what_is_given() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    twin = internals.twin_of(module, parts={"0": nn.Flatten()})
    assert type(twin) is nn.Sequential and [type(part) for part in twin] == [nn.Flatten]  # type: ignore[attr-defined]
    assert len(module) == 2
    weight = torch.eye(2)
    linear = internals.twin_of(module[0], parameters={"weight": nn.Parameter(weight), "bias": None})
    assert torch.equal(linear(weight), weight)


def test_pre_hooks_can_be_run_by_hand() -> None:
    layer = nn.Linear(2, 2)
    seen = []
    layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    for hook in internals.forward_pre_hooks(layer):
        hook(layer, ())
    assert seen == [()]


def test_a_state_keeps_the_versions_of_its_modules() -> None:
    state = nn.Sequential(nn.BatchNorm2d(1)).state_dict()
    assert internals.versions_of(state) == {"": {"version": 1}, "0": {"version": 2}}
    assert internals.versions_of({}) is None
    # a batch norm of version 1 has no count, which `load_state_dict` then does not ask for
    del state["0.num_batches_tracked"]
    internals.keep_versions(state, {"0": {"version": 1}})
    nn.Sequential(nn.BatchNorm2d(1)).load_state_dict(state)


# ---- compilation ---------------------------------------------------------------------------------------------------


def test_compiled_modules_are_known_and_hold_the_plain_one() -> None:
    plain = nn.Linear(2, 2)
    compiled = torch.compile(plain)
    assert internals.is_compiled(compiled) and not internals.is_compiled(plain)
    kind, attribute = internals.COMPILED_MODULE
    assert type(compiled).__name__ == kind and getattr(compiled, attribute) is plain
    plain.compile()
    assert internals.is_compiled(plain)
    assert not internals.is_compiled(internals.uncompiled_twin(plain, {}))


def test_compiled_functions_hold_what_they_were_made_of() -> None:
    def double(x: Tensor) -> Tensor:
        return x * 2

    compiled = torch.compile(double)
    assert internals.is_compiled_function(compiled) and not internals.is_compiled_function(double)
    assert internals.source_of_compiled(compiled) is double and internals.source_of_compiled(double) is double


def test_a_twin_runs_compiled_methods_as_written() -> None:
    module = nn.Linear(2, 2)
    module.forward = torch.compile(module.forward)  # type: ignore[method-assign]
    twin = internals.uncompiled_twin(module, {})
    assert not internals.is_compiled_function(twin.forward)
    assert twin.forward.__self__ is twin  # type: ignore[attr-defined]


# ---- checkpointing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_calls_what_is_set(reentrant: bool) -> None:
    called = []

    class Function:
        @staticmethod
        def apply(function: Any, preserve_rng_state: bool, *args: Any) -> Any:
            called.append("function")
            return internals.CheckpointFunction.apply(function, preserve_rng_state, *args)

    def hook(frame: Any) -> Any:
        called.append("hook")
        return internals.checkpoint_hook(frame)

    internals.set_checkpointing(Function, hook)
    try:
        checkpoint(torch.exp, ones(1), use_reentrant=reentrant)
    finally:
        internals.set_checkpointing(internals.CheckpointFunction, internals.checkpoint_hook)
    assert called == ["function" if reentrant else "hook"]
    checkpoint(torch.exp, ones(1), use_reentrant=reentrant)
    assert len(called) == 1
