"""Load ONNX files, converted to PyTorch by onnx2torch: layers have the names of the nodes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from interpret.loading.model_source import ModelSource
from interpret.support.errors import InterpretError

ENDING = ".onnx"


class OnnxGraph(fx.GraphModule):
    """The nodes of an ONNX graph as modules of torch, and the order in which they run."""

    network_name: str
    declared_shape: tuple[int, int, int] | None


def onnx_source(path: Path) -> ModelSource:
    """Return the source of a network in an ONNX file.

    Raises:
        InterpretError: when the network is made: a file that is missing or damaged; onnx2torch is not installed; an
            operation that it does not convert, by name.
    """
    return ModelSource.of_file(path.stem, path, _read)


def _read(path: Path) -> nn.Module:
    if not path.is_file():
        raise InterpretError(f"model {str(path)!r} does not exist: give the path of an ONNX file")
    try:
        import onnx
        import onnx2torch
        from google.protobuf.message import DecodeError
    except ModuleNotFoundError as error:
        raise InterpretError(
            f"model {str(path)!r} is an ONNX model, and there is no {error.name}: install it with "
            "pip install 'interpret-cnn[onnx]'"
        ) from None
    try:
        model = onnx.load(path)
    except (DecodeError, ValueError, OSError, onnx.checker.ValidationError) as error:
        raise InterpretError(f"model {str(path)!r} is damaged or no ONNX file ({error}): export it again") from None
    if not model.graph.node:
        raise InterpretError(f"model {str(path)!r} is damaged or no ONNX file: it has no nodes")
    shape = _declared_shape(model)
    _constants_as_initialisers(model)
    _free_batch(model)
    _give_ranks(model)
    _refuse_unknown(model, path)
    try:
        graph = onnx2torch.convert(model, attach_onnx_mapping=True)
    except Exception as error:  # it raises whatever its converters do
        raise InterpretError(
            f"model {str(path)!r} cannot be converted by onnx2torch ({type(error).__name__}: {error}): load the "
            "network that it was exported from"
        ) from error
    _matrices_as_linear_layers(graph, _vectors(model))
    _own_slices(graph)
    network = OnnxGraph(*_with_node_names(graph))
    network.network_name, network.declared_shape = path.stem, shape
    return network


# ---- the file's graph ------------------------------------------------------------------------------------------------


def _sizes(value: Any) -> list[int | None]:
    """Return the shape of a value, with None for a dimension that is not fixed."""
    return [dim.dim_value if dim.dim_value > 0 else None for dim in value.type.tensor_type.shape.dim]


def _images(model: Any) -> Any:
    """Return the graph's first input, which are the images; None if there is none."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return next((value for value in model.graph.input if value.name not in weights), None)


def _declared_shape(model: Any) -> tuple[int, int, int] | None:
    """Return (channels, height, width) of one image, if the file says so."""
    images = _images(model)
    match [] if images is None else _sizes(images):
        case [_, int() as channels, int() as height, int() as width]:
            return channels, height, width
    return None


def _constants_as_initialisers(model: Any) -> None:
    """Turn the nodes that hold constants, as some exporters write weights, into initialisers."""
    rest = []
    for node in model.graph.node:
        value = next((one.t for one in node.attribute if one.name == "value"), None)
        if node.op_type == "Constant" and value is not None:
            value.name = node.output[0]
            model.graph.initializer.append(value)
        else:
            rest.append(node)
    del model.graph.node[:]
    model.graph.node.extend(rest)


def _free_batch(model: Any) -> None:
    """Let a graph that was exported for one image take several: reshaping keeps the first dimension."""
    from onnx import numpy_helper

    images = _images(model)
    if images is None or not (sizes := _sizes(images)) or sizes[0] != 1:
        return
    images.type.tensor_type.shape.dim[0].dim_param = "batch"
    shapes = {node.input[1] for node in model.graph.node if node.op_type == "Reshape"}
    for tensor in model.graph.initializer:
        if tensor.name in shapes and len(shape := numpy_helper.to_array(tensor)) > 1 and shape[0] == 1:
            # 0 stands for the size of the reshaped tensor
            kept = numpy_helper.from_array(np.concatenate([[0], shape[1:]]).astype(np.int64), tensor.name)
            tensor.CopyFrom(kept)
    del model.graph.value_info[:]  # which have the batch of one


