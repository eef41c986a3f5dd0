"""Positions of tokens: literally, by coordinates that the network carries along, and by twins made of convolutions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import interpret
from interpret import InterpretError, mine, occlude, probe, project, trace
from interpret.analyses.projection.hit_projection import project_hits
from interpret.network.forward import collect_outputs
from interpret.network.layers import first_outputs
from interpret.tracing.receptive_field import ReceptiveField
from interpret.tracing.tracing import layouts_of, select_traced

Move = Callable[[Tensor], Tensor]


class Tokens(nn.Module):
    """A convolution, an arrangement of its map, a linear layer there, and an identity."""

    def __init__(self, arrange: Move, linear: nn.Module) -> None:
        super().__init__()
        self.conv, self.linear, self.head = nn.Conv2d(2, 2, 1, bias=False), linear, nn.Linear(2, 3)
        self.arrange = arrange

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(self.arrange(self.conv(x)))
        return self.head(x.reshape(len(x), 2, -1).mean(2))


def coordinates(height: int, width: int) -> Tensor:
    """Return an image whose two channels are the row and the column of each pixel."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([y, x])[None].float()


def arranged(arrange: Move, layer: nn.Module, height: int = 6, width: int = 4) -> Tensor | None:
    """Return the coordinates that arrive in a layer, as `first_outputs` gives them; None if its grid is not known."""
    network = Tokens(arrange, layer).eval()
    with torch.no_grad():
        for weight in (network.conv.weight, *layer.parameters()):
            weight.copy_(torch.eye(2).reshape(weight.shape) if weight.ndim > 1 else torch.zeros(2))
    traced = trace(network, (2, height, width))
    if traced["linear"].units is None:
        return None
    found: dict[str, Tensor] = {}
    image = coordinates(height, width)
    with torch.no_grad(), first_outputs(network, ["linear"], found.__setitem__, layouts=layouts_of(traced, ["linear"])):
        network(torch.cat([image, 3 * image]))
    assert traced["linear"].grid == found["linear"].shape[2:]
    assert torch.allclose(3 * found["linear"][:1], found["linear"][1:])  # those of each image together
    return found["linear"][:1]


