"""The `interpret` command: each verb works on a study folder and says at the end what to open."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, NoReturn

import typer

# torch is imported by what a verb calls, so that --help answers at once
if TYPE_CHECKING:
    from interpret.study import Study

DEFAULT_MODEL = "squeezenet1_1"
DEFAULT_DATA = "photographs"

app = typer.Typer(
    help="Look inside convolutional networks: what every unit answers to, as pictures.",
    epilog="A MODEL is a shipped name (lenet, lenet5, squeezenet1_1, efficientnet_lite0), torchvision:NAME, timm:NAME, "
    "a model folder, or file.py:function. DATA is a folder of images, or photographs, digits or fashion-mnist.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Model = Annotated[str, typer.Argument(metavar="MODEL", help="What to look into: a name, a folder or file.py:function.")]
Data = Annotated[str, typer.Argument(metavar="DATA", help="Images to look at: a folder, or a named set.")]
Subject = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="What to look into: a name, a folder, file.py:function, or a study's folder."),
]
OwnData = Annotated[
    str | None, typer.Argument(metavar="DATA", help="Images: a folder, or a named set. A study has its own.")
]
ImageCount = Annotated[str, typer.Option("--images", help="How many images, spread over the data, or 'all'.")]
Weights = Annotated[
    str | None, typer.Option(help="A checkpoint (safetensors or state dict), or 'random' for untrained weights.")
]
Layers = Annotated[str | None, typer.Option(help="Layer names or globs, with commas. Default: all with units.")]
Out = Annotated[Path | None, typer.Option(help="Where to write.")]
StudyFolder = Annotated[Path | None, typer.Option("--study", help="The folder that keeps the results.")]
Picture = Annotated[Path, typer.Option(help="The figure to write: .png, .svg or .pdf.")]
Pictures = Annotated[
    str | None,
    typer.Argument(metavar="IMAGES", help="An image file, a folder, or a named set. A study has its own."),
]
Methods = Annotated[str | None, typer.Option(help="Names with commas, such as gradient,deconvnet. Default: all ten.")]
Target = Annotated[str | None, typer.Option(help="A class by number or name, or a channel. Default: the strongest.")]
Hidden = Annotated[str | None, typer.Option(help="The layer of a hidden unit. Default: the network's output.")]
RuleName = Annotated[str, typer.Option("--rule", help="deconvnet, guided or gradient.")]
K = Annotated[int, typer.Option("-k", help="Hits for each unit.")]
Crops = Annotated[str | None, typer.Option(help="'center', or 'tiles': windows at several sizes of each picture.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, mps … Default: a GPU if there is one.")]
Workers = Annotated[
    int | None, typer.Option(help="Processes that read images. Default: two fewer than cores, at most 8.")
]
Seed = Annotated[int, typer.Option(help="Chooses the sample that statistics are drawn from.")]
BatchSize = Annotated[int, typer.Option(help="Images in one forward pass.")]
Dtype = Annotated[str, typer.Option(help="float32, or bfloat16: twice as fast and less exact.")]


@app.command()
def gallery(
    model: Model = DEFAULT_MODEL,
    data: Data = DEFAULT_DATA,
    layers: Layers = None,
    out: Out = None,
    study: StudyFolder = None,
    rule: RuleName = "deconvnet",
    weights: Weights = None,
    k: K = 9,
    crops: Crops = None,
    device: Device = None,
    workers: Workers = None,
    seed: Seed = 0,
    batch_size: BatchSize = 32,
    dtype: Dtype = "float32",
    context: Annotated[
        bool, typer.Option("--context/--no-context", help="Whether to show whole images, or only the patches of them.")
    ] = True,
) -> None:
    """Mine, project and publish every unit as pages to open in a browser.

    MODEL may also be a study's folder: its gallery is written from what it holds.

    Without arguments: SqueezeNet 1.1 with its ImageNet weights, over 230 photographs
    (pip install 'interpret-cnn[demo]').
    """
    from interpret.gallery import check_target, write_gallery
    from interpret.study import Study

    out = out or Path("interpret-gallery")
    check_target(out)
    chosen = _rule(rule)
    if (Path(model) / "study.json").exists():
        begun = Study.open(model)
    else:
        folder = study or out.with_name(out.name + ".study")
        begun = _study(folder, model, data, weights, crops, dtype, device, workers, batch_size)
        begun.mine(layers, k, seed)
        begun.project(layers, chosen)
        begun.draw_filters(every=True)
        begun.connect()
        begun.spread()
    _say(f"Open {write_gallery(begun, out, context=context)}")


@app.command()
def mine(
    model: Model,
    data: Data,
    study: Annotated[Path, typer.Option("--study", help="The folder that keeps the results.")],
    layers: Layers = None,
    weights: Weights = None,
    k: K = 9,
    crops: Crops = None,
    device: Device = None,
    workers: Workers = None,
    seed: Seed = 0,
    batch_size: BatchSize = 32,
    dtype: Dtype = "float32",
) -> None:
    """Find the images that excite each unit most, and keep them in a study."""
    begun = _study(study, model, data, weights, crops, dtype, device, workers, batch_size)
    begun.mine(layers, k, seed)
    units = sum(len(begun.mined(name).values) for name in begun.mined_layers)
    _say(f"Mined {units:,} units of {len(begun.mined_layers)} layers into {study}")


@app.command()
def project(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="The folder of a study that has been mined.")],
    layers: Layers = None,
    rule: RuleName = "deconvnet",
    device: Device = None,
) -> None:
    """Project each mined hit back to the pixels, and keep the pictures in the study."""
    begun = _reopened(study, device)
    begun.project(layers, _rule(rule))
    _say(f"Pictures are in {study / 'projections' / rule}")


@app.command()
def evolve(
    model: Subject,
    data: OwnData = None,
    checkpoints: Annotated[
        str | None, typer.Option(help="A folder with one file an epoch. Default: the model folder's own epochs.")
    ] = None,
    layers: Layers = None,
    units: Annotated[int, typer.Option(help="How many of each layer, drawn at random.")] = 6,
    rule: RuleName = "deconvnet",
    out: Picture = Path("evolution.png"),
    study: StudyFolder = None,
    crops: Crops = None,
    device: Device = None,
    workers: Workers = None,
    seed: Seed = 0,
    batch_size: BatchSize = 32,
) -> None:
    """Follow units and features through the kept epochs of a training."""
    from interpret.evolution import evolve as run
    from interpret.plots import check_figure_path, plot, write_figure

    check_figure_path(out, "--out")
    chosen = _rule(rule)
    # with checkpoints, the model's own weights play no part
    subject = _subject(model, data, study, None, crops, device, workers, batch_size, own_weights=checkpoints is None)
    found = run(
        checkpoints or subject.spec,
        subject.images,
        layers,
        units,
        model=subject.model,
        rule=chosen,
        batch_size=batch_size,
        workers=_workers(workers),
        seed=seed,
        device=_device(device),
    )
    subject.keep(found, layers or "")
    write_figure(plot(found), out)
    _say(f"Open {out}")


@app.command()
def neighbours(
    model: Subject,
    data: OwnData = None,
    queries: Annotated[
        str | None,
        typer.Option(help="A folder of images, or items of the data by number, with commas. Default: 8 items."),
    ] = None,
    layer: Annotated[str | None, typer.Option(help="Whose features. Default: the last hidden layer.")] = None,
    k: Annotated[int, typer.Option("-k", help="How many neighbours.")] = 6,
    metric: Annotated[str, typer.Option(help="euclidean or cosine.")] = "euclidean",
    average: Annotated[bool, typer.Option("--average", help="Average features over positions.")] = False,
    out: Picture = Path("neighbours.png"),
    study: StudyFolder = None,
    weights: Weights = None,
    crops: Crops = None,
    device: Device = None,
    workers: Workers = None,
    batch_size: BatchSize = 32,
) -> None:
    """Find the images that a network finds most like others; a study keeps the features for the next search."""
    from interpret.neighbours import find_neighbours
    from interpret.plots import check_figure_path, plot, write_figure

    check_figure_path(out, "--out")
    subject = _subject(model, data, study, weights, crops, device, workers, batch_size)
    found = find_neighbours(
        subject.model,
        _queries(queries, len(subject.images)),
        subject.images,
        layer,
        k,
        metric=metric,  # type: ignore[arg-type]
        average=average,
        index=subject.study.path / "features" if subject.study else None,
        batch_size=batch_size,
        workers=_workers(workers),
        device=_device(device),
    )
    subject.keep(found, found.layer)
    write_figure(plot(found), out)
    _say(f"Open {out}")


@app.command()
def filters(
    model: Model,
    layer: Annotated[str | None, typer.Argument(help="The layer; default: the first convolution.")] = None,
    out: Picture = Path("filters.png"),
    weights: Weights = None,
    scale: Annotated[str, typer.Option(help="'filter': each filter by itself; 'shared': all alike.")] = "filter",
) -> None:
    """Plot a layer's kernels as pictures."""
    from interpret.filters import plot_filters
    from interpret.loading import load
    from interpret.plots import check_figure_path, write_figure

    check_figure_path(out, "--out")
    if scale not in ("filter", "shared"):
        _fail(f"--scale must be filter or shared, not {scale!r}")
    figure = plot_filters(_announced(load(model, weights)), layer, scale="shared" if scale == "shared" else "filter")
    write_figure(figure, out)
    _say(f"Open {out}")


