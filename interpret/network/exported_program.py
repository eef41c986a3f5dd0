"""A program of `torch.export` as a network with the layers that it was exported from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from interpret.network.torch_internals import is_operator
from interpret.support.errors import InterpretError


class ExportedModule(fx.GraphModule):
    """A module that an exported network had, as the operators that it called."""

    declared_shape: tuple[int, int, int] | None = None
    network_name: str = "exported"


def exported_network(program: torch.export.ExportedProgram) -> nn.Module:
    """Return the modules of an exported program by the names that they had, as a network that takes any batch.

    >>> program = torch.export.export(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()).eval(), (torch.zeros(2, 1, 5, 5),))
    >>> network = exported_network(program)
    >>> [(name, type(layer).__name__) for name, layer in network.named_children()]
    [('0', 'Conv2d'), ('1', 'ReLU')]

    Convolutions, linear layers and batch normalisations are modules of torch again; other modules run their operators.

    Raises:
        InterpretError: the modules cannot be told apart.
    """
    images = next(
        (node.meta["val"] for node in program.graph.nodes if node.name in program.graph_signature.user_inputs), None
    )
    shape = tuple(images.shape) if isinstance(images, Tensor) else ()
    batch = shape[0] if shape and isinstance(shape[0], int) else None
    try:
        unflat = torch.export.unflatten(program)
        network = _Conversion(batch).convert(unflat)
    except Exception as error:
        raise InterpretError(
            f"the exported program cannot be taken apart into its layers ({type(error).__name__}: {error}): pass the "
            "Python module that it was made from"
        ) from error
    signature = unflat.module_call_graph[0].signature
    if isinstance(network, ExportedModule):
        network.network_name = type(network).__name__ = _name_of(program)
        _restore_outputs(network, None if signature is None else signature.out_spec)
        if len(shape) == 4 and all(isinstance(side, int) for side in shape[1:]):
            network.declared_shape = shape[1:]
    return network.eval()


def _name_of(program: torch.export.ExportedProgram) -> str:
    """Return the name of the class of the network that was exported, which most of its operators belong to."""
    stacks = (node.meta.get("nn_module_stack") for node in program.graph.nodes)
    outermost = Counter(str(next(iter(stack.values()))[1]) for stack in stacks if stack)
    return outermost.most_common(1)[0][0].rpartition(".")[2] if outermost else "exported"


class _Conversion:
    """Converts the modules of an unflattened program, in the order in which they run."""

    def __init__(self, batch: int | None) -> None:
        self._batch = batch
        """The size of the batch with which the program was exported, if it takes no other."""
        self._converted: dict[int, nn.Module] = {}
        self._calls: Counter[int] = Counter()

    def convert(self, module: Any) -> nn.Module:
        if id(module) not in self._converted:
            self._converted[id(module)] = self._as_layer(module) or self._as_graph(module)
        return self._converted[id(module)]

    def _as_layer(self, module: Any) -> nn.Module | None:
        """Return a module that calls one operator as the module of torch that does so; None for any other."""
        nodes = list(module.graph.nodes)
        calls = [node for node in nodes if node.op in ("call_function", "call_module")]
        inputs = [node for node in nodes if node.op == "placeholder"]
        if len(calls) != 1 or len(inputs) != 1 or calls[0].target not in _LAYERS or calls[0].kwargs:
            return None
        first, *rest = calls[0].args
        if first is not inputs[0] or any(isinstance(one, fx.Node) and one.op != "get_attr" for one in rest):
            return None
        return _LAYERS[calls[0].target](
            *[_attribute(module, str(one.target)) if isinstance(one, fx.Node) else one for one in rest]
        )

    def _as_graph(self, module: Any) -> nn.Module:
        graph, contents = fx.Graph(), {}
        copies: dict[fx.Node, fx.Node] = {}
        for node in module.graph.nodes:
            copy = copies[node] = graph.node_copy(node, copies.__getitem__)
            copy.meta = {}  # whose tensors without values cannot be copied
            if node.op == "call_module":
                copy.target, contents[copy.target] = self._called(module, node.target)
            elif node.op == "get_attr":
                contents[node.target] = _attribute(module, str(node.target))
            elif node.target in _RESHAPES and self._batch is not None:
                _free_batch(copy, self._batch, node.meta["val"].shape)
        converted = ExportedModule(contents, graph)
        kind = module.type_name() if hasattr(module, "type_name") else None
        if kind:
            type(converted).__name__ = kind.rpartition(".")[2]  # each graph module has a class of its own
        return converted

    def _called(self, module: Any, target: str) -> tuple[str, nn.Module]:
        """Return the module that a call reaches, and its name: a second one if a later call runs other operators."""
        called = module.get_submodule(target)
        if not hasattr(called, "call_modules"):
            return target, self.convert(called)
        number = self._calls[id(called)] % len(called.call_modules())
        self._calls[id(called)] += 1
        return f"{target}_{number}" if number else target, self.convert(called.call_modules()[number])


def _attribute(module: Any, target: str) -> Any:
    """Return a parameter or buffer of a module, or of one inside it."""
    holder, _, name = target.rpartition(".")
    value = getattr(module.get_submodule(holder), name)
    return value.detach() if isinstance(value, Tensor) and not isinstance(value, nn.Parameter) else value


def _free_batch(node: fx.Node, batch: int, shape: Sequence[Any]) -> None:
    """Let a reshape of exactly one batch, to a shape that begins with its size, take any."""
    sizes = node.args[1]
    if isinstance(sizes, list | tuple) and sizes and sizes[0] == batch and len(sizes) == len(shape):
        rest = [shape[dim] if size == -1 else size for dim, size in enumerate(sizes)][1:]
        node.args = (node.args[0], [-1, *rest], *node.args[2:])


def _restore_outputs(network: ExportedModule, spec: Any) -> None:
    """Let a network return what it returned before it was exported, not a flat tuple."""
    (end,) = (node for node in network.graph.nodes if node.op == "output")
    flat = end.args[0]
    if spec is not None and isinstance(flat, list | tuple):
        end.args = (spec.unflatten(list(flat)),)
        network.recompile()


# ---- layers of torch -------------------------------------------------------------------------------------------------


def _convolution(
    weight: Tensor, bias: Any = None, stride: Any = (1, 1), padding: Any = (0, 0), dilation: Any = (1, 1),
    groups: int = 1,
) -> nn.Module:  # fmt: skip
    depth, size = weight.shape[1] * groups, _pair(weight.shape[2:])
    edges = padding if isinstance(padding, str) else _pair(padding)
    with torch.device("meta"):
        module = nn.Conv2d(
            depth,
            len(weight),
            size,
            _pair(stride),
            edges,
            _pair(dilation),
            groups,
            bias is not None,
        )
    return _with(module, weight=weight, bias=bias)


def _transposed(
    weight: Tensor, bias: Any = None, stride: Any = (1, 1), padding: Any = (0, 0), extra: Any = (0, 0),
    groups: int = 1, dilation: Any = (1, 1),
) -> nn.Module:  # fmt: skip
    units, size = weight.shape[1] * groups, _pair(weight.shape[2:])
    with torch.device("meta"):
        module = nn.ConvTranspose2d(
            len(weight), units, size, _pair(stride), _pair(padding), _pair(extra), groups, bias is not None,
            _pair(dilation),
        )  # fmt: skip
    return _with(module, weight=weight, bias=bias)


def _linear(weight: Tensor, bias: Any = None) -> nn.Module:
    with torch.device("meta"):
        module = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    return _with(module, weight=weight, bias=bias)


def _normalisation(
    weight: Any, bias: Any, mean: Any, variance: Any, training: bool, momentum: float, eps: float, _cudnn: bool
) -> nn.Module | None:
    if training or mean is None or variance is None:
        return None
    with torch.device("meta"):
        module = nn.BatchNorm2d(len(mean), eps, momentum, weight is not None)
    module.num_batches_tracked = torch.tensor(0)
    module.running_mean, module.running_var = mean, variance
    return _with(module, weight=weight, bias=bias)


def _pair(value: Any) -> Any:
    """Return a list of one or two numbers as two."""
    first, last = value[0], value[-1]
    return first, last


def _with(module: nn.Module, **weights: Any) -> nn.Module:
    for name, value in weights.items():
        if value is not None:
            setattr(module, name, value if isinstance(value, nn.Parameter) else nn.Parameter(value, False))
    return module


_ATEN = torch.ops.aten
_LAYERS: dict[Any, Callable[..., nn.Module | None]] = {
    _ATEN.conv2d.default: _convolution,
    _ATEN.conv2d.padding: _convolution,
    _ATEN.conv_transpose2d.input: _transposed,
    _ATEN.linear.default: _linear,
    _ATEN.batch_norm.default: _normalisation,
}
_RESHAPES = (_ATEN.view.default, _ATEN.reshape.default)


def is_opaque(part: nn.Module) -> bool:
    """Return whether a module is a part of an exported program that was not taken apart."""
    graph = getattr(part, "graph", None)
    return (
        isinstance(graph, fx.Graph)
        and not isinstance(part, ExportedModule)
        and any(is_operator(node.target) for node in graph.nodes)
    )
