"""Weights that are computed from others: every analysis sees the current ones, and randomises what holds them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from interpret import filter_images, load, mine, project, sanity_check, summarise, trace
from interpret.analyses.attribution.target import TruncatedModel
from interpret.analyses.sanity.compute import layers_with_weights, randomise
from interpret.network.layers import select_layers
from interpret.network.model import hash_weights
from interpret.network.weights import copied, held_by, named_layers, weight_of
from interpret.tracing.connectivity import connect, trace_flow


class EqualisedRate:
    """A hook of one's own, as progressive GANs have it: scales the weight at run time."""

    def __call__(self, layer: nn.Module, _inputs: Any) -> None:
        layer.weight = layer.weight_orig * (2 / layer.weight_orig[0].numel()) ** 0.5

    @classmethod
    def apply(cls, layer: nn.Module) -> nn.Module:
        weight = layer.weight
        del layer._parameters["weight"]
        layer.register_parameter("weight_orig", nn.Parameter(weight.data))
        hook = cls()
        hook(layer, ())
        layer.register_forward_pre_hook(hook)
        return layer


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


def parametrized(layer: nn.Module) -> nn.Module:
    nn.utils.parametrize.register_parametrization(layer, "weight", Doubled())
    return layer


def quietly(function: Callable[[nn.Module], nn.Module]) -> Callable[[nn.Module], nn.Module]:
    def apply(layer: nn.Module) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is deprecated
            return function(layer)

    return apply


KINDS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "plain": lambda layer: layer,
    "weight norm": quietly(nn.utils.weight_norm),
    "spectral norm": quietly(nn.utils.spectral_norm),
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", amount=0.3),
    "hook of one's own": EqualisedRate.apply,
    "parametrized weight norm": parametrizations.weight_norm,
    "parametrized spectral norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "parametrization of one's own": parametrized,
}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


def network(kind: str, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    apply = KINDS[kind]
    found = nn.Sequential(
        apply(nn.Conv2d(3, 4, 3)), nn.ReLU(), apply(nn.Conv2d(4, 5, 3)), nn.ReLU(), nn.Flatten(),
        apply(nn.Linear(80, 6)),
    )  # fmt: skip
    if "spectral" in kind:  # whose estimate of the norm settles in training
        for _ in range(30):
            found(torch.zeros(1, 3, 8, 8))
    return found.eval()


@torch.no_grad()
def as_plain(module: nn.Sequential) -> nn.Sequential:
    """The same network with plain parameters, by what the layers use as they run."""
    module(torch.zeros(1, 3, 8, 8))
    plain = network("plain")
    for name in ("0", "2", "5"):
        plain.get_submodule(name).weight.copy_(module.get_submodule(name).weight)
        plain.get_submodule(name).bias.copy_(module.get_submodule(name).bias)
    return plain


def reloaded(kind: str) -> tuple[nn.Sequential, nn.Sequential]:
    """A network into which another's weights were loaded, not run since; and the plain one that it is equal to."""
    module, other = network(kind), network(kind, seed=1)
    module(torch.zeros(1, 3, 8, 8))
    module.load_state_dict(other.state_dict())
    return module, as_plain(copied(other))


def pictures(count: int = 3) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(2))


@EVERY_KIND
def test_filters_are_drawn_from_the_current_weights(kind: str) -> None:
    module, plain = reloaded(kind)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    for layer in ("0", "2"):
        np.testing.assert_allclose(filter_images(module, layer), filter_images(plain, layer), atol=1e-6)
    for name in ("0", "2", "5"):
        found = weight_of(module.get_submodule(name))
        torch.testing.assert_close(found, plain.get_submodule(name).weight.detach())
        assert not found.requires_grad
    # in training mode spectral norm would go on estimating
    module.train()
    torch.testing.assert_close(weight_of(module[0]), plain[0].weight.detach())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(layer.training for layer in module.modules())


@EVERY_KIND
def test_connections_are_those_of_the_current_weights(kind: str) -> None:
    module, plain = reloaded(kind)
    found, expected = (connect(one, trace_flow(one, (3, 8, 8)), ["0", "2", "5"]) for one in (module, plain))
    assert trace_flow(module, (3, 8, 8)).sources() == trace_flow(plain, (3, 8, 8)).sources()
    for name in ("0", "2", "5"):
        for field, right in vars(expected[name]).items():
            np.testing.assert_allclose(getattr(found[name], field), right, atol=1e-6)


