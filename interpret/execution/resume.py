"""Unfinished work: save its state in a file, from which the same call resumes."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from interpret.execution.ranks import ranks
from interpret.images.sources import Images
from interpret.network.model import Model
from interpret.support.checksums import DamagedFileError, check_seal, sealed
from interpret.support.errors import InterpretError, warn
from interpret.support.files import check_place, replacing
from interpret.support.interrupts import interrupts_delayed

SAVE_EVERY = 60.0
"""Seconds between two saves."""

MADE_BY = "interpret: unfinished work"

Part = TypeVar("Part")

logger = logging.getLogger(__name__)


class Unfinished:
    """The state of unfinished work in a file, from which work with the same settings resumes; None: keep no state.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), "sum.safetensors")
    >>> total = torch.zeros(1)
    >>> Unfinished(file, {"start": 0}).process([3, 4], total.add_, lambda: {"total": total})
    {'total': tensor([7.])}
    >>> Unfinished(file, {"start": 0}).load(), Unfinished(file, {"start": 1}).load()
    ({'total': tensor([7.])}, {})
    """

    def __init__(
        self,
        file: str | os.PathLike[str] | None,
        settings: Mapping[str, Any],
        before_saving: Callable[[], object] = lambda: None,
    ) -> None:
        self.file = None if file is None else Path(file)
        self._before_saving = before_saving
        self.settings = json.dumps(settings, sort_keys=True)
        self._saved = time.monotonic()

    @classmethod
    def of(cls, file: str | os.PathLike[str] | None, model: Model, data: Images, **settings: Any) -> Unfinished:
        """Return the state of work on a model and data, with their hashes among the settings."""
        if file is None:
            return cls(None, {})
        return cls(file, settings | {"weights": model.weights_hash, "data": data.fingerprint})

    def load(self) -> dict[str, Tensor]:
        """Return the state; empty if there is none with these settings.

        Raises:
            InterpretError: the file is a folder or does not hold a state.
        """
        if self.file is None:
            return {}
        check_place(self.file, holds_unfinished)
        if not self.file.exists():
            return {}
        try:
            check_seal(self.file)
        except DamagedFileError as error:
            warn(f"{error}: the work starts again")
            return {}
        with safe_open(self.file, "pt") as stored:
            if stored.metadata()["settings"] != self.settings:
                logger.info("%s is unfinished work with other settings: starting over", self.file)
                return {}
            logger.info("continuing from %s", self.file)
            return {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118 - no mapping

    def process(
        self, parts: Iterable[Part], update: Callable[[Part], object], state: Callable[[], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Process this rank's parts as they arrive; save the state every minute, at the end and when interrupted.

        An interrupt waits until the current part is processed completely. All ranks save at the same time: `state`
        returns on rank 0 the state of all, as this function does at the end.
        """
        begun = updating = False
        try:
            for part in parts:
                with interrupts_delayed(second_too=True):
                    begun = updating = True
                    update(part)
                    updating = False
                if time.monotonic() - self._saved > SAVE_EVERY:
                    self._save_together(state, False)
        except KeyboardInterrupt:
            self._save_together(state, True)
            raise
        except Exception:  # an error of the disk that holds the images
            if begun and not updating and ranks().size == 1:  # other ranks would take this one's part for finished
                self.save(dict(state()))
            raise
        while True:
            found, all_finished = self._save_together(state, True)
            if all_finished:
                return found

    def _save_together(
        self, state: Callable[[], Mapping[str, Tensor]], finished: bool
    ) -> tuple[dict[str, Tensor], bool]:
        """Save the state of all ranks, when all have come here; return it, and whether all have finished."""
        with interrupts_delayed(second_too=True):  # an exchange that one rank leaves would go wrong for all
            all_finished = ranks().all(finished)
            found = dict(state())
            if ranks().first:
                self.save(found)
            self._saved = time.monotonic()
            return found, all_finished

    def save(self, found: Mapping[str, Tensor]) -> None:
        """Save a state, unless it is empty."""
        if self.file is not None and found:
            self._before_saving()
            tensors = {key: value.contiguous() for key, value in found.items()}
            with replacing(self.file, holds_unfinished) as new:
                new.write_bytes(sealed(save(tensors, {"settings": self.settings, "made_by": MADE_BY})))
            logger.info("saved unfinished work in %s", self.file)
        self._saved = time.monotonic()

    def refuse_others(self, names: Collection[str]) -> None:
        """Refuse the state's folder if it holds other files than these, or any of these without a state."""
        folder = self.file.parent if self.file is not None else None
        for path in sorted(folder.iterdir()) if folder is not None and folder.exists() else ():
            if path.name not in names or (self.file is not None and not self.file.exists()):
                raise InterpretError(f"{str(path)!r} was not written by interpret: move it")

    def forget(self) -> None:
        if self.file is not None and self.file.exists() and holds_unfinished(self.file):
            self.file.unlink()


