"""Open what a subcommand works on: a model and images, and the study that keeps the results, if there is one."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from interpret.cli.answers import fail, note, say, say_skipped
from interpret.cli.reading import read_decoding, read_whole_number
from interpret.execution.ranks import ranks
from interpret.support.recording import Recording, current_recording

if TYPE_CHECKING:
    from interpret.study.study import Study


held = ExitStack()
"""The lock of the study that the command computes into, until the subcommand ends."""

MOST_READERS = 16
"""The largest default number of processes that read images."""


def releasing(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Return a subcommand that releases the lock of its study when it ends."""

    @functools.wraps(verb)
    def run(*args: Any, **kwargs: Any) -> Any:
        with held:
            return verb(*args, **kwargs)

    return run


class Opened(NamedTuple):
    """A model and images, and the study that keeps the result, if there is one."""

    spec: str
    model: Any
    images: Any
    study: Study | None

    def unfinished(self, verb: str) -> Path | None:
        """Return the folder for a subcommand's unfinished work; None without a study."""
        return None if self.study is None else self.study.path / "unfinished" / verb

    def finish(self, verb: str) -> None:
        """Delete the unfinished work of a subcommand that has ended."""
        ranks().once(lambda: self._finish(verb))

    def _finish(self, verb: str) -> None:
        from interpret.execution.resume import holds_unfinished
        from interpret.support.files import discard

        folder = self.unfinished(verb)
        if folder is not None and folder.exists():
            kept = [path for path in folder.iterdir() if path.is_file() and holds_unfinished(path)]
            discard(folder.parent, [str(path.relative_to(folder.parent)) for path in kept])

    def keep(self, result: Any, name: str = "") -> None:
        """Keep a result in the study, if there is one, with how long it took, and print how to read it."""
        ranks().once(lambda: self._keep(result, name))

    def _keep(self, result: Any, name: str) -> None:
        from interpret.study.timings import record_timing

        if self.study is not None:
            self.study.keep(result, name)
            if work := current_recording():
                record_timing(self.study.path, f"{result.kind} {name}".strip(), work)
                work.restart()
        say_skipped(self.images)
        note(f"{result.title}. {result.reading}")

    def publish(self, result: Any, out: Path, name: str = "") -> None:
        """Keep a result, draw it, and print which file to open."""
        from interpret.results.plotting import plot

        self.keep(result, name)
        self.draw(lambda: plot(result), out)

    def draw(self, figure: Callable[[], Any], out: Path) -> None:
        """Write a figure, and print which file to open."""
        from interpret.figures.saving import write_figure

        ranks().once(lambda: write_figure(figure(), out))
        say(f"Open {out}")


def open_subject(
    model: str,
    data: str | None,
    study: Path | None = None,
    weights: str | None = None,
    crops: str | None = None,
    device: str | None = None,
    workers: int | None = None,
    batch_size: int | None = None,
    own_weights: bool = True,
    outputs: str | None = None,
    *,
    out: Path,
    decoding: tuple[float | None, bool] = (None, False),
) -> Opened:
    """Open a study's folder, or a model and images with or without a study for the result.

    Without `own_weights`, the model is loaded with random weights, as the analysis loads its own.
    """
    from interpret.images.opening import open_images
    from interpret.loading.loading import load
    from interpret.results.study_file import is_study

    find_device(device)  # before anything is loaded
    how_decoded = read_decoding(*decoding)
    if is_study(Path(model)):
        own = {"DATA": data, "--study": study, "--weights": weights, "--crops": crops, "--outputs": outputs}
        _refuse_for_study(model, own, decoding)
        opened = reopen(Path(model), device, workers, batch_size)
        opened.refuse_among_images(out, "the figure")
        _records_into(opened)
        return Opened(opened.info["made_from"]["model"], opened.model, opened.data, opened)
    if data is None:
        fail(f"{model!r} is no study's folder: give the images, too, as DATA")
    refuse_among_images(out, data, "the figure")
    if study is not None:
        how: Any = {"device": device, "workers": workers, "batch_size": batch_size, "outputs": outputs}
        opened = open_study(study, model, data, weights, crops, **how, **how_decoded)
        _records_into(opened)
        return Opened(model, opened.model, opened.data, opened)
    loaded = print_origin(load(model, weights, outputs=outputs)) if own_weights else load(model, "random")
    return Opened(model, loaded, open_images(data, loaded, crops=crops, **how_decoded), None)  # type: ignore[arg-type]


