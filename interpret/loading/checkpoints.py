"""Read weights from files without running code in them, and load them into a network."""

from __future__ import annotations

import json
import os
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from interpret.network.torch_internals import keep_versions, versions_of
from interpret.support.errors import InterpretError, unknown

State = Mapping[str, Tensor]

OTHER_FORMATS = {
    "an HDF5 file, such as Keras writes": (b"\x89HDF\r\n\x1a\n",),
    "a GGUF model": (b"GGUF",),
    "a TensorFlow Lite model": (b"TFL3",),
    "a NumPy array": (b"\x93NUMPY",),
    "a compressed file": (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"\x28\xb5\x2f\xfd", b"Rar!"),
    "a picture": (b"\x89PNG", b"\xff\xd8\xff", b"GIF8"),
    "a PDF": (b"%PDF",),
    "a program": (b"\x7fELF", b"MZ"),
}
"""Files that are given as weights by mistake, by their first bytes."""

WRAPPERS = ("state_dict", "model_state_dict", "model")
"""The usual keys of weights in a training script's checkpoint."""

ENDINGS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
"""The suffixes of checkpoint files."""

NO_HEAD = "no-head"
"""The suffix of `weights` that leaves out the head of a file."""


def split_weights(weights: str | os.PathLike[str]) -> tuple[Path, str, bool]:
    """Split `weights` into the file, the key of a state dict in it, and whether its head is left out.

    >>> file, key, without_head = split_weights("last.ckpt:ema:no-head")
    >>> file.name, key, without_head
    ('last.ckpt', 'ema', True)
    """
    text = os.fspath(weights)
    without_head = text.endswith(f":{NO_HEAD}") and not Path(text).expanduser().exists()
    text = text.removesuffix(f":{NO_HEAD}") if without_head else text
    file, colon, key = text.rpartition(":")
    if not colon or not file or Path(text).expanduser().exists() or re.search(r"[/\\\\]", key):
        file, key = text, ""
    return Path(file).expanduser(), key, without_head


def read_state(path: str | os.PathLike[str], module: nn.Module | None = None, key: str = "") -> State:
    """Return the tensors of a checkpoint by name, from a `.safetensors` file or a file of `torch.save`.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "last.pth"
    >>> torch.save({"epoch": 3, "state_dict": {"weight": torch.zeros(2)}}, path)
    >>> read_state(path)["weight"]
    tensor([0., 0.])

    The weights may be under a key, such as `{"state_dict": …}`, beside an optimiser and an epoch. Of several state
    dicts, the only one that fits the network is returned. Code in a file is never run.

    Args:
        path: the file.
        module: the network to fit; None: the state dict under the first usual key is returned.
        key: the key of the state dict, such as "ema" or "ema.module".

    Raises:
        InterpretError: a file that is missing, damaged or not a checkpoint, or that holds other objects than tensors;
            several state dicts that fit, with their keys.
    """
    path = Path(path)
    try:
        what = _reason_not_weights(path)
        if what:
            raise InterpretError(f"weights {str(path)!r} {what}")
        if path.suffix == ".safetensors":
            return _choose_state(load_file(path), path, module, key)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about archives that the next line refuses
            return _choose_state(torch.load(path, map_location="cpu", weights_only=True), path, module, key)
    except InterpretError:
        raise
    except pickle.UnpicklingError:
        raise InterpretError(
            f"weights {str(path)!r} hold more than tensors, and code in them is not run: save the network's "
            "state_dict() alone, best as safetensors"
        ) from None
    except OSError as error:
        raise InterpretError(f"weights {str(path)!r} cannot be read: {error.strerror or error}") from None
    except MemoryError:
        raise
    except Exception:  # a damaged file may raise any error
        raise InterpretError(
            f"weights {str(path)!r} are damaged or no checkpoint: give a .safetensors file or a saved state_dict()"
        ) from None


def _reason_not_weights(path: Path) -> str:
    """Return why a file cannot be weights, as the end of a sentence; "" if it may be."""
    if path.is_dir():
        return "are a folder: give the file in it that holds the weights"
    if not path.is_file() and path.exists():
        return "are no plain file but a pipe or a device, which may have no end: save them as a file"
    with path.open("rb") as file:
        begin = file.read(4096)
    text = begin.lstrip().lower()
    for what, starts in OTHER_FORMATS.items():
        if begin.startswith(starts) or (begin[4:].startswith(b"TFL3") and what == "a TensorFlow Lite model"):
            return f"are {what} and not weights of PyTorch: save the network's state_dict() with torch.save"
    if re.match(rb"\x08[\x01-\x20][\x12\x1a\x22\x3a\x42]", begin) or path.suffix.lower() == ".onnx":
        return "are an ONNX model and not weights alone: give the file as the model, and leave out weights"
    if not begin:
        return "are an empty file: download or save them again"
    if begin.startswith(b"version https://git-lfs"):
        return "are a Git LFS pointer and not the weights themselves: run git lfs pull in the folder"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "are a web page and not the weights: the link leads to another page, so download the file itself"
    if begin.startswith(b"PK\x03\x04"):
        if not zipfile.is_zipfile(path):
            return "are truncated: download or save them again"
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any("/code/" in name for name in names):
            return "are a scripted network and not a state_dict: save the state_dict() of the network itself"
        if "model.weights.h5" in names:
            return "are a Keras model and not weights of PyTorch: give a file of this kind its ending .keras"
        if not any(name.endswith("data.pkl") for name in names):
            return "are a ZIP archive and not a checkpoint of PyTorch: give the file in it that holds the weights"
    if path.suffix == ".safetensors" and len(begin) > 8 and begin[8:9] == b"{":
        size = int.from_bytes(begin[:8], "little")
        with path.open("rb") as file:
            header = json.loads(file.read(8 + size)[8:]) if size < path.stat().st_size else {}
        ends = [one["data_offsets"][1] for name, one in header.items() if name != "__metadata__"]
        if not header or 8 + size + max(ends, default=0) > path.stat().st_size:
            return "are truncated: download or save them again"
    return ""


