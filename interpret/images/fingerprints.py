"""Fingerprints: hashes of arrays and tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def hash_arrays(values: Iterable[Tensor | NDArray[Any]], seed: bytes = b"") -> str:
    """Return the SHA-256, in hexadecimal, over the types, shapes and values of arrays or tensors.

    >>> hash_arrays([np.zeros(2, np.float32)]) == hash_arrays([torch.zeros(2)])
    False
    >>> hash_arrays([torch.zeros(2)]) == hash_arrays([torch.zeros(2)]) != hash_arrays([torch.zeros(2, 1)])
    True
    """
    digest = hashlib.sha256(seed)
    for value in values:
        digest.update(f"{value.dtype} {tuple(value.shape)};".encode())
        if isinstance(value, Tensor):
            value = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()
