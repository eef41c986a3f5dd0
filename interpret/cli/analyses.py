"""The subcommands of single analyses: each draws a figure, and a study keeps its result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from interpret.cli.answers import note
from interpret.cli.options import (
    LARGEST_SEED,
    BatchSize,
    Crops,
    Device,
    Hidden,
    ImageCount,
    Layers,
    Megapixels,
    Methods,
    Outputs,
    OwnBatchSize,
    OwnData,
    Picture,
    Pictures,
    Reduced,
    RuleName,
    Seed,
    StudyFolder,
    Subject,
    Target,
    Weights,
    Workers,
    choice,
    counted,
)
from interpret.cli.reading import read_names, read_queries, read_rule, read_target, read_values, read_whole_numbers
from interpret.cli.subjects import evenly_spread_items, find_device, open_pictures, open_subject, worker_count


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
        str | None,
        choice(
            "vertical", "horizontal", "diagonal", help="Of a translation: vertical (default), horizontal or diagonal."
        ),
    ] = None,
    layers: Layers = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Indices of classes with commas, one an image, or 'predicted': the network's class for the "
            "untransformed image. Default: those of the images."
        ),
    ] = None,
    images: ImageCount = "5",
    fill: Annotated[
        str | None,
        choice(
            "context",
            "reflect",
            "edge",
            "mean",
            "black",
            help="What fills uncovered pixels: context (the larger photograph), reflect, edge, mean, black.",
        ),
    ] = None,
    out: Picture = Path("invariance.png"),
    study: StudyFolder = None,
    weights: Weights = None,
    outputs: Outputs = None,
    crops: Crops = None,
    device: Device = None,
    workers: Workers = None,
    batch_size: OwnBatchSize = None,
    seed: Annotated[int, counted(least=0, most=LARGEST_SEED, help="Seed of the noise.")] = 0,
    max_megapixels: Megapixels = None,
    reduced: Reduced = False,
) -> None:
    """Measure how far features move as images are shifted, scaled, rotated or lit differently.

    Zeiler & Fergus 2014, figure 5. MODEL may also be a study's folder, which keeps the results.
    """
    from interpret.analyses.invariance.compute import probe as run
    from interpret.analyses.invariance.figure import plot_invariance
    from interpret.analyses.invariance.transforms import named_transform
    from interpret.figures.saving import check_figure_path
    from interpret.support.errors import InterpretError

    check_figure_path(out, "--out")
    names = [name.strip() for name in transform.split(",") if name.strip()]
    if not names:
        raise InterpretError("--transform is empty: name at least one")
    for name in names:
        named_transform(name)
    if direction is not None and "translation" not in names:
        raise InterpretError(f"--direction {direction} is of a translation, and --transform names none: leave it out")
    chosen_values = None if values is None else read_values(values)
    if chosen_values is not None and len(names) > 1:
        raise InterpretError("--values are those of one transform: name one with --transform")
    label_indices = labels if labels in (None, "predicted") else read_whole_numbers(str(labels), "--labels")
    subject = open_subject(
        model,
        data,
        study,
        weights,
        crops,
        device,
        workers,
        outputs=outputs,
        out=out,
        decoding=(max_megapixels, reduced),
    )
    items = evenly_spread_items(subject.images, images)
    kept_in = subject.unfinished("probe")
    found = []
    for name in names:
        curves = run(
            subject.model,
            subject.images,
            name,
            chosen_values,
            layers,
            label_indices,
            direction=direction if name == "translation" else None,  # type: ignore[arg-type]
            fill=fill,  # type: ignore[arg-type]
            items=items,
            batch_size=batch_size,
            workers=worker_count(workers),
            seed=seed,
            device=find_device(device),
            resume_from=kept_in and kept_in / f"{name}.safetensors",
        )
        found.append(curves)
        subject.keep(curves, curves.name)
    if all(curves.probabilities is None for curves in found):
        note("No labels: the curves come without probabilities; see --labels.")
    subject.draw(lambda: plot_invariance(*found), out)
    subject.finish("probe")


def occlude(
    model: Subject,
    data: OwnData = None,
    size: Annotated[int, counted(help="Side of the square that hides a part of the image, in pixels.")] = 32,
    stride: Annotated[int, counted(help="Its step, in pixels.")] = 16,
    fill: Annotated[str, choice("grey", "mean", help="'grey', or 'mean': each image's own mean colour.")] = "grey",
    layer: Annotated[
        str | None,
        typer.Option(help="The layer whose strongest feature map is measured. Default: the last convolution."),
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
    outputs: Outputs = None,
    crops: Crops = None,
    device: Device = None,
    batch_size: BatchSize = 32,
    max_megapixels: Megapixels = None,
    reduced: Reduced = False,
) -> None:
    """Hide parts of images and measure how the network's answer changes.

    Zeiler & Fergus 2014, figure 7. MODEL may also be a study's folder, which keeps the result.
    """
    from interpret.analyses.occlusion.compute import occlude as run
    from interpret.analyses.predictions.compute import different_classes
    from interpret.figures.saving import check_figure_path
    from interpret.images.batches import read_items

    check_figure_path(out, "--out")
    label_indices = None if labels is None else read_whole_numbers(labels, "--labels")
    subject = open_subject(
        model, data, study, weights, crops, device, outputs=outputs, out=out, decoding=(max_megapixels, reduced)
    )
    items = evenly_spread_items(subject.images, images)
    if items is not None and label_indices is None:
        # one example of each class is enough
        items = different_classes(subject.model, subject.images, len(items), device=find_device(device))
    chosen = read_items(subject.images, items or range(len(subject.images)))
    if label_indices is None and int(chosen.labels.min()) >= 0 and subject.images.classes == subject.model.classes:
        label_indices = chosen.labels.tolist()
    kept_in = subject.unfinished("occlude")
    found = run(
        subject.model,
        chosen.images,
        label_indices,
        size,
        stride,
        layer=layer,
        fill=fill,
        others=subject.images if others else None,
        batch_size=batch_size,
        device=find_device(device),
        resume_from=kept_in and kept_in / "others.safetensors",
    )
    subject.publish(found, out, found.layer or "")
    subject.finish("occlude")


def evolve(
    model: Subject,
    data: OwnData = None,
    checkpoints: Annotated[
        str | None, typer.Option(help="A folder with one file an epoch. Default: the model folder's own epochs.")
    ] = None,
    layers: Layers = None,
    units: Annotated[int, counted(help="Number of units of each layer, drawn at random.")] = 6,
    rule: RuleName = "deconvnet",
    out: Picture = Path("evolution.png"),
    study: StudyFolder = None,
    crops: Crops = None,
    device: Device = None,
    workers: Workers = None,
    seed: Seed = 0,
    batch_size: OwnBatchSize = None,
    max_megapixels: Megapixels = None,
    reduced: Reduced = False,
) -> None:
    """Follow units and features through the kept epochs of a training."""
    from interpret.analyses.evolution.compute import evolve as run
    from interpret.figures.saving import check_figure_path

    check_figure_path(out, "--out")
    chosen = read_rule(rule)
    # with checkpoints, the model's own weights are not used
    subject = open_subject(
        model,
        data,
        study,
        None,
        crops,
        device,
        workers,
        batch_size,
        own_weights=checkpoints is None,
        out=out,
        decoding=(max_megapixels, reduced),
    )
    found = run(
        checkpoints or subject.spec,
        subject.images,
        layers,
        units,
        model=subject.model,
        rule=chosen,
        batch_size=batch_size,
        workers=worker_count(workers),
        seed=seed,
        device=find_device(device),
        resume_from=subject.unfinished("evolve"),
    )
    subject.publish(found, out, layers or "")
    subject.finish("evolve")


def neighbours(
    model: Subject,
    data: OwnData = None,
    queries: Annotated[
        str | None,
        typer.Option(help="A folder of images, or items of the data by number, with commas. Default: 8 items."),
    ] = None,
    layer: Annotated[
        str | None, typer.Option(help="The layer whose features are compared. Default: the last hidden layer.")
    ] = None,
    k: Annotated[int, counted("-k", help="Number of neighbours.")] = 6,
    metric: Annotated[str, choice("euclidean", "cosine", help="euclidean or cosine.")] = "euclidean",
    average: Annotated[bool, typer.Option("--average", help="Average features over positions.")] = False,
    out: Picture = Path("neighbours.png"),
    study: StudyFolder = None,
    weights: Weights = None,
    crops: Crops = None,
    device: Device = None,
    workers: Workers = None,
    batch_size: OwnBatchSize = None,
    max_megapixels: Megapixels = None,
    reduced: Reduced = False,
) -> None:
    """Find the most similar images by a network's features; a study keeps the features for the next search."""
    from interpret.analyses.neighbours.compute import find_neighbours
    from interpret.figures.saving import check_figure_path

    check_figure_path(out, "--out")
    subject = open_subject(
        model, data, study, weights, crops, device, workers, batch_size, out=out, decoding=(max_megapixels, reduced)
    )
    found = find_neighbours(
        subject.model,
        read_queries(queries, len(subject.images)),
        subject.images,
        layer,
        k,
        metric=metric,  # type: ignore[arg-type]
        average=average,
        index=subject.study.path / "features" if subject.study else None,
        batch_size=batch_size,
        workers=worker_count(workers),
        device=find_device(device),
    )
    subject.publish(found, out, found.layer)


