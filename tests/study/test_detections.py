"""What a detector finds in the images of a study, kept and drawn on the pages of images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.ops import roi_align

import interpret
from interpret import Preprocess, Study
from interpret.study.detections import find_boxes
from interpret.study.overview import overview
from interpret.support.errors import InterpretError


class Bright(nn.Module):
    """Finds the brightest place of each image, and says how bright it is; its head runs once for each such box."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = nn.Conv2d(3, 2, 3, padding=1), nn.Linear(8, 3)

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        found = []
        for image in images.detach().mean(1):
            y, x = divmod(int(image.argmax()), image.shape[1])
            boxes = torch.tensor([[x - 4.0, y - 2.0, x + 4.0, y + 2.0], [0.0, 0.0, 5.0, 5.0]]).to(images)
            found.append(
                {"boxes": boxes, "scores": torch.stack([image.max(), image.min()]), "labels": torch.tensor([1, 0])}
            )
        pooled = roi_align(self.features(images), [one["boxes"] for one in found], 2)
        self.head(pooled.flatten(1))
        return found


def test_pages_show_what_a_detector_finds(tmp_path: Path) -> None:
    torch.manual_seed(0)
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number, (width, height) in enumerate(((40, 20), (20, 30), (24, 24))):  # of different sizes
        picture = Image.new("RGB", (width, height), (10, 10, 10))
        picture.paste((250, 250, 250) if number < 2 else (90, 90, 90), (12, 8, 14, 10))
        picture.save(folder / f"{number}.png")
    model = interpret.load(Bright(), preprocess=Preprocess((20, 20), rule="pad"), classes=["dark", "bright"])
    study = Study(tmp_path / "study", model, folder)
    study.mine(k=2)
    study.project("head", units=1)
    study.predict()
    found = study.detections()
    assert [[one["name"] for one in found[source]] for source in range(3)] == [["bright"], ["bright"], []]
    top, left, bottom, right = found[0][0]["box"]  # of a picture twice as wide as high, padded to a square
    assert found[0][0]["score"] > 0.5 and left <= 12.5 / 40 <= right and top <= 8.5 / 20 <= bottom
    assert study.mined("head").boxes.shape == (3, 2, 4)  # type: ignore[union-attr]
    interpret.write_gallery(study, tmp_path / "gallery")
    page = (tmp_path / "gallery" / "images" / "0.html").read_text()
    assert page.count('class="frame"') == 1 and "Boxes that the network finds" in page
    page = (tmp_path / "gallery" / "images" / "2.html").read_text()
    assert 'class="frame"' not in page and "finds no box with a score of 0.5 or more" in page
    page = (tmp_path / "gallery" / "layers" / "head" / "0.html").read_text()
    assert "each box that the network finds" in page
    for name, warped in (("head", "true"), ("features", "false")):  # boxes are squares in the activation range, too
        assert f'"warped":{warped}' in (tmp_path / "gallery" / "layers" / name / "units-0.js").read_text()
    page = (tmp_path / "gallery" / "layers" / "head" / "index.html").read_text()
    assert "each box that the network finds" in page and "depends on the whole image" not in page
    assert "1 of 3 units has pictures, and comes first" in page

    whole = study.detections_file.read_bytes()
    study.detections_file.write_bytes(whole[:-9])
    (damage,) = overview(study, check=True)["damaged"]
    assert damage["file"] == "detections.json"
    with pytest.raises(InterpretError, match=r"detections\.json"):
        interpret.write_gallery(study, tmp_path / "gallery")
    with pytest.warns(UserWarning, match=r"detections\.json' is damaged .*: it is computed again"):
        Study(tmp_path / "study", model, folder).predict()
    assert study.detections_file.read_bytes() == whole


@pytest.mark.parametrize("network", [nn.Conv2d(3, 2, 3), nn.Sequential(nn.Flatten(), nn.Linear(48, 2))])
def test_other_networks_are_no_detectors(network: nn.Module) -> None:
    assert find_boxes(network, torch.zeros(2, 3, 4, 4)) is None


def test_a_layer_named_detect_is_not_called_for_boxes() -> None:
    class WithLayer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.detect = nn.Conv2d(3, 1, 1)

        def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
            return [{"boxes": torch.tensor([[0.0, 1, 2, 3]]), "scores": torch.tensor([1.0])} for _ in images]

    assert find_boxes(WithLayer(), torch.zeros(1, 3, 4, 4)) == [[([0.0, 1.0, 2.0, 3.0], 1.0, None)]]


class Counting(nn.Module):
    """Finds in each image one box whose right edge says how bright it is, and is interrupted in a later batch."""

    stop: float = float("inf")
    seen = 0

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        self.features(images)
        return [
            {"boxes": boxes, "scores": torch.ones(1)}
            for boxes in 8 * images.mean((1, 2, 3))[:, None, None].expand(-1, 1, 4)
        ]

    def detect(self, images: Tensor) -> list[dict[str, Tensor]]:
        type(self).seen += len(images)
        if type(self).seen > self.stop:
            raise KeyboardInterrupt
        return self(images)


def test_an_interrupt_keeps_the_boxes_that_were_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(11, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    model = interpret.load(Counting())
    whole = Study(tmp_path / "whole", model, images, batch_size=3)
    whole.predict()
    expected = [8 * float(image.mean()) / 8 for image in images]
    assert [found[0]["box"][3] for found in whole.detections().values()] == pytest.approx(expected, abs=1e-4)
    monkeypatch.setattr(Counting, "seen", 0)
    monkeypatch.setattr(Counting, "stop", 8)
    study = Study(tmp_path / "study", model, images, batch_size=3)
    with pytest.raises(KeyboardInterrupt):
        study.predict()
    assert not study.detections() and list((study.path / "unfinished" / "detections").iterdir())
    monkeypatch.setattr(Counting, "stop", float("inf"))
    monkeypatch.setattr(Counting, "seen", 0)
    Study(study.path, model, images, batch_size=3).predict()
    assert Counting.seen == 1 + 11 - 6  # the first image shows that it detects
    assert study.detections_file.read_bytes() == whole.detections_file.read_bytes()
    assert not (study.path / "unfinished").exists()


def test_an_error_at_some_images_leaves_pages_without_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def detect(self: Counting, images: Tensor) -> list[dict[str, Tensor]]:
        if len(images) > 1:
            raise RuntimeError("too many")
        return self(images)

    monkeypatch.setattr(Counting, "detect", detect)
    study = Study(tmp_path / "study", interpret.load(Counting()), torch.rand(4, 3, 8, 8), batch_size=2)
    with pytest.warns(
        UserWarning, match="no boxes for the batch of 2 that begins with 'image 0', .* one image: the pages of"
    ):
        study.predict()
    assert not study.detections() and not (study.path / "unfinished").exists()
