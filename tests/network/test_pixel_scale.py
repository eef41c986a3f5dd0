"""How inputs are shown: one scale for all images of a data set, found from its transforms or its values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset
from torchvision import transforms
from torchvision.datasets import FakeData
from torchvision.transforms import v2

import interpret
from interpret.images.display import inputs_to_bytes
from interpret.images.opening import open_images
from interpret.network.model import Model
from interpret.network.pixel_scale import PixelScale, find_pixel_scale
from interpret.network.preprocess import Preprocess
from interpret.study.study import Study

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
COLOUR = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())


def levels(count: int = 70, side: int = 16) -> np.ndarray:
    """Pictures [N, H, W, 3]: the first nearly black, the others of all levels."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
    pixels[0] = np.random.default_rng(1).integers(0, 9, (side, side, 3), np.uint8)
    return pixels


PIXELS = levels()
INPUTS = torch.from_numpy(PIXELS).permute(0, 3, 1, 2).float() / 255


class Pictures(Dataset):
    def __init__(self, transform) -> None:
        self.transform = transform

    def __len__(self) -> int:
        return len(PIXELS)

    def __getitem__(self, item: int):
        return self.transform(Image.fromarray(PIXELS[item])), 0


def shown(data, item: int, network=COLOUR) -> np.ndarray:
    images = open_images(data, network)
    found = inputs_to_bytes(images[item][0][None], images.pixel_scale)[0]
    assert np.array_equal(found, np.asarray(images.source_picture(item)))
    return found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x, "Inputs are shown from 0 (black) to 1 (white)."),
        (lambda x: x * 255, "Inputs are shown from 0 (black) to 255 (white)."),
        (lambda x: x * 2 - 1, "Inputs are shown from −1 (black) to 1 (white)."),
    ],
)
def test_usual_ranges_are_shown_as_the_pictures_were(change, said) -> None:
    data = change(INPUTS)
    assert open_images(data, COLOUR).pixel_scale.said == said
    for item in (0, 5):
        assert np.array_equal(shown(data, item), PIXELS[item])


def test_any_other_range_is_one_for_all_and_a_dark_image_stays_dark() -> None:
    data = INPUTS * 5 - 2.2
    scale = open_images(data, COLOUR).pixel_scale
    assert scale.said.startswith("Inputs are shown from −2.2 (black) to 2.8 (white), the range of the data set: their")
    assert shown(data, 0).max() <= 8
    # all levels but for the thousandth at either end
    assert np.abs(shown(data, 5).astype(int) - PIXELS[5]).max() <= 1
    literal = np.quantile(data[open_images_sample()].numpy(), (0.001, 0.999))
    np.testing.assert_allclose([-scale.mean[0], scale.range - scale.mean[0]], literal, rtol=1e-6)


def open_images_sample() -> list[int]:
    from interpret.images.sampling import sample_by_hash

    return sample_by_hash(len(PIXELS), 64).tolist()


def test_odd_values() -> None:
    assert find_pixel_scale([]).range == 1
    assert find_pixel_scale([torch.zeros(3, 2, 2)]).display(torch.zeros(3, 1, 1)).tolist() == [[[0]], [[0]], [[0]]]
    constant = find_pixel_scale([torch.full((1, 2, 2), -7.0)])
    assert constant.display(torch.full((1, 1, 1), -7.0)).unique().tolist() == [0]
    holes = torch.tensor([[[float("nan"), 0.5, float("inf"), 0.25]]])
    assert find_pixel_scale([holes]).said == "Inputs are shown from 0 (black) to 1 (white)."
    # an outlier among many does not make all others grey
    many = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))
    many[0, 0, 0] = 1e6
    assert find_pixel_scale([many]).range < 10
    # small whole numbers are no levels of 255
    assert find_pixel_scale([torch.tensor([[[0.0, 5.0]]])]).range == pytest.approx(5, abs=0.02)


NORMALIZE = transforms.Normalize(MEAN, STD)


@pytest.mark.parametrize(
    "transform",
    [
        transforms.Compose([transforms.ToTensor(), NORMALIZE]),
        transforms.Compose([transforms.ToTensor(), transforms.Compose([NORMALIZE])]),
        v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]),
        nn.Sequential(v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)),
        v2.Compose(
            [v2.ToImage(), v2.ToDtype(torch.float32), v2.Normalize([m * 255 for m in MEAN], [s * 255 for s in STD])]
        ),
        v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32), v2.Normalize([104.0, 117.0, 124.0], [1.0, 1.0, 1.0])]),
        transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))]),
    ],
)
def test_the_data_sets_own_normalisation_is_undone_to_the_byte(transform) -> None:
    data = Pictures(transform)
    for one, item in (
        (data, 0),
        (data, 7),
        (Subset(data, range(7, 60)), 3),
        (ConcatDataset([data, data]), 75),
        (DataLoader(data), 5),
        (Subset(ConcatDataset([Subset(data, [0, 3])]), [1]), 0),
    ):
        expected = PIXELS[{3: 10, 75: 5}.get(item, item)] if len(one) > 1 else PIXELS[3]
        assert np.array_equal(shown(one, item), expected)
    assert "the data set's own normalisation undone" in open_images(data, COLOUR).pixel_scale.said


