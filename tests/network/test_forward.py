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
from PIL import Image
from torch import Tensor, nn

import interpret
from interpret.analyses.projection.hit_projection import project_hits
from interpret.network.forward import call_network
from interpret.support.errors import InterpretError


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
    "layer_outputs": lambda network, x: interpret.layer_outputs(network, x),
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


class _Detector(nn.Module):
    """As torchvision's detectors, it wants targets in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor, targets: Tensor | None = None) -> Tensor:
        if self.training:
            torch._assert(targets is not None, "targets should not be none when in training mode")
        return self.head(x).mean((2, 3))


class _StaysTraining(_Detector):
    def train(self, mode: bool = True) -> nn.Module:
        return super().train(True)


@every_analysis
def test_a_detector_in_training_mode_runs_in_evaluation_mode_or_is_refused(analysis: str) -> None:
    detector = _Detector().train()
    ANALYSES[analysis](detector, images())
    assert detector.training
    with pytest.raises(InterpretError, match=r"\(_StaysTraining\) stays in training mode .*targets.*its eval\(\)"):
        ANALYSES[analysis](_StaysTraining().train(), images())


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
@pytest.mark.parametrize("how", ["scripted", "traced", "exported", "unflattened", "inside"])
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
        opaque = program.module() if how == "exported" else torch.export.unflatten(program)
    with pytest.raises(InterpretError, match=f"{told}.*: pass the .*Python module that it was made from"):
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


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_pictures_become_inputs_of_the_network_s_type(dtype: torch.dtype, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    pictures = [Image.fromarray(generator.integers(0, 256, (12, 12, 3), np.uint8)) for _ in range(4)]
    for number, picture in enumerate(pictures):
        picture.save(tmp_path / f"{number}.png")
    preprocess = interpret.Preprocess((12, 12), mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    model = interpret.load(plain().to(dtype), preprocess=preprocess)
    x = torch.stack([preprocess(picture) for picture in pictures]).to(dtype)
    expected = interpret.mine(model, x, k=2)
    for data in (tmp_path, [(picture, 0) for picture in pictures], pictures):
        found = interpret.mine(model, data, k=2)
        assert all(np.array_equal(found[name].values, expected[name].values) for name in expected)
        assert torch.equal(interpret.layer_outputs(model, data, "deep")["deep"], expected_part(model.module, x))
    for run in (
        lambda data: interpret.predict(model, data),
        lambda data: interpret.project(model, data, "deep", 0),
        lambda data: interpret.probe(model, data, "rotation", [0.0, 5.0]),
        lambda data: interpret.occlude(model, data, size=4, stride=4),
        lambda data: interpret.attribute(model, data, "gradient"),
        lambda data: interpret.find_neighbours(model, [0], data, "deep", k=1),
        lambda data: interpret.evolve({1: model.module.state_dict()}, data, "deep", model=model),
    ):
        assert len(list(arrays(run(tmp_path)))) > 0


# ---- the network says what it takes ---------------------------------------------------------------------------------


class Unshuffled(nn.Module):
    """Its first registered convolution is not what the images come to."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Conv2d(1, 1, 1)
        self.body = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 4, 3), nn.ReLU())
        self.deep = nn.Conv2d(4, 6, 1)
        self.head = nn.Linear(6, 5)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.body(images)
        return self.head((self.deep(maps) * self.gate(maps.mean(1, keepdim=True)).sigmoid()).mean((2, 3)))