def _refuse_for_study(model: str, options: Mapping[str, object], decoding: tuple[float | None, bool]) -> None:
    """Refuse options of the model and the images for a study, which has its own."""
    decoded = {"--max-megapixels": decoding[0], "--reduced": "" if decoding[1] else None}
    for option, value in {**options, **decoded}.items():
        if value is not None:
            fail(f"{model} is a study, which has its own model and images: leave out {option} {value}".rstrip())


_recorded_in: list[Study] = []
"""The study into which the subcommand keeps a result."""


def _records_into(study: Study) -> None:
    _recorded_in[:] = [study]


def record_unfinished(verb: str, work: Recording, outcome: str) -> None:
    """Note in the study, if a result was to be kept in one, how long the work took that was not finished."""
    if _recorded_in and work.steps:
        from interpret.study.timings import record_timing

        record_timing(_recorded_in[0].path, verb, work, outcome)


def open_pictures(
    model: str,
    images: str | None,
    count: str,
    weights: str | None,
    out: Path,
    decoding: tuple[float | None, bool] = (None, False),
) -> Opened:
    """Open a model, or a study's folder, with pictures as inputs [B, C, H, W]."""
    from interpret.images.batches import read_items
    from interpret.images.folder import read_picture
    from interpret.images.opening import open_images
    from interpret.loading.loading import load
    from interpret.results.study_file import is_study

    refuse_among_images(out, images, "the figure")
    opened = reopen(Path(model)) if is_study(Path(model)) else None
    if opened is not None:
        opened.refuse_among_images(out, "the figure")
    loaded: Any = print_origin(load(model, weights)) if opened is None else opened.model
    if images is None and opened is None:
        fail(f"{model!r} is no study's folder: give the images, too, as IMAGES")
    how_decoded = read_decoding(*decoding)
    if images is None:
        _refuse_for_study(model, {}, decoding)
    if images is not None and Path(images).is_file() and not any(decoding):
        loaded.input_shape  # noqa: B018 - which says so where the model has no preprocessing
        found = loaded.preprocess(read_picture(Path(images).parent, Path(images).name))[None]
    else:
        own: Any = opened.data if opened is not None else None
        data: Any = own if images is None else open_images(images, loaded, crops="center", **how_decoded)
        found = read_items(data, evenly_spread_items(data, count) or range(len(data))).images
        say_skipped(data)
    return Opened(model, loaded, found, opened)


def reopen(folder: Path, device: str | None = None, workers: int | None = None, batch_size: int | None = None) -> Study:
    """Open a study to compute, with the model and the images of its first run."""
    return open_study(folder, device=device, workers=workers, batch_size=batch_size, **made_from(folder))


def made_from(folder: Path) -> dict[str, Any]:
    """Return from which model and data a study was made, as arguments of `open_study`."""
    from interpret.study.study import Study

    found = Study.open(folder).info["made_from"]
    if not found:
        fail(f"{folder} was not made by this command, so its model is not known: use Study(path, model, data)")
    return dict(found)


