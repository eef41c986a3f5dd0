"""How the user's network is called: what its own code raises, in every analysis."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import interpret
from interpret.errors import InterpretError
from interpret.forward import call_network
from interpret.projection import project_hits


class Raising(nn.Module):
    """A network that fails inside its second block in the way that it is told."""

    def __init__(self, error: Callable[[], BaseException]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.block = nn.Sequential(nn.ReLU(), _Failing(error))
        self.head = nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.block(self.stem(images)).mean((2, 3)))


class _Failing(nn.Module):
    def __init__(self, error: Callable[[], BaseException]) -> None:
        super().__init__()
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        raise self.error()


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 5)

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        return self.fc((self.conv(images) * mask).mean((2, 3)))


def images(count: int = 6, channels: int = 3, side: int = 8) -> Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(0))


ANALYSES: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "trace": lambda network, x: interpret.trace(network, tuple(x.shape[1:])),
    "mine": lambda network, x: interpret.mine(network, x),
    "project": lambda network, x: interpret.project(network, x, "head", 0),
    "probe": lambda network, x: interpret.probe(network, x, "translation", [0.0, 1.0]),
    "occlude": lambda network, x: interpret.occlude(network, x, size=4, stride=4),
    "predict": lambda network, x: interpret.predict(network, x),
    "attribute": lambda network, x: interpret.attribute(network, x, "gradient"),
    "sanity_check": lambda network, x: interpret.sanity_check(network, x, ["gradient"]),
    "correspond": lambda network, x: interpret.correspond(network, x, {"corner": (0, 0, 3, 3)}),
    "find_neighbours": lambda network, x: interpret.find_neighbours(network, [0], x, "head", k=1),
    "feature_maps": lambda network, x: interpret.feature_maps(network, x[0]),
}
every_analysis = pytest.mark.parametrize("analysis", ANALYSES)


@every_analysis
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (lambda: KeyError("image"), r"KeyError: 'image'"),
        (lambda: AttributeError("'NoneType' object has no attribute 'shape'"), "AttributeError: 'NoneType'"),
        (lambda: NotImplementedError(), r"\(NotImplementedError\)"),
        (lambda: ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (lambda: RuntimeError("no luck\nat all"), r"\(no luck\)"),
    ],
)
def test_whatever_the_forward_pass_raises_names_the_layer(
    analysis: str, error: Callable[[], BaseException], told: str
) -> None:
    with pytest.raises(InterpretError, match=rf"layer 'block.1' \(_Failing\) fails on an input of 4×6×6.*{told}"):
        ANALYSES[analysis](Raising(error), images())


@every_analysis
def test_a_missing_input_is_named(analysis: str) -> None:
    with pytest.raises(InterpretError, match=r"network \(TwoInputs\) takes more than one input.*'mask'"):
        ANALYSES[analysis](TwoInputs(), images())


@every_analysis
def test_wrong_channels_name_the_layer(analysis: str) -> None:
    network = nn.Sequential()
    network.add_module("stem", nn.Conv2d(4, 4, 3))
    network.add_module("pool", nn.Flatten())
    network.add_module("head", nn.Linear(144, 5))
    with pytest.raises(InterpretError, match=r"has 3 channels, but layer 'stem' \(Conv2d\) takes 4"):
        ANALYSES[analysis](network, images())


@pytest.mark.parametrize("passed_on", [MemoryError, torch.OutOfMemoryError, KeyboardInterrupt, RuntimeWarning])
def test_what_is_no_fault_of_the_network_stays_what_it_is(passed_on: type[BaseException]) -> None:
    with pytest.raises(passed_on):
        call_network(Raising(lambda: passed_on("stop")), images())


def test_the_error_keeps_its_cause_and_the_network_its_state() -> None:
    network = Raising(lambda: KeyError("image")).train()
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(InterpretError) as caught:
        interpret.mine(network, images())
    assert isinstance(caught.value.__cause__, KeyError)
    assert all(part.training for part in network.modules())
    assert all(not part._forward_hooks and not part._forward_pre_hooks for part in network.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


# ---- networks that are wrapped, compiled, or called in a way of their own --------------------------------------------


class Plain(nn.Module):
    """A small classifier with a batch norm, an in-place rectifier and a strided convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.deep = nn.Conv2d(4, 6, 3, stride=2)
        self.act = nn.ReLU()
        self.head = nn.Linear(6, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.act(self.deep(self.stem(images))).mean((2, 3)))


def plain() -> Plain:
    torch.manual_seed(0)
    network = Plain()
    network(torch.rand(16, 3, 12, 12))  # statistics that are not those of a new batch norm
    return network.eval()


def wrapped_inside(network: Plain) -> nn.Module:
    network.stem = nn.DataParallel(network.stem)  # type: ignore[assignment]
    network.act = torch.compile(network.act)  # type: ignore[assignment]
    return network