def attribute(
    model: Subject,
    images: Pictures = None,
    out: Picture = Path("methods.png"),
    methods: Methods = None,
    target: Target = None,
    layer: Hidden = None,
    count: ImageCount = "4",
    weights: Weights = None,
    max_megapixels: Megapixels = None,
    reduced: Reduced = False,
) -> None:
    """Show the evidence for a class or a unit, by ten attribution methods side by side.

    MODEL may also be a study's folder, which keeps the result.
    """
    from interpret.analyses.methods.compute import compare_methods
    from interpret.figures.saving import check_figure_path

    check_figure_path(out, "--out")
    chosen: Any = read_names(methods)
    subject = open_pictures(model, images, count, weights, out, decoding=(max_megapixels, reduced))
    found = compare_methods(subject.model, subject.images, chosen, read_target(target), layer)
    subject.publish(found, out, layer or "")


def sanity(
    model: Subject,
    images: Pictures = None,
    out: Picture = Path("sanity.png"),
    methods: Methods = None,
    target: Target = None,
    layer: Hidden = None,
    steps: Annotated[int, counted(help="Steps from the trained network to one of random weights.")] = 10,
    seed: Annotated[int, counted(least=0, most=LARGEST_SEED, help="Seed of the random weights.")] = 0,
    count: ImageCount = "4",
    weights: Weights = None,
    max_megapixels: Megapixels = None,
    reduced: Reduced = False,
) -> None:
    """Check whether attribution maps change when the layers are randomised from the top down.

    MODEL may also be a study's folder, which keeps the result.
    """
    from interpret.analyses.sanity.compute import sanity_check
    from interpret.figures.saving import check_figure_path

    check_figure_path(out, "--out")
    chosen: Any = read_names(methods)
    subject = open_pictures(model, images, count, weights, out, decoding=(max_megapixels, reduced))
    found = sanity_check(subject.model, subject.images, chosen, read_target(target), layer, steps=steps, seed=seed)
    subject.publish(found, out, layer or "")
