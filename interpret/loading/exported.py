"""Load files of `torch.export`."""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch
from torch import nn

from interpret.loading.checkpoints import only_tensors_loaded
from interpret.loading.model_source import ModelSource
from interpret.network.exported_program import exported_network
from interpret.support.errors import InterpretError

ENDING = ".pt2"


def exported_source(path: Path) -> ModelSource:
    """Return the source of a network in a file of `torch.export.save`. Code in the file is never run.

    Raises:
        InterpretError: when the network is made: a file that is missing or damaged.
    """
    return ModelSource.of_file(path.stem, path, _read)


def _read(path: Path) -> nn.Module:
    if not path.is_file():
        raise InterpretError(f"model {str(path)!r} does not exist: give the path of a file of torch.export.save")
    if not zipfile.is_zipfile(path):  # of which torch would log a traceback
        raise _damaged(path, "it is no zip archive")
    try:
        with only_tensors_loaded():
            program = torch.export.load(path)
    except Exception as error:  # it raises whatever its readers do
        reason = str(error).strip().partition("\n")[0]
        raise _damaged(path, f"{type(error).__name__}: {reason}") from error
    return exported_network(program)


def _damaged(path: Path, why: str) -> InterpretError:
    return InterpretError(
        f"model {str(path)!r} is damaged or no exported program ({why}): save it again with torch.export.save"
    )
