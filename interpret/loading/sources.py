"""What every kind of model that can be loaded says of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from interpret.loading.checkpoints import State
from interpret.network.model import Model
from interpret.network.preprocess import Preprocess

SEED = 0
"""Of weights that are drawn at random."""


@dataclass(frozen=True)
class Source:
    """A network that can be had with new weights or with those it was trained to.

    >>> Source("line", lambda: nn.Linear(1, 1), lambda: nn.Linear(1, 1), "thin air").fresh_origin
    'random weights (seed 0): this network has learnt nothing'
    """

    name: str
    fresh: Callable[[], nn.Module | Model]
    """Makes it with newly drawn weights."""
    trained: Callable[[], nn.Module | Model]
    """Makes it with its own weights."""
    origin: str
    """Where those come from."""
    fresh_origin: str = f"random weights (seed {SEED}): this network has learnt nothing"
    preprocess: Preprocess | None = None
    classes: tuple[str, ...] | None = None
    weights: tuple[str, ...] = ()
    """Names of its own weights, where it has several."""
    card: str | None = None
    """What a reader is told of it, in Markdown."""
    adapt: Callable[[State], State] = lambda state: state
    """Brings a checkpoint from elsewhere to the names that the module has."""
