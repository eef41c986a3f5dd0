"""Weights in formats that take time to convert: they are converted once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from interpret.loading.checkpoints import State
from interpret.support.caches import cache_folder
from interpret.support.files import any_file, replacing


def converted_once(name: str, convert: Callable[[], State]) -> State:
    """Return what a function converts; it is cached as safetensors in the folder of `interpret.support.caches`.

    A cached file that is damaged is written again. Without a cache that can be read and written, weights are converted
    every time.

    Args:
        name: the name of the cached file, which differs for other weights.
        convert: makes the weights.
    """
    cache = cache_folder()
    if cache is None:
        return convert()
    cached = cache / f"{name}.safetensors"
    with suppress(SafetensorError, OSError):
        return load_file(cached)
    state = convert()
    with suppress(SafetensorError, OSError), replacing(cached, any_file) as new:
        save_file(dict(state), new)
    return state
