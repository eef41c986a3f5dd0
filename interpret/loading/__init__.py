"""From a spec to a model; nothing in it unpickles code."""

from interpret.support.moved import old_attributes

__getattr__ = old_attributes(__name__, "interpret.loading.loading")
