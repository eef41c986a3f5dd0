"""The loss functions that a recipe can name."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

RUBBISH_DISTANCE = 10.0
"""The constant j of the maximum a posteriori criterion; the paper does not give its value."""


def map_criterion(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the maximum a posteriori criterion of outputs that are negative distances, averaged over the images.

    >>> import torch
    >>> map_criterion(torch.tensor([[-1.0, -30.0]]), torch.tensor([0])).item() < 0.001
    True

    With a distance y_i to each class i and the right class D, it is y_D + log(e^-j + sum_i e^-y_i): the cross-entropy
    over the classes and one more, "rubbish", at the constant distance j = 10 from every image. So the distance to the
    right class must be small, and not only smaller than the others.

    Args:
        outputs: [B, classes].
        labels: int64 [B].

    Source: LeCun et al. 1998, section II.C, equation 9.
    """
    return F.cross_entropy(F.pad(outputs, (0, 1), value=-RUBBISH_DISTANCE), labels)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cross_entropy": F.cross_entropy, "map": map_criterion}