def test_a_network_whose_first_convolution_does_not_see_the_image_is_right_in_every_analysis() -> None:
    torch.manual_seed(0)
    network, x = Unshuffled().double().eval(), images(side=12).double()
    maps = network.deep(network.body(x)).detach()
    assert interpret.trace(network, (3, 12, 12))["body.1"].input_shape == (12, 6, 6)
    mined = interpret.mine(network, x, k=6)
    np.testing.assert_allclose(mined["deep"].values[1], maps[:, 1].amax((1, 2)).sort(descending=True)[0], rtol=1e-6)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network.deep(network.body(leaf))[:, 1, 2, 2].sum(), leaf)
    projected = interpret.project(network, x, "deep", 1, (2, 2), "gradient", start="one")
    torch.testing.assert_close(projected.full((12, 12)), gradient, rtol=1e-12, atol=1e-12)
    expected = network(x).softmax(1)
    predicted = interpret.predict(network, x, k=5)
    np.testing.assert_allclose(predicted.probabilities, expected.detach().sort(descending=True)[0], rtol=1e-6)
    (gradient,) = torch.autograd.grad(network(leaf)[:, 3].sum(), leaf)
    np.testing.assert_allclose(interpret.attribute(network, x, "gradient", 3).maps, gradient, rtol=1e-9, atol=1e-12)
    occluded = interpret.occlude(network, x, [3] * 6, size=4, stride=4)
    hidden = x.clone()
    hidden[:, :, 4:8, 8:12] = 0
    shares = network(hidden).softmax(1)[:, 3].detach()
    np.testing.assert_allclose(occluded.probabilities[:, 1, 2], shares, rtol=1e-6)


@every_analysis
def test_the_sentence_for_wrong_channels_names_the_layer_behind_a_reshuffling(analysis: str) -> None:
    with pytest.raises(InterpretError, match=r"layer 'body.1' \(Conv2d\) fails on an input of 4×4×4 .*12 channels"):
        ANALYSES[analysis](Unshuffled(), images(channels=1))


# ---- what layers return ---------------------------------------------------------------------------------


def hooked(network: nn.Module, names: list[str], call: Callable[[], Any]) -> dict[str, Tensor]:
    """Return what plain forward hooks see."""
    found: dict[str, Tensor] = {}

    def keep(name: str, output: Tensor) -> None:
        found[name] = output.detach().clone()

    handles = [
        network.get_submodule(name).register_forward_hook(lambda _m, _i, output, name=name: keep(name, output))
        for name in names
    ]
    call()
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_layer_outputs_are_those_of_a_forward_hook_to_the_bit(layout: torch.memory_format) -> None:
    network, x = plain(), images(40, side=12).contiguous(memory_format=layout)
    names = ["stem.0", "stem.1", "stem.2", "deep", "head"]
    expected = hooked(network, names, lambda: network(x))
    found = interpret.layer_outputs(network, x, names)
    assert list(found) == names
    for name in names:
        assert torch.equal(found[name], expected[name]), name
        assert found[name].stride() == expected[name].stride()
    assert not found["deep"].is_inference()
    assert list(interpret.layer_outputs(network, x)) == ["stem.0", "deep", "head"]
    parts = interpret.layer_outputs(network, x, "deep", batch_size=7)["deep"]
    assert torch.equal(parts, torch.cat([expected_part(network, part) for part in x.split(7)]))


def expected_part(network: nn.Module, x: Tensor) -> Tensor:
    return hooked(network, ["deep"], lambda: network(x))["deep"]


def test_layer_outputs_of_whatever_mine_takes() -> None:
    network, x = plain(), images(3, side=12)
    expected = hooked(network, ["head"], lambda: network(x))["head"]
    labelled = [(image, 1) for image in x]
    for data in (x, labelled, interpret.open_images(x, network)):
        torch.testing.assert_close(interpret.layer_outputs(network, data, "head")["head"], expected)


def test_layer_outputs_leave_the_network_as_it_was() -> None:
    network = plain().train()
    before = copy.deepcopy(network.state_dict())
    outputs = interpret.layer_outputs(network, images(side=12), "stem.*,head")
    assert all(part.training for part in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert torch.equal(outputs["head"], network.eval()(images(side=12)))


def test_layer_outputs_leave_the_images_as_they_were() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, image: Tensor, scale: Tensor) -> Tensor:
            return self.conv(image.mul_(2)) * scale.add_(1)[:, None, None, None]

    inputs = images(), torch.ones(6)
    before = copy.deepcopy(inputs)
    network = InPlace()
    expected = network.conv(before[0] * 2)
    assert torch.equal(interpret.layer_outputs(network, inputs)["conv"], expected)
    found = interpret.mine(network, inputs, k=1)
    np.testing.assert_allclose(found["conv"].values[:, 0], expected.detach().amax((0, 2, 3)), rtol=1e-6)
    interpret.project(network, inputs, "conv", 0)
    interpret.trace(network, ((3, 8, 8), inputs[1]))
    assert all(torch.equal(one, other) for one, other in zip(inputs, before, strict=True))


