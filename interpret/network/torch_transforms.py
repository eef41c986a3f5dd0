"""Read transforms of torchvision and similar libraries: preprocessing, normalisation, random steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from interpret.network.pixel_scale import Normalisation
from interpret.support.errors import InterpretError

LIBRARIES = ("torchvision.", "timm.")
"""Libraries whose transforms are recognised by name."""
AUGMENTING = ("albumentations.", "kornia.", "imgaug", "monai.", "audiomentations")
"""Libraries whose transforms are random unless named in `PLAIN`."""
RANDOM = (
    "AugMix AugMixAugment AutoAugment ColorJitter CutMix ElasticTransform GaussianBlur GaussianNoise JPEG MixUp "
    "RandAugment ScaleJitter ThreeAugment TrivialAugmentWide"
).split()
"""Random transforms whose names do not begin with "Random"."""
PLAIN = "BasicTransform CenterCrop Compose Normalize PadIfNeeded Resize SmallestMaxSize ToFloat ToTensorV2".split()


def read_transforms(
    transforms: Any, size: tuple[int, int] | None = None, channels: str | None = None
) -> dict[str, Any]:
    """Return the fields of the preprocessing that is equal to a transform; see `Preprocess.from_torchvision`."""
    if type(transforms).__name__ == "ImageClassification" and hasattr(transforms, "crop_size"):
        steps = _Steps()
        steps.resize(transforms.resize_size, transforms.interpolation, antialias=True)
        steps.cut(transforms.crop_size)
        steps.numbers, steps.range = "float", 1.0
        steps.mean, steps.std = _floats(transforms.mean), _floats(transforms.std)
    else:
        steps = _Steps()
        for step in steps_of(transforms):
            steps.add(step)
    return steps.result(size, channels)


class _Steps:
    """The fields of a preprocessing, updated by each step of a transform in order."""

    def __init__(self) -> None:
        self.numbers: str = "picture"
        """The data between steps: a "picture", or "uint8" or "float" numbers."""
        self.range: float | None = None
        self.short_side: int | None = None
        self.size: tuple[int, int] | None = None
        self.interpolation = "bilinear"
        self.channels: str | None = None
        self.mean: tuple[float, ...] = ()
        self.std: tuple[float, ...] = ()

    def add(self, step: Any) -> None:
        name = type(step).__name__
        known = type(step).__module__.startswith(LIBRARIES)
        if getattr(step, "__name__", "") == "_convert_image_to_rgb" or (known and name in ("Identity", "RGB")):
            return
        if self.mean and not (known and name == "ToPureTensor"):
            raise _unreadable(name, "it comes after Normalize")
        if known and name in ("PILToTensor", "ToImage", "ToImageTensor", "MaybePILToTensor", "ToPureTensor"):
            self.numbers = "uint8" if self.numbers == "picture" else self.numbers
        elif known and name in ("ToTensor", "MaybeToTensor"):
            self._to_float(scaled=True)
        elif known and name in ("ToDtype", "ConvertImageDtype"):
            dtype = getattr(step, "dtype", None)
            if dtype == torch.float32:
                self._to_float(scaled=getattr(step, "scale", True))
            elif dtype != torch.uint8 or self.numbers == "float":
                raise _unreadable(name, f"it makes {dtype} and not float32")
        elif known and name == "Resize":
            if getattr(step, "max_size", None) is not None:
                raise _unreadable(name, "its max_size limits the long side")
            self.resize(step.size, step.interpolation, getattr(step, "antialias", True))
        elif known and name == "CenterCrop":
            self.cut(step.size)
        elif known and name == "Grayscale" and step.num_output_channels == 1:
            self.channels = "L"
        elif known and name == "Normalize":
            if self.numbers != "float":
                raise _unreadable(name, "it comes before the picture has become floating point")
            self.mean, self.std = _floats(step.mean), _floats(step.std)
        elif is_random(step):
            raise _unreadable(name, "it is random, and the same picture must always give the same input")
        else:
            name = getattr(step, "__name__", name)
            raise _unreadable(name, "only Resize, CenterCrop, Grayscale, ToTensor (or ToImage, ToDtype) and Normalize "
                "can be read")  # fmt: skip

    def _to_float(self, scaled: bool) -> None:
        if self.range is None:
            self.range = 1.0 if scaled else 255.0
        self.numbers = "float"

    def resize(self, size: Any, interpolation: Any, antialias: Any) -> None:
        sides = [size] if isinstance(size, int) else list(size or [])
        way = str(getattr(interpolation, "value", interpolation))
        if self.short_side is not None or self.size is not None or len(sides) not in (1, 2):
            raise _unreadable("Resize", "it is not the first, or has no size")
        if self.numbers != "picture" and (not antialias or way == "nearest"):
            raise _unreadable("Resize", f"it resizes numbers ({way}, antialias={antialias}): put it before ToTensor")
        if self.numbers == "float" and way != "bilinear":
            raise _unreadable("Resize", f"it resizes floating point ({way}): put it before ToTensor")
        if way not in ("nearest", "nearest-exact", "bilinear", "bicubic", "lanczos"):
            raise _unreadable("Resize", f"its interpolation is {way}")
        self.interpolation = way.removesuffix("-exact")
        if len(sides) == 1:
            self.short_side = int(sides[0])
        else:
            self.size = (int(sides[0]), int(sides[1]))

    def cut(self, size: Any) -> None:
        sides = [size, size] if isinstance(size, int) else [*size, *size][:2]
        wanted = (int(sides[0]), int(sides[1]))
        if self.size is not None and self.size != wanted:
            raise _unreadable("CenterCrop", f"it cuts {wanted} out of {self.size}")
        if self.size is None and self.short_side is None:
            raise _unreadable("CenterCrop", "there is no Resize before it, so that it cuts pictures at their own scale")
        if self.short_side is not None and max(wanted) > self.short_side:
            raise _unreadable("CenterCrop", f"it pads {self.short_side} pixels with black to {max(wanted)}")
        if self.size is None:
            self.size = wanted

    def result(self, size: tuple[int, int] | None, channels: str | None) -> dict[str, Any]:
        if self.numbers != "float":
            raise InterpretError("the transform does not end in floating point: add ToTensor at its end")
        if self.size is None and self.short_side is not None:
            raise _unreadable("Resize", "its inputs have no fixed size: add CenterCrop, or give Resize both sides")
        if self.size is None and size is None:
            raise InterpretError("the transform does not resize: give size=(height, width)")
        given = self.channels or channels or ("RGB" if len(self.mean) == 3 else None)
        if given is None:
            raise InterpretError("the transform takes both grey and colour: give channels='L' or channels='RGB'")
        if len(self.mean) not in (0, 1, len(given)):
            raise _unreadable("Normalize", f"it has {len(self.mean)} means for {len(given)} channels")
        mean, std = (values * len(given) if len(values) == 1 else values for values in (self.mean, self.std))
        return {
            "size": self.size or size,
            "channels": given,
            "range": self.range,
            "mean": mean,
            "std": std,
            "resize": self.short_side,
            "rule": "squash" if self.size is not None and self.short_side is None else "crop",
            "interpolation": self.interpolation,
        }


def _unreadable(name: str, why: str) -> InterpretError:
    return InterpretError(f"transform {name} cannot become a Preprocess: {why}")


def _floats(values: Any) -> tuple[float, ...]:
    found = values.flatten().tolist() if hasattr(values, "flatten") else values
    return tuple(map(float, found)) if hasattr(found, "__iter__") else (float(found),)


def steps_of(transform: Any) -> Iterator[Any]:
    """Yield the steps of a transform in order.

    >>> from torchvision.transforms import Compose, ToTensor
    >>> list(steps_of(Compose([Compose([ToTensor()])])))
    [ToTensor()]
    """
    inner = getattr(transform, "transforms", None)
    if type(transform).__name__ == "StandardTransform":  # torchvision's pair of transforms, for images and for labels
        inner = [transform.transform] if transform.transform is not None else []
    if isinstance(transform, torch.nn.Sequential | list | tuple):
        inner = list(transform)
    if isinstance(inner, list | tuple | torch.nn.ModuleList) and not is_random(transform):
        for one in inner:
            yield from steps_of(one)
    else:
        yield transform


def is_random(step: Any) -> bool:
    """Return whether a step is random."""
    name, module = type(step).__name__, type(step).__module__
    return name.startswith("Random") or name in RANDOM or (module.startswith(AUGMENTING) and name not in PLAIN)


def _steps_in(dataset: Any, depth: int = 0) -> list[Any]:
    """Return the steps of the transforms in a data set, and in data sets inside it."""
    held = getattr(dataset, "__dict__", {})
    if not isinstance(held, dict) or depth > 8:
        return []
    inside = held.get("dataset"), *(held["datasets"] if isinstance(held.get("datasets"), list | tuple) else ())
    found = [step for one in inside if one is not None for step in _steps_in(one, depth + 1)]
    for name, value in held.items():
        known = type(value).__module__.startswith(("torchvision.transforms", "timm.data", *AUGMENTING))
        if value is not None and (known or name in ("transform", "transforms") or type(value).__name__ == "Compose"):
            found += [step for step in steps_of(value) if not any(step is one for one in found)]
    return found


def normalisation_of(dataset: Any) -> Normalisation | None:
    """Return the mean and the deviation of a data set's own normalisation; None if unknown.

    >>> from torchvision.datasets import FakeData
    >>> from torchvision.transforms import Compose, Normalize, ToTensor
    >>> normalisation_of(FakeData(transform=Compose([ToTensor(), Normalize([0.5] * 3, [0.25] * 3)])))
    ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    """
    found = {
        (_floats(step.mean), _floats(step.std))
        for step in _steps_in(dataset)
        if type(step).__name__ == "Normalize" and hasattr(step, "mean") and hasattr(step, "std")
    }
    return found.pop() if len(found) == 1 else None


def random_steps(dataset: Any) -> list[str]:
    """Return the names of the random steps in a data set's own transforms."""
    return list(dict.fromkeys(type(step).__name__ for step in _steps_in(dataset) if is_random(step)))
