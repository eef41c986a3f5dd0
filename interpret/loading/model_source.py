"""The description of a model that can be loaded, from any kind of spec."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from interpret.loading.checkpoints import State
from interpret.network.model import Model
from interpret.network.preprocess import Preprocess
from interpret.network.weights import with_new_weights

SEED = 0
"""The seed of random weights."""


@dataclass(frozen=True)
class ModelSource:
    """A network that can be made with new weights or with trained ones.

    >>> ModelSource("line", lambda: nn.Linear(1, 1), lambda: nn.Linear(1, 1), "nowhere").fresh_origin
    'random weights (seed 0): this network has learnt nothing'
    """

    name: str
    fresh: Callable[[], nn.Module | Model]
    """Makes the network with newly drawn weights."""
    trained: Callable[[], nn.Module | Model]
    """Makes the network with its trained weights."""
    origin: str
    """Where the trained weights come from."""
    fresh_origin: str = f"random weights (seed {SEED}): this network has learnt nothing"
    preprocess: Preprocess | None = None
    classes: tuple[str, ...] | None = None
    weights: tuple[str, ...] = ()
    """The names of its trained weights, if there are several."""
    card: str | None = None
    """The model card, in Markdown."""
    adapt: Callable[[State], State] = lambda state: state
    """Renames the tensors of a published checkpoint to the module's names."""

    @classmethod
    def of_file(
        cls, name: str, path: Path, read: Callable[[Path], Any], fresh: Callable[[Path], Any] | None = None
    ) -> ModelSource:
        """Return the source of a network in a file that holds its layers and weights.

        Args:
            name: of the network.
            path: of the file.
            read: makes the network of a file.
            fresh: makes it with newly drawn weights; None: by drawing those of `read` again.
        """
        new = fresh or (lambda file: with_new_weights(read(file)))
        return cls(name, partial(new, path), partial(read, path), f"weights from the file {path.name}")
