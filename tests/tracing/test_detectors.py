"""torchvision's detectors, unmodified: they take lists of images, resize them inside, and return lists of dicts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import detection, segmentation
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign

import interpret
from interpret.support.errors import InterpretError


class Detector(nn.Module):
    """The first steps of torchvision's detectors: normalise, resize, pad into a batch, convolve."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.transform = GeneralizedRCNNTransform(side, 2 * side, [0.5] * 3, [0.2] * 3)
        self.conv1 = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        batch, _ = self.transform(list(images))
        return [{"scores": maps.flatten()} for maps in self.conv2(self.conv1(batch.tensors))]


def seen_by(network: Detector, image: Tensor, position: tuple[int, int]) -> Tensor:
    """Return which pixels change a neuron of conv2, [H, W]: where its gradient is not zero."""
    image = image.clone().requires_grad_()
    outputs: list[Tensor] = []
    handle = network.conv2.register_forward_hook(lambda *call: outputs.append(call[2]))
    network([image])
    handle.remove()
    (gradient,) = torch.autograd.grad(outputs[0][0, 0][position], image)
    return gradient.abs().sum(0) > 0


@pytest.mark.parametrize(("height", "width", "exact"), [(40, 56, True), (80, 112, True), (97, 130, False)])
def test_windows_hold_the_pixels_behind_a_detectors_resizing(height: int, width: int, exact: bool) -> None:
    torch.manual_seed(0)
    network = Detector(40).double().eval()
    for weight in network.parameters():
        weight.data.abs_()
    field = interpret.trace(network, (3, height, width))["conv2"].receptive_field
    assert field is not None and field.exact is exact
    image = torch.rand(3, height, width, dtype=torch.float64)
    for y in range(20):
        for x in (0, 7, 13, 27):
            seen = seen_by(network, image, (y, x)).nonzero()
            top, left, bottom, right = field.window((y, x))
            if exact:
                lowest, highest = seen.amin(0).tolist(), (seen.amax(0) + 1).tolist()
                assert [max(top, 0), max(left, 0)] == lowest
                assert [min(bottom, height), min(right, width)] == highest
            elif len(seen):
                assert (seen >= torch.tensor([top, left])).all() and (seen < torch.tensor([bottom, right])).all()
    assert max(field.size) < 0.6 * width


def test_a_detector_in_training_mode_is_examined_as_it_detects_and_left_as_it_was() -> None:
    network = Detector(40).train()
    mined = interpret.mine(network, torch.rand(2, 3, 40, 56), k=1)
    assert list(mined) == ["conv1", "conv2"] and network.training


def test_images_of_different_sizes_are_refused_in_one_sentence() -> None:
    images = [torch.rand(3, 40, 56), torch.rand(3, 40, 48)]
    with pytest.raises(InterpretError, match=r"one shape: items 0 and 1 are \[3, 40, 56\] and \[3, 40, 48\]"):
        interpret.mine(Detector(40).eval(), images)


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "fasterrcnn": detection.fasterrcnn_mobilenet_v3_large_320_fpn,
    "ssdlite": detection.ssdlite320_mobilenet_v3_large,
    "retinanet": detection.retinanet_resnet50_fpn,
    "fcos": detection.fcos_resnet50_fpn,
    "maskrcnn": detection.maskrcnn_resnet50_fpn,
    "deeplab": segmentation.deeplabv3_mobilenet_v3_large,
    "lraspp": segmentation.lraspp_mobilenet_v3_large,
    "fcn": segmentation.fcn_resnet50,
}
PER_BOX = {"fasterrcnn": "roi_heads.box_head.fc6", "maskrcnn": "roi_heads.mask_head.2.0"}


def check_boxes(network: nn.Module, images: Tensor, name: str) -> None:
    """Check a unit of a layer that runs once a box: its hits, their boxes, and its projection by the gradient."""
    network, x = network.double(), images.double().requires_grad_()  # boxes of random weights are nearly equal
    rows: list[Tensor] = []
    boxes: list[Tensor] = []
    pooler = [module for module in network.modules() if isinstance(module, MultiScaleRoIAlign)][-1]
    handles = [
        network.get_submodule(name).register_forward_hook(
            lambda *call: rows.append(call[2][:, 0].reshape(len(call[2]), -1))
        ),
        pooler.register_forward_pre_hook(lambda _, args: boxes.append(args[1][0])),
    ]
    for place in range(2):
        network(x[place : place + 1])
    for handle in handles:
        handle.remove()
    best = torch.stack([one.max() for one in rows])
    values, items = best.detach().sort(descending=True)
    layer = interpret.mine(network, images.double(), layers=name, k=2)[name]
    assert layer.images[0].tolist() == items.tolist() and layer.rois is not None
    np.testing.assert_allclose(layer.values[0], values, rtol=1e-5)
    resized: Any = network.transform
    for rank, item in enumerate(items.tolist()):
        strongest = boxes[item][rows[item].amax(1).argmax()]
        left, top, right, bottom = (strongest * 96 / resized.min_size[-1]).tolist()
        np.testing.assert_allclose(layer.rois[0, rank], [top, left, bottom, right], rtol=1e-5)
    found = interpret.project(network, images.double(), name, 0, rule="gradient", start="one")
    (expected,) = torch.autograd.grad(best.sum(), x)
    torch.testing.assert_close(found.pixels, expected, rtol=1e-6, atol=1e-9 * float(expected.abs().max()))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # of torchvision, that transformed maps are not aligned
@pytest.mark.parametrize("name", NETWORKS)
def test_all_layers_of_torchvisions_detectors_and_segmenters_are_mined(name: str) -> None:
    torch.manual_seed(0)
    sizes: dict[str, float] = (
        {} if name in ("ssdlite", "deeplab", "lraspp", "fcn") else {"min_size": 96, "max_size": 96}
    )
    if name in PER_BOX:
        sizes |= {"rpn_pre_nms_top_n_test": 40, "rpn_post_nms_top_n_test": 20, "box_score_thresh": 0.0}
    network = NETWORKS[name](weights=None, weights_backbone=None, num_classes=3, **sizes).eval()
    images = torch.rand(2, 3, 96, 96)
    traced, mined = interpret.trace(network, (3, 96, 96)), interpret.mine(network, images, k=1)
    per_box = {key: layer.boxes for key, layer in traced.items() if not layer.batched and layer.leaf}
    dense = [
        key for key, layer in traced.items() if layer.batched and layer.leaf and layer.kind in ("Conv2d", "Linear")
    ]
    assert set(dense) <= set(mined) and len(dense) > 30
    assert bool(per_box) is (name in PER_BOX) and None not in per_box.values()
    if per_box:
        assert per_box.keys() & mined.keys() >= {
            "roi_heads.box_head.fc6",
            "roi_heads.box_predictor.cls_score",
            PER_BOX[name],
        }
    # each unit's strongest activation is what a hook sees
    last = dense[-1]
    found: list[Tensor] = []
    handle = network.get_submodule(last).register_forward_hook(lambda *call: found.append(call[2]))
    with torch.no_grad():
        network(images)
    handle.remove()
    expected = found[0].flatten(2).amax(2).amax(0)
    torch.testing.assert_close(torch.from_numpy(mined[last].values[:, 0]), expected, rtol=1e-3, atol=1e-4)
    projected = interpret.project(network, images[:1], last, 0, rule="guided", start="one")
    assert projected.pixels.isfinite().all() and projected.pixels.abs().sum() > 0
    if per_box:
        check_boxes(network, images, PER_BOX[name])
