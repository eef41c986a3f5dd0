"""Train a model folder by its recipe."""

from interpret.support.moved import old_attributes

__getattr__ = old_attributes(
    __name__,
    "interpret.training.augmentation",
    "interpret.training.losses",
    "interpret.training.measured_card",
    "interpret.training.reproducibility",
    "interpret.training.scores",
    "interpret.training.training",
)
