"""Load a model from a spec, without unpickling code."""

from interpret.support.moved import old_attributes

__getattr__ = old_attributes(__name__, "interpret.loading.loading")
