"""Run a network over data: device, batches, threads, and resuming after an interrupt."""

from interpret.support.moved import old_attributes

__getattr__ = old_attributes(__name__, "interpret.execution.execution")
