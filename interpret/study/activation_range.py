"""Find examples from the whole range of each unit's activations, on the sample of a study's images."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interpret.analyses.mining.batch_maxima import strongest_places
from interpret.analyses.mining.result import MinedLayer
from interpret.analyses.projection.crop import Crop
from interpret.execution.execution import Execution, prepared
from interpret.execution.resume import Unfinished, layers_to_resume
from interpret.figures.drawn_inputs import WHOLE_SIZE, boxes_in_picture
from interpret.images.batches import Batch, first_images
from interpret.images.display import inputs_to_bytes, webp
from interpret.network.answers import NoScores, Reading, find_reading, scores_of
from interpret.network.forward import call_network
from interpret.network.layers import Layout, first_outputs
from interpret.network.model import Model
from interpret.study.source_pictures import write_listed
from interpret.support.checksums import KEY, sealed_arrays, sealed_json
from interpret.support.files import any_file, discard, replacing, sync_files, write_text
from interpret.support.progress import progress
from interpret.tracing.tracing import layouts_of

if TYPE_CHECKING:
    from interpret.study.study import Study

GROUPS = 5
"""The quarters of a unit's range by rank, strongest first, and the weakest images."""
GROUP_SIZE = 4
LIKELIEST_CLASSES = 5
"""Classes that are kept of each image of the sample."""


def find_range_examples(study: Study) -> None:
    """Keep range examples of the mined layers that have none, and the inputs of the sample as pictures."""
    model, data = study.to_compute()
    missing = [name for name in study.mined_layers if not study.activation_range_file(name).exists()]
    unfinished_file = study.path / "unfinished" / "activation-range.safetensors"
    missing = layers_to_resume(unfinished_file, missing, lambda name: study.activation_range_file(name).exists())
    if not missing:
        discard(study.path / "unfinished", [])
        return
    chosen = {name: choose_examples(study.mined(name)) for name in missing}
    layouts = layouts_of(study.traced, chosen)
    axes = len(study.info["model"]["input_shape"]) - 1
    positions = {name: np.zeros((*found["items"].shape, axes), np.int64) for name, found in chosen.items()}
    rois = {
        name: np.zeros((*found["items"].shape, 4), np.float32)
        for name, found in chosen.items()
        if study.traced[name].boxes is not None
    }
    known_at = positions | {f"boxes of {name}": found for name, found in rois.items()}
    items = np.sort(study.mined(missing[0]).sample_images)
    known = study.samples()
    unfinished = Unfinished(unfinished_file, {"layers": missing})
    done = 0
    for name, found in unfinished.load().items():
        if name == "done":
            done = int(found)
        else:
            known_at[name][:] = found.numpy()
    if not set(items[:done].tolist()) <= known.keys():  # their list was lost
        done = 0

    def state() -> dict[str, Tensor]:
        _write_samples(study, known)
        return {"done": torch.tensor(done)} | {name: torch.from_numpy(found) for name, found in known_at.items()}

    with (
        prepared(model, first_images(data), study.device) as run,
        progress(len(items), "sampling", "img", done) as bar,
    ):
        size = run.batch_size(study.batch_size)
        reading = _reading(model, run.place(torch.stack([data[item][0] for item in items[:size].tolist()])))

        def sample(part: NDArray[np.int64]) -> None:
            nonlocal done
            read = [data[item] for item in part.tolist()]
            images = torch.stack([image for image, _ in read])
            batch = Batch(images, torch.from_numpy(part), torch.tensor([label for _, label in read]))
            outputs = run_and_locate(model, batch, chosen, positions, run, study.dtype, layouts, rois)
            classes = None if reading is None else _likeliest_classes(reading, outputs, len(images))
            _keep_samples(study, batch, classes, reading, known)
            done += len(part)
            bar.update(len(part))

        unfinished.process((items[start : start + size] for start in range(done, len(items), size)), sample, state)
    for name in missing:
        boxes = _boxes_in_input(study, name, positions[name], rois.get(name))
        content = sealed_arrays(chosen[name] | {"positions": positions[name], "boxes": boxes})
        with replacing(study.activation_range_file(name), any_file) as new:
            new.write_bytes(content)
    unfinished.forget()
    discard(study.path / "unfinished", [])


def choose_examples(mined: MinedLayer) -> dict[str, NDArray[Any]]:
    """Return the items of the sample that show each unit's range, and their values, both [C, 5, 4].

    Where there are too few, items are −1 and values NaN.
    """
    maxima, items = mined.sample_maxima, mined.sample_images
    count, units = maxima.shape
    # of equal values, the lowest item comes first
    order = np.lexsort((np.broadcast_to(items[:, None], maxima.shape), -maxima), axis=0)
    groups = [
        np.unique(np.minimum((quarter + (np.arange(GROUP_SIZE) + 0.5) / GROUP_SIZE) / 4 * count, count - 1).astype(int))
        for quarter in range(4)
    ]
    groups.append(np.arange(max(count - GROUP_SIZE, 0), count))
    chosen = np.full((units, GROUPS, GROUP_SIZE), -1, np.int64)
    values = np.full((units, GROUPS, GROUP_SIZE), np.nan, np.float32)
    for group, ranks in enumerate(groups):
        chosen[:, group, : len(ranks)] = items[order[ranks]].T
        values[:, group, : len(ranks)] = np.take_along_axis(maxima, order[ranks], 0).T
    return {"items": chosen, "values": values}