def _give_ranks(model: Any) -> None:
    """Give the outputs of convolutions a rank, which ONNX does not infer behind a computed shape."""
    from onnx import TensorProto, helper

    ranks = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    known = {value.name for value in model.graph.value_info}
    for node in model.graph.node:
        if node.op_type in ("Conv", "ConvTranspose") and node.input[1] in ranks and node.output[0] not in known:
            shape = [None] * ranks[node.input[1]]
            model.graph.value_info.append(helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, shape))


def _vectors(model: Any) -> set[str]:
    """Return the names of values that are one vector for each image."""
    from onnx import shape_inference

    graph = shape_inference.infer_shapes(model).graph
    return {value.name for value in (*graph.value_info, *graph.output) if len(_sizes(value)) == 2}


def _refuse_unknown(model: Any, path: Path) -> None:
    """Raise an error for the operations that onnx2torch does not convert."""
    from onnx2torch.node_converters import get_converter

    versions = {one.domain: one.version for one in model.opset_import}
    unknown: Counter[str] = Counter()
    for node in model.graph.node:
        try:
            get_converter(operation_type=node.op_type, version=versions[node.domain], domain=node.domain)
        except (NotImplementedError, KeyError):
            unknown[node.op_type] += 1
    if unknown:
        named = ", ".join(f"{name} ({number})" if number > 1 else name for name, number in unknown.items())
        raise InterpretError(
            f"model {str(path)!r} has operations that onnx2torch does not convert, {named}: load the network that it "
            "was exported from, or export it without them"
        )


# ---- the converted graph ---------------------------------------------------------------------------------------------


def _matrices_as_linear_layers(graph: fx.GraphModule, vectors: set[str]) -> None:
    """Replace products of vectors with a constant matrix, as some exporters write linear layers, by linear layers."""
    for node in graph.graph.nodes:
        if node.op != "call_module" or type(graph.get_submodule(node.target)).__name__ != "OnnxMatMul":
            continue
        left, right = node.args
        mapping: Any = graph.get_submodule(node.target).onnx_mapping
        if left.op == "get_attr" or right.op != "get_attr" or mapping.outputs[0] not in vectors:
            continue
        matrix = graph.get_buffer(right.target)
        with torch.device("meta"):
            layer = nn.Linear(matrix.shape[0], matrix.shape[1], bias=False)
        layer.weight = nn.Parameter(matrix.t().contiguous())
        setattr(graph, node.target, layer)
        node.args = (left,)


def _own_slices(graph: fx.GraphModule) -> None:
    """Replace onnx2torch's slices, which index by a list; newer versions of torch read that as positions."""
    for node in graph.graph.nodes:
        if node.op == "call_module" and type(graph.get_submodule(node.target)).__name__ == "OnnxSlice":
            setattr(graph, node.target, Slice())


class Slice(nn.Module):
    """ONNX's Slice: a part of a tensor along some dimensions, backwards with a negative step."""

    def forward(
        self, values: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None
    ) -> Tensor:
        every = range(len(starts))
        for place, axis in enumerate(every if axes is None else axes.tolist()):
            start, end = int(starts[place]), int(ends[place])
            step = 1 if steps is None else int(steps[place])
            if step < 0:
                values, start, end, step = values.flip(axis), -start - 1, -end - 1, -step
            before = (slice(None),) * (axis % values.dim())
            values = values[(*before, slice(start, end, step))]
        return values


def _with_node_names(graph: fx.GraphModule) -> tuple[nn.Module, fx.Graph]:
    """Return a graph's modules and the graph, with the names of nodes as paths of modules.

    onnx2torch writes `/` for `.`, which separates the names of modules.
    """
    names = {node.target for node in graph.graph.nodes if node.op == "call_module"}
    paths = {name: ".".join(part for part in name.replace(".", "/").split("/") if part) for name in names}
    taken = Counter(paths.values())
    for name, path in paths.items():
        inside = any(other.startswith(f"{path}.") for other in taken)
        if taken[path] > 1 or inside or any(path.startswith(f"{other}.") for other in taken):
            paths[name] = name.replace(".", "/")
    root = nn.Module()
    for node in graph.graph.nodes:
        if node.op == "call_module":
            module = graph.get_submodule(node.target)
            node.target = paths[node.target]
            *above, last = node.target.split(".")
            holder = root
            for part in above:
                if part not in dict(holder.named_children()):
                    holder.add_module(part, nn.Module())
                holder = getattr(holder, part)
            holder.add_module(last, module)
    if hasattr(graph, "initializers"):
        root.add_module("initializers", graph.get_submodule("initializers"))
    return root, graph.graph
