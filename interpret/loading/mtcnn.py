"""MTCNN's cascade of three networks, with the weights of the package facenet-pytorch.

The first network runs on the image at several sizes; the second one and the third one run on crops, one for each face
that the network before may have found.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops.boxes import batched_nms

from interpret.network.boxes import BoxCrops
from interpret.network.preprocess import Preprocess
from interpret.support.errors import InterpretError

ORIGIN = "weights of the package facenet-pytorch"
PREPROCESS = Preprocess((320, 320), rule="pad", range=255)

LEAST_FACE = 20
"""Side in pixels of the least face that is found."""
FIRST_SIDE = 12
"""Side in pixels of what the first network sees."""
STEP = 0.709
"""From one size of the image to the next."""
THRESHOLDS = (0.6, 0.7, 0.7)
"""The least score of a face that the next network looks at, and at the end of one that is found."""


class Crops(nn.Module):
    """The second or the third network of facenet-pytorch, for any number of crops, also none."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        for name, layer in network.named_children():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the scores [N] of crops [N, 3, H, W] as faces, the offsets of their boxes [N, 4], and landmarks."""
        layers = dict(self.named_children())
        for name in [name for name in layers if "_" not in name]:
            if name.startswith("dense") and x.dim() == 4:
                x = x.permute(0, 3, 2, 1).flatten(1)
            x = layers[name](x)
        scores, *others = (layers[name](x) for name in layers if name.startswith("dense") and "_" in name)
        (softmax,) = (name for name in layers if name.startswith("softmax"))
        return layers[softmax](scores)[:, 1], *others


class Cascade(nn.Module):
    """MTCNN: proposes faces at several sizes of an image, and looks twice at a crop of each.

    Source: Zhang et al., "Joint face detection and alignment using multitask cascaded convolutional networks", 2016.
    """

    def __init__(self, pnet: nn.Module, rnet: nn.Module, onet: nn.Module) -> None:
        super().__init__()
        self.pnet, self.rnet, self.onet = pnet, Crops(rnet), Crops(onet)
        self.rnet_crops, self.onet_crops = BoxCrops(24), BoxCrops(48)

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Return the boxes [n, 4], scores [n] and landmarks [n, 5, 2] of faces in each of some images, 0 to 255."""
        from facenet_pytorch.models.utils import detect_face as steps

        boxes, owners = self._propose(images)
        boxes, owners, given = _seen(steps.rerec(boxes), owners, images)
        score, offsets, *_ = (one.detach() for one in self.rnet(_centred(self.rnet_crops(images, given))))
        sure = score > THRESHOLDS[1]
        boxes, score, owners, offsets = boxes[sure], score[sure], owners[sure], offsets[sure]
        rows = batched_nms(boxes, score, owners, 0.7)
        boxes = steps.rerec(steps.bbreg(boxes[rows], offsets[rows]))
        boxes, owners, given = _seen(boxes, owners[rows], images)
        score, offsets, points = (one.detach() for one in self.onet(_centred(self.onet_crops(images, given))))
        sure = score > THRESHOLDS[2]
        boxes, score, owners, offsets = boxes[sure], score[sure], owners[sure], offsets[sure]
        sides = (boxes[:, 2:] - boxes[:, :2] + 1)[:, None]
        points = boxes[:, None, :2] - 1 + sides * points[sure].unflatten(1, (2, 5)).mT
        boxes = steps.bbreg(boxes.clone(), offsets)
        rows = steps.batched_nms_numpy(boxes, score, owners, 0.7, "Min")
        boxes, score, owners, points = boxes[rows], score[rows], owners[rows], points[rows]
        found = []
        for image in range(len(images)):
            own = owners == image
            none = torch.zeros(int(own.sum()), dtype=torch.long)
            found.append({"boxes": boxes[own], "scores": score[own], "labels": none, "keypoints": points[own]})
        return found

    def _propose(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes [N, 4] in which the first network may have found a face, and the image of each."""
        from facenet_pytorch.models.utils import detect_face as steps

        height, width = images.shape[2:]
        scale, found, owners = FIRST_SIDE / LEAST_FACE, [images.new_zeros(0, 9)], [torch.zeros(0, dtype=torch.long)]
        while min(height, width) * scale >= FIRST_SIDE:
            size = int(height * scale + 1), int(width * scale + 1)
            offsets, scores = self.pnet(_centred(F.interpolate(images, size, mode="area")))
            boxes, own = steps.generateBoundingBox(offsets.detach(), scores.detach()[:, 1], scale, THRESHOLDS[0])
            rows = batched_nms(boxes[:, :4], boxes[:, 4], own, 0.5)
            found.append(boxes[rows])
            owners.append(own[rows].cpu())
            scale *= STEP
        boxes, of_images = torch.cat(found), torch.cat(owners).to(images.device)
        rows = batched_nms(boxes[:, :4], boxes[:, 4], of_images, 0.7)
        boxes = boxes[rows]
        sides = (boxes[:, 2:4] - boxes[:, :2]).repeat(1, 2)
        return boxes[:, :4] + boxes[:, 5:] * sides, of_images[rows]


def _seen(boxes: Tensor, owners: Tensor, images: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return the boxes that lie in their images, by image, the image of each, and the whole pixels of each image's."""
    height, width = images.shape[2:]
    pixels = torch.cat([boxes[:, :2].trunc().clamp(min=1) - 1, boxes[:, 2:].trunc()], 1)
    pixels = torch.minimum(pixels, pixels.new_tensor([width, height, width, height]))
    rows = owners.argsort(stable=True)
    rows = rows[(pixels[rows, 2:] > pixels[rows, :2]).all(1)]
    return boxes[rows], owners[rows], [pixels[rows][owners[rows] == image] for image in range(len(images))]


def _centred(images: Tensor) -> Tensor:
    return (images - 127.5) * 0.0078125


def mtcnn(pretrained: bool) -> nn.Module:
    """Return the cascade, with the package's weights or newly drawn ones.

    Raises:
        InterpretError: the package is not installed.
    """
    if find_spec("facenet_pytorch") is None:
        raise InterpretError(
            "model 'mtcnn' needs facenet-pytorch: install it with pip install --no-deps facenet-pytorch==2.6.0"
        )
    from facenet_pytorch.models.mtcnn import ONet, PNet, RNet

    return Cascade(PNet(pretrained), RNet(pretrained), ONet(pretrained))


CARD = """# MTCNN

A face detector of three small networks, with the weights of `facenet-pytorch` (MIT). `pnet` runs on the image at
several sizes; its units are those of the largest one. `rnet` and `onet` run on crops, one for each face that the
network before proposes: their units are mined by image and crop, and the signal passes back through the crop.

Source: Zhang et al., "Joint face detection and alignment using multitask cascaded convolutional networks", 2016.
"""
