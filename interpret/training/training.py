"""Train a model folder by its recipe, to the same bytes every time."""

from __future__ import annotations

import hashlib
import io
import math
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from interpret.images.datasets import load_dataset
from interpret.loading.folders import build_from_file, model_folder, shipped_models
from interpret.loading.recipes import Recipe, read_recipe
from interpret.network.forward import call_network
from interpret.network.model import Model
from interpret.support.errors import InterpretError, unknown
from interpret.support.files import WORKSPACE, any_file, discard, replacing, sweep_tree, write_text
from interpret.support.locks import locked
from interpret.support.manifest import check_folder, read_manifest, updating
from interpret.support.progress import progress
from interpret.training.losses import LOSSES
from interpret.training.measured_card import with_measurement
from interpret.training.optimizers import OPTIMIZERS, SCHEDULES
from interpret.training.reproducibility import deterministic_algorithms, seeded
from interpret.training.scores import Epoch, Score, TrainingResult
from interpret.training.tasks import find_task

REQUIRED_FILES = ("model.py", "recipe.toml")
"""The files that a model folder must have before it is trained."""

UNFINISHED = ".unfinished"
"""The folder in a model folder that holds the state of an interrupted training."""


def train(
    folder: str | os.PathLike[str],
    *,
    epochs: int | None = None,
    seed: int | None = None,
    device: str | torch.device | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = True,
) -> TrainingResult:
    """Train a model folder by its `recipe.toml`, and write the weights and the measured accuracy into it.

    >>> result = train("lenet", out="my-lenet")  # doctest: +SKIP
    >>> result.held_out.accuracy  # doctest: +SKIP
    0.992

    The folder gets `weights.safetensors`, `epochs/NN.safetensors` for each epoch that the recipe keeps, and in
    `card.md` the accuracy on the training and the held-out images, between the markers `<!-- measured:begin -->`
    and `<!-- measured:end -->`. Older files are replaced when training is complete.

    The same recipe, seed, device and number of threads give the same bytes on the same machine. After an interrupt,
    the next call continues after the last complete epoch, with the same result. The states of torch's random
    generators are restored.

    Args:
        folder: a folder with `model.py`, whose `build()` returns the network, and `recipe.toml`; or the name of a
            shipped model.
        epochs: the number of epochs, instead of the recipe's; of the epochs to keep, those up to it are kept.
        seed: the seed, instead of the recipe's.
        device: where the network runs; None: the processor.
        out: another folder to write, which becomes a complete model folder.
        resume: whether to continue an interrupted training, or to start again.

    Returns:
        a `TrainingResult` with the scores on the training and the held-out images, after each epoch and at the
        end.

    Raises:
        InterpretError: an invalid recipe, data that is not installed, a network that does not fit the data, a folder
            that cannot be written, an interrupted training by another recipe, a loss that is not finite.
    """
    source = _source(folder)
    recipe = _with_overrides(read_recipe(source / "recipe.toml"), epochs, seed)
    target = source if out is None else Path(out)
    _check_target(target, source)
    with locked(target):
        return _train(source, recipe, target, torch.device("cpu" if device is None else device), resume)


def _train(source: Path, recipe: Recipe, target: Path, device: torch.device, resume: bool) -> TrainingResult:
    """Train into a folder that no other process trains into."""
    _check_target(target, source)  # another process may have trained into it meanwhile
    unfinished = target / UNFINISHED
    if not resume:
        _remove_unfinished(unfinished)

    run = _Run(source, recipe, device)
    run.restore(unfinished / "state.pt")
    batches, total = run.batches_per_epoch, recipe.train.epochs
    name = recipe.model.title or source.name
    with (
        deterministic_algorithms(),
        progress(total * batches, name, unit="batch", initial=len(run.epochs) * batches) as bar,
    ):

        def report(score: Score) -> None:
            shown = {name: f"{value:.2%}" for name, value in [score.measure] if not math.isnan(value)}
            if run.epochs:
                shown["held_out"] = f"{run.epochs[-1].held_out.measure[1]:.2%}"
            bar.set_postfix(epoch=len(run.epochs) + 1, loss=f"{score.loss:.3f}", **shown, refresh=False)
            bar.update()

        while len(run.epochs) < total:
            number = run.train_epoch(report)
            if number in recipe.train.keep:
                write_weights(unfinished / _epoch_file(number), run.module)
            run.save(unfinished / "state.pt")
        result = TrainingResult(target, tuple(run.epochs), run.score(run.training_items))

    _publish(run, result, source)
    return result