@app.command()
def probe(
    model: Subject,
    data: OwnData = None,
    transform: Annotated[
        str,
        typer.Option(
            help="translation, scale, rotation, illumination, contrast, blur, noise, viewpoint; several with commas."
        ),
    ] = "translation,scale,rotation",
    values: Annotated[
        str | None, typer.Option(help="FIRST:LAST:STEP, or values with commas. Default: the paper's.")
    ] = None,
    direction: Annotated[
        str | None, typer.Option(help="Of a translation: vertical (default), horizontal or diagonal.")
    ] = None,
    layers: Layers = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Indices of classes with commas, one an image, or 'predicted': what the network says of the "
            "untransformed image. Default: those of the images."
        ),
    ] = None,
    images: ImageCount = "5",
    fill: Annotated[
        str | None,
        typer.Option(help="What comes into the picture: context (the larger photograph), reflect, edge, mean, black."),
    ] = None,
    out: Picture = Path("invariance.png"),
    study: StudyFolder = None,
    weights: Weights = None,
    crops: Crops = None,
    device: Device = None,
    workers: Workers = None,
    seed: Annotated[int, typer.Option(help="Chooses the noise.")] = 0,
) -> None:
    """Measure how far features move as images are moved, scaled, turned or lit otherwise.

    Zeiler & Fergus 2014, figure 5. MODEL may also be a study's folder, which keeps the results.
    """
    from interpret.errors import InterpretError
    from interpret.invariance import probe as run
    from interpret.plots import check_figure_path, write_figure
    from interpret.plots.invariance import plot_invariance

    check_figure_path(out, "--out")
    names = [name.strip() for name in transform.split(",") if name.strip()]
    if not names:
        raise InterpretError("--transform is empty: name at least one")
    asked = None if values is None else _values(values)
    if asked is not None and len(names) > 1:
        raise InterpretError("--values are those of one transform: name one with --transform")
    told = labels if labels in (None, "predicted") else _whole_numbers(str(labels), "--labels")
    subject = _subject(model, data, study, weights, crops, device, workers)
    items = _spread(subject.images, images)
    found = []
    for name in names:
        curves = run(
            subject.model,
            subject.images,
            name,
            asked,
            layers,
            told,
            direction=direction if name == "translation" else None,  # type: ignore[arg-type]
            fill=fill,  # type: ignore[arg-type]
            items=items,
            workers=_workers(workers),
            seed=seed,
            device=_device(device),
        )
        found.append(curves)
    if all(curves.probabilities is None for curves in found):
        print("No labels: the curves come without probabilities; see --labels.", file=sys.stderr)
    for curves in found:
        subject.keep(curves, curves.name)
    write_figure(plot_invariance(*found), out)
    _say(f"Open {out}")