def open_study(
    folder: Path,
    model: str,
    data: str | list[str],
    weights: str | None = None,
    crops: str | None = None,
    dtype: str = "float32",
    device: str | None = None,
    workers: int | None = None,
    batch_size: int | None = None,
    outputs: str | None = None,
    max_pixels: int | None = None,
    reduced: bool = False,
) -> Study:
    """Start a study, or continue it, and hold its lock until the command ends."""
    from interpret.images.folder import MOST_PIXELS
    from interpret.images.opening import NAMED, open_images
    from interpret.loading.loading import known_models, load
    from interpret.results.study_file import is_study
    from interpret.study.study import Study

    device = find_device(device)  # before anything is loaded
    if not is_study(folder):
        refuse_among_images(folder, data, "the study")
    loaded = print_origin(load(model, weights, outputs=outputs))
    study = Study(
        folder,
        loaded,
        open_images(data, loaded, crops=crops, max_pixels=max_pixels or MOST_PIXELS, reduced=reduced),  # type: ignore[arg-type]
        batch_size=batch_size,
        workers=worker_count(workers),
        device=device,
        dtype=dtype,
        made_from={
            "model": absolute_spec(model, known_models()),
            "data": absolute_spec(data, NAMED) if isinstance(data, str) else [absolute_spec(one) for one in data],
            "weights": weights and absolute_weights(weights),
        }
        | {"crops": crops, "dtype": dtype}
        | ({} if outputs is None else {"outputs": outputs})
        | ({} if max_pixels is None else {"max_pixels": max_pixels})
        | ({"reduced": True} if reduced else {}),
    )
    held.enter_context(study.working())
    return study


def refuse_among_images(place: Path | None, data: str | list[str] | None, what: str) -> None:
    """Refuse to write pictures into the folder of images, where the next run would read them as images."""
    from interpret.images.opening import NAMED
    from interpret.support.files import refuse_inside

    for one in [data] if isinstance(data, str) else data or []:
        if place is not None and one not in NAMED:
            refuse_inside(place, Path(one).expanduser(), what)


def evenly_spread_items(images: Any, count: str) -> list[int] | None:
    """Return this many items, evenly spread over the data, from different sources if possible; None for all."""
    import numpy as np

    if count == "all":
        return None
    asked = read_whole_number(count)
    if asked is None or asked < 1:
        fail(f"--images must be a number of at least 1, or all, not {count!r}")
    _, firsts = np.unique(images.sources, return_index=True)
    among = firsts if asked <= len(firsts) else np.arange(len(images))
    return among[np.unique(np.linspace(0, len(among) - 1, min(asked, len(among))).round().astype(int))].tolist()


def absolute_spec(spec: str, names: Collection[str] = ()) -> str:
    """Return a spec that is valid in any working directory: one of these names, or an absolute path."""
    path, colon, function = spec.rpartition(":")
    if path.endswith(".py"):  # the function in a file
        return f"{Path(path).expanduser().resolve()}{colon}{function}"
    is_path = spec not in names and (Path(spec).expanduser().exists() or spec.endswith(".tar"))
    return str(Path(spec).expanduser().resolve()) if is_path else spec


def absolute_weights(weights: str) -> str:
    """Return weights that are valid in any working directory: a file's absolute path and the suffix after it."""
    from interpret.loading.checkpoints import split_weights

    file, _, _ = split_weights(weights)
    return (
        f"{file.resolve()}{weights[len(str(file)) :]}" if file.exists() and weights.startswith(str(file)) else weights
    )


def print_origin(model: Any) -> Any:
    """Print where the weights come from, and return the model."""
    note(f"{model.name}: {model.origin}" if model.origin else model.name)
    return model


def find_device(name: str | None) -> str | None:
    """Return the named device, or else a GPU if there is one, or None for the network's own device."""
    import torch

    from interpret.support.errors import InterpretError

    if name in (None, "cuda"):
        if name is None and not torch.cuda.is_available():
            return None
        # of several processes on a machine, each has its own GPU
        name = f"cuda:{ranks().local_rank % max(1, torch.cuda.device_count())}" if ranks().size > 1 else "cuda"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise InterpretError(f"device {name!r} is not available here: choose cpu, or leave --device out") from None
    return name


def worker_count(workers: int | None) -> int:
    """Return the number of processes that read images, by default this process's share of the cores but two."""
    if workers is not None:
        return workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(0, min(MOST_READERS, (cores - 2) // ranks().local_size))
