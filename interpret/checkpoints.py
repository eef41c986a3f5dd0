"""Weights in files: read without running any code in them, and put into a network that they fit."""

from __future__ import annotations

import os
import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from interpret.errors import InterpretError

State = Mapping[str, Tensor]

WRAPPERS = ("state_dict", "model_state_dict", "model")
"""The keys under which training scripts put the weights beside their optimiser and epoch."""

ENDINGS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
"""How the names of checkpoint files end."""

PREFIXES = ("module.", "_orig_mod.")
"""What `DataParallel` and `torch.compile` put before every name."""


def read_state(path: str | os.PathLike[str]) -> State:
    """Return the tensors of a checkpoint by name: a `.safetensors` file, or what `torch.save` wrote.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "last.pth"
    >>> torch.save({"epoch": 3, "state_dict": {"weight": torch.zeros(2)}}, path)
    >>> read_state(path)["weight"]
    tensor([0., 0.])

    The weights may be wrapped as `{"state_dict": …}`, `{"model": …}` or `{"model_state_dict": …}`. Code in a file is
    never run.

    Raises:
        InterpretError: a file that is missing or damaged, or that holds anything but tensors.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return _unwrapped(load_file(path), path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of archives that the next line refuses anyway
            return _unwrapped(torch.load(path, map_location="cpu", weights_only=True), path)
    except InterpretError:
        raise
    except pickle.UnpicklingError:
        raise InterpretError(
            f"weights {str(path)!r} hold more than tensors, and code in them is not run: save the network's "
            "state_dict() alone, best as safetensors"
        ) from None
    except OSError as error:
        raise InterpretError(f"weights {str(path)!r} cannot be read: {error.strerror or error}") from None
    except (SafetensorError, RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError):
        raise InterpretError(
            f"weights {str(path)!r} are damaged or no checkpoint: give a .safetensors file or a saved state_dict()"
        ) from None


def _unwrapped(content: Any, path: Path) -> State:
    """Return the state inside a checkpoint."""
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InterpretError(f"weights {str(path)!r} hold no state_dict: save the network's state_dict() alone")
    return content


def list_epochs(folder: str | os.PathLike[str]) -> dict[int, Path]:
    """Return the checkpoints in a folder by epoch, ascending: the last number in each file's name.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("epoch_10.pth", "epoch_2.pth", "best.pth", "log.txt"):
    ...     (folder / name).touch()
    >>> [(epoch, path.name) for epoch, path in list_epochs(folder).items()]
    [(2, 'epoch_2.pth'), (10, 'epoch_10.pth')]

    Files that are no checkpoints by their ending, or have no number, are left out.

    Raises:
        InterpretError: a folder that is missing or holds none, or two files of one epoch.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise InterpretError(f"checkpoints {str(folder)!r} are no folder: give the folder that holds one file an epoch")
    found: dict[int, Path] = {}
    for path in sorted(path for path in folder.iterdir() if path.suffix in ENDINGS):
        numbers = re.findall(r"\d+", path.stem)
        if not numbers:
            continue
        epoch = int(numbers[-1])
        if epoch in found:
            raise InterpretError(
                f"checkpoints {found[epoch].name!r} and {path.name!r} are both of epoch {epoch}: "
                "keep one of them in the folder, or pass checkpoints={epoch: path, …}"
            )
        found[epoch] = path
    if not found:
        raise InterpretError(
            f"checkpoints {str(folder)!r} hold no file with an epoch in its name, such as 05.safetensors or "
            "epoch_5.pth: name the files so, or pass checkpoints={epoch: path, …}"
        )
    return dict(sorted(found.items()))


def with_plain_names(state: State, module: nn.Module) -> State:
    """Return weights without what `DataParallel` and `torch.compile` put before every name, if the network lacks it.

    >>> list(with_plain_names({"module.weight": torch.zeros(1, 1)}, nn.Linear(1, 1, bias=False)))
    ['weight']
    """
    own = module.state_dict()
    while not any(name in own for name in state):
        prefix = next((prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in state)), None)
        if prefix is None or not state:
            break
        plain = OrderedDict((name.removeprefix(prefix), tensor) for name, tensor in state.items())
        if hasattr(state, "_metadata"):  # the versions of the modules that were saved
            versions = {name.removeprefix(prefix): version for name, version in state._metadata.items()}
            vars(plain)["_metadata"] = versions
        state = plain
    return state


def load_state(module: nn.Module, state: State, source: str) -> None:
    """Put tensors into a network, all of them and no others.

    >>> load_state(nn.Linear(2, 1), {"weight": torch.zeros(1, 3), "scale": torch.ones(1)}, "weights 'a.pth'")
    Traceback (most recent call last):
        ...
    interpret.errors.InterpretError: weights 'a.pth' do not fit the network: 1 missing (bias), 1 unexpected (scale),
    1 of another shape (weight is 1×3, should be 1×2)

    Args:
        module: changed in place.
        state: by the names of `module.state_dict()`.
        source: what the error calls them.

    Raises:
        InterpretError: tensors that are missing, left over or of another shape: the first of each, and how many.
    """
    if not hasattr(state, "_metadata"):
        state = OrderedDict(state)
        # some networks (MNASNet) refuse weights that do not tell their version: take it to be the present one
        vars(state)["_metadata"] = {"": getattr(module.state_dict(), "_metadata", {}).get("", {})}
    try:
        module.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        raise InterpretError(f"{source} do not fit the network: {_differences(module, state) or error}") from None


def _differences(module: nn.Module, state: State) -> str:
    own = module.state_dict()
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in own]
    reshaped = [
        f"{name} is {_by(state[name])}, should be {_by(own[name])}"
        for name in own
        if name in state and own[name].shape != state[name].shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
    return ", ".join(f"{len(names)} {kind} ({_first(names)})" for kind, names in kinds if names)


def _by(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a single number"


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


@contextmanager
def tensors_only() -> Iterator[None]:
    """Make every `torch.load` refuse code, also in libraries that would ask for it.

    >>> with tensors_only():
    ...     os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"]
    '1'
    """
    names = ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    os.environ[names[0]] = "1"
    try:
        yield
    finally:
        del os.environ[names[0]]
        os.environ.update(before)
