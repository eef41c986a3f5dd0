"""Which of the processes that torchrun started this one is, for what knows nothing of `torch.distributed`."""

from __future__ import annotations

import os


def is_first_process() -> bool:
    """Return whether this process is alone, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"