def test_what_a_data_set_of_torchvision_normalises_by_is_read() -> None:
    data = FakeData(8, (3, 16, 16), transform=transforms.Compose([transforms.ToTensor(), NORMALIZE]))
    scale = open_images(data, COLOUR).pixel_scale
    assert (scale.mean, scale.std, scale.range) == (MEAN, STD, 1)
    assert scale.said == (
        "Inputs are shown with the data set's own normalisation undone, mean (0.485, 0.456, 0.406) and deviation "
        "(0.229, 0.224, 0.225)."
    )


def test_a_normalisation_that_does_not_fit_the_values_is_not_undone() -> None:
    data = Pictures(transforms.Compose([transforms.ToTensor(), NORMALIZE, transforms.Normalize((1, 1, 1), (7, 7, 7))]))
    assert open_images(data, COLOUR).pixel_scale.said.startswith("Inputs are shown from −")
    two = ConcatDataset([Pictures(transforms.Compose([transforms.ToTensor(), one])) for one in
                         (NORMALIZE, transforms.Normalize(MEAN, (1, 1, 1)))])  # fmt: skip
    assert "the range of the data set" in open_images(two, COLOUR).pixel_scale.said


def test_a_preprocessing_says_it_all() -> None:
    preprocess = Preprocess((16, 16), "BGR", 255, mean=(104, 117, 124), std=(2, 3, 4))
    model = Model(COLOUR, "net", preprocess)
    data = torch.stack([preprocess.encode(one) for one in PIXELS])
    assert np.array_equal(shown(data, 0, model), PIXELS[0]) and open_images(data, model).pixel_scale.said == ""
    assert np.array_equal(shown(PIXELS, 3, model), PIXELS[3])


def test_other_numbers_of_channels_are_grey() -> None:
    two = torch.rand(3, 2, 4, 4)
    expected = (two[1].mean(0) * 255).round().to(torch.uint8).numpy()
    assert all(np.array_equal(shown(two, 1, nn.Conv2d(2, 1, 1))[..., c], expected) for c in range(3))
    grey = torch.rand(3, 1, 4, 4)
    assert np.array_equal(shown(grey, 1, nn.Conv2d(1, 1, 1))[..., 2], (grey[1, 0] * 255).round().byte().numpy())
    assert PixelScale().display(torch.zeros(5, 2, 1, 4, 4)).shape == (5, 2, 3, 4, 4)


def test_a_nearly_black_patch_stays_nearly_black_in_a_study_and_in_every_result(tmp_path) -> None:
    # a unit that answers to dark images, whose patch of its own range would be a bright gradient
    network = nn.Sequential(nn.Conv2d(3, 1, 3), nn.Flatten(), nn.Linear(196, 2)).eval()
    with torch.no_grad():
        network[0].weight.fill_(-1)
        network[0].bias.fill_(1)
    data = TensorDataset((INPUTS - torch.tensor(MEAN).view(-1, 1, 1)) / torch.tensor(STD).view(-1, 1, 1))
    study = Study(tmp_path / "study", network, data)
    study.mine("0", k=1)
    study.project()
    said = study.info["data"]["shown"]
    assert said.startswith("Inputs are shown from −") and "the range of the data set" in said
    assert study.mined("0").images[0, 0] == 0
    with Image.open(study.patch_sprite("0", 0)) as patch:
        assert np.asarray(patch.convert("RGB")).max() < 32
    with Image.open(study.source_picture(0)) as source:
        assert np.asarray(source).max() < 32
    result = interpret.predict(network, data, items=[0, 5])
    assert result.pictures[0].max() < 32 and result.pictures[1].max() > 240 and result.reading.endswith(said)
    for one in (
        interpret.occlude(network, data, size=8, stride=8, items=[0, 5]),
        interpret.attribute(network, data, "gradient", items=[0, 5]),
        interpret.project(network, data, "0", 0, items=[0, 5]),
    ):
        assert one.pictures[0].max() < 32 and one.pictures[1].max() > 240 and one.shown == said and said in one.reading
    gallery = interpret.write_gallery(study, tmp_path / "gallery")
    assert said.split("(black)")[0] in gallery.read_text("utf-8")
