"""Mine and project networks of other libraries, check their fields, and write docs/libraries.md.

    pip install transformers segmentation-models-pytorch monai einops ultralytics antialiased-cnns pytorchcv \
        efficientnet-pytorch pretrainedmodels open-clip-torch torchxrayvision kornia
    python benchmarks/libraries.py                       # all that are installed
    python benchmarks/libraries.py monai ultralytics     # some libraries

Weights are random, so that nothing is downloaded. What is compared with what is said in benchmarks/families.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from interpret.support.files import any_file, replacing

sys.path.insert(0, str(Path(__file__).resolve().parent))
from families import TITLES, examined, finish, read_state, row

Network = tuple[str, Callable[[], nn.Module], tuple[int, ...]]
"""Its name, what builds it, and the shape of an image."""
SMALL = (3, 64, 64)


def transformers() -> Iterator[Network]:
    import transformers as hf

    stages: dict[str, Any] = {"hidden_sizes": [32, 48, 64, 80], "depths": [1, 1, 2, 1]}
    few = [1, 1, 1, 1]
    configured: dict[str, dict[str, Any]] = {
        "ResNet": stages | {"embedding_size": 16, "layer_type": "basic"},
        "RegNet": stages | {"embedding_size": 16, "groups_width": 16},
        "ConvNext": stages,
        "ConvNextV2": stages,
        "Bit": {"embedding_size": 64, "hidden_sizes": [128, 128, 256, 256], "depths": few},
        "MobileNetV1": {"depth_multiplier": 0.5},
        "MobileNetV2": {"depth_multiplier": 0.35},
        "EfficientNet": {"width_coefficient": 0.5, "depth_coefficient": 0.5, "hidden_dim": 640},
        "PoolFormer": stages | {"depths": few},
        "Swin": {"image_size": 128, "embed_dim": 24, "depths": few, "num_heads": [1, 2, 4, 8], "window_size": 4},
        "MobileViT": {"image_size": 64, "hidden_sizes": [24, 32, 40], "neck_hidden_sizes": [8, 16, 24, 32, 40, 48, 64]},
        "Levit": {"image_size": 64, "hidden_sizes": [32, 48, 64], "num_attention_heads": [2, 3, 4], "key_dim": [8] * 3},
        "Cvt": {},
    }
    for name, settings in configured.items():
        config = getattr(hf, f"{name}Config")
        network = getattr(hf, f"{name}ForImageClassification")
        side = settings.get("image_size", 64)
        yield f"{name}ForImageClassification", lambda n=network, c=config, s=settings: n(c(**s)), (3, side, side)
    yield (
        "SegformerForSemanticSegmentation",
        lambda: hf.SegformerForSemanticSegmentation(hf.SegformerConfig(hidden_sizes=[16, 32, 40, 64])),
        SMALL,
    )


def segmentation_models_pytorch() -> Iterator[Network]:
    import segmentation_models_pytorch as smp

    for name in "Unet UnetPlusPlus FPN PSPNet DeepLabV3 DeepLabV3Plus Linknet MAnet PAN UPerNet Segformer".split():
        network = getattr(smp, name)
        side = 128 if name == "PAN" else 64
        yield name, lambda n=network: n("resnet18", encoder_weights=None, classes=4), (3, side, side)
    for encoder in ("mobilenet_v2", "timm-efficientnet-b0"):
        yield f"Unet({encoder})", lambda e=encoder: smp.Unet(e, encoder_weights=None), SMALL


def monai() -> Iterator[Network]:
    from monai.networks import nets

    flat, deep = (1, 64, 64), (1, 32, 32, 32)
    yield "UNet", lambda: nets.UNet(2, 1, 2, (8, 16, 32), (2, 2), num_res_units=2), flat
    yield "UNet, 3-D", lambda: nets.UNet(3, 1, 2, (8, 16, 32), (2, 2), num_res_units=2), deep
    yield "BasicUNet", lambda: nets.BasicUNet(2, 1, 2, (8, 8, 16, 16, 32, 8)), flat
    yield "DynUNet", lambda: nets.DynUNet(2, 1, 2, [3] * 3, [1, 2, 2], [2, 2]), flat
    yield "AttentionUnet", lambda: nets.AttentionUnet(2, 1, 2, (8, 16, 32), (2, 2)), flat
    yield "SegResNet, 3-D", lambda: nets.SegResNet(3, 8, 1, 2), deep
    yield "VNet, 3-D", lambda: nets.VNet(3, 1, 2), deep
    yield "DenseNet121", lambda: nets.DenseNet121(2, 1, 3), flat
    yield "SwinUNETR", lambda: nets.SwinUNETR(1, 2, feature_size=12, spatial_dims=2), flat
    yield "AutoEncoder", lambda: nets.AutoEncoder(2, 1, 1, (8, 16, 32), (2, 2, 2)), flat


def ultralytics() -> Iterator[Network]:
    from ultralytics.nn.tasks import ClassificationModel, DetectionModel, SegmentationModel

    for name in ("yolov5n", "yolov8n", "yolo11n", "yolo12n"):
        yield name, lambda n=name: DetectionModel(f"{n}.yaml", verbose=False), SMALL
    yield "yolov8n-seg", lambda: SegmentationModel("yolov8n-seg.yaml", verbose=False), SMALL
    yield "yolov8n-cls", lambda: ClassificationModel("yolov8n-cls.yaml", verbose=False), SMALL


def antialiased_cnns() -> Iterator[Network]:
    import antialiased_cnns as blurred

    yield "resnet18", lambda: blurred.resnet18(pretrained=False), (3, 128, 128)
    yield "mobilenet_v2", lambda: blurred.mobilenet_v2(pretrained=False), (3, 128, 128)


def efficientnet_pytorch() -> Iterator[Network]:
    from efficientnet_pytorch import EfficientNet

    def network() -> nn.Module:
        found: nn.Module = EfficientNet.from_name("efficientnet-b0")
        found.set_swish(memory_efficient=False)  # the reference by hand sees into no custom autograd function
        return found

    yield "efficientnet-b0, set_swish(False)", network, SMALL


def pretrainedmodels() -> Iterator[Network]:
    import pretrainedmodels as models

    for name in ("nasnetamobile", "xception", "bninception", "dpn68", "se_resnet50"):
        yield name, lambda n=name: getattr(models, n)(pretrained=None), (3, 224, 224)


def open_clip() -> Iterator[Network]:
    from open_clip.modified_resnet import ModifiedResNet

    yield "ModifiedResNet", lambda: ModifiedResNet([1, 1, 1, 1], 64, 2, image_size=64, width=16), SMALL


def torchxrayvision() -> Iterator[Network]:
    from torchxrayvision.models import DenseNet

    yield "DenseNet", lambda: DenseNet(weights=None), (1, 64, 64)


def kornia() -> Iterator[Network]:
    from kornia.feature import HardNet, SOSNet

    yield "HardNet", lambda: HardNet(pretrained=False), (1, 32, 32)
    yield "SOSNet", lambda: SOSNet(pretrained=False), (1, 32, 32)


def pytorchcv() -> Iterator[Network]:
    from pytorchcv.model_provider import get_model

    names = """alexnet preresnet10 seresnet10 shufflenet_g1_wd4 menet108_8x1_g3 mobilenet_wd4 igcv3_wd4 mnasnet_small
        darknet_ref bagnet9 dla34 selecsls42 ghostnet sqnxt23_w1 shufflenetv2_wd2 condensenet74_c4_g4 peleenet
        diracnet18v2 hrnet_w18_small_v1 vovnet27s dicenet_wd5 spnasnet fbnet_cb mixnet_s regnetx002 resnesta18
        bam_resnet18 scnet50 tresnet_m octresnet10_ad2 resattnet56""".split()
    for name in names:
        yield name, lambda n=name: get_model(n), (3, 224, 224)
    for name in ("resnet20_cifar10", "nin_cifar10", "shakeshakeresnet20_2x16d_cifar10", "resdropresnet20_cifar10"):
        yield name, lambda n=name: get_model(n), (3, 32, 32)


LIBRARIES: dict[str, Callable[[], Iterator[Network]]] = {
    "transformers": transformers,
    "segmentation-models-pytorch": segmentation_models_pytorch,
    "monai": monai,
    "ultralytics": ultralytics,
    "antialiased-cnns": antialiased_cnns,
    "efficientnet-pytorch": efficientnet_pytorch,
    "pretrainedmodels": pretrainedmodels,
    "open-clip-torch": open_clip,
    "torchxrayvision": torchxrayvision,
    "kornia": kornia,
    "pytorchcv": pytorchcv,
}

INTRODUCTION = """# Networks of other libraries