def windows(x: Tensor, height: int = 3, width: int = 2) -> Tensor:
    """Return windows of tokens, [B·P, N, C]."""
    batch, channels, rows, columns = x.shape
    x = x.permute(0, 2, 3, 1).view(batch, rows // height, height, columns // width, width, channels)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, height * width, channels)


def joined(x: Tensor, rows: int = 6, columns: int = 4) -> Tensor:
    """Return the map [B, H, W, C] that was cut into windows of 3 × 2."""
    x = x.view(-1, rows // 3, columns // 2, 3, 2, x.shape[-1])
    return x.permute(0, 1, 3, 2, 4, 5).reshape(len(x), rows, columns, -1)


def patches(x: Tensor) -> Tensor:
    """Return tokens [B·P, N, C] of MobileViT: the pixels of a patch in P, the patches in N."""
    batch, channels, rows, columns = x.shape
    x = x.reshape(batch * channels * rows // 2, 2, columns // 2, 2).transpose(1, 2)
    x = x.reshape(batch, channels, rows * columns // 4, 4).transpose(1, 3)
    return x.reshape(batch * 4, rows * columns // 4, channels)


@pytest.mark.parametrize(
    "arrange",
    [
        lambda x: x.flatten(2).transpose(1, 2),
        lambda x: x.flatten(2).mT,
        lambda x: x.view(len(x), 2, -1).permute(0, 2, 1),
        lambda x: x.permute(0, 2, 3, 1).reshape(len(x), -1, 2),
        lambda x: x.permute(0, 2, 3, 1),
        lambda x: torch.einsum("bchw->bhwc", x).flatten(1, 2),
        lambda x: x.flatten(2).unflatten(2, (6, 4)).permute(0, 2, 3, 1),
        lambda x: (
            x.flatten(2).transpose(1, 2).reshape(len(x), 24, 2, 1).permute(2, 0, 1, 3).unbind(3)[0].permute(1, 2, 0)
        ),
        lambda x: x[:, :, ::2, 1:].flatten(2).transpose(1, 2) * 1.0,  # a part of the grid is a grid
        lambda x: F.pad(x, (0, 2, 0, 3)).flatten(2).transpose(1, 2)[:, :36],
        lambda x: x.flatten(2).transpose(1, 2) + torch.zeros(24, 2),
        lambda x: x.flatten(2).transpose(1, 2)[:, None].flatten(0, 1),
        lambda x: torch.cat([x[:, :1], x[:, 1:]], 1).flatten(2).transpose(1, 2).contiguous(),
        lambda x: torch.stack([*x.flatten(2).transpose(1, 2).unbind(2)], 2),
        lambda x: (
            x.flatten(2).transpose(1, 2).split([1, 1], 2)[0].expand(-1, -1, 2) * torch.tensor([1.0, 0.0])
            + x.flatten(2).transpose(1, 2) * torch.tensor([0.0, 1.0])
        ),
        lambda x: F.layer_norm(x.flatten(2).transpose(1, 2), (2,)) * 0 + x.flatten(2).transpose(1, 2),
        lambda x: x.transpose(2, 3).flatten(2).transpose(1, 2),  # column by column
        lambda x: x.reshape(len(x), 2, 3, 2, 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(len(x), 6, 4, 2),
        windows,
        patches,
        lambda x: x.flatten(2).transpose(1, 2).reshape(-1, 1, 2),
        lambda x: windows(x).unflatten(1, (3, 2)),
        lambda x: joined(windows(x)),
        lambda x: joined(windows(x)).flatten(1, 2),
        lambda x: windows(x.roll((-1, -3), (2, 3))),  # shifted windows
        lambda x: joined(windows(x.roll((-1, 1), (2, 3)))).roll((1, -1), (1, 2)),
        lambda x: joined(windows(x.roll((-1, 1), (2, 3)))),
        lambda x: windows(F.pad(x, (0, 2, 0, 3))),
        lambda x: windows(F.pad(x.roll((-1, -1), (2, 3)), (0, 2, 0, 3))),
        lambda x: joined(windows(F.pad(x, (0, 2, 0, 3))), 9, 6)[:, :6, :4],
        lambda x: x.flip(3).flatten(2).mT,
        lambda x: ((w := windows(x)) @ w.mT).softmax(-1).mul(0) @ w + w,  # attention
        lambda x: windows(x).view(len(x), 4, 6, 2) + torch.zeros(4, 1, 1),
    ],
)
def test_coordinates_arrive_at_their_positions(arrange: Move) -> None:
    found = arranged(arrange, nn.Linear(2, 2))
    assert found is not None
    rows, columns = found.shape[2:]
    step, begin = (2, 1) if rows == 3 else (1, 0)
    assert (rows, columns) in ((6, 4), (3, 3), (9, 6), (6, 6))
    expected = coordinates(rows, columns) * torch.tensor([step, 1]).reshape(1, 2, 1, 1)
    expected = expected + torch.tensor([0, begin]).reshape(1, 2, 1, 1)
    inside = (expected[:, :1] < 6) & (expected[:, 1:] < 4)
    assert torch.equal(found, expected * inside)  # zeros of the padding


@pytest.mark.parametrize(
    "arrange",
    [
        lambda x: x.flatten(2),  # [B, C, N]
        lambda x: x.flatten(2)[..., None],
        lambda x: x,
    ],
)
def test_units_may_come_before_the_tokens(arrange: Move) -> None:
    found = arranged(
        arrange, nn.BatchNorm1d(2, affine=False) if arrange(torch.zeros(1, 2, 2, 2)).dim() == 3 else nn.ReLU()
    )
    assert found is not None and torch.allclose(found, coordinates(6, 4), rtol=1e-4)


@pytest.mark.parametrize(
    "arrange",
    [
        lambda x: torch.cat([x.new_zeros(len(x), 1, 2), x.flatten(2).transpose(1, 2)], 1),  # a class token
        lambda x: x.flatten(2).transpose(1, 2)[:, [*range(12, 24), *range(12)]],
        lambda x: x.flatten(2).transpose(1, 2).flip(1),
        lambda x: x.flatten(2) @ torch.ones(24, 2),  # a token for each channel
        lambda x: torch.ones(7, 24) @ x.flatten(2).transpose(1, 2),  # other tokens
        lambda x: F.pad(x.flatten(2), (1, 1)).transpose(1, 2),
        lambda x: x.flatten(2).transpose(1, 2)[:, :23],
        lambda x: torch.fft.fft(x.flatten(2).transpose(1, 2)).real,  # not followed
        lambda x: torch.from_numpy(x.detach().numpy()).flatten(2).transpose(1, 2),
    ],
)
def test_tokens_that_are_no_known_grid_are_left_out(arrange: Move) -> None:
    torch.manual_seed(0)
    network = Tokens(arrange, nn.Linear(2, 2)).eval()
    traced = trace(network, (2, 6, 4))
    assert traced["linear"].units is None and traced["linear"].grid is None
    assert select_traced(network, traced) == ["conv", "head"]
    images = torch.rand(3, 2, 6, 4)
    assert list(mine(network, images, k=1)) == list(mine(network, images, "*", k=1)) == ["conv", "head"]
    for run in (
        lambda: mine(network, images, "linear"),
        lambda: project(network, images, "linear", 0),
        lambda: probe(network, images, "translation", layers="linear"),
        lambda: occlude(network, images, size=2, stride=2, layer="linear"),
    ):
        with pytest.raises(InterpretError, match="the positions of layer 'linear' are no known grid"):
            run()


def test_linear_layers_on_patches_are_units_on_the_grid_of_patches() -> None:
    """As in vision transformers that embed patches by a linear layer, such as Gemma's."""
    network = Tokens(lambda x: x.view(len(x), 2, 3, 2, 2, 2).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2),
                     nn.Linear(8, 2)).eval()  # fmt: skip
    layer = trace(network, (2, 6, 4))["linear"]
    assert layer.grid == (3, 2) and layer.receptive_field == ReceptiveField((2, 2), (2, 2), (0, 0))
    assert list(mine(network, torch.rand(2, 2, 6, 4), k=1)) == ["conv", "linear", "head"]


@pytest.mark.parametrize(
    "arrange",
    [
        lambda x: windows(x)[:4],
        lambda x: windows(x).unflatten(0, (len(x), 4)).transpose(0, 1).flatten(0, 1),  # the first windows of all images
        lambda x: windows(x)[:, ::2],
    ],
)
def test_parts_that_are_not_those_of_one_image_after_another_are_left_out(arrange: Move) -> None:
    network = Tokens(arrange, nn.Linear(2, 2)).eval()
    traced = trace(network, (2, 6, 4))
    assert not traced["linear"].batched and "linear" not in select_traced(network, traced)
    with pytest.raises(InterpretError, match="layer 'linear' does not return one row for each image"):
        project(network, torch.rand(3, 2, 6, 4), "linear", 0)


# ---- twins -----------------------------------------------------------------------------------------------------------


class Attends(nn.Module):
    """Self-attention of several heads over tokens, or over a map with 1×1 convolutions of the same weights."""

    def __init__(self, as_map: bool) -> None:
        super().__init__()
        self.as_map = as_map

        def layer(inputs: int, outputs: int) -> nn.Module:
            return nn.Conv2d(inputs, outputs, 1) if as_map else nn.Linear(inputs, outputs)

        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.first, self.qkv, self.proj, self.fc = layer(8, 8), layer(8, 24), layer(8, 8), layer(8, 6)
        self.down, self.head = nn.Conv2d(6, 4, 3, stride=2), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        height, width = x.shape[2:]
        x = self.first(x if self.as_map else x.flatten(2).transpose(1, 2)).relu()
        qkv = self.qkv(x)
        tokens = qkv.flatten(2).transpose(1, 2) if self.as_map else qkv
        q, k, v = tokens.reshape(len(x), -1, 3, 2, 4).permute(2, 0, 3, 1, 4)
        mixed = ((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).flatten(2)
        if self.as_map:
            mixed = mixed.transpose(1, 2).unflatten(2, (height, width))
        x = self.fc(x + self.proj(mixed)).relu()
        x = x if self.as_map else x.transpose(1, 2).reshape(len(x), 6, height, width)
        return self.head(self.down(x).relu().mean((2, 3)))


@pytest.fixture(scope="module")
def twins() -> tuple[nn.Module, nn.Module]:
    """The same network with linear layers on tokens, and with 1×1 convolutions on maps."""
    torch.manual_seed(0)
    tokens, maps = Attends(as_map=False).double().eval(), Attends(as_map=True).double().eval()
    maps.load_state_dict(
        {
            name: value[..., None, None] if value.dim() == 2 and not name.startswith("head") else value
            for name, value in tokens.state_dict().items()
        }
    )
    return tokens, maps


IMAGES = torch.rand(4, 3, 20, 28, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
LAYERS = ["first", "qkv", "proj", "fc"]


def test_tokens_have_the_grid_and_the_windows_of_maps(twins: tuple[nn.Module, nn.Module]) -> None:
    tokens, maps = (trace(one, (3, 20, 28)) for one in twins)
    for name in LAYERS:
        assert tokens[name].grid == maps[name].grid == (10, 14)
        assert tokens[name].receptive_field == maps[name].receptive_field
        assert tokens[name].local_field == maps[name].local_field
    assert tokens["first"].receptive_field is not None and tokens["first"].axes == (-2, -2)
    assert tokens["proj"].receptive_field is None and tokens["down"].grid == (4, 6)


def test_tokens_are_mined_as_maps_are(twins: tuple[nn.Module, nn.Module]) -> None:
    tokens, maps = (mine(one, IMAGES, k=3) for one in twins)
    assert list(tokens) == list(maps)
    for name in tokens:
        for part in ("images", "positions", "dead", "density"):
            assert np.array_equal(getattr(tokens[name], part), getattr(maps[name], part)), (name, part)
        assert np.allclose(tokens[name].values, maps[name].values, rtol=1e-6)


@pytest.mark.parametrize("rule", ["deconvnet", "guided", "gradient"])
def test_tokens_are_projected_as_maps_are(
    twins: tuple[nn.Module, nn.Module], rule: interpret.backprop.rules.RuleName
) -> None:
    for name in LAYERS:
        at = [None, [(0, 3), (9, 13), (4, 0), (2, 2)]][name == "first"]
        one, other = (project(network, IMAGES, name, 5, at, rule) for network in twins)
        assert torch.equal(one.boxes, other.boxes) and torch.equal(one.positions, other.positions)
        assert torch.allclose(one.pixels, other.pixels, rtol=1e-9, atol=1e-12)


def test_hits_of_tokens_are_projected_as_those_of_maps(twins: tuple[nn.Module, nn.Module]) -> None:
    found = []
    for network in twins:
        mined = mine(network, IMAGES, LAYERS, k=2)
        sheet = {}
        for batch in project_hits(network, IMAGES, mined):
            for unit, rank, own in zip(batch.units, batch.ranks, batch.projections, strict=True):
                sheet[batch.layer, int(unit), int(rank)] = own
        found.append(sheet)
    assert found[0].keys() == found[1].keys()
    for key, own in found[0].items():
        assert torch.allclose(own, found[1][key], rtol=1e-9, atol=1e-12)


def test_tokens_are_probed_and_occluded_as_maps_are(twins: tuple[nn.Module, nn.Module]) -> None:
    one, other = (probe(network, IMAGES, "translation", [-2, 0, 3], LAYERS) for network in twins)
    for name in LAYERS:
        assert np.allclose(one.distances[name], other.distances[name], rtol=1e-9)
        assert np.allclose(one.equivariance[name], other.equivariance[name], rtol=1e-9, equal_nan=True)
    one, other = (occlude(network, IMAGES[:1], size=6, stride=6, layer="fc") for network in twins)
    assert np.allclose(one.activations, other.activations, rtol=1e-6)
    assert occlude(twins[0], IMAGES[:1], size=6, stride=6).layer == "down"


class InWindows(nn.Module):
    """Layers of the same weights on tokens in shifted windows [B·P, N, C], or on a map."""

    def __init__(self, as_map: bool) -> None:
        super().__init__()
        self.as_map = as_map
        self.stem, self.down, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(5, 4, 3), nn.Linear(4, 3)
        self.fc1, self.fc2 = (nn.Conv2d(4, 6, 1), nn.Conv2d(6, 5, 1)) if as_map else (nn.Linear(4, 6), nn.Linear(6, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        if self.as_map:
            x = self.fc2(self.fc1(x).relu())
        else:
            x = self.fc2(self.fc1(windows(x.roll((-2, -1), (2, 3)))).relu())
            x = joined(x, 12, 8).roll((2, 1), (1, 2)).permute(0, 3, 1, 2)
        return self.head(self.down(x.relu()).mean((2, 3)))


@pytest.fixture(scope="module")
def in_windows() -> tuple[nn.Module, nn.Module]:
    """The same network with tokens in windows, and with maps."""
    torch.manual_seed(0)
    tokens, maps = InWindows(as_map=False).double().eval(), InWindows(as_map=True).double().eval()
    weights = tokens.state_dict()
    maps.load_state_dict({name: weights[name].reshape(own.shape) for name, own in maps.state_dict().items()})
    return tokens, maps


SMALL = torch.rand(4, 3, 12, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_tokens_in_windows_are_mined_as_maps_are(in_windows: tuple[nn.Module, nn.Module]) -> None:
    tokens, maps = (mine(one, SMALL, k=3) for one in in_windows)
    assert list(tokens) == list(maps) == ["stem", "down", "head", "fc1", "fc2"]
    for name in tokens:
        assert np.array_equal(tokens[name].images, maps[name].images)
        assert np.array_equal(tokens[name].positions, maps[name].positions)
        assert np.allclose(tokens[name].values, maps[name].values, rtol=1e-6)


@pytest.mark.parametrize("rule", ["deconvnet", "guided", "gradient"])
def test_tokens_in_windows_are_projected_as_maps_are(
    in_windows: tuple[nn.Module, nn.Module], rule: interpret.backprop.rules.RuleName
) -> None:
    for at in (None, [(0, 3), (11, 7), (4, 0), (2, 2)]):
        one, other = (project(network, SMALL, "fc2", 4, at, rule) for network in in_windows)
        assert torch.equal(one.positions, other.positions)
        assert torch.allclose(one.full((12, 8)), other.full((12, 8)), rtol=1e-9, atol=1e-12)


def test_tokens_in_windows_are_probed_and_occluded_as_maps_are(in_windows: tuple[nn.Module, nn.Module]) -> None:
    one, other = (probe(network, SMALL, "translation", [-2, 0, 3], ["fc1", "fc2"]) for network in in_windows)
    assert all(np.allclose(one.distances[name], other.distances[name], rtol=1e-9) for name in ("fc1", "fc2"))
    one, other = (occlude(network, SMALL[:1], size=4, stride=4, layer="fc2") for network in in_windows)
    assert np.allclose(one.activations, other.activations, rtol=1e-6)


def test_tokens_have_neighbours_as_maps_have(twins: tuple[nn.Module, nn.Module]) -> None:
    one, other = (interpret.find_neighbours(network, [0, 2], IMAGES, "fc", 2) for network in twins)
    assert np.array_equal(one.items, other.items) and np.allclose(one.distances, other.distances)


def test_tokens_are_optimised_as_maps_are(twins: tuple[nn.Module, nn.Module]) -> None:
    preprocess = interpret.Preprocess((20, 28), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    models = [interpret.load(network, preprocess=preprocess) for network in twins]
    for layer in ("proj", "fc"):
        one, other = (interpret.synthesise(model, layer, [2], kind="neuron", steps=3) for model in models)
        assert np.allclose(one.values, other.values, rtol=1e-4) and one.values.any()


@pytest.mark.slow
def test_tokens_get_pages_as_maps_do(twins: tuple[nn.Module, nn.Module], tmp_path: Path) -> None:
    pages = []
    for place, network in enumerate(twins):
        study = interpret.Study(tmp_path / f"{place}.study", interpret.load(network), IMAGES.clone())
        study.mine(k=2)
        study.project()
        study.find_activation_range_examples()
        out = interpret.write_gallery(study, tmp_path / f"{place}").parent
        pages.append({page.relative_to(out) for page in out.rglob("*.html")})
        assert (out / "layers/fc/5.html").exists() and study.tile("first") == 3
        assert study.layer("fc")["grid"] == [10, 14]
    assert pages[0] == pages[1]


def test_outputs_by_name_stay_as_the_layer_returns_them(twins: tuple[nn.Module, nn.Module]) -> None:
    assert interpret.layer_outputs(twins[0], IMAGES, "fc")["fc"].shape == (4, 140, 6)
    assert collect_outputs(twins[0], IMAGES, ["fc"])["fc"].shape == (4, 6, 140)