@app.command()
def occlude(
    model: Subject,
    data: OwnData = None,
    size: Annotated[int, typer.Option(help="Side of the square that hides a part of the image, in pixels.")] = 32,
    stride: Annotated[int, typer.Option(help="Its step, in pixels.")] = 16,
    fill: Annotated[str, typer.Option(help="'grey', or 'mean': each image's own mean colour.")] = "grey",
    layer: Annotated[
        str | None, typer.Option(help="Whose strongest feature map is followed. Default: the last convolution.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="Indices of classes with commas, one an image. Default: those of the images, or predicted."),
    ] = None,
    images: ImageCount = "3",
    others: Annotated[bool, typer.Option(help="Search the data for other images that excite the feature map.")] = True,
    out: Picture = Path("occlusion.png"),
    study: StudyFolder = None,
    weights: Weights = None,
    crops: Crops = None,
    device: Device = None,
    batch_size: BatchSize = 64,
) -> None:
    """Hide parts of images and measure what the network makes of the rest.

    Zeiler & Fergus 2014, figure 7. MODEL may also be a study's folder, which keeps the result.
    """
    from interpret.data import read_items
    from interpret.occlusion import occlude as run
    from interpret.plots import check_figure_path, plot, write_figure

    check_figure_path(out, "--out")
    told = None if labels is None else _whole_numbers(labels, "--labels")
    subject = _subject(model, data, study, weights, crops, device)
    chosen = read_items(subject.images, _spread(subject.images, images) or range(len(subject.images)))
    if told is None and int(chosen.labels.min()) >= 0 and subject.images.classes == subject.model.classes:
        told = chosen.labels.tolist()
    found = run(
        subject.model,
        chosen.images,
        told,
        size,
        stride,
        layer=layer,
        fill=fill,
        others=subject.images if others else None,
        batch_size=batch_size,
        device=_device(device),
    )
    subject.keep(found, found.layer or "")
    write_figure(plot(found), out)
    _say(f"Open {out}")


@app.command()
def plot(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="The folder of a study.")],
    kind: Annotated[str | None, typer.Argument(help="Kind of result, such as invariance.")] = None,
    name: Annotated[str | None, typer.Argument(help="Which one, where there are several: rotation.")] = None,
    out: Annotated[Path | None, typer.Option(help="The figure to write: .png, .svg or .pdf.")] = None,
) -> None:
    """Draw a result that a study keeps; where several fit, list them."""
    from interpret.errors import unknown
    from interpret.plots import check_figure_path, write_figure
    from interpret.plots import plot as draw
    from interpret.study import Study, layer_path

    if out is not None:
        check_figure_path(out, "--out")
    begun = Study.open(study)
    kept = begun.results
    if not kept:
        _fail(f"{study} keeps no results to draw: make one, for example with interpret probe {study}")
    fitting = [one for one in kept if kind in (None, one[0]) and name in (None, one[1])]
    if not fitting:
        raise unknown("result", f"{kind} {name or ''}".strip(), [" ".join(one).strip() for one in kept])
    if len(fitting) > 1:
        listed = "".join(f"\n    {one[0]} {one[1]}".rstrip() for one in fitting)
        _fail(f"{study} keeps {len(fitting)} results that fit, choose one of them by kind and name:{listed}")
    result = begun.result(*fitting[0])
    target = out or Path("-".join(layer_path(part) for part in fitting[0] if part) + ".png")
    write_figure(draw(result), target)
    print(f"{result.title}. {result.reading}", file=sys.stderr)
    _say(f"Open {target}")


