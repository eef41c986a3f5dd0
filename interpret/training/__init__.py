"""From a recipe to weights."""

from interpret.support.moved import old_attributes

__getattr__ = old_attributes(__name__, "interpret.training.training")
