"""Analyses of a sample of the images leave out those that do not decode, also where these fill a batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import interpret
from interpret import Model
from interpret.images.batches import read_parts
from interpret.network.preprocess import Preprocess
from interpret.support.errors import InterpretError

DAMAGED = (0, 1, 3, 11)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures, of which the first two, the fourth and the last do not decode."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.RandomState(0)
    for number in range(12):
        path = folder / f"{number:02d}.png"
        Image.fromarray(random.randint(0, 256, (12, 12, 3), np.uint8)).save(path)
        if number in DAMAGED:
            path.write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    return Model(network, "small", preprocess=Preprocess((12, 12)))


def test_items_are_read_in_the_given_parts(pictures: Path, model: Model) -> None:
    images = interpret.open_images(pictures, model)
    parts = [batch.items.tolist() for batch in read_parts(images, [[0, 1], [2, 3, 4], np.array([11]), np.array([5])])]
    assert parts == [[2, 4], [5]]
    assert list(images.skipped) == ["00.png", "01.png", "03.png", "11.png"]
    with pytest.raises(InterpretError, match="none of the 4 images"):
        list(read_parts(images, [[0], [11]]))


def test_an_atlas_leaves_them_out(pictures: Path, model: Model) -> None:
    one, all_at_once = (
        interpret.map_activations(
            model, pictures, "2", grid=2, steps=2, fewest=1, batch_size=size, layout=lambda found: found[:, :2]
        )
        for size in (1, 12)
    )
    assert one.items.tolist() == all_at_once.items.tolist() == [2, 4, 5, 6, 7, 8, 9, 10]
    assert one.counts.sum() == 8 and np.allclose(one.layout, all_at_once.layout, atol=1e-5)


def test_the_strongest_natural_image_is_found_beside_them(pictures: Path, model: Model) -> None:
    made = interpret.synthesise(model, "2", [0, 3], natural=pictures, steps=2, batch_size=1)
    readable = [number for number in range(12) if number not in DAMAGED]
    images = interpret.open_images(pictures, model)
    with torch.no_grad():
        maps = model(torch.stack([images[number][0] for number in readable]))[:, [0, 3]].flatten(2)
    assert np.allclose(made.natural_values, maps.amax((0, 2)), atol=1e-5)


def test_effective_fields_say_how_many_were_averaged(pictures: Path, model: Model) -> None:
    one, all_at_once = (interpret.effective_receptive_field(model, pictures, batch_size=size) for size in (1, 12))
    assert one.images == all_at_once.images == 8
    assert all(np.allclose(one.energy[name], all_at_once.energy[name], atol=1e-6) for name in one.layers)
