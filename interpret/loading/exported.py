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
        raise InterpretError(
            f"model {str(path)!r} is damaged or no exported program: it is no zip archive, save it again with "
            "torch.export.save"
        )
    try:
        with only_tensors_loaded():
            program = torch.export.load(path)
    except Exception as error:  # it raises whatever its readers do
        reason = str(error).strip().partition("\n")[0]
        raise InterpretError(
            f"model {str(path)!r} is damaged or no exported program ({type(error).__name__}: {reason}): save it again "
            "with torch.export.save"
        ) from error
    return exported_network(program)
