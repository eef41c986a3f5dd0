"""The subcommands from a network and images to a gallery, and those on a network alone."""

from __future__ import annotations

import shlex
import warnings
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interpret.cli.answers import say, say_skipped
from interpret.cli.options import (
    LARGEST_SEED,
    Crops,
    Data,
    Device,
    Dtype,
    EveryImage,
    K,
    Layers,
    Megapixels,
    Model,
    Out,
    Outputs,
    OwnBatchSize,
    Picture,
    Reduced,
    RuleNames,
    Seed,
    StudyFolder,
    Weights,
    Workers,
    choice,
    counted,
)
from interpret.cli.reading import read_decoding, read_part, read_rules, read_shape, read_units
from interpret.cli.subjects import find_device, made_from, open_study, print_origin, refuse_among_images, reopen
from interpret.execution.ranks import ranks

if TYPE_CHECKING:
    from interpret.study.study import Study

DEFAULT_MODEL = "squeezenet1_1"
DEFAULT_DATA = "photographs"


def gallery(
    model: Model = DEFAULT_MODEL,
    data: Data = DEFAULT_DATA,
    layers: Layers = None,
    out: Out = None,
    study: StudyFolder = None,
    rule: RuleNames = "deconvnet",
    weights: Weights = None,
    outputs: Outputs = None,
    k: K = 9,
    crops: Crops = None,
    device: Device = None,
    workers: Workers = None,
    seed: Seed = 0,
    batch_size: OwnBatchSize = None,
    dtype: Dtype = "float32",
    max_megapixels: Megapixels = None,
    reduced: Reduced = False,
    units: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="Units of each layer, the liveliest, that get pictures: a number, 'all', or 'auto': all if that takes "
            "an hour at most on two cores, else as many as take five minutes, by their multiply–adds. "
            "Default: auto; all of --layers.",
        ),
    ] = None,
    synthesise: Annotated[
        str,
        typer.Option(
            metavar="N",
            help="Units of each layer, the liveliest, that get an optimised image: a number, 0 for none, 'all', or "
            "'auto': as many as take one minute on two cores, by their multiply–adds; of a study, none are added.",
        ),
    ] = "auto",
    context: Annotated[
        bool, typer.Option("--context/--no-context", help="Show whole images, or their patches alone.")
    ] = True,
    every_image: EveryImage = True,
) -> None:
    """Mine, project and publish every unit as pages to open in a browser.

    MODEL may also be a study's folder, from which the gallery is written.

    Without arguments: SqueezeNet 1.1 with its ImageNet weights, over 230 photographs
    (pip install 'interpret-cnn[demo]').
    """
    from interpret.gallery import check_target, write_gallery
    from interpret.results.study_file import is_study
    from interpret.study.study import Study
    from interpret.study.timings import timed

    out = out or Path("interpret-gallery")
    check_target(out)
    rules, optimised = read_rules(rule), read_units(synthesise, "--synthesise", least=0)
    pictured = read_units(units or ("auto" if layers is None else "all"), "--units", least=1)
    if is_study(Path(model)):
        opened = Study.open(model)
        if optimised not in ("auto", 0):
            opened = reopen(Path(model), device, workers, batch_size)
            ranks().once(lambda: opened.synthesise(layers, optimised))
    else:
        refuse_among_images(out, data, "the gallery")
        decoding = read_decoding(max_megapixels, reduced)
        folder = study or out.resolve().with_name(out.resolve().name + ".study")
        opened = open_study(
            folder, model, data, weights, crops, dtype, device, workers, batch_size, outputs, **decoding
        )
        _mine(opened, layers, k, seed, every_image)
        opened.project(layers, rules, units=pictured)
        if optimised != 0:
            ranks().once(lambda: opened.synthesise(layers, optimised))
    with timed(opened.path, "gallery") if opened.data is not None else nullcontext():
        page = ranks().once(lambda: write_gallery(opened, out, context=context, every_image=every_image))
    say(f"Open {page}")


def _mine(study: Study, layers: str | list[str] | None, k: int, seed: int, every_image: bool = True) -> None:
    """Compute everything of a gallery that needs the model and the data, except the projections."""
    study.mine(layers, k, seed)

    def find_the_rest() -> None:
        study.draw_filters(every=True)
        study.connect()
        study.find_activation_range_examples()
        study.measure_effective_fields()

    ranks().once(find_the_rest)  # which takes a fraction of the time
    study.predict(every_image)
    say_skipped(study.data)


def mine(
    model: Model,
    data: Data,
    study: Annotated[Path, typer.Option("--study", help="The folder that keeps the results.")],
    layers: Layers = None,
    weights: Weights = None,
    outputs: Outputs = None,
    k: K = 9,
    crops: Crops = None,
    device: Device = None,
    workers: Workers = None,
    seed: Seed = 0,
    batch_size: OwnBatchSize = None,
    dtype: Dtype = "float32",
    max_megapixels: Megapixels = None,
    reduced: Reduced = False,
    part: Annotated[
        str | None, typer.Option(metavar="N/M", help="Mine part N of M of the data alone, for interpret merge.")
    ] = None,
    every_image: EveryImage = True,
) -> None:
    """Find the images that excite each unit most, and keep them in a study."""
    chosen, decoding = read_part(part), read_decoding(max_megapixels, reduced)
    opened = open_study(study, model, data, weights, crops, dtype, device, workers, batch_size, outputs, **decoding)
    if chosen is not None:
        opened.mine(layers, k, seed, part=chosen)
        say(f"Mined part {part} into {study}; when all parts are mined: interpret merge PART PART … --study STUDY")
        return
    _mine(opened, layers, k, seed, every_image)
    if ranks().first:
        _say_mined(opened)


