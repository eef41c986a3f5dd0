"""Public functions: the same names mean the same everywhere, and each says by an example how it is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import interpret
from interpret.analyses.attribution.settings import Settings
from interpret.execution.batch_size import LARGEST_BATCH, batch_size_for
from interpret.support.errors import InterpretError

FUNCTIONS = [name for name in interpret.__all__ if inspect.isfunction(getattr(interpret, name))]
CLASSES = [name for name in interpret.__all__ if inspect.isclass(getattr(interpret, name))]
METHODS = [
    f"{name}.{method}"
    for name in CLASSES
    for method, value in vars(getattr(interpret, name)).items()
    if inspect.isfunction(value) and (not method.startswith("_") or method == "__init__")
]
RUN_IN_BATCHES = [
    "attribute", "compare_methods", "correspond", "effective_receptive_field", "evolve", "find_neighbours", "invert",
    "layer_outputs", "map_activations", "mine", "occlude", "predict", "probe", "project", "sanity_check", "synthesise",
]  # fmt: skip
RUN_ONE_IMAGE = ["feature_maps"]
"""Which have a device, and no batch."""
DEVICE = "str | torch.device | None"
LAYERS = "str | Iterable[str] | None"


def parameters(name: str) -> dict[str, inspect.Parameter]:
    value: Any = interpret
    for part in name.split("."):
        value = getattr(value, part)
    return dict(inspect.signature(value).parameters)


@pytest.mark.parametrize("name", FUNCTIONS + METHODS)
def test_no_signature_takes_whatever_comes(name: str) -> None:
    assert not [one for one in parameters(name).values() if one.kind is inspect.Parameter.VAR_KEYWORD]


@pytest.mark.parametrize("name", FUNCTIONS + METHODS)
def test_devices_batches_and_layers_are_called_alike(name: str) -> None:
    found = parameters(name)
    for alias in ("batch", "batchsize", "bs", "dev", "where", "layer_names"):
        assert alias not in found
    if "device" in found:
        device = found["device"]
        assert (device.kind, device.default, device.annotation) == (device.KEYWORD_ONLY, None, DEVICE)
    if "batch_size" in found:
        size = found["batch_size"]
        assert (size.kind, size.default, size.annotation) == (size.KEYWORD_ONLY, None, "int | None")
    if "layers" in found and name not in ("Mined.__init__", "Inversions.__init__"):
        layers = found["layers"]
        assert (layers.kind, layers.default, layers.annotation) == (layers.POSITIONAL_OR_KEYWORD, None, LAYERS)


def test_what_runs_a_network_takes_a_device_and_a_batch_size() -> None:
    runs = [name for name in FUNCTIONS if "device" in parameters(name)]
    assert set(runs) - {"train", *RUN_ONE_IMAGE} <= set(RUN_IN_BATCHES)
    for name in set(RUN_IN_BATCHES) & set(FUNCTIONS):
        assert {"device", "batch_size"} <= parameters(name).keys(), name
    for name in RUN_ONE_IMAGE:
        assert "device" in parameters(name) and "batch_size" not in parameters(name)
    text = inspect.getdoc(interpret) or ""
    assert "**`device`**" in text and "**`batch_size`**" in text and "**`layers`**" in text


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_shows_how_it_is_called(name: str) -> None:
    assert ">>> " in (inspect.getdoc(getattr(interpret, name)) or ""), name


def test_the_settings_of_attribution_are_named_and_have_one_default_each() -> None:
    defaults = {name: getattr(Settings, name) for name in Settings.__dataclass_fields__}
    for name in ("attribute", "compare_methods", "sanity_check"):
        found = parameters(name)
        for setting, default in defaults.items():
            assert found[setting].default == default, (name, setting)


def test_how_many_images_go_together() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("meta")
    assert batch_size_for(None, 224 * 224, cpu) == 8 and batch_size_for(None, 448 * 448, cpu) == 2
    assert batch_size_for(None, 28 * 28, cpu) == batch_size_for(None, 448 * 448, gpu) == LARGEST_BATCH == 32
    assert batch_size_for(7, 28 * 28, cpu) == batch_size_for(7, 448 * 448, gpu) == 7
    with pytest.raises(InterpretError, match="batch_size must be at least 1, not 0"):
        batch_size_for(0, 1, cpu)


class Counting(nn.Module):
    """A network that remembers how many images came at once."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4 * 64, 5)
        self.most = 0

    def forward(self, x: Tensor) -> Tensor:
        self.most = max(self.most, len(x))
        return self.head(self.conv(x).relu().flatten(1))


CALLS: dict[str, Callable[[nn.Module, Tensor, Any], Any]] = {
    "attribute": lambda net, x, how: interpret.attribute(net, x, "guided", **how).maps,
    "compare_methods": lambda net, x, how: interpret.compare_methods(net, x, ["gradient"], **how).maps["gradient"],
    "correspond": lambda net, x, how: interpret.correspond(net, x, {"a": (0, 0, 4, 4)}, "head", **how).scores["head"],
    "invert": lambda net, x, how: interpret.invert(net, x, "conv", steps=2, **how).errors,
    "map_activations": lambda net, x, how: (
        interpret.map_activations(
            net, torch.cat([x, x]), "conv", grid=1, steps=2, fewest=1, layout=lambda found: found[:, :2], **how
        ).values
    ),
    "mine": lambda net, x, how: interpret.mine(net, x, k=2, **how)["conv"].values,
    "occlude": lambda net, x, how: interpret.occlude(net, x, size=4, stride=4, **how).probabilities,
    "predict": lambda net, x, how: interpret.predict(net, x, k=2, **how).probabilities,
    "project": lambda net, x, how: interpret.project(net, x, "head", 1, **how).pixels,
    "sanity_check": lambda net, x, how: interpret.sanity_check(net, x, ["gradient"], **how).rank["gradient"],
    "synthesise": lambda net, x, how: interpret.synthesise(net, "conv", [0, 1, 3], natural=x, steps=2, **how).values,
}


@pytest.mark.parametrize("name", CALLS)
def test_batches_are_no_larger_than_asked_and_change_nothing_but_rounding(name: str) -> None:
    torch.manual_seed(0)
    network, images = Counting().eval(), torch.rand(7, 3, 10, 10)
    at_once = CALLS[name](network, images, {})
    network.most = 0
    in_parts = CALLS[name](network, images, {"batch_size": 2, "device": "cpu"})
    assert 1 <= network.most <= 2
    torch.testing.assert_close(torch.as_tensor(in_parts), torch.as_tensor(at_once), rtol=1e-4, atol=1e-5)
    with pytest.raises(InterpretError, match="batch_size must be at least 1, not 0"):
        CALLS[name](network, images, {"batch_size": 0})
