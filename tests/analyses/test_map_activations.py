"""Activation atlases: which activations are taken, which cells they fill, and for which directions images are made."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import interpret
from interpret import ActivationAtlas, InterpretError, Model
from interpret.analyses.synthesis.map_activations import map_activations

RANDOM = torch.Generator().manual_seed(0)
GREY = torch.rand(30, 3, 1, 1, generator=RANDOM)
IMAGES = (GREY + 0.2 * torch.rand(30, 3, 12, 12, generator=RANDOM)).clamp(0, 1)


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3))


def first_two(activations: Any) -> Any:
    return activations[:, :2]


def test_cells_hold_the_activations_that_lie_in_them() -> None:
    model = Model(small(), "small", classes=("a", "b", "c"))
    found = map_activations(model, IMAGES, "0", grid=3, fewest=2, steps=2, layout=first_two, seed=4)
    with torch.no_grad():
        maps, scores = model.module[0](IMAGES), model.module(IMAGES)
    taken = torch.stack([maps[item, :, y, x] for item, (y, x) in zip(found.items, found.positions, strict=True)])
    assert found.items.tolist() == list(range(30))
    # a map of 10 × 10: no position at the border, and not always the same
    assert found.positions.min() >= 1 and found.positions.max() <= 8 and len(np.unique(found.positions, axis=0)) > 15
    literal = taken[:, :2].double().numpy()
    low, high = np.percentile(literal, [1, 99], axis=0)
    places = np.clip((literal - low) / (high - low), 0, 1)
    np.testing.assert_allclose(found.layout, places, atol=1e-5)
    inside: dict[tuple[int, int], list[int]] = {}
    for row, (y, x) in enumerate(places):
        inside.setdefault((min(int(3 * y), 2), min(int(3 * x), 2)), []).append(row)
    enough = {cell: rows for cell, rows in inside.items() if len(rows) >= 2}
    assert {(y, x): count for (y, x), count in zip(found.cells.tolist(), found.counts, strict=True)} == {
        cell: len(rows) for cell, rows in enough.items()
    }
    for (y, x), label, share in zip(found.cells.tolist(), found.labels, found.label_shares, strict=True):
        votes = scores[enough[y, x]].argmax(1).tolist()
        assert votes.count("abc".index(label)) == max(map(votes.count, votes))
        assert share == max(map(votes.count, votes)) / len(votes)


class Colours(nn.Module):
    """Three channels, each of which is the mean of one colour."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.Conv2d(3, 3, 3, bias=False)
        self.pool.weight = nn.Parameter(torch.eye(3)[:, :, None, None].expand(3, 3, 3, 3) / 9)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x)


def test_images_are_made_for_what_a_cell_has_more_of_than_others() -> None:
    """Of red, green and blue pictures on a map with a cell for each, the images are red, green and blue."""
    colours = torch.eye(3).repeat(10, 1)
    pictures = 0.2 + 0.6 * colours[:, :, None, None].expand(-1, -1, 9, 9) + 0.05 * torch.rand(30, 3, 9, 9)
    corners = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0]])

    def by_colour(activations: Any) -> Any:
        return corners[activations.argmax(1)]

    found = map_activations(Colours(), pictures, "pool", grid=2, steps=160, layout=by_colour)
    assert found.cells.tolist() == corners.astype(int).tolist() and found.counts.tolist() == [10, 10, 10]
    assert found.pictures.mean((1, 2)).argmax(1).tolist() == [0, 1, 2]
    assert (found.pictures.mean((1, 2)).max(1) - found.pictures.mean((1, 2)).min(1) > 30).all()
    assert found.labels == ["", "", ""]


def test_like_activations_lie_together_and_it_is_the_same_again() -> None:
    pytest.importorskip("sklearn")
    pictures = torch.cat([torch.rand(25, 3, 8, 8) * 0.3, 0.7 + 0.3 * torch.rand(25, 3, 8, 8)])
    found, again = (map_activations(Colours(), pictures, "pool", grid=3, steps=2) for _ in range(2))
    assert np.array_equal(found.pictures, again.pictures) and np.array_equal(found.layout, again.layout)
    distances = np.linalg.norm(found.layout[:, None] - found.layout[None], axis=2) + 9 * np.eye(50)
    dark = found.items < 25
    assert (dark[distances.argmin(1)] == dark).mean() > 0.95


def test_it_comes_back_from_its_file(tmp_path: Any) -> None:
    found = map_activations(small(), IMAGES, "0", grid=2, steps=1, layout=first_two)
    found.save(tmp_path / "atlas.safetensors")
    again = ActivationAtlas.load(tmp_path / "atlas.safetensors")
    assert again.grid == (2, 2) and np.array_equal(again.pictures, found.pictures)
    assert again.settings == found.settings and again.settings["layout"] == "first_two"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"layer": "9"}, "unknown layer '9'"),
        ({"grid": 0}, "grid must be at least 1"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"samples": 3}, "images has 3 that can be read, and a map needs at least 8: give more"),
        ({"fewest": 25, "grid": 5}, "no cell has 25 activations: give a smaller grid"),
        ({"layout": lambda found: found}, r"layout must return one finite place for each activation, \[30, 2\], not"),
        ({"layout": lambda found: [0.0, "far"]}, "layout must return one place for each activation"),
    ],
)
def test_bad_input_is_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InterpretError, match=said):
        map_activations(small(), IMAGES, **{"layer": "0", "layout": first_two, "steps": 1} | arguments)


def test_it_is_public() -> None:
    assert interpret.map_activations is map_activations


def test_labels_are_whole_and_touch_no_other() -> None:
    from interpret.analyses.synthesis.atlas_figure import labels_that_fit
    from interpret.figures.lettering import width_of

    random = np.random.default_rng(0)
    cells = np.argwhere(np.ones((16, 16)))
    names = ["movable home", "cellular telephone", "dam", "curly-coated retriever", "jay"]
    labels = [names[number] if number < 5 else f"class {number}" for number in random.integers(0, 200, 256)]
    atlas = ActivationAtlas("net", "conv", (16, 16), cells, random.integers(3, 9, 256),
                            np.zeros((256, 4, 4, 3), np.uint8), np.ones(256), labels, random.random(256))  # fmt: skip
    found = labels_that_fit(atlas, 0.4, 16 * 0.44)
    written = [atlas.labels[row] for row, _ in found]
    assert len(set(written)) == len(written) > 30
    predicted = atlas.counts * atlas.label_shares
    assert all(predicted[row] == max(p for p, name in zip(predicted, labels, strict=True) if name == labels[row])
               for row, _ in found)  # fmt: skip
    ends = sorted((int(cells[row][0]), left, left + width_of(labels[row])) for row, left in found)
    assert all(one[0] != other[0] or one[2] < other[1] for one, other in pairwise(ends))
    assert all(left >= 0 and right <= 16 * 0.44 for _, left, right in ends)
