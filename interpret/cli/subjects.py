"""What a verb works on: a model and images, with a study that keeps the results or without."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from interpret.cli.answers import fail, say, say_skipped

if TYPE_CHECKING:
    from interpret.study.study import Study


class Opened(NamedTuple):
    """What an analysis works on, and the study that keeps its result, if there is one."""

    spec: str
    model: Any
    images: Any
    study: Study | None

    def unfinished(self, verb: str) -> Path | None:
        """Return where in the study a verb keeps what is done of it, if there is a study."""
        return None if self.study is None else self.study.path / "unfinished" / verb

    def finish(self, verb: str) -> None:
        """Delete what a verb kept: it is done."""
        from interpret.execution.resume import holds_unfinished
        from interpret.support.files import discard

        folder = self.unfinished(verb)
        if folder is not None and folder.exists():
            kept = [path for path in folder.iterdir() if path.is_file() and holds_unfinished(path)]
            discard(folder.parent, [str(path.relative_to(folder.parent)) for path in kept])

    def keep(self, result: Any, name: str = "") -> None:
        """Keep a result in the study, if there is one, and say how to read it."""
        if self.study is not None:
            self.study.keep(result, name)
        say_skipped(self.images)
        print(f"{result.title}. {result.reading}", file=sys.stderr)

    def publish(self, result: Any, out: Path, name: str = "") -> None:
        """Keep a result, draw it, and say what to open."""
        from interpret.figures.saving import write_figure
        from interpret.results.plotting import plot

        self.keep(result, name)
        write_figure(plot(result), out)
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
) -> Opened:
    """Open a study's folder with its model and images, or a model and images, with a study for the result or not.

    Without `own_weights`, the analysis brings its own, and those of the model need not be there.
    """
    from interpret.images.opening import open_images
    from interpret.loading.loading import load

    if (Path(model) / "study.json").exists():
        own = {"DATA": data, "--study": study, "--weights": weights, "--crops": crops, "--outputs": outputs}
        for option, value in own.items():
            if value is not None:
                fail(f"{model} is a study, which has its own model and images: leave out {option} {value}")
        begun = reopen(Path(model), device, workers, batch_size)
        return Opened(begun.info["made_from"]["model"], begun.model, begun.data, begun)
    if data is None:
        fail(f"{model!r} is no study's folder: give the images, too, as DATA")
    if study is not None:
        begun = open_study(
            study, model, data, weights, crops, device=device, workers=workers, batch_size=batch_size, outputs=outputs
        )
        return Opened(model, begun.model, begun.data, begun)
    loaded = announced(load(model, weights, outputs=outputs)) if own_weights else load(model, "random")
    return Opened(model, loaded, open_images(data, loaded, crops=crops), None)  # type: ignore[arg-type]


def open_pictures(model: str, images: str | None, count: str, weights: str | None) -> Opened:
    """Open a model, or a study's folder, with pictures as inputs [B, C, H, W]."""
    from interpret.images.batches import read_items
    from interpret.images.folder import read_picture
    from interpret.images.opening import open_images
    from interpret.loading.loading import load

    begun = reopen(Path(model)) if (Path(model) / "study.json").exists() else None
    loaded: Any = announced(load(model, weights)) if begun is None else begun.model
    if images is None and begun is None:
        fail(f"{model!r} is no study's folder: give the images, too, as IMAGES")
    if images is not None and Path(images).is_file():
        loaded.input_shape  # noqa: B018 - which says so where the model has no preprocessing
        found = loaded.preprocess(read_picture(Path(images).parent, Path(images).name))[None]
    else:
        data: Any = begun.data if begun and images is None else open_images(images, loaded, crops="center")
        found = read_items(data, spread(data, count) or range(len(data))).images
        say_skipped(data)
    return Opened(model, loaded, found, begun)