@app.command()
def summary(
    model: Model,
    weights: Weights = None,
    input_shape: Annotated[
        str | None, typer.Option(metavar="C,H,W", help="The input's shape, where the model does not say it.")
    ] = None,
    format: Annotated[str, typer.Option(help="text, markdown or json.")] = "text",
) -> None:
    """List a network's layers: size and its formula, kernel, parameters, operations, receptive field."""
    import warnings

    from interpret.errors import unknown
    from interpret.loading import load
    from interpret.summary import summarise

    if format not in ("text", "markdown", "json"):
        raise unknown("--format", format, ("text", "markdown", "json"))
    with warnings.catch_warnings():
        # that an architecture's weights are random is announced, and a summary does not need any
        warnings.filterwarnings("ignore", "model folder .* is an architecture")
        loaded = load(model, weights or "random" if _names_untrained(model) else weights)
    _say(summarise(_announced(loaded), _shape(input_shape), format))  # type: ignore[arg-type]


@app.command()
def attribute(
    model: Subject,
    images: Pictures = None,
    out: Picture = Path("methods.png"),
    methods: Methods = None,
    target: Target = None,
    layer: Hidden = None,
    count: ImageCount = "4",
    weights: Weights = None,
) -> None:
    """Show what speaks for a class or a unit, by ten methods side by side.

    MODEL may also be a study's folder, which keeps the result.
    """
    from interpret.methods import compare_methods
    from interpret.plots import check_figure_path, plot, write_figure

    check_figure_path(out, "--out")
    chosen: Any = _names(methods)
    subject = _pictures(model, images, count, weights)
    found = compare_methods(subject.model, subject.images, chosen, _target(target), layer)
    subject.keep(found, layer or "")
    write_figure(plot(found), out)
    _say(f"Open {out}")