def test_mistakes_with_layer_outputs(tmp_path: Path) -> None:
    network = plain()
    network.idle = nn.Conv2d(1, 1, 1)
    assert "idle" not in interpret.layer_outputs(network, images(side=12))
    for told, arguments, settings in [
        ("layer 'idle' did not run", (images(side=12), "idle"), {}),
        ("unknown layer 'deeper'", (images(side=12), "deeper"), {}),
        ("batch_size must be at least 1, not 0", (images(side=12),), {"batch_size": 0}),
        ("images are torch.float64, and the network's weights torch.float32", (images(side=12).double(),), {}),
        ("has 4 channels, but layer 'stem.0'", (images(channels=4),), {}),
    ]:
        with pytest.raises(InterpretError, match=told):
            interpret.layer_outputs(network, *arguments, **settings)  # type: ignore[arg-type]


# ---- several inputs ---------------------------------------------------------------------------------


class Several(nn.Module):
    """Takes two pictures, a mask, whole numbers and a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 4, 3)
        self.right = nn.Conv2d(2, 4, 3, padding=1)
        self.kind = nn.Embedding(7, 4)
        self.joint = nn.Conv2d(4, 6, 3, stride=2)
        self.head = nn.Linear(6, 5)

    def forward(self, image: Tensor, other: Tensor, mask: Tensor, kind: Tensor, *, scale: Tensor) -> Tensor:
        gate = torch.where(mask, 1.0, 0.5).to(image)[:, None]
        maps = (self.left(image) + self.right(other).relu()) * gate + self.kind(kind)[:, :, None, None]
        return self.head(self.joint(maps.relu()).mean((2, 3)) * scale)


def several(dtype: torch.dtype, count: int = 9) -> tuple[Several, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    torch.manual_seed(0)
    inputs = {
        "image": torch.rand(count, 3, 11, 11, generator=generator).to(dtype),
        "other": torch.rand(count, 2, 9, 9, generator=generator).to(dtype),
        "mask": torch.rand(count, 9, 9, generator=generator) > 0.5,
        "kind": torch.randint(7, (count,), generator=generator),
        "scale": torch.rand(count, 6, generator=generator).to(dtype) + 0.5,
    }
    return Several().to(dtype).eval(), inputs


class ByPlace(Several):
    def forward(self, *inputs: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(*inputs[:4], scale=inputs[4])


def shaped(network: nn.Module, inputs: dict[str, Tensor], how: str) -> tuple[nn.Module, Any]:
    """Return the network and its inputs as a dict, or by place."""
    if how == "dict":
        return network, inputs
    other = ByPlace().to(inputs["image"].dtype).eval()
    other.load_state_dict(network.state_dict())
    return other, tuple(inputs.values())


by_name_or_place = pytest.mark.parametrize("how", ["dict", "tuple"])


@by_name_or_place
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_mining_with_several_inputs(dtype: torch.dtype, how: str) -> None:
    network, inputs = several(dtype)
    expected = hooked(network, ["left", "joint", "head"], lambda: network(**inputs))
    mined = interpret.mine(*shaped(network, inputs, how), "left,joint,head", k=4, batch_size=3)  # type: ignore[misc]
    for name, output in expected.items():
        maxima = output.float() if output.dim() == 2 else output.float().amax((2, 3))
        values, items = maxima.sort(dim=0, descending=True, stable=True)
        tolerance = 4 * torch.finfo(dtype).eps * float(maxima.abs().max())
        np.testing.assert_allclose(mined[name].values, values[:4].T, rtol=0, atol=max(tolerance, 1e-6))
        if dtype is not torch.bfloat16:  # in which values tie
            np.testing.assert_array_equal(mined[name].images, items[:4].T)


@by_name_or_place
@pytest.mark.parametrize("to", ["image", "other"])
def test_projection_to_each_of_several_inputs(to: str, how: str) -> None:
    network, inputs = several(torch.float64)
    leaves = {name: value.clone().requires_grad_(name == to) for name, value in inputs.items()}
    captured: dict[str, Tensor] = {}
    handle = network.joint.register_forward_hook(lambda _m, _i, output: captured.update(joint=output))
    network(**leaves)
    handle.remove()
    (gradient,) = torch.autograd.grad(captured["joint"][:, 2, 1, 2].sum(), leaves[to])
    place: Any = to if how == "dict" else list(inputs).index(to)
    model, given = shaped(network, inputs, how)
    found = interpret.project(model, given, "joint", 2, (1, 2), "gradient", start="one", to=place)
    size = (inputs[to].shape[2], inputs[to].shape[3])
    assert found.pixels.shape == inputs[to].shape
    torch.testing.assert_close(found.full(size), gradient, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(found.values, captured["joint"][:, 2, 1, 2].detach(), rtol=1e-12, atol=1e-13)
    strongest = interpret.project(model, given, "joint", 2, to=place)
    torch.testing.assert_close(strongest.values, captured["joint"][:, 2].detach().amax((1, 2)), rtol=1e-12, atol=1e-13)
    if to == "image":
        assert torch.equal(interpret.project(model, given, "joint", 2).pixels, strongest.pixels)


@by_name_or_place
def test_mined_hits_of_several_inputs_are_projected_and_shown(how: str) -> None:
    network, inputs = several(torch.float32)
    model, given = shaped(network, inputs, how)
    mined = interpret.mine(model, given, "joint", k=2)
    # a unit sees five pixels of the image, every two, and whatever of the other inputs
    windows = [
        [
            inputs["image"][item][:, 2 * y : 2 * y + 5, 2 * x : 2 * x + 5]
            for item, (y, x) in zip(mined["joint"].images[unit], mined["joint"].positions[unit], strict=True)
        ]
        for unit in range(6)
    ]
    for hits in project_hits(model, given, mined):
        assert hits.projections.shape[1:] == hits.patches.shape[1:] == (3, 5, 5)
        for unit, rank, patch in zip(hits.units, hits.ranks, hits.patches, strict=True):
            assert torch.equal(patch, windows[unit][rank])
    unit = mined["joint"].unit(3)
    assert torch.equal(unit.patches, torch.stack(windows[3]))
    assert unit.projections("guided").shape == (2, 3, 5, 5)


@by_name_or_place
def test_layer_outputs_with_several_inputs(how: str) -> None:
    network, inputs = several(torch.float32)
    names = ["left", "right", "kind", "joint", "head"]
    expected = hooked(network, names, lambda: network(**inputs))
    found = interpret.layer_outputs(*shaped(network, inputs, how), names)
    assert list(found) == names
    assert all(torch.equal(found[name], expected[name]) for name in names)
    parts = interpret.layer_outputs(*shaped(network, inputs, how), names, batch_size=4)
    for name in names:
        torch.testing.assert_close(parts[name], expected[name])


@by_name_or_place
def test_tracing_with_several_inputs(how: str) -> None:
    network, inputs = several(torch.float32)
    shapes: dict[str, Any] = {name: tuple(value.shape[1:]) for name, value in inputs.items()}
    shapes["mask"], shapes["kind"] = inputs["mask"], inputs["kind"]  # of other types than floats
    model, _ = shaped(network, inputs, how)
    traced = interpret.trace(model, shapes if how == "dict" else tuple(shapes.values()))
    assert {name: traced[name].output_shape for name in ("left", "joint", "head")} == {
        "left": (4, 9, 9), "joint": (6, 4, 4), "head": (5,)
    }  # fmt: skip
    # the others are constants, which leave the window of the image what it is
    field = traced["joint"].receptive_field
    assert field is not None and (field.size, field.stride) == ((5, 5), (2, 2))
    assert not traced["joint"].croppable
    assert traced.input_shape == (3, 11, 11)


class Items:
    """A data set of items with several inputs, as dicts or tuples."""

    classes = ("cat", "dog")

    def __init__(self, inputs: dict[str, Tensor], how: str) -> None:
        self.inputs, self.how = inputs, how

    def __len__(self) -> int:
        return len(self.inputs["image"])

    def __getitem__(self, item: int) -> Any:
        one = {name: value[item] for name, value in self.inputs.items()}
        one["kind"] = int(one["kind"])  # type: ignore[assignment]
        return one | {"label": item % 2} if self.how == "dict" else (*one.values(), item % 2)


class FiveByPlace(Several):
    def forward(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor, e: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(a, b, c, d, scale=e)


@by_name_or_place
@pytest.mark.parametrize("workers", [0, 2])
def test_items_of_a_data_set_that_hold_several_inputs(workers: int, how: str) -> None:
    network, inputs = several(torch.float32)
    model: nn.Module = network
    if how == "tuple":
        model = FiveByPlace().eval()
        model.load_state_dict(network.state_dict())
    items = Items(inputs, how)
    expected = interpret.mine(network, inputs, k=3)
    found = interpret.mine(model, items, k=3, workers=workers)
    for name in expected:
        np.testing.assert_array_equal(found[name].images, expected[name].images)
        np.testing.assert_allclose(found[name].values, expected[name].values, rtol=1e-6)
    means = found["head"].class_means
    assert means is not None
    np.testing.assert_allclose(means[1], network(**inputs)[1::2].mean(0).detach(), rtol=1e-5, atol=1e-6)
    outputs = interpret.layer_outputs(model, items, "joint")["joint"]
    torch.testing.assert_close(outputs, hooked(network, ["joint"], lambda: network(**inputs))["joint"])
    unit = found["joint"].unit(2)
    assert unit.patches.shape[1] == unit.projections("deconvnet").shape[1] == 3


def test_items_that_do_not_hold_what_the_network_takes() -> None:
    network, inputs = several(torch.float32)
    with pytest.raises(InterpretError, match=r"item 0 does not hold the inputs \['image', 'other', .* takes"):
        interpret.mine(network, Items({name: inputs[name] for name in ("image", "kind")}, "dict"))
    words = [(image, other, mask, "cat", scale) for image, other, mask, _, scale in zip(*inputs.values(), strict=True)]
    with pytest.raises(InterpretError, match="input 3 of item 0 is str: give it as a tensor or a number"):
        interpret.mine(network, words)


def test_several_inputs_are_refused_in_a_sentence_where_they_are_not_taken() -> None:
    network, inputs = several(torch.float32)
    for run in (interpret.predict, lambda *given: interpret.probe(*given, "rotation"), interpret.occlude):
        with pytest.raises(InterpretError, match=r"several inputs are taken by mine|images must be a float tensor"):
            run(network, inputs)
    with pytest.raises(InterpretError, match="first dimension of each counts the images"):
        interpret.mine(network, inputs | {"kind": inputs["kind"][:3]})
    with pytest.raises(InterpretError, match="unknown input 'left': choose from image, other"):
        interpret.project(network, inputs, "joint", 0, to="left")
    with pytest.raises(InterpretError, match=r"of the inputs \['mask'\], none is images"):
        interpret.project(network, inputs, "joint", 0, to="mask")
    for run in (interpret.mine, interpret.layer_outputs):
        with pytest.raises(InterpretError, match=r"\(Plain\) is not called on inputs 0 and 1 \(too many positional"):
            run(plain(), (images(), torch.arange(6)))
        with pytest.raises(InterpretError, match=r"is not called on .*\(missing a required argument: 'other'\)"):
            run(network, {"image": inputs["image"]})
        with pytest.raises(InterpretError, match=r"input of shape \(4, 11, 11\) has 4 channels, but layer 'left'"):
            run(network, inputs | {"image": torch.rand(9, 4, 11, 11)})
    with pytest.raises(InterpretError, match=r"more than one input.*'kind'.*call=lambda network, images"):
        interpret.mine(network, inputs["image"])


def test_a_layer_that_stays_behind_on_another_device() -> None:
    class HoldsAList(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("Expected all tensors to be on the same device, but found meta and cpu")

    sentence = r"the network \(HoldsAList\) holds tensors that do not move to meta with the network .* --device cpu"
    with pytest.raises(InterpretError, match=sentence):
        call_network(HoldsAList(), torch.zeros(1, 3, 8, 8, device="meta"))