def compiled_in_place(network: Plain) -> nn.Module:
    network.stem[0].compile()
    network.compile()
    return network


def compiled_forward(network: Plain) -> nn.Module:
    network.stem.forward = torch.compile(network.stem.forward)  # type: ignore[method-assign]
    network.forward = torch.compile(network.forward)  # type: ignore[method-assign]
    return network


class CompiledFunctions(Plain):
    """Calls a compiled function, which no wrapper shows."""

    def __init__(self) -> None:
        super().__init__()
        self.rectify = torch.compile(nn.functional.relu)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.rectify(self.deep(self.stem(images))).mean((2, 3)))


def with_compiled_functions(network: Plain) -> nn.Module:
    other = CompiledFunctions().eval()
    other.load_state_dict(network.state_dict())
    return other


class WithContext(Plain):
    """Needs a vector beside the images, and is told a number."""

    def forward(self, images: Tensor, context: Tensor, *, scale: float) -> Tensor:  # type: ignore[override]
        return self.head(self.act(self.deep(self.stem(images))).mean((2, 3)) * context * scale)


def called_by(network: Plain) -> Any:
    other = WithContext().eval()
    other.load_state_dict(network.state_dict())
    ones = torch.ones(1, 6)
    return interpret.load(other, call=lambda net, x: net(x, ones.expand(len(x), -1).to(x), scale=1.0))


WRAPPED: dict[str, Callable[[Plain], Any]] = {
    "DataParallel": nn.DataParallel,
    "DataParallel twice": lambda network: nn.DataParallel(nn.DataParallel(network)),
    "AveragedModel": torch.optim.swa_utils.AveragedModel,
    "compiled": torch.compile,
    "compiled in place": compiled_in_place,
    "compiled forward": compiled_forward,
    "compiled functions": with_compiled_functions,
    "compiled DataParallel": lambda network: torch.compile(nn.DataParallel(network)),
    "inside": wrapped_inside,
    "fx": torch.fx.symbolic_trace,
    "call": called_by,
}


def arrays(result: Any) -> Iterator[Any]:
    """Yield all numbers in a result, whatever it is."""
    if isinstance(result, Tensor | np.ndarray):
        if isinstance(result, Tensor):  # NumPy does not know bfloat16
            result = result.detach().float() if result.dtype is torch.bfloat16 else result.detach()
        yield np.asarray(result)
    elif isinstance(result, Mapping):
        for value in result.values():
            yield from arrays(value)
    elif isinstance(result, tuple | list):
        for value in result:
            yield from arrays(value)
    elif dataclasses.is_dataclass(result):
        for one in dataclasses.fields(result):
            yield from arrays(getattr(result, one.name))
    elif isinstance(result, int | float | str):
        yield np.asarray(result)


@every_analysis
@pytest.mark.parametrize("wrapper", WRAPPED)
def test_a_wrapped_network_gives_what_the_plain_one_gives(wrapper: str, analysis: str) -> None:
    x, run = images(side=12), ANALYSES[analysis]
    found, expected = run(WRAPPED[wrapper](plain()), x), run(plain(), x)
    if analysis == "trace":  # containers and rectifiers may have given way to functions
        assert {"stem.0", "stem.1", "deep", "head"} <= found.keys() <= expected.keys()
        expected = {name: expected[name] for name in found}
    for one, other in zip(arrays(found), arrays(expected), strict=True):
        if one.dtype.kind in "US":  # a class's name may be that of the wrapper
            continue
        np.testing.assert_array_equal(one, other)


def test_a_wrapped_network_is_left_as_it_was() -> None:
    network = wrapped_inside(plain()).train()
    wrapped = torch.compile(nn.DataParallel(network))
    names = [name for name, _ in wrapped.named_modules()]
    state = copy.deepcopy(wrapped.state_dict())
    interpret.mine(wrapped, images(side=12), k=1)
    interpret.project(wrapped, images(side=12), "deep", 0)
    assert [name for name, _ in wrapped.named_modules()] == names
    assert all(part.training for part in wrapped.modules())
    assert all(not part._forward_hooks and not part._forward_pre_hooks for part in wrapped.modules())
    assert all(torch.equal(state[name], tensor) for name, tensor in wrapped.state_dict().items())
    assert torch._dynamo.eval_frame._stance.stance == "default"


def test_layers_have_the_names_of_the_plain_network_and_share_its_weights() -> None:
    network = plain()
    expected = [name for name, _ in network.named_modules()]
    model = interpret.load(torch.compile(wrapped_inside(network)))
    assert [name for name, _ in model.module.named_modules()] == expected
    assert model.module.deep is network.deep
    assert model.name == "Plain"
    assert model.weights_hash == interpret.load(plain()).weights_hash