def _states(content: Any, depth: int = 2) -> dict[str, State]:
    """Return the state dicts in a checkpoint by key; a mapping of tensors alone has the key ""."""
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        return {}
    if content and all(isinstance(value, Tensor) for value in content.values()):
        return {"": content}
    if depth == 0:
        return {}
    found = {name: _states(value, depth - 1) for name, value in content.items()}
    return {f"{name}.{key}".rstrip("."): state for name, inner in found.items() for key, state in inner.items()}


def _choose_state(content: Any, path: Path, module: nn.Module | None, key: str) -> State:
    """Return the state dict under a key, or the one that fits a network."""
    states = _states(content)
    if key:
        inside = [name for name in states if name == key or name.startswith(f"{key}.")]
        if len(inside) == 1:
            return states[inside[0]]
        parts = [part for state in states.values() if (part := _without(state, f"{key}."))]
        if not inside and len(parts) == 1:
            return parts[0]
        if states:
            raise unknown(f"state_dict in {path.name!r}", key, inside or [name for name in states if name])
    if not states and isinstance(content, Mapping) and any(not isinstance(name, str) for name in content):
        other = next(name for name in content if not isinstance(name, str))
        raise InterpretError(
            f"weights {str(path)!r} name a tensor {other!r}, and names must be texts: save the network's state_dict()"
        )
    if not states:
        raise InterpretError(f"weights {str(path)!r} hold no state_dict: save the network's state_dict() alone")
    if module is not None and len(states) > 1:
        fitting = [name for name, state in states.items() if _prefixes(state, module)[1]]
        if len(fitting) > 1:
            keys = ", ".join(fitting)
            raise InterpretError(
                f"weights {str(path)!r} hold {len(fitting)} state dicts that fit the network ({keys}): choose one of "
                f"them, such as {f'{path.name}:{fitting[0]}'!r}"
            )
        if fitting:
            return states[fitting[0]]
    usual = [name for wrapper in WRAPPERS for name in states if name.split(".")[0] == wrapper]
    return states[(usual or list(states))[0]]


def _prefixes(state: State, module: nn.Module) -> tuple[dict[str, int], list[str]]:
    """Return how many of the network's names follow each prefix, and the prefixes that all of them follow."""
    own = {name for name in module.state_dict() if not name.endswith("num_batches_tracked")}
    given: dict[str, int] = {"": 0}
    for name in state:
        parts = name.split(".")
        for depth in range(len(parts)):
            if ".".join(parts[depth:]) in own:
                prefix = "".join(f"{part}." for part in parts[:depth])
                given[prefix] = given.get(prefix, 0) + 1
    return given, [prefix for prefix, count in given.items() if own and count == len(own)]


