"""The `interpret` command: each verb works on a study folder and says at the end what to open."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
Weights = Annotated[
    str | None, typer.Option(help="A checkpoint (safetensors or state dict), or 'random' for untrained weights.")
]
Layers = Annotated[str | None, typer.Option(help="Layer names or globs, with commas. Default: all with units.")]
Out = Annotated[Path | None, typer.Option(help="Where to write.")]
StudyFolder = Annotated[Path | None, typer.Option("--study", help="The folder that keeps the results.")]
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
    from interpret.study import Study

    made_from = Study.open(study).info["made_from"]
    if not made_from:
        _fail(f"{study} was not begun by this command, which cannot know its model: call Study(...).project() instead")
    begun = _study(study, device=device, **made_from)
    begun.project(layers, _rule(rule))
    _say(f"Pictures are in {study / 'projections' / rule}")


@app.command()
def filters(
    model: Model,
    layer: Annotated[str | None, typer.Argument(help="The layer; default: the first convolution.")] = None,
    out: Annotated[Path, typer.Option(help="The picture to write: .png, .svg or .pdf.")] = Path("filters.png"),
    weights: Weights = None,
    scale: Annotated[str, typer.Option(help="'filter': each filter by itself; 'shared': all alike.")] = "filter",
) -> None:
    """Plot a layer's kernels as pictures."""
    from interpret.files import replacing
    from interpret.filters import plot_filters
    from interpret.loading import load

    kind = out.suffix.removeprefix(".").lower()
    if kind not in ("png", "svg", "pdf"):
        _fail(f"--out must end in .png, .svg or .pdf, not {out.name!r}")
    if scale not in ("filter", "shared"):
        _fail(f"--scale must be filter or shared, not {scale!r}")
    figure = plot_filters(_announced(load(model, weights)), layer, scale="shared" if scale == "shared" else "filter")
    with replacing(out) as new:
        figure.savefig(new, format=kind, dpi=200)
    _say(f"Open {out}")


@app.command()
def summary(
    model: Model,
    weights: Weights = None,
    input_shape: Annotated[
        str | None, typer.Option(metavar="C,H,W", help="The input's shape, where the model does not say it.")
    ] = None,
) -> None:
    """List a network's layers: shape, parameters, operations, receptive field."""
    from interpret.loading import load
    from interpret.summary import summarise

    _say(
        summarise(
            _announced(load(model, weights or "random" if _names_untrained(model) else weights)), _shape(input_shape)
        )
    )


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
        workers=max(0, min(8, (os.cpu_count() or 1) - 2)) if workers is None else workers,
        device=_device(device),
        dtype=dtype,
        made_from={"model": _lasting(model), "data": _lasting(data), "weights": weights and _lasting(weights)}
        | {"crops": crops, "dtype": dtype},
    )


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


def _fail(sentence: str, status: int = 2) -> Any:
    print(f"interpret: {sentence}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