@app.command()
def sanity(
    model: Subject,
    images: Pictures = None,
    out: Picture = Path("sanity.png"),
    methods: Methods = None,
    target: Target = None,
    layer: Hidden = None,
    steps: Annotated[int, typer.Option(help="Steps from the trained network to one of random weights.")] = 10,
    seed: Annotated[int, typer.Option(help="Draws the random weights.")] = 0,
    count: ImageCount = "4",
    weights: Weights = None,
) -> None:
    """Check whether maps change when the network's layers are randomised from the top down.

    MODEL may also be a study's folder, which keeps the result.
    """
    from interpret.plots import check_figure_path, plot, write_figure
    from interpret.sanity import sanity_check

    check_figure_path(out, "--out")
    chosen: Any = _names(methods)
    subject = _pictures(model, images, count, weights)
    found = sanity_check(subject.model, subject.images, chosen, _target(target), layer, steps=steps, seed=seed)
    subject.keep(found, layer or "")
    write_figure(plot(found), out)
    _say(f"Open {out}")


@app.command()
def report(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="A study's folder.")],
    out: Annotated[Path, typer.Option(help="The file to write: .html or .pdf.")] = Path("report.html"),
) -> None:
    """Write all that a study holds as one file to read, print or send."""
    from interpret.report import write_report

    _say(f"Open {write_report(study, out)}")