Written by `benchmarks/libraries.py`: {done} networks of {libraries} libraries, unmodified, with random weights. The
columns are those of [timm's networks](families.md). Fields of volumes are not checked.

- Ultralytics: pass the network, `YOLO("yolov8n.pt").model`; `YOLO` itself takes files.
- efficientnet-pytorch: its own Swish is a custom autograd function, into which the reference by hand does not see. With
  and without it, projections are equal to 2e-15.
- Fields are followed for whole tensors. Where a network concatenates channels that see windows of different sizes, and
  takes some of them apart again (MixNet, CondenseNet), the window of a later layer is that of all: larger than what is
  seen, never smaller.
- OctConv of pytorchcv returns two tensors, so that its layers are left out. Its RevNet computes blocks in a custom
  autograd function that runs without gradients: its layers are mined, and projecting from inside is refused.

| library | network | side {titles}
"""


def built(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a network with random weights, the same each time."""
    torch.manual_seed(0)
    return build().eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("libraries", nargs="*", choices=[*LIBRARIES, []], help="none: all")
    parser.add_argument("--state", type=Path, help="a file of what is done, one JSON object a line")
    parser.add_argument("--out", type=Path, default=Path("docs/libraries.md"))
    options = parser.parse_args()
    done = {(one["library"], one["network"]): one for one in read_state(options.state)}
    rows = []
    for library in options.libraries or LIBRARIES:
        try:
            named = f"{library} {version(library)}"
        except PackageNotFoundError:
            print(f"{library} is not installed")
            continue
        for name, build, shape in LIBRARIES[library]():
            found = done.get((library, name))
            if found is None:
                found = examined(name, lambda build=build: built(build), shape)
                found |= {"library": library, "network": name, "family": named}
                finish(found, options.state)
            rows.append(found)
    if not options.libraries:
        count = len({one["library"] for one in rows})
        text = INTRODUCTION.format(done=len(rows), libraries=count, titles=TITLES) + "\n".join(map(row, rows))
        with replacing(options.out, any_file) as new:
            new.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