def list_epochs(folder: str | os.PathLike[str]) -> dict[int, Path]:
    """Return the checkpoints in a folder by epoch, the last number in each file's name, in ascending order.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("epoch_10.pth", "epoch_2.pth", "best.pth", "log.txt"):
    ...     (folder / name).touch()
    >>> [(epoch, path.name) for epoch, path in list_epochs(folder).items()]
    [(2, 'epoch_2.pth'), (10, 'epoch_10.pth')]

    Files without the suffix of a checkpoint or without a number are left out.

    Raises:
        InterpretError: a folder that is missing or has no such file, or two files of one epoch.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise InterpretError(f"checkpoints {str(folder)!r} are not a folder: give one that holds a file for each epoch")
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


def with_network_names(state: State, module: nn.Module) -> State:
    """Return weights by the network's names, without a prefix and without tensors of other modules.

    >>> list(with_network_names({"net.module.weight": torch.zeros(1, 1)}, nn.Linear(1, 1, bias=False)))
    ['weight']

    `DataParallel`, `torch.compile` and training modules put a prefix before every name (`module.`, `model.`,
    `backbone.`). The prefix that all of the network's names follow is removed, or else the one that most of them
    follow, and tensors without the prefix are left out. `n_averaged`, the counter of averaged models, is left out too.

    Raises:
        InterpretError: several prefixes fit, such as those of a student and its teacher.
    """
    own = module.state_dict()
    if "n_averaged" in state and "n_averaged" not in own:
        state = _without(state, "", but="n_averaged")
    given, fitting = _prefixes(state, module)
    if len(fitting) > 1 and "" not in fitting:
        names = [prefix.rstrip(".") for prefix in fitting]
        raise InterpretError(
            f"the weights hold {len(fitting)} networks that fit, {' and '.join(map(repr, names))}: choose one of "
            f"them, as 'FILE:{names[0]}'"
        )
    if fitting:
        return state if "" in fitting else _without(state, fitting[0])
    while state and not any(name in own for name in state):  # nothing fits: shorten the names for the error
        first = next(iter(state)).partition(".")[0] + "."
        if not all(name.startswith(first) for name in state):
            break
        state = _without(state, first)
    given, _ = _prefixes(state, module)
    best = max(given, key=lambda prefix: (given[prefix], -len(prefix)))
    return _without(state, best) if given[best] > max(given[""], len(own) / 2) else state


def _without(state: State, prefix: str, but: str = "") -> State:
    """Return the tensors whose names begin with a prefix, by their names without it."""
    plain: OrderedDict[str, Tensor] = OrderedDict(
        (name.removeprefix(prefix), tensor) for name, tensor in state.items() if name.startswith(prefix) and name != but
    )
    versions = versions_of(state)
    if versions is not None:
        kept = {name.removeprefix(prefix): one for name, one in versions.items() if f"{name}.".startswith(prefix)}
        keep_versions(plain, kept)
    return plain


def without_head(state: State, module: nn.Module) -> tuple[State, list[str]]:
    """Replace the head in weights for other classes by the network's own; return also the names of its layers.

    >>> network = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    >>> state = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 10)).state_dict()
    >>> without_head(state, network)[1]
    ['1']

    The head is each layer whose tensors differ from the network's in their first dimension alone, the number of
    classes, and the last layer with weights if the file has none for it.
    """
    own = module.state_dict()
    shaped = {name for name in own if name in state and own[name].shape != state[name].shape}
    layers = {name.rpartition(".")[0] for name in shaped}
    heads = [
        layer
        for layer in layers
        if all(own[name].shape[1:] == state[name].shape[1:] and own[name].dim() for name in shaped
               if name.rpartition(".")[0] == layer)
    ]  # fmt: skip
    last = next((name.rpartition(".")[0] for name in reversed(own)), "")
    if f"{last}.weight" not in state and last not in heads:
        heads.append(last)
    left = OrderedDict((name, tensor) for name, tensor in state.items() if not _in_any(name, heads))
    left.update((name, own[name]) for name in own if _in_any(name, heads))
    keep_versions(left, versions_of(state))
    return left, sorted(heads)


def _in_any(name: str, layers: Sequence[str]) -> bool:
    return any(name.startswith(f"{layer}.") for layer in layers)


def load_state(module: nn.Module, state: State, source: str) -> None:
    """Load tensors into a network, which must be exactly those that it has.

    >>> load_state(nn.Linear(2, 1), {"weight": torch.zeros(1, 3), "scale": torch.ones(1)}, "weights 'a.pth'")
    Traceback (most recent call last):
        ...
    interpret.support.errors.InterpretError: weights 'a.pth' do not fit the network: 1 missing (bias), 1
    unexpected (scale),
    1 of another shape (weight is 1×3, should be 1×2)

    Args:
        module: changed in place.
        state: the tensors by the names of `module.state_dict()`.
        source: the name of the weights in an error.

    Raises:
        InterpretError: tensors that are missing, unexpected or of another shape, with their number and first names.
    """
    if versions_of(state) is None:
        state = OrderedDict(state)
        # some networks (MNASNet) refuse weights without a version: assume the current one
        keep_versions(state, {"": (versions_of(module.state_dict()) or {}).get("", {})})
    own = module.state_dict()
    for name, tensor in state.items():
        if name in own and tensor.is_complex() and not own[name].is_complex():
            raise InterpretError(f"{source} do not fit the network: {name} holds complex numbers, and should be real")
    try:
        module.load_state_dict(state)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise InterpretError(f"{source} do not fit the network: {_differences(module, state) or error}") from None


def _differences(module: nn.Module, state: State) -> str:
    """Return how tensors differ from those of a network, for an error."""
    own = module.state_dict()
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in own]
    reshaped = [
        f"{name} is {_shape_text(state[name])}, should be {_shape_text(own[name])}"
        for name in own
        if name in state and own[name].shape != state[name].shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
    return ", ".join(f"{len(names)} {kind} ({_first_names(names)})" for kind, names in kinds if names)


def _shape_text(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a single number"


def _first_names(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


@contextmanager
def only_tensors_loaded() -> Iterator[None]:
    """Make every `torch.load` refuse code, even where a library asks for it.

    >>> with only_tensors_loaded():
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