@app.command()
def train(
    folder: Annotated[str, typer.Argument(metavar="MODEL_FOLDER", help="A folder with model.py and recipe.toml.")],
    out: Annotated[Path | None, typer.Option(help="Write the weights to a copy of the folder here.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    device: Device = None,
) -> None:
    """Train a model by its recipe; an interrupted training goes on where it stopped."""
    from interpret.training import train as run

    result = run(folder, out=out, epochs=epochs, seed=seed, device=_device(device) or "cpu")
    _say(f"Held-out accuracy {result.held_out.accuracy:.2%}; weights are in {result.folder}")


def main() -> None:
    """Run the command: a user's mistake is one sentence and exit status 2."""
    try:
        app(standalone_mode=False)
    except KeyboardInterrupt:
        _fail("Interrupted; what was done is kept, and the same command goes on from there.", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        import errno

        from interpret.errors import InterpretError

        if isinstance(error, InterpretError):
            _fail(str(error))
        if hasattr(error, "format_message"):  # a mistake in the command line itself
            error.show()  # type: ignore[attr-defined]
            sys.exit(2)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            _fail(f"cannot write {error.filename or 'the output'}: {error.strerror}; choose another place")
        raise


class _Subject(NamedTuple):
    """What an analysis works on, and the study that keeps its result, if there is one."""

    spec: str
    model: Any
    images: Any
    study: Study | None

    def keep(self, result: Any, name: str = "") -> None:
        """Keep a result in the study, if there is one, and say how to read it."""
        if self.study is not None:
            self.study.keep(result, name)
        print(f"{result.title}. {result.reading}", file=sys.stderr)


def _subject(
    model: str,
    data: str | None,
    study: Path | None = None,
    weights: str | None = None,
    crops: str | None = None,
    device: str | None = None,
    workers: int | None = None,
    batch_size: int = 32,
    own_weights: bool = True,
) -> _Subject:
    """Open a study's folder with its model and images, or a model and images, with a study for the result or not.

    Without `own_weights`, the analysis brings its own, and those of the model need not be there.
    """
    from interpret.data import open_images
    from interpret.loading import load

    if (Path(model) / "study.json").exists():
        for option, value in (("DATA", data), ("--study", study), ("--weights", weights), ("--crops", crops)):
            if value is not None:
                _fail(f"{model} is a study, which has its own model and images: leave out {option} {value}")
        begun = _reopened(Path(model), device, workers, batch_size)
        return _Subject(begun.info["made_from"]["model"], begun.model, begun.data, begun)
    if data is None:
        _fail(f"{model!r} is no study's folder: give the images, too, as DATA")
    if study is not None:
        begun = _study(study, model, data, weights, crops, device=device, workers=workers, batch_size=batch_size)
        return _Subject(model, begun.model, begun.data, begun)
    loaded = _announced(load(model, weights)) if own_weights else load(model, "random")
    return _Subject(model, loaded, open_images(data, loaded, crops=crops), None)  # type: ignore[arg-type]


def _reopened(folder: Path, device: str | None = None, workers: int | None = None, batch_size: int = 32) -> Study:
    """Open a study to compute, with the model and the images that it was begun with."""
    from interpret.study import Study

    made_from = Study.open(folder).info["made_from"]
    if not made_from:
        _fail(f"{folder} was not begun by this command, which cannot know its model: use Study(path, model, data)")
    return _study(folder, device=device, workers=workers, batch_size=batch_size, **made_from)


def _spread(images: Any, count: str) -> list[int] | None:
    """Return so many items, evenly spread over the data, of as many sources as there are; None for all."""
    import numpy as np

    if count == "all":
        return None
    if not count.isdecimal() or int(count) < 1:
        _fail(f"--images must be a number of at least 1, or all, not {count!r}")
    _, firsts = np.unique(images.sources, return_index=True)
    among = firsts if int(count) <= len(firsts) else np.arange(len(images))
    return among[np.unique(np.linspace(0, len(among) - 1, int(count)).round().astype(int))].tolist()


def _values(text: str) -> list[float]:
    """Return the values of FIRST:LAST:STEP, the last one included, or those with commas."""
    import numpy as np

    if ":" not in text:
        return _numbers(text, "--values")
    parts = _numbers(text.replace(":", ","), "--values")
    if len(parts) != 3 or not all(np.isfinite(parts)) or parts[2] == 0 or (parts[1] - parts[0]) / parts[2] < 0:
        _fail(f"--values must be FIRST:LAST:STEP, such as -60:60:2, not {text!r}")
    steps = int((parts[1] - parts[0]) / parts[2] + 1e-9)
    if steps > 100_000:
        _fail(f"--values {text!r} are {steps + 1:,}: choose a longer step")
    return [parts[0] + parts[2] * step for step in range(steps + 1)]


def _numbers(text: str, option: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        _fail(f"{option} must be numbers with commas between, not {text!r}")


def _whole_numbers(text: str, option: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        _fail(f"{option} must be whole numbers with commas between, not {text!r}")


def _workers(workers: int | None) -> int:
    return max(0, min(8, (os.cpu_count() or 1) - 2)) if workers is None else workers


def _study(
    folder: Path,
    model: str,
    data: str,
    weights: str | None = None,
    crops: str | None = None,
    dtype: str = "float32",
    device: str | None = None,
    workers: int | None = None,
    batch_size: int = 32,
) -> Study:
    """Begin a study, or go on with it."""
    from interpret.data import open_images
    from interpret.loading import load
    from interpret.study import Study

    loaded = _announced(load(model, weights))
    return Study(
        folder,
        loaded,
        open_images(data, loaded, crops=crops),  # type: ignore[arg-type]
        batch_size=batch_size,
        workers=_workers(workers),
        device=_device(device),
        dtype=dtype,
        made_from={"model": _lasting(model), "data": _lasting(data), "weights": weights and _lasting(weights)}
        | {"crops": crops, "dtype": dtype},
    )


def _queries(text: str | None, count: int) -> Any:
    """Return items by number, or a folder as it is; of None, up to eight items, evenly spread."""
    if text is None:
        number = min(8, count)
        return [(2 * place + 1) * count // (2 * number) for place in range(number)]
    parts = [part.strip() for part in text.split(",")]
    return [int(part) for part in parts] if all(part.isdecimal() for part in parts) else text


def _pictures(model: str, images: str | None, count: str, weights: str | None) -> _Subject:
    """Open a model, or a study's folder, with pictures as inputs [B, C, H, W]."""
    from interpret.data import open_images, read_items
    from interpret.folder import read_picture
    from interpret.loading import load

    begun = _reopened(Path(model)) if (Path(model) / "study.json").exists() else None
    loaded: Any = _announced(load(model, weights)) if begun is None else begun.model
    if images is None and begun is None:
        _fail(f"{model!r} is no study's folder: give the images, too, as IMAGES")
    if images is not None and Path(images).is_file():
        loaded.input_shape  # noqa: B018 - which says so where the model has no preprocessing
        found = loaded.preprocess(read_picture(Path(images).parent, Path(images).name))[None]
    else:
        data: Any = begun.data if begun and images is None else open_images(images, loaded, crops="center")
        found = read_items(data, _spread(data, count) or range(len(data))).images
    return _Subject(model, loaded, found, begun)


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _target(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.lstrip("-").isdigit() else text


def _lasting(spec: str) -> str:
    """Return a spec that means the same from any folder."""
    return str(Path(spec).resolve()) if Path(spec).exists() else spec


def _device(name: str | None) -> str | None:
    """Return a device that is there: the one named, or a GPU, or None for where the network is."""
    import torch

    from interpret.errors import InterpretError

    if name is None:
        return "cuda" if torch.cuda.is_available() else None
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise InterpretError(f"device {name!r} is not to be had here: choose cpu, or leave --device out") from None
    return name


def _announced(model: Any) -> Any:
    """Say aloud where the weights come from: random ones above all."""
    print(f"{model.name}: {model.origin}" if model.origin else model.name, file=sys.stderr)
    return model


def _names_untrained(model: str) -> bool:
    """A summary needs no weights: those that would have to be downloaded are not asked for."""
    return model.startswith(("torchvision:", "timm:"))


def _rule(rule: str) -> Any:
    from interpret.errors import unknown
    from interpret.rules import RULES

    if rule not in RULES:
        raise unknown("rule", rule, RULES)
    return rule


def _shape(text: str | None) -> tuple[int, int, int] | None:
    if text is None:
        return None
    try:
        channels, height, width = (int(part) for part in text.split(","))
    except ValueError:
        _fail(f"--input-shape must be three whole numbers such as 3,224,224, not {text!r}")
    return channels, height, width


def _say(text: str) -> None:
    print(text)


def _fail(sentence: str, status: int = 2) -> NoReturn:
    print(f"interpret: {sentence}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
