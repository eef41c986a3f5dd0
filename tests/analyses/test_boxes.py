"""Heads that run once a box: mined by image and box, and projected through the pooling of the features."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import MultiScaleRoIAlign, RoIPool, nms, roi_align

import interpret
from interpret.analyses.projection.box_projection import BOX_SIDE, warp_box
from interpret.network.boxes import BoxCrops
from interpret.support.errors import InterpretError
from interpret.tracing import meta_trace

POOLED, SAMPLES, SCALE = 4, 2, 0.5
"""Side of the map of a box, sampling points along a cell, and the scale of the feature map."""


class Detector(nn.Module):
    """A small R-CNN: a box around the strongest feature, one around the weakest, another where there is much light."""

    def __init__(self, join: Callable[[Tensor], Tensor] = lambda rows: rows) -> None:
        super().__init__()
        self.features = nn.Conv2d(2, 3, 3, stride=2, padding=1)
        self.head = nn.Conv2d(3, 4, 3)
        self.scores = nn.Linear(16, 5)
        self.join = join

    def find(self, images: Tensor, maps: Tensor) -> list[Tensor]:
        found = []
        for image, own in zip(images, maps.sum(1), strict=True):
            centres = [divmod(int(at), own.shape[1]) for at in (own.argmax(), own.argmin())]
            boxes = [[2 * x - 3.25, 2 * y - 2.5, 2 * x + 5.0, 2 * y + 4.75] for y, x in centres]
            if image.mean() > 0.5:
                boxes.append([1.0, 2.0, 13.0, 9.5])
            found.append(torch.tensor(boxes).to(images) if image.max() > 0 else images.new_zeros(0, 4))
        return found

    def pool(self, images: Tensor, maps: Tensor) -> Tensor:
        boxes = self.find(images.detach(), maps.detach())
        pooled: Tensor = roi_align(maps, boxes, POOLED, SCALE, SAMPLES, True)
        return pooled

    def forward(self, images: Tensor) -> Tensor:
        pooled = self.join(self.pool(images, torch.relu(self.features(images))))
        found: Tensor = self.scores(torch.relu(self.head(pooled)).flatten(1))
        return found


@pytest.fixture
def network() -> Detector:
    torch.manual_seed(1)
    return Detector().double().eval()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(7, 2, 14, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def pixels_first(box: Tensor) -> list[float]:
    left, top, right, bottom = box.tolist()
    return [top, left, bottom, right]


@torch.no_grad()
def one_by_one(network: Detector, image: Tensor) -> list[tuple[list[float], Tensor, Tensor]]:
    """Return each box of an image with what `head` and `scores` give for it alone."""
    maps = torch.relu(network.features(image[None]))
    found = []
    for box in network.find(image[None], maps)[0]:
        head = network.head(roi_align(maps, [box[None]], POOLED, SCALE, SAMPLES, True))
        found.append((pixels_first(box), head[0], network.scores(torch.relu(head).flatten(1))[0]))
    return found


# ---- mining ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [3, 7])
def test_hits_of_images_and_boxes_are_those_of_brute_force(
    network: Detector, images: Tensor, batch_size: int, tmp_path: Path
) -> None:
    mined = interpret.mine(network, images, k=3, batch_size=batch_size)
    assert list(mined) == ["features", "head", "scores"] and mined["features"].rois is None
    every = [one_by_one(network, image) for image in images]
    for name, axis in (("head", 1), ("scores", 2)):
        layer = mined[name]
        assert layer.rois is not None
        for unit in range(len(layer.values)):
            best = []
            for item, boxes in enumerate(every):
                maps = torch.stack([box[axis][unit] for box in boxes]).reshape(len(boxes), 1, -1)
                number, place = divmod(int(maps.argmax()), maps.shape[-1])
                best.append((-float(maps.max()), item, boxes[number][0], divmod(place, 2)))
            for rank, (value, item, box, position) in enumerate(sorted(best)[:3]):
                assert layer.images[unit, rank] == item
                np.testing.assert_allclose(layer.values[unit, rank], -value, rtol=1e-6)
                np.testing.assert_allclose(layer.rois[unit, rank], box, rtol=1e-6)
                assert tuple(layer.positions[unit, rank]) == position
        assert (layer.histogram.sum(1) == len(images)).all()
    table = mined.to_dataframe()
    first = table[(table.layer == "head") & (table.unit == 1) & (table["rank"] == 0)].iloc[0]
    assert first[["top", "left", "bottom", "right"]].tolist() == mined["head"].rois[1, 0].tolist()  # type: ignore[index]
    assert table[table.layer == "features"].top.isna().all()
    mined.save(tmp_path / "mined.safetensors")
    again = interpret.Mined.load(tmp_path / "mined.safetensors")
    np.testing.assert_array_equal(again["head"].rois, mined["head"].rois)


def test_images_without_boxes_are_no_hits_and_count_as_zero_on_the_sample(network: Detector, images: Tensor) -> None:
    images = images.clone()
    images[[1, 4]] = 0
    mined = interpret.mine(network, images, k=7, batch_size=2)
    layer = mined["scores"]
    assert (np.sort(layer.images, 1) == [-1, -1, 0, 2, 3, 5, 6]).all() and np.isnan(layer.rois[:, 5:]).all()  # type: ignore[index]
    assert (layer.histogram.sum(1) == 5).all() and (mined["features"].histogram.sum(1) == 7).all()
    assert (layer.sample_maxima[[1, 4]] == 0).all() and (layer.sample_maxima[[0, 2]] != 0).all()
    with pytest.raises(InterpretError, match=r"layer 'head' runs once a box, and the network finds no box in these im"):
        interpret.mine(network, images[[1, 4]], layers="head")
    assert list(interpret.mine(network, images[[1, 4]])) == ["features"]
    with pytest.raises(InterpretError, match=r"finds no box in image 0: give boxes=\(top, left, bottom, right\)"):
        interpret.project(network, images[1:2], "head", 0)


class ByHand(Detector):
    """Pools without torchvision's operations."""

    def pool(self, images: Tensor, maps: Tensor) -> Tensor:
        cuts = [
            maps[place, :, top : bottom + 1, left : right + 1]
            for place, boxes in enumerate(self.find(images + 1, maps))
            for left, top, right, bottom in (boxes * SCALE).clamp(0, 6).int().tolist()
        ]
        return torch.cat([F.adaptive_avg_pool2d(cut[None], POOLED) for cut in cuts])


