"""The layers that a network executes, with shapes, receptive fields and operation counts."""

from interpret.support.moved import old_attributes

__getattr__ = old_attributes(__name__, "interpret.tracing.tracing")