def _say_mined(study: Study) -> None:
    """Print what was mined, and the next commands."""
    from interpret.support.wording import count

    units = sum(len(study.mined(name).values) for name in study.mined_layers)
    say(f"Mined {count(units, 'unit')} of {count(len(study.mined_layers), 'layer')} into {study.path}")
    if not all(study.rules(name) for name in study.mined_layers):
        folder = shlex.quote(str(study.path))
        say(f"Next: interpret project {folder}, and then interpret gallery {folder}")


def merge(
    parts: Annotated[
        list[Path],
        typer.Argument(metavar="PART...", help="Studies of mine --part, 1/1 for all of a folder."),
    ],
    study: Annotated[Path, typer.Option("--study", help="The folder for the study of the whole.")],
    device: Device = None,
    workers: Workers = None,
    every_image: EveryImage = True,
) -> None:
    """Merge studies of parts of a data set, or of several, mined on different days or machines, into one of the whole.

    Of several data sets, the whole is all of them, in the order in which their parts are named.
    """
    from interpret.study.merging import merge_studies

    origins = [made_from(part) for part in parts]
    named = [[origin["data"]] if isinstance(origin["data"], str) else origin["data"] for origin in origins]
    data = list(dict.fromkeys(chain.from_iterable(named)))
    opened = open_study(
        study, device=device, workers=workers, **origins[0] | {"data": data if len(data) > 1 else data[0]}
    )
    merge_studies(parts, opened)
    settings = opened.info["settings"]
    _mine(opened, opened.mined_layers, settings["k"], settings["seed"], every_image)
    _say_mined(opened)


def project(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="The folder of a study that has been mined.")],
    layers: Layers = None,
    rule: RuleNames = "deconvnet",
    device: Device = None,
    workers: Workers = None,
    batch_size: OwnBatchSize = None,
    units: Annotated[
        str,
        typer.Option(metavar="N", help="Units of each layer, the liveliest: a number, 'all', or 'auto' as in gallery."),
    ] = "all",
    dtype: Annotated[
        str,
        choice(
            "float32",
            "bfloat16",
            help="float32, or bfloat16, kept beside it: deep layers of VGG-16 1.8 times as fast on processors that "
            "compute in it, signals 1 % off (5 to 24 % on a GPU); SqueezeNet not faster.",
        ),
    ] = "float32",
) -> None:
    """Project each mined hit back to the pixels, and keep the pictures in the study."""
    rules, pictured = read_rules(rule), read_units(units, "--units", least=1)
    opened = reopen(study, device, workers, batch_size)
    opened.project(layers, rules, units=pictured, dtype=dtype)
    suffix = "" if dtype == "float32" else f"-{dtype}"
    folders = [str(study / "projections" / f"{one}{suffix}") for one in rules]
    say(f"Pictures are in {' and '.join(folders)}")


def filters(
    model: Model,
    layer: Annotated[str | None, typer.Argument(help="The layer; default: the first convolution.")] = None,
    out: Picture = Path("filters.png"),
    weights: Weights = None,
    scale: Annotated[
        str, choice("filter", "shared", help="'filter': each filter on its own scale; 'shared': all on one.")
    ] = "filter",
) -> None:
    """Plot a layer's kernels as pictures."""
    from interpret.analyses.filters.figure import plot_filters
    from interpret.figures.saving import check_figure_path, write_figure
    from interpret.loading.loading import load

    check_figure_path(out, "--out")
    figure = plot_filters(print_origin(load(model, weights)), layer, scale="shared" if scale == "shared" else "filter")
    write_figure(figure, out)
    say(f"Open {out}")


def summary(
    model: Model,
    weights: Weights = None,
    input_shape: Annotated[
        str | None, typer.Option(metavar="C,H,W", help="The input's shape, if the model has no preprocessing.")
    ] = None,
    format: Annotated[str, choice("text", "markdown", "json", help="text, markdown or json.")] = "text",
) -> None:
    """List a network's layers: size with its formula, kernel, parameters, operations, receptive field."""
    from interpret.loading.loading import load
    from interpret.tracing.summary import summarise

    with warnings.catch_warnings():
        # a summary needs no weights, and print_origin says that they are random
        warnings.filterwarnings("ignore", "model folder .* is an architecture")
        loaded = load(model, weights or "random" if _has_downloaded_weights(model) else weights)
    say(summarise(print_origin(loaded), read_shape(input_shape), format))  # type: ignore[arg-type]


def _has_downloaded_weights(model: str) -> bool:
    """Return whether a model's weights would be downloaded, which a summary does not need."""
    return model.startswith(("torchvision:", "timm:"))


def train(
    folder: Annotated[str, typer.Argument(metavar="MODEL_FOLDER", help="A folder with model.py and recipe.toml.")],
    out: Annotated[Path | None, typer.Option(help="Write the weights to a copy of the folder here.")] = None,
    epochs: Annotated[int | None, counted(help="Default: the recipe's.")] = None,
    seed: Annotated[int | None, counted(least=0, most=LARGEST_SEED, help="Default: the recipe's.")] = None,
    device: Device = None,
) -> None:
    """Train a model by its recipe; an interrupted training continues where it stopped."""
    from interpret.training.training import train as run

    result = run(folder, out=out, epochs=epochs, seed=seed, device=find_device(device) or "cpu")
    name, value = result.held_out.measure
    say(f"Held-out {name} {value:.2%}; weights are in {result.folder}")