@pytest.mark.parametrize(
    "other",
    [
        Detector(lambda rows: rows.flip(0)),
        Detector(lambda rows: rows - rows.mean(0)),
        Detector(lambda rows: torch.cat([rows, rows])),
        ByHand(),
    ],
    ids=["other order", "depends on all", "twice", "by hand"],
)
def test_rows_that_belong_to_no_box_for_sure_are_left_out_and_named(other: Detector, images: Tensor) -> None:
    other = other.double()
    assert list(interpret.mine(other, images, k=1)) == ["features"]
    assert interpret.trace(other, (2, 14, 16))["head"].boxes is None
    with pytest.raises(InterpretError, match="layer 'head' does not return one row for each image"):
        interpret.mine(other, images, layers="head")


# ---- projecting ------------------------------------------------------------------------------------------------------


def pooling_matrix(box: list[float], size: tuple[int, int]) -> Tensor:
    """Return RoI-align as a matrix [cells, positions], from its definition (He et al. 2017, section 3)."""
    top, left, bottom, right = (at * SCALE - 0.5 for at in box)
    matrix = torch.zeros(POOLED, POOLED, *size, dtype=torch.float64)
    high, wide = (bottom - top) / POOLED, (right - left) / POOLED
    for row in range(POOLED):
        for column in range(POOLED):
            for i in range(SAMPLES):
                for j in range(SAMPLES):
                    y = top + (row + (i + 0.5) / SAMPLES) * high
                    x = left + (column + (j + 0.5) / SAMPLES) * wide
                    if not (-1 <= y <= size[0] and -1 <= x <= size[1]):
                        continue
                    y, x = min(max(y, 0.0), size[0] - 1), min(max(x, 0.0), size[1] - 1)
                    for at_y, of_y in ((math.floor(y), 1 - y % 1), (min(math.floor(y) + 1, size[0] - 1), y % 1)):
                        for at_x, of_x in ((math.floor(x), 1 - x % 1), (min(math.floor(x) + 1, size[1] - 1), x % 1)):
                            matrix[row, column, at_y, at_x] += of_y * of_x / SAMPLES**2
    return matrix.reshape(POOLED**2, -1)


