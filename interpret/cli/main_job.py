"""The verbs of the main job: from a network and images to a gallery."""

from __future__ import annotations

import shlex
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interpret.cli.answers import fail, say, say_skipped
from interpret.cli.options import (
    Crops,
    Data,
    Device,
    Dtype,
    K,
    Layers,
    Model,
    Out,
    Outputs,
    OwnBatchSize,
    Picture,
    RuleNames,
    Seed,
    StudyFolder,
    Weights,
    Workers,
)
from interpret.cli.reading import read_rules, read_shape
from interpret.cli.subjects import announced, find_device, open_study, refuse_among_images, reopen

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
    from interpret.study.study import Study

    out = out or Path("interpret-gallery")
    check_target(out)
    rules = read_rules(rule)
    if (Path(model) / "study.json").exists():
        begun = Study.open(model)
    else:
        refuse_among_images(out, data, "the gallery")
        folder = study or out.resolve().with_name(out.resolve().name + ".study")
        begun = open_study(folder, model, data, weights, crops, dtype, device, workers, batch_size, outputs)
        _mine(begun, layers, k, seed)
        begun.project(layers, rules)
    say(f"Open {write_gallery(begun, out, context=context)}")


def _mine(study: Study, layers: str | None, k: int, seed: int) -> None:
    """Compute what a gallery shows and only the model and the data can tell, but for the projections."""
    study.mine(layers, k, seed)
    study.draw_filters(every=True)
    study.connect()
    study.find_activation_range_examples()
    study.predict()
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
) -> None:
    """Find the images that excite each unit most, and keep them in a study."""
    from interpret.support.wording import count

    begun = open_study(study, model, data, weights, crops, dtype, device, workers, batch_size, outputs)
    _mine(begun, layers, k, seed)
    units = sum(len(begun.mined(name).values) for name in begun.mined_layers)
    say(f"Mined {count(units, 'unit')} of {count(len(begun.mined_layers), 'layer')} into {study}")
    if not all(begun.rules(name) for name in begun.mined_layers):
        say(f"Next: interpret project {shlex.quote(str(study))}, and then interpret gallery {shlex.quote(str(study))}")


def project(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="The folder of a study that has been mined.")],
    layers: Layers = None,
    rule: RuleNames = "deconvnet",
    device: Device = None,
) -> None:
    """Project each mined hit back to the pixels, and keep the pictures in the study."""
    rules = read_rules(rule)
    begun = reopen(study, device)
    begun.project(layers, rules)
    begun_at = [str(study / "projections" / one) for one in rules]
    say(f"Pictures are in {' and '.join(begun_at)}")


def filters(
    model: Model,
    layer: Annotated[str | None, typer.Argument(help="The layer; default: the first convolution.")] = None,
    out: Picture = Path("filters.png"),
    weights: Weights = None,
    scale: Annotated[str, typer.Option(help="'filter': each filter by itself; 'shared': all alike.")] = "filter",
) -> None:
    """Plot a layer's kernels as pictures."""
    from interpret.analyses.filters.compute import plot_filters
    from interpret.figures.saving import check_figure_path, write_figure
    from interpret.loading.loading import load

    check_figure_path(out, "--out")
    if scale not in ("filter", "shared"):
        fail(f"--scale must be filter or shared, not {scale!r}")
    figure = plot_filters(announced(load(model, weights)), layer, scale="shared" if scale == "shared" else "filter")
    write_figure(figure, out)
    say(f"Open {out}")


def summary(
    model: Model,
    weights: Weights = None,
    input_shape: Annotated[
        str | None, typer.Option(metavar="C,H,W", help="The input's shape, where the model does not say it.")
    ] = None,
    format: Annotated[str, typer.Option(help="text, markdown or json.")] = "text",
) -> None:
    """List a network's layers: size and its formula, kernel, parameters, operations, receptive field."""

    from interpret.loading.loading import load
    from interpret.support.errors import unknown
    from interpret.tracing.summary import summarise

    if format not in ("text", "markdown", "json"):
        raise unknown("--format", format, ("text", "markdown", "json"))
    with warnings.catch_warnings():
        # that an architecture's weights are random is announced, and a summary does not need any
        warnings.filterwarnings("ignore", "model folder .* is an architecture")
        loaded = load(model, weights or "random" if _names_untrained(model) else weights)
    say(summarise(announced(loaded), read_shape(input_shape), format))  # type: ignore[arg-type]


def _names_untrained(model: str) -> bool:
    """A summary needs no weights: those that would have to be downloaded are not asked for."""
    return model.startswith(("torchvision:", "timm:"))


def train(
    folder: Annotated[str, typer.Argument(metavar="MODEL_FOLDER", help="A folder with model.py and recipe.toml.")],
    out: Annotated[Path | None, typer.Option(help="Write the weights to a copy of the folder here.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    device: Device = None,
) -> None:
    """Train a model by its recipe; an interrupted training goes on where it stopped."""
    from interpret.training.training import train as run

    result = run(folder, out=out, epochs=epochs, seed=seed, device=find_device(device) or "cpu")
    say(f"Held-out accuracy {result.held_out.accuracy:.2%}; weights are in {result.folder}")
