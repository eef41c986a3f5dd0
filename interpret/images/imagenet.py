"""The 1000 classes of ImageNet 2012, in the order of the networks' outputs."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from torchvision.models import AlexNet_Weights


@cache
def class_names() -> tuple[str, ...]:
    """Return the names of the 1000 classes from torchvision's metadata; downloads nothing.

    >>> class_names()[281:283]
    ('tabby', 'tiger cat')
    """
    return tuple(AlexNet_Weights.IMAGENET1K_V1.meta["categories"])


@cache
def wnids() -> tuple[str, ...]:
    """Return the WordNet ids of the 1000 classes, which name the folders of the data set.

    >>> wnids()[281]
    'n02123045'

    Source: Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015.
    """
    return tuple(Path(__file__).with_name("imagenet_wnids.txt").read_text(encoding="utf-8").split())