@torch.no_grad()
def literal_projection(
    network: Detector, image: Tensor, box: list[float], layer: str, unit: int, position: tuple[int, int], rule: str
) -> tuple[float, Tensor]:
    """Pass a neuron's activation back step by step, with the box constant."""

    def rectified(signal: Tensor, below: Tensor) -> Tensor:
        if rule != "gradient":
            signal = signal.clamp(min=0)
        return signal if rule == "deconvnet" else signal * (below > 0)

    before = network.features(image[None])
    maps = before.clamp(min=0)
    matrix = pooling_matrix(box, maps.shape[2:])  # type: ignore[arg-type]
    pooled = (maps[0].flatten(1) @ matrix.T).reshape(1, 3, POOLED, POOLED)
    head = network.head(pooled)
    signal = torch.zeros_like(head)
    if layer == "scores":
        value = network.scores(head.clamp(min=0).flatten(1))[0, unit]
        signal = rectified((value * network.scores.weight[unit]).reshape(head.shape), head)
    else:
        value = head[0, unit][position]
        signal[0, unit][position] = value
    signal = F.conv_transpose2d(signal, network.head.weight)
    signal = (signal[0].flatten(1) @ matrix).reshape(maps.shape)
    signal = rectified(signal, before)
    signal = F.conv_transpose2d(signal, network.features.weight, stride=2, padding=1, output_padding=1)
    return float(value), signal[0]


@pytest.mark.parametrize("rule", ["deconvnet", "guided", "gradient"])
@pytest.mark.parametrize("layer", ["head", "scores"])
def test_the_projection_is_the_literal_adjoint_of_roi_align(
    network: Detector, images: Tensor, layer: str, rule: Any
) -> None:
    found = interpret.project(network, images, layer, 1, rule=rule)
    assert found.pixels.shape == images.shape and found.rois is not None
    for row, image in enumerate(images):
        best = max(one_by_one(network, image), key=lambda one: float(one[1 if layer == "head" else 2][1].max()))
        assert found.rois[row].tolist() == best[0]
        at = tuple(found.positions[row].tolist())
        value, signal = literal_projection(network, image, best[0], layer, 1, at, rule)
        torch.testing.assert_close(float(found.values[row]), value)
        torch.testing.assert_close(found.pixels[row], signal, rtol=1e-12, atol=1e-14)


