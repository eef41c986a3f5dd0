"""What changed between two checkpoints, beside a slow and literal count."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import interpret
from interpret import InterpretError, Mined, Result
from interpret.analyses.comparison.compute import average_overlap
from interpret.analyses.mining.result import MinedLayer


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.Flatten(), nn.Linear(5 * 36, 4)).eval()


@pytest.fixture
def before() -> nn.Module:
    return small()


@pytest.fixture
def after(before: nn.Module) -> nn.Module:
    """A network that a little training has changed, some units more than others."""
    later, generator = copy.deepcopy(before), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for number, parameter in enumerate(later.parameters()):
            change = torch.randn(parameter.shape, generator=generator) * parameter.std()
            parameter += change * torch.linspace(0, 0.2 + number / 8, len(parameter)).reshape(
                -1, *[1] * (change.dim() - 1)
            )
    return later


@pytest.fixture
def images() -> Tensor:
    return torch.rand(60, 3, 10, 10, generator=torch.Generator().manual_seed(2))


def literal(layer: nn.Module, other: nn.Module, images: Tensor, unit: int, k: int) -> tuple[float, int, int, float]:
    """Rank all images by the unit's maximum in either network, and count what is in common, depth by depth."""
    rankings, places, maxima = [], [], []
    for part in (layer, other):
        output = part(images)[:, unit].double().reshape(len(images), -1)
        values = output.amax(1).tolist()
        order = sorted(range(len(images)), key=lambda image: (-values[image], image))[:k]
        rankings.append(order)
        places.append({image: int(output[image].argmax()) for image in order})
        maxima.append(values)
    shares = []
    for depth in range(1, k + 1):
        shares.append(sum(image in rankings[1][:depth] for image in rankings[0][:depth]) / depth)
    both = [image for image in rankings[0] if image in rankings[1]]
    patches = sum(places[0][image] == places[1][image] for image in both)
    a, b = np.array(maxima)
    correlation = float(((a - a.mean()) * (b - b.mean())).mean() / (a.std() * b.std()))
    return sum(shares) / k, len(both), patches, correlation


@pytest.mark.parametrize("name", ["0", "2", "4"])
def test_it_is_what_a_literal_count_gives(before: nn.Module, after: nn.Module, images: Tensor, name: str) -> None:
    k, index = 7, int(name) + 1
    changes = interpret.compare(interpret.mine(before, images, k=k), interpret.mine(after, images, k=k))
    assert changes.layers == ["0", "2", "4"] and changes.k == k and changes.sample == len(images)
    found = zip(*(of[name] for of in (changes.overlap, changes.shared_images, changes.shared_patches)), strict=True)
    for unit, (overlap, shared, patches) in enumerate(found):
        expected = literal(before[:index], after[:index], images, unit, k)
        assert (overlap, shared, patches) == pytest.approx(expected[:3], abs=1e-12)
        assert changes.correlation[name][unit] == pytest.approx(expected[3], abs=1e-5)  # maxima are kept as float32
        strongest = float(after[:index](images)[:, unit].detach().max())
        assert changes.maximum_after[name][unit] == pytest.approx(strongest, rel=1e-5)
    assert 0 < np.mean(changes.overlap[name]) < 1  # a case that could go wrong


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([], [], 1.0),
        ([1], [], 0.0),
        ([1, 2, 3], [1, 2, 3], 1.0),
        ([1, 2, 3], [3, 2, 1], (0 + 1 / 2 + 1) / 3),
        ([1, 2, 3], [2, 3, 1], (0 + 1 / 2 + 1) / 3),
        ([1, 2, 3], [1, 8, 9], (1 + 1 / 2 + 1 / 3) / 3),
        ([1, 2, 3], [8, 9, 1], (0 + 0 + 1 / 3) / 3),  # a shared image at the end counts less
        ([1, 2], [1], (1 + 1 / 2) / 2),
    ],
)
def test_the_first_ranks_weigh_most(one: list[int], other: list[int], expected: float) -> None:
    assert average_overlap(one, other) == pytest.approx(expected, abs=1e-15)
    assert average_overlap(other, one) == average_overlap(one, other)


def test_a_network_has_not_changed_from_itself(before: nn.Module, images: Tensor) -> None:
    mined = interpret.mine(before, images)
    changes = interpret.compare(mined, mined)
    for name in mined:
        assert (changes.overlap[name] == 1).all() and (changes.shared_patches[name] == 9).all()
        np.testing.assert_allclose(changes.correlation[name], 1, atol=1e-12)


