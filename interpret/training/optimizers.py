"""The optimisers and learning-rate schedules that a recipe can name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.optim import lr_scheduler

from interpret.loading.recipes import TrainTable

OPTIMIZERS: dict[str, Callable[[nn.Module, TrainTable], torch.optim.Optimizer]] = {
    "sgd": lambda module, table: torch.optim.SGD(
        module.parameters(), table.lr, momentum=table.momentum, weight_decay=table.weight_decay
    ),
    "adam": lambda module, table: torch.optim.Adam(module.parameters(), table.lr, weight_decay=table.weight_decay),
}

SCHEDULES: dict[str, Callable[[torch.optim.Optimizer, TrainTable], lr_scheduler.LRScheduler]] = {
    "constant": lambda optimizer, table: lr_scheduler.ConstantLR(optimizer, factor=1.0),
    "cosine": lambda optimizer, table: lr_scheduler.CosineAnnealingLR(optimizer, T_max=table.epochs),
    "step": lambda optimizer, table: lr_scheduler.MultiStepLR(optimizer, milestones=list(table.steps), gamma=0.1),
}