class _Run:
    """The state of a training: the network, its optimiser, and the results of each epoch so far."""

    def __init__(self, source: Path, recipe: Recipe, device: torch.device) -> None:
        self.recipe = recipe
        self.device = device
        self.dataset = load_dataset(recipe.data.name)
        self.training_items = np.flatnonzero(~self.dataset.held_out)
        self.held_out_items = np.flatnonzero(self.dataset.held_out)
        self.fingerprint = hashlib.sha256(repr(recipe).encode() + (source / "model.py").read_bytes()).hexdigest()
        self.epochs: list[Epoch] = []
        with seeded(recipe.train.seed, 0, device):
            network = build_from_file(source / "model.py", "build")
        self.module = (network.module if isinstance(network, Model) else network).to(device)
        # float64 for a network that was built under torch.set_default_dtype(torch.float64)
        self.dtype = next(self.module.parameters()).dtype
        self.optimizer = OPTIMIZERS[recipe.train.optimizer](self.module, recipe.train)
        self.schedule = SCHEDULES[recipe.train.schedule](self.optimizer, recipe.train)
        self.loss = LOSSES[recipe.train.loss]
        self.task = find_task(recipe, self.dataset, self.dtype)
        self._check_fit()

    @property
    def batches_per_epoch(self) -> int:
        return -(-len(self.training_items) // self.recipe.train.batch_size)

    def _check_fit(self) -> None:
        classes = self.recipe.model.class_names
        if classes and len(classes) != len(self.task.classes):
            raise InterpretError(
                f"[model] classes are {len(classes)} where data set {self.dataset.name!r} has "
                f"{len(self.task.classes)}: name each"
            )
        images = torch.zeros(2, *self.recipe.input.input_shape, dtype=self.dtype, device=self.device)
        self.module.eval()
        with torch.inference_mode():
            self.task.check_answer(list(call_network(self.module, images).shape))

    def train_epoch(self, report: Callable[[Score], None]) -> int:
        """Train one more epoch, report the score so far after each batch, and return its number."""
        number = len(self.epochs) + 1
        loss_sum, seen, tally = 0.0, 0, self.task.tally()
        self.module.train()
        with seeded(self.recipe.train.seed, number, self.device):
            order = self.training_items[torch.randperm(len(self.training_items)).numpy()]
            for start in range(0, len(order), self.recipe.train.batch_size):
                items = order[start : start + self.recipe.train.batch_size]
                outputs, targets = self._answer(items, augmented=True)
                loss = self.loss(outputs, targets)
                if not loss.isfinite():
                    raise InterpretError(f"the loss is {loss.item()} in epoch {number}: lower [train] lr in the recipe")
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                seen += len(items)
                loss_sum += loss.item() * len(items)
                tally.add(outputs, targets, None)
                score = tally.score(seen, loss_sum / seen)
                report(score)
        self.schedule.step()
        self.epochs.append(Epoch(number, score, self.score(self.held_out_items)))
        return number

    @torch.inference_mode()
    def score(self, items: np.ndarray) -> Score:
        """Measure the current network on items of the data set, without augmentation."""
        loss_sum, tally = 0.0, self.task.tally()
        self.module.eval()
        for start in range(0, len(items), 500):
            some = items[start : start + 500]
            outputs, targets = self._answer(some, augmented=False)
            loss_sum += self.loss(outputs, targets).item() * len(some)
            tally.add(outputs, targets, some)
        return tally.score(len(items), loss_sum / len(items))

    def _answer(self, items: np.ndarray, augmented: bool) -> tuple[Tensor, Tensor]:
        """Return the network's outputs for items of the data set, and the targets, both on the device."""
        images, targets = self.task.batch(items, augmented)
        return call_network(self.module, images.to(self.device)), targets.to(self.device)

    def save(self, path: Path) -> None:
        """Write the state for `restore`."""
        state = io.BytesIO()
        torch.save(
            {
                "fingerprint": self.fingerprint,
                "epochs": [astuple(epoch) for epoch in self.epochs],
                "module": self.module.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
            },
            state,
        )
        with replacing(path, any_file) as new:
            new.write_bytes(state.getbuffer())

    def restore(self, path: Path) -> None:
        """Continue from the last state that `save` wrote, if there is one."""
        if not path.exists():
            return
        remedy = "delete that folder to start again"
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError):
            raise InterpretError(f"the interrupted training in {str(path.parent)!r} is damaged: {remedy}") from None
        if state["fingerprint"] != self.fingerprint:
            raise InterpretError(f"{str(path.parent)!r} holds an interrupted training by another recipe: {remedy}")
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.epochs = [Epoch(number, Score(*train), Score(*held_out)) for number, train, held_out in state["epochs"]]