class UnfinishedParts(Unfinished):
    """Unfinished work whose state at each save is what was found since the one before; each goes into its own file.

    So no more is written than is found, however often it is saved.

    >>> import tempfile
    >>> unfinished = UnfinishedParts(Path(tempfile.mkdtemp(), "found"), {})
    >>> unfinished.save({"squares": torch.tensor([0, 1])})
    >>> unfinished.save({"squares": torch.tensor([4])})
    >>> [part["squares"].tolist() for part in unfinished.load_parts()]
    [[0, 1], [4]]
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], before_saving: Callable[[], object] = lambda: None
    ) -> None:
        super().__init__(None, settings, before_saving)
        self.folder = folder

    def _files(self) -> list[Path]:
        found = self.folder.glob("*.safetensors") if self.folder.is_dir() else ()
        return sorted((file for file in found if file.stem.isdecimal()), key=lambda file: int(file.stem))

    def load_parts(self) -> Iterator[dict[str, Tensor]]:
        """Yield the parts with these settings that are as they were written."""
        for file in self._files():
            self.file = file
            part = self.load()
            if part:
                yield part

    def save(self, found: Mapping[str, Tensor]) -> None:
        last = self._files()[-1:]
        self.file = self.folder / f"{int(last[0].stem) + 1 if last else 0}.safetensors"
        super().save(found)

    def forget(self) -> None:
        for file in self._files():
            self.file = file
            super().forget()
        with suppress(OSError):  # it is not there, or holds other files
            self.folder.rmdir()


def layers_to_resume(file: Path, missing: list[str], is_done: Callable[[str], bool], **settings: Any) -> list[str]:
    """Return the layers to work on: those missing, or all of unfinished work of which just they have no result yet.

    A process may be killed between the results of two layers. The state of all of them is complete then, and is used
    again. If no result is missing, the state is removed.
    """
    saved = _settings_in(file)
    if saved is None:
        return missing
    layers = saved.pop("layers", [])
    if saved != settings or not all(is_done(one) or one in missing for one in layers):
        return missing
    if not missing:
        file.unlink()
    return layers if missing and set(missing) <= set(layers) else missing


def holds_unfinished(file: Path) -> bool:
    """Return whether a file holds the state of unfinished work, and may therefore be replaced."""
    with suppress(SafetensorError), safe_open(file, "pt") as stored:
        metadata = stored.metadata() or {}
        return metadata.get("made_by") == MADE_BY and "settings" in metadata
    return False


def read_unfinished(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Return the settings and the state of unfinished work in a file; None if it holds none.

    Raises:
        DamagedFileError: the file is not as it was written.
    """
    settings = _settings_in(file)
    if settings is None:
        return None
    check_seal(file)
    return settings, load_file(file)


def _settings_in(file: Path) -> dict[str, Any] | None:
    """Return the settings of unfinished work in a file; None if it holds none."""
    if not file.is_file() or not holds_unfinished(file):
        return None
    with safe_open(file, "pt") as stored:
        found: dict[str, Any] = json.loads(stored.metadata()["settings"])
        return found


def below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a state whose names start with a prefix, with the prefix removed.

    >>> list(below("top/", {"top/values": torch.zeros(1), "labels": torch.zeros(1)}))
    ['values']
    """
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def pack(value: Any) -> Tensor:
    """Return a value that JSON can represent as a tensor, to store with other tensors.

    >>> unpack(pack({"torn.png": "it is no picture"}))
    {'torn.png': 'it is no picture'}
    """
    return torch.from_numpy(np.frombuffer(json.dumps(value).encode(), np.uint8).copy())


def unpack(packed: Tensor) -> Any:
    return json.loads(packed.numpy().tobytes())
