"""Principal components of natural images: images are sums of what varies together in them, where it varies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from interpret.analyses.synthesis.parametrisation import Parametrisation, limited, stretched, unstretched
from interpret.analyses.synthesis.pixels import to_pixels
from interpret.execution.parallel import torch_threads
from interpret.images.batches import first_images, read_parts
from interpret.images.sampling import sample_by_hash
from interpret.images.sources import Images

LARGEST = 64 * 64
"""The most pixels of images whose components are used: in larger ones, a few hundred components hold no detail."""
FEWEST = 256
"""The fewest natural images whose components are used: those of fewer do not describe others. Of digits, the components
of 128 hold 91 % of the variance of others, and those of 32 hold 69 %; of emoji, 85 % and 70 %."""
MOST = 1024
"""The most natural images whose components are taken."""
SHARE = 0.98
"""The share of the variance that the components hold which are used."""
COMPONENT_SCALE = 0.75
"""Scale of the components, so that the default rate suits them: a step moves an image by up to this times the rate
times the contrast of natural images."""


@dataclass(frozen=True)
class PrincipalComponents:
    """The k strongest principal components of images, before the logistic function.

    >>> pixels = torch.rand(300, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    >>> found = components_of(pixels)
    >>> found.directions.shape, bool((found.variances.diff() <= 0).all())
    (torch.Size([16, 1, 4, 4]), True)
    """

    mean: Tensor
    """[C, h, w]"""
    directions: Tensor
    """[k, C, h, w], orthonormal."""
    variances: Tensor
    """[k], the largest first."""

    @property
    def contrast(self) -> float:
        """The root mean square of what the components hold of an image, over its pixels."""
        return float((self.variances.sum() / self.mean.numel()).sqrt())


def components_of(pixels: Tensor) -> PrincipalComponents | None:
    """Return the principal components of images [m, C, h, w] in 0 … 1; None of images that are all alike.

    Images of a data set whose objects lie in the middle, such as digits, vary in the middle alone, and their components
    are strokes and shapes. Waves are the components of images whose objects may lie anywhere.
    """
    logits = unstretched(pixels.double()).flatten(1)
    mean = logits.mean(0)
    away = logits - mean
    with torch_threads(1):  # the same bytes on any number of cores
        values, vectors = torch.linalg.eigh(away @ away.T / len(away))
        values, vectors = values.flip(0), vectors.flip(1)
        if not float(values[0]) > 1e-6:
            return None
        held = values.cumsum(0) / values.sum()
        kept = int((held < SHARE).sum()) + 1
        directions = vectors[:, :kept].T @ away / (len(away) * values[:kept, None]).sqrt()
    shape = pixels.shape[1:]
    return PrincipalComponents(mean.view(shape).float(), directions.view(-1, *shape).float(), values[:kept].float())


def natural_components(images: Images, padding: int) -> PrincipalComponents | None:
    """Return the components of a sample of natural images, each continued by its borders; None if all are alike."""
    items = np.sort(sample_by_hash(len(images), MOST, seed=2))
    parts = [
        batch.images[:, : images.channels] for batch in read_parts(images, np.split(items, range(32, len(items), 32)))
    ]
    pixels = to_pixels(torch.cat(parts), images.pixel_scale)
    return components_of(F.pad(pixels, (padding,) * 4, mode="replicate"))


def suit_components(images: Images, shape: tuple[int, int, int]) -> bool:
    """Return whether natural images are whole inputs of this shape, small and many enough for their components."""
    if len(images) < FEWEST or shape[1] * shape[2] > LARGEST:
        return False
    return tuple(first_images(images).shape[1:]) == shape


class Components(Parametrisation):
    """The coefficients of natural images' principal components are optimised, each scaled by the component's variance.

    For a linear unit with weights w, the pattern that it detects in images with the covariance Σ is Σw (Haufe et al.,
    "On the interpretation of weight vectors of linear models in multivariate neuroimaging", 2014): along each
    component, w times its variance. Adam makes all steps equally long, so the variance is in the scale.
    """

    def __init__(self, found: PrincipalComponents, noise: Tensor, contrast: float | None) -> None:
        """Begin from noise [n, k] about the mean of the natural images."""
        self.contrast = contrast
        self.mean, self.directions = found.mean.to(noise), found.directions.flatten(1).to(noise)
        variances = found.variances.to(noise)
        self.scale = COMPONENT_SCALE * variances * (variances.sum() / variances.square().sum()).sqrt()
        self.parameters = [noise.clone().requires_grad_()]

    def images(self) -> Tensor:
        away = (self.parameters[0] * self.scale) @ self.directions
        return stretched(self.mean + limited(away.view(-1, *self.mean.shape), self.contrast))