def reopen(folder: Path, device: str | None = None, workers: int | None = None, batch_size: int | None = None) -> Study:
    """Open a study to compute, with the model and the images that it was begun with."""
    from interpret.study.study import Study

    made_from = Study.open(folder).info["made_from"]
    if not made_from:
        fail(f"{folder} was not begun by this command, which cannot know its model: use Study(path, model, data)")
    return open_study(folder, device=device, workers=workers, batch_size=batch_size, **made_from)


def open_study(
    folder: Path,
    model: str,
    data: str,
    weights: str | None = None,
    crops: str | None = None,
    dtype: str = "float32",
    device: str | None = None,
    workers: int | None = None,
    batch_size: int | None = None,
    outputs: str | None = None,
) -> Study:
    """Begin a study, or go on with it."""
    from interpret.images.opening import NAMED, open_images
    from interpret.loading.loading import known_models, load
    from interpret.study.study import Study

    if not (folder / "study.json").exists():
        refuse_among_images(folder, data, "the study")
    loaded = announced(load(model, weights, outputs=outputs))
    return Study(
        folder,
        loaded,
        open_images(data, loaded, crops=crops),  # type: ignore[arg-type]
        batch_size=batch_size,
        workers=worker_count(workers),
        device=find_device(device),
        dtype=dtype,
        made_from={
            "model": lasting(model, known_models()),
            "data": lasting(data, NAMED),
            "weights": weights and lasting_weights(weights),
        }
        | {"crops": crops, "dtype": dtype}
        | ({} if outputs is None else {"outputs": outputs}),
    )


def refuse_among_images(folder: Path, data: str, what: str) -> None:
    """Refuse to write pictures among the images, to which they would belong the next time."""
    images = Path(data).expanduser()
    if images.is_dir() and folder.resolve().is_relative_to(images.resolve()):
        fail(f"{what} {str(folder)!r} would lie among the images of {data!r}: name another --out or --study")


def spread(images: Any, count: str) -> list[int] | None:
    """Return so many items, evenly spread over the data, of as many sources as there are; None for all."""
    import numpy as np

    if count == "all":
        return None
    if not count.isdecimal() or int(count) < 1:
        fail(f"--images must be a number of at least 1, or all, not {count!r}")
    _, firsts = np.unique(images.sources, return_index=True)
    among = firsts if int(count) <= len(firsts) else np.arange(len(images))
    return among[np.unique(np.linspace(0, len(among) - 1, int(count)).round().astype(int))].tolist()


def lasting(spec: str, names: Collection[str] = ()) -> str:
    """Return a spec that means the same from any folder: one of these names, or else a path in full."""
    path, colon, function = spec.rpartition(":")
    if path.endswith(".py"):  # the function in a file
        return f"{Path(path).expanduser().resolve()}{colon}{function}"
    is_path = spec not in names and Path(spec).expanduser().exists()
    return str(Path(spec).expanduser().resolve()) if is_path else spec


def lasting_weights(weights: str) -> str:
    """Return weights that mean the same from any folder: a file's path in full, with what follows it."""
    from interpret.loading.checkpoints import split_weights

    file, _, _ = split_weights(weights)
    return (
        f"{file.resolve()}{weights[len(str(file)) :]}" if file.exists() and weights.startswith(str(file)) else weights
    )


def announced(model: Any) -> Any:
    """Say aloud where the weights come from: random ones above all."""
    print(f"{model.name}: {model.origin}" if model.origin else model.name, file=sys.stderr)
    return model


def find_device(name: str | None) -> str | None:
    """Return a device that is there: the one named, or a GPU, or None for where the network is."""
    import torch

    from interpret.support.errors import InterpretError

    if name is None:
        return "cuda" if torch.cuda.is_available() else None
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise InterpretError(f"device {name!r} is not to be had here: choose cpu, or leave --device out") from None
    return name


def worker_count(workers: int | None) -> int:
    return max(0, min(8, (os.cpu_count() or 1) - 2)) if workers is None else workers