def _source(folder: str | os.PathLike[str]) -> Path:
    """Return the model folder by name or path, after checking that it is one."""
    source = model_folder(folder) or Path(folder)
    if not source.is_dir():
        raise unknown("model folder", folder, sorted(path.parent.name for path in shipped_models().glob("*/model.py")))
    for name in REQUIRED_FILES:
        if not (source / name).is_file():
            raise InterpretError(f"{str(folder)!r} has no {name}: a model folder has {' and '.join(REQUIRED_FILES)}")
    return source


def _with_overrides(recipe: Recipe, epochs: int | None, seed: int | None) -> Recipe:
    """Return a recipe with another number of epochs and another seed."""
    table = recipe.train
    if epochs is not None:
        table = replace(table, epochs=epochs, keep=tuple(epoch for epoch in table.keep if epoch <= epochs))
    if seed is not None:
        table = replace(table, seed=seed)
    return replace(recipe, train=table)


def _check_target(target: Path, source: Path) -> None:
    """Refuse a folder to which the result could not be written."""
    remedy = "name another folder with out=... (--out on the command line)"
    if target.resolve().is_relative_to(Path(__file__).parents[1]):
        raise InterpretError(f"{str(target)!r} belongs to the installed package, which is never changed: {remedy}")
    nearest = next(folder for folder in (target, *target.absolute().parents) if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise InterpretError(f"{str(target)!r} cannot be written: {remedy}")
    if not target.exists():
        return
    check_folder(target, ("weights.safetensors", "epochs"), thorough=True)
    held = {path.name for path in target.iterdir() if path.name != UNFINISHED and not path.name.startswith(WORKSPACE)}
    same = all(name in held and (target / name).read_bytes() == (source / name).read_bytes() for name in REQUIRED_FILES)
    if held and not same:
        raise InterpretError(f"{str(target)!r} holds something else than a training of {str(source)!r}: {remedy}")


def _remove_unfinished(unfinished: Path) -> None:
    """Remove the state of an interrupted training, and what a process that was killed left beside it."""
    if unfinished.is_dir() and not unfinished.is_symlink():
        sweep_tree(unfinished)
    kept = [path.relative_to(unfinished).as_posix() for path in unfinished.glob("epochs/[0-9]*.safetensors")]
    discard(unfinished, ["state.pt", *kept])


def _publish(run: _Run, result: TrainingResult, source: Path) -> None:
    """Replace the folder's earlier files by those of the complete training."""
    target = result.folder
    card = target / "card.md" if (target / "card.md").exists() else source / "card.md"
    text = card.read_text(encoding="utf-8") if card.exists() else f"# {run.recipe.model.title or target.name}\n"
    with updating(target, among_others=True) as new:
        (new / "epochs").mkdir(parents=True)
        for name in REQUIRED_FILES:
            if name in (read_manifest(target) or {}) or not (target / name).exists():
                shutil.copyfile(source / name, new / name)
        for number in run.recipe.train.keep:
            shutil.copy(target / UNFINISHED / _epoch_file(number), new / _epoch_file(number))
        if not run.recipe.train.keep:
            (new / "epochs").rmdir()
        write_weights(new / "weights.safetensors", run.module)
    write_text(target / "card.md", with_measurement(text, _measurement(run, result)), any_file)
    _remove_unfinished(target / UNFINISHED)


def _measurement(run: _Run, result: TrainingResult) -> str:
    """Return the measured accuracy as Markdown."""
    table = run.recipe.train
    rows = run.task.tables({"training": result.train, "held out": result.held_out})
    return "\n".join(
        [
            f"Measured by `interpret train` on {run.dataset.title} after {table.epochs} epochs (seed {table.seed}), "
            f"with torch {torch.__version__} on {run.device.type}:",
            "",
            *rows,
        ]
    )


def _epoch_file(epoch: int) -> str:
    return f"epochs/{epoch:02d}.safetensors"


def write_weights(path: Path, module: nn.Module) -> None:
    """Write a module's parameters and buffers as safetensors."""
    content = save({name: tensor.contiguous() for name, tensor in module.state_dict().items()})
    with replacing(path, any_file) as new:
        new.write_bytes(content)
