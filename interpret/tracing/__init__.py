"""What a network executes, and what its neurons see."""

from interpret.support.moved import old_attributes

__getattr__ = old_attributes(__name__, "interpret.tracing.tracing")