def test_the_units_that_changed_most_come_first(before: nn.Module, images: Tensor) -> None:
    after = copy.deepcopy(before)
    with torch.no_grad():
        after[0].weight[4] *= -1  # answers to the contrary
    changes = interpret.compare(interpret.mine(before, images), interpret.mine(after, images), "0", shown=2)
    assert changes.layers == ["0"] and changes.most_changed("0", most=1) == [("0", 4)]
    assert (np.delete(changes.overlap["0"], 4) == 1).all() and changes.correlation["0"][4] < 0.5
    assert (changes.shown_layers[0], changes.shown_units[0]) == ("0", 4) and len(changes.shown_units) == 2
    assert changes.pictures_before["0"].shape == changes.pictures_after["0"].shape == (9, 3, 3, 3)
    assert not np.array_equal(changes.pictures_before["0"], changes.pictures_after["0"])
    assert np.array_equal(changes.pictures_before["1"], changes.pictures_after["1"])
    table = changes.to_dataframe().sort_values("overlap")
    assert table.unit.iloc[0] == 4 and len(table) == 6


def test_a_unit_that_died_changed_as_far_as_can_be_and_one_that_was_dead_has_not(images: Tensor) -> None:
    before, after = small(), small()
    with torch.no_grad():
        for network, units in ((before, [0]), (after, [0, 3])):
            network[0].weight[units] = 0
            network[0].bias[units] = -1
    one, other = (interpret.mine(network, images, "1") for network in (before, after))
    changes = interpret.compare(one, other)
    assert changes.overlap["1"][[0, 3]].tolist() == [1, 0] and np.isnan(changes.correlation["1"][[0, 3]]).all()
    assert changes.dead_before["1"].tolist()[:4] == [True, False, False, False]
    assert changes.dead_after["1"].tolist()[:4] == [True, False, False, True]
    assert changes.most_changed(most=1) == [("1", 3)]


def test_samples_are_matched_by_their_images(before: nn.Module, after: nn.Module) -> None:
    images = torch.rand(400, 3, 10, 10)
    one, other = interpret.mine(before, images, "0", seed=0), interpret.mine(after, images, "0", seed=1)
    changes = interpret.compare(one, other)
    common = sorted(set(one.sample_images.tolist()) & set(other.sample_images.tolist()))
    assert changes.sample == len(common) < 256
    a, b = (network[0](images[common]).amax((2, 3)).detach().numpy() for network in (before, after))
    expected = [np.corrcoef(a[:, unit], b[:, unit])[0, 1] for unit in range(6)]
    np.testing.assert_allclose(changes.correlation["0"], expected, atol=1e-5)


def test_it_works_on_what_was_read_from_files(
    before: nn.Module, after: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    one, other = interpret.mine(before, images, k=5), interpret.mine(after, images, k=5)
    one.save(tmp_path / "1.safetensors")
    other.save(tmp_path / "2.safetensors")
    changes = interpret.compare(*(Mined.load(tmp_path / f"{number}.safetensors") for number in (1, 2)))
    direct = interpret.compare(one, other)
    assert all(np.array_equal(changes.overlap[name], direct.overlap[name]) for name in direct.layers)
    assert direct.shown_units and not changes.shown_units and changes._repr_png_()
    changes.save(tmp_path / "changes.safetensors")
    assert Result.load(tmp_path / "changes.safetensors").most_changed() == direct.most_changed()


def test_what_cannot_be_compared_is_refused(before: nn.Module, images: Tensor) -> None:
    mined = interpret.mine(before, images, k=3)
    with pytest.raises(InterpretError, match="mined on 'tensor' and after on other images"):
        interpret.compare(mined, interpret.mine(before, images + 1, k=3))
    wider = nn.Sequential(nn.Conv2d(3, 9, 3))
    with pytest.raises(InterpretError, match="layer '0' has 6 units before and 9 after"):
        interpret.compare(mined, interpret.mine(wider, images, k=3))
    with pytest.raises(InterpretError, match="no layer in common"):
        interpret.compare(mined, interpret.mine(nn.Sequential(nn.Identity(), nn.Conv2d(3, 2, 3)), images, k=3))
    with pytest.raises(InterpretError, match="unknown layer '7'"):
        interpret.compare(mined, mined, "7")
    with pytest.raises(InterpretError, match=r"after must be a result of interpret\.mine, not Sequential"):
        interpret.compare(mined, before)  # type: ignore[arg-type]
    with pytest.raises(InterpretError, match="unknown compared layer '7'"):
        interpret.compare(mined, mined).most_changed("7")
    assert isinstance(mined["0"], MinedLayer)


def test_two_networks_of_one_name_are_told_apart(before: nn.Module, after: nn.Module, images: Tensor) -> None:
    """Two checkpoints of a network of one's own have its class's name, both."""
    one, other = interpret.mine(before, images), interpret.mine(after, images)
    changes = interpret.compare(one, other)
    assert changes.title == "What changed in Sequential" and changes.sides == ("before", "after")
    assert "are the same before and after, and in the same order" in changes.reading
    other.model = "later"
    changes = interpret.compare(one, other)
    assert changes.title == "What changed from Sequential to later" and changes.sides == ("Sequential", "later")
    assert "are the same in Sequential and in later, and" in changes.reading