@EVERY_KIND
def test_layers_are_the_authors(kind: str) -> None:
    module, plain = reloaded(kind)
    assert [name for name, _ in named_layers(module)] == ["", "0", "1", "2", "3", "4", "5"]
    assert select_layers(module, "*") == ["0", "2", "5"]
    traced, expected = trace(module, (3, 8, 8)), trace(plain, (3, 8, 8))
    assert list(traced) == list(expected)
    for name, layer in expected.items():
        found = traced[name]
        assert (found.kind, found.output_shape, found.receptive_field, found.leaf) == (
            layer.kind, layer.output_shape, layer.receptive_field, layer.leaf,
        )  # fmt: skip
        own = sum(parameter.numel() for parameter in module.get_submodule(name).parameters())
        assert found.params == own
    assert "Parametrized" not in summarise(module, (3, 8, 8))


@EVERY_KIND
def test_hashes_follow_the_weights(kind: str) -> None:
    module, other = network(kind), network(kind, seed=1)
    before = hash_weights(module)
    module(pictures())
    assert hash_weights(module) == before
    module.load_state_dict(other.state_dict())
    assert hash_weights(module) == hash_weights(other) != before


@EVERY_KIND
def test_mining_and_projecting_are_those_of_the_plain_network(kind: str) -> None:
    module, plain = reloaded(kind)
    images = pictures(6)
    found, expected = mine(module, images, "2", k=2)["2"], mine(plain, images, "2", k=2)["2"]
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found.images, expected.images)
    for rule in ("deconvnet", "guided", "gradient"):
        one, other = (project(each, images[:2], "2", 1, rule=rule).pixels for each in (module, plain))
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@EVERY_KIND
def test_networks_can_be_copied(kind: str) -> None:
    module, plain = reloaded(kind)
    images = pictures()
    twin = copied(module)
    torch.testing.assert_close(twin(images), plain(images))
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(0.5)
    assert not torch.allclose(twin(images), plain(images))
    torch.testing.assert_close(module(images), plain(images))


@EVERY_KIND
def test_randomising_changes_what_holds_the_weights(kind: str) -> None:
    module = network(kind)
    images = pictures()
    assert layers_with_weights(TruncatedModel(module, None), images) == ["0", "2", "5"]
    for name in ("5", "2", "0"):
        layer = module.get_submodule(name)
        before, sizes = weight_of(layer).clone(), {key: held.shape for key, held in held_by(layer).items()}
        answers = module(images).detach()
        randomise(layer, 3)
        after = weight_of(layer)
        assert (after != before).float().mean() > 0.5, "most weights are others"
        assert {key: held.shape for key, held in held_by(layer).items()} == sizes
        assert not torch.allclose(module(images), answers, rtol=0.01), "and the network uses them"
        # of the size of the trained ones: what spectral norm estimates belongs to the new weights
        assert 0.2 < float(after.norm() / before.norm()) < 5
        randomise(layer, 3)
    if "spectral" in kind:
        for name in ("0", "2", "5"):
            norm = torch.linalg.matrix_norm(weight_of(module.get_submodule(name)).flatten(1), 2)
            torch.testing.assert_close(norm, torch.ones(()), rtol=0.03, atol=0)


@EVERY_KIND
def test_a_sanity_check_sees_maps_change(kind: str) -> None:
    module = network(kind)
    before = copy.deepcopy(module.state_dict())
    check = sanity_check(module, pictures(2), ["gradient"], target=1, steps=None)
    assert check.steps == ["", "5", "2", "0"]
    assert (check.rank["gradient"][:, 1:] < 0.98).all() and (check.rank_signed["gradient"][:, 0] == 1).all()
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_network_that_is_loaded_and_never_run_is_drawn_as_it_is() -> None:
    module, plain = reloaded("weight norm")
    model = load(module)
    np.testing.assert_allclose(filter_images(model), filter_images(plain), atol=1e-6)
    mine(model, pictures(), "0")
    project(model, pictures(), "2", 1)
    stale = module[0].weight.detach()
    assert not torch.allclose(stale, plain[0].weight), "the attribute still holds the old weights: it was not touched"
