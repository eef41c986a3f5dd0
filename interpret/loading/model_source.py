"""The description of a model that can be loaded, from any kind of spec."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from interpret.loading.checkpoints import State
from interpret.network.model import Model
from interpret.network.preprocess import Preprocess

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