class Choosing(Detector):
    """Chooses and moves its boxes by scores and offsets that carry a signal, and pools a second time in them."""

    def __init__(self) -> None:
        super().__init__()
        self.mask_head = nn.Conv2d(3, 2, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = torch.relu(self.features(images))
        first = self.find(images.detach(), maps.detach())
        scores = self.scores(torch.relu(self.head(roi_align(maps, first, POOLED, SCALE, SAMPLES, True))).flatten(1))
        boxes = []
        for own, score in zip(first, scores.split([len(one) for one in first]), strict=True):
            own = own + score[:, 1:].tanh()
            sure = torch.where(score[:, 0] > score[:, 0].mean())[0]
            kept = nms(own[sure], score[sure, 0], 0.5)
            boxes.append(own[sure][kept[score[sure][kept, 0].sort(descending=True)[1]]])
        found: Tensor = self.mask_head(roi_align(maps, boxes, POOLED, SCALE, SAMPLES, True))
        return found


def test_what_chooses_the_boxes_is_no_part_of_a_signal_that_begins_in_given_ones(images: Tensor) -> None:
    torch.manual_seed(1)
    network = Choosing().double().eval()
    assert interpret.mine(network, images, layers="mask_head", k=2)["mask_head"].rois is not None
    # warnings are errors; strict refuses what is not covered
    found = interpret.project(network, images[:2], "mask_head", 1, strict=True)
    x = images[:2].clone().requires_grad_()
    maps = torch.relu(network.features(x))
    given = [box[None, [1, 0, 3, 2]].double() for box in found.rois]  # type: ignore[union-attr]
    own = network.mask_head(roi_align(maps, given, POOLED, SCALE, SAMPLES, True))
    at = (torch.arange(2), 1, *found.positions.T)
    torch.testing.assert_close(own[at], found.values)


def test_boxes_of_ones_own_are_projected(network: Detector, images: Tensor) -> None:
    boxes, positions = [[2.0, 3.5, 9.0, 13.5], [0.0, 0.0, 14.0, 16.0]], [[1, 0], [0, 1]]
    found = interpret.project(network, images[:1], "head", [2, 3], positions, boxes=boxes)
    for row in range(2):
        literal = literal_projection(
            network, images[0], boxes[row], "head", 2 + row, tuple(positions[row]), "deconvnet"
        )
        torch.testing.assert_close(found.pixels[row], literal[1], rtol=1e-12, atol=1e-14)
    for wrong, message in (
        ({"boxes": [1, 1, 1, 9]}, "is empty: give"),
        ({"boxes": [0, 0, 5]}, "boxes must be one"),
        ({"layer": "features", "boxes": [0, 0, 5, 5]}, "layer 'features' runs once an image: leave boxes out"),
    ):
        chosen: dict[str, Any] = {"layer": "head", "channels": 0} | wrong
        with pytest.raises(InterpretError, match=message):
            interpret.project(network, images[:1], **chosen)


def test_patches_and_projections_of_hits_are_those_of_their_boxes(network: Detector, images: Tensor) -> None:
    mined = interpret.mine(network, images, k=4)
    for name in ("head", "scores"):
        unit = mined[name].unit(1)
        assert unit.rois is not None
        at = unit.positions.tolist()
        alone = interpret.project(network, images[unit.images.tolist()], name, 1, at, boxes=unit.rois.tolist())
        for rank, roi in enumerate(unit.rois):
            torch.testing.assert_close(unit.patches[rank], warp_box(images[unit.images[rank]], roi))
            torch.testing.assert_close(unit.projections()[rank], warp_box(alone.pixels[rank], roi))
        assert unit.patches.shape == unit.projections().shape == (4, 2, BOX_SIDE, BOX_SIDE)
    assert mined["features"].unit(0).projections().shape == (4, 2, 3, 3)  # of both kinds in one network
    box = np.array([2.0, 4.0, 5.0, 6.0])
    torch.testing.assert_close(warp_box(images[0], box)[:, 0, 0], images[0, :, 2, 4])
    torch.testing.assert_close(warp_box(images[0], box)[:, -1, -1], images[0, :, 4, 5])


def test_a_study_of_a_detector_traces_it_once(
    network: Detector, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = interpret.Study(tmp_path / "study", network, images)

    def refuse(*_: Any) -> Any:
        raise AssertionError("traced again")

    with monkeypatch.context() as patched:
        patched.setattr(meta_trace, "_trace", refuse)
        study.mine(k=2)
        study.project()
        study.find_activation_range_examples()
    assert study.mined("head").rois is not None and study.rules("scores") == ["deconvnet"]
    network.head = nn.Conv2d(3, 4, 3, bias=False).double()  # after the block, the network may change
    assert meta_trace.trace_on_meta(network, (2, 14, 16))["head"].params == 3 * 4 * 9


# ---- other ways of pooling -------------------------------------------------------------------------------------------


class Resizing(Detector):
    """Resizes images inside, as torchvision's detectors do, and pools from two levels or by maxima."""

    def __init__(self, pooler: nn.Module) -> None:
        super().__init__()
        self.pooler = pooler

    def pool(self, images: Tensor, maps: Tensor) -> Tensor:
        boxes = [torch.tensor([[6.0, 8.0, 20.0, 18.0], [2.0, 3.0, 9.0, 9.0]]).to(maps)] * len(images)
        if isinstance(self.pooler, MultiScaleRoIAlign):
            levels = {"0": maps, "1": F.avg_pool2d(maps, 2)}
            found: Tensor = self.pooler(levels, boxes, [(28, 32)] * len(images))
        else:
            found = self.pooler(maps, boxes)
        return found

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(F.interpolate(images, (28, 32)))


class Cropping(nn.Module):
    """A cascade: a second network looks at crops of the image, as MTCNN's does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.crops, self.second = nn.Conv2d(2, 1, 3), BoxCrops(5), nn.Conv2d(2, 3, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.first(images).detach()
        boxes = []
        for image, own in zip(images.detach(), maps[:, 0], strict=True):
            y, x = divmod(int(own.argmax()), own.shape[1])
            boxes.append(torch.tensor([[x - 2, y - 1, x + 6, y + 9], [0, 2, 4, 9]])[: 1 + int(image.mean() > 0.5)])
        found: Tensor = self.second(self.crops(images, boxes))
        return found


def test_networks_that_look_at_crops_are_mined_by_image_and_crop(images: Tensor) -> None:
    torch.manual_seed(0)
    network = Cropping().double()
    mined = interpret.mine(network, images, k=4)
    assert mined["first"].rois is None and mined["second"].rois is not None
    every: list[dict[tuple[float, ...], Tensor]] = []
    for image in images:  # crop by crop, as adaptive pooling is defined: the means of whole pixels
        y, x = divmod(int(network.first(image[None])[0, 0].argmax()), 14)
        kept = {}
        for top, left, bottom, right in ((y - 1, x - 2, y + 9, x + 6), (2, 0, 9, 4)):
            cut = image[:, max(top, 0) : min(bottom, 14), max(left, 0) : min(right, 16)]
            ends = [
                [(math.floor(cell * side / 5), math.ceil((cell + 1) * side / 5)) for cell in range(5)]
                for side in cut.shape[1:]
            ]
            means = [[cut[:, a:b, c:d].mean((1, 2)) for c, d in ends[1]] for a, b in ends[0]]
            crop = torch.stack([torch.stack(row, 1) for row in means], 1)
            kept[float(top), float(left), float(bottom), float(right)] = network.second(crop[None])[0].detach()
        if image.mean() <= 0.5:
            kept.popitem()
        every.append(kept)
    assert {len(kept) for kept in every} == {1, 2}
    layer = mined["second"]
    for unit in range(3):
        best = sorted(
            ((-float(max(one[unit].max() for one in kept.values())), item) for item, kept in enumerate(every))
        )[:4]
        assert layer.images[unit].tolist() == [item for _, item in best]
        np.testing.assert_allclose(layer.values[unit], [-value for value, _ in best], rtol=1e-6)
        for rank, (value, item) in enumerate(best):
            at = tuple(layer.positions[unit, rank])
            assert layer.rois is not None
            np.testing.assert_allclose(every[item][tuple(layer.rois[unit, rank].tolist())][unit][at], -value)

    x = images[:1].clone().requires_grad_()
    box = [1.0, 2.0, 8.0, 12.0]  # top, left, bottom, right
    found = interpret.project(network, images[:1], "second", 1, (2, 0), "gradient", boxes=box, start="one")
    output = network.second(F.adaptive_avg_pool2d(x[:, :, 1:8, 2:12], 5))[0, 1, 2, 0]
    torch.testing.assert_close(found.pixels, *torch.autograd.grad(output, x))
    assert mined["second"].unit(0).projections().shape == (4, 2, BOX_SIDE, BOX_SIDE)


@pytest.mark.parametrize(
    "pooler", [MultiScaleRoIAlign(["0", "1"], POOLED, SAMPLES), RoIPool(POOLED, SCALE)], ids=["levels", "maxima"]
)
def test_boxes_are_in_pixels_of_the_images_given_also_where_the_network_resizes(
    images: Tensor, pooler: nn.Module
) -> None:
    torch.manual_seed(0)
    network = Resizing(pooler).double()
    layer = interpret.mine(network, images, layers="head", k=2)["head"]
    known = {(4.0, 3.0, 9.0, 10.0), (1.5, 1.0, 4.5, 4.5)}
    assert layer.rois is not None and {tuple(box) for box in layer.rois.reshape(-1, 4).tolist()} <= known
    found = interpret.project(network, images[:2], "head", 1, rule="gradient")
    x = images[:2].clone().requires_grad_()
    rows: list[Tensor] = []
    network.head.register_forward_hook(lambda *call: rows.append(call[2]))
    network(x)
    own = rows[0].unflatten(0, (2, 2))[:, :, 1]
    best = own.flatten(1).amax(1)
    torch.testing.assert_close(found.values, best.detach())
    (expected,) = torch.autograd.grad((best * best.detach()).sum(), x)
    torch.testing.assert_close(found.pixels, expected)


class Calling(nn.Module):
    """Calls RoI-align itself on maps of images that it may resize; each image has the boxes `BOXES`, in some units."""

    BOXES = ((4.0, 3.0, 9.0, 10.0), (1.5, 1.0, 4.5, 4.5))
    """Top, left, bottom and right, in pixels of the images given."""

    def __init__(self, resized: float, padding: int, units: float, scale: float, call: Callable[..., Tensor]) -> None:
        super().__init__()
        self.features, self.head = nn.Conv2d(2, 3, 3, stride=2, padding=padding), nn.Linear(3 * POOLED**2, 4)
        self.resized, self.units, self.scale, self.call = resized, units, scale, call

    def forward(self, images: Tensor, boxes: Sequence[Sequence[float]] = BOXES) -> Tensor:
        if self.resized != 1:
            maps = self.features(F.interpolate(images, scale_factor=self.resized, mode="bilinear"))
        else:
            maps = self.features(images)
        own = self.units * torch.tensor(boxes).to(images)[:, [1, 0, 3, 2]]
        scores: Tensor = self.head(self.call(maps, [own] * len(images), self.scale).flatten(1))
        return scores


def as_list(maps: Tensor, boxes: list[Tensor], scale: float) -> Tensor:
    pooled: Tensor = roi_align(maps, boxes, POOLED, scale)  # not aligned, as many samples as cells are large
    return pooled


def aligned(maps: Tensor, boxes: list[Tensor], scale: float) -> Tensor:
    pooled: Tensor = roi_align(maps, boxes, (POOLED, POOLED), spatial_scale=scale, sampling_ratio=2, aligned=True)
    return pooled


def as_mixed_rows(maps: Tensor, boxes: list[Tensor], scale: float) -> Tensor:
    """Give one tensor whose rows do not come image by image."""
    images = torch.arange(len(boxes)).repeat(len(boxes[0]))[:, None]
    rows = torch.cat([images.to(maps), torch.stack(boxes, 1).flatten(0, 1)], 1)
    pooled: Tensor = roi_align(maps, boxes=rows, output_size=POOLED, spatial_scale=scale)
    return pooled


def as_operation(maps: Tensor, boxes: list[Tensor], scale: float) -> Tensor:
    images = torch.arange(len(boxes)).repeat_interleave(len(boxes[0]))[:, None]
    rows = torch.cat([images.to(maps), torch.cat(boxes)], 1)
    pooled: Tensor = torch.ops.torchvision.roi_align(
        maps, rois=rows, spatial_scale=scale, pooled_height=POOLED, pooled_width=POOLED, sampling_ratio=1, aligned=False
    )
    return pooled


@pytest.mark.parametrize(
    ("resized", "padding", "units", "scale", "call"),
    [
        (1, 1, 1, 0.5, aligned),  # pixels of the image
        (1, 1, 1, 0.5, as_mixed_rows),
        (1, 1, 1, 0.5, as_operation),
        (1, 0, 1, 0.5, as_list),  # also where convolutions without padding have lost the border
        (1, 1, 0.5, 1.0, as_list),  # cells of the feature map
        (1, 1, 1 / 16, 8.0, as_list),  # fractions of the image's side
        (1.5, 1, 1.5, 0.5, as_list),  # pixels of the image that the network has resized, to more
        (0.75, 1, 0.75, 0.5, as_list),  # or fewer
        (1.5, 1, 1, 0.75, as_list),  # pixels of the image given, where the network has resized it
    ],
)
def test_boxes_are_found_in_pixels_whatever_the_scale_of_a_call(
    resized: float, padding: int, units: float, scale: float, call: Callable[..., Tensor]
) -> None:
    torch.manual_seed(0)
    network = Calling(resized, padding, units, scale, call).double()
    images = torch.rand(3, 2, 16, 16, dtype=torch.float64)
    layer = interpret.mine(network, images, layers="head", k=2)["head"]
    assert layer.rois is not None
    outputs = network(images).detach()
    rows = outputs.unflatten(0, (2, 3)).transpose(0, 1) if call is as_mixed_rows else outputs.unflatten(0, (3, 2))
    for unit in range(4):
        best = rows[:, :, unit].max(1)
        for rank, item in enumerate(best.values.argsort(descending=True)[:2].tolist()):
            assert layer.images[unit, rank] == item
            np.testing.assert_allclose(layer.values[unit, rank], best.values[item], rtol=1e-6)
            np.testing.assert_allclose(layer.rois[unit, rank], Calling.BOXES[int(best.indices[item])], rtol=1e-6)
    box = (2.0, 1.0, 12.0, 9.5)
    found = interpret.project(network, images[:1], "head", 2, rule="gradient", start="one", boxes=box)
    x = images[:1].clone().requires_grad_()
    (expected,) = torch.autograd.grad(network(x, [box])[0, 2], x)
    torch.testing.assert_close(found.pixels, expected)


def test_a_head_that_is_called_image_by_image_is_refused_by_its_name(images: Tensor) -> None:
    def one_by_one(maps: Tensor, boxes: list[Tensor], scale: float) -> Tensor:
        return torch.cat([as_list(one[None], [own], scale) for one, own in zip(maps, boxes, strict=True)])

    network = Calling(1, 1, 1, 0.5, one_by_one).double()
    assert list(interpret.mine(network, images, k=1)) == ["features"]
    with pytest.raises(InterpretError, match="layer 'head' does not return one row for each image"):
        interpret.mine(network, images, layers="head")