def run_and_locate(
    model: Model,
    batch: Batch,
    chosen: Mapping[str, Mapping[str, NDArray[Any]]],
    positions: Mapping[str, NDArray[np.int64]],
    run: Execution,
    dtype: torch.dtype | None,
    layouts: Mapping[str, Layout],
    rois: Mapping[str, NDArray[np.float32]],
) -> Any:
    """Run the network on a batch and return its outputs.

    Write the positions of the chosen maxima into `positions`, and their boxes into `rois`, of layers that run once a
    box.
    """
    row_of = {item: row for row, item in enumerate(batch.items.tolist())}

    def receive(name: str, output: Any) -> None:
        axes = batch.images.dim() - 2
        if output.dim() != axes + 2:
            return
        items = chosen[name]["items"]
        units, groups, places = np.nonzero(np.isin(items, batch.items.numpy()))
        if not len(units):
            return
        rows = torch.tensor([row_of[item] for item in items[units, groups, places].tolist()])
        flat = strongest_places(name, output, axes)[1].cpu()[rows, torch.from_numpy(units)].numpy()
        at = np.stack(np.unravel_index(flat, output.shape[2:]), 1)
        if name in rois:
            of_images = calls[str(layouts[name].boxes)].of_images()
            height = output.shape[2] // max(1, *map(len, of_images), 0)
            for row, number, *place in zip(rows.tolist(), at[:, 0] // height, units, groups, places, strict=True):
                if len(of_images[row]):
                    rois[name][tuple(place)] = of_images[row][number].numpy()
            at[:, 0] %= height
        positions[name][units, groups, places] = at

    images = run.place(batch.images)
    hooks = first_outputs(model.module, chosen, receive, count=len(images), layouts=layouts)
    with torch.inference_mode(), run.autocast(dtype), hooks as calls:
        return call_network(model.module, images)


def _reading(model: Model, images: Tensor) -> Reading | None:
    """Return how the network's outputs are read; None where they are not the classes of its model."""
    try:
        found = find_reading(model, images)
    except NoScores:
        return None
    return found if model.classes is not None and found.classes == len(model.classes) else None


def _likeliest_classes(reading: Reading, outputs: Any, count: int) -> list[tuple[list[int], list[float]]]:
    """Return each image's likeliest classes and their probabilities."""
    best = reading.probabilities(scores_of(outputs, count)).topk(min(LIKELIEST_CLASSES, reading.classes))
    shares = [[round(share, 4) for share in row] for row in best.values.tolist()]
    return list(zip(best.indices.tolist(), shares, strict=True))


def _keep_samples(
    study: Study,
    batch: Batch,
    classes: list[tuple[list[int], list[float]]] | None,
    reading: Reading | None,
    known: dict[int, dict[str, Any]],
) -> None:
    """Keep inputs of the sample as pictures, add what is known of them to `known`, and write it."""
    _, data = study.to_compute()
    pictures = inputs_to_bytes(batch.images, data.pixel_scale, WHOLE_SIZE)
    for row, (item, label) in enumerate(zip(batch.items.tolist(), batch.labels.tolist(), strict=True)):
        source = int(data.sources[item])
        known[item] = {"source": source, "name": data.source_name(source), "label": int(label)}
        if classes is not None and reading is not None:
            known[item] |= {"classes": classes[row][0], "probabilities": classes[row][1]}
            known[item] |= {"outputs": reading.outputs, "part": reading.part}
        content = webp(pictures[row], min(pictures.shape[1:3]))
        write_listed(study.sample_picture(item), content)
        known[item][KEY] = hashlib.sha256(content).hexdigest()


def _write_samples(study: Study, known: dict[int, dict[str, Any]]) -> None:
    """List the sample's inputs, once their pictures are on the disk."""
    sync_files(study.sample_picture(item) for item in known)
    write_text(
        study.path / "samples.json", sealed_json({str(item): known[item] for item in sorted(known)}, indent=0), any_file
    )


def _boxes_in_input(
    study: Study, name: str, positions: NDArray[np.int64], rois: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """Return the windows that neurons see, in fractions of the network's input."""
    sides = tuple(study.info["model"]["input_shape"][1:])
    boxes = Crop.of(study.traced[name], sides).boxes(torch.from_numpy(positions.reshape(-1, len(sides)))).numpy()
    boxes = boxes if rois is None else rois.reshape(-1, 4)
    fractions = np.clip(boxes_in_picture(boxes, sides), 0, 1)
    return fractions.astype(np.float32).reshape(*positions.shape[:-1], 4)