def test_a_distributed_network_is_unwrapped(tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(plain())
        found, expected = (interpret.mine(network, images(side=12)) for network in (wrapped, plain()))
    finally:
        torch.distributed.destroy_process_group()
    assert list(found) == list(expected)
    assert all(np.array_equal(found[name].values, expected[name].values) for name in expected)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:FutureWarning")
@every_analysis
@pytest.mark.parametrize("how", ["scripted", "traced", "exported", "exported program", "unflattened", "inside"])
def test_what_has_no_layers_is_refused(how: str, analysis: str) -> None:
    network, x = plain(), images(side=12)
    opaque: Any
    if how == "scripted":
        opaque, told = torch.jit.script(network), "the network is scripted or traced"
    elif how == "traced":
        opaque, told = torch.jit.trace(network, x), "the network is scripted or traced"
    elif how == "inside":
        network.stem = torch.jit.script(network.stem)
        opaque, told = network, "layer 'stem' is scripted or traced"
    else:
        program = torch.export.export(network, (x,))
        told = "is exported"
        opaque = {"exported": program.module, "unflattened": lambda: torch.export.unflatten(program)}.get(
            how, lambda: program
        )()
    with pytest.raises(InterpretError, match=f"{told}.*: pass the Python module that it was made of"):
        ANALYSES[analysis](opaque, x)


class Lazy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.LazyConv2d(4, 3)
        self.head = nn.LazyLinear(5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.stem(images).mean((2, 3)))


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
@every_analysis
def test_a_lazy_network_is_refused_and_stays_lazy(analysis: str) -> None:
    network = Lazy()
    with pytest.raises(InterpretError, match=r"layer 'stem' \(LazyConv2d\) has no weights.*run the network once"):
        ANALYSES[analysis](network, images())
    assert isinstance(network.stem, nn.LazyConv2d)
    network(images())
    ANALYSES[analysis](network, images())


@every_analysis
def test_a_network_without_numbers_is_refused(analysis: str) -> None:
    with torch.device("meta"):
        network = Plain()
    if analysis == "trace":  # which needs none
        assert interpret.trace(network, (3, 12, 12))["head"].output_shape == (5,)
        return
    with pytest.raises(InterpretError, match=r"no numbers in 'stem.0.weight', which is on the meta device: .*to_empty"):
        ANALYSES[analysis](network, images(side=12))
    with pytest.raises(InterpretError, match="no numbers"):
        _ = interpret.load(network).weights_hash
    with pytest.raises(InterpretError, match="no numbers"):
        interpret.filter_images(network)


# ---- types of number -------------------------------------------------------------------------------------------------

MORE_ANALYSES: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    **ANALYSES,
    "project_hits": lambda network, x: [
        hits.projections for hits in project_hits(network, x, interpret.mine(network, x))
    ],
    "rotation": lambda network, x: interpret.probe(network, x, "rotation", [0.0, 5.0]),
    "scale": lambda network, x: interpret.probe(network, x, "scale", [1.0, 1.2]),
    "compare_methods": lambda network, x: interpret.compare_methods(network, x, ["gradient", "deconvnet"]),
    "filter_images": lambda network, x: interpret.filter_images(network),
    "summarise": lambda network, x: interpret.summarise(network, tuple(x.shape[1:])),
    "evolve": lambda network, x: interpret.evolve(
        {1: network.state_dict(), 2: network.state_dict()}, x, "deep", model=network
    ),
}


@pytest.mark.parametrize("analysis", MORE_ANALYSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_nothing_depends_on_the_default_type(dtype: torch.dtype, analysis: str) -> None:
    network, x, run = plain().to(dtype), images(side=12).to(dtype), MORE_ANALYSES[analysis]
    expected = list(arrays(run(network, x)))
    torch.set_default_dtype(torch.float64)
    try:
        found = list(arrays(run(network, x)))
    finally:
        torch.set_default_dtype(torch.float32)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_a_network_built_in_double_precision_gives_the_exact_values() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        network, x = Plain().eval(), torch.rand(6, 3, 12, 12)
        mined = interpret.mine(network, x, "deep", k=6)
        projected = interpret.project(network, x, "deep", 2, (1, 1), "gradient", start="one")
    finally:
        torch.set_default_dtype(torch.float32)
    assert network.head.weight.dtype == x.dtype == torch.float64
    maps = network.deep(network.stem(x)).detach()
    # values are kept in single precision
    np.testing.assert_array_equal(mined["deep"].values[2], maps[:, 2].amax((1, 2)).sort(descending=True)[0].float())
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network.deep(network.stem(leaf))[:, 2, 1, 1].sum(), leaf)
    torch.testing.assert_close(projected.full((12, 12)), gradient, rtol=1e-12, atol=1e-12)
