"""Read pickles of NumPy arrays without running code in them."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np

from interpret.support.errors import InterpretError


class ArrayUnpickler(pickle.Unpickler):
    """Read pickles of NumPy arrays and plain containers, and refuse all others.

    >>> ArrayUnpickler(io.BytesIO(pickle.dumps({"a": np.arange(3)}))).load()
    {'a': array([0, 1, 2])}
    >>> ArrayUnpickler(io.BytesIO(pickle.dumps(print))).load()
    Traceback (most recent call last):
        ...
    _pickle.UnpicklingError: builtins.print is not allowed: arrays only
    """

    # NumPy 2 moved numpy.core to numpy._core; a file may use either name
    ALLOWED = {  # noqa: RUF012 - the standard library's class asks for no annotation
        ("numpy.core.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0],
        ("numpy._core.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the allowed functions; no other code can run."""
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed: arrays only")
        return self.ALLOWED[module, name]


def read_arrays(content: bytes) -> Any:
    """Return the content of a pickle of NumPy arrays.

    >>> read_arrays(pickle.dumps([np.ones(2)]))
    [array([1., 1.])]

    Raises:
        InterpretError: a pickle that is damaged or holds other objects.
    """
    try:
        return ArrayUnpickler(io.BytesIO(content)).load()
    except Exception as error:  # a damaged pickle may raise any error
        raise InterpretError(f"this pickle cannot be read: {error}") from None
